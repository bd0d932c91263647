"""The ledger's events as rows of `assent.db`, and what each changes for its person.

The rule that must not be broken: an event, its person's standing and the person's keys change in one transaction, so
that what a decision reads is always what the ledger amounts to. Which transaction that is, is for whoever calls.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from gateway.address import Address
from gateway.consent import (
    ENDING,
    ENDS_EARLIER,
    NOTHING_KNOWN,
    Event,
    EventType,
    NewEvent,
    Standing,
    Suppression,
    echoes,
    fold,
)
from gateway.ledger import canonical_json, columns_of, commitment, leaf_of, timestamp
from gateway.model import Reason, Scope
from gateway.store.writer import Connection

_COLUMNS = "e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields"
EVENTS = f"SELECT {_COLUMNS} FROM events e LEFT JOIN event_personal p USING (seq)"
OF_PERSON = f"{EVENTS} WHERE e.address_id = ? ORDER BY e.seq"
OF_NUMBERS = f"{EVENTS} WHERE e.seq IN (SELECT value FROM json_each(?)) ORDER BY e.seq"
PERSON = (
    "p.address_id, p.standing, p.address FROM {} k JOIN people p USING (address_id) WHERE k.kid = ?1 AND k.digest = {}"
)
_NARROW = f"SELECT {PERSON.format('address_keys', '?2')}"


def events_since(connection: Connection, seq: int) -> Iterator[Sequence[Any]]:
    """Yield the rows of the events after one, as `event_of` reads them."""
    yield from connection.execute(f"{EVENTS} WHERE e.seq > ? ORDER BY e.seq", (seq,))


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


def row_of(event: Event, committed: bytes) -> tuple[Any, ...]:
    """Return the row of an event, given the commitment to its personal fields."""
    columns = columns_of(event)
    return (*columns, committed, leaf_of(columns, committed))


def append_event(connection: Connection, ring: Sequence[tuple[int, bytes]], new: NewEvent, now: datetime) -> Event:
    """Append one event, or return the line that already says it."""
    address_id, standing = person_of(connection, ring, new.person, now)
    earlier = standing.told_before(new)
    if earlier:
        return event_of(connection.execute(f"{EVENTS} WHERE e.seq = ?", (earlier,)).fetchone())
    facts = {**new.facts, ENDS_EARLIER: True} if new.type in ENDING else dict(new.facts)
    event = Event(
        last_event(connection) + 1, new.type, address_id, new.at, now, new.topic, new.scope, facts, dict(new.personal)
    )
    after = standing.after(event)
    salt = os.urandom(16)
    committed = commitment(salt, new.personal)
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row_of(event, committed),
    )
    if after.must_be_forgotten:
        connection.execute(_FAREWELL, (event.seq, address_id))
        _forget(connection, address_id)
    else:
        fields = canonical_json(new.personal).decode("utf-8")
        connection.execute("INSERT INTO event_personal VALUES (?, ?, ?)", (event.seq, salt, fields))
    named = new.person.text if isinstance(new.person, Address) else None
    connection.execute(_STAND, (json.dumps(after.to_json()), after.must_be_forgotten, named, address_id))
    for echo in echoes(event, after):
        append_event(connection, ring, echo, now)
    return event


def stand_anew(connection: Connection, person: bytes) -> None:
    """Work a standing out from all of a person's events, as where an import was undone."""
    rows = connection.execute(OF_PERSON, (person,)).fetchall()
    standing = json.dumps(fold(map(event_of, rows)).to_json())
    connection.execute("UPDATE people SET standing = ? WHERE address_id = ?", (standing, person))


