"""The ledger as it is read for whoever must be shown: a page at a time, by number or by person.

The rule that must not be broken: no page holds a read open, so that an export of everything keeps neither the
write-ahead log from being emptied nor more than a page in memory. What a record looks like is for others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from gateway.address import Address
from gateway.store import LedgerLine, PersonHistory
from gateway.store.history import EVENTS, event_of
from gateway.store.writer import Connection

_LINES = (
    "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields,"
    " e.commitment, e.hash, p.salt, r.signature FROM events e LEFT JOIN event_personal p USING (seq)"
    " LEFT JOIN redactions r USING (seq) WHERE e.seq > ? ORDER BY e.seq LIMIT ?"
)
_NEXT_PEOPLE = "SELECT address_id, address FROM people WHERE address_id > ? ORDER BY address_id LIMIT ?"
_OF_PEOPLE = f"{EVENTS} WHERE e.address_id BETWEEN ? AND ? ORDER BY e.address_id, e.seq"


def read_lines(connection: Connection, seq: int, limit: int) -> list[LedgerLine]:
    """Return the events after one, each with what its hash is made of."""
    return [LedgerLine(event_of(row[:9]), *row[9:]) for row in connection.execute(_LINES, (seq, limit)).fetchall()]


def read_histories(
    connection: Connection, after: bytes, limit: int, called: Callable[[Address], str]
) -> list[PersonHistory]:
    """Return the next people with all their events; `called` says how the key of an address is told."""
    people = connection.execute(_NEXT_PEOPLE, (after, limit)).fetchall()
    if not people:
        return []
    rows = connection.execute(_OF_PEOPLE, (people[0][0], people[-1][0])).fetchall()
    told = {person: list(group) for person, group in groupby(map(event_of, rows), attrgetter("address_id"))}
    return [
        PersonHistory(person, called(Address.parse(text)) if text else "", told.get(person, []))
        for person, text in people
    ]
