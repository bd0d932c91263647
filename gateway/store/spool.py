"""The messages that we answer for: `spool.db`, and a file beside it for each large body.

The rule that must not be broken: a message and its recipients are on disk together before `keep` returns, and
leave only through `settle`. A large body is a file before its row is, and after: what a crash leaves is a file too
many, never one too few. A recipient belongs to nobody, or to the worker whose lease it names; only that
worker relays it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from itertools import chain, groupby, repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.ids import SPOOL_TEXT_LENGTH, spool_number, spool_text
from gateway.model import Outcome, Priority, SpooledMessage, SpooledRecipient, priority_of
from gateway.store import Claimed, Now, Refusals, ReportMaker, Settlement, Unidentified, Waiting, disk
from gateway.store.calls import SqliteCalls
from gateway.store.leases import Leases
from gateway.store.queue import SqliteQueue
from gateway.store.refusals import SqliteRefusals
from gateway.store.rows import HELD, addressee_of, envelope_json, epoch, fate_of, message_of
from gateway.store.writer import Connection, Writer, connect, reading, unavailable

LARGE_BODY = 128 * 1024
"""Octets from which a body is a file of its own, so that small commits do not wait behind it."""

NOTE_SECONDS = 0.5
NOTES_KEPT = 50_000
"""How many decision lines of refusals wait for a store that cannot be written to; the newest beyond that are lost."""


class SqliteSpool:
    """The verbs of `spool.db`; writes are grouped, large bodies are written before their row."""

    def __init__(
        self,
        path: Path,
        bodies: Path,
        leases: Leases,
        report: ReportMaker,
        now: Now,
        announced: Collection[Outcome] = (),
    ) -> None:
        self._path = path
        self._outbox = _Outbox(announced)
        self._writer = Writer(path, self._outbox)
        self._reader = connect(path, read_only=True, patience=0)
        self.queue = SqliteQueue(path, self._reader, self._writer, now)
        self.calls = SqliteCalls(path, self._reader, self._writer, now)
        self._bodies = bodies
        self._leases = leases
        self._report = report
        self._now = now
        self._notes: list[bytes] = []
        self._noted_refusals: list[tuple[str, bytes]] = []
        self._unread: list[tuple[int, SpooledRecipient]] = []
        self._noting: asyncio.TimerHandle | None = None
        self._note_task: asyncio.Task[None] | None = None
        self.refusals: Refusals = SqliteRefusals(
            path, self._writer, self._reader, self._outbox.refuse, self._insert_new, now
        )

    async def close(self) -> None:
        if self._noting:
            self._noting.cancel()
        if self._note_task:
            await asyncio.wait([self._note_task])
        try:
            await self._put_notes()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        await self._writer.close()
        self._reader.close()
        self._leases.close()

    async def keep(
        self,
        message: SpooledMessage,
        addressees: Sequence[SpooledRecipient],
        lines: Sequence[bytes],
        *,
        claimed: int,
    ) -> None:
        body = await self._stored_body(message)
        owner = self._leases.owner
        due = epoch(self._now())

        def insert(connection: Connection) -> None:
            _insert(connection, message, addressees, body, due, owner, claimed)
            self._outbox.put(lines)
            if self._outbox.announces(Outcome.SUPPRESSED):
                for one, line in zip(addressees, lines, strict=True):
                    if one.outcome is Outcome.FAILED:
                        self._outbox.announce(one.recipient.address.text, line)

        try:
            await self._writer.do(insert)
        except StoreUnavailable:
            await asyncio.to_thread(self._remove_bodies, [message.id])
            raise

    def note(self, lines: Sequence[bytes], refused: Sequence[str] = ()) -> None:
        self._notes.extend(lines[: NOTES_KEPT - len(self._notes)])
        if refused and self._outbox.announces(Outcome.SUPPRESSED):
            self._noted_refusals.extend(zip(refused, lines[: NOTES_KEPT - len(self._noted_refusals)], strict=False))
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._start_noting)

    def due(self) -> list[Waiting]:
        now = epoch(self._now())
        with reading(self._path):
            due = [kind for kind in self._kinds() if self._reader.execute(_IS_DUE, (*kind, now)).fetchone()]
        return [Waiting(Priority(priority), stream) for priority, stream in due]

    def _kinds(self) -> Iterator[tuple[int, str]]:
        """Yield each priority and stream of which something waits, by look-ups that take no longer where more waits."""
        kind: tuple[int, str] = (-1, "")
        while kind := (
            self._reader.execute(_NEXT_STREAM, kind).fetchone()
            or self._reader.execute(_NEXT_PRIORITY, kind[:1]).fetchone()
        ):
            yield kind

    async def claim(self, kinds: Sequence[Waiting], limit: int, octets: int) -> list[Claimed]:
        now, owner = epoch(self._now()), self._leases.owner
        await self._return_unread()
        rows = await self._writer.do(lambda connection: _claim(connection, owner, now, kinds, limit, octets))
        try:
            return await self._with_messages(rows)
        except (StoreUnavailable, OSError) as error:
            self._unread = rows
            await self._return_unread()
            raise StoreUnavailable(f"what was claimed cannot be read: {error}") from error

    async def _return_unread(self) -> None:
        """Give back what was claimed and could not be read; if not now, before anything else is claimed."""
        if self._unread:
            await self._writer.do(lambda connection: _give_back(connection, self._unread))
            self._unread = []

    async def take_over(self) -> int:
        """Take the recipients of workers that have died back into the queue; return how many."""
        with reading(self._path):
            dead = self._leases.dead(self._owners())
        if not dead:
            return 0
        freed: int = await self._writer.do(lambda connection: _disown(connection, dead))
        for owner in dead:
            self._leases.clear(owner)
        return freed

    def _owners(self) -> Iterator[str]:
        """Yield everybody who has claimed something, by one look-up each."""
        owner = ("",)
        while owner := self._reader.execute(_NEXT_OWNER, owner).fetchone():
            yield owner[0]

    def recalled(self) -> set[int]:
        with reading(self._path):
            rows = self._reader.execute(_RECALLED, (self._leases.owner,)).fetchall()
        return {message_id for (message_id,) in rows}

    async def put_back(self, copies: Sequence[tuple[int, int]], due: datetime) -> None:
        when = epoch(due)
        await self._writer.do(lambda connection: connection.executemany(_PUT_BACK, [(when, *one) for one in copies]))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        done = await self._writer.do(lambda connection: self._settle(connection, settlements))
        if done:
            await asyncio.to_thread(self._remove_bodies, done)

    # what was decided without the people store

    async def unidentified(self, limit: int) -> list[Unidentified]:
        with reading(self._path):
            rows = self._reader.execute("SELECT decision, message, address FROM unidentified LIMIT ?", (limit,))
            return [Unidentified(*row) for row in rows]

    async def identify(self, lines: Mapping[str, bytes]) -> None:
        def write(connection: Connection) -> None:
            for decision, line in lines.items():
                if connection.execute("DELETE FROM unidentified WHERE decision = ?", (decision,)).rowcount:
                    self._outbox.put([line])

        await self._writer.do(write)

    # inside

    async def _stored_body(self, message: SpooledMessage) -> bytes | None:
        """Return the body for its row, or None once it stands in a file of its own."""
        if len(message.message) <= LARGE_BODY:
            return message.message
        try:
            await asyncio.to_thread(_write_durably, self._body_file(message.id), message.message)
        except OSError as error:
            raise unavailable("the body cannot be written", error) from error
        return None

    def _body_file(self, message_id: int) -> Path:
        return self._bodies / spool_text(message_id)

    def _remove_bodies(self, message_ids: Sequence[int]) -> None:
        for message_id in message_ids:
            self._body_file(message_id).unlink(missing_ok=True)

    def _start_noting(self) -> None:
        self._noting = None
        self._note_task = asyncio.ensure_future(self._write_notes())

    async def _write_notes(self) -> None:
        """Write down what was noted; where the store is away, it is tried again in a moment."""
        try:
            await self._put_notes()
        except StoreUnavailable:
            self.note([])

    async def _put_notes(self) -> None:
        lines, self._notes = self._notes, []
        refusals, self._noted_refusals = self._noted_refusals, []

        def put(_: Connection) -> None:
            self._outbox.put(lines)
            for address, line in refusals:
                self._outbox.announce(address, line)

        try:
            if lines:
                await self._writer.do(put)
        except StoreUnavailable:
            self._notes = lines + self._notes
            self._noted_refusals = refusals + self._noted_refusals
            raise

    async def _with_messages(self, rows: Sequence[tuple[int, SpooledRecipient]]) -> list[Claimed]:
        messages = {message_id: await self._message(message_id) for message_id in {row[0] for row in rows}}
        lost = [message_id for message_id, message in messages.items() if message is None]
        if lost:
            await self._writer.do(lambda connection: _hold(connection, lost, _BODY_LOST))
        return [Claimed(message, addressee) for message_id, addressee in rows if (message := messages[message_id])]

    async def _message(self, message_id: int) -> SpooledMessage | None:
        """Return a message; None where its body's file is gone, so that the others do not wait for it."""
        with reading(self._path):
            envelope, body = self._reader.execute(
                "SELECT envelope, body FROM messages WHERE id = ?", (message_id,)
            ).fetchone()
        if body is None:
            try:
                body = await asyncio.to_thread(self._body_file(message_id).read_bytes)
            except FileNotFoundError:
                return None
        return message_of(message_id, envelope, bytes(body))

    def _settle(self, connection: Connection, settlements: Sequence[Settlement]) -> list[int]:
        for one in settlements:
            if self._outbox.announces(one.outcome):
                self._outbox.announce(_address_of(connection, one), one.line)
            _settle_one(connection, one)
        for message_id in {one.message_id for one in settlements if one.is_told and one.outcome is Outcome.DEFERRED}:
            self._warn(connection, message_id)
        self._outbox.put([one.line for one in settlements])
        settled = {one.message_id for one in settlements if one.outcome.is_settled}
        return [message_id for message_id in settled if self._finish(connection, message_id)]

    def _warn(self, connection: Connection, message_id: int) -> None:
        """Tell the submitter of a delay, once a message."""
        first = connection.execute("UPDATE messages SET warned = 1 WHERE id = ? AND warned = 0", (message_id,))
        if first.rowcount:
            self._report_on(connection, message_id, "outcome = 'deferred'")

    def _finish(self, connection: Connection, message_id: int) -> bool:
        """Let go of a message whose last recipient is settled; True where its body was a file."""
        gone = connection.execute(_DELETE_EMPTY, (message_id, message_id)).fetchone()
        if gone is None and connection.execute(_IS_WAITING, (message_id,)).fetchone() is None:
            self._report_on(connection, message_id, "TRUE")
            connection.execute("DELETE FROM recipients WHERE message_id = ?", (message_id,))
            gone = connection.execute(_DELETE_EMPTY, (message_id, message_id)).fetchone()
        return gone is not None and bool(gone[0])

    def _report_on(self, connection: Connection, message_id: int, which: str) -> None:
        """Write the report about those recipients of a message; what cannot be reported on any more is none."""
        message = connection.execute("SELECT envelope, body FROM messages WHERE id = ?", (message_id,)).fetchone()
        if message is None:
            return
        rows = connection.execute(
            "SELECT address, options, outcome, reply, decision, server FROM recipients"
            f" WHERE message_id = ? AND {which} ORDER BY n",
            (message_id,),
        )
        about = message_of(message_id, message[0], self._body(message_id, message[1]))
        report = self._report(about, [fate_of(row) for row in rows])
        if report:
            self._insert_new(connection, *report)

    def _body(self, message_id: int, in_row: bytes | None) -> bytes:
        """Return a body for a report, which is owed even where the file has gone."""
        if in_row is not None:
            return bytes(in_row)
        file = self._body_file(message_id)
        return file.read_bytes() if file.exists() else b""

    def _insert_new(self, connection: Connection, message: SpooledMessage, addressee: SpooledRecipient) -> None:
        """Put a message of our own into the queue, for anyone to claim."""
        _insert(connection, message, [addressee], message.message, epoch(self._now()))


