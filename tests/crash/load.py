"""Clients that submit and click until they are stopped, and the book of what they were promised.

The judge stands outside: what clients read a final 250 (or an HTTP 200) for, against what a strict sink received. The
book knows each message by the id in its `X-Load` field, and each copy by that and its recipient.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from tests.gateway_under_test import Gateway, eventually
from tests.sink import Received, Sink

SESSIONS = 20
LOGIN = "load"
READERS = [f"load{n}@example.org" for n in range(50)]

Pair = tuple[str, str]
"""A message's load id, and one of its recipients."""

_ASKED_BY_ONE = 200
_LINK = re.compile(rb"<https://mail\.example\.com(/u/[\w.-]+)>")
_LOAD_ID = re.compile(rb"^X-Load: (\S+)\r\n", re.MULTILINE)
_ATTACHED = re.compile(rb"attachment\r\n\r\n(.*)\r\n--cut--\r\n", re.DOTALL)
_QUEUED_AS = re.compile(r"250 2\.0\.0 queued as (\w+)")
_LINES = [f"{n:05} a line of mail as people write it, and a few more words to fill it." for n in range(75_000)]
_SENDERS = {"newsletter": "letters@news.example.com", "billing": "billing@example.com"}
_MESSAGE = """\
From: <{sender}>
To: <readers@example.org>
Subject: What is new
X-Load: {id}
Date: Sun, 22 Nov 2026 10:00:00 +0000
Message-ID: <{id}@tool.example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="cut"

--cut
Content-Type: text/plain

Hello.

--cut
Content-Type: text/plain
Content-Disposition: attachment

{text}
--cut--
"""


def prepare(gateway: Gateway, leaving: Sequence[str] = ()) -> None:
    """Add the login of the load, and the opt-ins of its readers and of those who are to leave."""
    gateway.add_login(LOGIN, ",".join(_SENDERS), "--network", "127.0.0.0/8")
    gateway.opt_in(*READERS, *leaving)


def links_of(gateway: Gateway, sink: Sink, people: Sequence[str]) -> dict[str, str]:
    """Return the path of each person's unsubscribe link, from a newsletter that was really relayed."""
    for start in range(0, len(people), 500):
        answer = gateway.submit(compose("first", "newsletter", 1), people[start : start + 500])
        assert list(answer) == [""] and answer[""][0] == 250, answer
    sink.wait_for(len(people), 60 + len(people) / 20)
    found = {}
    for message in sink.messages:
        link = _LINK.search(message.content)
        assert link
        found[message.recipients[0]] = link[1].decode()
    sink.clear()
    return found


def compose(load_id: str, stream: str, lines: int) -> bytes:
    """Return a message of so many lines, no two alike."""
    start = random.randrange(len(_LINES) - lines)
    text = "\n".join([load_id, *_LINES[start : start + lines]])
    return _MESSAGE.format(sender=_SENDERS[stream], id=load_id, text=text).replace("\n", "\r\n").encode()


def digest(content: bytes) -> bytes:
    """Return the hash of what must arrive as it was submitted: account mail's body, a newsletter's attachment."""
    header, _, body = content.partition(b"\r\n\r\n")
    if _SENDERS["newsletter"].encode() in header:
        attached = _ATTACHED.search(body)
        assert attached, content[:2000]
        body = attached[1]
    return hashlib.sha256(body).digest()


def load_id_of(content: bytes) -> str:
    """Return the id by which the book knows a message."""
    found = _LOAD_ID.search(content)
    assert found, content[:2000]
    return found[1].decode()


@dataclass(frozen=True)
class Promise:
    """What a 250 promised: who gets it, and what."""

    recipients: tuple[str, ...]
    digest: bytes


@dataclass
class Shape:
    """How large messages are, and for how many: most are small and for one, as in life."""

    lines: Sequence[int] = (30, 30, 60, 150, 600, 1500)
    rare_lines: Sequence[int] = (2_500, 15_000)
    crowds: Sequence[int] = (2, 5, 10)
    rare_crowds: Sequence[int] = (50,)
    rarity: float = 0.02
    largest: int = 0
    """Lines of the one message in each run that is the largest; 0 for none."""

    def draw(self, n: int) -> tuple[int, int]:
        """Return the lines of a run's nth message and the number of its recipients."""
        if self.largest and n == 3:
            return self.largest, 1
        dice = random.random()
        if dice < self.rarity:
            return random.choice(self.rare_lines), 1
        if dice < 2 * self.rarity:
            return self.lines[0], random.choice(self.rare_crowds)
        if dice < 0.15 + 2 * self.rarity:
            return random.choice(self.lines[:2]), random.choice(self.crowds)
        return random.choice(self.lines), 1


