"""Imports: many events at once, in transactions so short that no click waits, and their way back.

The rule that must not be broken: what an import brought is known by its number for ever, so that undoing it leaves each
person exactly what would stand had it never been. What a row means is decided before it comes here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.address import Address
from gateway.consent import EventType, NewEvent, Standing
from gateway.ledger import timestamp
from gateway.model import KeyRing, Scope
from gateway.store import Now
from gateway.store.checkpoint import checkpoint
from gateway.store.drafts import Draft
from gateway.store.history import add_chunk, append_event, last_event, recall, stand_anew
from gateway.store.portion import Portion
from gateway.store.writer import LOG_OCTETS, Connection, Writer, connect, log_octets, reading

TRANSACTION_SECONDS = 0.02
"""How long an import works inside one transaction: with its commit less than 50 ms, so that clicks never wait."""

_AT_ONCE = 128
_PORTION = 500
APPLYING, COMPLETE, UNDOING, UNDONE = "applying", "complete", "undoing", "undone"


@dataclass(frozen=True, slots=True)
class Import:
    """An import as the store remembers it. `leans_on` are those whose entries stood already and were not repeated."""

    number: int
    file: str
    format: str
    by: str
    state: str
    counts: Mapping[str, int]
    leans_on: Sequence[int]
    at: str


class NotAtWork(Exception):
    """Somebody has undone the import that was being applied."""


class SqliteImports:
    """The verbs of imports on `assent.db`."""

    def __init__(self, path: Path, ring: KeyRing, now: Now) -> None:
        self._path = path
        self._writer = Writer(path)
        self._ring = ring.in_force_first()
        self._now = now

    async def close(self) -> None:
        await self._writer.close()

    async def begin(self, file: str, by: str) -> tuple[int, list[int]]:
        """Give an import its number; return it, and the other imports that are not complete."""

        def add(connection: Connection) -> tuple[int, list[int]]:
            others = sorted(unfinished_imports(connection))
            row = (file, "", by, APPLYING, "{}", "[]", timestamp(self._now()))
            added = connection.execute(f"INSERT INTO imports ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            return int(added.lastrowid), others

        return await self._writer.do(add)

    async def apply(self, number: int, drafts: Sequence[Draft]) -> list[Standing | None]:
        """Record the first of these events, as many as one short transaction takes, each of a known import.

        Return for each None if it was as drafted, else what stood before it for its person; the caller brings the
        others again. Raises `NotAtWork`, as `add_digests` and `finish` do.
        """

        def record(connection: Connection) -> list[Standing | None]:
            _see_at_work(connection, number)
            before, first = list[Standing | None](), last_event(connection) + 1
            portion = Portion(connection, self._ring, self._now())
            until, latest, took = monotonic() + TRANSACTION_SECONDS, monotonic(), 0.0
            while len(before) < len(drafts) and latest + took < until:
                before += portion.add(drafts[len(before) : len(before) + _AT_ONCE])
                latest, took = monotonic(), monotonic() - latest
            add_chunk(connection, number, first)
            return before

        before = await self._writer.do(record)
        if log_octets(self._path) > LOG_OCTETS:
            with reading(self._path):
                await asyncio.to_thread(checkpoint, self._path)
        return before

    async def add_digests(self, number: int, digests: Sequence[bytes], scope: Scope, topic: str) -> None:
        """Keep digests that match whoever becomes known later; some hundreds at a time."""
        if not digests:
            return
        rows = [(one, scope, topic, number) for one in digests]

        def add(connection: Connection) -> None:
            _see_at_work(connection, number)
            connection.executemany("INSERT OR IGNORE INTO digest_entries VALUES (?, ?, ?, ?)", rows)

        await self._writer.do(add)

    async def match_digests(self, after: bytes) -> bytes | None:
        """Give known people the "no" that digests hold for them, in the order of their ids; return how far it came."""

        def match(connection: Connection) -> bytes | None:
            last = None
            for person, text in connection.execute(
                "SELECT address_id, address FROM people WHERE address_id > ? ORDER BY address_id LIMIT ?",
                (after, _PORTION),
            ).fetchall():
                last = person
                if text:
                    recall(connection, self._ring, Address.parse(text), person, self._now())
            return last

        return await self._writer.do(match)

    async def finish(self, number: int, form: str, counts: Mapping[str, int], leans_on: Sequence[int]) -> None:
        """Write down that all of an import has been applied, and what came of it: from now on its consents count."""
        lists = (json.dumps(dict(counts)), json.dumps(sorted(leans_on)))
        row = (form, COMPLETE, *lists, timestamp(self._now()), number)

        def complete(connection: Connection) -> None:
            _see_at_work(connection, number)
            connection.execute(
                "UPDATE imports SET format = ?, state = ?, counts = ?, leans_on = ?, completed_at = ? WHERE number = ?",
                row,
            )

        await self._writer.do(complete)

    def all(self) -> list[Import]:
        """Return every import, the oldest first."""
        with reading(self._path):
            connection = connect(self._path, read_only=True)
            try:
                rows = connection.execute(f"SELECT number, {_COLUMNS} FROM imports ORDER BY number").fetchall()
            finally:
                connection.close()
        return [_import_of(row) for row in rows]

    async def undo(self, number: int, by: str) -> int | None:
        """Take back another portion of an import; return how many people that concerned, None once all is undone."""

        def take_back(connection: Connection) -> int | None:
            forgotten = _forget_digests(connection, number)
            people = [] if forgotten else _people_of(connection, number)
            for person in people or ():
                self._take_back(connection, number, person, by)
            state = UNDONE if people is None else UNDOING
            connection.execute("UPDATE imports SET state = ? WHERE number = ?", (state, number))
            return None if people is None else len(people)

        return await self._writer.do(take_back)

    def _take_back(self, connection: Connection, number: int, person: bytes, by: str) -> None:
        facts = {"channel": "operator", "operator": by, "import": number}
        event = NewEvent(EventType.IMPORT_UNDONE, person, self._now(), facts=facts)
        append_event(connection, self._ring, event, self._now())
        stand_anew(connection, person)
        (text,) = connection.execute("SELECT address FROM people WHERE address_id = ?", (person,)).fetchone()
        if text:  # a list of digests may say the same, which was not repeated
            recall(connection, self._ring, Address.parse(text), person, self._now())


def unfinished_imports(connection: Connection) -> frozenset[int]:
    """Return the imports that have not been applied to their end."""
    rows = connection.execute("SELECT number FROM imports WHERE completed_at IS NULL")
    return frozenset(number for (number,) in rows)


def imports_completed(connection: Connection) -> dict[int, datetime]:
    """Return when each import had been applied to its end; a time to come for one that has not been."""
    rows = connection.execute("SELECT number, ifnull(completed_at, ?) FROM imports", (_NOT_YET,))
    return {number: datetime.fromisoformat(at) for number, at in rows}


_NOT_YET = "9999-12-31T00:00:00+00:00"
_COLUMNS = "file, format, by, state, counts, leans_on, at"


def _see_at_work(connection: Connection, number: int) -> None:
    (state,) = connection.execute("SELECT state FROM imports WHERE number = ?", (number,)).fetchone()
    if state != APPLYING:
        raise NotAtWork(f"import {number} has been undone while it was at work")


def _import_of(row: Sequence[Any]) -> Import:
    number, file, form, by, state, counts, leans_on, at = row
    return Import(number, file, form, by, state, json.loads(counts), json.loads(leans_on), at)


def _people_of(connection: Connection, number: int) -> list[bytes] | None:
    """Return some hundreds of those who have something of an import that has not been taken back; None at its end."""
    row = connection.execute(
        "SELECT first, last FROM import_chunks WHERE import = ? ORDER BY first LIMIT 1", (number,)
    ).fetchone()
    if row is None:
        return None
    last = min(row[1], row[0] + _PORTION - 1)
    people = connection.execute(
        "SELECT DISTINCT address_id FROM events WHERE seq BETWEEN ? AND ? AND json_extract(facts, '$.import') = ?",
        (row[0], last, number),
    ).fetchall()
    connection.execute("DELETE FROM import_chunks WHERE import = ? AND first = ?", (number, row[0]))
    if last < row[1]:
        connection.execute("INSERT INTO import_chunks VALUES (?, ?, ?)", (number, last + 1, row[1]))
    return [one for (one,) in people]


def _forget_digests(connection: Connection, number: int) -> int:
    """Forget some of the digests of an import; return how many that were."""
    return int(
        connection.execute(
            "DELETE FROM digest_entries WHERE import = ?1 AND digest IN"
            " (SELECT digest FROM digest_entries WHERE import = ?1 LIMIT 2000)",
            (number,),
        ).rowcount
    )
