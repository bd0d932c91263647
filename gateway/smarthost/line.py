"""The connection that carries a conversation: writes its groups with flow control, gathers the answers.

The one rule: a server that speaks out of turn, too late or without end is not spoken to again; nothing that it said
early is ever taken for the answer to something later. What is said, and what the answers mean, is left to
`conversation`; which connection is used for what, to `pool`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import cast

from aiohappyeyeballs import start_connection

from gateway.errors import Malformed, RelayUnavailable
from gateway.smarthost.alarm import Alarm
from gateway.smarthost.conversation import (
    Answer,
    AnswerReader,
    Conversation,
    Group,
    Lost,
    Result,
    StartTls,
    Timeouts,
    quitting,
)

_NEXT_ADDRESS = 0.25
"""Seconds after which the next of a server's addresses is tried beside those before it (RFC 8305 §5)."""


async def dial(host: str, port: int, tls: ssl.SSLContext, timeouts: Timeouts) -> Line:
    """Connect to a server, by the first of its addresses that answers: one that is dead holds nothing up (RFC 8305).

    Raises `RelayUnavailable` where none does within `timeouts.connect` seconds.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeouts.connect):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            reached = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS)
            _, line = await loop.create_connection(lambda: Line(host, tls, timeouts), sock=reached)
    except OSError as error:
        raise RelayUnavailable(str(error) or f"no connection within {timeouts.connect:g} s") from error
    return line


class Line(asyncio.Protocol):
    """One connection to the server `host`. One task at a time talks on it, and is woken once for each group."""

    def __init__(self, host: str, tls: ssl.SSLContext, timeouts: Timeouts) -> None:
        self._host = host
        self._tls = tls
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._early = b""
        self._has_begun = False
        self._answers: list[Answer] = []
        self._due = 0
        self._patience = 0.0
        self._is_paused = False
        self._is_quitting = False
        self._waiter: asyncio.Future[None] | None = None
        self._alarm = Alarm(self._loop)
        self._why = ""
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._is_quitting

    async def converse(self, conversation: Conversation[Result]) -> Result:
        """Carry a conversation to its end and return its result.

        Whatever it raises, cancellation included, the connection is closed, since nobody knows where it stands.
        """
        try:
            return await self._carry(conversation)
        except BaseException:
            self.hang_up("the conversation was broken off")
            raise

    def rest(self) -> None:
        """Stay connected for the next copy, but leave politely when none comes within `timeouts.idle` seconds."""
        self._alarm.set(self._timeouts.idle, self.quit)

    def quit(self) -> None:
        """Say QUIT and close when it is answered, or after `timeouts.quit` seconds."""
        if self._transport is None or self._is_quitting:
            return
        self._is_quitting = True
        group = quitting(self._timeouts)
        self._transport.writelines(group.pieces)
        self._alarm.set(group.timeout, partial(self._time_out, group.timeout))

    def hang_up(self, why: str) -> None:
        """Close without a word; whoever waits on this line gets `Lost` with `why`."""
        if self._transport is not None:
            # close() would wait for ever on a peer that does not read.
            self._transport.abort()
            self._let_go(why)

    async def _carry(self, conversation: Conversation[Result]) -> Result:
        self._has_begun = True
        try:
            step = next(conversation)
            while True:
                try:
                    answers = await self._do(step)
                except Lost as lost:
                    step = conversation.throw(lost)
                else:
                    step = conversation.send(answers)
        except StopIteration as end:
            return cast(Result, end.value)

    async def _do(self, step: Group | StartTls) -> Sequence[Answer]:
        if isinstance(step, Group):
            return await self._exchange(step)
        await self._start_tls(step.timeout)
        return ()

    async def _exchange(self, group: Group) -> Sequence[Answer]:
        if not (self.is_open or self._early):
            raise Lost(self._why)
        self._answers, self._due = [], group.answers
        if self._early:
            early, self._early = self._early, b""
            self._listen(early)
        all_written = await self._write(group)
        self._patience = group.timeout
        self._wait_on()
        while self._is_listened_to:
            await self._woken()
        self._patience = 0.0
        self._alarm.clear()
        if self._due:
            raise Lost(self._why, self._answers, all_written)
        if not all_written:
            self._end_early()
        return self._answers

    def _wait_on(self) -> None:
        """Give the server its time for the next answer (RFC 5321 §4.5.3.2)."""
        self._alarm.set(self._patience, partial(self._time_out, self._patience))

    async def _write(self, group: Group) -> bool:
        """Write as fast as the server reads; return False if it answered or left before it had the last piece.

        However long it takes in all, what is written has to go on within `timeouts.block` seconds (RFC 5321
        §4.5.3.2.5).
        """
        block = self._timeouts.block
        for piece in group.pieces:
            while self._is_paused and self._is_listened_to:
                self._alarm.set(block, partial(self._time_out, block))
                await self._woken()
            if self._transport is None or not self._due:
                return False
            self._transport.write(piece)
            if self._transport.is_closing():
                return False
        return True

    @property
    def _is_listened_to(self) -> bool:
        """True while the server is there and has not answered yet."""
        return self._due > 0 and self._transport is not None

    def _end_early(self) -> None:
        """A refusal before the end of the content stands, but the server would take the rest of it for commands."""
        self.hang_up("the server answered before the final dot")
        if any(answer.accepts for answer in self._answers):
            raise Lost(self._why)

    async def _start_tls(self, timeout: float) -> None:
        """Encrypt the connection and verify the certificate's name against `host`, within `timeout` seconds.

        Raises `Lost` where that fails, or where the server has already said more than it was asked.
        """
        if self._early:
            raise Lost("the server spoke before TLS began")
        if self._transport is None:
            raise Lost(self._why)
        try:
            secured = await self._loop.start_tls(
                self._transport, self, self._tls, server_hostname=self._host, ssl_handshake_timeout=timeout
            )
        except OSError as error:
            raise Lost(f"no TLS: {error}") from error
        if secured is None:
            raise Lost("no TLS: the server closed the connection")
        self._transport = secured

    async def _woken(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _time_out(self, seconds: float) -> None:
        self.hang_up(f"the server did not go on within {seconds:g} s")

    def _let_go(self, why: str) -> None:
        self._why = why
        self._transport = None
        self._alarm.clear()
        self._alarm.drop_timer()
        self._wake()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._let_go(str(exc or "the server closed the connection"))
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._is_quitting:
            self._close()
        elif self._has_begun:
            self._listen(data)
        else:
            self._early += data

    def _listen(self, data: bytes) -> None:
        due = self._due
        try:
            for answer in self._reader.feed(data):
                self._hear(answer)
        except Malformed as malformed:
            self.hang_up(str(malformed))
            return
        if not self._due and self._reader.is_midway:
            self.hang_up("the server spoke out of turn")
        elif self._patience and 0 < self._due < due:
            self._wait_on()

    def _hear(self, answer: Answer) -> None:
        if not self._due:
            self.hang_up("the server spoke out of turn")
            return
        self._answers.append(answer)
        self._due -= 1
        if answer.closes:
            self._due = 0
            self.hang_up("the server closed the connection")
        elif not self._due:
            self._wake()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
