"""Connections to one smarthost, kept open and shared: fail-over to the next address, back-off when all are down.

The one rule: a copy that had to wait for a fresh connection does not go out on the old decision; the caller is asked
again (`PrepareAgain`). How SMTP is spoken is left to `conversation` and `line`, the health of one address to `route`,
when a deferred copy is tried again to delivery.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.errors import RelayUnavailable
from gateway.model import Alphabet, Copy, Reply, Smarthost
from gateway.smarthost.conversation import Stale, Timeouts, TurnedAway
from gateway.smarthost.route import Carrier, Endpoint, Route, Terms
from gateway.smarthost.turnstile import Turnstile

_DECISION_HOLDS = 1.0


class PrepareAgain(RelayUnavailable):
    """A fresh connection took a second or offers other extensions: decide, stamp, sign and call `relay` once more."""


class Connection:
    """What a caller holds while it relays. What lies beneath may be replaced when it has gone stale."""

    def __init__(self, pool: Pool, route: Route, carrier: Carrier) -> None:
        self._pool = pool
        self._route = route
        self._carrier = carrier

    @property
    def route(self) -> Route:
        """Where the connection leads now."""
        return self._route

    @property
    def server(self) -> str:
        """The host that the connection leads to now; "" for a folder."""
        return self._route.server

    @property
    def extensions(self) -> frozenset[str]:
        """The EHLO keywords that the server offers now, in upper case."""
        return self._carrier.extensions

    @property
    def is_open(self) -> bool:
        return self._carrier.is_open

    @property
    def alphabet(self) -> Alphabet:
        """What the server takes now: a copy is written in it before it is signed (DKIM-11), or `relay` refuses it."""
        return self._carrier.alphabet

    async def relay(self, copy: Copy) -> tuple[Reply, ...]:
        """Relay one copy; return a reply for each recipient, in order.

        `AMBIGUOUS` marks a recipient who may have got it, so that the caller can count and retry (OUT-04). A
        connection that grew old is replaced, which is no attempt (OUT-20), and so is one to a server that has turned
        away while another address may take the copy. Raises `PrepareAgain` before anything was sent;
        `RelayUnavailable` where the connection was lost before the final dot, which concerns this copy alone;
        `ValueError` where the copy itself would break the protocol.
        """
        if not self.is_open:
            await self._renew()
        while True:
            try:
                return await self._route.relay(self._carrier, copy)
            except Stale:
                pass
            except TurnedAway:
                if self._pool.rest_left:
                    raise
            await self._renew()

    async def _renew(self) -> None:
        clock, extensions = asyncio.get_running_loop().time, self.extensions
        began = clock()
        self._carrier.quit()
        self._route, self._carrier = await self._pool.open_route()
        if self.extensions != extensions or clock() - began >= _DECISION_HOLDS:
            raise PrepareAgain("the connection had to be replaced")

    def rest(self) -> None:
        self._route.spared(self._carrier)
        self._carrier.rest()

    def quit(self) -> None:
        self._carrier.quit()

    async def wait_closed(self) -> None:
        await self._carrier.wait_closed()


class Pool:
    """The connections of this process to one smarthost.

    `connections` is this process's share; `turnstile` is shared with the other processes, and keeps the smarthost's
    rate. Its `hostname` is said in EHLO. Raises `ValueError` for a url that is not one.
    """

    def __init__(
        self,
        smarthost: Smarthost,
        *,
        hostname: str,
        connections: int | None = None,
        turnstile: Turnstile | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        terms = Terms(smarthost, hostname, timeouts or Timeouts())
        tls = ssl.create_default_context(cadata=smarthost.authorities or None)
        self._routes = [Route(Endpoint.parse(url), terms, tls) for url in smarthost.urls]
        self._slots = asyncio.Semaphore(smarthost.connections if connections is None else connections)
        self._idle: list[Connection] = []
        self._at_work = 0
        """How many connections are lent, or are being opened to be."""
        self._waiting: tuple[deque[asyncio.Future[Connection | None]], ...] = (deque(), deque())
        self._interval = 1 / smarthost.rate if smarthost.rate else 0.0
        self._turnstile = turnstile or Turnstile()
        self._is_closed = False

    @property
    def rest_left(self) -> float:
        """Seconds until `connection` is worth trying again; 0 while at least one address is not backing off."""
        return min(route.rest_left for route in self._routes)

    @asynccontextmanager
    async def connection(self, recipients: int = 1, *, gives_way: bool = False) -> AsyncIterator[Connection]:
        """Lend a live connection, waiting for a free one and, where there is a rate, for the recipients' turn.

        Those who give way wait for their turn behind those who do not. A server that takes no more connections while
        others of ours are at work is busy and not down: then one of those is waited for.
        Raises `RelayUnavailable`, at once while every address is backing off and nothing is lent.
        """
        async with self._slots:
            if self._interval:
                await self._turnstile.go_through(recipients * self._interval, gives_way=gives_way)
            connection = await self._obtain(gives_way)
            try:
                yield connection
            finally:
                self._take_back(connection)

    async def close(self) -> None:
        """Say QUIT on what is idle and wait for the end of it, at most `timeouts.quit` seconds.

        Connections that are still lent are ended as they come back.
        """
        self._is_closed = True
        while self._hand_on(None):
            pass
        for connection in self._idle:
            connection.quit()
        await asyncio.gather(*(connection.wait_closed() for connection in self._idle))
        self._idle.clear()

    async def open_route(self) -> tuple[Route, Carrier]:
        """Open a connection to the first address that answers, in the configured order.

        Raises `RelayUnavailable`, saying of each address what was wrong when it was last tried.
        """
        for route in self._routes:
            if self._is_closed or route.rest_left:
                continue
            with suppress(RelayUnavailable):
                return route, await route.open()
        raise RelayUnavailable("; ".join(route.problem for route in self._routes if route.problem))

    def _take_idle(self) -> Connection | None:
        """Return an open connection, unless an address that comes before its own is worth trying again."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_open:
                continue
            if connection.route is self._routes[0] or not self._may_improve(connection.route):
                self._at_work += 1
                return connection
            connection.quit()
        return None

    async def _obtain(self, gives_way: bool) -> Connection:
        """Return an idle connection, or a new one; where there is none, wait for another as long as any is at work."""
        while True:
            if idle := self._take_idle():
                return idle
            self._at_work += 1
            try:
                return Connection(self, *await self.open_route())
            except BaseException as error:
                self._one_is_over()
                others = self._idle or (self._at_work and not self._is_closed)
                if not others or not isinstance(error, RelayUnavailable):
                    raise
            if not self._idle and (handed := await self._handed_on(gives_way)):
                return handed

    async def _handed_on(self, gives_way: bool) -> Connection | None:
        """Wait for a connection that comes back; None where one may be opened again, or one more is over."""
        loop, waiting = asyncio.get_running_loop(), self._waiting[gives_way]
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        waiting.append(waiter)
        timer = loop.call_later(self.rest_left, _answer, waiter, None)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and (handed := waiter.result()):
                self._take_back(handed)
            raise
        finally:
            timer.cancel()
            with suppress(ValueError):
                waiting.remove(waiter)

    def _may_improve(self, route: Route) -> bool:
        return any(not earlier.rest_left for earlier in self._routes[: self._routes.index(route)])

    def _take_back(self, connection: Connection) -> None:
        if self._is_closed or not connection.is_open:
            connection.quit()
            self._one_is_over()
            return
        connection.rest()
        if not self._hand_on(connection):
            self._at_work -= 1
            self._idle.append(connection)

    def _one_is_over(self) -> None:
        """Tell one of those who wait, or all where there is nothing left to wait for."""
        self._at_work -= 1
        while self._hand_on(None) and not self._at_work:
            pass

    def _hand_on(self, connection: Connection | None) -> bool:
        """Give whoever waits a connection, or the news that one is over: first who gives no way; False for nobody."""
        for waiting in self._waiting:
            while waiting:
                if _answer(waiting.popleft(), connection):
                    return True
        return False


def _answer(waiter: asyncio.Future[Connection | None], connection: Connection | None) -> bool:
    """False where the waiter has its answer already, or has gone."""
    if waiter.done():
        return False
    waiter.set_result(connection)
    return True
