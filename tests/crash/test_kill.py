"""Kill the whole process group under load, start it again, and count: nothing that was acknowledged may be missing.

The judge stands outside: what clients read a final 250 (or an HTTP 200) for, against what a strict sink received and
what the next RCPT is answered. The program's own records are not asked.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually
from tests.sink import Sink

SESSIONS = 20
ACKNOWLEDGED_BEFORE_A_KILL = 200
OPT_OUTS_A_KILL = 5
UNDER_WAY = 20 * 4
"""Copies between a smarthost's reply and our own record of it: the default connections, four copies each."""

KILLS = int(os.environ.get("ASSENT_KILLS", "20"))

_MESSAGE = (
    "From: <letters@news.example.com>\r\nTo: readers@news.example.com\r\nSubject: News\r\nX-Load: {id}\r\n"
    "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{id}@tool.example.net>\r\n\r\n{text}\r\n.\r\n"
)
_LINES = (20, 60, 600)
_LOAD_ID = re.compile(rb"^X-Load: (\S+)\r\n", re.MULTILINE)
_LINK = re.compile(rb"<https://mail\.example\.com(/u/[\w.-]+)>")


@dataclass
class Load:
    """Clients that submit until the server goes away, and the book of what they were promised."""

    gateway: Gateway
    recipients: list[str]
    acknowledged: set[str] = field(default_factory=set)
    opted_out: set[str] = field(default_factory=set)

    async def run(self, prefix: str, leaving: Mapping[str, str]) -> None:
        """Submit on `SESSIONS` connections while people opt out, and kill the gateway at a random instant.

        `leaving` has the link of each address that opts out; first, `ACKNOWLEDGED_BEFORE_A_KILL` messages are accepted.
        """
        before = len(self.acknowledged)
        clients = [asyncio.create_task(self._client(f"{prefix}-{n}")) for n in range(SESSIONS)]
        while len(self.acknowledged) - before < ACKNOWLEDGED_BEFORE_A_KILL:
            await asyncio.sleep(0.001)
            assert not all(client.done() for client in clients), "every client stopped before the kill"
        people = [asyncio.create_task(self._opt_out(address, path)) for address, path in leaving.items()]
        await asyncio.sleep(random.uniform(0, 0.3))
        self.gateway.kill()
        await asyncio.gather(*clients, *people)

    async def _opt_out(self, address: str, path: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.2))
        try:
            answer = await asyncio.to_thread(self.gateway.post, path, b"List-Unsubscribe=One-Click")
        except (OSError, HTTPException):
            return
        if answer.status == 200:
            self.opted_out.add(address)

    async def _client(self, name: str) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.submission)
            await _reply(reader)
            await _say(reader, writer, "EHLO load.example.net")
            for n in range(10_000):
                await self._submit(reader, writer, f"{name}-{n}")
        except (ConnectionError, asyncio.IncompleteReadError, EOFError):
            return

    async def _submit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, load_id: str) -> None:
        recipient = random.choice(self.recipients)
        text = "\r\n".join(
            ["A line of seventy characters, as mail has them, and one more word."] * random.choice([20, 60, 600])
        )
        await _say(reader, writer, "MAIL FROM:<letters@news.example.com>")
        assert (await _say(reader, writer, f"RCPT TO:<{recipient}>")).startswith("250")
        await _say(reader, writer, "DATA")
        writer.write(_MESSAGE.format(id=load_id, text=text).encode())
        if (await _reply(reader)).startswith("250"):
            self.acknowledged.add(load_id)


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str) -> str:
    writer.write(line.encode() + b"\r\n")
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] != b"-":
            return line.decode()


@pytest.mark.req("OUT-01", "UNS-22")
def test_nothing_acknowledged_is_lost_when_the_process_group_is_killed(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway(workers=2)
    gateway.add_login("load", "newsletter", "--network", "127.0.0.0/8")
    readers = [f"load{n}@example.org" for n in range(10)]
    leaving = [f"leaving{n}@example.org" for n in range(OPT_OUTS_A_KILL * KILLS)]
    gateway.opt_in(*readers, *leaving)
    links = _links(gateway, sink, leaving)
    load = Load(gateway, readers)
    for kill in range(KILLS):
        gateway.start()
        going = leaving[kill * OPT_OUTS_A_KILL :][:OPT_OUTS_A_KILL]
        asyncio.run(load.run(f"k{kill}", {address: links[address] for address in going}))
    gateway.start()
    eventually(lambda: load.acknowledged <= _received(sink).keys(), 60)
    copies = _received(sink)
    assert len(load.acknowledged) >= KILLS * ACKNOWLEDGED_BEFORE_A_KILL
    assert sum(n - 1 for n in copies.values()) <= KILLS * UNDER_WAY, "more duplicates than deliveries under way"
    assert len(load.opted_out) >= KILLS, "too few opt-outs were acknowledged to tell anything"
    for address in load.opted_out:
        code, text = gateway.submit(b"From: <letters@news.example.com>\r\n\r\n.", [address])[address]
        assert (code, text[:19]) == (550, "5.7.1 unsubscribed:"), address
    assert gateway.run("ledger", "verify", "--anchor", "var/anchor.jsonl").returncode == 0


def _received(sink: Sink) -> Counter[str]:
    found = (_LOAD_ID.search(message.content) for message in list(sink.messages))
    return Counter(match[1].decode() for match in found if match)


def _links(gateway: Gateway, sink: Sink, addresses: list[str]) -> dict[str, str]:
    """Return the path of each person's unsubscribe link, from a newsletter that was really relayed."""
    gateway.start()
    gateway.submit(_MESSAGE.format(id="first", text="Hello").encode().removesuffix(b".\r\n"), addresses)
    sink.wait_for(len(addresses), 60)
    found = {}
    for message in sink.messages:
        link = _LINK.search(message.content)
        assert link
        found[message.recipients[0]] = link[1].decode()
    gateway.stop()
    sink.clear()
    return found
