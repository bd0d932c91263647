"""The ledger's events, and the one fold from a history to what may be sent.

The rule that must not be broken: a "no" outlives every later claim, except a confirmed opt-in that came after it
or an operator's written reversal. Evidence types are never converted into one another (requirements §1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import reduce
from typing import Any, NamedTuple

from gateway.address import Address
from gateway.model import Outcome, Reason, Scope


class EventType(StrEnum):
    """What can stand in the ledger. The names are for ever: they are hashed into it."""

    POLICY_ACCEPTED = "POLICY_ACCEPTED"
    CORPORATE_SUBSCRIBER = "CORPORATE_SUBSCRIBER"
    EXPRESS_OPT_IN = "EXPRESS_OPT_IN"
    OPT_IN_CONFIRMED = "OPT_IN_CONFIRMED"
    SALE = "SALE"
    INQUIRY = "INQUIRY"
    SOFT_OPTOUT_OFFERED = "SOFT_OPTOUT_OFFERED"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    OBJECTION = "OBJECTION"
    COMPLAINT = "COMPLAINT"
    HARD_BOUNCE = "HARD_BOUNCE"
    RRVS_REJECT = "RRVS_REJECT"
    ADDRESS_CHANGED = "ADDRESS_CHANGED"
    POLICY_NOTICE = "POLICY_NOTICE"
    POLICY_NOTICE_ENDED = "POLICY_NOTICE_ENDED"
    OBJECTION_EXPLAINED = "OBJECTION_EXPLAINED"
    ERASURE = "ERASURE"
    MINOR_FLAG = "MINOR_FLAG"
    RECONSENT = "RECONSENT"
    SUPPRESSION_LIFTED = "SUPPRESSION_LIFTED"
    CONSENT_REFUSED = "CONSENT_REFUSED"
    PLACE_LEARNED = "PLACE_LEARNED"
    PRODUCT_OWNED = "PRODUCT_OWNED"
    PRODUCT_ENDED = "PRODUCT_ENDED"
    ACCOUNT_CLOSED = "ACCOUNT_CLOSED"
    HOLD_PLACED = "HOLD_PLACED"
    HOLD_RELEASED = "HOLD_RELEASED"
    IMPORT_UNDONE = "IMPORT_UNDONE"
    RIGHT_REQUESTED = "RIGHT_REQUESTED"
    RIGHT_EXTENDED = "RIGHT_EXTENDED"
    RIGHT_ANSWERED = "RIGHT_ANSWERED"


class Basis(StrEnum):
    """What may allow promotional mail, the strongest first; which of them do is the law's to say.

    `UNPROVEN` is an opt-in that somebody claims without proof, `OFFER` the opt-out that was offered at a sale,
    `FREE_SALE` an account that cost nothing, and `CORPORATE` that the address is a company's and nobody's own.
    """

    CONFIRMED = "confirmed"
    EXPRESS = "express"
    SOFT_OPT_IN = "soft-opt-in"
    SALE = "sale"
    FREE_SALE = "free-sale"
    INQUIRY = "inquiry"
    POLICY_ACCEPTED = "policy-accepted"
    CORPORATE = "corporate"
    OFFER = "offer"
    UNPROVEN = "unproven"


class Source(StrEnum):
    """How we know a person's country. Only what the person declared can loosen anything (POL-14)."""

    DECLARED = "declared"
    IP = "ip"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is about to be recorded.

    `person` is the address where we may not know the person yet, else the 16-byte address id (a link). `at` is
    when it happened by its source's account. `facts` stay for ever; `personal` can be erased.
    """

    type: EventType
    person: Address | bytes
    at: datetime
    topic: str = ""
    scope: Scope | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger, as recorded. `personal` is None once it has been erased."""

    seq: int
    type: EventType
    address_id: bytes
    at: datetime
    recorded_at: datetime
    topic: str = ""
    scope: Scope | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """What may allow mail: the event that gave it, on which basis, for which topic ("" for all own ones), when.

    `family` is the product family of a sale; `controller` is who may use it, "" for the company itself (POL-31). One
    that is `imported` counts once all of that import has been applied; 0 for one that counts at once.
    """

    event: int
    basis: Basis
    topic: str
    at: datetime
    family: str = ""
    controller: str = ""
    imported: int = 0

    @property
    def _slot(self) -> tuple[str, str, str, str]:
        """Of two permissions with the same slot the newer one counts."""
        return self.basis, self.topic, self.family, self.controller

    def outdoes(self, other: Permission, is_complete: Callable[[int], bool]) -> bool:
        """True where the other one is of no use beside this one, which is the newer.

        `is_complete` says of which imports it is certain that they are.
        """
        if self._slot != other._slot:
            return False
        return self.imported in (0, other.imported) or is_complete(self.imported)


