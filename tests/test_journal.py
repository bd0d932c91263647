"""The journal of opt-outs: what was appended is recorded, once and in order, whatever came in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.consent import NewEvent
from gateway.errors import StoreUnavailable
from gateway.model import Scope
from gateway.store.condition import Condition, Trouble
from gateway.store.journal import Journal
from tests.store_under_test import ALICE, BOB, unsubscribe

EVENTS = [unsubscribe(bytes(16)), unsubscribe(ALICE, scope=Scope.ALL_MARKETING), unsubscribe(BOB, "other")]


class Ledger:
    """Takes what is recorded, after `failures` refusals."""

    def __init__(self, failures: int = 0) -> None:
        self.events: list[NewEvent] = []
        self.failures = failures

    async def record(self, events: Sequence[NewEvent]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("not yet")
        self.events += events


@pytest.fixture
def condition(tmp_path: Path) -> Condition:
    return Condition(tmp_path / "condition")


@pytest.fixture
def journal(tmp_path: Path, condition: Condition) -> Journal:
    journal = Journal(tmp_path / "journal.jsonl", condition)
    journal.make()
    return journal


async def test_what_was_appended_is_recorded_in_order_and_once(journal: Journal) -> None:
    ledger = Ledger()
    for event in EVENTS:
        journal.append([event])
    assert not journal.is_empty
    assert await journal.drain(ledger.record) == len(EVENTS)
    assert journal.is_empty
    assert await journal.drain(ledger.record) == 0
    assert ledger.events == EVENTS


async def test_other_processes_see_at_once_that_something_waits(
    journal: Journal, condition: Condition, tmp_path: Path
) -> None:
    other = Condition(tmp_path / "condition")
    assert not other.promotion_waits
    journal.append(EVENTS)
    assert other.promotion_waits
    assert other.troubles() == [Trouble.JOURNAL]
    await journal.drain(Ledger().record)
    assert not other.promotion_waits


async def test_what_the_store_does_not_take_stays(journal: Journal) -> None:
    ledger = Ledger(failures=1)
    journal.append(EVENTS)
    with pytest.raises(StoreUnavailable):
        await journal.drain(ledger.record)
    assert not journal.is_empty
    await journal.drain(ledger.record)
    assert ledger.events == EVENTS


async def test_what_comes_while_the_journal_is_drained_is_recorded_too(journal: Journal) -> None:
    ledger = Ledger()

    async def record_while_another_comes(events: Sequence[NewEvent]) -> None:
        if not ledger.events:
            journal.append(EVENTS[1:])
        await ledger.record(events)

    journal.append(EVENTS[:1])
    assert await journal.drain(record_while_another_comes) == len(EVENTS)
    assert ledger.events == EVENTS
    assert journal.is_empty


async def test_a_journal_that_is_drained_by_another_is_left_alone(journal: Journal) -> None:
    ledger = Ledger()

    async def drain_again(events: Sequence[NewEvent]) -> None:
        assert await journal.drain(ledger.record) == 0
        await ledger.record(events)

    journal.append(EVENTS)
    await journal.drain(drain_again)
    assert ledger.events == EVENTS


@pytest.mark.parametrize("torn", [b'{"type": "UNSUB', b"\0" * 4096], ids=["cut short", "zeros"])
async def test_a_line_that_a_crash_left_unfinished_is_cut_off(
    tmp_path: Path, condition: Condition, journal: Journal, torn: bytes
) -> None:
    journal.append(EVENTS[:1])
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(torn)
    after_the_crash = Journal(tmp_path / "journal.jsonl", condition)
    after_the_crash.append(EVENTS[1:])
    ledger = Ledger()
    await after_the_crash.drain(ledger.record)
    assert ledger.events == EVENTS


async def test_a_line_that_cannot_be_read_keeps_no_other_from_being_recorded(tmp_path: Path, journal: Journal) -> None:
    journal.append(EVENTS[:1])
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"type": "NONSENSE"}\n')
    journal.append(EVENTS[1:])
    ledger = Ledger()
    await journal.drain(ledger.record)
    assert ledger.events == EVENTS


async def test_whatever_a_browser_says_of_itself_can_be_kept(journal: Journal) -> None:
    odd = NewEvent(EVENTS[0].type, bytes(16), EVENTS[0].at, personal={"user_agent": "\udc80 Grüße \n\0"})
    ledger = Ledger()
    journal.append([odd])
    await journal.drain(ledger.record)
    assert ledger.events == [odd]


def test_what_cannot_be_written_is_said_and_not_kept(tmp_path: Path, condition: Condition) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    journal = Journal(tmp_path / "journal.jsonl", condition)
    with pytest.raises(StoreUnavailable):
        journal.append(EVENTS)
    assert journal.is_empty


async def test_a_condition_from_before_a_crash_is_corrected(journal: Journal, condition: Condition) -> None:
    condition.tell(Trouble.JOURNAL, 17)
    assert await journal.drain(Ledger().record) == 0
    assert journal.is_empty
