"""The load: Postfix's `smtp-source` for throughput, and in a pass of its own a small client for latency.

The one rule: the two are never mixed. `smtp-source` is cheap but tells no times; the client here stamps each
final dot but costs more processor time, so its rate is not a throughput. Both keep their connections open,
send one message at a time on each, wait for every reply (no pipelining) and give each message its own reader.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

import uvloop

from bench.process import PassFailed, program
from bench.sink import PASS_LIMIT, CountingSink
from bench.workload import Workload


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the final dot to its reply."""

    p50: float
    p99: float


def measure_rate(workload: Workload, port: int, sink: CountingSink, *, sessions: int, messages: int) -> float:
    """Messages per second from the first connection to the last message at the sink."""
    expected = sink.count + messages
    started = time.monotonic()
    _run_smtp_source(workload, port, sessions, messages)
    return messages / (sink.arrival_of(expected) - started)


def measure_named_rate(workload: Workload, port: int, sink: CountingSink, *, sessions: int, messages: int) -> float:
    """As `measure_rate`, by the client that can give each reader a message of their own; its time counts against us."""
    expected = sink.count + messages
    started = time.monotonic()
    uvloop.run(_converse(workload, port, sessions, messages))
    return messages / (sink.arrival_of(expected) - started)


@dataclass(frozen=True, slots=True)
class Intake:
    """How fast a pass was taken in, and how fast it was relayed: messages per second."""

    accepted: float
    relayed: float


def measure_intake(workload: Workload, port: int, sink: CountingSink, *, sessions: int, messages: int) -> Intake:
    """As `measure_rate`; what was accepted counts from the last reply."""
    expected = sink.count + messages
    started = time.monotonic()
    _run_smtp_source(workload, port, sessions, messages)
    accepted = time.monotonic() - started
    return Intake(messages / accepted, messages / (sink.arrival_of(expected) - started))


@dataclass(frozen=True, slots=True)
class Crowd:
    """One submission to many: seconds from MAIL, and from the final dot, to the final reply; copies a second."""

    submitted: float
    replied: float
    rate: float


def measure_crowd(workload: Workload, port: int, sink: CountingSink, *, recipients: int) -> Crowd:
    """Submit one message to so many readers, MAIL, RCPT and DATA in one group (RFC 2920), and wait for every copy."""
    expected = sink.count + recipients
    with socket.create_connection(("127.0.0.1", port), timeout=PASS_LIMIT) as connection:
        replies = connection.makefile("rb")
        _say_and_hear(connection, replies, b"EHLO bench.example.com\r\n", [b"220", b"250"])
        to = b"".join(f"RCPT TO:<{workload.reader(n)}>\r\n".encode() for n in range(1, recipients + 1))
        started = time.monotonic()
        envelope = b"MAIL FROM:<%b>\r\n%bDATA\r\n" % (workload.sender.encode(), to)
        _say_and_hear(connection, replies, envelope, [*[b"250"] * (recipients + 1), b"354"])
        ended = time.monotonic()
        _say_and_hear(connection, replies, workload.message() + b".\r\n", [b"250"])
        replied = time.monotonic()
    return Crowd(replied - started, replied - ended, recipients / (sink.arrival_of(expected) - started))


def _say_and_hear(connection: socket.socket, replies: BinaryIO, text: bytes, codes: Sequence[bytes]) -> None:
    """Send text while replies are read, so that neither side waits for the other to read."""
    writer = threading.Thread(target=connection.sendall, args=(text,))
    writer.start()
    for code in codes:
        line = replies.readline()
        while line[3:4] == b"-":
            line = replies.readline()
        if not line.startswith(code):
            raise PassFailed(f"unexpected reply: {line.decode(errors='replace').strip()}")
    writer.join()


def measure_latency(workload: Workload, port: int, sink: CountingSink, *, sessions: int, messages: int) -> Latency:
    """Median and 99th percentile of the reply to the final dot, with every session always busy."""
    expected = sink.count + messages
    waits = sorted(uvloop.run(_converse(workload, port, sessions, messages)))
    sink.arrival_of(expected)
    return Latency(1000 * waits[len(waits) // 2], 1000 * waits[len(waits) * 99 // 100])


def _run_smtp_source(workload: Workload, port: int, sessions: int, messages: int) -> None:
    command = [program("smtp-source"), "-d", "-N", "-s", str(sessions), "-m", str(messages)]
    command += ["-f", workload.sender, "-t", workload.reader_pattern]
    command += ["-F", str(workload.message_file), f"127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise PassFailed(f"smtp-source: {done.stderr[-400:].strip()}")


async def _converse(workload: Workload, port: int, sessions: int, messages: int) -> list[float]:
    numbers = iter(range(1, messages + 1))
    waits: list[float] = []
    clients = [_Client(_session(workload, numbers, waits)) for _ in range(sessions)]
    for client in clients:
        await asyncio.get_running_loop().create_connection(partial(_itself, client), "127.0.0.1", port)
    await _all_greeted(clients)
    for client in clients:
        client.go_on()
    async with asyncio.timeout(PASS_LIMIT):
        await asyncio.gather(*(client.done for client in clients))
    return waits


async def _all_greeted(clients: list[_Client]) -> None:
    """Only sessions that are open at the same time are sessions: none begins before the last is greeted."""
    _, waiting = await asyncio.wait([asyncio.create_task(client.greeted.wait()) for client in clients], timeout=5)
    if waiting:
        raise PassFailed(f"{len(waiting)} of {len(clients)} sessions were not greeted within 5 seconds")


def _session(workload: Workload, numbers: Iterator[int], waits: list[float]) -> Iterator[tuple[bytes, bytes]]:
    """What one session says, each with the code it must hear; notes the seconds that each final dot waited."""
    mail = f"MAIL FROM:<{workload.sender}>\r\n".encode()
    message_of = workload.messages()
    yield b"", b"220"
    yield b"EHLO bench.example.com\r\n", b"250"
    for number in numbers:
        yield mail, b"250"
        yield f"RCPT TO:<{workload.reader(number)}>\r\n".encode(), b"250"
        yield b"DATA\r\n", b"354"
        message = message_of(number) + b".\r\n"
        sent = time.perf_counter()
        yield message, b"250"
        waits.append(time.perf_counter() - sent)
    yield b"QUIT\r\n", b"221"


def _itself(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    """Speaks a session's lines in turn; `done` ends with it, or fails with the reply that was not expected."""

    def __init__(self, session: Iterator[tuple[bytes, bytes]]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.greeted = asyncio.Event()
        self._session = session
        _, self._awaited = next(session)
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass

    def data_received(self, data: bytes) -> None:
        self._heard += data
        last_line = self._heard[self._heard.rfind(b"\n", 0, -1) + 1 :]
        if last_line.endswith(b"\n") and last_line[3:4] != b"-":
            self._heard = b""
            self._answer(last_line)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(PassFailed(f"the connection broke: {error}"))

    def _answer(self, reply: bytes) -> None:
        if not reply.startswith(self._awaited):
            self.done.set_exception(PassFailed(f"unexpected reply: {reply.decode(errors='replace').strip()}"))
            self._transport.close()
        elif self.greeted.is_set():
            self.go_on()
        else:
            self.greeted.set()

    def go_on(self) -> None:
        """Say the next line, or leave when there is none."""
        try:
            line, self._awaited = next(self._session)
        except StopIteration:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(line)
