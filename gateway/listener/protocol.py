"""One SMTP connection: aiosmtpd's session, envelope and hooks, led by our own dialogue instead of its line loop.

The rule that must not be broken: a hook that has begun is never cancelled by what the client does, so that a commit is
whole or has not happened; and whatever a hook raises, the client hears a temporary refusal that tells nothing.

One task a connection waits for octets, asks the hooks, and writes the replies of a burst at once. What SMTP means
is `dialogue`'s; who may send is the handler's; which sockets there are is the service's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from ssl import SSLContext
from typing import Any, Final

import aiosmtpd.smtp

from gateway.dialogue import Auth, Content, Credentials, Dialogue, Event, Hello, Mail, Rcpt, StartTls, Terms
from gateway.errors import StoreFull, StoreUnavailable
from gateway.headers import HEADER_LIMIT, is_too_long
from gateway.listener.crowd import Census
from gateway.listener.peers import Network, Peer, is_within, peer_of
from gateway.listener.traffic import SHUTTING_DOWN, Limits, Traffic
from gateway.model import Reply

log = logging.getLogger(__name__)


class Session(aiosmtpd.smtp.Session):
    """What is known of one client. `peer` is (IP address, port), `tls` as in "TLSv1.3" or "".

    `visit` is the handler's, for whatever it must remember from one hook to the next.
    """

    login_data: Any = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.peer: Any = ("", 0)
        self.host_name: str = ""
        self.tls = ""
        self.smtputf8 = False
        self.visit: Any = None

    @property
    def protocol(self) -> str:
        """The word for `with` in Received (RFC 3848; RFC 6531 §4.3)."""
        if not self.extended_smtp:
            return "SMTP"
        word = "UTF8SMTP" if self.smtputf8 else "ESMTP"
        return f"{word}{'S' if self.tls else ''}{'A' if self.authenticated else ''}"


class Reception:
    """What every connection of one listener begins with, worked out once."""

    def __init__(
        self,
        handler: object,
        terms: Terms,
        tls: SSLContext | None,
        plaintext_from: Sequence[Network],
        limits: Limits,
        census: Census,
    ) -> None:
        self.handler = handler
        self.tls = tls
        self.limits = limits
        self.traffic = Traffic(limits, census)
        self.hooks = {
            name.removeprefix("handle_"): getattr(handler, name) for name in dir(handler) if name.startswith("handle_")
        }
        self._plaintext_from = tuple(plaintext_from)
        allowed = Auth.NEVER if terms.auth is Auth.NEVER else Auth.NOW
        self.under_tls = replace(terms, starttls=False, auth=allowed)
        self._trusted = replace(terms, starttls=tls is not None, auth=allowed)
        self._unprotected = replace(self._trusted, auth=Auth.NEVER if allowed is Auth.NEVER else Auth.AFTER_TLS)

    def terms_for(self, session: Session) -> Terms:
        """AUTH is offered under TLS, and without it only to the networks of `plaintext_from` (SMTP-03)."""
        if session.tls:
            return self.under_tls
        return self._trusted if is_within(session.peer[0], self._plaintext_from) else self._unprotected


class GatewaySMTP(aiosmtpd.smtp.SMTP):
    """aiosmtpd's SMTP with its line loop, timeout, end-of-file and exception handling replaced."""

    session: Session
    envelope: Any
    transport: Any

    def __init__(self, reception: Reception, introduced: Peer | None = None) -> None:
        """Begin a connection; `introduced` is the client for whom a proxy speaks."""
        # aiosmtpd's own constructor is left out: it inspects the handler anew for each connection (165 µs).
        self.loop = asyncio.get_running_loop()
        self.event_handler = reception.handler
        self.transport = None
        self._handle_hooks = reception.hooks
        self._handler_coroutine: asyncio.Task[None] | None = None
        self._reception = reception
        self._introduced = introduced
        self._limits = reception.limits
        self._traffic = reception.traffic
        self._waiter: asyncio.Future[None] | None = None
        self._fresh = self._ended = self._blocked = self._deaf = self._finished = self._served = False
        self._busy = True
        self._held = self._carried = self._arrived = 0
        self._closing_since: float | None = None
        self._content_since: float | None = None
        self._heard_at = self._progress_at = self.loop.time()

    # -- what the event loop tells --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.session = self._new_session()
        self.envelope = self._create_envelope()
        self.dialogue = Dialogue(self._reception.terms_for(self.session))
        refusal = self._traffic.admit(self, self.session.peer[0])
        if refusal:
            self._finished = True
            self._part(refusal)
        else:
            self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        if self._closing_since is not None:
            return
        self.dialogue.receive(data)
        self._heard_at = self.loop.time()
        self._arrived += len(data)
        self._fresh = True
        self._take_stock()
        if (self._busy or self._blocked) and self.dialogue.buffered > _BACKLOG:
            self._deaf = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client says no more, but may still listen: what has begun is finished and answered (R14)."""
        self._ended = True
        self._wake()
        return self._closing_since is None and not self.session.tls

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._leave_traffic()
        self._wake()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._wake()

    # -- the conversation --

    async def _handle_client(self) -> None:
        try:
            await self._greet()
            while await self._more():
                await self._converse()
                self._send(self.dialogue.data_to_send())
        except Exception:
            log.exception("%s: the connection failed", self.session.peer[0])
        finally:
            self._finished = True
            self._hang_up()
            self._leave_traffic()

    async def _greet(self) -> None:
        refusal = None
        if "CONNECT" in self._handle_hooks:
            refusal = await self._guarded(self._handle_hooks["CONNECT"](self, self.session))
        if refusal:
            self._part(refusal)
        else:
            self._send(self.dialogue.greeting())

    async def _converse(self) -> None:
        """Take every event that has come, and ask the hooks about it."""
        self._busy, self._fresh = True, False
        turns = 0
        while not self._must_leave() and (event := self.dialogue.next_event()) is not None:
            await _REACTIONS[type(event)](self, event)
            turns += 1
            if turns % _TURNS_IN_A_ROW == 0:
                await asyncio.sleep(0)
        if self._must_leave():
            self.dialogue.hang_up(SHUTTING_DOWN)

    async def _more(self) -> bool:
        """Wait until the client has sent more and has read what we said; False once there is nothing to wait for."""
        if self.dialogue.closed:
            return False
        self._busy = False
        self._take_stock()
        self._watch_content()
        if self._deaf and not self._blocked:
            self._listen()
        while not self._can_go_on():
            self._waiter = self.loop.create_future()
            await self._waiter
        return self.transport is not None and (self._fresh or self._must_leave())

    def _can_go_on(self) -> bool:
        if self.transport is None or self.dialogue.closed:
            return True
        return not self._blocked and (self._fresh or self._ended or self._must_leave())

    def _must_leave(self) -> bool:
        """True once we are leaving and nothing is cut short: no message, and at first nobody's introduction either.

        A program whose EHLO is answered 421 may take it that there is no AUTH here, and give its mail up.
        """
        if not self._traffic.draining or self.dialogue.in_content or self.dialogue.closed:
            return False
        return self._served or not self._traffic.welcoming

    def look_up(self) -> None:
        """See whether the listener is draining."""
        self._wake()

    # -- what the client wants --

    async def _on_hello(self, hello: Hello) -> None:
        self.session.host_name = hello.name
        self.session.extended_smtp = hello.extended

    async def _on_credentials(self, asked: Credentials) -> None:
        reply = await self._ask("AUTH", asked.mechanism, asked.name, asked.password)
        if reply.is_positive:
            self.session.authenticated = True
            self.session.login_data = asked.name
            self._progress_at = self.loop.time()
        self.dialogue.answer(reply)

    async def _on_mail(self, asked: Mail) -> None:
        if self._traffic.octets_in_flight + asked.size > self._limits.octets_in_flight:
            self.dialogue.answer(_NO_MEMORY)
            return
        self.envelope = self._create_envelope()
        self.session.smtputf8 = self.envelope.smtp_utf8 = asked.smtputf8
        self.envelope.mail_from = asked.reverse_path
        self.envelope.mail_options = list(asked.options)
        self.dialogue.answer(await self._ask("MAIL", asked.reverse_path, asked.options))

    async def _on_rcpt(self, asked: Rcpt) -> None:
        reply = await self._ask("RCPT", asked.recipient)
        if reply.is_positive:
            self.envelope.rcpt_tos.append(asked.recipient)
        self._progress_at = self.loop.time()
        self.dialogue.answer(reply)

    async def _on_content(self, asked: Content) -> None:
        self._carried = len(asked.message)
        self._take_stock()
        self.envelope.content = asked.take()
        reply = _LONG_HEADER if is_too_long(self.envelope.content) else await self._ask("DATA")
        self.envelope = self._create_envelope()
        self._carried = 0
        self._served = True
        self._content_since = None
        self._progress_at = self.loop.time()
        self.dialogue.answer(reply)

    async def _on_starttls(self, _: StartTls) -> None:
        """Shake hands; nothing that came before counts any more (RFC 3207 §4.2, SMTP-04)."""
        self._send(self.dialogue.data_to_send())
        # The event loop turns to TLS before it yields, so from here on all that is received was protected.
        self.dialogue.restart(self._reception.under_tls)
        try:
            self.transport = await self._shake_hands()
        except OSError as error:
            log.info("%s: the TLS handshake failed: %s", self.session.peer[0], error)
            self._abort()
            self.connection_lost(error)  # which the event loop leaves out where a handshake fails
            return
        self.session = self._new_session()

    async def _shake_hands(self) -> asyncio.Transport:
        tls = self._reception.tls
        if self.transport is None or tls is None:
            raise ConnectionResetError("the client has gone")
        transport = await self.loop.start_tls(
            self.transport,
            self,
            tls,
            server_side=True,
            ssl_handshake_timeout=self._limits.handshake.total_seconds(),
        )
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return transport

    # -- hooks --

    async def _ask(self, hook: str, *arguments: object) -> Reply:
        """Call a hook of the handler; a handler without it has no objection."""
        reply = await self._guarded(self._call_handler_hook(hook, *arguments))
        return _WITHOUT_A_HOOK[hook] if reply is aiosmtpd.smtp.MISSING else reply

    async def _guarded(self, answer: Awaitable[Any]) -> Any:
        """Await a hook. What it raises waits for better times, and the client learns nothing about it (S15)."""
        try:
            return await answer
        except StoreUnavailable as error:
            log.warning("the store is unavailable: %s", error)
            return NO_ROOM if isinstance(error, StoreFull) else _NO_STORE
        except Exception:
            log.exception("a hook failed")
            return _SURPRISE

    # -- memory, time and the transport --

    def _take_stock(self) -> None:
        """Keep the sum of what all connections hold; where it is too much, this one gives its message up."""
        self._count_held()
        if self._traffic.octets_in_flight > self._limits.octets_in_flight and self.dialogue.in_content:
            self.dialogue.refuse_content(_NO_MEMORY)
            self._count_held()

    def _count_held(self) -> None:
        held = self.dialogue.buffered + self._carried
        self._traffic.octets_in_flight += held - self._held
        self._held = held

    def _leave_traffic(self) -> None:
        """Be forgotten once both the client and the hooks have done with this connection."""
        if self._finished and self.transport is None:
            self._traffic.octets_in_flight -= self._held
            self._held = 0
            self._traffic.forget(self)

    def _watch_content(self) -> None:
        """The client's turn begins; a message that keeps coming is progress."""
        self._heard_at = now = self.loop.time()
        if not self.dialogue.in_content:
            self._content_since = None
            return
        self._progress_at = now
        if self._content_since is None:
            self._content_since, self._arrived = now, 0

    def look_at_the_clock(self, now: float) -> None:
        """Part from a client that has overstayed; called every few seconds with the loop's time."""
        if self._closing_since is not None:
            if now - self._closing_since > self._limits.parting.total_seconds():
                self._abort()
        elif not self._busy and self._is_overdue(now):
            self._timeout_cb()

    def _is_overdue(self, now: float) -> bool:
        if now - self._heard_at > self._limits.idle.total_seconds():
            return True
        if self._content_since is None:
            return now - self._progress_at > self._limits.without_progress.total_seconds()
        elapsed = now - self._content_since
        patience = self._limits.patience_with_content.total_seconds()
        return elapsed > patience and self._arrived < elapsed * self._limits.slowest_content

    def _timeout_cb(self) -> None:
        self._traffic.timed_out += 1
        if self._blocked:
            self._abort()
            return
        self._part(Reply(421, "4.4.2", "you took too long"))

    def dismiss(self) -> None:
        """The time to finish is over: part from the client, or from one whose hook is still at work, abruptly."""
        if self._busy or self._blocked:
            self._abort()
        else:
            self._part(SHUTTING_DOWN)

    def _part(self, reply: Reply) -> None:
        self.dialogue.hang_up(reply)
        self._send(self.dialogue.data_to_send())
        self._hang_up()
        self._wake()

    def _send(self, data: bytes) -> None:
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _listen(self) -> None:
        self._deaf = False
        if self.transport is not None:
            self.transport.resume_reading()

    def _hang_up(self) -> None:
        """Close once everything is written; `look_at_the_clock` aborts where the client does not read it."""
        if self.transport is None or self._closing_since is not None:
            return
        self._closing_since = self.loop.time()
        self._traffic.vacate(self)
        if self._deaf and not self.session.tls:
            # To close on octets that were not read would reset the connection and could cost the client our last reply.
            self._listen()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _create_session(self) -> Session:
        return Session(self.loop)

    def _new_session(self) -> Session:
        session = self._create_session()
        session.peer = self._introduced or peer_of(self.transport.get_extra_info("peername"))
        ssl_object = self.transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            session.ssl = {"ssl_object": ssl_object, "cipher": ssl_object.cipher()}
            session.tls = ssl_object.version() or ""
        return session