@dataclass
class Load:
    """Everything that clients sent, what they were told, and what the sink got of it."""

    gateway: Gateway
    sink: Sink
    shape: Shape = field(default_factory=Shape)
    recipients: Sequence[str] = tuple(READERS)
    promises: dict[str, Promise] = field(default_factory=dict)
    spool_ids: dict[str, str] = field(default_factory=dict)
    """The load id of each id that a 250 named."""
    opted_out: set[str] = field(default_factory=set)
    ports: dict[int, str] = field(default_factory=dict)
    """Who opted out, by the port from which that came."""
    received: Counter[Pair] = field(default_factory=Counter)
    altered: list[str] = field(default_factory=list)
    _sent: dict[str, Promise] = field(default_factory=dict)

    @property
    def promised(self) -> set[Pair]:
        return {(load_id, one) for load_id, promise in self.promises.items() for one in promise.recipients}

    @property
    def missing(self) -> set[Pair]:
        self.collect()
        return self.promised - self.received.keys()

    @property
    def duplicates(self) -> int:
        return sum(self.received.values()) - len(self.received)

    @property
    def things_promised(self) -> int:
        """How many copies and opt-outs were acknowledged."""
        return len(self.promised) + len(self.opted_out)

    def collect(self) -> None:
        """Enter in the book what the sink has received since the last time, and let it forget that."""
        arrived = list(self.sink.messages)
        del self.sink.messages[: len(arrived)]
        for message in arrived:
            self._enter(message)

    def _enter(self, message: Received) -> None:
        name = load_id_of(message.content)
        self.received.update((name, one) for one in message.recipients)
        if name in self._sent and digest(message.content) != self._sent[name].digest:
            self.altered.append(name)

    async def submit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, load_id: str, n: int) -> None:
        """Submit one message; enter the promise if its final dot is answered 250."""
        stream = random.choice(list(_SENDERS))
        lines, crowd = self.shape.draw(n)
        recipients = tuple(random.sample(self.recipients, crowd))
        message = compose(load_id, stream, lines)
        self._sent[load_id] = promise = Promise(recipients, digest(message))
        commands = [f"MAIL FROM:<{_SENDERS[stream]}>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"]
        writer.write("".join(f"{command}\r\n" for command in commands).encode())
        replies = [await _reply(reader) for _ in commands]
        if not replies[-1].startswith("354"):
            raise ConnectionError(f"not taken now: {replies}")
        writer.write(message + b".\r\n")
        await writer.drain()
        queued = _QUEUED_AS.match(await _reply(reader))
        if queued:
            self.promises[load_id] = promise
            self.spool_ids[queued[1]] = load_id

    async def opt_out(self, address: str, path: str) -> None:
        """Click or write a mail; enter the opt-out if it was answered 200 or 250."""
        said_so = self._click if random.random() < 0.7 else self._write
        port = self.gateway.site if said_so == self._click else self.gateway.feedback
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            self.ports[writer.get_extra_info("sockname")[1]] = address
            if await said_so(reader, writer, path):
                self.opted_out.add(address)
            writer.close()

    async def _click(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bool:
        """POST as RFC 8058 §8.1 shows it."""
        head = f"POST {path} HTTP/1.1\r\nHost: mail.example.com\r\nContent-Length: 26\r\n"
        writer.write(f"{head}Connection: close\r\n\r\nList-Unsubscribe=One-Click".encode())
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    async def _write(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bool:
        """Write to the address in the List-Unsubscribe field, with the link's token as the subject."""
        token = path.rpartition("/")[2]
        await _reply(reader)
        for command in ("EHLO reader.example.org", "MAIL FROM:<>", "RCPT TO:<unsubscribe@bounce.example.com>", "DATA"):
            writer.write(f"{command}\r\n".encode())
            await _reply(reader)
        writer.write(f"Subject: {token}\r\n\r\n.\r\n".encode())
        return (await _reply(reader)).startswith("250")


class Clients:
    """`SESSIONS` connections that submit until they are told to finish, and people who opt out one after the other.

    Each pauses for so many seconds after a message.
    """

    def __init__(self, load: Load, prefix: str, leaving: Mapping[str, str], pause: float = 0) -> None:
        self._load = load
        self._pause = pause
        self._tasks = [asyncio.create_task(self._submit(prefix, 1_000_000 * n)) for n in range(SESSIONS)]
        self._tasks.append(asyncio.create_task(self._leave(leaving)))
        self._is_over = False

    async def until(self, promises: int, opted_out: int, seconds: float = 60) -> None:
        """Wait until so many messages and opt-outs have been promised, since the first one ever."""
        deadline = asyncio.get_running_loop().time() + seconds
        while len(self._load.promises) < promises or len(self._load.opted_out) < opted_out:
            assert asyncio.get_running_loop().time() < deadline, "the load does not get anywhere"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.001)

    async def finish(self) -> None:
        """Let everybody finish the message that they are at."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _submit(self, prefix: str, first: int) -> None:
        """Submit one message after the other, on a new connection whenever the old one ends."""
        numbers = count(first)
        while not self._is_over:
            with suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._load.gateway.submission)
                try:
                    await self._converse(reader, writer, prefix, numbers)
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: str, numbers: Iterator[int]
    ) -> None:
        await _reply(reader)
        writer.write(b"EHLO load.example.net\r\n")
        await _reply(reader)
        while not self._is_over:
            n = next(numbers)
            await self._load.submit(reader, writer, f"{prefix}-{n}", n)
            await asyncio.sleep(self._pause)

    async def _leave(self, leaving: Mapping[str, str]) -> None:
        for address, path in leaving.items():
            await asyncio.sleep(random.uniform(0, 0.1))
            await self._load.opt_out(address, path)


async def _reply(reader: asyncio.StreamReader) -> str:
    while (line := await reader.readuntil(b"\r\n"))[3:4] == b"-":
        pass
    return line.decode()


def drain(load: Load, seconds: float = 120) -> None:
    """Wait until the queue is empty, or for so long, and enter what has arrived."""
    with suppress(AssertionError):
        eventually(lambda: load.gateway.json("queue", "list") == [], seconds)
    load.collect()


def assert_they_stay_away(gateway: Gateway, people: Iterable[str]) -> None:
    """The next RCPT for each of them is refused, because they opted out.

    A login asks for so few that no brake takes the refusals for those of a wrong list.
    """
    everybody = sorted(people)
    for start in range(0, len(everybody), _ASKED_BY_ONE):
        name = f"asking{start}"
        gateway.add_login(name, "newsletter")
        with gateway.smtp(name) as client:
            client.mail(_SENDERS["newsletter"])
            for address in everybody[start : start + _ASKED_BY_ONE]:
                code, text = client.rcpt(address)
                assert (code, text[:19]) == (550, b"5.7.1 unsubscribed:"), (address, code, text)
