"""From what is said of a person's consent to the events that the ledger keeps, or everything that is wrong with it.

The rule that must not be broken: what happened is recorded as that and never as anything stronger (requirements §1.4).
A box that was ticked already, silence, or terms that were accepted are no opt-in; neither is a time that cannot be.
Whose word it is (a program's, an operator's) and where it is kept is left to whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.address import Address
from gateway.consent import EventType, NewEvent, Source
from gateway.model import Topic

BASES: Final[Mapping[str, tuple[EventType, ...]]] = {
    "express": (EventType.EXPRESS_OPT_IN,),
    "confirmed": (EventType.OPT_IN_CONFIRMED,),
    "sale": (EventType.SALE,),
    "inquiry": (EventType.INQUIRY,),
    "soft-opt-in": (EventType.SALE, EventType.SOFT_OPTOUT_OFFERED),
    "policy-accepted": (EventType.POLICY_ACCEPTED,),
}
"""What is recorded for each basis: what happened. A soft opt-in is a sale at which an opt-out was offered."""

CONSENTS: Final = frozenset({"express", "confirmed"})
"""The bases that are consent to one topic; the others come of dealings with the company as a whole."""

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Nobody has opted in to mail before this: an earlier time is a mistake of whoever tells it (CON-09)."""

CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""By how much the clock of whoever tells an event may be ahead of ours."""

_UNTICKED: Final = ("", "unticked")
_CATEGORIES: Final = ("partner", "affiliate", "third part", "sponsor", "advertiser", "selected compan", "and others")
"""Words by which a controller is a category and not somebody (CON-05)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A registered notice: the wording, place and control under which people opt in, and its period."""

    name: str
    topic: str
    text: str
    url: str
    control: str
    valid_from: datetime
    valid_until: datetime | None
    number: int = 0

    def was_shown(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of one person: that they said yes (or, `refused`, no) on a basis, to topics, at a time.

    `control_state` is how the control stood before the person met it, `with_terms` that the same control accepted the
    terms too; `controllers` are who may rely on it, by name, `own_name` being the company itself. `facts` and
    `personal` are what else is kept: for ever, and until it is erased.
    """

    address: Address
    at: datetime
    topics: tuple[str, ...]
    basis: str = "express"
    refused: bool = False
    control_state: str = ""
    with_terms: bool = False
    controllers: tuple[str, ...] = ()
    own_name: str = ""
    families: tuple[str, ...] = ()
    free: bool = False
    country: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] = field(default_factory=dict)


def problems_of(
    claim: Claim, topics: Mapping[str, Topic], notice: Notice | None, now: datetime
) -> list[tuple[str, str]]:
    """Return everything that is wrong with a claim: the field, and a sentence about it; [] where it can be recorded.

    `notice` is the registered one under which it was given, None where none was named.
    """
    return [*_about_time(claim, notice, now), *_about_topics(claim, topics, notice), *_about_control(claim)]


def events_of(claim: Claim, topics: Mapping[str, Topic]) -> list[NewEvent]:
    """Return the events that a claim without problems amounts to."""
    personal = {"address": claim.address.text, **claim.personal}
    dealings = _refusals(claim) if claim.refused else _dealings(claim, topics)
    events = [
        NewEvent(kind, claim.address, claim.at, topic, facts={**claim.facts, **further}, personal=personal)
        for kind, topic, further in dealings
    ]
    if claim.country:
        where = {**claim.facts, "country": claim.country, "source": Source.DECLARED}
        events.append(NewEvent(EventType.PLACE_LEARNED, claim.address, claim.at, facts=where, personal=personal))
    return events


def _about_time(claim: Claim, notice: Notice | None, now: datetime) -> Iterator[tuple[str, str]]:
    if claim.at > now + CLOCKS_DIFFER:
        yield "at", "the time lies in the future"
    elif claim.at < EARLIEST:
        yield "at", f"the time lies before {EARLIEST.year}, when nobody opted in to mail"
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
    for one in claim.controllers:
        if any(word in one.lower() for word in _CATEGORIES):
            yield "controllers", f"{one} is a category; name each controller"


def _refusals(claim: Claim) -> Iterator[tuple[EventType, str, dict[str, Any]]]:
    """Who said no when asked is not asked again, and what they once agreed to is over (CON-12)."""
    yield from ((EventType.CONSENT_REFUSED, topic, {}) for topic in claim.topics)


def _dealings(claim: Claim, topics: Mapping[str, Topic]) -> Iterator[tuple[EventType, str, dict[str, Any]]]:
    """Yield what happened: an opt-in for each topic and controller, a sale for each product family."""
    said_to = [{}] if not claim.controllers else [_relying(one, claim.own_name) for one in claim.controllers]
    told = {"basis": claim.basis, **({"control_state": claim.control_state} if claim.control_state else {})}
    for kind in BASES[claim.basis]:
        if kind is EventType.SALE:
            free = {"free": True} if claim.free else {}
            yield from ((kind, "", {**told, "family": one, **free}) for one in _families(claim, topics))
        else:
            about = claim.topics if claim.basis in CONSENTS else ("",)
            yield from ((kind, topic, {**told, **who}) for topic in about for who in said_to)


def _relying(controller: str, own_name: str) -> dict[str, Any]:
    """The company's own consent names no controller; another's names whose it is (POL-31)."""
    return {} if controller == own_name else {"controller": controller}


def _families(claim: Claim, topics: Mapping[str, Topic]) -> Sequence[str]:
    of_topics = tuple(dict.fromkeys(family for one in claim.topics for family in topics[one].families))
    return claim.families or of_topics or ("",)