@dataclass(frozen=True, slots=True)
class Suppression:
    """A standing "do not send": the event, how much it covers (`topic` is "" unless the scope is one), why.

    `released` is what a confirmed opt-in has taken out of it since, a topic and who may use that: consent to one topic
    never releases another (POL-03), nor one controller's another's (POL-31). One that is `linked` was said from another
    address of the same person (CON-16), `said_in` one of these countries if any is known; one that is `imported` stood
    in the file of that import, which can be undone. An `entry` is another's that covers this address too, as
    `*@example.org` does all of its domain (SUP-16), or another spelling of the same mailbox where that counts (SUP-04):
    it is told in a decision, and kept there alone.
    """

    event: int
    scope: Scope
    topic: str
    reason: Reason
    at: datetime
    released: tuple[str, ...] = ()
    linked: bool = False
    imported: int = 0
    entry: str = ""
    said_in: tuple[str, ...] = ()

    def covers(self, topic: str, *, partner: bool, controller: str = "") -> bool:
        """True where this suppression stops promotional mail on the topic, on behalf of a controller."""
        if released_as(topic, controller) in self.released:
            return False
        match self.scope:
            case Scope.TOPIC:
                return self.topic == topic
            case Scope.PARTNER:
                return partner
            case Scope.ALL_MARKETING | Scope.ADDRESS:
                return True


def released_as(topic: str, controller: str) -> str:
    """Return how a suppression names what is released: the topic, and behind it a controller but the company itself."""
    return f"{topic} {controller}" if controller else topic


class Notified(NamedTuple):
    """A policy version of which a person has a notice, or one is on its way: in which message, by which event."""

    version: str
    message: str
    event: int


