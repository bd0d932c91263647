"""What has been read of a file comes out sorted, each statement once, whatever the order in which it was taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from gateway.consent import EventType
from gateway.imports.rows import Row, moment
from gateway.imports.stage import stage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED, EventType.UNSUBSCRIBE, EventType.HARD_BOUNCE)
EVER = datetime.min.replace(tzinfo=UTC)
PLACES = [bytes([first, second]) for first in (0, 255) for second in range(4)]
SAID = st.tuples(st.sampled_from(PLACES), st.sampled_from(KINDS), st.none() | st.integers(0, 9))


@given(st.lists(SAID, max_size=60).map(lambda said: said * 4))
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
        shares = [one for pile in (staged.opt_outs, staged.consents) for n in range(3) for one in pile.rows(n, of=3)]
    assert len(shares) == len(found)
    assert all(one in found for one in shares)
    kept: dict[tuple[bool, bytes, str], tuple[bytes, Row]] = {}
    for place, one in rows:
        key = (one.type in KINDS[:2], place, str(one.type))
        known = kept.get(key)
        if known is None or (one.at or EVER) > (known[1].at or EVER):
            kept[key] = (place, one)
    assert found == [kept[key] for key in sorted(kept)]


def test_a_time_is_kept_in_utc_so_that_the_newest_is_found_whatever_zone_it_was_told_in() -> None:
    told = [moment(text) for text in ("2026-01-01T12:00:00+02:00", "2026-01-01T11:00:00Z", "2026-01-01T04:30:00-05:00")]
    rows = [(b"\0", Row(line, "a@example.org", KINDS[0], at)) for line, at in enumerate(told, 1)]
    with TemporaryDirectory() as folder, stage(Path(folder)) as staged:
        staged.add(rows)
        assert [row.line for _, row in staged.rows()] == [2]
