"""Whose turn it is to write, among processes: a lock that is handed on in order.

`flock` alone is not fair: a process that lets go and asks again at once is faster than the one that has to wake up, so
a busy worker could keep another waiting for as long as it is busy. Here whoever wants the lock first takes the only
place at its door, and keeps it until the lock is had; the one who has just let go cannot overtake.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.store import disk


class Turn:
    """One process's hand on the lock of one database file; the kernel takes it away when the process ends."""

    def __init__(self, database: Path) -> None:
        self._lock, self._door = (
            disk.open_private(database.with_name(database.name + ending), os.O_RDWR | os.O_CREAT)
            for ending in (".lock", ".door")
        )

    def take(self) -> None:
        """Wait for the lock, however long that takes."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    def give(self) -> None:
        """Let go of the lock, if we have it."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._door)
        os.close(self._lock)
