"""How the workers of a crew wake one another: what one leaves in the spool for all is claimed at once.

The rule that must not be broken: a call only wakes. Nothing rests on its being heard; whoever misses one finds the same
copies at its next look into the spool. Who claims what is left to `delivery` and the spool.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

_LONGEST = 4096


class Calls:
    """The ways between the workers of one crew, made by the supervisor before it forks."""

    def __init__(self, workers: int) -> None:
        self._ways = [socket.socketpair() for _ in range(workers)]
        for end in (end for way in self._ways for end in way):
            end.setblocking(False)

    def of(self, worker: int) -> Caller:
        """Return what this worker calls the others by, and hears them by; it may be a fallen one's successor."""
        (mine, _), others = self._ways[worker], self._ways[:worker] + self._ways[worker + 1 :]
        return Caller(self, mine, [far for _, far in others])


class Caller:
    """One worker's end. It keeps all ways open, so that nobody hears the end of a file."""

    def __init__(self, calls: Calls, mine: socket.socket, others: list[socket.socket]) -> None:
        self._calls = calls
        self._mine = mine
        self._others = others

    @property
    def crew(self) -> int:
        """How many workers there are, this one too."""
        return len(self._others) + 1

    def call(self) -> None:
        """Wake the others; one that has not heard the last calls yet needs no further one."""
        for other in self._others:
            with suppress(BlockingIOError):
                other.send(b"!")

    async def wait(self, seconds: float) -> None:
        """Return once another worker has called, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_recv(self._mine, _LONGEST)