_BACKLOG: Final = 64 * 1024
_TURNS_IN_A_ROW: Final = 100

_NO_MEMORY: Final = Reply(452, "4.3.1", "too much mail is arriving at this moment, try again later")
_LONG_HEADER: Final = Reply(552, "5.3.4", f"the header is larger than {HEADER_LIMIT} octets")
NO_ROOM: Final = Reply(452, "4.3.1", "there is no room for mail at this moment, try again later")
_NO_STORE: Final = Reply(451, "4.3.0", "the store is unavailable, try again later")
_SURPRISE: Final = Reply(451, "4.3.0", "internal error, try again later")
_WITHOUT_A_HOOK: Final = {
    "AUTH": Reply(535, "5.7.8", "there are no logins here"),
    "MAIL": Reply(250, "2.1.0", "ok"),
    "RCPT": Reply(250, "2.1.5", "ok"),
    "DATA": Reply(554, "5.3.0", "no message is taken here"),
}

_REACTIONS: Final[Mapping[type[Event], Callable[[GatewaySMTP, Any], Awaitable[None]]]] = {
    Hello: GatewaySMTP._on_hello,
    StartTls: GatewaySMTP._on_starttls,
    Credentials: GatewaySMTP._on_credentials,
    Mail: GatewaySMTP._on_mail,
    Rcpt: GatewaySMTP._on_rcpt,
    Content: GatewaySMTP._on_content,
}
