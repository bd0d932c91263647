"""Refusals that were answered 250, until their campaign's summary is kept: two tables of `spool.db`.

The rule that must not be broken: a refusal is on disk before its message is answered, with its decision line, and
leaves in the transaction in which its summary comes. A recipient who was refused twice of one campaign is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.ledger import timestamp
from gateway.model import CampaignName, ReportedRefusal, SpooledMessage, SpooledRecipient
from gateway.store import Now, SummaryMaker
from gateway.store.writer import Connection, Writer, reading

_OF = "WHERE login = ? AND stream = ? AND campaign = ?"


class SqliteRefusals:
    """The verbs of the two tables; lines and summaries go the way of the spool, whose transactions these are."""

    def __init__(
        self,
        path: Path,
        writer: Writer,
        reader: Connection,
        put_refusals: Callable[[Sequence[str], Sequence[bytes]], None],
        insert: Callable[[Connection, SpooledMessage, SpooledRecipient], None],
        now: Now,
    ) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._put_refusals = put_refusals
        self._insert = insert
        self._now = now

    async def add(self, campaign: CampaignName, refusals: Sequence[ReportedRefusal], lines: Sequence[bytes]) -> None:
        now = timestamp(self._now())

        def put(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO reported_campaigns VALUES (?, ?, ?, ?)"
                " ON CONFLICT (login, stream, campaign) DO UPDATE SET latest = excluded.latest",
                (*campaign, now),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO reported_refusals VALUES (?, ?, ?, ?, ?, ?)",
                [(*campaign, one.address, one.reason, one.decision) for one in refusals],
            )
            self._put_refusals([one.address for one in refusals], lines)

        await self._writer.do(put)

    def campaigns(self) -> list[tuple[CampaignName, datetime]]:
        with reading(self._path):
            rows = self._reader.execute("SELECT login, stream, campaign, latest FROM reported_campaigns").fetchall()
        return [(CampaignName(*names), datetime.fromisoformat(latest).astimezone(UTC)) for *names, latest in rows]

    async def summarise(self, campaign: CampaignName, make: SummaryMaker) -> None:
        def move(connection: Connection) -> None:
            rows = connection.execute(f"SELECT address, reason, decision FROM reported_refusals {_OF}", campaign)
            refusals = [ReportedRefusal(*row) for row in rows]
            if refusals:
                self._insert(connection, *make(refusals))
            connection.execute(f"DELETE FROM reported_refusals {_OF}", campaign)
            connection.execute(f"DELETE FROM reported_campaigns {_OF}", campaign)

        await self._writer.do(move)
