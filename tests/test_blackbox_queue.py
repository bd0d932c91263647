"""An opt-out reaches mail that is already queued, whatever happens in between: a crash, a slow smarthost, a race.

The judge stands outside: when a click's 200 was read, against when MAIL came for that person at a strict sink.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.delivery_under_test import reports
from tests.gateway_under_test import Gateway, eventually, fetch, newsletter, token_of
from tests.reports import is_report
from tests.sink import Sink
from tests.torture import Finding, enter

INTERLEAVINGS = int(os.environ.get("ASSENT_INTERLEAVINGS", "300"))
SESSIONS = 20
GRACE = 1.0
"""Seconds after a click's 200 in which a copy that was decided before may still begin to leave (OUT-02)."""

STOPPED = (550, "5.7.1 unsubscribed:")
PAIRS = [("leaving1@example.org", "staying1@example.org"), ("leaving2@example.org", "staying2@example.org")]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that these tests may kill, with a login for the race and people who have opted in."""
    running = Gateway(tmp_path_factory.mktemp("queue") / "house", shared_sink.url, workers=2).prepare()
    running.add_login("load", "newsletter", "--network", "127.0.0.0/8")
    running.opt_in(*[person for pair in PAIRS for person in pair], *racers())
    yield running.start()
    running.close()


def racers() -> list[str]:
    return [f"racer{n}@example.org" for n in range(INTERLEAVINGS)]


def token_for(gateway: Gateway, sink: Sink, reader: str) -> str:
    """Return the token of a newsletter that was really relayed; the sink forgets it."""
    assert gateway.submit(newsletter(reader, subject="First"), [reader])[""][0] == 250
    token = token_of(sink.wait_for(1)[0].content)
    sink.clear()
    return token


def queue_while_held(gateway: Gateway, sink: Sink, reader: str) -> str:
    """Have a newsletter accepted and tried in vain; return its Message-ID."""
    sink.hold()
    message = newsletter(reader, subject="Queued")
    assert gateway.submit(message, [reader])[""][0] == 250
    eventually(lambda: reader in [one for _, one in sink.attempts])
    return re.search(rb"(?m)^Message-ID: (\S+)", message)[1].decode()


def wait_until_all_is_settled(gateway: Gateway, seconds: float = 60) -> None:
    eventually(lambda: gateway.json("queue", "list") == [], seconds)


def outcomes(gateway: Gateway, message_id: str, reader: str) -> list[str]:
    lines = gateway.json("explain", message_id, reader)
    return [line["outcome"] for line in lines if line["kind"] == "attempt"]


@pytest.mark.req("OUT-02")
def test_a_copy_that_waits_for_the_smarthost_is_dropped_by_an_opt_out(house: Gateway, sink: Sink) -> None:
    leaving, staying = PAIRS[0]
    token = token_for(house, sink, leaving)
    message_id, other_id = (queue_while_held(house, sink, one) for one in (leaving, staying))
    assert house.one_click(token).status == 200
    sink.release()
    wait_until_all_is_settled(house)
    assert taken(sink) == [(staying,)]
    statuses = [one.recipients[0]["Status"] for one in reports(sink) if leaving in one.named]
    assert statuses == ["5.7.1"], "the submitter sees it too"
    *earlier, last = outcomes(house, message_id, leaving)
    assert (set(earlier), last) == ({"deferred"}, "suppressed")
    assert outcomes(house, other_id, staying)[-1] == "relayed"


@pytest.mark.req("UNS-22")
def test_an_opt_out_survives_a_crash_right_after_its_200_and_stops_what_is_queued(house: Gateway, sink: Sink) -> None:
    leaving, staying = PAIRS[1]
    token = token_for(house, sink, leaving)
    message_id, _ = (queue_while_held(house, sink, one) for one in (leaving, staying))
    answer = house.one_click(token)
    house.kill()
    assert answer.status == 200
    sink.release()
    house.start()
    code, text = house.submit(newsletter(), [leaving])[leaving]
    assert (code, text[: len(STOPPED[1])]) == STOPPED
    wait_until_all_is_settled(house)
    assert taken(sink) == [(staying,)]
    assert outcomes(house, message_id, leaving)[-1] == "suppressed"


def taken(sink: Sink) -> list[tuple[str, ...]]:
    """Return whom the smarthost took copies for; reports to the submitter are not copies."""
    return [one.recipients for one in sink.messages if not is_report(one.content)]


@dataclass
class Race:
    """People who are sent a newsletter and click at about the same time, and the book of who did what when."""

    gateway: Gateway
    sink: Sink
    tokens: dict[str, str]
    clicked_at: dict[str, float] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Let everybody race, `SESSIONS` submissions at a time, at a smarthost that misbehaves."""
        weather = asyncio.create_task(self._weather())
        slots = asyncio.Semaphore(SESSIONS)
        await asyncio.gather(*(self._person(person, slots) for person in self.tokens))
        weather.cancel()

    async def _person(self, person: str, slots: asyncio.Semaphore) -> None:
        async with slots:
            longest = random.choice([0.0, 0.02, 0.1, 0.5, 2.0, 6.0])
            click = asyncio.create_task(self._click(person, random.uniform(0, longest)))
            await asyncio.sleep(random.choice([0.0, 0.0, 0.03]))
            await self._submit(person)
        await click

    async def _click(self, person: str, after: float) -> None:
        await asyncio.sleep(after)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.site)
        head = f"POST /u/{self.tokens[person]} HTTP/1.1\r\nHost: mail.example.com\r\nContent-Length: 26\r\n"
        writer.write(f"{head}Connection: close\r\n\r\nList-Unsubscribe=One-Click".encode())
        status = await reader.readline()
        self.clicked_at[person] = time.time()
        writer.close()
        assert status.startswith(b"HTTP/1.1 200 "), status

    async def _submit(self, person: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.submission)
        await _reply(reader)
        for command in ("EHLO load.example.net", "MAIL FROM:<letters@news.example.com>"):
            assert (await _say(reader, writer, command)).startswith("250")
        if (await _say(reader, writer, f"RCPT TO:<{person}>")).startswith("250"):
            await _say(reader, writer, "DATA")
            writer.write(newsletter(person) + b".\r\n")
            taken = await _reply(reader)
            (self.accepted if taken.startswith("250") else self.refused).add(person)
        else:
            self.refused.add(person)
        writer.close()

    def finding(self, late: set[str], dropped: set[str]) -> Finding:
        """Return what came of it; lost is a click whose copy began to leave all the same."""
        promised = len(self.accepted) + len(self.clicked_at)
        besides = f"of {len(self.accepted)} copies {len(dropped)} were dropped; {len(self.refused)} were refused"
        often = f"{len(self.tokens)} times"
        return Finding("a click beside its reader's copy", often, promised, len(late), besides=besides)

    async def _weather(self) -> None:
        """Hold, drop and slow down what the gateway says to its smarthost for moments, and let it be in between."""
        while True:
            await asyncio.sleep(random.uniform(0.2, 1.0))
            match random.choice(["held", "dropped", "slow to greet", "slow to answer"]):
                case "held":
                    self.sink.hold()
                case "dropped":
                    await asyncio.to_thread(self.sink.drop_connections)
                case "slow to greet":
                    await asyncio.to_thread(self.sink.drop_connections)
                    self.sink.on("EHLO", delay=random.uniform(0.5, 1.5))
                case "slow to answer":
                    self.sink.on("RCPT", delay=random.uniform(0.1, 0.5))
            await asyncio.sleep(random.uniform(0.1, 0.4))
            self.sink.normal()
            self.sink.release()


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str) -> str:
    writer.write(line.encode() + b"\r\n")
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> str:
    while (line := await reader.readuntil(b"\r\n"))[3:4] == b"-":
        pass
    return line.decode()


