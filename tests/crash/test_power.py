"""Cut the power at random instants, and look at what is found afterwards: everything that was promised, and whole.

The program runs once, with all its processes, under `strace` (`recording`); the disk is then rebuilt as of any instant
(`disk`), and the program's own store opens what is there. What was promised by then is what had been written to the
sockets: the 250s, the 200s, and what had gone to the smarthost.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.address import Address
from gateway.store.sqlite import DataFolder
from tests.crash.disk import Disk, Fault, lay_out
from tests.crash.load import Clients, Load, Pair, Shape, assert_they_stay_away, digest, links_of, load_id_of, prepare
from tests.crash.recording import MAPPED, Event, RecordedGateway, Said, Synced, can_record
from tests.crash.remains import damage, waiting
from tests.gateway_under_test import eventually
from tests.sink import Sink
from tests.torture import Finding, enter

pytestmark = pytest.mark.skipif(not can_record(), reason="strace is missing, or not allowed to trace")

POINTS = int(os.environ.get("ASSENT_POWER_CUTS", "30"))
PROMISES = 5 * POINTS
STARTS = max(2, POINTS // 10)
"""At so many of the points the program is started on what is found, and relays what it owes."""

SHAPE = Shape(lines=(30, 60, 150), rare_lines=(2_500, 4_000), rare_crowds=(20,), rarity=0.08)
LATE = "load1"
"""Readers whose address begins so are told 451 by the smarthost, always: what they are owed stays in the queue."""

PHONED = "phoned@example.org"
"""Somebody who said no on the telephone; an operator recorded it."""

_QUEUED_AS = re.compile(rb"250 2\.0\.0 queued as (\w+)")
_RECIPIENT = re.compile(rb"RCPT TO:<([^>]*)>")


def _port(end: str) -> int:
    return int(end.rpartition(":")[2])


@dataclass
class Witness:
    """What the world had been told up to some event."""

    load: Load
    promised: set[str] = field(default_factory=set)
    opted_out: set[str] = field(default_factory=set)
    relayed: set[Pair] = field(default_factory=set)
    _to_smarthost: dict[str, bytes] = field(default_factory=dict)

    @property
    def _yes(self) -> dict[int, bytes]:
        """Return how an opt-out is acknowledged at each of our ports that takes one."""
        return {self.load.gateway.site: b"HTTP/1.1 200 ", self.load.gateway.feedback: b"250 2.0.0 ok"}

    def hear(self, said: Said) -> None:
        named = [one.decode() for one in _QUEUED_AS.findall(said.octets)]
        self.promised |= {self.load.spool_ids[one] for one in named if one in self.load.spool_ids}
        here, _, peer = said.line.strip("TCP:[]").partition("->")
        yes = self._yes.get(_port(here))
        if yes and said.octets.startswith(yes):
            self.opted_out |= {self.load.ports[port] for port in {_port(peer)} & self.load.ports.keys()}
        if peer.endswith(f":{self.load.sink.port}"):
            self._follow(said)

    def _follow(self, said: Said) -> None:
        """Put a conversation with the smarthost together, and note each copy that had gone to its final dot."""
        *whole, rest = (self._to_smarthost.get(said.line, b"") + said.octets).split(b"\r\n.\r\n")
        self._to_smarthost[said.line] = rest
        for transaction in whole:
            commands, _, content = transaction.rpartition(b"DATA\r\n")
            named = [one.decode() for one in _RECIPIENT.findall(commands.rpartition(b"MAIL FROM")[2])]
            self.relayed |= {(load_id_of(content), one) for one in named if not one.startswith(LATE)}

    @property
    def owed(self) -> set[Pair]:
        promises = {load_id: self.load.promises[load_id].recipients for load_id in self.promised}
        return {(load_id, one) for load_id, recipients in promises.items() for one in recipients} - self.relayed


@dataclass(frozen=True)
class Evening:
    """One recorded run: the folder that it began with, its events, and its book."""

    gateway: RecordedGateway
    before: Path
    events: Sequence[Event]
    load: Load
    phoned_until: int
    """The number of the event by which `PHONED` had been told that their opt-out is recorded."""

    @property
    def promises(self) -> list[int]:
        """The points right after something was promised."""
        return [
            n for n, event in enumerate(self.events, 1) if isinstance(event, Said) and _QUEUED_AS.search(event.octets)
        ]

    def aftermaths(self, points: Sequence[int], faults: Sequence[Fault], dice: random.Random) -> Iterator[Aftermath]:
        """Yield what is found after each fault at each point, the earliest first."""
        disk, witness, done = Disk(self.before), Witness(self.load), 0
        for point in sorted(points):
            disk.apply(self.events[done:point])
            for event in self.events[done:point]:
                if isinstance(event, Said):
                    witness.hear(event)
            done = point
            for fault in faults:
                opted_out = witness.opted_out | ({PHONED} if point >= self.phoned_until else set())
                yield Aftermath(point, fault, disk.image(fault, dice), witness.owed, opted_out)


@dataclass(frozen=True)
class Aftermath:
    """What is on the disk after a fault, and what had been promised by then."""

    point: int
    fault: Fault
    image: dict[str, bytes | None]
    owed: set[Pair]
    opted_out: set[str]

    def __str__(self) -> str:
        return f"{self.fault.name} after event {self.point}"


@pytest.fixture(scope="module")
def evening(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """Set up, start, load, restart under load, and stop, recorded; some of the mail is put off by the smarthost."""
    folder = tmp_path_factory.mktemp("power").resolve() / "house"
    gateway = RecordedGateway(folder, shared_sink.url, workers=2)
    load = Load(gateway, shared_sink, SHAPE)
    leaving = [f"leaving{n}@example.org" for n in range(max(10, POINTS // 3))]
    shared_sink.normal()
    shared_sink.clear()
    gateway.prepare_files()
    before = shutil.copytree(folder, folder.with_name("before"))
    gateway.prepare_store()
    prepare(gateway, leaving)
    gateway.run("suppressions", "add", PHONED, "--scope", "all-marketing", "--reason", "unsubscribed")
    commands = gateway.commands
    links = links_of(gateway.start(), shared_sink, leaving)
    shared_sink.on("RCPT", "451 4.2.0 not now", containing=f"<{LATE}")
    asyncio.run(_submit(load, links))
    assert gateway.stop() == 0
    shared_sink.normal()
    events = gateway.events()
    yield Evening(gateway, before, events, load, gateway.ends[commands - 1])
    gateway.close()


async def _submit(load: Load, links: dict[str, str]) -> None:
    clients = Clients(load, "power", links)
    await clients.until(PROMISES, len(links), 60 + PROMISES / 5)
    await clients.finish()


def test_the_recording_amounts_to_what_lies_on_the_disk(evening: Evening) -> None:
    disk = Disk(evening.before)
    disk.apply(evening.events)
    found = disk.image(Fault.KILLED, random.Random())
    there = {
        str(path.relative_to(evening.gateway.folder)): None if path.is_dir() else path.read_bytes()
        for path in evening.gateway.folder.rglob("*")
        if not str(path).endswith(MAPPED)
    }
    assert found.keys() == there.keys()
    assert [path for path in found if found[path] != there[path]] == []


@pytest.mark.parametrize("path", ["var/assent.db-wal", "var/spool.db-wal", "var/bodies/", "var"])
def test_a_sync_that_does_nothing_is_seen(evening: Evening, tmp_path: Path, path: str) -> None:
    """Without this, a test that finds nothing would tell nothing."""
    events = [
        Synced(one.path, 0) if isinstance(one, Synced) and one.path.startswith(path) else one for one in evening.events
    ]
    points = random.sample(evening.promises[len(evening.promises) // 2 :], 5)
    assert list(troubles(replace(evening, events=events), points, [Fault.DROPPED], tmp_path))


@pytest.mark.req("OUT-01", "UNS-22")
def test_nothing_that_was_promised_is_lost_when_the_power_goes(evening: Evening, tmp_path: Path) -> None:
    """At random instants, and right after promises; `Fault.KILLED` is a `kill -9` at the same instants."""
    instants = random.sample(range(1, len(evening.events) + 1), POINTS // 2) + random.sample(
        evening.promises, POINTS // 2
    )
    found = list(troubles(evening, instants, list(Fault), tmp_path))
    promised = len(evening.load.promised) + len(evening.load.opted_out)
    enter(Finding("power loss", f"{len(instants)} instants, {len(Fault)} models each", promised, len(found)))
    assert not found, "\n".join(found)


@pytest.mark.req("OUT-01", "UNS-22")
def test_what_a_power_loss_left_is_relayed_after_the_next_start(evening: Evening, sink: Sink, tmp_path: Path) -> None:
    for n, after in enumerate(
        evening.aftermaths(random.sample(evening.promises, STARTS), [Fault.TORN], random.Random())
    ):
        folder = tmp_path / f"house{n}"
        lay_out(after.image, folder)
        gateway = evening.gateway.moved_to(folder)
        gateway.start()
        load = replace(evening.load, gateway=gateway, sink=sink, received=Counter(), altered=[])
        eventually(lambda load=load, owed=after.owed: load.collect() or owed <= load.received.keys(), 60)
        assert not load.altered
        assert_they_stay_away(gateway, after.opted_out)
        gateway.close()


def troubles(evening: Evening, points: Sequence[int], faults: Sequence[Fault], scratch: Path) -> Iterator[str]:
    """Yield everything that is wrong after any of the faults at any of the points."""
    for after in evening.aftermaths(points, faults, random.Random()):
        lay_out(after.image, scratch / "found")
        yield from (f"{after}: {what}" for what in examine(scratch / "found" / "var", after, evening))
        shutil.rmtree(scratch / "found")


def examine(var: Path, after: Aftermath, evening: Evening) -> list[str]:
    """Open a data folder with the program's store; return what is wrong with it."""
    try:
        return asyncio.run(_examine(DataFolder(var, var / "assent.db"), after, evening))
    except Exception as error:
        return [f"it cannot be opened: {error!r}"]


async def _examine(house: DataFolder, after: Aftermath, evening: Evening) -> list[str]:
    def now() -> datetime:
        return datetime.now(UTC) + timedelta(days=1)

    house.prepare()
    store = house.open("examiner", lambda *_: None, now)
    sealer = house.sealer(now)
    try:
        found = waiting(house)
        wrong = [f"{one} is lost" for one in after.owed - found.keys()]
        for (load_id, _), content in found.items():
            if load_id in evening.load.promises and digest(content) != evening.load.promises[load_id].digest:
                wrong.append(f"{load_id} is not what was submitted")
        for address in sorted(after.opted_out):
            (facts,) = await store.people.facts([Address.parse(address)])
            if not facts.standing.suppressions:
                wrong.append(f"{address} opted out, and that is lost")
        await sealer.seal()
    finally:
        await sealer.close()
        await store.close()
    return wrong + house.verify(None) + damage(house)
