"""The verbs of the people store: who is known, what stands for them, what operators have ordered, notices, tokens.

The rule that must not be broken: a look-up sees every commit, and a verb has returned only once its own is on disk.
What an event changes is `history`'s part, sealing and checking the ledger that of `segments`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, EventType, NewEvent, Standing
from gateway.errors import StoreUnavailable
from gateway.evidence import Notice
from gateway.model import KeyRing
from gateway.rights import Breach, Request
from gateway.store import (
    ApiToken,
    Facts,
    LedgerLine,
    LoginRecord,
    NoticeRecord,
    Now,
    Once,
    Orders,
    PersonHistory,
    PublishedPolicy,
)
from gateway.store.callers import find_done, put_token, read_tokens, remember_done
from gateway.store.condition import Trouble
from gateway.store.domains import Domains
from gateway.store.duties import close_breach, open_breach, read_breaches, read_requests
from gateway.store.exports import read_histories, read_lines
from gateway.store.history import (
    EVENTS,
    OF_NUMBERS,
    OF_PERSON,
    PERSON,
    append_event,
    event_of,
    has_digests,
    keyed_digest,
    link_people,
    listed,
    person_of,
    put_readers,
    standing_of,
)
from gateway.store.imports import imports_completed, unfinished_imports
from gateway.store.mailboxes import other_spellings, said_elsewhere
from gateway.store.notices import begin_notices, read_notices
from gateway.store.orders import (
    change_stream,
    put_login,
    put_policy,
    read_login,
    read_logins,
    read_orders,
    read_pauses,
    read_policies,
)
from gateway.store.outgoing import Pause
from gateway.store.reader import Reader
from gateway.store.standby import Known, Standby
from gateway.store.wordings import put_wording, read_wordings
from gateway.store.writer import Connection, Writer, reading
from gateway.tokens import FIRST_TOPIC, NOBODY

T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK_UP = (
    f"SELECT 0, {PERSON.format('address_keys', '?2')}"
    f" UNION ALL SELECT 1, {PERSON.format('broad_keys', '?3')}"
    f" UNION ALL SELECT 1, {PERSON.format('address_keys', '?3')} AND ?3 <> ?2"
)
"""One look-up a decision: whose address this is, and who else's it looks like."""

_SUPPRESSED = "json_array_length(standing, '$.suppressions') > 0"
"""As the index `people_suppressed` has it."""

_FAREWELLS = "SELECT seq, address FROM farewells WHERE seq > ? AND seq <= ?"
_NEXT_SUPPRESSED = (
    f"SELECT address_id, address, standing FROM people WHERE {_SUPPRESSED} AND address_id > ?"
    " ORDER BY address_id LIMIT ?"
)
_SEARCH = f"SELECT address_id, address, standing FROM ({_NEXT_SUPPRESSED}) WHERE instr(lower(address), ?) > 0 LIMIT ?"
_SEARCHED = f"SELECT count(*), max(address_id) FROM ({_NEXT_SUPPRESSED})"
_LOOKED_THROUGH = 20_000
"""Suppressed people of one search, or events among which a few are looked for: some hundredths of a second."""

_OF_TYPES = (
    f"{EVENTS} WHERE e.seq > ? AND e.seq <= ? AND e.type IN (SELECT value FROM json_each(?)) ORDER BY e.seq LIMIT ?"
)

_REMEMBERED = 1024

OPT_OUT_SECONDS = 2.0
"""How long an opt-out waits for the people store before this machine's journal keeps it."""


