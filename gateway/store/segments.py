"""Seal what has been committed; `verification` sees whether it is still as it was sealed.

One sealer at a time, elected by a lock, closes runs of ledger events and decision lines into numbered segments, signs
each head (Ed25519) and appends it to the anchor, a file outside the database. SQLite commits one writer at a
time and rows are numbered inside the transaction, so no row can appear below one that was read here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pysqlite3 import dbapi2 as sqlite

from gateway.ledger import SegmentHead, leaf, seal
from gateway.store import Now, disk
from gateway.store.anchor import ANCHOR, Anchor, SignedHead
from gateway.store.checkpoint import checkpoint
from gateway.store.migrate import migrate
from gateway.store.schema import DECISIONS
from gateway.store.writer import Connection, Writer, connect, reading, unavailable

LEDGER = "ledger"
DECISION_LOG = "decisions"
PURGES = "purges"
"""The chain that says which segments of the decision log were let go: its lines are their heads."""

CHAINS = (LEDGER, DECISION_LOG, PURGES)

EVENTS_A_SEGMENT = 20_000
OCTETS_A_SEGMENT = 2 * 1024 * 1024
"""Of decision lines, from which a segment is full: what is being sealed is in memory some four times."""

_Packed = tuple[int, bytes]
"""A row of the outbox: its number, and decision lines that were committed together."""

_HEAD_COLUMNS = "chain, number, first, last, count, root, previous, sealed_at"


class Sealer:
    """Turns committed lines into sealed segments, for as long as it holds the sealer's lock."""

    def __init__(self, people: Path, spool: Path, folder: Path, key: Ed25519PrivateKey, now: Now) -> None:
        self._files = (people, spool)
        self._people = Writer(people)
        self._spool = Writer(spool)
        self._reader = connect(people, read_only=True, patience=0)
        self._outbox = connect(spool, read_only=True, patience=0)
        self._folder = folder
        self._anchor = Anchor(folder.parent / ANCHOR)
        self._is_whole = False
        self.is_behind = False
        """True while more waits to be sealed than the last time took."""
        self._key = key
        self._now = now
        self._lock = disk.open_private(folder.parent / "sealer.lock", os.O_RDWR | os.O_CREAT)

    def elected(self) -> bool:
        """True where this process is the sealer; asks for the office if nobody holds it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def seal(self) -> int:
        """Seal what has been committed, at most a full segment of each chain; return how many lines that were.

        Raises `StoreUnavailable`; what was half done then is mended before the next segment.
        """
        try:
            if not self._is_whole:
                await asyncio.to_thread(self._mend)
            self._is_whole = False
            sealed = await self._seal_events() + await self._move_decisions()
        except (sqlite.Error, OSError) as error:
            raise unavailable("what was decided cannot be sealed", error) from error
        self._is_whole = True
        return sealed

    async def checkpoint(self) -> None:
        """Move both write-ahead logs' content into their files; only the sealer does. Raises `StoreUnavailable`."""
        for path in self._files:
            with reading(path):
                await asyncio.to_thread(checkpoint, path)

    async def close(self) -> None:
        await self._people.close()
        await self._spool.close()
        self._reader.close()
        self._outbox.close()
        os.close(self._lock)

    async def _seal_events(self) -> int:
        head = last_head(self._reader, LEDGER)
        rows = self._reader.execute(
            "SELECT seq, hash FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            (head.last if head else 0, EVENTS_A_SEGMENT),
        ).fetchall()
        if rows:
            sealed = seal(LEDGER, [row[1] for row in rows], rows[0][0], rows[-1][0], head, self._now())
            await self._close_segment(sealed, source=0)
        return len(rows)

    async def _move_decisions(self) -> int:
        """Move the outbox into the month's file and seal what was moved, then let the outbox go."""
        rows = list(_filling(OCTETS_A_SEGMENT, self._outbox.execute("SELECT id, lines FROM outbox ORDER BY id")))
        self.is_behind = sum(len(packed) for _, packed in rows) >= OCTETS_A_SEGMENT
        if not rows:
            return 0
        lines = await asyncio.to_thread(self._not_sealed_before, rows)
        if lines:
            head = last_head(self._reader, DECISION_LOG)
            first = head.last + 1 if head else 1
            await asyncio.to_thread(self._keep, lines, first)
            sealed = seal(DECISION_LOG, [leaf(one) for one in lines], first, first + len(lines) - 1, head, self._now())
            await self._close_segment(sealed, source=rows[-1][0])
        last = rows[-1][0]
        await self._spool.do(lambda connection: connection.execute("DELETE FROM outbox WHERE id <= ?", (last,)))
        return len(lines)

    def _not_sealed_before(self, rows: Sequence[_Packed]) -> list[bytes]:
        """Return the outbox's lines without those that a crash left there after they were sealed."""
        row = self._reader.execute(
            "SELECT source FROM segments WHERE chain = ? ORDER BY number DESC LIMIT 1", (DECISION_LOG,)
        ).fetchone()
        sealed = row[0] if row else 0
        return [
            line
            for source, packed in rows
            for line in bytes(packed).split(b"\n")
            if source > sealed or not find_lines(self._folder, "id", orjson.loads(line)["id"])
        ]

    def _keep(self, lines: Sequence[bytes], first: int) -> None:
        """Write lines into the month's file, numbered from `first`."""
        with closing(connect(self._month())) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO decisions (seq, id, who, message, message_id, line) VALUES (?, ?, ?, ?, ?, ?)",
                [(seq, *_index_of(line), line) for seq, line in enumerate(lines, first)],
            )
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _month(self) -> Path:
        """Return this month's file; it gets its name once it is whole, so that no crash leaves half of one."""
        path = self._folder / f"{self._now():%Y-%m}.db"
        if not path.exists():
            disk.make_folder(self._folder)
            unnamed = path.with_suffix(".new")
            migrate(unnamed, DECISIONS)
            disk.rename(unnamed, path)
        return path

    async def _close_segment(self, head: SegmentHead, source: int) -> None:
        signature = self._key.sign(head.signed_bytes())
        await self._people.do(lambda connection: close_segment(connection, head, signature, source))
        await asyncio.to_thread(self._anchor.append, [(head, signature)])

    def _mend(self) -> None:
        """Undo what a crash has half done: lines of a segment that was not closed, heads that were not anchored."""
        head = last_head(self._reader, DECISION_LOG)
        for path in sorted(self._folder.glob("*.db")):
            with closing(connect(path)) as connection:
                connection.execute("DELETE FROM decisions WHERE seq > ?", (head.last if head else 0,))
        self._anchor.cut_torn_line()
        sealed = {chain: last_head(self._reader, chain) for chain in CHAINS}
        anchored = self._anchor.newest([chain for chain, head in sealed.items() if head])
        for chain, head in sealed.items():
            if head and head.number > anchored.get(chain, 0):
                self._anchor.append(signed_heads(self._reader, chain, anchored.get(chain, 0)))


