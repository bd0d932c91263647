"""The messages that we answer for: `spool.db`, and a file beside it for each large body.

The rule that must not be broken: a message and its recipients are on disk together before `keep` returns, and
leave only through `settle`. A recipient belongs to nobody, or to the worker whose lease it names; only that
worker relays it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.address import Address
from gateway.errors import StoreUnavailable
from gateway.ids import spool_text
from gateway.model import Failure, MessageClass, Outcome, Peer, Recipient
from gateway.store import (
    Claimed,
    Now,
    QueuedRecipient,
    ReportMaker,
    Settlement,
    SpooledMessage,
    SpooledRecipient,
)
from gateway.store.leases import Leases
from gateway.store.writer import Connection, Writer, connect

LARGE_BODY = 128 * 1024
"""Octets from which a body is a file of its own, so that small commits do not wait behind it."""

NOTE_SECONDS = 0.5
HELD = 0
"""The `due` of a recipient that waits for an operator."""

_PRIORITIES = {MessageClass.BREACH_NOTICE: 0, MessageClass.PROMOTIONAL: 2, MessageClass.PRODUCT: 2}
_ORDINARY = 1


class SqliteSpool:
    """The verbs of `spool.db`; writes are grouped, large bodies are written before their row."""

    def __init__(self, path: Path, bodies: Path, leases: Leases, report: ReportMaker, now: Now) -> None:
        self._writer = Writer(path)
        self._reader = connect(path, read_only=True)
        self._bodies = bodies
        self._leases = leases
        self._report = report
        self._now = now
        self._notes: list[bytes] = []
        self._noting: asyncio.TimerHandle | None = None
        self._note_task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._noting:
            self._noting.cancel()
        await self._write_notes()
        await self._writer.close()
        self._reader.close()
        self._leases.close()

    async def keep(
        self,
        message: SpooledMessage,
        addressees: Sequence[SpooledRecipient],
        lines: Sequence[bytes],
        *,
        claimed: bool,
    ) -> None:
        body = await self._stored_body(message)
        owner = self._leases.owner if claimed else None
        due = _epoch(self._now())

        def insert(connection: Connection) -> None:
            _insert(connection, message, addressees, body, due, owner)
            _put_lines(connection, lines)

        try:
            await self._writer.do(insert)
        except StoreUnavailable:
            await asyncio.to_thread(self._remove_bodies, [message.id])
            raise

    def note(self, lines: Sequence[bytes]) -> None:
        self._notes.extend(lines)
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._start_noting)

    async def claim(self, limit: int) -> list[Claimed]:
        if not await self._anything_due():
            return []
        now, owner = _epoch(self._now()), self._leases.owner
        rows = await self._writer.do(lambda connection: _claim(connection, owner, now, limit))
        return [Claimed(message, addressee) for message, addressee in await self._with_messages(rows)]

    async def take_over(self) -> int:
        """Take the recipients of workers that have died back into the queue; return how many."""
        dead = self._leases.dead()
        if not dead:
            return 0
        freed: int = await self._writer.do(lambda connection: _disown(connection, dead))
        for owner in dead:
            self._leases.clear(owner)
        return freed

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        done = await self._writer.do(lambda connection: self._settle(connection, settlements))
        if done:
            await asyncio.to_thread(self._remove_bodies, done)

    # the queue, for operators

    async def queued(self, message_id: int | None = None, limit: int = 1000) -> list[QueuedRecipient]:
        """Return what waits, the oldest first; of one message only, where its id is given."""
        rows = self._reader.execute(
            "SELECT r.message_id, r.n, r.address, m.envelope, r.outcome, r.attempts, r.due, r.reply"
            " FROM recipients r JOIN messages m ON m.id = r.message_id"
            " WHERE (? IS NULL OR r.message_id = ?) ORDER BY r.message_id, r.n LIMIT ?",
            (message_id, message_id, limit),
        )
        return [_queued_of(row) for row in rows]

    async def depth(self) -> tuple[int, datetime | None]:
        """Return how many recipients wait, and since when the oldest message has."""
        (count,) = self._reader.execute("SELECT count(*) FROM recipients").fetchone()
        row = self._reader.execute("SELECT envelope FROM messages ORDER BY id LIMIT 1").fetchone()
        return count, datetime.fromisoformat(json.loads(row[0])["received_at"]) if row else None

    async def retry(self, message_id: int) -> int:
        """Make what waits of a message due now; return how many recipients that were."""
        now = _epoch(self._now())
        freed: int = await self._writer.do(
            lambda connection: (
                connection.execute(
                    "UPDATE recipients SET due = ? WHERE message_id = ? AND outcome = ? AND owner IS NULL",
                    (now, message_id, Outcome.DEFERRED),
                ).rowcount
            )
        )
        return freed

    # inside

    async def _stored_body(self, message: SpooledMessage) -> bytes | None:
        """Return the body for its row, or None once it stands in a file of its own."""
        if len(message.message) <= LARGE_BODY:
            return message.message
        await asyncio.to_thread(_write_durably, self._body_file(message.id), message.message)
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
        lines, self._notes = self._notes, []
        if lines:
            await self._writer.do(lambda connection: _put_lines(connection, lines))

    async def _anything_due(self) -> bool:
        row = self._reader.execute(
            "SELECT 1 FROM recipients WHERE owner IS NULL AND due > 0 AND priority IN (0, 1, 2) AND due <= ? LIMIT 1",
            (_epoch(self._now()),),
        ).fetchone()
        return row is not None

    async def _with_messages(
        self, rows: Sequence[tuple[int, SpooledRecipient]]
    ) -> list[tuple[SpooledMessage, SpooledRecipient]]:
        messages = {message_id: await self._message(message_id) for message_id in {row[0] for row in rows}}
        return [(messages[message_id], addressee) for message_id, addressee in rows]

    async def _message(self, message_id: int) -> SpooledMessage:
        envelope, body = self._reader.execute(
            "SELECT envelope, body FROM messages WHERE id = ?", (message_id,)
        ).fetchone()
        if body is None:
            body = await asyncio.to_thread(self._body_file(message_id).read_bytes)
        return _message_of(message_id, envelope, bytes(body))

    def _settle(self, connection: Connection, settlements: Sequence[Settlement]) -> list[int]:
        for one in settlements:
            _settle_one(connection, one)
        _put_lines(connection, [one.line for one in settlements])
        settled = {one.message_id for one in settlements if one.outcome.is_settled}
        return [message_id for message_id in settled if self._finish(connection, message_id)]

    def _finish(self, connection: Connection, message_id: int) -> bool:
        """Let go of a message whose last recipient is settled; True where its body was a file."""
        rows = connection.execute(
            "SELECT address, options, outcome, reply, decision FROM recipients WHERE message_id = ? ORDER BY n",
            (message_id,),
        ).fetchall()
        if not all(Outcome(row[2]).is_settled for row in rows):
            return False
        if rows:
            self._send_report(connection, message_id, [_failure_of(row) for row in rows])
            connection.execute("DELETE FROM recipients WHERE message_id = ?", (message_id,))
        (in_file,) = connection.execute("SELECT body IS NULL FROM messages WHERE id = ?", (message_id,)).fetchone()
        connection.execute("DELETE FROM messages WHERE id = ?", (message_id,))
        return bool(in_file)

    def _send_report(self, connection: Connection, message_id: int, failures: Sequence[Failure]) -> None:
        envelope, body = connection.execute(
            "SELECT envelope, body FROM messages WHERE id = ?", (message_id,)
        ).fetchone()
        octets = bytes(body) if body is not None else self._body_file(message_id).read_bytes()
        report = self._report(_message_of(message_id, envelope, octets), failures)
        if report:
            message, addressee = report
            _insert(connection, message, [addressee], message.message, _epoch(self._now()), None)


def _insert(
    connection: Connection,
    message: SpooledMessage,
    addressees: Sequence[SpooledRecipient],
    body: bytes | None,
    due: int,
    owner: str | None,
) -> None:
    connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (message.id, _envelope_json(message), body))
    priority = _PRIORITIES.get(message.message_class, _ORDINARY)
    connection.executemany(
        "INSERT INTO recipients VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
        [
            (
                message.id,
                one.n,
                one.recipient.address.text,
                " ".join(one.recipient.options),
                one.who,
                one.decision,
                one.outcome,
                priority,
                HELD if one.outcome.is_settled else due,
                None if one.outcome.is_settled else owner,
                one.reply,
            )
            for one in addressees
        ],
    )


def _put_lines(connection: Connection, lines: Sequence[bytes]) -> None:
    if lines:
        connection.execute("INSERT INTO outbox (lines) VALUES (?)", (b"\n".join(lines),))


def _claim(connection: Connection, owner: str, now: int, limit: int) -> list[tuple[int, SpooledRecipient]]:
    claimed: list[tuple[int, SpooledRecipient]] = []
    for priority in (0, 1, 2):
        rows = connection.execute(
            "UPDATE recipients SET owner = ? WHERE (message_id, n) IN (SELECT message_id, n FROM recipients"
            " WHERE owner IS NULL AND due > 0 AND priority = ? AND due <= ? ORDER BY due LIMIT ?)"
            " RETURNING message_id, n, address, options, who, decision, attempts",
            (owner, priority, now, limit - len(claimed)),
        ).fetchall()
        claimed += [(row[0], _addressee_of(row)) for row in rows]
    return claimed


def _disown(connection: Connection, dead: Sequence[str]) -> int:
    changed = connection.executemany("UPDATE recipients SET owner = NULL WHERE owner = ?", [(one,) for one in dead])
    return int(changed.rowcount)


def _settle_one(connection: Connection, one: Settlement) -> None:
    """A copy that went, or was suppressed, leaves; a failure stays for the report; a deferral waits for anyone."""
    if one.outcome in (Outcome.RELAYED, Outcome.SUPPRESSED):
        connection.execute("DELETE FROM recipients WHERE message_id = ? AND n = ?", (one.message_id, one.n))
        return
    due = _epoch(one.due) if one.due else HELD
    connection.execute(
        "UPDATE recipients SET outcome = ?, reply = ?, due = ?, owner = NULL, attempts = attempts + 1"
        " WHERE message_id = ? AND n = ?",
        (one.outcome, one.reply, due, one.message_id, one.n),
    )


def _envelope_json(message: SpooledMessage) -> str:
    peer = message.peer
    return json.dumps(
        {
            "login": message.login,
            "stream": message.stream,
            "class": message.message_class,
            "topic": message.topic,
            "reverse_path": message.reverse_path,
            "options": message.options,
            "peer": [peer.helo, peer.ip, peer.protocol, peer.tls],
            "received_at": message.received_at.isoformat(),
            "recipients": [[one.address.text, *one.options] for one in message.recipients],
        }
    )


def _message_of(message_id: int, envelope: str, body: bytes) -> SpooledMessage:
    raw = json.loads(envelope)
    return SpooledMessage(
        id=message_id,
        login=raw["login"],
        stream=raw["stream"],
        message_class=MessageClass(raw["class"]),
        topic=raw["topic"],
        reverse_path=raw["reverse_path"],
        options=tuple(raw["options"]),
        peer=Peer(*raw["peer"]),
        received_at=datetime.fromisoformat(raw["received_at"]),
        recipients=tuple(Recipient(Address.parse(text), tuple(options)) for text, *options in raw["recipients"]),
        message=body,
    )


def _addressee_of(row: Sequence[Any]) -> SpooledRecipient:
    _, n, address, options, who, decision, attempts = row
    return SpooledRecipient(n, _recipient(address, options), who, decision, attempts)


def _failure_of(row: Sequence[Any]) -> Failure:
    address, options, outcome, reply, decision = row
    return Failure(_recipient(address, options), Outcome(outcome), reply, decision)


def _recipient(address: str, options: str) -> Recipient:
    return Recipient(Address.parse(address), tuple(options.split()))


def _queued_of(row: Sequence[Any]) -> QueuedRecipient:
    message_id, n, address, envelope, outcome, attempts, due, reply = row
    raw = json.loads(envelope)
    received = datetime.fromisoformat(raw["received_at"])
    when = datetime.fromtimestamp(due / 1000, UTC)
    return QueuedRecipient(
        message_id, n, address, raw["stream"], raw["login"], Outcome(outcome), attempts, when, reply, received
    )


def _epoch(moment: datetime) -> int:
    """Return a time as milliseconds since 1970, which is how `due` is kept and compared."""
    return int(moment.timestamp() * 1000)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it and its name are on disk on return (fsync of file and folder)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
