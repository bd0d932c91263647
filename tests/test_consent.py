"""The fold: what a history of events amounts to, and that no claim leads from a "no" to a send by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.address import Address
from gateway.config.regimes import OURS, regimes_in
from gateway.consent import (
    NOTHING_KNOWN,
    Basis,
    Event,
    EventType,
    NewEvent,
    Notified,
    Over,
    Permission,
    Place,
    Source,
    Standing,
    Suppression,
    fold,
)
from gateway.law import Law
from gateway.model import MessageClass, Purpose, Reason, Scope, Topic
from gateway.policy import decide

WHO = bytes(16)
START = datetime(2026, 1, 1, tzinfo=UTC)
NEWS, OFFERS = Topic("news", "News"), Topic("offers", "Partners' offers", partner=True)
TOPICS = (NEWS, OFFERS)
FLOOR = Law(regimes_in(OURS))
OPT_IN, CONFIRMED = EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED
UNSUBSCRIBE, OBJECTION, LIFTED = EventType.UNSUBSCRIBE, EventType.OBJECTION, EventType.SUPPRESSION_LIFTED
NOES = {
    *(UNSUBSCRIBE, OBJECTION, EventType.COMPLAINT, EventType.HARD_BOUNCE, EventType.ERASURE, EventType.MINOR_FLAG),
}

Told = tuple[EventType, str, Scope | None]


def event(seq: int, type: EventType, topic: str = "", scope: Scope | None = None, at: float | None = None) -> Event:
    when = START + timedelta(hours=seq if at is None else at)
    return Event(seq, type, WHO, when, START + timedelta(hours=seq), topic, scope)


def history(*told: Told) -> list[Event]:
    return [event(seq, *one) for seq, one in enumerate(told, 1)]


def may_send(events: Sequence[Event], topic: Topic = NEWS) -> bool:
    return allows(fold(events), topic)


def allows(standing: Standing, topic: Topic) -> bool:
    return decide(Purpose(MessageClass.PROMOTIONAL, topic), standing, FLOOR, START + timedelta(days=1)).may_send


def test_nobody_is_sent_to_who_has_not_opted_in() -> None:
    assert fold([]) == NOTHING_KNOWN
    assert not may_send([])
    for type in (EventType.POLICY_ACCEPTED, EventType.SALE, EventType.INQUIRY, EventType.SOFT_OPTOUT_OFFERED):
        assert not may_send(history((type, "news", None)))


@pytest.mark.parametrize("type", [OPT_IN, CONFIRMED])
def test_an_opt_in_permits_its_own_topic_only(type: EventType) -> None:
    events = history((type, "news", None))
    assert may_send(events)
    assert not may_send(events, OFFERS)


@pytest.mark.req("CON-14", "SUP-06")
@pytest.mark.parametrize("no", sorted(NOES))
def test_a_no_beats_an_express_opt_in_before_and_after_it(no: EventType) -> None:
    assert not may_send(history((OPT_IN, "news", None), (no, "news", None), (OPT_IN, "news", None)))


@pytest.mark.req("SUP-06")
@pytest.mark.parametrize("no", sorted(NOES - {EventType.MINOR_FLAG}))
def test_a_confirmed_opt_in_that_came_later_ends_a_no(no: EventType) -> None:
    assert may_send(history((no, "news", None), (CONFIRMED, "news", None)))


def test_a_child_cannot_confirm() -> None:
    assert not may_send(history((EventType.MINOR_FLAG, "", None), (CONFIRMED, "news", None)))


@pytest.mark.req("CON-14")
@pytest.mark.parametrize("at", [0.5, 1.0])
def test_a_confirmation_that_is_no_newer_than_the_no_ends_nothing(at: float) -> None:
    assert not may_send([event(1, OBJECTION), event(2, CONFIRMED, "news", at=at)])


def test_a_no_that_was_said_again_stands_from_its_latest_time_on() -> None:
    repeated = [event(1, UNSUBSCRIBE, "news"), event(2, UNSUBSCRIBE, "news", at=5), event(3, CONFIRMED, "news", at=3)]
    assert not may_send(repeated)
    assert may_send([*repeated, event(4, CONFIRMED, "news", at=6)])


@pytest.mark.req("POL-03")
def test_confirming_one_topic_does_not_release_another_from_a_wide_no() -> None:
    software = Topic("software", "Software")
    events = history(
        (OPT_IN, "news", None), (OPT_IN, "software", None), (OBJECTION, "", None), (CONFIRMED, "news", None)
    )
    assert may_send(events, NEWS)
    assert not may_send(events, software)
    assert not may_send([*events, event(5, OPT_IN, "software")], software)
    assert may_send([*events, event(5, CONFIRMED, "software")], software)


@pytest.mark.req("POL-05")
def test_confirming_an_own_topic_leaves_the_no_to_partners_standing() -> None:
    events = history((OPT_IN, "offers", None), (UNSUBSCRIBE, "", Scope.PARTNER), (CONFIRMED, "news", None))
    assert may_send(events, NEWS)
    assert not may_send(events, OFFERS)


def test_a_wide_no_said_again_after_a_confirmation_counts_again() -> None:
    events = history((OBJECTION, "", None), (CONFIRMED, "news", None))
    again = NewEvent(OBJECTION, WHO, START + timedelta(hours=3))
    assert fold(events).told_before(again) is None
    assert not may_send([*events, event(3, OBJECTION)])


@pytest.mark.parametrize(
    ("scope", "stops_news", "stops_offers"),
    [
        (Scope.TOPIC, True, False),
        (Scope.PARTNER, False, True),
        (Scope.ALL_MARKETING, True, True),
        (Scope.ADDRESS, True, True),
    ],
)
@pytest.mark.req("SUP-14")
def test_a_no_stops_what_its_scope_covers(scope: Scope, stops_news: bool, stops_offers: bool) -> None:
    opted_in: list[Told] = [(OPT_IN, "news", None), (OPT_IN, "offers", None)]
    events = history(*opted_in, (UNSUBSCRIBE, "news", scope))
    assert may_send(events, NEWS) is not stops_news
    assert may_send(events, OFFERS) is not stops_offers
    assert fold(events).is_dead_address is (scope is Scope.ADDRESS)


@pytest.mark.parametrize("scope", [None, Scope.TOPIC])
def test_an_unsubscribe_that_names_no_topic_means_every_topic(scope: Scope | None) -> None:
    events = history((OPT_IN, "news", None), (UNSUBSCRIBE, "", scope))
    assert not may_send(events)
    assert fold(events).suppressions[0].scope is Scope.ALL_MARKETING


def test_an_operator_lifts_one_scope_and_leaves_the_others() -> None:
    noes: list[Told] = [(OPT_IN, "news", None), (UNSUBSCRIBE, "news", None), (EventType.HARD_BOUNCE, "", None)]
    assert not may_send(history(*noes, (LIFTED, "", Scope.ADDRESS)))
    assert not may_send(history(*noes, (LIFTED, "news", Scope.TOPIC)))
    assert not may_send(history(*noes, (LIFTED, "offers", Scope.TOPIC), (LIFTED, "", Scope.ADDRESS)))
    assert not may_send(history(*noes, (LIFTED, "", None), (LIFTED, "", Scope.ALL_MARKETING)))
    assert may_send(history(*noes, (LIFTED, "", Scope.ADDRESS), (LIFTED, "news", Scope.TOPIC)))


@pytest.mark.parametrize("type", [EventType.ERASURE, EventType.MINOR_FLAG])
def test_what_forgets_a_person_forgets_the_permissions_and_keeps_the_no(type: EventType) -> None:
    standing = fold(history((OPT_IN, "news", None), (UNSUBSCRIBE, "offers", None), (type, "", None)))
    assert not standing.permissions
    assert standing.suppressions[0].reason is Reason.UNSUBSCRIBED
    assert len(standing.suppressions) == 2


@pytest.mark.req("UNS-24")
def test_the_same_no_is_told_before_and_another_is_not() -> None:
    standing = fold(history((OPT_IN, "news", None), (UNSUBSCRIBE, "news", None)))

    def told(type: EventType, topic: str = "", scope: Scope | None = None) -> int | None:
        return standing.told_before(NewEvent(type, Address.parse("a@example.com"), START, topic, scope))

    assert told(UNSUBSCRIBE, "news") == told(UNSUBSCRIBE, "news", Scope.TOPIC) == 2
    assert told(UNSUBSCRIBE, "offers") is None
    assert told(UNSUBSCRIBE, "news", Scope.ALL_MARKETING) is None
    assert told(EventType.COMPLAINT, "news") is None
    assert told(OPT_IN, "news") is None
    assert told(CONFIRMED, "news") is None


def test_a_suppression_names_the_event_and_the_reason() -> None:
    (one,) = fold(history((OPT_IN, "news", None), (EventType.COMPLAINT, "news", None))).suppressions
    at = START + timedelta(hours=2)
    assert one == Suppression(2, Scope.ALL_MARKETING, "", Reason.COMPLAINED, at)


# Everything that can happen, in a world of two topics, one of them a partner's.
_UNIVERSE: tuple[Told, ...] = (
    *((type, topic, None) for type in (OPT_IN, CONFIRMED, UNSUBSCRIBE) for topic in ("news", "offers")),
    (UNSUBSCRIBE, "", Scope.PARTNER),
    (UNSUBSCRIBE, "", Scope.ALL_MARKETING),
    *((type, "", None) for type in sorted(NOES - {UNSUBSCRIBE})),
    (EventType.SALE, "news", None),
    (EventType.RECONSENT, "news", None),
)


def is_a_no_to(one: Event, topic: Topic) -> bool:
    """The law in other words than the code's: does this event say "not this topic"?"""
    if one.type not in NOES:
        return False
    if one.type is UNSUBSCRIBE and one.scope is None and one.topic:
        return one.topic == topic.slug
    return topic.partner if one.scope is Scope.PARTNER else True


