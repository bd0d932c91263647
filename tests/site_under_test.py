"""The public site on a real socket, with a store in memory: for the tests of the site, with and without a browser.

The store keeps its promise about repeats by the ledger's own fold, and can be told to be away or to take its time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ssl import SSLContext
from typing import Any

from aiohttp import web

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, NewEvent, Standing
from gateway.errors import StoreUnavailable
from gateway.metrics import Board
from gateway.model import Company, KeyRing, Topic
from gateway.store import PublishedPolicy
from gateway.tokens import ALL_MARKETING, PARTNER, Reconsent, Unsubscribe, UnsubscribeTokens
from unsubscribe_site import SiteSettings, create_app, start

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ALICE = bytes(range(16))
ERASED = bytes(range(16, 32))
ADDRESSES = {ALICE: Address.parse("alice.liddell@example.org")}
ANNOUNCEMENTS, UPDATES, FORMER = 16, 17, 18
TOPICS = {
    ANNOUNCEMENTS: Topic("product-announcements", "Product announcements"),
    UPDATES: Topic("software-updates", "Software updates"),
}
SLUGS = {ANNOUNCEMENTS: "product-announcements", UPDATES: "software-updates", FORMER: "summer-contest"}
COMPANY = Company(
    "Example Software, Inc.",
    "1 Main Street, Springfield IL 62701, USA",
    "privacy@example.com",
    "https://example.com/privacy",
)
OLD_KEY, NEW_KEY = b"k" * 32, b"n" * 32
TOKENS = UnsubscribeTokens(KeyRing({1: OLD_KEY, 2: NEW_KEY}))


def token(number: int = ANNOUNCEMENTS, person: bytes = ALICE) -> str:
    """Return the token that a message to this person would carry."""
    return TOKENS.for_url(Unsubscribe(number, person))


TOPIC_TOKEN = token()
RECONSENT_TOKEN = TOKENS.reconsents.for_url(Reconsent("2027-1", ALICE))
PARTNER_TOKEN = token(PARTNER)
ALL_TOKEN = token(ALL_MARKETING)


@dataclass
class MemoryStore:
    """What the site asks of the store. `away` makes it unavailable; `failure` is raised instead, once it is set."""

    ledger: list[Event] = field(default_factory=list)
    published: list[PublishedPolicy] = field(default_factory=list)
    standing: dict[bytes, Standing] = field(default_factory=dict)
    away: bool = False
    failure: Exception | None = None
    may_commit: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_commit.set()

    async def opt_out(self, events: Sequence[NewEvent]) -> None:
        self._answer()
        await self.may_commit.wait()
        for event in events:
            self._record(event)

    async def record(self, events: Sequence[NewEvent]) -> list[Event]:
        self._answer()
        for event in events:
            self._record(event)
        return self.ledger[-len(events) :]

    async def address_of(self, address_id: bytes) -> Address | None:
        self._answer()
        return ADDRESSES.get(address_id)

    async def policies(self) -> list[PublishedPolicy]:
        return self.published

    def topic_slug(self, number: int) -> str | None:
        return SLUGS.get(number)

    def _answer(self) -> None:
        if self.failure:
            raise self.failure
        if self.away:
            raise StoreUnavailable

    def _record(self, new: NewEvent) -> None:
        assert isinstance(new.person, bytes)
        before = self.standing.get(new.person, NOTHING_KNOWN)
        if before.told_before(new) is not None:
            return
        event = Event(
            len(self.ledger) + 1, new.type, new.person, new.at, new.at, new.topic, new.scope, new.facts, new.personal
        )
        self.standing[new.person] = before.after(event)
        self.ledger.append(event)


@dataclass(frozen=True)
class RunningSite:
    """Where the site listens, and the store behind it."""

    store: MemoryStore
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def link(self, token: str = TOPIC_TOKEN) -> str:
        return f"{self.url}/u/{token}"


@asynccontextmanager
async def running_site(
    *, idle: timedelta = timedelta(seconds=15), tls: SSLContext | None = None, **changes: Any
) -> AsyncIterator[RunningSite]:
    """Serve the site on a free loopback port; `changes` are settings that differ from the usual."""
    store = MemoryStore()
    settings = SiteSettings(
        **{"company": COMPANY, "public_url": "https://mail.example.com", "topics": TOPICS, **changes}
    )
    app = create_app(store=store, tokens=TOKENS, settings=settings, metrics=Board(1).row(0), now=lambda: NOW)
    bound = socket.create_server(("127.0.0.1", 0))
    runner: web.AppRunner = await start(app, [bound], tls=tls, idle=idle)
    try:
        yield RunningSite(store, *bound.getsockname())
    finally:
        await runner.cleanup()
