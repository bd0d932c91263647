"""What a row of a file becomes in the ledger, and what that changes for whom.

The rule that must not be broken: an opt-in without a notice, somebody who attests it and a time of its own is kept as
unproven, which permits nothing (CON-13), as one under a notice that does not say what the law of the person's country
wants said (LAW-CA-05); no opt-in counts before its import is complete. A claim that lies in the future is no claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.address import Address
from gateway.consent import UNFINISHED, EventType, NewEvent, Place, Standing
from gateway.imports.rows import Row
from gateway.model import Scope


class Effect(StrEnum):
    """What one row does to one person; the names are those of the preview."""

    SUPPRESSED = "suppressed"
    ALREADY = "already suppressed"
    OVERRIDES = "overrides a newer confirmed opt-in"
    DIGEST = "kept as a digest"
    EXPRESS = "express"
    CONFIRMED = "confirmed"
    UNPROVEN = "unproven"
    BLOCKED = "opt-in recorded, but a suppression stands"
    OVER = "opt-in recorded, but it has ended since"


@dataclass(frozen=True, slots=True)
class Run:
    """An import that is at work: its number, and those that had not been applied to their end when it began."""

    number: int
    unfinished: Sequence[int] = ()


PREVIEW = Run(-1)
"""An import that only looks."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms the rows of one file are taken.

    `scope` is None where only consents are wanted and an opt-out in the same file is one of `topic`. What is
    `attested` counts where an opt-in at that time, of somebody who may be in those places, `is_proof`.
    """

    scope: Scope
    topic: str
    now: datetime
    takes_consents: bool = False
    attested: Mapping[str, str] = field(default_factory=dict)
    is_proof: Callable[[datetime, Sequence[Place]], bool] | None = None

    def said(self, row: Row) -> EventType:
        """Return what a row says: of somebody who is merely there, what the file is taken in for."""
        return row.type or (EventType.EXPRESS_OPT_IN if self.takes_consents else EventType.UNSUBSCRIBE)

    def event(self, row: Row, person: Address, run: Run, before: Standing) -> NewEvent:
        """Return what a row becomes, given what stands for its person."""
        facts: dict[str, Any] = {"channel": "import", "import": run.number, "line": row.line}
        personal = {"address": person.text}
        kind = self.said(row)
        if kind not in (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED):
            at = min(row.at or self.now, self.now)
            scope = Scope.ADDRESS if kind is EventType.HARD_BOUNCE else self.scope
            topic = self.topic if scope is Scope.TOPIC else ""
            facts |= {UNFINISHED: run.unfinished} if run.unfinished else {}
            return NewEvent(kind, person, at, topic, scope, facts, personal)
        facts[UNFINISHED] = run.unfinished
        if row.at is None or self.is_proof is None or not self.is_proof(row.at, before.places):
            facts["provenance"] = "unproven"
            return NewEvent(EventType.EXPRESS_OPT_IN, person, row.at or self.now, self.topic, None, facts, personal)
        facts |= {"provenance": "attested", **self.attested}
        return NewEvent(kind, person, row.at, self.topic, None, facts, personal)


class Judged(NamedTuple):
    """What an event does, and the import whose entry says that already; 0 for none."""

    effect: Effect
    leans_on: int


def judge(before: Standing, event: NewEvent) -> Judged:
    """Return what an event does to somebody for whom this stood before."""
    said = before.told_before(event)
    if said:
        return Judged(Effect.ALREADY, next((one.imported for one in before.suppressions if one.event == said), 0))
    return Judged(_effect(before, event), 0)


def _effect(before: Standing, event: NewEvent) -> Effect:
    if event.scope:
        confirmed = [one for one in before.permissions if one.basis == "confirmed" and one.at > event.at]
        return Effect.OVERRIDES if confirmed else Effect.SUPPRESSED
    stands = before.suppression(event.topic, partner=False)
    if stands and not stands.entry:
        return Effect.BLOCKED
    if before.is_over(event.topic, event.at):
        return Effect.OVER
    if event.facts["provenance"] == "unproven":
        return Effect.UNPROVEN
    return Effect.CONFIRMED if event.type is EventType.OPT_IN_CONFIRMED else Effect.EXPRESS