def _filling(octets: int, rows: Iterable[_Packed]) -> Iterator[_Packed]:
    """Yield rows up to the one that makes their lines so many octets."""
    taken = 0
    for row in rows:
        yield row
        taken += len(row[1])
        if taken >= octets:
            return


def find_lines(folder: Path, column: str, value: str) -> list[bytes]:
    """Return the decision lines of every month whose `id`, `who`, `message` or `message_id` is the value."""
    found: list[bytes] = []
    for path in sorted(folder.glob("*.db")):
        with closing(connect(path, read_only=True)) as connection:
            found += [
                bytes(line)
                for (line,) in connection.execute(
                    f"SELECT line FROM decisions WHERE {column} = ? ORDER BY seq", (value,)
                )
            ]
    return found


def find_shadowed(folder: Path, stream: str, since: date) -> set[tuple[str, str]]:
    """Return who, as decision lines say it, got promotion that only shadow mode let go, and on which topic.

    Read are the month of the day `since` and those after it, each to its end.
    """
    found: set[tuple[str, str]] = set()
    for path in sorted(one for one in folder.glob("*.db") if one.stem >= f"{since:%Y-%m}"):
        with closing(connect(path, read_only=True)) as connection:
            rows = connection.execute(
                "SELECT DISTINCT who, json_extract(CAST(line AS TEXT), '$.topic') FROM decisions"
                " WHERE instr(line, ?) AND instr(line, ?)",
                (b'"shadow":true', b'"stream":' + orjson.dumps(stream)),
            )
            found.update(rows)
    return found


def last_head(connection: Connection, chain: str) -> SegmentHead | None:
    row = connection.execute(
        f"SELECT {_HEAD_COLUMNS} FROM segments WHERE chain = ? ORDER BY number DESC LIMIT 1", (chain,)
    ).fetchone()
    return SegmentHead(*row) if row else None


def signed_heads(connection: Connection, chain: str, after: int = 0) -> Iterator[SignedHead]:
    """Yield the heads of a chain whose number is above `after`, one at a time: there may be millions."""
    rows = connection.execute(
        f"SELECT {_HEAD_COLUMNS}, signature FROM segments WHERE chain = ? AND number > ? ORDER BY number",
        (chain, after),
    )
    return ((SegmentHead(*row[:-1]), bytes(row[-1])) for row in rows)


def heads_until(connection: Connection, chain: str, after: int, before: str) -> Iterator[SegmentHead]:
    """Yield the unbroken run of heads of a chain, those of lines above `after`, that were sealed before a time."""
    rows = connection.execute(
        f"SELECT {_HEAD_COLUMNS} FROM segments WHERE chain = ? AND first > ? ORDER BY number", (chain, after)
    )
    return takewhile(lambda head: head.sealed_at < before, (SegmentHead(*row) for row in rows))


def close_segment(connection: Connection, head: SegmentHead, signature: bytes, source: int) -> None:
    """Write a signed head down; `source` is the outbox row up to which the decision log has been moved."""
    values = (*asdict(head).values(), signature, source)
    connection.execute(f"INSERT INTO segments VALUES ({', '.join('?' * 10)})", values)


def _index_of(line: bytes) -> tuple[str, str, str, str]:
    told: dict[str, Any] = orjson.loads(line)
    return told["id"], told["who"], told["message"], told.get("message_id", "")
