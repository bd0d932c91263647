"""What operators see of the messages that we answer for, and do to them: list, try now, hold, release.

The one rule: an operator changes only when something is due; what is claimed stays its worker's, which lets go of what
is held before it begins with it. However much is meant, no transaction changes more than a portion, so that mail goes
on meanwhile. Settling, which alone takes anything out of the spool, is left to `spool`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from gateway.address import Address
from gateway.model import Outcome, SpooledMessage, SpooledRecipient
from gateway.store import Now, Progress, QueuedRecipient, Selection, untold
from gateway.store.rows import HELD, addressee_of, epoch, message_of
from gateway.store.writer import Connection, Writer, reading

BATCH = 4000
"""Recipients of a portion, which is changed within some 20 ms; the last message of one may bring all of its own."""

HELD_AT_ONCE = 500
"""Copies that are read, and settled by whoever asked for them, at a time."""

_WAITS = "outcome IN ('queued', 'deferred')"
_COLUMNS = "r.message_id, r.n, r.address, m.size, r.outcome, r.attempts, r.due, r.owner, r.reply"


class SqliteQueue:
    """The operators' verbs of `spool.db`, through the reader and the writer of its spool."""

    def __init__(self, path: Path, reader: Connection, writer: Writer, now: Now) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self._now = now

    async def waiting(self, which: Selection, limit: int = 1000) -> list[QueuedRecipient]:
        found: list[QueuedRecipient] = []
        for scope, what in _scopes(which):
            rows = self._read(
                f"SELECT {_COLUMNS} FROM recipients r JOIN messages m ON m.id = r.message_id"
                f" WHERE {scope} AND (NOT ? OR due = 0) AND {_WAITS} ORDER BY r.message_id, r.n LIMIT ?",
                (what, which.only_held, limit - len(found)),
            )
            messages = self._messages({row[0] for row in rows})
            found += [_queued_of(messages[row[0]], row[1:]) for row in rows if row[0] in messages]
        return found

    async def copies_to(self, address: Address) -> tuple[tuple[int, int], ...]:
        rows = self._read(f"SELECT message_id, n, address FROM recipients WHERE {_WAITS}", ())
        return tuple((message_id, n) for message_id, n, text in rows if Address.parse(text).key == address.key)

    async def depth(self) -> tuple[int, datetime | None]:
        ((count,),) = self._read("SELECT recipients FROM depth", ())
        oldest = self._read("SELECT envelope FROM messages ORDER BY id LIMIT 1", ())
        return count, datetime.fromisoformat(orjson.loads(oldest[0][0])["received_at"]) if oldest else None

    async def retry(self, which: Selection, progress: Progress = untold) -> int:
        return await self._make_due(which, "outcome = 'deferred' AND owner IS NULL", epoch(self._now()), progress)

    async def hold(self, which: Selection, progress: Progress = untold) -> int:
        return await self._make_due(which, "due > 0", HELD, progress)

    async def release(self, which: Selection, progress: Progress = untold) -> int:
        return await self._make_due(which, "due = 0", epoch(self._now()), progress)

    async def held(
        self, which: Selection, progress: Progress = untold
    ) -> AsyncIterator[list[tuple[SpooledMessage, SpooledRecipient]]]:
        condition = "due = 0 AND owner IS NULL"
        meant, seen = self._count(which, condition), 0
        for scope, what in _scopes(which):
            last = (0, -1)
            while rows := self._read(
                "SELECT message_id, n, address, options, who, decision, attempts FROM recipients"
                f" WHERE {scope} AND {condition} AND {_WAITS} AND (message_id, n) > (?, ?)"
                " ORDER BY message_id, n LIMIT ?",
                (what, *last, HELD_AT_ONCE),
            ):
                messages = self._messages({row[0] for row in rows})
                yield [(messages[row[0]], addressee_of(row[1:])) for row in rows if row[0] in messages]
                last, seen = rows[-1][:2], seen + len(rows)
                progress(seen / max(seen, meant))

    async def under_way(self, which: Selection) -> int:
        return self._count(which, "owner IS NOT NULL")

    async def _make_due(self, which: Selection, condition: str, due: int, progress: Progress) -> int:
        meant, changed = self._count(which, condition), 0
        for scope, what in _scopes(which):
            where, before = f"{scope} AND {condition} AND {_WAITS}", 0
            while portion := await self._writer.do(partial(_change_portion, where, what, before, due)):
                before, count = portion
                changed += count
                progress(changed / max(changed, meant))
        return changed

    def _count(self, which: Selection, condition: str) -> int:
        """Return how many recipients that wait are meant, at this moment."""
        counted = (
            self._read(f"SELECT count(*) FROM recipients WHERE {scope} AND {condition} AND {_WAITS}", (what,))
            for scope, what in _scopes(which)
        )
        return sum(count for ((count,),) in counted)

    def _messages(self, ids: Collection[int]) -> dict[int, SpooledMessage]:
        """Return the messages of these ids that are still there, without their octets; each is read once."""
        rows = self._read(
            "SELECT id, envelope FROM messages WHERE id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(list(ids)).decode("ascii"),),
        )
        return {message_id: message_of(message_id, envelope, b"") for message_id, envelope in rows}

    def _read(self, query: str, parameters: tuple[Any, ...]) -> list[Any]:
        with reading(self._path):
            return list(self._reader.execute(query, parameters).fetchall())


def _change_portion(where: str, what: Any, before: int, due: int, connection: Connection) -> tuple[int, int] | None:
    """Change what is meant of the next messages; return the last of them, and how many recipients; None for none."""
    (last,) = connection.execute(
        "SELECT max(message_id) FROM (SELECT message_id FROM recipients"
        f" WHERE {where} AND message_id > ? ORDER BY message_id LIMIT {BATCH})",
        (what, before),
    ).fetchone()
    if last is None:
        return None
    statement = f"UPDATE recipients SET due = ? WHERE {where} AND message_id > ? AND message_id <= ?"
    return last, int(connection.execute(statement, (due, what, before, last)).rowcount)


def _scopes(which: Selection) -> list[tuple[str, Any]]:
    """Return what is meant as conditions with one parameter each."""
    if which.copies:
        return [(f"n = {n:d} AND message_id = ?", message_id) for message_id, n in which.copies]
    if which.messages:
        return [("message_id = ?", one) for one in which.messages]
    return [("stream = ?", which.stream) if which.stream else ("n >= ?", 0)]


def _queued_of(about: SpooledMessage, row: tuple[Any, ...]) -> QueuedRecipient:
    n, address, size, outcome, attempts, due, owner, reply = row
    when = None if due == HELD else datetime.fromtimestamp(due / 1000, UTC)
    return QueuedRecipient(about, size, n, address, Outcome(outcome), attempts, when, owner is not None, reply)
