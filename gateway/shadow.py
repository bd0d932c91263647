"""Tell operators before a stream's shadow mode ends, and how many people it will refuse then (OPS-04).

The rule: nobody is surprised by a stream that begins to enforce, so the end is told a week, three days and a day ahead,
and again when it has come. What shadow mode lets through is the policy's to say.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime

from gateway.errors import StoreUnavailable
from gateway.model import Stream

log = logging.getLogger(__name__)

ALARM_DAYS = (7, 3, 1)
_OVER = -1
_METRIC = "assent_shadow_days_left"


@dataclass(frozen=True, slots=True)
class ShadowEnd:
    """When a stream begins to enforce: `until` is the last day on which it does not."""

    stream: str
    until: date

    def days_left(self, today: date) -> int:
        """Return how many days come after today on which it does not enforce; negative once it does."""
        return (self.until - today).days


def shadow_ends(streams: Mapping[str, Stream]) -> list[ShadowEnd]:
    """Return the streams in shadow mode, the first to enforce first."""
    ends = [ShadowEnd(name, one.until) for name, one in streams.items() if one.is_shadow and one.until]
    return sorted(ends, key=lambda one: one.until)


def gauge_text(ends: Iterable[ShadowEnd], today: date) -> str:
    """Return the days that are left, in the Prometheus text exposition format; "" where nothing is in shadow mode."""
    lines = [f'{_METRIC}{{stream="{one.stream}"}} {one.days_left(today)}\n' for one in ends]
    help_text = f"# HELP {_METRIC} Days until a stream in shadow mode enforces.\n# TYPE {_METRIC} gauge\n"
    return help_text + "".join(lines) if lines else ""


class ShadowAlarms:
    """Says each thing once; `count` returns how many people got a stream's mail who have not opted in to this day."""

    def __init__(
        self, ends: Sequence[ShadowEnd], count: Callable[[str], Awaitable[int]], now: Callable[[], datetime]
    ) -> None:
        self._ends = ends
        self._count = count
        self._now = now
        self._told: set[tuple[str, int]] = set()

    async def look(self) -> None:
        """Say what is due to be said of each stream."""
        today = self._now().date()
        for end in self._ends:
            mark = _mark(end.days_left(today))
            if mark is not None and (end.stream, mark) not in self._told:
                with suppress(StoreUnavailable):  # then it is said at the next look
                    await self._tell(end, mark)
                    self._told.add((end.stream, mark))

    async def _tell(self, end: ShadowEnd, mark: int) -> None:
        who = f"{await self._count(end.stream)} people have got its mail who have not opted in"
        if mark == _OVER:
            log.warning("stream %s enforces since %s was over: %s, and get none any more", end.stream, end.until, who)
        else:
            log.warning("shadow mode of stream %s ends with %s: %s, and will be refused", end.stream, end.until, who)


def _mark(days_left: int) -> int | None:
    """Return which of the alarms is the latest that is due; None for none yet."""
    if days_left < 0:
        return _OVER
    return min((one for one in ALARM_DAYS if days_left <= one), default=None)