def is_allowed_by_law(events: Sequence[Event], topic: Topic) -> bool:
    """True where somebody opted in, and after each "no" to the topic came a newer confirmed opt-in or a reversal."""
    for place, one in enumerate(events):
        if not is_a_no_to(one, topic):
            continue
        later = events[place + 1 :]
        confirmed = any(e.type is CONFIRMED and e.topic == topic.slug and e.at > one.at for e in later)
        if not any(e.type is LIFTED for e in later) and (not confirmed or one.type is EventType.MINOR_FLAG):
            # A hard bounce says that the mailbox is dead; that any confirmation came from it says that it is not.
            alive = one.type is EventType.HARD_BOUNCE and any(e.type is CONFIRMED and e.at > one.at for e in later)
            if not alive:
                return False
    return any(one.type in (OPT_IN, CONFIRMED) and one.topic == topic.slug for one in events)


def _drawn(told: list[tuple[Told, int]]) -> list[Event]:
    return [event(seq, *one, at=at) for seq, (one, at) in enumerate(told, 1)]


_LIFTS: tuple[Told, ...] = (
    (LIFTED, "news", Scope.TOPIC),
    (LIFTED, "", Scope.ALL_MARKETING),
    (LIFTED, "", Scope.PARTNER),
    (LIFTED, "", Scope.ADDRESS),
)
histories = st.lists(st.tuples(st.sampled_from(_UNIVERSE + _LIFTS), st.integers(0, 12)), max_size=12).map(_drawn)


