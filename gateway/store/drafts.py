"""What events will write, worked out before the transaction that writes it, and in another process if that is wished.

The rule that must not be broken: a draft builds on one standing as it was read, and names it; whoever records it
(`portion`) sees first that this still stands. Nothing is written here, and nothing read but committed rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, EventType, NewEvent, Standing
from gateway.ledger import canonical_json, commitment_to, timestamp
from gateway.model import Scope
from gateway.store.history import keyed_digest
from gateway.store.writer import Connection, connect, reading

UNNUMBERED = 2**52 + int.from_bytes(os.urandom(6))
"""Stands in a draft for the number of its event.

It is higher than any that a ledger comes to, so that it sorts as that, and drawn for each run, so that it stands in no
text of anybody's.
"""

_SALT_OCTETS = 16

_FIND = (
    "SELECT k.digest, p.address_id, p.standing, p.address FROM address_keys k JOIN people p USING (address_id)"
    " WHERE k.kid = ? AND k.digest IN ({})"
)


class Told(NamedTuple):
    """An event, the address that it is about, and the digest of that under the key in force.

    What the event is may depend on what stands for its person.
    """

    digest: bytes
    address: Address
    event: Callable[[Standing], NewEvent]


class Draft(NamedTuple):
    """What an event will write, except for its number and the time of its recording: values that any process can read.

    `person` is the id of whoever it is about, or will be, empty where it concerns more than one person. `before` is
    the standing that was read, as its row has it, empty for a stranger; `after` what will stand, with `UNNUMBERED` in
    it, empty where that was told before. `fields` are the personal ones, and `committed` stands for them in the ledger.
    """

    digest: bytes
    person: bytes
    address: str
    before: str
    after: str
    type: str
    at: str
    topic: str
    scope: str | None
    facts: str
    salt: bytes
    fields: str
    committed: bytes

    @property
    def event(self) -> NewEvent:
        """What was drafted."""
        return NewEvent(
            *(EventType(self.type), Address.parse(self.address), datetime.fromisoformat(self.at), self.topic),
            scope=Scope(self.scope) if self.scope else None,
            facts=json.loads(self.facts),
            personal=json.loads(self.fields),
        )


class Drafter:
    """Drafts many events at a time, of which none is about somebody of whom another one is."""

    def __init__(self, connection: Connection, ring: Sequence[tuple[int, bytes]]) -> None:
        self._connection = connection
        self._ring = ring
        self._series = os.urandom(8)
        self._counter = count()

    def draft(self, told: Sequence[Told]) -> list[tuple[Draft, Standing]]:
        """Return what each event will write, and what stands for its person now; some hundreds at a time."""
        known = self._known({one.digest: one.address for one in told})
        salts = os.urandom(_SALT_OCTETS * len(told))
        return [
            self._draft(one, *known.get(one.digest, _STRANGER), salts[n * _SALT_OCTETS : (n + 1) * _SALT_OCTETS])
            for n, one in enumerate(told)
        ]

    def _known(self, addresses: Mapping[bytes, Address]) -> dict[bytes, tuple[bytes, str, bool]]:
        """Return the id and the standing of those who are known, and whether they have an address, by newest digest."""
        found: dict[bytes, tuple[bytes, str, bool]] = {}
        for n, (kid, key) in enumerate(self._ring):
            missing = addresses.keys() - found.keys() if n else addresses
            digests = {keyed_digest(key, addresses[one].key) if n else one: one for one in missing}
            rows = self._connection.execute(_FIND.format(places(digests)), (kid, *digests))
            found |= {digests[digest]: (person, text, bool(address)) for digest, person, text, address in rows}
        return found

    def _draft(self, told: Told, person: bytes, before: str, has_address: bool, salt: bytes) -> tuple[Draft, Standing]:
        standing = Standing.from_json(orjson.loads(before)) if before else NOTHING_KNOWN
        new = told.event(standing)
        is_alone = has_address and not (standing.links or standing.must_be_forgotten or told.address.is_whole_domain)
        after = "" if standing.told_before(new) else _after(standing, new)
        fields = canonical_json(new.personal)
        draft = Draft(
            *(told.digest, (person or self._new_id()) if is_alone else b"", told.address.text, before, after),
            *(str(new.type), timestamp(new.at), new.topic, str(new.scope) if new.scope else None),
            *(canonical_json(new.facts).decode("utf-8"), salt, fields.decode("utf-8"), commitment_to(salt, fields)),
        )
        return draft, standing

    def _new_id(self) -> bytes:
        """Return an id for a person: those of one drafter lie beside each other, so that few pages are written."""
        return self._series + next(self._counter).to_bytes(4) + os.urandom(4)


_STRANGER = (b"", "", True)


def _after(standing: Standing, new: NewEvent) -> str:
    event = Event(UNNUMBERED, new.type, b"", new.at, new.at, new.topic, new.scope, new.facts, new.personal)
    return orjson.dumps(standing.after(event).to_json()).decode("utf-8")


@contextmanager
def drafter(path: Path, ring: Sequence[tuple[int, bytes]]) -> Iterator[Drafter]:
    """Open what drafts events for a people store. Raises `StoreUnavailable`."""
    with reading(path):
        connection = connect(path, read_only=True)
        try:
            yield Drafter(connection, ring)
        finally:
            connection.close()


def places(values: Collection[Any]) -> str:
    """Return as many placeholders as there are values."""
    return ", ".join("?" * len(values))
