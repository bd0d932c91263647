"""A time-out that is set for every wait and hardly ever goes off, so setting it must cost next to nothing.

The event loop is asked for a timer only when the one that runs would come too late; a timer that comes too early
looks at what is due now and asks for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls what it was last set to, once that is due, unless it is cleared or set anew before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._then: Callable[[], None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, then: Callable[[], None]) -> None:
        self._then = then
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self.drop_timer()
            self._timer = self._loop.call_later(seconds, self._look)

    def clear(self) -> None:
        self._then = None

    def drop_timer(self) -> None:
        """Leave nothing with the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        then, left = self._then, self._due - self._loop.time()
        if then is None:
            return
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._then = None
        then()
