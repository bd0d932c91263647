"""Seal what has been committed, and verify what was sealed.

One sealer at a time, elected by a lock, closes runs of ledger events and decision lines into numbered segments, signs
each head (Ed25519) and appends it to the anchor, a file outside the database. SQLite commits one writer at a
time and rows are numbered inside the transaction, so no row can appear below one that was read here.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pysqlite3 import dbapi2 as sqlite

from gateway.consent import Standing, fold
from gateway.ledger import (
    SegmentHead,
    break_in_chain,
    columns_of,
    commitment,
    leaf,
    leaf_of,
    merkle_root,
    redacted_bytes,
    seal,
)
from gateway.store import Now, disk
from gateway.store.checkpoint import checkpoint
from gateway.store.history import event_of
from gateway.store.migrate import migrate
from gateway.store.schema import DECISIONS
from gateway.store.writer import Connection, Writer, connect, reading, unavailable

LEDGER = "ledger"
DECISION_LOG = "decisions"
PURGES = "purges"
"""The chain that says which segments of the decision log were let go: its lines are their heads."""

ANCHOR = "anchor.jsonl"

LINES_A_SEGMENT = 20_000
_HEAD_COLUMNS = "chain, number, first, last, count, root, previous, sealed_at"
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)

_Line = tuple[int, bytes, str]
"""A line's number, its leaf hash made anew, and what is wrong with the line itself ("" if nothing)."""


