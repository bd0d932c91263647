"""Claim, decide again, stamp, sign, relay, settle.

The rules that must not be broken: the policy is asked at most a second before each copy's MAIL FROM, with facts
read then, so that an opt-out also stops mail that is already queued (OUT-02); and a copy leaves the spool only when
its end has been written down. Failures of the next hop are values here (`Reply`) or make copies wait
(`RelayUnavailable`); neither ever becomes a suppression.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from gateway.consent import NOTHING_KNOWN
from gateway.copies import CANNOT_SIGN, CopyMaker, MessageDraft
from gateway.decisions import Subject, attempt_line
from gateway.errors import RelayUnavailable, StoreUnavailable
from gateway.ids import Ids, spool_text
from gateway.metrics import Metrics
from gateway.model import (
    Action,
    Copy,
    MessageClass,
    Outcome,
    Purpose,
    Reply,
    Smarthost,
    SpooledMessage,
    SpooledRecipient,
    Stream,
    Topic,
    Verdict,
)
from gateway.policy import strictest
from gateway.smarthost import Connection, Pool, PrepareAgain
from gateway.stamp import Unstampable
from gateway.store import Claimed, Facts, Now, Settlement, Store

log = logging.getLogger(__name__)

MEMORY_BUDGET = 64 * 1024 * 1024
"""Octets of bodies that may wait here; what comes beyond is left in the spool and read back."""

CLAIM_SECONDS = 1.0
CLAIM_SIZE = 200
_STORE_PAUSE = 1.0
_PRIORITY = {MessageClass.BREACH_NOTICE: 0, MessageClass.PROMOTIONAL: 2, MessageClass.PRODUCT: 2}
_INTERNAL = Reply(451, "4.3.0", "internal error")


@dataclass(slots=True)
class Parcel:
    """What goes out in one transaction: a promotional copy for one recipient, or an essential message for all."""

    message: SpooledMessage
    addressees: tuple[SpooledRecipient, ...]
    draft: MessageDraft | None = None


class Lane:
    """The parcels that wait for one smarthost: breach notices first, promotion last."""

    def __init__(self, pool: Pool, smarthost: Smarthost) -> None:
        self.pool = pool
        self.smarthost = smarthost
        self._waiting: tuple[deque[Parcel], ...] = (deque(), deque(), deque())
        self._something = asyncio.Event()
        self._closed = asyncio.Event()

    def put(self, parcel: Parcel) -> None:
        self._waiting[_PRIORITY.get(parcel.message.message_class, 1)].append(parcel)
        self._something.set()

    async def next(self) -> Parcel | None:
        """Return the most urgent parcel, waiting for one; None once the lane is closed."""
        while not self._closed.is_set():
            for queue in self._waiting:
                if queue:
                    return queue.popleft()
            self._something.clear()
            await self._something.wait()
        return None

    async def rest(self) -> None:
        """Wait until the smarthost is worth trying again, or until the lane is closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), self.pool.rest_left)

    def close(self) -> None:
        self._closed.set()
        self._something.set()

    def __len__(self) -> int:
        return sum(map(len, self._waiting))


