"""SMTP in: sockets that were opened elsewhere, a handler's hooks, and the limits within which strangers are heard.

The rule that must not be broken: to drain a `Listener` loses nothing that was acknowledged, and cuts no message
short that was under way. `submission` and `feedback` are handlers; `protocol` is one connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from gateway.dialogue import Terms
from gateway.listener.crowd import Census, Crowd
from gateway.listener.door import Door
from gateway.listener.peers import Network, Peer
from gateway.listener.protocol import GatewaySMTP, Reception, Session
from gateway.listener.traffic import Limits, Traffic

__all__ = ["Census", "Crowd", "GatewaySMTP", "Limits", "Listener", "Session", "Traffic", "server_tls"]

_LOOK_EVERY = 5.0
_POLL = 0.01


class Listener:
    """Everything that listens for one handler, on any number of sockets.

    The handler's hooks are coroutines that return a `Reply`; each may be left out:

        handle_CONNECT(server, session)            None lets the client in
        handle_AUTH(server, session, envelope, mechanism, name, password)
        handle_MAIL(server, session, envelope, reverse_path, options)
        handle_RCPT(server, session, envelope, recipient)
        handle_DATA(server, session, envelope)     the message is `envelope.content`

    `terms.auth` says whether there are logins at all: they are offered under TLS, and without it to `plaintext_from`
    (SMTP-03). STARTTLS is offered where there is a `tls` context. Connections from `proxy_from` must begin with a PROXY
    header, also before implicit TLS, and count as those of the client that it names. Processes that have inherited the
    same sockets share the connections evenly, and count them together, where each has its own `census` of one crowd.
    """

    def __init__(
        self,
        handler: object,
        terms: Terms,
        *,
        tls: ssl.SSLContext | None = None,
        plaintext_from: Sequence[Network] = (),
        proxy_from: Sequence[Network] = (),
        limits: Limits | None = None,
        census: Census | None = None,
    ) -> None:
        self._census = census or Crowd(1).seen_by(0)
        self._reception = Reception(handler, terms, tls, plaintext_from, limits or Limits(), self._census)
        self._proxies = tuple(proxy_from)
        self._doors: list[Door] = []
        self._clock: asyncio.TimerHandle | None = None

    @property
    def traffic(self) -> Traffic:
        """Who is connected, how much they hold, how many came and went."""
        return self._reception.traffic

    def protocol_factory(self, introduced: Peer | None = None) -> GatewaySMTP:
        """Make the protocol of one new connection; needs a running event loop."""
        return GatewaySMTP(self._reception, introduced)

    async def serve(self, sock: socket.socket, *, implicit_tls: bool = False) -> None:
        """Listen on a bound socket, from now on until `drain`. Implicit TLS (RFC 8314) needs the `tls` context."""
        if implicit_tls and self._reception.tls is None:
            raise ValueError("implicit TLS needs a certificate")
        door = Door(
            sock,
            self.protocol_factory,
            self._is_our_turn,
            tls=self._reception.tls if implicit_tls else None,
            handshake=self._reception.limits.handshake.total_seconds(),
            proxies=self._proxies,
        )
        self._doors.append(door)
        door.open()
        if self._clock is None:
            self._look_at_the_clock()

    def _is_our_turn(self) -> bool:
        guests = self.traffic.guests + sum(door.entering for door in self._doors)
        return not self._census.seats.has_elsewhere_fewer_than(guests)

    async def drain(self, seconds: float) -> None:
        """Take no new connection, finish the messages under way, say 421 to all, and close.

        Who has come just now may first hand in the message for which they came.
        """
        for door in self._doors:
            door.close()
        welcome = min(self._reception.limits.welcome.total_seconds(), seconds)
        self.traffic.draining = True
        await self._part_from_all(welcome)
        self.traffic.welcoming = False
        await self._part_from_all(seconds - welcome)
        for connection in list(self.traffic.connections):
            connection.dismiss()
        await self._empty(self._reception.limits.parting.total_seconds())
        if self._clock is not None:
            self._clock.cancel()

    async def _part_from_all(self, seconds: float) -> None:
        """Part from everybody who must leave now; wait until the last has gone, this long at most."""
        for connection in list(self.traffic.connections):
            connection.look_up()
        await self._empty(seconds)

    async def _empty(self, seconds: float) -> None:
        """Wait until the last connection has gone, this long at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.traffic.connections and loop.time() < deadline:
            await asyncio.sleep(_POLL)

    def _look_at_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self.traffic.connections):
            connection.look_at_the_clock(loop.time())
        self._clock = loop.call_later(_LOOK_EVERY, self._look_at_the_clock)


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context for a certificate chain and its key, PEM files; TLS 1.2 or later (SMTP-05)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate, key)
    return context
