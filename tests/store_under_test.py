"""A store in a scratch folder, for the tests of its two files, its segments and its leases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.address import Address
from gateway.consent import EventType, NewEvent
from gateway.decisions import Subject, attempt_line, door_line
from gateway.ids import Ids, spool_text
from gateway.lanes import MEMORY_BUDGET
from gateway.model import (
    Action,
    Fate,
    MessageClass,
    Outcome,
    Peer,
    Recipient,
    Scope,
    SpooledMessage,
    SpooledRecipient,
    Verdict,
)
from gateway.store import Claimed, Settlement
from gateway.store.condition import Condition
from gateway.store.people import SqlitePeople
from gateway.store.spool import SqliteSpool
from gateway.store.sqlite import DataFolder
from gateway.store.standby import Standby

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ALICE, BOB = Address.parse("alice@example.org"), Address.parse("bob@example.org")
PEER = Peer("tool.example.com", "192.0.2.7", "ESMTPSA", "TLSv1.3")
SEND = Verdict(Action.SEND)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def move(self, by: timedelta) -> None:
        self.time += by


class Rig:
    """One data folder and everything that the tests do with it."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.folder = DataFolder(root, root / "assent.db")
        self.folder.prepare()
        self.ids = Ids(3, self.clock.now)
        self.reported: list[tuple[SpooledMessage, list[Fate]]] = []

    def open_people(self) -> SqlitePeople:
        return self.folder.open_people(Condition(self.folder.condition), self.clock.now)

    def open_spool(self, owner: str = "worker") -> SqliteSpool:
        store = self.folder.open(owner, self.report, self.clock.now)
        assert isinstance(store.spool, SqliteSpool)
        return store.spool

    def standby(self) -> Standby:
        return self.folder.standby(Condition(self.folder.condition))

    @asynccontextmanager
    async def people(self) -> AsyncIterator[SqlitePeople]:
        people = self.open_people()
        try:
            yield people
        finally:
            await people.close()

    @asynccontextmanager
    async def spool(self, owner: str = "worker") -> AsyncIterator[SqliteSpool]:
        spool = self.open_spool(owner)
        try:
            yield spool
        finally:
            await spool.close()

    async def claim(self, spool: SqliteSpool, limit: int, octets: int = MEMORY_BUDGET) -> list[Claimed]:
        """Claim of everything that is due."""
        kinds = spool.due()
        return await spool.claim(kinds, limit, octets) if kinds else []

    def report(self, about: SpooledMessage, fates: Sequence[Fate]) -> tuple[SpooledMessage, SpooledRecipient] | None:
        self.reported.append((about, list(fates)))
        failed = [one for one in fates if one.outcome is not Outcome.SUPPRESSED]
        if not about.reverse_path or not failed:
            return None
        sender = Recipient(Address.parse(about.reverse_path))
        report = self.message(b"Subject: report\r\n\r\n", MessageClass.SYSTEM, reverse_path="")
        return report, SpooledRecipient(0, sender, "", self.ids.decision())

    def message(
        self,
        body: bytes = b"Subject: hi\r\n\r\nhello\r\n",
        message_class: MessageClass = MessageClass.PROMOTIONAL,
        reverse_path: str = "news@example.com",
    ) -> SpooledMessage:
        return SpooledMessage(
            id=self.ids.spool(),
            login="shop",
            stream="newsletter",
            message_class=message_class,
            topics=("news",),
            reverse_path=reverse_path,
            options=("BODY=8BITMIME", "RET=HDRS"),
            peer=PEER,
            received_at=self.clock.now(),
            recipients=(Recipient(ALICE),),
            message=body,
        )

    def addressees(self, *addresses: Address) -> list[SpooledRecipient]:
        options = ("NOTIFY=FAILURE", "ORCPT=rfc822;x@example.org")
        return [
            SpooledRecipient(n, Recipient(one, options), f"who{n}", self.ids.decision())
            for n, one in enumerate(addresses)
        ]

    def line(self, message: str = "", who: str = "nobody", decision: str = "") -> bytes:
        subject = Subject(message, "", "shop", "newsletter", MessageClass.PROMOTIONAL, "news")
        return door_line(decision or self.ids.decision(), self.clock.now(), who, subject, SEND)

    def settlement(
        self,
        message: SpooledMessage,
        n: int,
        outcome: Outcome,
        due: datetime | None = None,
        reply: str = "250 2.0.0 ok",
    ) -> Settlement:
        subject = Subject(spool_text(message.id), "", "shop", "newsletter", message.message_class, message.topic)
        line = attempt_line(
            self.ids.decision(), "", self.clock.now(), f"who{n}", subject, SEND, outcome, reply, 1, ("s1",)
        )
        return Settlement(message.id, n, outcome, reply, line, due)


def opt_in(person: Address | bytes = ALICE, topic: str = "news", at: datetime = START) -> NewEvent:
    facts, personal = {"notice": 1}, {"ip": "192.0.2.9", "page": "https://example.com/Grüße"}
    return NewEvent(EventType.EXPRESS_OPT_IN, person, at, topic, facts=facts, personal=personal)


def unsubscribe(person: Address | bytes = ALICE, topic: str = "news", scope: Scope | None = None) -> NewEvent:
    return NewEvent(EventType.UNSUBSCRIBE, person, START, topic, scope)