class Delivery:
    """One worker's part of delivery: what it has kept or claimed, through its share of connections."""

    def __init__(
        self,
        store: Store,
        copies: CopyMaker,
        lanes: Mapping[str, Lane],
        streams: Mapping[str, Stream],
        topics: Mapping[str, Topic],
        ids: Ids,
        metrics: Metrics,
        now: Now,
    ) -> None:
        self._store = store
        self._copies = copies
        self._lanes = lanes
        self._streams = streams
        self._topics = topics
        self._ids = ids
        self._metrics = metrics
        self._now = now
        self._in_memory = 0
        self._runners: list[asyncio.Task[None]] = []
        self._claimer: asyncio.Task[None] | None = None

    def start(self, runners: int) -> None:
        """Begin to relay, `runners` parcels of each smarthost at a time."""
        self._claimer = asyncio.create_task(self._claim_for_ever())
        self._runners = [
            asyncio.create_task(self._relay_for_ever(lane)) for lane in self._lanes.values() for _ in range(runners)
        ]

    async def stop(self, seconds: float) -> None:
        """Finish and settle what is under way; what waits stays in the spool, for whoever starts next.

        An attempt that takes longer than `seconds` is given up; its copy may come twice, but is not lost.
        """
        if self._claimer:
            self._claimer.cancel()
        for lane in self._lanes.values():
            lane.close()
        if self._runners:
            _, late = await asyncio.wait(self._runners, timeout=seconds)
            for runner in late:
                runner.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # what the listener hands over

    def has_room(self, size: int) -> bool:
        return self._in_memory + size <= MEMORY_BUDGET

    def take(self, message: SpooledMessage, addressees: Sequence[SpooledRecipient], draft: MessageDraft | None) -> None:
        lane = self._lane(message)
        for together in _parcels(message, addressees):
            self._in_memory += len(message.message)
            lane.put(Parcel(message, together, draft))

    def _lane(self, message: SpooledMessage) -> Lane:
        stream = self._streams.get(message.stream)
        return self._lanes[stream.smarthost] if stream else next(iter(self._lanes.values()))

    # what waits in the spool

    async def _claim_for_ever(self) -> None:
        while True:
            try:
                await self._store.spool.take_over()
                if all(len(lane) < CLAIM_SIZE for lane in self._lanes.values()) and self.has_room(0):
                    self._hand_on(await self._store.spool.claim(CLAIM_SIZE, MEMORY_BUDGET - self._in_memory))
            except StoreUnavailable as error:
                log.warning("the spool cannot be read now: %s", error)
            except Exception:
                log.exception("claiming failed; it is tried again")
            await asyncio.sleep(CLAIM_SECONDS)

    def _hand_on(self, claims: Sequence[Claimed]) -> None:
        for message, group in groupby(claims, key=attrgetter("message")):
            self.take(message, [claimed.addressee for claimed in group], None)

    # relaying

    async def _relay_for_ever(self, lane: Lane) -> None:
        while parcel := await lane.next():
            try:
                await self._deliver(parcel, lane)
            except StoreUnavailable as error:
                log.warning("copies wait until the store can be read: %s", error)
                await self._settle_when_possible(self._deferrals(parcel, lane, _INTERNAL))
            except Exception:
                log.exception("an attempt failed unforeseen; the copies wait for the next claim")
                await self._settle_when_possible(self._deferrals(parcel, lane, _INTERNAL))
            finally:
                self._in_memory -= len(parcel.message.message)

    async def _deliver(self, parcel: Parcel, lane: Lane) -> None:
        try:
            async with lane.pool.connection() as connection:
                settlements = await self._attempt(parcel, lane, connection)
        except RelayUnavailable as error:
            self._metrics.smarthost_unavailable()
            unavailable = Reply(451, "4.4.1", str(error) or "no smarthost answers")
            await self._settle_when_possible(self._deferrals(parcel, lane, unavailable))
            await lane.rest()
        else:
            await self._settle_when_possible(settlements)

    async def _attempt(self, parcel: Parcel, lane: Lane, connection: Connection) -> list[Settlement]:
        """Decide again, make the copy and relay it; return how it ended for each addressee."""
        rulings = await self._rule(parcel)
        going = [ruling for ruling in rulings if ruling.verdict.may_send]
        ended = [self._suppressed(parcel, ruling) for ruling in rulings if not ruling.verdict.may_send]
        if not going:
            return ended
        copy = self._copy(parcel, going)
        try:
            replies = await connection.relay(copy) if isinstance(copy, Copy) else [copy] * len(going)
        except PrepareAgain:
            return await self._attempt(parcel, lane, connection)
        return ended + [self._ended(parcel, ruling, reply, lane) for ruling, reply in zip(going, replies, strict=True)]

    async def _rule(self, parcel: Parcel) -> list[Ruling]:
        purposes = self._purposes(parcel.message)
        facts = await self._store.people.facts([one.recipient.address for one in parcel.addressees])
        return [
            Ruling(addressee, known, strictest(purposes, known.standing))
            for addressee, known in zip(parcel.addressees, facts, strict=True)
        ]

    def _purposes(self, message: SpooledMessage) -> Sequence[Purpose]:
        """Return what the message was taken for at the door; a topic that has gone since allows nobody."""
        if message.message_class is not MessageClass.PROMOTIONAL:
            return [Purpose(message.message_class)]
        return [Purpose(message.message_class, self._topics.get(slug)) for slug in message.topics]

    def _copy(self, parcel: Parcel, going: Sequence[Ruling]) -> Copy | Reply:
        """Make the parcel's copy; a reply of our own where it cannot be made."""
        draft = parcel.draft or self._copies.draft(parcel.message)
        if isinstance(draft, Unstampable):
            return draft.reply
        parcel.draft = draft
        if parcel.message.message_class is not MessageClass.PROMOTIONAL:
            return self._copies.shared_copy(draft, tuple(one.addressee.recipient for one in going), self._now())
        if draft.signer is None:
            return CANNOT_SIGN
        (ruling,) = going
        return self._copies.promotional_copy(draft, ruling.addressee.n, ruling.facts.person, self._now())

    # how it ended

    def _ended(self, parcel: Parcel, ruling: Ruling, reply: Reply, lane: Lane) -> Settlement:
        if reply.is_positive:
            return self._settlement(parcel, ruling, Outcome.RELAYED, reply)
        if reply.is_permanent:
            return self._settlement(parcel, ruling, Outcome.FAILED, reply)
        due = lane.smarthost.schedule.due(ruling.addressee.attempts + 1, parcel.message.received_at, self._now())
        outcome = Outcome.DEFERRED if due else Outcome.EXPIRED
        return self._settlement(parcel, ruling, outcome, reply, due)

    def _suppressed(self, parcel: Parcel, ruling: Ruling) -> Settlement:
        verdict = ruling.verdict
        reply = Reply(550, "5.7.1", f"{verdict.reason}: {verdict.sentence}")
        return self._settlement(parcel, ruling, Outcome.SUPPRESSED, reply)

    def _deferrals(self, parcel: Parcel, lane: Lane, reply: Reply) -> list[Settlement]:
        untried = [Ruling(one, Facts(one.who, None, NOTHING_KNOWN), DEFERRED) for one in parcel.addressees]
        return [self._ended(parcel, ruling, reply, lane) for ruling in untried]

    def _settlement(
        self,
        parcel: Parcel,
        ruling: Ruling,
        outcome: Outcome,
        reply: Reply,
        due: datetime | None = None,
    ) -> Settlement:
        self._metrics.attempted(outcome)
        message, addressee = parcel.message, ruling.addressee
        line = attempt_line(
            self._ids.decision(),
            addressee.decision,
            self._now(),
            ruling.facts.who,
            Subject(spool_text(message.id), "", message.login, message.stream, message.message_class, message.topic),
            ruling.verdict,
            outcome,
            str(reply),
            addressee.attempts + 1,
            parcel.draft.selectors if parcel.draft else (),
        )
        return Settlement(message.id, addressee.n, outcome, str(reply), line, due)

    async def _settle_when_possible(self, settlements: Sequence[Settlement]) -> None:
        """Write down how it ended, however long the store takes to come back: what was relayed is not relayed again."""
        while True:
            try:
                return await self._store.spool.settle(settlements)
            except StoreUnavailable as error:
                log.warning("an outcome waits to be written down: %s", error)
                await asyncio.sleep(_STORE_PAUSE)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided just now for one addressee, and the facts that it was decided on."""

    addressee: SpooledRecipient
    facts: Facts
    verdict: Verdict


DEFERRED = Verdict(Action.DEFER)


def _parcels(message: SpooledMessage, addressees: Sequence[SpooledRecipient]) -> list[tuple[SpooledRecipient, ...]]:
    """Split promotional mail, whose copies differ; what is the same for all goes together (RFC 5321 §4.5.4.1)."""
    if message.message_class is MessageClass.PROMOTIONAL:
        return [(one,) for one in addressees]
    return [tuple(addressees)] if addressees else []