@pytest.mark.req("SUP-06", "CON-14")
@given(histories)
def test_whatever_times_events_claim_a_no_is_never_outlived_by_an_older_claim(events: list[Event]) -> None:
    for topic in TOPICS:
        if may_send(events, topic):
            assert is_allowed_by_law(events, topic)


@given(histories)
def test_recording_each_no_once_amounts_to_no_more_mail(events: list[Event]) -> None:
    """The store leaves out what is told before: in the order of time that changes nothing."""
    in_order = [event(seq, one.type, one.topic, one.scope) for seq, one in enumerate(events, 1)]
    standing = NOTHING_KNOWN
    for one in in_order:
        standing = standing if standing.told_before(one) else standing.after(one)
    for topic in TOPICS:
        assert allows(standing, topic) is may_send(in_order, topic)


@given(histories)
def test_a_standing_survives_the_way_through_json(events: list[Event]) -> None:
    standing = fold(events)
    assert Standing.from_json(json.loads(json.dumps(standing.to_json()))) == standing


@pytest.mark.parametrize("written", [json.dumps, orjson.dumps])
def test_all_that_can_stand_survives_whoever_writes_it(written: Callable[[Any], str | bytes]) -> None:
    standing = Standing(
        permissions=(Permission(1, Basis.SALE, "news", START, "books", "partner", 3),),
        suppressions=(
            Suppression(2, Scope.ALL_MARKETING, "", Reason.OBJECTED, START, ("news",), True, 4, said_in=("FR",)),
        ),
        places=(Place("DE", Source.DECLARED, START),),
        products=("atlas",),
        reconsents=("2",),
        is_held=True,
        links=("ab",),
        moved_to="ab",
        notices=(Notified("2", "01J", 5),),
        language="de",
        explained=6,
        over=(Over("news", START),),
    )
    assert all(getattr(standing, one.name) != getattr(NOTHING_KNOWN, one.name) for one in fields(Standing))
    again = Standing.from_json(json.loads(written(standing.to_json())))
    assert again == standing
    assert again.places[0].at == START, "of which equality knows nothing, so that one country is one key"


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "finish", "say"]), st.integers(0, 4), st.integers(0, 5)), max_size=40)
)
@example([("begin", 0, 0), ("begin", 0, 0), ("say", 0, 0), ("say", 2, 0), ("say", 1, 0)])
def test_of_what_imports_claim_the_newest_counts_whose_import_is_complete(told: list[tuple[str, int, int]]) -> None:
    """Number 0 is the person, who is always believed; what is kept is bounded all the same."""
    unfinished: dict[int, list[int]] = {}
    said: list[tuple[int, datetime]] = []
    standing, begun = NOTHING_KNOWN, 0
    for seq, (what, number, minutes) in enumerate(told, 1):
        if what == "begin":
            begun += 1
            unfinished[begun] = sorted(unfinished)
        elif what == "finish":
            unfinished.pop(number, None)
        elif number == 0 or number in unfinished:
            at = START + timedelta(minutes=minutes)
            facts = {"import": number, "unfinished": unfinished[number]} if number else {}
            standing = standing.after(Event(seq, OPT_IN, WHO, at, at, "news", None, facts))
            said.append((number, at))
    counting = standing.counting(unfinished).permissions
    assert max((one.at for one in counting), default=None) == max(
        (at for number, at in said if number not in unfinished), default=None
    )
    assert standing.counting(()) is standing
    assert Standing.from_json(json.loads(json.dumps(standing.to_json()))) == standing