class Over(NamedTuple):
    """What had been agreed to for a topic ("" for all) up to a time is over, also where it is told only later."""

    topic: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """A country that a person may be in, and how we know: one for each source, the newest by `at`."""

    country: str
    source: Source
    at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """What one person's history amounts to. Derived: `fold` rebuilds it from the ledger at any time.

    `permissions` stand with the strongest basis first; `products` are those that the person owns; `reconsents` are the
    policy versions that the person has agreed to again; while `is_held` nothing of the person is erased (POL-32);
    `links` are the ids, in hexadecimal, of the person's other addresses, where objections follow (CON-16), and
    `moved_to` that of a newer one, "" for the newest; `notices` are those about the privacy policy (POL-10). `language`
    is the BCP 47 tag of what the person reads, "" if none is known; `explained` the event that says that the person has
    been told of the right to object (GDPR 21(4)), 0 if nobody has; `over` is until when whatever was agreed to is over.
    """

    permissions: tuple[Permission, ...] = ()
    suppressions: tuple[Suppression, ...] = ()
    places: tuple[Place, ...] = ()
    products: tuple[str, ...] = ()
    reconsents: tuple[str, ...] = ()
    is_held: bool = False
    links: tuple[str, ...] = ()
    moved_to: str = ""
    notices: tuple[Notified, ...] = ()
    language: str = ""
    explained: int = 0
    over: tuple[Over, ...] = ()

    def counting(self, unfinished: Collection[int]) -> Standing:
        """Return what counts of this while some imports have not been applied to their end: their consents do not."""
        if not unfinished or not any(one.imported in unfinished for one in self.permissions):
            return self
        return replace(self, permissions=tuple(one for one in self.permissions if one.imported not in unfinished))

    def suppression(self, topic: str, *, partner: bool, controller: str = "") -> Suppression | None:
        """Return the first suppression that stops promotional mail on the topic, on behalf of a controller."""
        covering = (one for one in self.suppressions if one.covers(topic, partner=partner, controller=controller))
        return next(covering, None)

    def is_over(self, topic: str, at: datetime) -> bool:
        """True where what was agreed to at a time has ended since, though it may be told only now."""
        return any(one.topic in ("", topic) and at <= one.at for one in self.over)

    @property
    def is_dead_address(self) -> bool:
        return any(one.scope is Scope.ADDRESS for one in self.suppressions)

    @property
    def must_be_forgotten(self) -> bool:
        """True where nothing may be kept that names the person: erased, or a minor, and no authority holds it."""
        return not self.is_held and any(one.reason in _FORGETTING and not one.released for one in self.suppressions)

    def after(self, event: Event) -> Standing:
        """Return the standing once this event has happened too."""
        step = _STEPS.get(event.type)
        after = step(self, event) if step else self
        language = event.facts.get("language", "") if event.type in _BASES else ""
        return replace(after, language=language) if language not in ("", after.language) else after

    def told_before(self, event: NewEvent | Event) -> int | None:
        """Return the event that says already what this one would: the same "no" is recorded once (UNS-24).

        What a person says again later is no repeat, since a confirmation may be dated between the two, nor is what they
        say after they have asked for mail again. The notice of a policy version is recorded once, whatever message it
        would come in (POL-10), and so is that somebody has been told of the right to object.
        """
        if event.type is EventType.OBJECTION_EXPLAINED:
            return self.explained or None
        if event.type is EventType.POLICY_NOTICE:
            version = event.facts["policy_version"]
            return next((one.event for one in self.notices if one.version == version), None)
        if event.type not in _SUPPRESSING:
            return None
        said = [one for one in self.suppressions if _says(one, event) and not (one.released or one.entry)]
        passing = event.facts.get(UNFINISHED, ())
        own = [one for one in said if not one.imported or ("import" in event.facts and one.imported not in passing)]
        known = (one for one in own if not one.linked or "linked" in event.facts)
        return next((one.event for one in known if not self._is_said_again(one, event)), None)

    def _is_said_again(self, suppression: Suppression, event: NewEvent | Event) -> bool:
        """True for what a person says anew; a list that is taken in again says nothing new."""
        if event.type not in _FOLLOWING or "import" in event.facts:
            return False
        asked_at = self.asked_at
        is_answer = asked_at is not None and suppression.at < asked_at <= event.at
        return is_answer or event.at - suppression.at > REPEATED_WITHIN

    @property
    def asked_at(self) -> datetime | None:
        """When the person last asked for mail, by an opt-in of their own; what a file claims is none (CON-14)."""
        own = (one.at for one in self.permissions if one.basis is Basis.EXPRESS and not one.imported)
        return max(own, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads; what is empty is left out, since every decision reads it."""
        imported = [
            *([s.event, s.imported] for s in self.suppressions if s.imported),
            *([p.event, p.imported] for p in self.permissions if p.imported),
        ]
        further = {
            "linked": [one.event for one in self.suppressions if one.linked],
            "said_in": [[one.event, *one.said_in] for one in self.suppressions if one.said_in],
            "imported": imported,
            "places": [[one.country, one.source, *([one.at.isoformat()] if one.at else [])] for one in self.places],
            "products": self.products,
            "reconsents": self.reconsents,
            "held": self.is_held,
            "links": self.links,
            "moved_to": self.moved_to,
            "notices": [list(one) for one in self.notices],
            "language": self.language,
            "explained": self.explained,
            "over": [[one.topic, one.at.isoformat()] for one in self.over],
        }
        return {
            "permissions": [
                [p.event, p.basis, p.topic, p.at.isoformat(), p.family, p.controller] for p in self.permissions
            ],
            "suppressions": [
                [s.event, s.scope, s.topic, s.reason, s.at.isoformat(), *s.released] for s in self.suppressions
            ],
            **{name: value for name, value in further.items() if value},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Standing:
        linked = raw.get("linked", ())
        imported = dict(raw.get("imported", ()))
        said_in = {event: tuple(countries) for event, *countries in raw.get("said_in", ())}
        return cls(
            permissions=tuple(
                Permission(
                    *(seq, Basis(basis), topic, datetime.fromisoformat(at), family, controller),
                    imported=imported.get(seq, 0),
                )
                for seq, basis, topic, at, family, controller in _permissions_of(raw)
            ),
            suppressions=tuple(
                Suppression(
                    *(seq, Scope(scope), topic, Reason(reason), datetime.fromisoformat(at), tuple(released)),
                    linked=seq in linked,
                    imported=imported.get(seq, 0),
                    said_in=said_in.get(seq, ()),
                )
                for seq, scope, topic, reason, at, *released in raw["suppressions"]
            ),
            **{name: read(raw[key]) for key, (name, read) in _FURTHER.items() if key in raw},
        )


_FURTHER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "places": ("places", lambda told: tuple(_place(*one) for one in told)),
    "products": ("products", tuple),
    "reconsents": ("reconsents", tuple),
    "held": ("is_held", bool),
    "links": ("links", tuple),
    "moved_to": ("moved_to", str),
    "notices": ("notices", lambda told: tuple(Notified(*one) for one in told)),
    "language": ("language", str),
    "explained": ("explained", int),
    "over": ("over", lambda told: tuple(Over(topic, datetime.fromisoformat(at)) for topic, at in told)),
}
"""What most standings lack, by its name in JSON: the name here, and how it is read."""


def _place(country: str, source: str, at: str = "") -> Place:
    return Place(country, Source(source), datetime.fromisoformat(at) if at else None)


def _permissions_of(raw: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """Until migration 2 a standing held one permission a topic, by its topic's name."""
    held: Any = raw["permissions"]
    if isinstance(held, dict):
        return [[seq, basis, topic, at, "", ""] for topic, (seq, basis, at) in held.items()]
    return list(held)


NOTHING_KNOWN = Standing()


def fold(history: Iterable[Event]) -> Standing:
    """Fold a person's events, in the order in which they were recorded, into what stands now.

    What an import brought that was undone later is as if it had never been.
    """
    events = list(history)
    undone = {event.facts["import"] for event in events if event.type is EventType.IMPORT_UNDONE}
    return reduce(Standing.after, (one for one in events if one.facts.get("import") not in undone), NOTHING_KNOWN)


# What each suppressing event amounts to: its default scope and the slug a refusal will name.
_SUPPRESSING: dict[EventType, tuple[Scope, Reason]] = {
    EventType.UNSUBSCRIBE: (Scope.TOPIC, Reason.UNSUBSCRIBED),
    EventType.OBJECTION: (Scope.ALL_MARKETING, Reason.OBJECTED),
    EventType.COMPLAINT: (Scope.ALL_MARKETING, Reason.COMPLAINED),
    EventType.HARD_BOUNCE: (Scope.ADDRESS, Reason.BOUNCED),
    EventType.ERASURE: (Scope.ALL_MARKETING, Reason.ERASED),
    EventType.MINOR_FLAG: (Scope.ALL_MARKETING, Reason.MINOR),
}

_FOLLOWING = frozenset({EventType.UNSUBSCRIBE, EventType.OBJECTION, EventType.COMPLAINT})
"""What a person says, as opposed to what is true of one mailbox: it holds for the person's other addresses too."""


REPEATED_WITHIN = timedelta(minutes=1)
"""How long after a "no" the same one is the same click, that of an impatient reader or a machine (UNS-24)."""


def echoes(event: Event, standing: Standing) -> list[NewEvent]:
    """Return a person's "no" as it is recorded for each of their other addresses (CON-16, SUP-05).

    It tells the countries in which it may have been said, since one country's rules are enough for it to follow.
    `standing` is what stands for the address of the event. An echo is passed on to addresses further away, as far as
    there are any that have not heard it.
    """
    if event.type not in _FOLLOWING:
        return []
    said_at = event.facts.get("linked", event.address_id.hex())
    said_in = sorted({*event.facts.get("said_in", ()), *(one.country for one in standing.places)})
    facts = {**event.facts, "linked": said_at, **({"said_in": said_in} if said_in else {})}
    others = [bytes.fromhex(one) for one in standing.links if one != said_at]
    return [NewEvent(event.type, one, event.at, event.topic, event.scope, facts) for one in others]


_FORGETTING = (Reason.ERASED, Reason.MINOR)


def extent(event: NewEvent | Event) -> tuple[Scope, str, Reason]:
    """Return what a suppressing event covers, and why; one that should name a topic and does not means all of them."""
    default, reason = _SUPPRESSING[event.type]
    scope = event.scope or default
    if scope is Scope.TOPIC and not event.topic:
        scope = Scope.ALL_MARKETING
    return scope, event.topic if scope is Scope.TOPIC else "", reason


def _says(suppression: Suppression, event: NewEvent | Event) -> bool:
    return (suppression.scope, suppression.topic, suppression.reason) == extent(event)


def _suppress(standing: Standing, event: Event) -> Standing:
    """A "no" that is said again stands from its latest time on, without what was released in between."""
    said = [one for one in standing.suppressions if _says(one, event)]
    others = tuple(one for one in standing.suppressions if not _says(one, event))
    at = max([event.at, *(one.at for one in said)])
    linked = "linked" in event.facts and all(one.linked for one in said)
    said_in = tuple(event.facts.get("said_in", ()))
    imported = event.facts.get("import", 0)
    new = Suppression(event.seq, *extent(event), at, linked=linked, imported=imported, said_in=said_in)
    return replace(standing, suppressions=(*others, new))


UNFINISHED = "unfinished"
"""The fact by which an import names the others that were at work when it began.

A consent waits for the end of its own; an opt-out does not lean on what one of the others has said, so that of two at
once either can be undone.
"""

_BASES: dict[EventType, Basis] = {
    EventType.EXPRESS_OPT_IN: Basis.EXPRESS,
    EventType.OPT_IN_CONFIRMED: Basis.CONFIRMED,
    EventType.SALE: Basis.SALE,
    EventType.INQUIRY: Basis.INQUIRY,
    EventType.POLICY_ACCEPTED: Basis.POLICY_ACCEPTED,
    EventType.CORPORATE_SUBSCRIBER: Basis.CORPORATE,
    EventType.SOFT_OPTOUT_OFFERED: Basis.OFFER,
}
_STRENGTH = {basis: rank for rank, basis in enumerate(Basis)}


def _permit(standing: Standing, event: Event) -> Standing:
    """Keep what an event permits; of the same kind, the newest by its own time that is certain to count."""
    if standing.is_over(event.topic, event.at):
        return standing
    facts = event.facts
    new = Permission(
        *(event.seq, _basis(event), event.topic, event.at, facts.get("family", ""), facts.get("controller", "")),
        imported=facts["import"] if UNFINISHED in facts else 0,
    )
    if standing is NOTHING_KNOWN:
        return Standing((new,), language=facts.get("language", ""))

    def is_complete(number: int) -> bool:
        """An import knows what was at work when it began, and nothing of those that have begun since."""
        return UNFINISHED in facts and number < new.imported and number not in facts[UNFINISHED]

    left = sorted((*standing.permissions, new), key=lambda one: (one.at, one.event))
    of_use = [one for n, one in enumerate(left) if not any(newer.outdoes(one, is_complete) for newer in left[n + 1 :])]
    return replace(standing, permissions=tuple(sorted(of_use, key=_order)))


def _basis(event: Event) -> Basis:
    """An opt-in without proof permits nothing, and an account that cost nothing is a sale of another kind."""
    if event.type is EventType.EXPRESS_OPT_IN and event.facts.get("provenance") == "unproven":
        return Basis.UNPROVEN
    if event.type is EventType.SALE and event.facts.get("free"):
        return Basis.FREE_SALE
    return _BASES[event.type]


def _order(permission: Permission) -> tuple[int, int]:
    return _STRENGTH[permission.basis], permission.event


def _confirm(standing: Standing, event: Event) -> Standing:
    """A confirmed opt-in, newer than the "no", is the only event of the person's own that ends one (§1.3).

    One that a file claims ends none, whatever times it names (CON-14).
    """
    permitted = _permit(standing, event)
    if "import" in event.facts:
        return permitted
    relying = {one.controller for one in permitted.permissions if one.topic == event.topic}
    lasting = (_outlived(one, event, relying) for one in permitted.suppressions)
    return replace(permitted, suppressions=tuple(one for one in lasting if one))


def _outlived(suppression: Suppression, confirmed: Event, relying: Collection[str]) -> Suppression | None:
    """Return what is left of a suppression after a confirmed opt-in: all of it, less one topic, or nothing.

    It ends for the controller that the opt-in names; for any other that is `relying` on the topic too it still stands.
    A confirmation that is told late must be newer than whatever of the "no" was taken for a repeat.
    """
    is_told_late = confirmed.recorded_at - confirmed.at > REPEATED_WITHIN
    last_said = suppression.at + REPEATED_WITHIN if is_told_late else suppression.at
    if last_said >= confirmed.at or suppression.reason is Reason.MINOR:
        return suppression
    controller = confirmed.facts.get("controller", "")
    if not suppression.covers(confirmed.topic, partner=True, controller=controller):
        return suppression
    is_all = suppression.scope is Scope.TOPIC and relying == {""}
    if is_all or suppression.reason is Reason.BOUNCED:
        return None
    released = released_as(confirmed.topic, controller)
    return replace(suppression, released=tuple(sorted({*suppression.released, released})))


def _lift(standing: Standing, event: Event) -> Standing:
    """An operator's written reversal; a minor stays one."""
    lifted = (event.scope, event.topic)
    remaining = tuple(
        one for one in standing.suppressions if one.reason is Reason.MINOR or (one.scope, one.topic) != lifted
    )
    return replace(standing, suppressions=remaining)


def _forget(standing: Standing, event: Event) -> Standing:
    """Only the "no" is left, and what an authority has ordered to be kept."""
    return Standing(suppressions=_suppress(standing, event).suppressions, is_held=standing.is_held)


ENDS_EARLIER = "ends_earlier"
"""The fact of an event of `ENDING` that ends what is told only later as well; those of earlier versions lack it."""

ENDING = frozenset({EventType.CONSENT_REFUSED, EventType.RRVS_REJECT, EventType.ACCOUNT_CLOSED})


def _end(standing: Standing, event: Event, topic: str = "") -> Standing:
    """Remember that what was agreed to by then is over, for when an old list or a slow system tells it once more."""
    if ENDS_EARLIER not in event.facts:
        return standing
    at = max([event.at, *(one.at for one in standing.over if one.topic == topic)])
    return replace(standing, over=(*(one for one in standing.over if one.topic != topic), Over(topic, at)))


def _renounce(standing: Standing, event: Event) -> Standing:
    """Somebody said no to being asked for a topic: what they agreed to before is over (CON-12)."""
    kept = tuple(one for one in standing.permissions if one.topic != event.topic or one.at > event.at)
    return _end(replace(standing, permissions=kept), event, event.topic)


def _void(standing: Standing, event: Event) -> Standing:
    """The mailbox has another owner now, who has agreed to nothing (RFC 7293)."""
    return _end(replace(standing, permissions=(), products=(), reconsents=(), language="", explained=0), event)


def _close(standing: Standing, event: Event) -> Standing:
    """Who has closed the account is no customer any more, and the consent that came with it has lapsed (POL-30)."""
    return _end(replace(standing, permissions=(), products=()), event)


def _learn_place(standing: Standing, event: Event) -> Standing:
    """Of what one source tells the newest counts, in whatever order it reached us (POL-14)."""
    place = Place(str(event.facts["country"]), Source(event.facts["source"]), event.at)
    others = tuple(one for one in standing.places if one.source is not place.source)
    known = next((one for one in standing.places if one.source is place.source), None)
    if known and known.at and known.at > event.at:
        return standing
    return replace(standing, places=tuple(sorted((*others, place), key=lambda one: one.source)))


def _own(standing: Standing, event: Event) -> Standing:
    return replace(standing, products=tuple(sorted({*standing.products, event.facts["product"]})))


def _disown(standing: Standing, event: Event) -> Standing:
    return replace(standing, products=tuple(one for one in standing.products if one != event.facts["product"]))


def _reconsent(standing: Standing, event: Event) -> Standing:
    version = event.facts.get("policy_version", "")
    return replace(standing, reconsents=tuple(sorted({*standing.reconsents, version})))


def _link(standing: Standing, event: Event) -> Standing:
    other = event.facts["other"]
    is_newer = event.facts.get("is_newer", False)
    moved_to = other if is_newer else "" if standing.moved_to == other else standing.moved_to
    return replace(standing, links=tuple(sorted({*standing.links, other})), moved_to=moved_to)


def _notify(standing: Standing, event: Event) -> Standing:
    new = Notified(event.facts["policy_version"], event.facts["message"], event.seq)
    return replace(standing, notices=(*standing.notices, new))


def _end_notice(standing: Standing, event: Event) -> Standing:
    """Whoever the notice could not be relayed to may be sent it once more."""
    if event.facts["outcome"] == Outcome.RELAYED:
        return standing
    ended = (event.facts["policy_version"], event.facts["message"])
    return replace(standing, notices=tuple(one for one in standing.notices if (one.version, one.message) != ended))


def _explain(standing: Standing, event: Event) -> Standing:
    return replace(standing, explained=event.seq)


def _hold(standing: Standing, event: Event) -> Standing:
    return replace(standing, is_held=event.type is EventType.HOLD_PLACED)


_STEPS = {
    **dict.fromkeys(_BASES, _permit),
    EventType.OPT_IN_CONFIRMED: _confirm,
    EventType.UNSUBSCRIBE: _suppress,
    EventType.OBJECTION: _suppress,
    EventType.COMPLAINT: _suppress,
    EventType.HARD_BOUNCE: _suppress,
    EventType.ERASURE: _forget,
    EventType.MINOR_FLAG: _forget,
    EventType.SUPPRESSION_LIFTED: _lift,
    EventType.CONSENT_REFUSED: _renounce,
    EventType.RRVS_REJECT: _void,
    EventType.ACCOUNT_CLOSED: _close,
    EventType.PLACE_LEARNED: _learn_place,
    EventType.PRODUCT_OWNED: _own,
    EventType.PRODUCT_ENDED: _disown,
    EventType.RECONSENT: _reconsent,
    EventType.ADDRESS_CHANGED: _link,
    EventType.POLICY_NOTICE: _notify,
    EventType.POLICY_NOTICE_ENDED: _end_notice,
    EventType.OBJECTION_EXPLAINED: _explain,
    EventType.HOLD_PLACED: _hold,
    EventType.HOLD_RELEASED: _hold,
}
