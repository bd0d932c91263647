"""What is wrong on this machine now: a few numbers in memory that all processes of an installation share.

The keeper looks and tells, workers and commands ask; asking costs no system call, so that it can be done for every
message. The rule: promotion does not move while the first three say that anything is wrong. The numbers are a mapped
file, whose content means nothing once the machine has stopped: whoever tells them tells them anew.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from pathlib import Path

_SIZE = 4096


class Trouble(IntEnum):
    """What can be wrong, and what its number counts; 0 is well."""

    JOURNAL = 0
    PEOPLE = 1
    CLOCK = 2
    DISK = 3
    LOG = 4

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
}


class Condition:
    """One process's view of the shared numbers."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