_DELETE_EMPTY = (
    "DELETE FROM messages WHERE id = ? AND NOT EXISTS (SELECT 1 FROM recipients WHERE message_id = ?)"
    " RETURNING body IS NULL"
)
_IS_WAITING = "SELECT 1 FROM recipients WHERE message_id = ? AND outcome IN ('queued', 'deferred') LIMIT 1"


def remove_orphans(path: Path, bodies: Path) -> int:
    """Remove the bodies that a crash left without a row; return how many. Only while no worker keeps anything."""
    with reading(path), closing(connect(path, read_only=True)) as connection:
        orphans = [file for file in bodies.glob("?" * SPOOL_TEXT_LENGTH) if not _is_wanted(connection, file.name)]
    for file in orphans:
        file.unlink()
    return len(orphans)


def _is_wanted(connection: Connection, name: str) -> bool:
    try:
        row = connection.execute("SELECT body IS NULL FROM messages WHERE id = ?", (spool_number(name),)).fetchone()
    except ValueError:
        return False
    return row is not None and bool(row[0])


def _insert(
    connection: Connection,
    message: SpooledMessage,
    addressees: Sequence[SpooledRecipient],
    body: bytes | None,
    due: int,
    owner: str = "",
    claimed: int = 0,
) -> None:
    connection.execute(
        "INSERT INTO messages (id, envelope, size, body) VALUES (?, ?, ?, ?)",
        (message.id, envelope_json(message), len(message.message), body),
    )
    priority = priority_of(message.message_class).value
    owners = chain(repeat(owner, claimed), repeat(None))
    connection.executemany(
        "INSERT INTO recipients VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, '')",
        [
            (
                message.id,
                one.n,
                one.recipient.address.text,
                " ".join(one.recipient.options),
                one.who,
                one.decision,
                one.outcome.value,
                priority,
                HELD if one.outcome.is_settled or one.is_held else due,
                None if one.outcome.is_settled or one.is_held else next(owners),
                one.reply,
                message.stream,
            )
            for one in addressees
        ],
    )
    if not all(one.is_identified for one in addressees):
        _remember_unidentified(connection, message, addressees)
    if message.tool_url:
        link = (addressees[0].who, message.topic, message.login, message.tool_url, epoch(message.received_at))
        connection.execute("INSERT OR REPLACE INTO tool_links VALUES (?, ?, ?, ?, ?)", link)


