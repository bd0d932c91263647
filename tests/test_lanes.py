"""The lanes before a smarthost: who gets a parcel, what promotion may take, and what an operator takes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.lanes import PARCEL_OCTETS, Lane, Lanes, Parcel, Shared
from gateway.model import MessageClass, Priority, Smarthost
from gateway.smarthost import Pool
from tests.store_under_test import ALICE, BOB, Rig

SMARTHOST = Smarthost("default", ("maildir:/nowhere",))
BUDGET = 1_000_000


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


def lanes(connections: int = 10) -> Lanes:
    return Lanes(Pool(SMARTHOST, hostname="mx.example.com"), SMARTHOST, connections, BUDGET)


def essential() -> Lane:
    return lanes().lane(Priority.ESSENTIAL)


def parcel(rig: Rig, message_class: MessageClass = MessageClass.ACCOUNT) -> Parcel:
    return Parcel(Shared(rig.message(message_class=message_class)), tuple(rig.addressees(ALICE)))


@pytest.mark.parametrize(("connections", "for_promotion"), [(0, 0), (1, 1), (2, 1), (10, 9), (20, 18)])
async def test_promotion_leaves_connections_alone_where_there_is_more_than_one(
    connections: int, for_promotion: int
) -> None:
    two = lanes(connections)
    assert two.lane(Priority.PROMOTION).connections == for_promotion
    assert two.lane(Priority.ESSENTIAL).connections == two.lane(Priority.BREACH).connections == connections


async def test_promotion_cannot_fill_the_memory_that_essential_mail_needs() -> None:
    two = lanes()
    assert 0 < two.promotion.room < BUDGET
    assert two.promotion.room + two.essential.room == BUDGET


async def test_the_parcels_of_one_message_hold_its_memory_once(rig: Rig) -> None:
    lane, message = essential(), rig.message()
    shared = Shared(message)
    before = lane.room
    parcels = [Parcel(shared, (addressee,)) for addressee in rig.addressees(ALICE, BOB)]
    for one in parcels:
        lane.put(one)
    assert before - lane.room == len(message.message) + 2 * PARCEL_OCTETS
    lane.done(parcels[0])
    assert before - lane.room == len(message.message) + PARCEL_OCTETS
    lane.done(parcels[1])
    assert lane.room == before


async def test_a_parcel_takes_room_until_it_is_done(rig: Rig) -> None:
    lane, one = essential(), parcel(rig)
    before = lane.room
    lane.put(one)
    assert await lane.next() is one
    assert lane.room < before
    lane.done(one)
    assert lane.room == before


async def test_breach_notices_overtake_what_waits(rig: Rig) -> None:
    lane = essential()
    parcels = [parcel(rig), parcel(rig), parcel(rig, MessageClass.BREACH_NOTICE)]
    for one in parcels:
        lane.put(one)
    assert [await lane.next() for _ in range(3)] == [parcels[2], parcels[0], parcels[1]]


async def test_a_parcel_goes_to_one_of_those_who_wait_and_wakes_nobody_else(rig: Rig) -> None:
    lane, one = essential(), parcel(rig)
    runners = [asyncio.create_task(lane.next()) for _ in range(5)]
    await asyncio.sleep(0)
    runners[-1].cancel()
    await asyncio.sleep(0)
    lane.put(one)
    await asyncio.sleep(0)
    assert [runner.result() for runner in runners if runner.done() and not runner.cancelled()] == [one]
    lane.close()
    assert (await asyncio.gather(*runners, return_exceptions=True)).count(None) == 3
    assert await lane.next() is None


async def test_an_operator_gets_back_what_has_not_begun(rig: Rig) -> None:
    lane = essential()
    parcels = [parcel(rig) for _ in range(3)] + [parcel(rig, MessageClass.BREACH_NOTICE)]
    before = lane.room
    for one in parcels:
        lane.put(one)
    assert lane.recall({parcels[1].message.id, parcels[3].message.id}) == [parcels[3], parcels[1]]
    assert [await lane.next() for _ in range(2)] == [parcels[0], parcels[2]]
    for one in (parcels[0], parcels[2]):
        lane.done(one)
    assert lane.room == before


def test_a_parcel_for_several_domains_has_no_one_destination(rig: Rig) -> None:
    shared = Shared(rig.message())
    other = rig.addressees(BOB.parse("carol@Other.example"))
    assert Parcel(shared, tuple(rig.addressees(ALICE, BOB))).destination == "example.org"
    assert Parcel(shared, tuple(other)).destination == "other.example"
    assert Parcel(shared, (*rig.addressees(ALICE), *other)).destination == ""
