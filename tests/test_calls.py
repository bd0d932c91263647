"""What waits to be told: in order for each person, whatever fails, and nothing of who was erased."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.consent import EventType, NewEvent
from gateway.model import Outcome, Scope
from gateway.store.outgoing import Failure, NewCall, ToolLink
from gateway.store.spool import SqliteSpool
from tests.store_under_test import ALICE, BOB, Rig

MINUTE = timedelta(minutes=1)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


@asynccontextmanager
async def spool_of(rig: Rig, *announced: Outcome) -> AsyncIterator[SqliteSpool]:
    store = rig.folder.open("worker", lambda *_: None, rig.clock.now, announced)
    try:
        assert isinstance(store.spool, SqliteSpool)
        yield store.spool
    finally:
        await store.close()


def contents(spool: SqliteSpool, target: str = "crm") -> list[str]:
    return [one.content for one in spool.calls.due(target, 100)]


async def test_calls_about_one_person_are_made_in_order_and_others_do_not_wait(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        calls = [("alice", "out"), ("bob", "out"), ("alice", "in")]
        await spool.calls.publish([NewCall("crm", *one) for one in calls], {"ledger": 3})
        first, second = spool.calls.due("crm", 100)
        assert (first.content, second.content) == ("out", "out")
        later = rig.clock.now() + MINUTE
        await spool.calls.settle("crm", [second.id], [Failure(first.id, later, "answered 500")])
        assert contents(spool) == [], "what is newer about alice waits for what failed"
        rig.clock.move(MINUTE)
        assert contents(spool) == ["out"]
        await spool.calls.settle("crm", [first.id], [])
        assert contents(spool) == ["in"]
        assert spool.calls.positions() == {"ledger": 3}


async def test_a_target_that_rests_or_is_gone_is_left_alone_until_it_is_tried_again(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        await spool.calls.publish([NewCall("crm", "alice", "a"), NewCall("erp", "alice", "b")], {})
        await spool.calls.settle("crm", [], [], rig.clock.now() + MINUTE)
        assert (contents(spool), contents(spool, "erp")) == ([], ["b"])
        rig.clock.move(MINUTE)
        assert contents(spool) == ["a"]
        await spool.calls.gone("crm")
        rig.clock.move(timedelta(days=100))
        assert contents(spool) == []
        (crm, _) = spool.calls.backlogs()
        assert (crm.target, crm.waiting, crm.gone_at is not None) == ("crm", 1, True)
        assert await spool.calls.try_again("crm") == 1 and contents(spool) == ["a"]


async def test_what_changes_whom_a_tool_may_mail_is_never_given_up(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        await spool.calls.publish([NewCall("crm", "a", "no", is_lasting=True), NewCall("crm", "b", "relayed")], {})
        rig.clock.move(MINUTE)
        assert await spool.calls.give_up(rig.clock.now()) == 1
        assert contents(spool) == ["no"]


async def test_of_somebody_to_forget_nothing_else_waits(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        await spool.calls.publish([NewCall("crm", "alice", "relayed"), NewCall("crm", "bob", "relayed")], {})
        await spool.calls.publish([NewCall("crm", "alice", "erased")], {}, forget=["alice"])
        assert contents(spool) == ["relayed", "erased"]


async def test_a_dropped_target_leaves_nothing(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        await spool.calls.publish([NewCall("crm", "alice", "x")], {"since:crm": 4, "ledger": 4})
        await spool.calls.gone("crm")
        await spool.calls.drop_targets({"crm"})
        assert (spool.calls.targets(), spool.calls.backlogs(), spool.calls.positions()) == ([], [], {"ledger": 4})


async def test_only_the_ends_that_somebody_wants_are_kept_beside_their_lines(rig: Rig) -> None:
    for wanted, kept in ((), []), ((Outcome.SUPPRESSED,), [BOB.text]):
        async with spool_of(rig, *wanted) as spool:
            spool.note([rig.line(who="a")], [BOB.text])
            spool.note([rig.line(who="b")])
        async with spool_of(rig) as spool:
            assert [one.address for one in spool.calls.endings(10)] == kept
            for one in spool.calls.endings(10):
                assert json.loads(one.line)["who"] == "a"


async def test_a_link_that_has_come_since_its_no_was_read_stays(rig: Rig) -> None:
    async with spool_of(rig) as spool:
        old, new = (ToolLink("news", "mautic", f"https://tool.example/{n}") for n in "12")
        for link in (old, new):
            message = replace(rig.message(), tool_url=link.url, login="mautic")
            await spool.keep(message, rig.addressees(ALICE), [], claimed=False)
        (who,) = {one.who for one in rig.addressees(ALICE)}
        await spool.calls.publish([], {}, told=[(who, old)])
        assert spool.calls.tool_links(who) == [new]
        rig.clock.move(MINUTE)
        await spool.calls.forget_tool_links(rig.clock.now())
        assert spool.calls.tool_links(who) == []


async def test_an_erased_persons_address_is_kept_only_for_whoever_is_told_and_only_until_then(rig: Rig) -> None:
    store = rig.folder.open("worker", lambda *_: None, rig.clock.now)
    people = store.people
    erasure = NewEvent(EventType.ERASURE, ALICE, rig.clock.now())
    try:
        await people.record([NewEvent(EventType.UNSUBSCRIBE, ALICE, rig.clock.now(), "", Scope.ALL_MARKETING)])
        await people.erase(erasure)
        assert await people.farewells(0, 100) == {}
        await people.tell_of_erasures(["crm"])
        event = await people.erase(NewEvent(EventType.ERASURE, BOB, rig.clock.now()))
        assert event and await people.farewells(0, 100) == {event.seq: BOB.text}
        await people.tell_of_erasures([])
        assert await people.farewells(0, 100) == {}
    finally:
        await store.close()


async def test_every_pause_has_its_number(rig: Rig) -> None:
    store = rig.folder.open("worker", lambda *_: None, rig.clock.now)
    try:
        for _ in range(2):
            await store.people.pause_stream("news", "a mistake", "olga")
            await store.people.pause_stream("news", "again", "olga")
            await store.people.release_stream("news", "olga")
        first, second = await store.people.pauses_after(0)
        assert (first.number, second.number, first.why, first.by) == (1, 2, "a mistake", "olga")
        assert await store.people.pauses_after(1) == [second] and await store.people.last_pause() == 2
    finally:
        await store.close()