def _remember_unidentified(
    connection: Connection, message: SpooledMessage, addressees: Sequence[SpooledRecipient]
) -> None:
    connection.executemany(
        "INSERT INTO unidentified VALUES (?, ?, ?)",
        [
            (one.decision, spool_text(message.id), one.recipient.address.text)
            for one in addressees
            if not one.is_identified
        ],
    )


class _Outbox:
    """The decision lines of the transaction under way; they make one row together.

    Those that end a recipient in a way that is `announced` to programs are kept once more, with the address.
    """

    def __init__(self, announced: Collection[Outcome]) -> None:
        self._announced = frozenset(announced)
        self._lines: list[bytes] = []
        self._endings: list[tuple[str, bytes]] = []

    def begin(self) -> None:
        self._lines.clear()
        self._endings.clear()

    def put(self, lines: Sequence[bytes]) -> None:
        self._lines += lines

    def announces(self, outcome: Outcome) -> bool:
        """True where a program wants to hear of it; a refusal at the door is `SUPPRESSED`."""
        return outcome in self._announced

    def announce(self, address: str, line: bytes) -> None:
        self._endings.append((address, line))

    def refuse(self, addresses: Sequence[str], lines: Sequence[bytes]) -> None:
        """Put the lines of refusals, each about its address."""
        self.put(lines)
        if self.announces(Outcome.SUPPRESSED):
            self._endings.extend(zip(addresses, lines, strict=True))

    def end(self, connection: Connection) -> None:
        if self._lines:
            connection.execute("INSERT INTO outbox (lines) VALUES (?)", (b"\n".join(self._lines),))
        if self._endings:
            connection.executemany("INSERT INTO endings (address, line) VALUES (?, ?)", self._endings)