def tokens_of_all(gateway: Gateway, sink: Sink, people: list[str]) -> dict[str, str]:
    """Return each person's token, from newsletters that were really relayed; the sink forgets them."""
    for start in range(0, len(people), 500):
        assert gateway.submit(newsletter("readers@news.example.com"), people[start : start + 500])[""][0] == 250
    sink.wait_for(len(people), 60 + len(people) / 50)
    found = {one.recipients[0]: token_of(one.content) for one in sink.messages}
    sink.clear()
    return found


def suppressed_attempts(gateway: Gateway) -> int:
    told = fetch(f"http://127.0.0.1:{gateway.console}/metrics").text
    counted = re.search(r'(?m)^assent_attempts_total\{outcome="suppressed"\} (\d+)$', told)
    return int(counted[1]) if counted else 0


@pytest.mark.req("OUT-02")
def test_no_copy_begins_to_leave_more_than_a_second_after_its_readers_click(house: Gateway, sink: Sink) -> None:
    people = set(racers())
    race = Race(house, sink, tokens_of_all(house, sink, racers()))
    suppressed_before = suppressed_attempts(house)
    asyncio.run(race.run())
    sink.normal()
    sink.release()
    wait_until_all_is_settled(house)
    relayed = {recipients[0] for recipients in taken(sink)}
    assert race.clicked_at.keys() == race.accepted | race.refused == people
    begun = [(at, person) for at, person in sink.attempts if person in people]
    late = {person for at, person in begun if at > race.clicked_at[person] + GRACE}
    dropped = race.accepted - relayed
    enter(race.finding(late, dropped))
    assert not late
    assert not relayed & race.refused
    assert len(dropped) <= suppressed_attempts(house) - suppressed_before, "what was accepted left or was suppressed"
    assert dropped <= {person for one in reports(sink) for person in one.named}, "and its submitter sees that"
    assert relayed and dropped and race.refused, "the dice never let anybody come first"
