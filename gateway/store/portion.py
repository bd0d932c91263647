"""Many events in one transaction: looked up, worked out and written together instead of one by one.

The rule that must not be broken: what stands in the store afterwards is, row for row, what `history.append_event` makes
of the same events. Whatever concerns more than its own person (linked addresses, somebody who was forgotten, a list of
digests that names them) is handed to it. Transactions, and how much goes into one, are for whoever calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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

    def add(self, events: Sequence[tuple[Address, NewEvent]]) -> list[Standing]:
        """Record events of these people; return what stood for each one's person before it."""
        people = self._meet({address.key: address for address, _ in events})
        handed = {n: self._hand_over(one) for n, (address, one) in enumerate(events) if address.key not in people}
        self._last = last_event(self._connection) if handed else self._last
        before = [
            handed[n] if n in handed else self._tell(people[address.key], one)
            for n, (address, one) in enumerate(events)
        ]
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

    def _meet(self, addresses: Mapping[str, Address]) -> dict[str, _Person]:
        """Return by key those whom only their own events concern; who is not known yet is among them."""
        found: dict[str, _Person] = {}
        missing = dict(addresses)
        newest: dict[bytes, str] = {}
        for kid, key in self._ring:
            digests = {keyed_digest(key, one): one for one in missing}
            newest = newest or digests
            rows = self._connection.execute(_FIND.format(_places(digests)), (kid, *digests)).fetchall()
            for digest, person, text, address in rows:
                known = digests[digest]
                standing = standing_of(text)
                if address and not standing.links and not standing.must_be_forgotten:
                    found[known] = _Person(person, standing, missing[known])
                del missing[known]
        others = missing.keys() - self._listed(missing.values())
        return found | {
            one: _Person(self._new_id(), NOTHING_KNOWN, missing[one], digest)
            for digest, one in newest.items()
            if one in others
        }

    def _listed(self, addresses: Collection[Address]) -> set[str]:
        """Return the keys of those whom an imported list of digests may name."""
        if not self._has_lists:
            return set()
        by_digest = {digest: one.key for one in addresses for digest in one.list_digests}
        listed = f"SELECT digest FROM digest_entries WHERE digest IN ({_places(by_digest)})"
        return {by_digest[digest] for (digest,) in self._connection.execute(listed, tuple(by_digest))}

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
