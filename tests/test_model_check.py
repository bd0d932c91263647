"""A small-scope model check: no sequence of events leads from a "no" to a send without a newer confirmed opt-in.

Breadth first over what histories amount to, equal states merged, so that every sequence up to the length is covered;
then random walks. The law is told in other words than the code's, as an automaton that sees the same events (X-06).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.config.regimes import OURS, regimes_in
from gateway.consent import NOTHING_KNOWN, Event, EventType, Standing
from gateway.law import Law
from gateway.model import MessageClass, Purpose, Scope, Topic
from gateway.policy import decide

LENGTH = 6
STEPS = int(os.environ.get("ASSENT_MODEL_STEPS", "30000"))
WHO = bytes(16)
START = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = (Topic("news", "News", families=("editor",)), Topic("offers", "Partners' offers", partner=True))
LAWS = (Law(regimes_in(OURS)), Law(regimes_in(OURS), require="regime", markets=("US",)))
NOES = {
    *(EventType.UNSUBSCRIBE, EventType.OBJECTION, EventType.COMPLAINT, EventType.HARD_BOUNCE, EventType.ERASURE),
    EventType.MINOR_FLAG,
}


@dataclass(frozen=True)
class Step:
    """One thing that can happen."""

    type: EventType
    topic: str = ""
    scope: Scope | None = None
    facts: tuple[tuple[str, object], ...] = ()


IMPORTED = (("import", 1), ("unfinished", ()))
UNIVERSE = (
    *(Step(type, one.slug) for type in (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED) for one in TOPICS),
    Step(EventType.OPT_IN_CONFIRMED, "news", facts=IMPORTED),
    *(Step(EventType.UNSUBSCRIBE, one.slug) for one in TOPICS),
    Step(EventType.UNSUBSCRIBE, scope=Scope.PARTNER),
    Step(EventType.UNSUBSCRIBE, scope=Scope.ALL_MARKETING),
    *(Step(type) for type in sorted(NOES - {EventType.UNSUBSCRIBE})),
    *(Step(type, one.slug) for type in (EventType.CONSENT_REFUSED, EventType.RECONSENT) for one in TOPICS[:1]),
    Step(EventType.SALE, facts=(("family", "editor"),)),
    *(Step(type) for type in (EventType.SOFT_OPTOUT_OFFERED, EventType.INQUIRY, EventType.POLICY_ACCEPTED)),
    *(Step(type) for type in (EventType.RRVS_REJECT, EventType.ACCOUNT_CLOSED)),
    Step(EventType.PRODUCT_OWNED, facts=(("product", "editor"),)),
)


@dataclass(frozen=True)
class Judge:
    """The law, for one topic: whether a "no" stands, a mailbox is dead, a child reads, and anything was agreed to.

    That a mailbox is dead is no wish: whatever is confirmed from it says that it lives. What a file claims to be
    confirmed is an agreement like any other.
    """

    topic: Topic
    said_no: bool = False
    is_dead: bool = False
    is_minor: bool = False
    agreed: bool = False

    def after(self, step: Step) -> Judge:
        match step.type:
            case EventType.HARD_BOUNCE:
                return replace(self, is_dead=True)
            case EventType.MINOR_FLAG:
                return replace(self, is_minor=True)
            case EventType.OPT_IN_CONFIRMED if step.facts != IMPORTED:
                lives = replace(self, is_dead=False)
                return replace(lives, said_no=False, agreed=True) if step.topic == self.topic.slug else lives
        if step.type in NOES:
            return replace(self, said_no=self.said_no or self._concerns(step))
        return replace(self, agreed=self.agreed or self._is_agreement(step))

    def _concerns(self, step: Step) -> bool:
        if step.topic:
            return step.topic == self.topic.slug
        return self.topic.partner if step.scope is Scope.PARTNER else True

    def _is_agreement(self, step: Step) -> bool:
        if step.type in (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED):
            return step.topic == self.topic.slug
        return step.type in (EventType.SALE, EventType.INQUIRY) and not self.topic.partner

    @property
    def forbids(self) -> bool:
        return self.said_no or self.is_dead or self.is_minor or not self.agreed


Judges = tuple[Judge, ...]
BEFORE: Judges = tuple(Judge(one) for one in TOPICS)


def happen(standing: Standing, step: Step, seq: int) -> Standing:
    at = START + timedelta(minutes=seq)
    return standing.after(Event(seq, step.type, WHO, at, at, step.topic, step.scope, dict(step.facts)))


def check(standing: Standing, judges: Judges, seq: int) -> None:
    now = START + timedelta(minutes=seq + 1)
    for judge in judges:
        for law in LAWS:
            verdict = decide(Purpose(MessageClass.PROMOTIONAL, judge.topic), standing, law, now)
            assert not (verdict.may_send and judge.forbids), (judge, standing)


def shape(standing: Standing) -> object:
    """What two standings must have in common to have the same future: all but sequence numbers and times."""
    return (
        frozenset((one.basis, one.topic, one.family, one.controller, one.imported) for one in standing.permissions),
        frozenset((one.scope, one.topic, one.reason, one.released) for one in standing.suppressions),
        standing.products,
        standing.reconsents,
    )


@pytest.mark.req("X-06", "SUP-06", "CON-14")
def test_no_sequence_of_up_to_six_events_leads_from_a_no_to_a_send() -> None:
    frontier = [(NOTHING_KNOWN, BEFORE)]
    seen: set[object] = set()
    for seq in range(1, LENGTH + 1):
        reached = []
        for standing, judges in frontier:
            for step in UNIVERSE:
                after, ruled = happen(standing, step, seq), tuple(one.after(step) for one in judges)
                state = (shape(after), ruled)
                if state not in seen:
                    seen.add(state)
                    reached.append((after, ruled))
                    check(after, ruled, seq)
        frontier = reached
    assert len(seen) > 1000


@pytest.mark.req("X-06", "UNS-24")
def test_no_confirmation_that_is_told_late_ends_a_no_that_was_said_after_it() -> None:
    chance, said = random.Random(20261123), (EventType.UNSUBSCRIBE, EventType.OBJECTION, EventType.COMPLAINT)
    recorded = 0
    for step in range(STEPS):
        if step % 40 == 0:
            standing, latest_no = NOTHING_KNOWN, datetime.min.replace(tzinfo=UTC)
        now = START + step * timedelta(seconds=20)
        type = chance.choice((*said, EventType.OPT_IN_CONFIRMED, EventType.EXPRESS_OPT_IN))
        at = now - chance.choice((timedelta(0), timedelta(minutes=2), timedelta(minutes=5)))
        event = Event(step + 1, type, WHO, at, now, "news", Scope.TOPIC if type in said else None)
        if type in said:
            latest_no = max(latest_no, at)
        elif type is EventType.OPT_IN_CONFIRMED and at > latest_no:
            latest_no = datetime.min.replace(tzinfo=UTC)
        if not standing.told_before(event):
            recorded += 1
            standing = standing.after(event)
        verdict = decide(Purpose(MessageClass.PROMOTIONAL, TOPICS[0]), standing, LAWS[0], now)
        assert not (verdict.may_send and latest_no > datetime.min.replace(tzinfo=UTC)), (event, standing)
    assert STEPS / 2 < recorded < STEPS, "some repeats are recorded, and some are not"


@pytest.mark.req("X-06")
def test_no_random_walk_leads_from_a_no_to_a_send() -> None:
    chance = random.Random(20261122)
    for seq in range(STEPS):
        if seq % 40 == 0:
            standing, judges = NOTHING_KNOWN, BEFORE
        step = chance.choice(UNIVERSE)
        standing, judges = happen(standing, step, seq), tuple(one.after(step) for one in judges)
        check(standing, judges, seq)
