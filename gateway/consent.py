"""The ledger's events, and the one fold from a history to what may be sent.

The rule that must not be broken: a "no" outlives every later claim, except a confirmed opt-in that came after it
or an operator's written reversal. Evidence types are never converted into one another (requirements §1.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import Any

from gateway.address import Address
from gateway.model import Reason, Scope


class EventType(StrEnum):
    """What can stand in the ledger. The names are for ever: they are hashed into it."""

    POLICY_ACCEPTED = "POLICY_ACCEPTED"
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
    ERASURE = "ERASURE"
    MINOR_FLAG = "MINOR_FLAG"
    RECONSENT = "RECONSENT"
    SUPPRESSION_LIFTED = "SUPPRESSION_LIFTED"


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
    """What allows one topic: the event that gave it, on which basis, when."""

    event: int
    basis: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Suppression:
    """A standing "do not send": the event, how much it covers (`topic` is "" unless the scope is one), why.

    `released` are the topics that a confirmed opt-in has taken out of a wide one since: consent to one topic never
    releases another (POL-03).
    """

    event: int
    scope: Scope
    topic: str
    reason: Reason
    at: datetime
    released: tuple[str, ...] = ()

    def covers(self, topic: str, *, partner: bool) -> bool:
        """True where this suppression stops promotional mail on the topic."""
        if topic in self.released:
            return False
        match self.scope:
            case Scope.TOPIC:
                return self.topic == topic
            case Scope.PARTNER:
                return partner
            case Scope.ALL_MARKETING | Scope.ADDRESS:
                return True


@dataclass(frozen=True, slots=True)
class Standing:
    """What one person's history amounts to. Derived: `fold` rebuilds it from the ledger at any time."""

    permissions: Mapping[str, Permission] = field(default_factory=dict)
    suppressions: tuple[Suppression, ...] = ()

    def suppression(self, topic: str, *, partner: bool) -> Suppression | None:
        """Return the first suppression that stops promotional mail on the topic."""
        return next((one for one in self.suppressions if one.covers(topic, partner=partner)), None)

    @property
    def is_dead_address(self) -> bool:
        return any(one.scope is Scope.ADDRESS for one in self.suppressions)

    def after(self, event: Event) -> Standing:
        """Return the standing once this event has happened too."""
        step = _STEPS.get(event.type)
        return step(self, event) if step else self

    def told_before(self, event: NewEvent | Event) -> int | None:
        """Return the event that says already what this one would: the same "no" is recorded once (UNS-24)."""
        if event.type not in _SUPPRESSING:
            return None
        return next((one.event for one in self.suppressions if _says(one, event) and not one.released), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "permissions": {t: [p.event, p.basis, p.at.isoformat()] for t, p in self.permissions.items()},
            "suppressions": [
                [s.event, s.scope, s.topic, s.reason, s.at.isoformat(), *s.released] for s in self.suppressions
            ],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Standing:
        return cls(
            permissions={
                topic: Permission(seq, basis, datetime.fromisoformat(at))
                for topic, (seq, basis, at) in raw["permissions"].items()
            },
            suppressions=tuple(
                Suppression(seq, Scope(scope), topic, Reason(reason), datetime.fromisoformat(at), tuple(released))
                for seq, scope, topic, reason, at, *released in raw["suppressions"]
            ),
        )


NOTHING_KNOWN = Standing()


def fold(history: Iterable[Event]) -> Standing:
    """Fold a person's events, in the order in which they were recorded, into what stands now."""
    return reduce(Standing.after, history, NOTHING_KNOWN)


# What each suppressing event amounts to: its default scope and the slug a refusal will name.
_SUPPRESSING: dict[EventType, tuple[Scope, Reason]] = {
    EventType.UNSUBSCRIBE: (Scope.TOPIC, Reason.UNSUBSCRIBED),
    EventType.OBJECTION: (Scope.ALL_MARKETING, Reason.OBJECTED),
    EventType.COMPLAINT: (Scope.ALL_MARKETING, Reason.COMPLAINED),
    EventType.HARD_BOUNCE: (Scope.ADDRESS, Reason.BOUNCED),
    EventType.ERASURE: (Scope.ALL_MARKETING, Reason.ERASED),
    EventType.MINOR_FLAG: (Scope.ALL_MARKETING, Reason.MINOR),
}


def _extent(event: NewEvent | Event) -> tuple[Scope, str, Reason]:
    """Return what a suppressing event covers, and why; one that should name a topic and does not means all of them."""
    default, reason = _SUPPRESSING[event.type]
    scope = event.scope or default
    if scope is Scope.TOPIC and not event.topic:
        scope = Scope.ALL_MARKETING
    return scope, event.topic if scope is Scope.TOPIC else "", reason


def _says(suppression: Suppression, event: NewEvent | Event) -> bool:
    return (suppression.scope, suppression.topic, suppression.reason) == _extent(event)


def _suppress(standing: Standing, event: Event) -> Standing:
    """A "no" that is said again stands from its latest time on, without what was released in between."""
    said = [one for one in standing.suppressions if _says(one, event)]
    others = tuple(one for one in standing.suppressions if not _says(one, event))
    at = max([event.at, *(one.at for one in said)])
    return replace(standing, suppressions=(*others, Suppression(event.seq, *_extent(event), at)))


def _permit(standing: Standing, event: Event) -> Standing:
    basis = "confirmed" if event.type is EventType.OPT_IN_CONFIRMED else "express"
    return replace(standing, permissions={**standing.permissions, event.topic: Permission(event.seq, basis, event.at)})


def _confirm(standing: Standing, event: Event) -> Standing:
    """A confirmed opt-in, newer than the "no", is the only event of the person's own that ends one (§1.3)."""
    permitted = _permit(standing, event)
    lasting = (_outlived(one, event) for one in permitted.suppressions)
    return replace(permitted, suppressions=tuple(one for one in lasting if one))


def _outlived(suppression: Suppression, confirmed: Event) -> Suppression | None:
    """Return what is left of a suppression after a confirmed opt-in: all of it, less one topic, or nothing."""
    if suppression.at >= confirmed.at or suppression.reason is Reason.MINOR:
        return suppression
    if not suppression.covers(confirmed.topic, partner=True):
        return suppression
    if suppression.scope is Scope.TOPIC or suppression.reason is Reason.BOUNCED:
        return None
    return replace(suppression, released=tuple(sorted({*suppression.released, confirmed.topic})))


def _lift(standing: Standing, event: Event) -> Standing:
    """An operator's written reversal; a minor stays one."""
    lifted = (event.scope, event.topic)
    remaining = tuple(
        one for one in standing.suppressions if one.reason is Reason.MINOR or (one.scope, one.topic) != lifted
    )
    return replace(standing, suppressions=remaining)


def _forget(standing: Standing, event: Event) -> Standing:
    return replace(_suppress(standing, event), permissions={})


_STEPS = {
    EventType.EXPRESS_OPT_IN: _permit,
    EventType.OPT_IN_CONFIRMED: _confirm,
    EventType.UNSUBSCRIBE: _suppress,
    EventType.OBJECTION: _suppress,
    EventType.COMPLAINT: _suppress,
    EventType.HARD_BOUNCE: _suppress,
    EventType.ERASURE: _forget,
    EventType.MINOR_FLAG: _forget,
    EventType.SUPPRESSION_LIFTED: _lift,
}
