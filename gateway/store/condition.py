"""What is wrong on this machine now: a few numbers in memory that all processes of an installation share.

The keeper looks and tells, workers and commands ask; asking costs no system call, so that it can be done for every
message. The rule: promotion does not move while the first three say that anything is wrong, nor by keys that DNS
contradicts; their marks are listed behind the numbers. The numbers are a mapped file, whose content means nothing once
the machine has stopped: whoever tells them tells them anew.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from gateway.store import disk

_SIZE = 4096
_MARKS_FROM = 64
_MOST_MARKS = _SIZE // 8 - _MARKS_FROM


class Trouble(IntEnum):
    """What can be wrong, and what its number counts; 0 is well."""

    JOURNAL = 0
    PEOPLE = 1
    CLOCK = 2
    DISK = 3
    LOG = 4
    KEYS = 5

    @property
    def sentence(self) -> str:
        """What `status` and the log say."""
        return _TOLD[self][1]


_TOLD = {
    Trouble.JOURNAL: ("assent_journal_octets", "opt-outs wait in the journal; promotion waits for them"),
    Trouble.PEOPLE: ("assent_people_store_away", "the people store takes nothing; promotion waits"),
    Trouble.CLOCK: (
        "assent_clock_jump_seconds",
        "the wall clock has jumped; promotion waits until it is back, or until a reload takes it for right",
    ),
    Trouble.DISK: ("assent_disk_full", "there is too little room on the disk for another message"),
    Trouble.LOG: ("assent_log_octets", "a reader that does not end keeps a write-ahead log from being emptied"),
    Trouble.KEYS: (
        "assent_dkim_keys_contradicted",
        "DNS publishes another key than one of ours, by which no signature verifies",
    ),
}


class Condition:
    """One process's view of the shared numbers."""

    def __init__(self, path: Path) -> None:
        descriptor = disk.open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.pwrite(descriptor, bytes(_SIZE), 0)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("Q")

    def __getitem__(self, trouble: Trouble) -> int:
        return self._numbers[trouble]

    def tell(self, trouble: Trouble, number: int) -> int:
        """Say how it stands with one trouble, for everybody; return what was said before."""
        before = self._numbers[trouble]
        self._numbers[trouble] = number
        return before

    @property
    def promotion_waits(self) -> bool:
        """True while a "no" may be unknown to the people store, or the time may be wrong."""
        numbers = self._numbers
        return bool(numbers[0] or numbers[1] or numbers[2])

    def contradict(self, marks: Sequence[int]) -> int:
        """Say which signing keys DNS contradicts, for everybody; return how many were said before."""
        kept = marks[:_MOST_MARKS]
        for at, mark in enumerate(kept, _MARKS_FROM):
            self._numbers[at] = mark
        return self.tell(Trouble.KEYS, len(kept))

    def are_contradicted(self, marks: Sequence[int]) -> bool:
        """True while DNS contradicts every one of these signing keys, so that nothing they sign would verify."""
        count = self._numbers[Trouble.KEYS]
        return bool(count) and set(marks) <= set(self._numbers[_MARKS_FROM : _MARKS_FROM + count])

    def troubles(self) -> list[Trouble]:
        """Return what is wrong now."""
        return [one for one in Trouble if self._numbers[one]]

    def text(self) -> str:
        """Return the numbers as gauges, in the Prometheus text exposition format 0.0.4."""
        families = [(*_TOLD[one], self._numbers[one]) for one in Trouble]
        return "".join(f"# HELP {name} {told}.\n# TYPE {name} gauge\n{name} {n}\n" for name, told, n in families)

    def close(self) -> None:
        self._numbers.release()
        self._map.close()
