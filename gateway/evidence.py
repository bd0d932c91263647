"""From what is said of a person's consent to the events that the ledger keeps, or everything that is wrong with it.

The rule that must not be broken: what happened is recorded as that and never as anything stronger (requirements §1.4).
A box that was ticked already, silence, or terms that were accepted are no opt-in; neither is a time that cannot be.
Whose word it is (a program's, an operator's) and where it is kept is left to whoever asks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.address import Address
from gateway.consent import Event, EventType, NewEvent, Source
from gateway.model import Company, Period, Topic

BASES: Final[Mapping[str, tuple[EventType, ...]]] = {
    "express": (EventType.EXPRESS_OPT_IN,),
    "confirmed": (EventType.OPT_IN_CONFIRMED,),
    "sale": (EventType.SALE,),
    "inquiry": (EventType.INQUIRY,),
    "soft-opt-in": (EventType.SALE, EventType.SOFT_OPTOUT_OFFERED),
    "policy-accepted": (EventType.POLICY_ACCEPTED,),
    "corporate": (EventType.CORPORATE_SUBSCRIBER,),
}
"""What is recorded for each basis: what happened. A soft opt-in is a sale at which an opt-out was offered."""

CONSENTS: Final = frozenset({"express", "confirmed"})
"""The bases that are consent to one topic; the others come of dealings with the company as a whole."""

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Nobody has opted in to mail before this: an earlier time is a mistake of whoever tells it (CON-09)."""

CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""By how much the clock of whoever tells an event may be ahead of ours."""

STATEMENTS: Final = ("purpose", "requester", "contact", "withdrawal")
"""What a request for consent may have to say: for what, who asks, where they are reached, that it can be withdrawn."""

METHODS: Final = ("web-form", "app", "paper", "phone", "in-person", "email", "point-of-sale")
"""How people may have been asked; the first unless told."""

PUBLISHED: Final = "published"
"""The method of whoever found an address in public: nobody has agreed to anything (Spam Act 2003, Schedule 2 cl. 4)."""

_WITHDRAWAL = re.compile(
    r"withdraw|unsubscrib|opt(?:ing)?[ -]?out|revoke|change your mind|stop (?:at any time|these|them|this)|at any time"
    r"|retirer|désabonn|désinscri|widerruf|abmeld|abbestell|darte de baja|revocar|annulla|disiscri|afmeld|avregistrer",
    re.IGNORECASE,
)
_REACHABLE = re.compile(r"[^\s@]+@[^\s@]+\.\w|https?://|www\.|\+?\d[\d ()/.-]{6,}\d")

_UNTICKED: Final = ("", "unticked")
_CATEGORIES: Final = ("partner", "affiliate", "third part", "sponsor", "advertiser", "selected compan", "and others")
"""Words by which a controller is a category and not somebody (CON-05)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A registered notice: the wording, place and control under which people opt in, and its period.

    `kind` is what the control was and `control` how it stood before anybody touched it; `method` is how the answer was
    collected; `controllers` are who was named as asking; `policy_version` is that of the privacy policy that the notice
    pointed at (GDPR 13). `states` is what its text says of what Canada wants said (`STATEMENTS`).
    """

    name: str
    topic: str
    text: str
    url: str
    control: str
    valid_from: datetime
    valid_until: datetime | None
    number: int = 0
    version: str = "1"
    language: str = "en"
    kind: str = "checkbox"
    method: str = "web-form"
    controllers: tuple[str, ...] = ()
    policy_version: str = ""
    states: tuple[str, ...] = ()

    def was_shown(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)

    @property
    def sha256(self) -> str:
        """The digest of the exact text, in hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @property
    def facts(self) -> dict[str, str]:
        """What an event says of the notice for ever: its name, its language, and what it cannot have been but this."""
        policy = {"policy_version": self.policy_version} if self.policy_version else {}
        return {"notice": self.name, "notice_sha256": self.sha256, "language": self.language, **policy}


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of one person: that they said yes (or, `refused`, no) on a basis, to topics, at a time.

    `control_state` is how the control stood before the person met it, `with_terms` that the same control accepted the
    terms too; `method` is how it was collected, if not as the notice says; `must_state` is what the law of the place
    wants the notice to say. `country` is what the person declared, `seen_in` where their IP address is. `controllers`
    are who may rely on it by name, `own_name` being the company itself. `facts` and `personal` are what else is kept:
    for ever, and until it is erased.
    """

    address: Address
    at: datetime
    topics: tuple[str, ...]
    basis: str = "express"
    refused: bool = False
    control_state: str = ""
    with_terms: bool = False
    method: str = ""
    controllers: tuple[str, ...] = ()
    own_name: str = ""
    must_state: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    free: bool = False
    country: str = ""
    seen_in: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] = field(default_factory=dict)


_SAYING_YES = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED)


def not_to_be_asked(history: Sequence[Event], ask_again: Period) -> dict[str, datetime]:
    """Return the topics that a person refused when asked, and until when nobody asks for them again (CON-12)."""
    refused: dict[str, datetime] = {}
    for one in history:
        if one.type is EventType.CONSENT_REFUSED:
            refused[one.topic] = one.at
        elif one.type in _SAYING_YES and one.at > refused.get(one.topic, one.at):
            del refused[one.topic]
    return {topic: ask_again.after(at) for topic, at in refused.items()}


def problems_of(
    claim: Claim, topics: Mapping[str, Topic], notice: Notice | None, now: datetime
) -> list[tuple[str, str]]:
    """Return everything that is wrong with a claim: the field, and a sentence about it; [] where it can be recorded.

    `notice` is the registered one under which it was given, None where none was named.
    """
    return [
        *_about_time(claim, notice, now),
        *_about_topics(claim, topics, notice),
        *_about_control(claim),
        *_about_words(claim, notice),
    ]


def wrong_with_time(at: datetime, now: datetime) -> str:
    """Return why nobody can have said yes or no at that time; "" where they can (CON-09)."""
    if at > now + CLOCKS_DIFFER:
        return "the time lies in the future"
    return f"the time lies before {EARLIEST.year}, when nobody opted in to mail" if at < EARLIEST else ""


def events_of(claim: Claim, topics: Mapping[str, Topic]) -> list[NewEvent]:
    """Return the events that a claim without problems amounts to."""
    personal = {"address": claim.address.text, **claim.personal}
    dealings = _refusals(claim) if claim.refused else _dealings(claim, topics)
    events = [
        NewEvent(kind, claim.address, claim.at, topic, facts={**claim.facts, **further}, personal=personal)
        for kind, topic, further in dealings
    ]
    for country, source in ((claim.country, Source.DECLARED), (claim.seen_in, Source.IP)):
        if country:
            where = {**claim.facts, "country": country, "source": source}
            events.append(NewEvent(EventType.PLACE_LEARNED, claim.address, claim.at, facts=where, personal=personal))
    return events


def statements_in(text: str, topic: Topic, company: Company) -> tuple[str, ...]:
    """Return which of `STATEMENTS` a notice's text makes, as far as can be told from its words."""
    words = _plain(text)
    has_address = _plain(company.postal_address) in words and _REACHABLE.search(text)
    says = {
        "purpose": _plain(topic.name) in words,
        "requester": _plain(company.name) in words,
        "contact": bool(has_address),
        "withdrawal": bool(_WITHDRAWAL.search(text)),
    }
    return tuple(one for one in STATEMENTS if says[one])


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _about_time(claim: Claim, notice: Notice | None, now: datetime) -> Iterator[tuple[str, str]]:
    if wrong := wrong_with_time(claim.at, now):
        yield "at", wrong
    elif notice and not notice.was_shown(claim.at):
        yield "at", f"nobody was shown the notice {notice.name} at that time"


