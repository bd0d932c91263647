"""People, the ledger, logins and notices: `assent.db`.

The rule that must not be broken: an event, its person's standing and the person's keys change in one
transaction, so that what a decision reads is always what the ledger amounts to. Sealing and checking
the ledger is `segments`' part.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, EventType, NewEvent, Standing
from gateway.errors import StoreUnavailable
from gateway.ledger import canonical_json, commitment, event_leaf, timestamp
from gateway.model import KeyRing, Scope
from gateway.store import Facts, LoginRecord, Notice, Now, Orders
from gateway.store.orders import change_stream, put_login, read_login, read_logins, read_orders
from gateway.store.writer import Connection, Writer, connect, reading
from gateway.tokens import FIRST_TOPIC

_COLUMNS = "e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields"
_EVENTS = f"SELECT {_COLUMNS} FROM events e LEFT JOIN event_personal p USING (seq)"
_PERSON = "p.address_id, p.standing FROM {} k JOIN people p USING (address_id) WHERE k.kid = ?1 AND k.digest = {}"
_NARROW = f"SELECT {_PERSON.format('address_keys', '?2')}"
_LOOK_UP = (
    f"SELECT 0, {_PERSON.format('address_keys', '?2')}"
    f" UNION ALL SELECT 1, {_PERSON.format('broad_keys', '?3')}"
    f" UNION ALL SELECT 1, {_PERSON.format('address_keys', '?3')} AND ?3 <> ?2"
)
"""One look-up a decision: whose address this is, and who else's it looks like."""

_REMEMBERED = 8192


