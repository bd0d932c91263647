"""Many events in one transaction: looked up, worked out and written together instead of one by one.

The rule that must not be broken: what stands in the store afterwards is, row for row, what `history.append_event` makes
of the same events. Whatever concerns more than its own person (linked addresses, a whole domain, somebody who was
forgotten, a list of digests that names them) is handed to it. Transactions, and how much goes into one, are for
whoever calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, NewEvent, Standing
from gateway.ledger import canonical_json, commitment_to, timestamp
from gateway.store.history import append_event, keyed_digest, person_of, row_of, standing_of
from gateway.store.writer import Connection

_FIND = (
    "SELECT k.digest, p.address_id, p.standing, p.address FROM address_keys k JOIN people p USING (address_id)"
    " WHERE k.kid = ? AND k.digest IN ({})"
)


class Told(NamedTuple):
    """An event, the address that it is about, and the digest of that under the newest key."""

    digest: bytes
    address: Address
    event: NewEvent


@dataclass(slots=True)
class _Person:
    """Somebody whom only their own events concern, as they stand after those that were added.

    `digest` is that of the address under the newest key, for somebody who was not known before, else empty.
    """

    id: bytes
    standing: Standing
    address: Address
    digest: bytes = b""
    has_changed: bool = False


class Portion:
    """The events of one transaction, added some hundreds at a time; `new_id` makes the id of a new person."""

    def __init__(
        self,
        connection: Connection,
        ring: Sequence[tuple[int, bytes]],
        new_id: Callable[[], bytes],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._ring = ring
        self._new_id = new_id
        self._now = now
        self._known_at = timestamp(now)
        self._last = last_event(connection)
        self._has_lists = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM digest_entries)").fetchone()[0])
        self._events: list[tuple[Any, ...]] = []
        self._personal: list[tuple[Any, ...]] = []

    def add(self, told: Sequence[Told]) -> list[Standing]:
        """Record these events; return what stood for each one's person before it."""
        people = self._meet({one.digest: one.address for one in told})
        handed = {n: self._hand_over(one.event) for n, one in enumerate(told) if one.digest not in people}
        self._last = last_event(self._connection) if handed else self._last
        before = [handed[n] if n in handed else self._tell(people[one.digest], one.event) for n, one in enumerate(told)]
        self._write(people.values())
        return before

    def _hand_over(self, new: NewEvent) -> Standing:
        _, before = person_of(self._connection, self._ring, new.person, self._now)
        append_event(self._connection, self._ring, new, self._now)
        return before

    def _tell(self, person: _Person, new: NewEvent) -> Standing:
        before = person.standing
        if before.told_before(new):
            return before
        self._last += 1
        event = Event(
            *(self._last, new.type, person.id, new.at, self._now, new.topic, new.scope, new.facts, new.personal)
        )
        salt = os.urandom(16)
        personal = canonical_json(new.personal)
        self._events.append(row_of(event, commitment_to(salt, personal)))
        self._personal.append((event.seq, salt, personal.decode("utf-8")))
        person.standing, person.has_changed = before.after(event), True
        return before

    # who they are

    def _meet(self, addresses: Mapping[bytes, Address]) -> dict[bytes, _Person]:
        """Return by newest digest those whom only their own events concern; who is not known yet is among them."""
        found: dict[bytes, _Person] = {}
        missing = dict(addresses)
        for n, (kid, key) in enumerate(self._ring):
            digests = {keyed_digest(key, one.key) if n else newest: newest for newest, one in missing.items()}
            rows = self._connection.execute(_FIND.format(_places(digests)), (kid, *digests)).fetchall()
            for digest, person, text, address in rows:
                known = missing.pop(digests[digest])
                standing = standing_of(text)
                if address and not standing.links and not standing.must_be_forgotten:
                    found[digests[digest]] = _Person(person, standing, known)
        listed = self._listed(missing)
        for digest, one in missing.items():
            if digest not in listed and not one.is_whole_domain:
                found[digest] = _Person(self._new_id(), NOTHING_KNOWN, one, digest)
        return found

    def _listed(self, addresses: Mapping[bytes, Address]) -> set[bytes]:
        """Return which of these an imported list of digests names."""
        if not self._has_lists:
            return set()
        named = {digest: newest for newest, one in addresses.items() for digest in one.list_digests}
        listed = f"SELECT digest FROM digest_entries WHERE digest IN ({_places(named)})"
        return {named[digest] for (digest,) in self._connection.execute(listed, tuple(named))}

    # writing it down

    def _write(self, people: Iterable[_Person]) -> None:
        new = [one for one in people if one.digest]
        told = [(_text_of(one.standing), one.id) for one in people if one.has_changed and not one.digest]
        self._insert("people", [(one.id, one.address.text, _text_of(one.standing), self._known_at) for one in new])
        self._connection.executemany("UPDATE people SET standing = ? WHERE address_id = ?", told)
        kid, key = self._ring[0]
        self._insert("address_keys", [(kid, one.digest, one.id) for one in new])
        broad = [one for one in new if one.address.broad_key != one.address.key]
        self._insert("broad_keys", [(kid, keyed_digest(key, one.address.broad_key), one.id) for one in broad])
        self._insert("events", self._events)
        self._insert("event_personal", self._personal)
        self._events, self._personal = [], []

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._connection.executemany(f"INSERT INTO {table} VALUES ({_places(rows[0])})", rows)


def last_event(connection: Connection) -> int:
    """Return the number of the last line of the ledger, 0 for none."""
    return int(connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0])


def _text_of(standing: Standing) -> str:
    return orjson.dumps(standing.to_json()).decode("utf-8")


def _places(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))
