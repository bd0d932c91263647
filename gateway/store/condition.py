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
    """Octets of opt-outs in the journal, which the people store does not know yet."""
    PEOPLE = 1
    """1 while the people store cannot be written."""
    CLOCK = 2
    """Seconds by which the wall clock has left the time that we go by."""
    DISK = 3
    """1 while there is too little room for another message."""
    LOG = 4
    """Octets of write-ahead log, where a reader keeps it from being moved into its database."""


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

    def close(self) -> None:
        self._numbers.release()
        self._map.close()
