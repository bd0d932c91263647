"""Counts that fade, kept by several processes together in memory that they share.

The rule that must not be broken: each process writes in its own row only, so that no lock is needed, nothing is lost
between two of them, and what a killed one leaves behind is its own. What is known is the sum of the rows. Where a row
is full, the smallest count makes room. Names are kept as keyed digests; what they mean is left to whoever counts.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from math import exp
from typing import Final

PLACES: Final = 16_384
"""How many names one row holds, about; more push each other out."""
_WAYS: Final = 4


class SharedTally:
    """The memory of one tally and the key of its digests, made before the processes fork; one row a process.

    A count fades to 1/e of itself in `fade` seconds, or not at all.
    """

    def __init__(self, rows: int, fade: float | None = None) -> None:
        self._rows = [_Row() for _ in range(rows)]
        self._fade = fade
        self._key = os.urandom(32)

    def own(self, row: int, clock: Callable[[], float] = time.monotonic) -> Tally:
        """Return the tally as the process that has this row sees it; the clock is one that processes share."""
        return Tally(self._rows, row, self._fade, self._key, clock)


class Tally:
    """One process's view: what it adds or puts is its own, a `level` is everybody's."""

    def __init__(self, rows: list[_Row], own: int, fade: float | None, key: bytes, clock: Callable[[], float]) -> None:
        self._rows = rows
        self._own = rows[own]
        self._others = [row for row in rows if row is not self._own]
        self._fading = 1 / fade if fade else 0.0
        self._key = key
        self._clock = clock

    def level(self, name: str) -> float:
        """Return what all processes have counted for a name, as far as it has not faded."""
        return self._sum(self._rows, name)

    def elsewhere(self, name: str) -> float:
        """Return what the other processes have counted."""
        return self._sum(self._others, name)

    def add(self, name: str, amount: float = 1.0) -> None:
        digest, now = self._digest(name), self._clock()
        self._own.write(digest, self._own.level(digest, now, self._fading) + amount, now, self._fading)

    def put(self, name: str, amount: float) -> None:
        """Let this process's count be this much; 0 forgets the name."""
        self._own.write(self._digest(name), amount, self._clock(), self._fading)

    def clear(self) -> None:
        """Forget what this process, or one that had its row before, has counted."""
        self._own.clear()

    def _sum(self, rows: list[_Row], name: str) -> float:
        digest, now = self._digest(name), self._clock()
        return sum([row.level(digest, now, self._fading) for row in rows])

    def _digest(self, name: str) -> int:
        """Return what stands for a name; never 0, which is an empty place."""
        text = name.encode("utf-8", "surrogateescape")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._key).digest()) or 1


class _Row:
    """One process's counts: sets of a few places, and in each a digest, an amount, and when that was written."""

    def __init__(self) -> None:
        self._digests = memoryview(mmap.mmap(-1, PLACES * 8)).cast("Q")
        self._amounts = memoryview(mmap.mmap(-1, PLACES * 8)).cast("d")
        self._times = memoryview(mmap.mmap(-1, PLACES * 8)).cast("d")

    def level(self, digest: int, now: float, fading: float) -> float:
        first = digest % (PLACES // _WAYS) * _WAYS
        ways = self._digests[first : first + _WAYS].tolist()
        return self._at(first + ways.index(digest), now, fading) if digest in ways else 0.0

    def write(self, digest: int, amount: float, now: float, fading: float) -> None:
        place = self._place_for(digest, now, fading)
        self._amounts[place] = amount
        self._times[place] = now
        self._digests[place] = digest if amount else 0

    def clear(self) -> None:
        for place in range(PLACES):
            self._digests[place] = 0

    def _place_for(self, digest: int, now: float, fading: float) -> int:
        """Return the place that the digest has, an empty one, or the one whose count is smallest."""
        first = digest % (PLACES // _WAYS) * _WAYS
        ways = self._digests[first : first + _WAYS].tolist()
        for wanted in (digest, 0):
            if wanted in ways:
                return first + ways.index(wanted)
        place = min(range(first, first + _WAYS), key=lambda one: self._at(one, now, fading))
        self._digests[place] = 0
        return place

    def _at(self, place: int, now: float, fading: float) -> float:
        amount = self._amounts[place]
        return amount * exp((self._times[place] - now) * fading) if fading else amount
