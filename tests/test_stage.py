"""What has been read of a file comes out sorted, each statement once, whatever the order in which it was taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from gateway.consent import EventType
from gateway.imports.rows import Row
from gateway.imports.stage import stage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED, EventType.UNSUBSCRIBE, EventType.HARD_BOUNCE)
SAID = st.tuples(st.binary(min_size=1, max_size=2), st.sampled_from(KINDS), st.none() | st.integers(0, 9))


@given(st.lists(SAID, max_size=60))
def test_opt_outs_come_first_each_in_its_place_and_the_newest_of_what_says_the_same(
    said: list[tuple[bytes, EventType, int | None]],
) -> None:
    rows = [
        (place, Row(line, place.hex(), kind, NOON + timedelta(hours=hours) if hours is not None else None))
        for line, (place, kind, hours) in enumerate(said, 1)
    ]
    with TemporaryDirectory() as folder, stage(Path(folder)) as staged:
        staged.add(rows[:20])
        staged.add(rows[20:])
        assert len(staged) == len(rows)
        found = list(staged.rows())
    newest: dict[tuple[bool, bytes, str], datetime | None] = {}
    for place, one in rows:
        key = (one.type in KINDS[:2], place, str(one.type))
        newest[key] = max(filter(None, (newest.get(key), one.at)), default=None)
    assert [((row.type in KINDS[:2], place, str(row.type)), row.at) for place, row in found] == sorted(newest.items())
    assert all((place, row) in rows for place, row in found)