def link_people(
    connection: Connection,
    ring: Sequence[tuple[int, bytes]],
    old: Address,
    new: Address,
    facts: Mapping[str, Any],
    now: datetime,
) -> list[Event]:
    """Link two addresses, each to the other; what stands against mail to one is said again for the other.

    A notice of a policy that has been sent to the old one has been sent to the person.
    """
    pair = [person_of(connection, ring, one, now)[0] for one in (old, new)]
    recorded = []
    if back := _way_back(connection, *pair):
        told = {**facts, "other": back, "is_newer": False}
        recorded.append(
            append_event(connection, ring, NewEvent(EventType.ADDRESS_CHANGED, pair[1], now, facts=told), now)
        )
    for here, there in (pair, pair[::-1]):
        _, standing = person_of(connection, ring, here, now)
        is_old = here == pair[0]
        if there.hex() not in standing.links or is_old is not (standing.moved_to == there.hex()):
            told = {**facts, "other": there.hex(), "is_newer": is_old}
            event = NewEvent(EventType.ADDRESS_CHANGED, here, now, facts=told)
            recorded.append(append_event(connection, ring, event, now))
    if not recorded:
        return []
    for said in [event_of(row) for one in pair for row in connection.execute(OF_PERSON, (one,)).fetchall()]:
        _, standing = person_of(connection, ring, said.address_id, now)
        if any(one.event == said.seq for one in standing.suppressions):
            first = last_event(connection) + 1
            for echo in echoes(said, standing):
                append_event(connection, ring, echo, now)
            if "import" in said.facts:
                add_chunk(connection, said.facts["import"], first)
        if said.address_id == pair[0] and any(one.event == said.seq for one in standing.notices):
            told = {**said.facts, "linked": pair[0].hex()}
            append_event(connection, ring, NewEvent(said.type, pair[1], said.at, facts=told), now)
    return recorded


def _way_back(connection: Connection, old: bytes, new: bytes) -> str:
    """Return the first of the addresses by which a person came from `new` to `old`, and so is back; "" for none."""
    way = [new.hex()]
    while way[-1] and way[-1] not in way[:-1] and way[-1] != old.hex():
        row = connection.execute(
            "SELECT standing FROM people WHERE address_id = ?", (bytes.fromhex(way[-1]),)
        ).fetchone()
        way.append(standing_of(row[0]).moved_to if row else "")
    return way[1] if way[-1] == old.hex() and len(way) > 2 else ""


def _forget(connection: Connection, address_id: bytes) -> None:
    """Take what can be erased of a person, the digests of imported lists too, which anybody can make of an address."""
    (text,) = connection.execute("SELECT address FROM people WHERE address_id = ?", (address_id,)).fetchone()
    digests = Address.parse(text).list_digests if text else ()
    connection.executemany("DELETE FROM digest_entries WHERE digest = ?", [(one,) for one in digests])
    connection.execute("DELETE FROM policy_notice_texts WHERE reader = ?", (address_id,))
    for table in ("event_personal", "redactions"):
        connection.execute(_FORGET.format(table), (address_id,))


_FAREWELL = (
    "INSERT INTO farewells SELECT ?, address FROM people WHERE address_id = ? AND address IS NOT NULL"
    " AND EXISTS (SELECT 1 FROM told_of_erasures)"
)
"""Whoever has to be told of an erasure (GDPR 19) must hear whose; the address stays until they can be told."""


def put_readers(connection: Connection, webhooks: Sequence[str]) -> None:
    """Say who is to be told of erasures; where there is nobody, nobody's address is kept for it."""
    connection.execute("DELETE FROM told_of_erasures")
    connection.executemany("INSERT OR IGNORE INTO told_of_erasures VALUES (?)", [(one,) for one in webhooks])
    connection.execute("DELETE FROM farewells WHERE NOT EXISTS (SELECT 1 FROM told_of_erasures)")


_FORGET = "DELETE FROM {} WHERE seq IN (SELECT seq FROM events WHERE address_id = ?)"
"""Takes what can be erased of a person's events; the commitments in the ledger stay, so that it still verifies."""

_STAND = (
    "UPDATE people SET standing = ?, address = CASE WHEN ? THEN NULL ELSE coalesce(address, ?) END WHERE address_id = ?"
)
"""Whoever is forgotten has no address but its keyed digest; who opts in anew, and confirms it, has one again."""


def person_of(
    connection: Connection, ring: Sequence[tuple[int, bytes]], person: Address | bytes, now: datetime
) -> tuple[bytes, Standing]:
    """Return the person's id and standing; whoever is not known yet becomes known."""
    if isinstance(person, bytes):
        row = connection.execute("SELECT address_id, standing FROM people WHERE address_id = ?", (person,)).fetchone()
    else:
        row = _find(connection, ring, person)
    if row:
        return row[0], standing_of(row[1])
    address_id = person if isinstance(person, bytes) else new_id(person)
    text = None if isinstance(person, bytes) else person.text
    standing = json.dumps(NOTHING_KNOWN.to_json())
    connection.execute("INSERT INTO people VALUES (?, ?, ?, ?)", (address_id, text, standing, timestamp(now)))
    if isinstance(person, Address):
        _add_keys(connection, ring, person, address_id)
        return address_id, recall(connection, ring, person, address_id, now)
    return address_id, NOTHING_KNOWN


