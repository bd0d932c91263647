"""Calls to programs outside, until each has been taken: tables of `spool.db`.

The rules are those of `outgoing`. The endings of recipients come with the transactions of the spool, which writes them
only where somebody wants to hear of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.ledger import timestamp
from gateway.store import Now
from gateway.store.outgoing import SINCE, Backlog, Call, Ending, Failure, NewCall, ToolLink
from gateway.store.rows import epoch
from gateway.store.writer import Connection, Writer, reading

FOR_EVER = 2**62
"""Until when a target rests that is gone."""


class SqliteCalls:
    """The verbs of the tables, through the reader and the writer of the spool."""

    def __init__(self, path: Path, reader: Connection, writer: Writer, now: Now) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer
        self._now = now

    def positions(self) -> Mapping[str, int]:
        return dict(self._read("SELECT source, position FROM announced"))

    def endings(self, limit: int) -> list[Ending]:
        rows = self._read("SELECT id, address, line FROM endings ORDER BY id LIMIT ?", limit)
        return [Ending(number, address, bytes(line)) for number, address, line in rows]

    def tool_links(self, who: str) -> list[ToolLink]:
        return [ToolLink(*row) for row in self._read("SELECT topic, login, url FROM tool_links WHERE who = ?", who)]

    async def publish(
        self,
        calls: Sequence[NewCall],
        positions: Mapping[str, int],
        *,
        endings: int = 0,
        told: Sequence[tuple[str, ToolLink]] = (),
        forget: Collection[str] = (),
    ) -> None:
        now = epoch(self._now())
        rows = [(one.target, one.subject, one.content, one.is_lasting, now, now) for one in calls]

        def move(connection: Connection) -> None:
            connection.executemany("DELETE FROM calls WHERE subject = ?", [(who,) for who in forget])
            connection.executemany("DELETE FROM tool_links WHERE who = ?", [(who,) for who in forget])
            connection.executemany(_ADD, rows)
            connection.executemany("INSERT OR REPLACE INTO announced VALUES (?, ?)", list(positions.items()))
            connection.execute("DELETE FROM endings WHERE id <= ?", (endings,))
            connection.executemany(_TOLD, [(who, link.topic, link.login, link.url) for who, link in told])

        await self._writer.do(move)

    async def settle(
        self, target: str, done: Collection[int], failures: Collection[Failure], rest: datetime | None = None
    ) -> None:
        failed = [(epoch(one.due), one.answer, one.id) for one in failures]

        def write(connection: Connection) -> None:
            if rest:
                connection.execute("INSERT OR REPLACE INTO resting_targets VALUES (?, ?, NULL)", (target, epoch(rest)))
            connection.executemany("DELETE FROM calls WHERE id = ?", [(one,) for one in done])
            connection.executemany("UPDATE calls SET attempts = attempts + 1, due = ?, answer = ? WHERE id = ?", failed)

        await self._writer.do(write)

    async def give_up(self, before: datetime) -> int:
        if not self._read("SELECT 1 FROM calls WHERE NOT is_lasting AND since < ? LIMIT 1", epoch(before)):
            return 0
        gone = await self._writer.do(
            lambda connection: connection.execute(
                "DELETE FROM calls WHERE NOT is_lasting AND since < ?", (epoch(before),)
            )
        )
        return int(gone.rowcount)

    async def forget_tool_links(self, before: datetime) -> None:
        if self._read("SELECT 1 FROM tool_links WHERE at < ? LIMIT 1", epoch(before)):
            await self._do("DELETE FROM tool_links WHERE at < ?", epoch(before))

    def due(self, target: str, limit: int) -> list[Call]:
        rows = self._read(_DUE, target, epoch(self._now()), limit)
        return [
            Call(number, content, bool(lasting), _moment(since), attempts)
            for number, content, lasting, since, attempts in rows
        ]

    def targets(self) -> list[str]:
        return [target for (target,) in self._read("SELECT DISTINCT target FROM calls")]

    def backlogs(self) -> list[Backlog]:
        known = self._read("SELECT target, gone_at FROM resting_targets WHERE gone_at IS NOT NULL")
        gone = {target: datetime.fromisoformat(at) for target, at in known}
        waiting = {row[0]: row for row in self._read(_BACKLOGS)}
        found = []
        for target in sorted({*gone, *waiting}):
            _, count, oldest, attempts, answer = waiting.get(target) or (target, 0, None, 0, "")
            since = None if oldest is None else _moment(oldest)
            found.append(Backlog(target, count, since, attempts, answer, gone.get(target)))
        return found

    async def gone(self, target: str) -> None:
        now = timestamp(self._now())
        await self._do("INSERT OR REPLACE INTO resting_targets VALUES (?, ?, ?)", target, FOR_EVER, now)

    async def try_again(self, target: str) -> int:
        now = epoch(self._now())

        def write(connection: Connection) -> int:
            connection.execute("DELETE FROM resting_targets WHERE target = ?", (target,))
            changed = connection.execute("UPDATE calls SET due = ? WHERE target = ?", (now, target))
            return int(changed.rowcount)

        return await self._writer.do(write)

    async def drop_targets(self, targets: Collection[str]) -> None:
        named = [(one,) for one in targets]

        def write(connection: Connection) -> None:
            for table in ("calls", "resting_targets"):
                connection.executemany(f"DELETE FROM {table} WHERE target = ?", named)
            connection.executemany("DELETE FROM announced WHERE source = ?", [(f"{SINCE}{one}",) for one in targets])

        await self._writer.do(write)

    async def _do(self, statement: str, *parameters: Any) -> None:
        await self._writer.do(lambda connection: connection.execute(statement, parameters))

    def _read(self, query: str, *parameters: Any) -> list[Any]:
        with reading(self._path):
            return list(self._reader.execute(query, parameters).fetchall())


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_ADD = "INSERT INTO calls (target, subject, content, is_lasting, since, due) VALUES (?, ?, ?, ?, ?, ?)"
_TOLD = "DELETE FROM tool_links WHERE who = ? AND topic = ? AND login = ? AND url = ?"
"""A link that has come since with a newer message stays: its "no" has not been said yet."""

_DUE = (
    "SELECT id, content, is_lasting, since, attempts FROM calls AS c WHERE target = ?1 AND due <= ?2"
    " AND NOT EXISTS (SELECT 1 FROM resting_targets WHERE target = ?1 AND until > ?2)"
    " AND NOT EXISTS (SELECT 1 FROM calls WHERE target = ?1 AND subject = c.subject AND id < c.id)"
    " ORDER BY id LIMIT ?3"
)
_BACKLOGS = (
    "SELECT target, count(*), min(since), max(attempts),"
    " coalesce((SELECT answer FROM calls WHERE target = c.target AND attempts > 0 ORDER BY due DESC LIMIT 1), '')"
    " FROM calls AS c GROUP BY target"
)
