"""How the workers of a crew wake one another: what one leaves in the spool for all is claimed at once.

The rule that must not be broken: a bell only wakes. Nothing rests on its being heard; whoever misses it finds the same
copies at its next look into the spool. Who claims what is left to `delivery` and the spool.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

_LONGEST = 4096


class Bells:
    """The bells of one crew's workers, hung by the supervisor before it forks."""

    def __init__(self, workers: int) -> None:
        self._pairs = [socket.socketpair() for _ in range(workers)]
        for end in (end for pair in self._pairs for end in pair):
            end.setblocking(False)

    def of(self, worker: int) -> Bell:
        """Return this worker's bell, which may have been a fallen one's before."""
        (mine, _), others = self._pairs[worker], self._pairs[:worker] + self._pairs[worker + 1 :]
        return Bell(self, mine, [far for _, far in others])


class Bell:
    """One worker's bell, and the ropes of the others'. It holds on to all of them, so that nobody hears an end."""

    def __init__(self, bells: Bells, mine: socket.socket, others: list[socket.socket]) -> None:
        self._bells = bells
        self._mine = mine
        self._others = others

    @property
    def crew(self) -> int:
        """How many workers there are, this one too."""
        return len(self._others) + 1

    def ring_others(self) -> None:
        """Wake the others; one that has not heard the last times yet needs no further one."""
        for other in self._others:
            with suppress(BlockingIOError):
                other.send(b"!")

    async def wait(self, seconds: float) -> None:
        """Return once another worker has rung, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_recv(self._mine, _LONGEST)
