"""When is so much of a campaign refused that its stream must pause?

Totals in, yes or no out. The rule that must not be broken: a brake is pulled only for what was really refused among
the last so many recipients, so that a campaign which goes well is never stopped by refusals of long ago. Who counts,
and what a pause does, is the shell's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.model import Brake

LONGEST = timedelta(hours=1)
"""What lies further back is another sending."""

_STEPS = 100
"""How many observations a window has, so that the largest brake needs no more memory than the smallest."""


@dataclass(frozen=True, slots=True)
class Totals:
    """A campaign's recipients so far, how many of them were refused, and when the first one came."""

    recipients: int
    refused: int
    since: datetime


class Window:
    """One observer's memory of a campaign: enough to say what happened to the last so many recipients."""

    def __init__(self, brake: Brake) -> None:
        self._brake = brake
        self._step = max(1, brake.first // _STEPS)
        self._seen: deque[tuple[int, int, datetime]] = deque()

    def observe(self, totals: Totals, recipients: int, refused: int, now: datetime) -> bool:
        """Take in the totals, of which so many recipients came just now; True where the brake must be pulled.

        Nothing is said before the first so many recipients have come. Beyond them, refusals at the window's edge may
        be left out: a hundredth of it, and never to the campaign's harm.
        """
        self._remember(totals.recipients - recipients, totals.refused - refused, now)
        if totals.recipients < self._brake.first:
            return False
        is_first = totals.recipients - recipients < self._brake.first and totals.since > now - LONGEST
        earlier, refused_earlier = (0, 0) if is_first else self._beginning(totals, now)
        among = max(self._brake.first, totals.recipients - earlier)
        return (totals.refused - refused_earlier) * 100 >= self._brake.percent * among

    def _remember(self, recipients: int, refused: int, now: datetime) -> None:
        if not self._seen or recipients - self._seen[-1][0] >= self._step:
            self._seen.append((recipients, refused, now))

    def _beginning(self, totals: Totals, now: datetime) -> tuple[int, int]:
        """Return the recipients and the refused before the window."""
        while len(self._seen) > 1 and self._is_past(*self._seen[0], totals, now):
            self._seen.popleft()
        return self._seen[0][:2]

    def _is_past(self, recipients: int, refused: int, at: datetime, totals: Totals, now: datetime) -> bool:
        return recipients < totals.recipients - self._brake.first or at < now - LONGEST
