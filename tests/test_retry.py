"""When a deferred copy is tried again, and when we give up (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from gateway.model import RetrySchedule

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USUAL = RetrySchedule((MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR), 5 * DAY)


def attempts(schedule: RetrySchedule) -> list[timedelta]:
    """Return when each attempt is made, after the message was received, if every one is deferred at once."""
    made, now = [timedelta(0)], START
    while due := schedule.due(len(made), START, now):
        now = due
        made.append(now - START)
    return made


def test_the_waits_grow_and_then_the_last_one_repeats() -> None:
    made = attempts(USUAL)
    waits = [after - before for before, after in pairwise(made)]
    assert waits[:7] == [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, HOUR, HOUR]


def test_the_last_attempt_is_made_at_the_end_of_a_copys_life_and_none_after_it() -> None:
    made = attempts(USUAL)
    assert made[-1] == 5 * DAY
    assert made[-2] > 5 * DAY - HOUR


def test_a_shorter_life_ends_sooner_and_a_longer_one_no_later() -> None:
    assert attempts(USUAL.ending(2 * HOUR))[-1] == 2 * HOUR
    assert USUAL.ending(9 * DAY) == USUAL


def test_a_long_attempt_that_ends_too_late_is_the_last() -> None:
    assert USUAL.due(1, START, START + 5 * DAY) is None
    assert USUAL.due(1, START, START + 6 * DAY) is None
