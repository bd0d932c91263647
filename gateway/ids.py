"""Names for what we keep: ULIDs for decisions, time-ordered integers for spooled messages.

Both sort by the time they were made, so indices grow at their end. The text forms use Crockford's base32,
which has no letters that people confuse. Randomness and the clock are the caller's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
_COUNTER_BITS = 14
_SLOT_BITS = 7
SPOOL_TEXT_LENGTH = 13


def ulid(milliseconds: int, randomness: int) -> str:
    """Return the 26 characters of a ULID from 48 bits of time and 80 bits of randomness."""
    value = milliseconds << 80 | randomness
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def ulid_milliseconds(text: str) -> int:
    """Return the time in a ULID, in milliseconds since 1970; raises `ValueError` if it is none."""
    if len(text) != 26:
        raise ValueError("a decision id has 26 characters")
    return _decode(text) >> 80


@lru_cache(maxsize=4096)
def spool_text(spool_id: int) -> str:
    """Return a spool id as people see it: 13 characters."""
    return _CROCKFORD[spool_id >> 60] + "".join([_PAIRS[spool_id >> shift & 1023] for shift in range(50, -1, -10)])


def spool_number(text: str) -> int:
    """Return the spool id that people call `text`; raises `ValueError` if it is none."""
    if len(text) != SPOOL_TEXT_LENGTH:
        raise ValueError(f"a queue id has {SPOOL_TEXT_LENGTH} characters")
    return _decode(text)


class Ids:
    """Makes ids that no other worker of this machine makes: `slot` (0 to 127) is the worker's own."""

    def __init__(self, slot: int, now: Callable[[], datetime]) -> None:
        self._slot = slot % (1 << _SLOT_BITS)
        self._now = now
        self._random = random.Random(random.SystemRandom().getrandbits(256)).getrandbits
        self._count = self._random(_COUNTER_BITS)

    def decision(self) -> str:
        return ulid(self._milliseconds(), self._random(80))

    def spool(self) -> int:
        """Return a new spool id: 42 bits of milliseconds, the slot, a counter; 63 bits, as SQLite's row ids have."""
        self._count = (self._count + 1) % (1 << _COUNTER_BITS)
        return self._milliseconds() << (_SLOT_BITS + _COUNTER_BITS) | self._slot << _COUNTER_BITS | self._count

    def _milliseconds(self) -> int:
        return int(self._now().timestamp() * 1000)


def _decode(text: str) -> int:
    value = 0
    for letter in text.upper():
        value = value << 5 | _CROCKFORD.index(letter)
    return value