class SqlitePeople:
    """The verbs of `assent.db`; reads cost one look-up and see every commit, writes are grouped."""

    def __init__(self, path: Path, ring: KeyRing, now: Now) -> None:
        self._path = path
        self._writer = Writer(path)
        self._reader = connect(path, read_only=True)
        self._ring = ring.newest_first()
        self._now = now
        self._numbers: dict[str, int] = {}
        self._slugs: dict[int, str] = {}
        self._remembered: dict[str, Facts] = {}
        self._version = -1
        self._orders = read_orders(self._reader)
        self._orders_version = -1
        self._read_topics()

    async def close(self) -> None:
        await self._writer.close()
        self._reader.close()

    # people

    async def facts(self, addresses: Sequence[Address]) -> list[Facts]:
        """As the interface says. What was read is remembered until anybody commits, which SQLite tells for certain."""
        with reading(self._path):
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
            if version != self._version or len(self._remembered) > _REMEMBERED:
                self._remembered.clear()
                self._version = version
            return [self._remembered.get(address.key) or self._look_up(address) for address in addresses]

    def _look_up(self, address: Address) -> Facts:
        facts = self._remembered[address.key] = _facts(self._reader, self._ring, address)
        return facts

    async def address_of(self, address_id: bytes) -> Address | None:
        with reading(self._path):
            row = self._reader.execute("SELECT address FROM people WHERE address_id = ?", (address_id,)).fetchone()
        return Address.parse(row[0]) if row and row[0] else None

    async def history(self, address_id: bytes) -> list[Event]:
        with reading(self._path):
            rows = self._reader.execute(f"{_EVENTS} WHERE e.address_id = ? ORDER BY e.seq", (address_id,)).fetchall()
        return [event_of(row) for row in rows]

    async def record(self, events: Sequence[NewEvent]) -> list[Event]:
        now = self._now()
        return await self._writer.do(lambda connection: [_append(connection, self._ring, one, now) for one in events])

    async def suppressed(self) -> list[tuple[Address | None, Standing]]:
        """Return everyone who has a suppression, with None for an erased address."""
        rows = self._reader.execute(
            "SELECT address, standing FROM people WHERE json_array_length(standing, '$.suppressions') > 0"
        )
        return [(Address.parse(a) if a else None, Standing.from_json(json.loads(s))) for a, s in rows]

    # topics

    def topic_slug(self, number: int) -> str | None:
        if number not in self._slugs:
            self._read_topics()
        return self._slugs.get(number)

    def topic_number(self, slug: str) -> int:
        return self._numbers[slug]

    async def number_topics(self, slugs: Sequence[str]) -> None:
        """Give each topic that has none a number in links; a number is never reused."""

        def add(connection: Connection) -> None:
            (last,) = connection.execute("SELECT max(number) FROM topics").fetchone()
            first = max(FIRST_TOPIC, (last or 0) + 1)
            new = [slug for slug in slugs if slug not in self._numbers]
            connection.executemany("INSERT OR IGNORE INTO topics VALUES (?, ?)", enumerate(new, first))

        if any(slug not in self._numbers for slug in slugs):
            await self._writer.do(add)
            self._read_topics()

    def _read_topics(self) -> None:
        with reading(self._path):
            rows = self._reader.execute("SELECT number, slug FROM topics").fetchall()
        self._slugs = dict(rows)
        self._numbers = {slug: number for number, slug in rows}

    # what operators have ordered

    async def login(self, name: str) -> LoginRecord | None:
        with reading(self._path):
            return read_login(self._reader, name)

    async def logins(self) -> list[LoginRecord]:
        with reading(self._path):
            return read_logins(self._reader)

    def orders(self) -> Orders:
        """As the interface says; what cannot be read now is taken to stand as it last did."""
        if self._orders_version != self._version:
            with suppress(StoreUnavailable), reading(self._path):
                self._orders = read_orders(self._reader)
                self._orders_version = self._version
        return self._orders

    async def pause_stream(self, stream: str, why: str, by: str) -> bool:
        return await self._writer.do(lambda connection: change_stream(connection, stream, True, why, by, self._now()))

    async def release_stream(self, stream: str, by: str) -> bool:
        return await self._writer.do(lambda connection: change_stream(connection, stream, False, "", by, self._now()))

    async def put_login(self, record: LoginRecord) -> None:
        """Add a login or change the one of that name; its test recipients become known, so that links can name them."""

        def put(connection: Connection) -> None:
            put_login(connection, record, self._now())
            for one in record.login.test_recipients:
                _person(connection, self._ring, Address.parse(one), self._now())

        await self._writer.do(put)

    # notices

    async def notices(self) -> list[Notice]:
        rows = self._reader.execute(
            "SELECT name, topic, text, url, control, valid_from, valid_until, number FROM notices ORDER BY number"
        )
        return [_notice_of(row) for row in rows]

    async def add_notice(self, notice: Notice) -> None:
        """Register a notice; the store gives it its number. A registered notice never changes."""
        until = timestamp(notice.valid_until) if notice.valid_until else None
        row = (notice.name, notice.topic, notice.text, notice.url, notice.control, timestamp(notice.valid_from), until)
        await self._writer.do(
            lambda connection: connection.execute(
                "INSERT INTO notices (name, topic, text, url, control, valid_from, valid_until)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        )


def event_of(row: Sequence[Any]) -> Event:
    """Return the event of a row of `SELECT seq, type, address_id, at, recorded_at, topic, scope, facts, fields`."""
    seq, kind, address_id, at, recorded_at, topic, scope, facts, fields = row
    return Event(
        seq=seq,
        type=EventType(kind),
        address_id=address_id,
        at=datetime.fromisoformat(at),
        recorded_at=datetime.fromisoformat(recorded_at),
        topic=topic,
        scope=Scope(scope) if scope else None,
        facts=json.loads(facts),
        personal=json.loads(fields) if fields is not None else None,
    )


def columns_of(event: Event) -> tuple[Any, ...]:
    """Return the first eight columns of an event's row, each in its one spelling."""
    times = (timestamp(event.at), timestamp(event.recorded_at))
    facts = canonical_json(event.facts).decode("utf-8")
    return (event.seq, event.type, event.address_id, *times, event.topic, event.scope, facts)


def _facts(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address) -> Facts:
    """Look an address up under every key of the ring, the newest first, and those that look like it beside it."""
    person: tuple[bytes, str] | None = None
    others: list[str] = []
    digest = b""
    for kid, key in ring:
        narrow, broad = _digests(key, address)
        digest = digest or narrow
        for is_look_alike, address_id, standing in connection.execute(_LOOK_UP, (kid, narrow, broad)):
            if is_look_alike:
                others.append(standing)
            else:
                person = person or (address_id, standing)
    if person is None:
        facts = Facts(who=f"{ring[0][0]}:{digest[:16].hex()}", address_id=None, standing=NOTHING_KNOWN)
    else:
        facts = Facts(who=person[0].hex(), address_id=person[0], standing=_standing(person[1]))
    return _with_look_alikes(facts, others) if others else facts


def _with_look_alikes(facts: Facts, others: Sequence[str]) -> Facts:
    """Add the suppressions of addresses that differ in Unicode case only: suppression matches broadly (SUP-02)."""
    standings = (facts.standing, *map(_standing, others))
    found = dict.fromkeys(one for standing in standings for one in standing.suppressions)
    return replace(facts, standing=replace(facts.standing, suppressions=tuple(found)))


def _find(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address) -> tuple[bytes, str] | None:
    """Return the id and the standing of the person whose address this is."""
    for kid, key in ring:
        row: tuple[bytes, str] | None = connection.execute(_NARROW, (kid, _digest(key, address.key))).fetchone()
        if row:
            return row
    return None


@lru_cache(maxsize=8192)
def _standing(text: str) -> Standing:
    """Read a standing; what the same text says is worked out once."""
    return Standing.from_json(orjson.loads(text))


def _digests(key: bytes, address: Address) -> tuple[bytes, bytes]:
    narrow = _digest(key, address.key)
    return narrow, narrow if address.broad_key == address.key else _digest(key, address.broad_key)


def _digest(key: bytes, address_key: str) -> bytes:
    return hmac.digest(key, address_key.encode("utf-8"), hashlib.sha256)


def _append(connection: Connection, ring: Sequence[tuple[int, bytes]], new: NewEvent, now: datetime) -> Event:
    """Append one event, or return the line that already says it."""
    address_id, standing = _person(connection, ring, new.person, now)
    earlier = standing.told_before(new)
    if earlier:
        return event_of(connection.execute(f"{_EVENTS} WHERE e.seq = ?", (earlier,)).fetchone())
    (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
    event = Event(
        (last or 0) + 1, new.type, address_id, new.at, now, new.topic, new.scope, dict(new.facts), dict(new.personal)
    )
    salt = os.urandom(16)
    committed = commitment(salt, new.personal)
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*columns_of(event), committed, event_leaf(event, committed)),
    )
    fields = canonical_json(new.personal).decode("utf-8")
    connection.execute("INSERT INTO event_personal VALUES (?, ?, ?)", (event.seq, salt, fields))
    connection.execute(
        "UPDATE people SET standing = ? WHERE address_id = ?",
        (json.dumps(standing.after(event).to_json()), address_id),
    )
    return event


def _person(
    connection: Connection, ring: Sequence[tuple[int, bytes]], person: Address | bytes, now: datetime
) -> tuple[bytes, Standing]:
    """Return the person's id and standing; whoever is not known yet becomes known."""
    if isinstance(person, bytes):
        row = connection.execute("SELECT address_id, standing FROM people WHERE address_id = ?", (person,)).fetchone()
    else:
        row = _find(connection, ring, person)
    if row:
        return row[0], _standing(row[1])
    address_id = person if isinstance(person, bytes) else os.urandom(16)
    text = None if isinstance(person, bytes) else person.text
    standing = json.dumps(NOTHING_KNOWN.to_json())
    connection.execute("INSERT INTO people VALUES (?, ?, ?, ?)", (address_id, text, standing, timestamp(now)))
    if isinstance(person, Address):
        _add_keys(connection, ring, person, address_id)
    return address_id, NOTHING_KNOWN


def _add_keys(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address, address_id: bytes) -> None:
    kid, key = ring[0]
    connection.execute("INSERT INTO address_keys VALUES (?, ?, ?)", (kid, _digest(key, address.key), address_id))
    if address.broad_key != address.key:
        broad = _digest(key, address.broad_key)
        connection.execute("INSERT INTO broad_keys VALUES (?, ?, ?)", (kid, broad, address_id))


def _notice_of(row: Sequence[Any]) -> Notice:
    name, topic, text, url, control, valid_from, valid_until, number = row
    until = datetime.fromisoformat(valid_until) if valid_until else None
    return Notice(name, topic, text, url, control, datetime.fromisoformat(valid_from), until, number)