def id_of(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address) -> bytes | None:
    """Return the id of whoever has an address, or had it until they were erased; None for nobody who is known."""
    row = _find(connection, ring, address)
    return row[0] if row else None


FIRST_PERSON = bytes(7) + b"\x01" + bytes(8)
"""Ids below this one are those of entries for a whole domain; one random id in 2^64 would lie there by chance."""


def new_id(address: Address) -> bytes:
    """Return an id for somebody, or for an entry that covers a domain."""
    return bytes(8) + os.urandom(8) if address.is_whole_domain else os.urandom(16)


def recall(
    connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address, person: bytes, now: datetime
) -> Standing:
    """Give somebody the "no" that an imported list of digests holds for them; return their standing (SUP-11)."""
    for digest in address.list_digests:
        rows = connection.execute("SELECT scope, topic, import FROM digest_entries WHERE digest = ?", (digest,))
        for scope, topic, number in rows.fetchall():
            facts = {"channel": "import", "import": number}
            personal = {"address": address.text, "digest": digest.hex()}
            event = NewEvent(EventType.UNSUBSCRIBE, person, now, topic, Scope(scope), facts, personal)
            first = last_event(connection) + 1
            append_event(connection, ring, event, now)
            add_chunk(connection, number, first)
    (standing,) = connection.execute("SELECT standing FROM people WHERE address_id = ?", (person,)).fetchone()
    return standing_of(standing)


def add_chunk(connection: Connection, number: int, first: int) -> None:
    """Remember that what has been recorded from `first` on came with an import, among others, for undoing it."""
    last = last_event(connection)
    if last >= first:
        connection.execute(_ADD_CHUNK, (number, first, last))


_ADD_CHUNK = (
    "INSERT INTO import_chunks VALUES (?, ?, ?)"
    " ON CONFLICT (import, first) DO UPDATE SET last = max(last, excluded.last)"
)


def last_event(connection: Connection) -> int:
    """Return the number of the last line of the ledger, 0 for none."""
    return int(connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0])


def has_digests(connection: Connection) -> bool:
    """True while any list of digests that was imported is kept."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM digest_entries)").fetchone()[0])


def listed(connection: Connection, address: Address) -> tuple[Suppression, ...]:
    """Return the "no" that imported lists of digests hold for an address that is nobody's yet (SUP-11)."""
    digests = address.list_digests
    rows = connection.execute(_LISTED.format(", ".join("?" * len(digests))), digests).fetchall()
    return tuple(
        Suppression(
            *(0, Scope(scope), topic, Reason.UNSUBSCRIBED, datetime.fromisoformat(at)),
            entry=f"the list of import {number}",
        )
        for scope, topic, number, at in rows
    )


_LISTED = (
    "SELECT d.scope, d.topic, d.import, i.at FROM digest_entries d JOIN imports i ON i.number = d.import"
    " WHERE d.digest IN ({}) ORDER BY d.import"
)


def _add_keys(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address, address_id: bytes) -> None:
    kid, key = ring[0]
    connection.execute("INSERT INTO address_keys VALUES (?, ?, ?)", (kid, keyed_digest(key, address.key), address_id))
    if address.broad_key != address.key:
        broad = keyed_digest(key, address.broad_key)
        connection.execute("INSERT INTO broad_keys VALUES (?, ?, ?)", (kid, broad, address_id))


def _find(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address) -> Sequence[Any] | None:
    """Return the id and the standing of the person whose address this is, and the address as it was first given."""
    for kid, key in ring:
        row: Sequence[Any] | None = connection.execute(_NARROW, (kid, keyed_digest(key, address.key))).fetchone()
        if row:
            return row
    return None


@lru_cache(maxsize=1024)
def standing_of(text: str) -> Standing:
    """Read a standing; what the same text says is worked out once."""
    return Standing.from_json(orjson.loads(text))


def keyed_digest(key: bytes, address_key: str) -> bytes:
    return hmac.digest(key, address_key.encode("utf-8"), hashlib.sha256)