def _about_topics(claim: Claim, topics: Mapping[str, Topic], notice: Notice | None) -> Iterator[tuple[str, str]]:
    if not claim.topics:
        yield "topics", "names no topic"
    for one in claim.topics:
        if one not in topics:
            yield "topics", f"there is no topic {one}; there are {', '.join(topics)}"
        elif notice and one != notice.topic:
            yield "topics", f"the notice {notice.name} is about {notice.topic}, not about {one}"


def _about_control(claim: Claim) -> Iterator[tuple[str, str]]:
    """What the person did must have been an act of its own (GDPR recital 32, Article 7(2))."""
    if claim.basis in CONSENTS and not claim.refused:
        if claim.control_state not in _UNTICKED:
            yield "control_state", "a control that was ticked already is no opt-in (GDPR recital 32)"
        if claim.with_terms:
            yield "with_terms", "accepting the terms is no opt-in; record it with the basis policy-accepted"
    if claim.method == PUBLISHED:
        yield (
            "method",
            "that an address is published is no dealing with whoever has it (Spam Act 2003, Schedule 2 cl. 4)",
        )
    yield from (("controllers", problem) for problem in about_controllers(claim.controllers))


def about_controllers(names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the names of who relies on a consent: each must be somebody (CON-05)."""
    for one in names:
        if any(word in one.lower() for word in _CATEGORIES):
            yield f"{one} is a category; name each controller"


def _about_words(claim: Claim, notice: Notice | None) -> Iterator[tuple[str, str]]:
    """Where the law says what a request for consent must say, one that did not is no request (SOR/2012-36, s. 4)."""
    if notice and claim.basis in CONSENTS and not claim.refused:
        unsaid = [one for one in claim.must_state if one not in notice.states]
        if unsaid:
            yield (
                "notice",
                f"the notice {notice.name} does not state what their country wants: {', '.join(unsaid)}",
            )


def _refusals(claim: Claim) -> Iterator[tuple[EventType, str, dict[str, Any]]]:
    """Who said no when asked is not asked again, and what they once agreed to is over (CON-12)."""
    yield from ((EventType.CONSENT_REFUSED, topic, {}) for topic in claim.topics)


def _dealings(claim: Claim, topics: Mapping[str, Topic]) -> Iterator[tuple[EventType, str, dict[str, Any]]]:
    """Yield what happened: an opt-in for each topic and controller, a sale, and what it offered, for each family."""
    said_to = [{}] if not claim.controllers else [_relying(one, claim.own_name) for one in claim.controllers]
    met = {"control_state": claim.control_state, "method": claim.method}
    told = {"basis": claim.basis, **{name: one for name, one in met.items() if one}}
    for kind in BASES[claim.basis]:
        if kind is EventType.SALE:
            free = {"free": True} if claim.free else {}
            yield from ((kind, "", {**told, "family": one, **free}) for one in _families(claim, topics))
        elif kind is EventType.SOFT_OPTOUT_OFFERED:
            sold = _families(claim, topics)
            yield from ((kind, "", {**told, "family": one, **who}) for one in sold for who in said_to)
        else:
            about = claim.topics if claim.basis in CONSENTS else ("",)
            yield from ((kind, topic, {**told, **who}) for topic in about for who in said_to)


def _relying(controller: str, own_name: str) -> dict[str, Any]:
    """The company's own consent names no controller; another's names whose it is (POL-31)."""
    return {} if controller == own_name else {"controller": controller}


def _families(claim: Claim, topics: Mapping[str, Topic]) -> Sequence[str]:
    of_topics = tuple(dict.fromkeys(family for one in claim.topics for family in topics[one].families))
    return claim.families or of_topics or ("",)
