"""What the law gives a time for, as rows of `assent.db`: requests of people, and breaches.

The rule that must not be broken: an event of a request is found by its index, however long the ledger has grown, since
the alarm asks every hour.
"""

from __future__ import annotations

from datetime import datetime

from gateway.ledger import timestamp
from gateway.rights import REQUEST_EVENTS, Breach, Request, requests_of
from gateway.store.history import EVENTS, event_of
from gateway.store.writer import Connection

_KINDS = ", ".join(f"'{one}'" for one in REQUEST_EVENTS)


def read_requests(connection: Connection) -> list[Request]:
    rows = connection.execute(f"{EVENTS} WHERE e.type IN ({_KINDS}) ORDER BY e.seq")
    return requests_of(event_of(row) for row in rows)


def read_breaches(connection: Connection) -> list[Breach]:
    rows = connection.execute("SELECT name, what, known_at, reported_at FROM breaches ORDER BY known_at")
    return [
        Breach(name, what, datetime.fromisoformat(known), datetime.fromisoformat(told) if told else None)
        for name, what, known, told in rows
    ]


def open_breach(connection: Connection, breach: Breach, by: str) -> bool:
    """Record a breach; False where there is one of that name, whoever was sooner."""
    row = (breach.name, breach.what, timestamp(breach.known_at), by)
    return bool(connection.execute("INSERT OR IGNORE INTO breaches VALUES (?, ?, ?, NULL, ?)", row).rowcount)


def close_breach(connection: Connection, name: str, reported_at: datetime, by: str) -> None:
    """Record when the authority was told."""
    row = (timestamp(reported_at), by, name)
    connection.execute("UPDATE breaches SET reported_at = ?, by = ? WHERE name = ?", row)
