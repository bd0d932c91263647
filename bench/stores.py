"""Stores of a size that nobody wants to record one by one: millions of people, a million queued recipients.

The one rule: what is made here is what the program's own verbs would have made, row for row, and passes `ledger
verify`; only the order of writing differs, since people are kept by random keys and millions of them must be sorted
first. A store is made once, under build/, and used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from bench.peers.assent import Assent
from bench.process import free_port, say
from bench.workload import Workload, prepare_workload
from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event
from gateway.decisions import door_line, subject_of
from gateway.ids import Ids, spool_text
from gateway.installation import OPERATOR_SLOT, Clock
from gateway.ledger import canonical_json, commitment, timestamp
from gateway.model import Action, MessageClass, Peer, Recipient, SpooledMessage, SpooledRecipient, Verdict
from gateway.store import Store
from gateway.store.history import event_of, row_of
from gateway.store.sqlite import DataFolder
from gateway.store.writer import Connection, connect

BUILD: Final = Path(__file__).parents[1] / "build" / "bench"
CHUNK: Final = 10_000
TOGETHER: Final = 500
"""Messages that are kept at a time, so that one commit serves them all."""

_KEYS = "INSERT INTO address_keys (kid, digest, address_id)"
_PEER = Peer("bench.example.com", "127.0.0.1", "ESMTP")


def people_store(people: int) -> Path:
    """Return a data folder in which so many readers, numbered from 1, have opted in; it is made where it is missing."""
    return _made(f"people-{people}", partial(_make_people, people))


def queue_store(queued: int, workload: Workload) -> Path:
    """Return a data folder in which so many recipients wait, a newsletter each; what was relayed is replaced."""
    data = _made(f"queue-{queued}", lambda place: shutil.copytree(people_store(queued), place / "var"))
    asyncio.run(_fill_up(data, queued, workload))
    return data


def _made(name: str, make: Callable[[Path], object]) -> Path:
    place = BUILD / name
    if not place.is_dir():
        say(f"making the store {name}")
        fresh = place.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        make(fresh)
        fresh.rename(place)
    return place / "var"


# people


def _make_people(people: int, place: Path) -> None:
    """Let the program make a store and record reader 1; add all others as that one was."""
    workload = prepare_workload(place, free_port(), 1)
    Assent(workload, place / "var").prepare(place)
    folder = DataFolder(place / "var", place / "var" / "assent.db")
    kid, key = folder.address_ring().in_force_first()[0]
    with closing(connect(folder.people)) as connection:
        model = _Model.of(connection, people, key, workload)
        for pragma in ("synchronous=OFF", "journal_mode=OFF", "cache_size=-400000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        connection.execute("CREATE TEMP TABLE found (digest BLOB, address_id BLOB)")
        for rows in _computed(model):
            _insert(connection, rows)
        connection.execute(f"{_KEYS} SELECT ?, digest, address_id FROM found ORDER BY digest", (kid,))
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    asyncio.run(_seal(folder))


@dataclass(frozen=True)
class _Model:
    """The opt-in that all others are like, and what they differ in."""

    event: Event
    people: int
    key: bytes
    workload: Workload

    @classmethod
    def of(cls, connection: Connection, people: int, key: bytes, workload: Workload) -> _Model:
        row = connection.execute(
            "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields"
            " FROM events e JOIN event_personal p USING (seq) WHERE e.seq = 1"
        ).fetchone()
        return cls(event_of(row), people, key, workload)

    def reader(self, place: int) -> str:
        """The address of the person in that place of the order by id; neighbours there are not neighbours by number."""
        stride = round(self.people * 0.618)
        while math.gcd(stride, self.people) != 1:
            stride += 1
        return self.workload.reader(place * stride % self.people + 1)


@dataclass(frozen=True)
class _Rows:
    people: list[tuple[Any, ...]]
    keys: list[tuple[Any, ...]]
    events: list[tuple[Any, ...]]
    personal: list[tuple[Any, ...]]


def _computed(model: _Model) -> Iterator[_Rows]:
    """Work out all rows, on every processor; in the first place stands reader 1, whom the program has recorded."""
    with get_context("spawn").Pool() as pool:
        chunks = (range(first, min(first + CHUNK, model.people)) for first in range(1, model.people, CHUNK))
        for done, rows in enumerate(pool.imap(partial(_rows, model), chunks), 1):
            yield rows
            if done % 100 == 0:
                say(f"    {done * CHUNK:,} people")


def _rows(model: _Model, places: range) -> _Rows:
    rows = _Rows([], [], [], [])
    for place in places:
        _add(rows, model, place, Address.parse(model.reader(place)))
    return rows


def _add(rows: _Rows, model: _Model, place: int, address: Address) -> None:
    width = (1 << 128) // model.people
    address_id = (place * width + int.from_bytes(os.urandom(16)) % width).to_bytes(16)
    event = replace(model.event, seq=place + 1, address_id=address_id)
    salt = os.urandom(16)
    committed = commitment(salt, event.personal or {})
    standing = json.dumps(NOTHING_KNOWN.after(event).to_json())
    rows.people.append((address_id, address.text, standing, timestamp(event.recorded_at)))
    rows.keys.append((hmac.digest(model.key, address.key.encode("utf-8"), hashlib.sha256), address_id))
    rows.events.append(row_of(event, committed))
    rows.personal.append((event.seq, salt, canonical_json(event.personal or {}).decode("utf-8")))


def _insert(connection: Connection, rows: _Rows) -> None:
    connection.executemany(
        "INSERT INTO people (address_id, address, standing, created_at) VALUES (?, ?, ?, ?)", rows.people
    )
    connection.executemany("INSERT INTO found VALUES (?, ?)", rows.keys)
    connection.executemany(
        "INSERT INTO events (seq, type, address_id, at, recorded_at, topic, scope, facts, commitment, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows.events,
    )
    connection.executemany("INSERT INTO event_personal (seq, salt, fields) VALUES (?, ?, ?)", rows.personal)


async def _seal(folder: DataFolder) -> None:
    sealer = folder.sealer(Clock().now)
    try:
        if not sealer.elected():
            raise RuntimeError("somebody else is at work in the store")
        while await sealer.seal():
            pass
        await sealer.checkpoint()
    finally:
        await sealer.close()


# the queue


async def _fill_up(data: Path, queued: int, workload: Workload) -> None:
    folder, clock = DataFolder(data, data / "assent.db"), Clock()
    store = folder.open("bench", lambda about, fates: None, clock.now)
    try:
        waiting, _ = await store.queue.depth()
        if waiting < queued:
            say(f"    {waiting:,} wait; filling up to {queued:,}")
        ids = Ids(OPERATOR_SLOT, clock.now)
        for first in range(waiting, queued, TOGETHER):
            numbers = range(first + 1, min(first + TOGETHER, queued) + 1)
            await asyncio.gather(*(_keep(store, ids, clock, workload, number) for number in numbers))
    finally:
        await store.close()
    await _seal(folder)


async def _keep(store: Store, ids: Ids, clock: Clock, workload: Workload, number: int) -> None:
    """Keep one message as the listener does: its decision beside it, claimed by nobody."""
    recipient = Recipient(Address.parse(workload.reader(number)))
    (facts,) = await store.people.facts([recipient.address])
    message = SpooledMessage(
        id=ids.spool(),
        login="bench",
        stream="newsletter",
        message_class=MessageClass.PROMOTIONAL,
        topics=("product-announcements",),
        reverse_path=workload.sender,
        options=(),
        peer=_PEER,
        received_at=clock.now(),
        recipients=(recipient,),
        message=workload.message(),
    )
    decision, subject = ids.decision(), subject_of(message, spool_text(message.id))
    line = door_line(decision, clock.now(), facts.who, subject, Verdict(Action.SEND))
    await store.spool.keep(message, [SpooledRecipient(0, recipient, facts.who, decision)], [line], claimed=0)
