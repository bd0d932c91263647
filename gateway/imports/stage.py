"""What has been read of a file, each statement once, on disk until all of it is there.

The rule that must not be broken: opt-outs come out before consents, whatever the order of the file. The stage has no
name on disk as soon as it is open, so that nothing of it outlives the import.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from pysqlite3 import dbapi2 as sqlite

from gateway.consent import EventType
from gateway.imports.rows import Row

_CONSENTS = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED)

_PARTS = 64
"""The rows of one of so many parts, by the beginning of their places, are sorted in memory at a time."""


class Stage:
    """Rows by what they say of whom; of two that say the same, the newer."""

    def __init__(self, connection: sqlite.Connection) -> None:
        self._connection = connection
        self._numbers = count()

    def add(self, rows: Iterable[tuple[bytes, Row]]) -> None:
        """Take rows, each with the place of its subject in the order in which they come out."""
        self._connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (_part(place, one), number, place, one.type, one.line, one.subject, _text(one.at), one.algorithm)
                for number, (place, one) in zip(self._numbers, rows, strict=False)
                if one.type
            ),
        )

    def __len__(self) -> int:
        """Return how many rows were taken, those counted that say the same."""
        return int(self._connection.execute("SELECT count(*) FROM rows").fetchone()[0])

    def rows(self) -> Iterator[tuple[bytes, Row]]:
        """Yield every row with its place, opt-outs first, each kind by places."""
        for part in range(2 * _PARTS):
            for place, kind, line, subject, at, algorithm, _ in self._connection.execute(
                "SELECT place, type, line, subject, at, algorithm, max(at) FROM rows WHERE part = ?"
                " GROUP BY place, type ORDER BY place, type",
                (part,),
            ):
                told_at = datetime.fromisoformat(at) if at else None
                yield place, Row(line, subject, EventType(kind), told_at, algorithm)


def _part(place: bytes, row: Row) -> int:
    return _PARTS * (row.type in _CONSENTS) + place[0] * _PARTS // 256


def _text(at: datetime | None) -> str:
    return at.isoformat() if at else ""


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Open an empty stage, which goes when it is closed or the process ends."""
    descriptor, name = tempfile.mkstemp(prefix=".import-", dir=folder)
    os.close(descriptor)
    with closing(sqlite.connect(name, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(
            "CREATE TABLE rows"
            " (part INTEGER, number INTEGER, place BLOB, type TEXT, line INTEGER, subject TEXT, at TEXT,"
            " algorithm TEXT, PRIMARY KEY (part, number)) WITHOUT ROWID"
        )
        os.unlink(name)
        connection.execute("BEGIN")
        yield Stage(connection)