class SqlitePeople:
    """The verbs of `assent.db`; reads cost one look-up and see every commit, writes are grouped."""

    def __init__(
        self, path: Path, ring: KeyRing, now: Now, standby: Standby, block_related: Collection[str] = ()
    ) -> None:
        self._path = path
        self._writer = Writer(path)
        self._reader = Reader(path)
        self._standby = standby
        self._ring = ring.in_force_first()
        self._now = now
        self._numbers: dict[str, int] = {}
        self._slugs: dict[int, str] = {}
        self._remembered: dict[str, Facts] = {}
        self._unfinished: frozenset[int] = frozenset()
        self._has_lists = False
        self._domains = Domains()
        self._block_related = block_related
        self._read: tuple[Connection, int] = (None, -1)
        self._orders_read = self._read
        self._learn(self._known())

    async def close(self) -> None:
        await self._writer.close()
        self._reader.close()

    # people

    async def facts(self, addresses: Sequence[Address]) -> list[Facts]:
        """As the interface says. What was read is remembered until anybody commits, which SQLite tells for certain."""
        if not self._standby.journal.is_empty:
            raise StoreUnavailable("opt-outs in the journal wait to be recorded")
        with reading(self._path):
            connection = self._reader.connection()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if self._read != (connection, version) or len(self._remembered) > _REMEMBERED:
                self._remembered.clear()
                self._unfinished = unfinished_imports(connection)
                self._has_lists = has_digests(connection)
                self._domains.refresh(connection)
                self._read = connection, version
            return [self._remembered.get(one.key) or self._look_up(connection, one) for one in addresses]

    def _look_up(self, connection: Connection, address: Address) -> Facts:
        facts = _facts(connection, self._ring, address)
        standing = self._with_wider(connection, address, facts.standing)
        if facts.address_id is None and self._has_lists and (held := listed(connection, address)):
            standing = replace(standing, suppressions=(*standing.suppressions, *held))
        if standing is not facts.standing:
            facts = replace(facts, standing=standing)
        self._remembered[address.key] = facts
        return facts

    def _with_wider(self, connection: Connection, address: Address, standing: Standing) -> Standing:
        """Return what counts of a person's own standing, and what was said for more than that address."""
        standing = standing.counting(self._unfinished)
        wider = self._domains.over(address) + said_elsewhere(connection, address, self._block_related)
        return replace(standing, suppressions=(*standing.suppressions, *wider)) if wider else standing

    async def look_alikes(self, address: Address) -> list[bytes]:
        with self._reading() as connection:
            found = _found(connection, self._ring, address)
            return [address_id for is_look_alike, address_id, _, _ in found if is_look_alike]

    async def related(self, address: Address) -> list[tuple[bytes, Address, Standing]]:
        with self._reading() as connection:
            return other_spellings(connection, address)

    def unread(self, address: Address) -> Facts:
        kid, key = self._ring[0]
        return Facts(_nobody(kid, keyed_digest(key, address.key)), None, NOTHING_KNOWN, is_read=False)

    async def address_of(self, address_id: bytes) -> Address | None:
        with self._reading() as connection:
            row = connection.execute("SELECT address FROM people WHERE address_id = ?", (address_id,)).fetchone()
        return Address.parse(row[0]) if row and row[0] else None

    async def history(self, address_id: bytes) -> list[Event]:
        with self._reading() as connection:
            rows = connection.execute(OF_PERSON, (address_id,)).fetchall()
        return [event_of(row) for row in rows]

    async def events(self, numbers: Sequence[int]) -> list[Event]:
        with self._reading() as connection:
            rows = connection.execute(OF_NUMBERS, (json.dumps(list(numbers)),)).fetchall()
        return [event_of(row) for row in rows]

    async def introduce(self, addresses: Sequence[Address]) -> list[Facts]:
        def make_known(connection: Connection) -> None:
            for one in addresses:
                person_of(connection, self._ring, one, self._now())

        await self._writer.do(make_known)
        return await self.facts(addresses)

    async def record(self, events: Sequence[NewEvent]) -> list[Event]:
        now, told = self._now(), [one for one in events if one.person != NOBODY]
        return await self._writer.do(
            lambda connection: [append_event(connection, self._ring, one, now) for one in told]
        )

    async def record_once(self, once: Once, events: Sequence[NewEvent]) -> list[int]:
        now = self._now()

        def unless_done(connection: Connection) -> list[int]:
            done = find_done(connection, once)
            if done is not None:
                return done
            numbers = [append_event(connection, self._ring, one, now).seq for one in events]
            remember_done(connection, once, numbers, now)
            return numbers

        return await self._writer.do(unless_done)

    async def done(self, once: Once) -> list[int] | None:
        with self._reading() as connection:
            return find_done(connection, once)

    async def link(self, old: Address, new: Address, facts: Mapping[str, Any]) -> list[Event]:
        now = self._now()
        return await self._writer.do(lambda connection: link_people(connection, self._ring, old, new, facts, now))

    async def erase(self, erasure: NewEvent) -> Event | None:
        def unless_held(connection: Connection) -> Event | None:
            _, standing = person_of(connection, self._ring, erasure.person, self._now())
            return None if standing.is_held else append_event(connection, self._ring, erasure, self._now())

        return await self._writer.do(unless_held)

    async def opt_out(self, events: Sequence[NewEvent]) -> None:
        """As the interface says. While the people store is known to be away, nobody is kept waiting for it."""
        try:
            if self._standby.condition[Trouble.PEOPLE]:
                raise StoreUnavailable("the people store is away")
            async with asyncio.timeout(OPT_OUT_SECONDS):
                await self.record(events)
        except (StoreUnavailable, TimeoutError):
            await asyncio.to_thread(self._standby.journal.append, events)

    async def apply_journal(self) -> int:
        return await self._standby.journal.drain(self.record)

    async def probe(self) -> None:
        await self._writer.do(lambda _: None)

    async def suppressed(self) -> list[tuple[Address | None, Standing]]:
        """Return everyone who has a suppression, with None for an erased address."""
        with self._reading() as connection:
            rows = connection.execute(f"SELECT address, standing FROM people WHERE {_SUPPRESSED}").fetchall()
        return [(Address.parse(a) if a else None, Standing.from_json(json.loads(s))) for a, s in rows]

    async def count_suppressed(self) -> int:
        with self._reading() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM people WHERE {_SUPPRESSED}").fetchone()
        return int(count)

    async def suppressed_after(self, address_id: bytes, limit: int) -> list[tuple[bytes, Address | None, Standing]]:
        with self._reading() as connection:
            rows = connection.execute(_NEXT_SUPPRESSED, (address_id, limit)).fetchall()
        return [(i, Address.parse(a) if a else None, Standing.from_json(json.loads(s))) for i, a, s in rows]

    async def search_suppressed(
        self, part: str, address_id: bytes, limit: int
    ) -> tuple[list[tuple[bytes, Address, Standing]], bytes]:
        with self._reading() as connection:
            rows = connection.execute(_SEARCH, (address_id, _LOOKED_THROUGH, part.lower(), limit)).fetchall()
            seen, last = connection.execute(_SEARCHED, (address_id, _LOOKED_THROUGH)).fetchone()
        found = [(i, Address.parse(a), standing_of(s)) for i, a, s in rows]
        if len(found) == limit:
            return found, found[-1][0]
        return found, last if seen == _LOOKED_THROUGH else b""

    async def standings_after(self, address_id: bytes, limit: int) -> list[tuple[bytes, Standing]]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT address_id, address, standing FROM people WHERE address_id > ? AND address IS NOT NULL"
                " AND address NOT LIKE '*@%' ORDER BY address_id LIMIT ?",
                (address_id, limit),
            ).fetchall()
            return self._standings(connection, rows)

    async def standings_of(self, persons: Sequence[str]) -> list[tuple[bytes, Standing]]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT address_id, address, standing FROM people WHERE address IS NOT NULL"
                " AND address_id IN (SELECT unhex(value) FROM json_each(?))",
                (json.dumps(list(persons)),),
            ).fetchall()
            return self._standings(connection, rows)

    def _standings(
        self, connection: Connection, rows: Sequence[tuple[bytes, str, str]]
    ) -> list[tuple[bytes, Standing]]:
        """Return what stands for people by their id, address and own standing, as a look-up would."""
        self._unfinished = unfinished_imports(connection)
        self._domains.refresh(connection)
        return [
            (person, self._with_wider(connection, Address.parse(text), Standing.from_json(json.loads(standing))))
            for person, text, standing in rows
        ]

    async def events_after(self, seq: int, limit: int) -> list[Event]:
        with self._reading() as connection:
            rows = connection.execute(f"{EVENTS} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", (seq, limit)).fetchall()
        return [event_of(row) for row in rows]

    async def events_of(self, types: Collection[EventType], seq: int, limit: int) -> tuple[list[Event], int]:
        with self._reading() as connection:
            (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
            until = min(last or 0, seq + _LOOKED_THROUGH)
            rows = connection.execute(_OF_TYPES, (seq, until, json.dumps(sorted(types)), limit)).fetchall()
        events = [event_of(row) for row in rows]
        return events, events[-1].seq if len(events) == limit else max(seq, until)

    async def imports_completed(self) -> dict[int, datetime]:
        with self._reading() as connection:
            return imports_completed(connection)

    async def last_event(self) -> int:
        with self._reading() as connection:
            (last,) = connection.execute("SELECT max(seq) FROM events").fetchone()
        return last or 0

    async def lines_after(self, seq: int, limit: int) -> list[LedgerLine]:
        with self._reading() as connection:
            return read_lines(connection, seq, limit)

    async def histories_after(self, address_id: bytes, limit: int) -> list[PersonHistory]:
        with self._reading() as connection:
            return read_histories(connection, address_id, limit, lambda one: self.unread(one).who)

    # topics

    def topic_slug(self, number: int) -> str | None:
        if number not in self._slugs:
            self._learn(self._read_known())
        return self._slugs.get(number)

    def topic_number(self, slug: str) -> int:
        return self._numbers[slug]

    async def number_topics(self, slugs: Sequence[str]) -> None:
        """Give each topic that has none a number in links; a number is never reused."""

        def add(connection: Connection) -> None:
            (last,) = connection.execute("SELECT max(number) FROM topics").fetchone()
            first = max(FIRST_TOPIC, (last or 0) + 1)
            new = [slug for slug in slugs if slug not in self._numbers]
            connection.executemany("INSERT OR IGNORE INTO topics VALUES (?, ?)", enumerate(new, first))

        if any(slug not in self._numbers for slug in slugs):
            await self._writer.do(add)
            self._learn(self._read_known())

    # what operators have ordered

    async def login(self, name: str) -> LoginRecord | None:
        try:
            with self._reading() as connection:
                return read_login(connection, name)
        except StoreUnavailable:
            return self._standby.snapshot.read().orders.logins.get(name)

    async def logins(self) -> list[LoginRecord]:
        try:
            with self._reading() as connection:
                return read_logins(connection)
        except StoreUnavailable:
            return list(self._standby.snapshot.read().orders.logins.values())

    def orders(self) -> Orders:
        """As the interface says; what cannot be read now is taken to stand as it last did."""
        if self._orders_read != self._read:
            with suppress(StoreUnavailable), self._reading() as connection:
                self._orders = read_orders(connection)
                self._orders_read = self._read
        return self._orders

    async def api_tokens(self) -> list[ApiToken]:
        with self._reading() as connection:
            return read_tokens(connection)

    async def put_api_token(self, token: ApiToken) -> None:
        await self._writer.do(lambda connection: put_token(connection, token))

    async def pause_stream(self, stream: str, why: str, by: str) -> bool:
        return await self._order(lambda connection: change_stream(connection, stream, True, why, by, self._now()))

    async def release_stream(self, stream: str, by: str) -> bool:
        return await self._order(lambda connection: change_stream(connection, stream, False, "", by, self._now()))

    # what is told to programs

    async def pauses_after(self, number: int) -> list[Pause]:
        with self._reading() as connection:
            return read_pauses(connection, number)

    async def last_pause(self) -> int:
        with self._reading() as connection:
            (last,) = connection.execute("SELECT max(number) FROM stream_pauses").fetchone()
        return last or 0

    async def tell_of_erasures(self, webhooks: Sequence[str]) -> None:
        with self._reading() as connection:
            known = {name for (name,) in connection.execute("SELECT webhook FROM told_of_erasures")}
        if known != set(webhooks):
            await self._writer.do(lambda connection: put_readers(connection, webhooks))

    async def farewells(self, after: int, until: int) -> dict[int, str]:
        with self._reading() as connection:
            return dict(connection.execute(_FAREWELLS, (after, until)))

    async def forget_farewells(self, until: int) -> None:
        await self._writer.do(lambda connection: connection.execute("DELETE FROM farewells WHERE seq <= ?", (until,)))

    async def policies(self) -> list[PublishedPolicy]:
        with self._reading() as connection:
            return read_policies(connection)

    async def publish_policy(self, policy: PublishedPolicy) -> bool:
        return await self._order(lambda connection: put_policy(connection, policy))

    async def requests(self) -> list[Request]:
        with self._reading() as connection:
            return read_requests(connection)

    async def breaches(self) -> list[Breach]:
        with self._reading() as connection:
            return read_breaches(connection)

    async def open_breach(self, breach: Breach, by: str) -> bool:
        return await self._writer.do(lambda connection: open_breach(connection, breach, by))

    async def close_breach(self, name: str, reported_at: datetime, by: str) -> None:
        await self._writer.do(lambda connection: close_breach(connection, name, reported_at, by))

    async def begin_notices(self, notices: Sequence[NewEvent], text: str) -> list[Event]:
        now = self._now()
        return await self._writer.do(lambda connection: begin_notices(connection, self._ring, notices, text, now))

    async def notices_of_policy(self, version: str) -> list[NoticeRecord]:
        with self._reading() as connection:
            return read_notices(connection, version)

    async def put_login(self, record: LoginRecord) -> None:
        """Add a login or change the one of that name; its test recipients become known, so that links can name them."""

        def put(connection: Connection) -> None:
            put_login(connection, record, self._now())
            for one in record.login.test_recipients:
                person_of(connection, self._ring, Address.parse(one), self._now())

        await self._order(put)

    async def _order(self, change: Callable[[Connection], T]) -> T:
        """Commit what an operator orders, whatever becomes of the snapshot."""
        result = await self._writer.do(change)
        try:
            await self.take_snapshot()
        except StoreUnavailable as error:
            log.warning("the snapshot of logins and streams is not up to date: %s", error)
        return result

    async def take_snapshot(self) -> None:
        await asyncio.to_thread(self._standby.snapshot.write, self._read_known())

    def _read_known(self) -> Known:
        with self._reading() as connection:
            topics = connection.execute("SELECT number, slug FROM topics").fetchall()
            return Known(read_orders(connection), dict(topics))

    def _known(self) -> Known:
        """Return what stands of logins, streams and topics; without the people store, what stood last."""
        try:
            return self._read_known()
        except StoreUnavailable:
            return self._standby.snapshot.read()

    def _learn(self, known: Known) -> None:
        self._orders = known.orders
        self._slugs = dict(known.topics)
        self._numbers = {slug: number for number, slug in known.topics.items()}

    # notices

    async def notices(self) -> list[Notice]:
        with self._reading() as connection:
            return read_wordings(connection)

    async def add_notice(self, notice: Notice) -> None:
        await self._writer.do(lambda connection: put_wording(connection, notice))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with reading(self._path):
            yield self._reader.connection()


def _facts(connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address) -> Facts:
    """Look an address up under every key of the ring, the one in force first, and those that look like it beside it."""
    person: tuple[bytes, str] | None = None
    others: list[tuple[str, str | None]] = []
    for is_look_alike, address_id, standing, text in _found(connection, ring, address):
        if is_look_alike:
            others.append((standing, text))
        else:
            person = person or (address_id, standing)
    if person is None:
        kid, key = ring[0]
        facts = Facts(_nobody(kid, keyed_digest(key, address.key)), address_id=None, standing=NOTHING_KNOWN)
    else:
        facts = Facts(who=person[0].hex(), address_id=person[0], standing=standing_of(person[1]))
    return _with_look_alikes(facts, others) if others else facts


def _nobody(kid: int, digest: bytes) -> str:
    """Return how decision lines call an address that is nobody's, as far as we know."""
    return f"{kid}:{digest[:16].hex()}"


def _found(
    connection: Connection, ring: Sequence[tuple[int, bytes]], address: Address
) -> Iterator[tuple[bool, bytes, str, str | None]]:
    """Yield whose address this is, and who else's it looks like: whether it only does, id, standing, address if any."""
    for kid, key in ring:
        yield from connection.execute(LOOK_UP, (kid, *_digests(key, address)))


def _with_look_alikes(facts: Facts, others: Sequence[tuple[str, str | None]]) -> Facts:
    """Add the suppressions of addresses that differ in Unicode case only: suppression matches broadly (SUP-02)."""
    found = dict.fromkeys(
        replace(one, entry=text or "an erased address that looks like it")
        for standing, text in others
        for one in standing_of(standing).suppressions
    )
    return replace(facts, standing=replace(facts.standing, suppressions=(*facts.standing.suppressions, *found)))


def _digests(key: bytes, address: Address) -> tuple[bytes, bytes]:
    narrow = keyed_digest(key, address.key)
    return narrow, narrow if address.broad_key == address.key else keyed_digest(key, address.broad_key)
