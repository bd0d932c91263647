"""What the law gives a time for, as rows of `assent.db`: requests of people, breaches; and whom a breach is about.

The rule that must not be broken: an event of a request is found by its index, however long the ledger has grown, since
the alarm asks every hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from gateway.ledger import timestamp
from gateway.rights import REQUEST_EVENTS, Breach, Request, requests_of
from gateway.store.history import EVENTS, event_of
from gateway.store.writer import Connection, connect

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


def put_breach(connection: Connection, breach: Breach, by: str) -> None:
    told = timestamp(breach.reported_at) if breach.reported_at else None
    row = (breach.name, breach.what, timestamp(breach.known_at), told, by)
    connection.execute("INSERT OR REPLACE INTO breaches VALUES (?, ?, ?, ?, ?)", row)


def concerned(people: Path, decisions: Path, unsealed: Iterable[bytes], since: datetime, until: datetime) -> set[str]:
    """Return, as decision lines call them, of whom something was decided or recorded in a span of time."""
    found = {told["who"] for told in map(orjson.loads, unsealed) if _is_within(told["at"], since, until)}
    for path in sorted(decisions.glob("*.db")):
        if not f"{since - timedelta(days=1):%Y-%m}" <= path.stem <= f"{until + timedelta(days=1):%Y-%m}":
            continue
        with closing(connect(path, read_only=True)) as connection:
            for (line,) in connection.execute("SELECT line FROM decisions"):
                told = orjson.loads(line)
                if _is_within(told["at"], since, until):
                    found.add(told["who"])
    with closing(connect(people, read_only=True)) as connection:
        rows = connection.execute(
            "SELECT DISTINCT address_id FROM events WHERE recorded_at >= ? AND recorded_at < ?",
            (timestamp(since), timestamp(until)),
        )
        found.update(bytes(person).hex() for (person,) in rows)
    return found


def _is_within(at: str, since: datetime, until: datetime) -> bool:
    return since <= datetime.fromisoformat(at) < until