def _claim(
    connection: Connection, owner: str, now: int, kinds: Sequence[Waiting], limit: int, octets: int
) -> list[tuple[int, SpooledRecipient]]:
    """Claim what is due, the most urgent first, up to so many recipients and so many octets of distinct bodies."""
    claimed: list[tuple[int, SpooledRecipient]] = []
    sizes: dict[int, int] = {}
    for message_id, size, *columns in _due_rows(connection, now, kinds, limit):
        sizes[message_id] = size
        if claimed and sum(sizes.values()) > octets:
            break
        claimed.append((message_id, addressee_of(columns)))
    connection.executemany(
        "UPDATE recipients SET owner = ? WHERE message_id = ? AND n = ?",
        [(owner, message_id, addressee.n) for message_id, addressee in claimed],
    )
    return claimed


def _due_rows(connection: Connection, now: int, kinds: Sequence[Waiting], limit: int) -> list[Any]:
    """Return what is due, by priority; streams of the same priority share the limit, so that none hides another."""
    rows: list[Any] = []
    for priority, alike in groupby(sorted(kinds), key=attrgetter("priority")):
        streams = [one.stream for one in alike]
        for place, stream in enumerate(streams):
            share = -(-(limit - len(rows)) // (len(streams) - place))
            rows += connection.execute(_DUE, (priority.value, stream, now, share)).fetchall()
    return rows


_NEXT_STREAM = (
    "SELECT priority, stream FROM recipients WHERE owner IS NULL AND due > 0 AND priority = ? AND stream > ?"
    " ORDER BY stream LIMIT 1"
)
_NEXT_PRIORITY = (
    "SELECT priority, stream FROM recipients WHERE owner IS NULL AND due > 0 AND priority > ?"
    " ORDER BY priority, stream LIMIT 1"
)
_IS_DUE = (
    "SELECT 1 FROM recipients WHERE owner IS NULL AND due > 0 AND priority = ? AND stream = ? AND due <= ? LIMIT 1"
)
_DUE = (
    "SELECT r.message_id, m.size, r.n, r.address, r.options, r.who, r.decision, r.attempts"
    " FROM recipients r JOIN messages m ON m.id = r.message_id"
    " WHERE r.owner IS NULL AND r.due > 0 AND r.priority = ? AND r.stream = ? AND r.due <= ? ORDER BY r.due LIMIT ?"
)
_NEXT_OWNER = "SELECT owner FROM recipients WHERE owner > ? ORDER BY owner LIMIT 1"
_RECALLED = "SELECT DISTINCT message_id FROM recipients WHERE owner = ? AND owner IS NOT NULL AND due = 0"
_PUT_BACK = "UPDATE recipients SET owner = NULL, due = CASE due WHEN 0 THEN 0 ELSE ? END WHERE message_id = ? AND n = ?"


def _give_back(connection: Connection, rows: Sequence[tuple[int, SpooledRecipient]]) -> None:
    connection.executemany(
        "UPDATE recipients SET owner = NULL WHERE message_id = ? AND n = ?",
        [(message_id, addressee.n) for message_id, addressee in rows],
    )


def _hold(connection: Connection, message_ids: Sequence[int], reply: str) -> None:
    """Keep what nobody can relay for an operator, who sees why in the queue and may have it retried."""
    connection.executemany(
        "UPDATE recipients SET owner = NULL, due = ?, outcome = ?, reply = ?, server = ''"
        " WHERE message_id = ? AND owner IS NOT NULL",
        [(HELD, Outcome.DEFERRED, reply, message_id) for message_id in message_ids],
    )


_BODY_LOST = "the file of the body is missing from the data folder"


def _disown(connection: Connection, dead: Sequence[str]) -> int:
    changed = connection.executemany("UPDATE recipients SET owner = NULL WHERE owner = ?", [(one,) for one in dead])
    return int(changed.rowcount)


def _address_of(connection: Connection, one: Settlement) -> str:
    row = connection.execute(
        "SELECT address FROM recipients WHERE message_id = ? AND n = ?", (one.message_id, one.n)
    ).fetchone()
    return row[0] if row else ""


_NO_FAILURES = (Outcome.RELAYED, Outcome.SUPPRESSED)


def _settle_one(connection: Connection, one: Settlement) -> None:
    """What the submitter need not hear of leaves at once, the rest with the report; a deferral waits for anyone."""
    if one.outcome in _NO_FAILURES and not one.is_told:
        connection.execute("DELETE FROM recipients WHERE message_id = ? AND n = ?", (one.message_id, one.n))
        return
    due = epoch(one.due) if one.due else HELD
    connection.execute(_SETTLE, (one.outcome.value, one.reply, one.server, due, one.message_id, one.n))


# What an operator has held since it was claimed stays held.
_SETTLE = (
    "UPDATE recipients SET outcome = ?, reply = ?, server = ?, due = CASE due WHEN 0 THEN 0 ELSE ? END, owner = NULL,"
    " attempts = attempts + 1 WHERE message_id = ? AND n = ?"
)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a new file so that it and its name are on disk on return (fsync of file and folder)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "xb", opener=disk.open_private) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise
    disk.sync_folder(path.parent)
