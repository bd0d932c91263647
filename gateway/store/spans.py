"""What was decided and recorded in a span of time, out of files that grow for years.

The rule that must not be broken: every line of the span comes, and comes once, also one that the sealer moves
meanwhile. Lines are numbered almost in the order of their times, so where a span begins is found by halving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.consent import Event
from gateway.store.history import EVENTS, event_of
from gateway.store.writer import Connection, connect

_SLACK = timedelta(minutes=10)
"""By how much a line may stand before another that is older: workers write down what they decided with a commit."""

_AT_ONCE = 5000

Line = dict[str, Any]


class _Series(NamedTuple):
    """A table whose rows are numbered by `seq`: what to select between two numbers, and which column tells the time."""

    table: str
    select: str
    time: str
    read: Callable[[Any], datetime]


def lines_between(
    months: Path, unsealed: Callable[[], list[bytes]], since: datetime, until: datetime
) -> Iterator[Line]:
    """Yield the decision lines of a span, those of the outbox last; `unsealed` reads that."""
    waiting = dict.fromkeys(unsealed())
    for path in sorted(months.glob("*.db")):
        if f"{since - _SLACK:%Y-%m}" <= path.stem <= f"{until + timedelta(days=1):%Y-%m}":
            with closing(connect(path, read_only=True)) as connection:
                for (line,) in _rows(connection, _DECISIONS, since, until):
                    waiting.pop(bytes(line), None)
                    yield from _within(line, since, until)
    for line in waiting:
        yield from _within(line, since, until)


def events_between(people: Path, since: datetime, until: datetime) -> Iterator[Event]:
    """Yield the ledger's events that were recorded in a span."""
    with closing(connect(people, read_only=True)) as connection:
        for event in map(event_of, _rows(connection, _EVENTS, since, until)):
            if since <= event.recorded_at < until:
                yield event


def _rows(connection: Connection, series: _Series, since: datetime, until: datetime) -> Iterator[Any]:
    """Yield rows by their numbers from where the span begins to where it has ended, some at a time."""
    lowest, highest = connection.execute(f"SELECT min(seq), max(seq) FROM {series.table}").fetchone()
    if highest is None:
        return

    def at(seq: int) -> datetime:
        row = connection.execute(
            f"SELECT {series.time} FROM {series.table} WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)
        ).fetchone()
        return series.read(row[0])

    position = _first(lowest, highest + 1, lambda seq: at(seq) >= since - _SLACK)
    while position <= highest and at(position) < until + _SLACK:
        yield from connection.execute(series.select, (position, position + _AT_ONCE - 1)).fetchall()
        position += _AT_ONCE


def _first(low: int, high: int, is_late: Callable[[int], bool]) -> int:
    """Return the first number in `low:high` that is late, `high` where none is."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_late(middle) else (middle + 1, high)
    return low


def _within(line: bytes, since: datetime, until: datetime) -> Iterator[Line]:
    told: Line = orjson.loads(line)
    if since <= datetime.fromisoformat(told["at"]) < until:
        yield told


def _time_of(line: bytes) -> datetime:
    return datetime.fromisoformat(orjson.loads(line)["at"])


_DECISIONS = _Series("decisions", "SELECT line FROM decisions WHERE seq BETWEEN ? AND ? ORDER BY seq", "line", _time_of)
_EVENTS = _Series(
    "events", f"{EVENTS} WHERE e.seq BETWEEN ? AND ? ORDER BY e.seq", "recorded_at", datetime.fromisoformat
)
