"""A listening socket that several processes have inherited, and the one connection that is taken from it at a time.

The rule that must not be broken: a connection that was accepted is served or closed. Processes that wait on one
socket all wake at a knock, and whoever wakes first would take everybody who stands there; so a process that has more
guests than another leaves the door to it for a moment. What happens inside is the protocol's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.errors import Malformed
from gateway.listener.peers import Network, Peer, introduction, is_within, peer_of

log = logging.getLogger(__name__)

_STEP_BACK: Final = 0.002
_STEPS_BACK: Final = 3
"""How often in a row: a process that hangs must not keep everybody out."""

_OUT_OF_FILES: Final = 1.0


@dataclass(frozen=True, slots=True)
class Seats:
    """How many guests each process has, in memory that all of them share; `own` is this process's place in it."""

    taken: memoryview
    own: int

    def tell(self, guests: int) -> None:
        self.taken[self.own] = guests

    def has_elsewhere_fewer_than(self, guests: int) -> bool:
        return any(others < guests for place, others in enumerate(self.taken) if place != self.own)


class Door:
    """Takes connections from a bound socket while it is open. `is_our_turn` says whether this process should."""

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[Peer | None], asyncio.Protocol],
        is_our_turn: Callable[[], bool],
        *,
        tls: ssl.SSLContext | None,
        handshake: float,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        self._sock = sock
        self._factory = factory
        self._is_our_turn = is_our_turn
        self._tls = tls
        self._handshake = handshake
        self._proxies = proxies
        self._entering: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._steps_back = 0
        sock.setblocking(False)

    @property
    def entering(self) -> int:
        """How many have been taken and are not inside yet."""
        return len(self._entering)

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._sock, self._take_one)

    def close(self) -> None:
        """Take nobody in any more. It may be closed twice."""
        if self._sock.fileno() < 0:
            return
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _take_one(self) -> None:
        if self._steps_back < _STEPS_BACK and not self._is_our_turn():
            self._steps_back += 1
            self._step_back(_STEP_BACK)
            return
        self._steps_back = 0
        try:
            guest, name = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("no connection can be taken: %s", error)
            self._step_back(_OUT_OF_FILES)
            return
        task = asyncio.get_running_loop().create_task(self._let_in(guest, peer_of(name)))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _let_in(self, guest: socket.socket, peer: Peer) -> None:
        guest.setblocking(False)
        try:
            introduced = await self._introduction(guest) if is_within(peer[0], self._proxies) else None
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._factory, introduced),
                guest,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake if self._tls else None,
            )
        except (OSError, Malformed) as error:
            log.info("a connection ended before it had begun: %s: %s", peer[0], error)
            guest.close()

    async def _introduction(self, guest: socket.socket) -> Peer | None:
        async with asyncio.timeout(self._handshake):
            return await introduction(guest)

    def _step_back(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self._pause = loop.call_later(seconds, self.open)