class Sealer:
    """Turns committed lines into sealed segments, for as long as it holds the sealer's lock."""

    def __init__(self, people: Path, spool: Path, folder: Path, key: Ed25519PrivateKey, now: Now) -> None:
        self._files = (people, spool)
        self._people = Writer(people)
        self._spool = Writer(spool)
        self._reader = connect(people, read_only=True, patience=0)
        self._outbox = connect(spool, read_only=True, patience=0)
        self._folder = folder
        self._anchor = folder.parent / ANCHOR
        self._is_whole = False
        self._key = key
        self._now = now
        self._lock = os.open(folder.parent / "sealer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def elected(self) -> bool:
        """True where this process is the sealer; asks for the office if nobody holds it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def seal(self) -> int:
        """Seal what has been committed, up to `LINES_A_SEGMENT` of each chain; return how many lines that were.

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
            (head.last if head else 0, LINES_A_SEGMENT),
        ).fetchall()
        if rows:
            sealed = seal(LEDGER, [row[1] for row in rows], rows[0][0], rows[-1][0], head, self._now())
            await self._close_segment(sealed, source=0)
        return len(rows)

    async def _move_decisions(self) -> int:
        """Move the outbox into the month's file and seal what was moved, then let the outbox go."""
        rows = self._outbox.execute("SELECT id, lines FROM outbox ORDER BY id LIMIT 5000").fetchall()
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

    def _not_sealed_before(self, rows: Sequence[tuple[int, bytes]]) -> list[bytes]:
        """Return the outbox's lines without those that a crash left there after they were sealed."""
        sealed = self._reader.execute("SELECT max(source) FROM segments WHERE chain = ?", (DECISION_LOG,)).fetchone()
        return [
            line
            for source, packed in rows
            for line in bytes(packed).split(b"\n")
            if source > (sealed[0] or 0) or not find_lines(self._folder, "id", orjson.loads(line)["id"])
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
        await asyncio.to_thread(append_to_anchor, self._anchor, [(head, signature)])

    def _mend(self) -> None:
        """Undo what a crash has half done: lines of a segment that was not closed, heads that were not anchored."""
        head = last_head(self._reader, DECISION_LOG)
        for path in sorted(self._folder.glob("*.db")):
            with closing(connect(path)) as connection:
                connection.execute("DELETE FROM decisions WHERE seq > ?", (head.last if head else 0,))
        _cut_torn_line(self._anchor)
        known = {(head.chain, head.number) for head, _ in read_anchor(self._anchor)}
        signed = [one for chain in (LEDGER, DECISION_LOG, PURGES) for one in signed_heads(self._reader, chain)]
        append_to_anchor(self._anchor, [one for one in signed if (one[0].chain, one[0].number) not in known])


def verify(people: Path, folder: Path, key: Ed25519PublicKey, anchor: Path | None) -> Iterator[str]:
    """Check ledger and decision log line by line; yield each place where they are not what was sealed.

    With `anchor`, a file kept outside the database, a cut-off tail and a history written anew with the database's own
    keys are found too.
    """
    with closing(connect(people, read_only=True)) as connection:
        connection.text_factory = _lenient_text
        yield from _verify_chain(signed_heads(connection, LEDGER), _event_leaves(connection, key), key)
        purged = last_head(connection, PURGES)
        gone = purged.last if purged else 0
        yield from _verify_chain(signed_heads(connection, DECISION_LOG), _line_leaves(folder, gone), key, gone)
        yield from _verify_purges(connection, key)
        yield from _verify_standing(connection)
        yield from _verify_people(connection)
        yield from _verify_notices(connection)
        if anchor:
            yield from _verify_anchor(connection, anchor, key)


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


def find_shadowed(folder: Path, stream: str) -> set[str]:
    """Return who got promotion of a stream that only shadow mode let go, as decision lines call them."""
    found: set[str] = set()
    for path in sorted(folder.glob("*.db")):
        with closing(connect(path, read_only=True)) as connection:
            rows = connection.execute(
                "SELECT DISTINCT who FROM decisions WHERE instr(line, ?) AND instr(line, ?)",
                (b'"shadow":true', b'"stream":' + orjson.dumps(stream)),
            )
            found.update(who for (who,) in rows)
    return found


def last_head(connection: Connection, chain: str) -> SegmentHead | None:
    row = connection.execute(
        f"SELECT {_HEAD_COLUMNS} FROM segments WHERE chain = ? ORDER BY number DESC LIMIT 1", (chain,)
    ).fetchone()
    return SegmentHead(*row) if row else None


def signed_heads(connection: Connection, chain: str) -> list[tuple[SegmentHead, bytes]]:
    rows = connection.execute(
        f"SELECT {_HEAD_COLUMNS}, signature FROM segments WHERE chain = ? ORDER BY number", (chain,)
    )
    return [(SegmentHead(*row[:-1]), bytes(row[-1])) for row in rows]


def heads_until(connection: Connection, chain: str, after: int, before: str) -> list[SegmentHead]:
    """Return the unbroken run of heads of a chain, those of lines above `after`, that were sealed before a time."""
    rows = connection.execute(
        f"SELECT {_HEAD_COLUMNS} FROM segments WHERE chain = ? AND first > ? ORDER BY number", (chain, after)
    )
    return list(takewhile(lambda head: head.sealed_at < before, (SegmentHead(*row) for row in rows)))


def close_segment(connection: Connection, head: SegmentHead, signature: bytes, source: int) -> None:
    """Write a signed head down; `source` is the outbox row up to which the decision log has been moved."""
    values = (*asdict(head).values(), signature, source)
    connection.execute(f"INSERT INTO segments VALUES ({', '.join('?' * 10)})", values)


def append_to_anchor(anchor: Path, heads: Sequence[tuple[SegmentHead, bytes]]) -> None:
    """Append signed heads to the anchor file, one JSON object a line, and see them on disk."""
    if not heads:
        return
    with open(
        anchor, "a", encoding="ascii", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)
    ) as file:
        for head, signature in heads:
            file.write(json.dumps({**asdict(head), "signature": signature.hex()}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_anchor(anchor: Path) -> list[tuple[SegmentHead, bytes]]:
    """Return the heads in an anchor file; a last line that a crash left unfinished is passed over.

    Raises `ValueError` where another line is not one of ours.
    """
    if not anchor.exists():
        return []
    heads = []
    for line in anchor.read_text("ascii").splitlines(keepends=True):
        if line.endswith("\n"):
            heads.append(_anchored_head(line))
    return heads


def _anchored_head(line: str) -> tuple[SegmentHead, bytes]:
    try:
        told = json.loads(line)
        return SegmentHead(**{name: told[name] for name in _HEAD_COLUMNS.split(", ")}), bytes.fromhex(told["signature"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a segment head: {line[:80]!r}") from error


def _cut_torn_line(anchor: Path) -> None:
    """Remove a last line that a crash left unfinished, so that the next one does not continue it."""
    if anchor.exists():
        content = anchor.read_bytes()
        os.truncate(anchor, content.rfind(b"\n") + 1)


def _verify_chain(
    signed: Sequence[tuple[SegmentHead, bytes]], lines: Iterable[_Line], key: Ed25519PublicKey, gone: int = 0
) -> Iterator[str]:
    """Compare a chain's lines with its heads; the lines up to `gone` were let go, and are not asked for."""
    broken = break_in_chain([head for head, _ in signed])
    if broken:
        yield broken
    runs = _runs(iter(lines), [head.last for head, _ in signed])
    for head, signature in signed:
        if not _is_signed(head, signature, key):
            yield f"{head.chain} segment {head.number}: the signature is not ours"
        taken = next(runs)
        if head.last <= gone:
            continue
        yield from (f"{head.chain} line {number}: {wrong}" for number, _, wrong in taken if wrong)
        if [number for number, _, _ in taken] != list(range(head.first, head.last + 1)):
            yield f"{head.chain} segment {head.number}: a line of {head.first} to {head.last} is missing"
        elif merkle_root([one for _, one, _ in taken]).hex() != head.root:
            yield f"{head.chain} segment {head.number}: a line of {head.first} to {head.last} has been changed or moved"
    yield from (f"line {number} (not sealed yet): {wrong}" for run in runs for number, _, wrong in run if wrong)


def _verify_purges(connection: Connection, key: Ed25519PublicKey) -> Iterator[str]:
    """See that what was let go is what was announced: the heads that are left are those of then."""
    signed = signed_heads(connection, PURGES)
    broken = break_in_chain([head for head, _ in signed])
    if broken:
        yield broken
    kept = [head for head, _ in signed_heads(connection, DECISION_LOG)]
    for head, signature in signed:
        if not _is_signed(head, signature, key):
            yield f"{head.chain} segment {head.number}: the signature is not ours"
        leaves = [leaf(one.signed_bytes()) for one in kept if head.first <= one.first and one.last <= head.last]
        if not leaves or merkle_root(leaves).hex() != head.root:
            yield f"{head.chain} segment {head.number}: a head of what was let go has been changed or is missing"


def _runs(lines: Iterator[_Line], lasts: Sequence[int]) -> Iterator[list[_Line]]:
    """Yield the lines up to each of the numbers `lasts`, then the rest: a line that is missing moves no other."""
    ahead = next(lines, None)
    for last in lasts:
        run: list[_Line] = []
        while ahead and ahead[0] <= last:
            run.append(ahead)
            ahead = next(lines, None)
        yield run
    if ahead:
        yield [ahead, *lines]


def _event_leaves(connection: Connection, key: Ed25519PublicKey) -> Iterator[_Line]:
    rows = connection.execute(
        "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields,"
        " e.commitment, e.hash, p.salt, r.signature FROM events e LEFT JOIN event_personal p USING (seq)"
        " LEFT JOIN redactions r USING (seq) ORDER BY e.seq"
    )
    for row in rows:
        try:
            yield _event_leaf(key, *row)
        except _UNREADABLE:
            yield row[0], b"", "it cannot be read"


def _event_leaf(key: Ed25519PublicKey, *row: Any) -> _Line:
    *columns, committed, stored, salt, redaction = row
    event = event_of(columns)
    spelled = columns_of(event)
    recomputed = leaf_of(spelled, committed)
    if recomputed != stored or spelled != tuple(columns[:-1]):
        return event.seq, recomputed, "it is not what was recorded"
    if event.personal is None or commitment(salt, event.personal) == committed:
        return event.seq, recomputed, ""
    if redaction is None or not _is_signature(redaction, redacted_bytes(event.seq, event.personal), key):
        return event.seq, recomputed, "its personal fields are not what was recorded"
    return event.seq, recomputed, ""


def _line_leaves(folder: Path, after: int) -> Iterator[_Line]:
    for path in sorted(folder.glob("*.db")):
        with closing(connect(path, read_only=True)) as connection:
            for seq, line in connection.execute("SELECT seq, line FROM decisions WHERE seq > ? ORDER BY seq", (after,)):
                yield seq, leaf(bytes(line)), ""


def _verify_standing(connection: Connection) -> Iterator[str]:
    for address_id, standing in connection.execute("SELECT address_id, standing FROM people"):
        rows = connection.execute(
            "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, NULL"
            " FROM events e WHERE e.address_id = ? ORDER BY e.seq",
            (address_id,),
        )
        if not _amounts_to(rows, standing):
            yield f"person {address_id.hex()}: the standing is not what the ledger amounts to"


def _amounts_to(rows: Iterable[Sequence[Any]], standing: str) -> bool:
    try:
        return fold(map(event_of, rows)) == Standing.from_json(json.loads(standing))
    except _UNREADABLE:
        return False


def _verify_people(connection: Connection) -> Iterator[str]:
    """A person who is gone, or whom no key leads to, would be asked and sent to as if they had never said anything."""
    rows = connection.execute(
        "SELECT DISTINCT e.address_id FROM events e LEFT JOIN people p USING (address_id) WHERE p.address_id IS NULL"
    )
    yield from (f"person {address_id.hex()} is in the ledger and nowhere else" for (address_id,) in rows)
    rows = connection.execute(
        "SELECT address_id FROM people WHERE address IS NOT NULL"
        " AND address_id NOT IN (SELECT address_id FROM address_keys)"
    )
    yield from (f"person {address_id.hex()} cannot be found by their address" for (address_id,) in rows)


_NOTICES_SHOWN = """
    SELECT DISTINCT facts ->> '$.notice', facts ->> '$.notice_sha256'
    FROM (SELECT CASE WHEN json_valid(facts) THEN facts ELSE '{}' END AS facts FROM events)
    WHERE facts ->> '$.notice_sha256' IS NOT NULL
"""


def _verify_notices(connection: Connection) -> Iterator[str]:
    """What people said yes to is only proved by the words that they met: those of the digest in the ledger."""
    texts = dict(connection.execute("SELECT name, text FROM notices"))
    for name, digest in connection.execute(_NOTICES_SHOWN):
        text = texts.get(name)
        if text is None:
            yield f"notice {name}: its text is missing"
        elif hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() != digest:
            yield f"notice {name}: the text is not the one that people met"


def _verify_anchor(connection: Connection, anchor: Path, key: Ed25519PublicKey) -> Iterator[str]:
    try:
        anchored = read_anchor(anchor)
    except ValueError as error:
        yield f"{anchor.name}: {error}"
        return
    if not anchored and signed_heads(connection, LEDGER):
        yield f"{anchor.name}: no segment head stands there"
    for chain in (LEDGER, DECISION_LOG, PURGES):
        stored = {head.number: head for head, _ in signed_heads(connection, chain)}
        for head, signature in (one for one in anchored if one[0].chain == chain):
            if not _is_signed(head, signature, key):
                yield f"anchor, {chain} segment {head.number}: the signature is not ours"
            elif head.number not in stored:
                yield f"{chain} segment {head.number} was anchored and is gone"
            elif stored[head.number] != head:
                yield f"{chain} segment {head.number} is not the one that was anchored"


def _is_signed(head: SegmentHead, signature: bytes, key: Ed25519PublicKey) -> bool:
    return _is_signature(signature, head.signed_bytes(), key)


def _is_signature(signature: bytes, signed: bytes, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _lenient_text(octets: bytes) -> str:
    """Read text that may have been tampered with: what is no UTF-8 is found wrong by its hash, not by an exception."""
    return octets.decode("utf-8", "surrogateescape")


def _index_of(line: bytes) -> tuple[str, str, str, str]:
    told: dict[str, Any] = orjson.loads(line)
    return told["id"], told["who"], told["message"], told.get("message_id", "")
