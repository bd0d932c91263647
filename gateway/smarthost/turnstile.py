"""The rate of one smarthost over all processes of the machine: who may go now, and how long the others wait.

The one rule: what goes through is counted before it goes, so that a process that dies owes nothing and holds nothing
up. It is made before the workers are forked, and shared by them; a process's callers stand in one line.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SLACK = 0.01
"""Seconds by which a turn may be late without being lost: timers and other processes are not more exact."""
_MOMENT = struct.Struct("d")


class Turnstile:
    """Lets one caller through at a time, and then none for as long as that one's copies take at the smarthost's rate.

    The moment at which the next may go (CLOCK_MONOTONIC, which processes share) is in a file without a name; its record
    lock is the process's own, and gone with the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._file.write(_MOMENT.pack(0.0))
        self._line, self._line_behind = asyncio.Lock(), asyncio.Lock()

    async def go_through(self, seconds: float, *, gives_way: bool = False) -> None:
        """Wait for a turn; the next is `seconds` later. Who `gives_way` stands behind all who do not (OUT-17)."""
        async with self._line_behind if gives_way else self._line:
            await self._let_pass(gives_way)
            while wait := self._claim(seconds):
                await asyncio.sleep(wait)
                await self._let_pass(gives_way)

    async def _let_pass(self, gives_way: bool) -> None:
        while gives_way and self._line.locked():
            async with self._line:
                pass

    def _claim(self, seconds: float) -> float:
        """Take the turn if it is due, and return 0; otherwise return how long it will take, in seconds."""
        with self._locked() as descriptor:
            now = time.monotonic()
            (due,) = _MOMENT.unpack(os.pread(descriptor, _MOMENT.size, 0))
            if due > now:
                return float(due - now)
            os.pwrite(descriptor, _MOMENT.pack(max(due, now - _SLACK) + seconds), 0)
            return 0.0

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = self._file.fileno()
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        try:
            yield descriptor
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)
