"""The keeper's daily round stands in nobody's way: it rests for most of the time, and leaves when the program does."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import housekeeping
from gateway.housekeeping import MOST_REST, REST, Abandoned, Leisure
from gateway.ledger import timestamp
from gateway.store import purge
from gateway.store.writer import connect
from tests.store_under_test import ALICE, BOB, START, Rig, opt_in


class Time:
    """Passes only where somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = list[float]()

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.slept.append(seconds)
        return False


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(housekeeping, "monotonic", lambda: time.now)
    monkeypatch.setattr(housekeeping, "Event", lambda: time)
    return time


def test_after_each_piece_of_work_it_rests_for_a_multiple_of_what_that_took(time: Time) -> None:
    rest = Leisure(lambda: False)
    for worked in (0.01, 0.03, 60.0):
        time.now += worked
        rest(0.5)
    assert time.slept == pytest.approx([0.01 * REST, 0.03 * REST, MOST_REST])


def test_what_is_left_when_the_program_stops_is_left_to_the_next_day(time: Time) -> None:
    with pytest.raises(Abandoned):
        Leisure(lambda: True)(0.5)


async def test_no_proof_is_read_that_came_in_too_late_to_be_due(tmp_path: Path) -> None:
    rig, day = Rig(tmp_path / "data"), timedelta(days=1)
    for person in (ALICE, BOB):
        async with rig.people() as people:
            await people.record([opt_in(person, topic) for topic in ("news", "offers", "software")])
        rig.clock.move(day / 2)
        sealer = rig.folder.sealer(rig.clock.now)
        assert sealer.elected() and await sealer.seal() == 3
        await sealer.close()
        rig.clock.move(day / 2)
    async with rig.people() as people:
        await people.record([opt_in(BOB, "events")])
    with closing(connect(rig.folder.people, read_only=True)) as connection:
        asked = [START - 9 * day, START + day / 4, START + 3 * day / 4, START + 9 * day]
        assert [purge._last_before(connection, timestamp(one)) for one in asked] == [3, 3, 6, 7]
