"""Claim, decide again, stamp, sign, relay, settle.

The rules that must not be broken: the policy is asked at most a second before each copy's MAIL FROM, with facts
read then, so that an opt-out also stops mail that is already queued (OUT-02); and a copy leaves the spool only when
its end has been written down. Failures of the next hop are values here (`Reply`) or make copies wait
(`RelayUnavailable`); neither ever becomes a suppression.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from gateway.bells import Bell
from gateway.consent import NOTHING_KNOWN
from gateway.copies import CopyMaker, MessageDraft
from gateway.decisions import attempt_line, subject_of
from gateway.errors import RelayUnavailable, StoreUnavailable
from gateway.explaining import Explanations
from gateway.ids import Ids, spool_text
from gateway.lanes import Lane, Lanes, Parcel, Shared, domain_of
from gateway.law import Law
from gateway.manner import commercial_manner_of, manner_of
from gateway.metrics import Metrics
from gateway.model import (
    Action,
    Alphabet,
    Company,
    Copy,
    MessageClass,
    Outcome,
    Priority,
    Purpose,
    Reason,
    Reply,
    RetrySchedule,
    SpooledMessage,
    SpooledRecipient,
    Stream,
    Topic,
    Verdict,
    priority_of,
)
from gateway.noticing import NoticeRecords, Reader
from gateway.policy import LACKS_CONSENT, RULES, needs_facts, refusal, strictest
from gateway.pretence import over
from gateway.report import is_told
from gateway.smarthost import AMBIGUOUS, Connection, PrepareAgain, is_our_own
from gateway.stamp import Unstampable
from gateway.store import Claimed, Facts, Now, Settlement, Store, Waiting

log = logging.getLogger(__name__)

CLAIM_SECONDS = 1.0
BACKLOG_SECONDS = 0.05
"""Between two claims while there is more than one claim brings."""
CLAIM_SIZE = 200
SHARED_FROM = 50
"""Copies of one message from which the other workers get their share of them: for fewer it is not worth a claim."""
_STORE_PAUSE = 1.0
_UNDECIDED_PAUSE = 5.0
"""Seconds after which copies are looked at again that could not be decided on."""
_TOO_MANY_RECIPIENTS = frozenset({(452, ""), (452, "4.5.3"), (552, "5.5.3")})
"""What a smarthost answers to the recipients beyond its limit; 552 is RFC 821's, which RFC 5321 wants read as 452."""
_INTERNAL = Reply(451, "4.3.0", "internal error")
_SLOWED_DOWN = Reply(451, "4.7.1", "the recipient's domain has asked us to slow down")


class Delivery:
    """One worker's part of delivery: what it has kept or claimed, through its share of connections."""

    def __init__(
        self,
        store: Store,
        copies: CopyMaker,
        lanes: Mapping[str, Lanes],
        streams: Mapping[str, Stream],
        topics: Mapping[str, Topic],
        company: Company,
        law: Law,
        ids: Ids,
        bell: Bell,
        metrics: Metrics,
        now: Now,
    ) -> None:
        self._store = store
        self._copies = copies
        self._lanes = lanes
        self._bell = bell
        self._streams = streams
        self._topics = topics
        self._company = company
        self._law = law
        self._ids = ids
        self._metrics = metrics
        self._now = now
        self._notices = NoticeRecords(store.people, now)
        self._explanations = Explanations(store.people, law, now)
        self._schedules = {
            name: stream.promotion_schedule(lanes[stream.smarthost].schedule) for name, stream in streams.items()
        }
        self._next_take_over = 0.0
        self._held: Collection[int] = ()
        self._runners: list[asyncio.Task[None]] = []
        self._claimer: asyncio.Task[None] | None = None

    def start(self, runners_a_connection: int) -> None:
        """Begin to relay."""
        self._claimer = asyncio.create_task(self._claim_for_ever())
        self._runners = [
            asyncio.create_task(self._relay_for_ever(lane))
            for lane in self._all_lanes()
            for _ in range(runners_a_connection * lane.connections)
        ]

    async def stop(self, seconds: float) -> None:
        """Finish and settle what is under way; what waits stays in the spool, for whoever starts next.

        An attempt that takes longer than `seconds` is given up; its copy may come twice, but is not lost.
        """
        if self._claimer:
            self._claimer.cancel()
        for lane in self._all_lanes():
            lane.close()
        if self._runners:
            _, late = await asyncio.wait(self._runners, timeout=seconds)
            for runner in late:
                runner.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._explanations.record()

    # what the listener hands over

    def share(self, message: SpooledMessage, copies: int) -> int:
        lane = self._lane(priority_of(message.message_class), message.stream)
        if not lane.connections or lane.room <= len(message.message):
            return 0
        is_shared = copies >= SHARED_FROM and message.message_class is MessageClass.PROMOTIONAL
        return -(-copies // self._bell.crew) if is_shared else copies

    def ring_others(self) -> None:
        self._bell.ring_others()

    def take(self, message: SpooledMessage, addressees: Sequence[SpooledRecipient], draft: MessageDraft | None) -> None:
        lane = self._lane(priority_of(message.message_class), message.stream)
        shared = Shared(message, draft)
        for together in self._parcels(message, addressees):
            lane.put(Parcel(shared, together))

    def _parcels(
        self, message: SpooledMessage, addressees: Sequence[SpooledRecipient]
    ) -> list[tuple[SpooledRecipient, ...]]:
        """Split mail whose copies may differ; what is the same for all goes together (RFC 5321 §4.5.4.1)."""
        stream = self._streams.get(message.stream)
        if message.message_class is MessageClass.PROMOTIONAL or (stream and stream.is_commercial):
            return [(one,) for one in addressees]
        return [tuple(addressees)] if addressees else []

    def _lane(self, priority: Priority, stream_name: str) -> Lane:
        stream = self._streams.get(stream_name)
        lanes = self._lanes[stream.smarthost] if stream else next(iter(self._lanes.values()))
        return lanes.lane(priority)

    def _all_lanes(self) -> list[Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes]

    # what waits in the spool

    async def _claim_for_ever(self) -> None:
        while True:
            is_more = False
            try:
                is_more = await self._claim()
            except StoreUnavailable as error:
                log.warning("the spool cannot be read now: %s", error)
            except Exception:
                log.exception("claiming failed; it is tried again")
            await self._bell.wait(BACKLOG_SECONDS if is_more else CLAIM_SECONDS)

    async def _claim(self) -> bool:
        """Fill each lane that leads out of here and has room; True where one could not take all that is due."""
        await self._take_over()
        due: dict[Lane, list[Waiting]] = {}
        for waiting in filter(self._may_move, self._store.spool.due()):
            due.setdefault(self._lane(*waiting), []).append(waiting)
        is_more = False
        for lane, kinds in due.items():
            if lane.connections:
                is_more |= await self._fill(lane, kinds)
        return is_more

    def _may_move(self, waiting: Waiting) -> bool:
        """No promotion moves while a "no" may be unknown, or the time may be wrong (UNS-23, OPS-06)."""
        return waiting.priority is not Priority.PROMOTION or not self._store.condition.promotion_waits

    async def _fill(self, lane: Lane, kinds: Sequence[Waiting]) -> bool:
        if len(lane) >= CLAIM_SIZE or lane.room <= 0:
            return True
        claims = await self._store.spool.claim(kinds, CLAIM_SIZE, lane.room)
        self._hand_on(claims)
        return len(claims) >= CLAIM_SIZE

    async def _take_over(self) -> None:
        """Once a second, take what dead workers left, and let go of what an operator holds."""
        now = asyncio.get_running_loop().time()
        if now < self._next_take_over:
            return
        self._next_take_over = now + CLAIM_SECONDS
        await self._store.spool.take_over()
        await self._explanations.record()
        await self._give_back_what_is_held()

    async def _give_back_what_is_held(self) -> None:
        """Let go of what an operator has held since it was claimed, unless it is under way."""
        self._held = self._store.spool.recalled()
        if self._held:
            parcels = [parcel for lane in self._all_lanes() for parcel in lane.recall(self._held)]
            await self._put_back(parcels, 0.0)

    async def _put_back(self, parcels: Sequence[Parcel], seconds: float) -> None:
        """Leave copies in the spool without an attempt, for whoever claims them after so many seconds."""
        copies = [(parcel.message.id, one.n) for parcel in parcels for one in parcel.addressees]
        due = self._now() + timedelta(seconds=seconds)
        await _insist(lambda: self._store.spool.put_back(copies, due))

    def _hand_on(self, claims: Sequence[Claimed]) -> None:
        for message, group in groupby(claims, key=attrgetter("message")):
            self.take(message, [claimed.addressee for claimed in group], None)

    # relaying

    async def _relay_for_ever(self, lane: Lane) -> None:
        while parcel := await lane.next():
            await self._relay(parcel, lane)
            del parcel  # while this runner waits for the next one, it must not keep a large message in memory

    async def _relay(self, parcel: Parcel, lane: Lane) -> None:
        try:
            await self._deliver(parcel, lane)
        except StoreUnavailable as error:
            log.warning("copies wait until the store can be read: %s", error)
            await self._put_back([parcel], _UNDECIDED_PAUSE)
        except Exception:
            log.exception("an attempt failed unforeseen; the copies wait for the next claim")
            await self._settle_when_possible(parcel, self._deferrals(parcel, lane, _INTERNAL))
        finally:
            lane.done(parcel)

    async def _deliver(self, parcel: Parcel, lane: Lane) -> None:
        if lane.paces and (seconds := self._seconds_to_wait(parcel, lane)):
            await self._wait_for_destination(parcel, lane, seconds)
            return
        try:
            async with lane.slots, lane.connection(parcel) as connection:
                is_held = parcel.message.id in self._held
                settlements = [] if is_held else await self._attempt(parcel, lane, connection)
        except RelayUnavailable as error:
            self._metrics.smarthost_unavailable()
            unavailable = Reply(451, "4.4.1", str(error) or "no smarthost answers")
            await self._settle_when_possible(parcel, self._deferrals(parcel, lane, unavailable))
            await lane.rest()
        else:
            await (self._put_back([parcel], 0.0) if is_held else self._settle_when_possible(parcel, settlements))

    def _seconds_to_wait(self, parcel: Parcel, lane: Lane) -> float:
        """Return how long promotion leaves its destination alone; essential mail is always tried when it is due."""
        if priority_of(parcel.message.message_class) is not Priority.PROMOTION:
            return 0.0
        return lane.paces.wait(parcel.destination, asyncio.get_running_loop().time())

    async def _wait_for_destination(self, parcel: Parcel, lane: Lane, seconds: float) -> None:
        """Try it later, which is no attempt; what has waited too long already expires."""
        schedule = self._schedule(parcel, lane)
        if schedule.due(1, parcel.message.received_at, self._now()):
            await self._put_back([parcel], seconds)
        else:
            await self._settle_when_possible(parcel, self._deferrals(parcel, lane, _SLOWED_DOWN))

    async def _attempt(self, parcel: Parcel, lane: Lane, connection: Connection) -> list[Settlement]:
        """Decide again, make the copy and relay it; return how it ended for each addressee."""
        rulings = await self._rule(parcel)
        if parcel.message.notice:
            rulings = await self._begun(parcel.message, rulings)
        going = [ruling for ruling in rulings if ruling.verdict.may_send]
        ended = [self._suppressed(parcel, ruling) for ruling in rulings if not ruling.verdict.may_send]
        if not going:
            return ended
        copy = await self._copy(parcel, going, connection.alphabet)
        if parcel.draft and parcel.draft.is_large and not await self._still_stands(parcel, rulings):
            return await self._attempt(parcel, lane, connection)
        try:
            replies = await connection.relay(copy) if isinstance(copy, Copy) else [copy] * len(going)
        except PrepareAgain:
            return await self._attempt(parcel, lane, connection)
        if isinstance(copy, Copy) and (lane.paces or any(reply.is_transient for reply in replies)):
            _learn(lane, going, replies)
        if parcel.message.message_class is MessageClass.PROMOTIONAL:
            self._explanations.relayed(
                [one.facts for one, reply in zip(going, replies, strict=True) if reply.is_positive]
            )
        knows_dsn, answered = "DSN" in connection.extensions, list(zip(going, replies, strict=True))
        if crowded := _crowded_out(answered):
            self._send_in_turns(parcel, lane, crowded, len(answered) - len(crowded))
            answered = [one for one in answered if one[0] not in crowded]
        server = connection.server if isinstance(copy, Copy) else ""
        return ended + [self._ended(parcel, ruling, reply, lane, server, knows_dsn) for ruling, reply in answered]

    def _send_in_turns(self, parcel: Parcel, lane: Lane, crowded: Sequence[Ruling], together: int) -> None:
        """Let those whom one transaction was too small for go next, so many together; it was no attempt for them."""
        addressees = [ruling.addressee for ruling in crowded]
        for start in range(0, len(addressees), together):
            lane.put(Parcel(parcel.shared, tuple(addressees[start : start + together])))

    async def _rule(self, parcel: Parcel) -> list[Ruling]:
        purposes = self._purposes(parcel.message)
        facts = await self._facts(parcel)
        return [
            Ruling(addressee, known, self._verdict(parcel.message, purposes, addressee, known))
            for addressee, known in zip(parcel.addressees, facts, strict=True)
        ]

    async def _begun(self, message: SpooledMessage, rulings: Sequence[Ruling]) -> list[Ruling]:
        """Let a policy notice go only to whom no other message takes it meanwhile."""
        going = [one for one in rulings if one.verdict.may_send]
        begun = await self._notices.begin(message, [one.addressee.recipient.address for one in going])
        readers = dict(zip((one.addressee.n for one in going), begun, strict=True))
        return [_with_reader(one, readers[one.addressee.n]) if one.verdict.may_send else one for one in rulings]

    def _verdict(
        self, message: SpooledMessage, purposes: Sequence[Purpose], addressee: SpooledRecipient, known: Facts
    ) -> Verdict:
        """Decide for one addressee; a test goes only to whom the login may still send tests."""
        now, orders = self._now(), self._store.people.orders()
        if message.ends and now > message.ends:
            return Verdict(Action.REFUSE, Reason.CONTENT, over(message.ends, now), rules=RULES)
        law = self._law.under(orders.policies)
        verdict = strictest(purposes, known.standing, law, now)
        if verdict.may_send or verdict.reason not in LACKS_CONSENT:
            return verdict
        record = orders.logins.get(message.login)
        is_test = record is not None and record.login.tests(addressee.recipient.address)
        return strictest(purposes, known.standing, law, now, is_test)

    async def _facts(self, parcel: Parcel) -> list[Facts]:
        """Read what stands for each addressee; essential mail goes without, if need be (SMTP-22)."""
        depends = needs_facts(parcel.message.message_class)
        if depends and self._store.condition.promotion_waits:
            raise StoreUnavailable("promotion waits")
        try:
            return await self._store.people.facts([one.recipient.address for one in parcel.addressees])
        except StoreUnavailable:
            if depends:
                raise
            return [_unread(one) for one in parcel.addressees]

    def _purposes(self, message: SpooledMessage) -> Sequence[Purpose]:
        """Return what the message was taken for at the door; a topic that has gone since allows nobody."""
        if message.message_class is not MessageClass.PROMOTIONAL:
            notice = message.notice and message.notice._replace(message=spool_text(message.id))
            return [Purpose(message.message_class, product=message.product, notice=notice)]
        stream = self._streams.get(message.stream)
        topics = [self._topics.get(slug) for slug in message.topics]
        return [stream.promotes(topic) if stream else Purpose(message.message_class, topic) for topic in topics]

    async def _still_stands(self, parcel: Parcel, rulings: Sequence[Ruling]) -> bool:
        """Ask the policy again: while a large copy was made, its decision may have grown old (OUT-02)."""
        return [one.verdict for one in await self._rule(parcel)] == [one.verdict for one in rulings]

    async def _copy(self, parcel: Parcel, going: Sequence[Ruling], alphabet: Alphabet) -> Copy | Reply:
        """Make the parcel's copy in what the smarthost takes; a reply of our own where it cannot be made."""
        draft = await self._draft(parcel.shared, alphabet)
        if isinstance(draft, Unstampable):
            return draft.reply
        stream = self._streams.get(parcel.message.stream)
        if parcel.message.message_class is not MessageClass.PROMOTIONAL:
            if stream and stream.is_commercial and (copy := await self._commercial_copy(draft, going[0], stream)):
                return copy
            recipients = tuple([one.addressee.recipient for one in going])
            return await self._copies.shared_copy(draft, recipients, self._now(), going[0].facts.address_id)
        if obstacle := self._copies.obstacle(draft.signer):
            return Reply(451, obstacle.enhanced, obstacle.text)
        (ruling,) = going
        manner = manner_of(ruling.facts.standing, ruling.verdict, self._law, self._company, stream)
        return await self._copies.promotional_copy(draft, ruling.addressee.n, ruling.facts.person, self._now(), manner)

    async def _commercial_copy(self, draft: MessageDraft, ruling: Ruling, stream: Stream) -> Copy | None:
        """Make the copy of essential mail with a footer, where the law of its one reader wants it."""
        person = ruling.facts.address_id
        manner = commercial_manner_of(ruling.facts.standing, self._law, self._company, stream)
        if manner is None or person is None:
            return None
        return await self._copies.commercial_copy(draft, ruling.addressee.n, person, self._now(), manner)

    async def _draft(self, shared: Shared, alphabet: Alphabet) -> MessageDraft | Unstampable:
        """Work out what a message's copies share, in this alphabet; whoever else needs it meanwhile waits for it.

        Where the smarthost takes fewer letters, the message is written in them before it is drafted, and once.
        """
        async with shared.lock:
            if alphabet not in shared.written:
                fewer = await self._copies.written_in(alphabet, shared.message)
                shared.written[alphabet] = fewer if isinstance(fewer, Unstampable) else None
                if isinstance(fewer, SpooledMessage):
                    shared.rewrite(fewer)
            if problem := shared.written[alphabet]:
                return problem
            if shared.draft is None:
                shared.draft = await self._copies.draft(shared.message)
            return shared.draft

    # how it ended

    def _ended(
        self, parcel: Parcel, ruling: Ruling, reply: Reply, lane: Lane, server: str = "", knows_dsn: bool = True
    ) -> Settlement:
        """Return how it ended at a server; a success is ours to report only where that has not taken it over."""
        recipient = ruling.addressee.recipient
        if reply.is_positive:
            is_ours = not knows_dsn and is_told(recipient, Outcome.RELAYED)
            return self._settlement(parcel, ruling, Outcome.RELAYED, reply, is_told=is_ours, server=server)
        if is_our_own(reply):
            server = ""
        if reply.is_permanent:
            return self._settlement(parcel, ruling, Outcome.FAILED, reply, server=server)
        if reply is AMBIGUOUS:
            self._metrics.answer_lost()
        schedule, received_at, now = self._schedule(parcel, lane), parcel.message.received_at, self._now()
        due = schedule.due(ruling.addressee.attempts + 1, received_at, now)
        if due is None:
            return self._settlement(parcel, ruling, Outcome.EXPIRED, reply, server=server)
        is_late = now - received_at >= schedule.warn_after and is_told(recipient, Outcome.DEFERRED)
        return self._settlement(parcel, ruling, Outcome.DEFERRED, reply, due, is_told=is_late, server=server)

    def _schedule(self, parcel: Parcel, lane: Lane) -> RetrySchedule:
        """Return when to try again: the smarthost's times, but promotion may have a shorter life (OUT-03)."""
        message = parcel.message
        is_promotion = priority_of(message.message_class) is Priority.PROMOTION
        return self._schedules.get(message.stream, lane.smarthost.schedule) if is_promotion else lane.smarthost.schedule

    def _suppressed(self, parcel: Parcel, ruling: Ruling) -> Settlement:
        verdict = ruling.verdict
        reply = Reply(550, "5.7.1", f"{verdict.reason}: {verdict.sentence}")
        visible = is_told(ruling.addressee.recipient, Outcome.SUPPRESSED)
        return self._settlement(parcel, ruling, Outcome.SUPPRESSED, reply, is_told=visible)

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
        *,
        is_told: bool = False,
        server: str = "",
    ) -> Settlement:
        self._metrics.attempted(outcome)
        message, addressee = parcel.message, ruling.addressee
        line = attempt_line(
            self._ids.decision(),
            addressee.decision,
            self._now(),
            ruling.facts.who,
            subject_of(message, spool_text(message.id)),
            ruling.verdict,
            outcome,
            str(reply),
            addressee.attempts + 1,
            parcel.draft.selectors if parcel.draft else (),
            people_read=ruling.facts.is_read,
        )
        return Settlement(message.id, addressee.n, outcome, str(reply), line, due, is_told, server)

    async def _settle_when_possible(self, parcel: Parcel, settlements: Sequence[Settlement]) -> None:
        """Write down how it ended, however long the store takes to come back: what was relayed is not relayed again."""
        if parcel.message.notice:
            await self._notices.end(parcel.message, settlements)
        await _insist(lambda: self._store.spool.settle(settlements))


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided just now for one addressee, and the facts that it was decided on."""

    addressee: SpooledRecipient
    facts: Facts
    verdict: Verdict


def _with_reader(ruling: Ruling, reader: Reader) -> Ruling:
    """Return the ruling about who gets a policy notice, whom its link can name now, or has it already."""
    if not reader.is_first:
        return replace(ruling, verdict=refusal(Reason.REPEATED))
    return replace(ruling, facts=replace(ruling.facts, address_id=reader.address_id)) if reader.address_id else ruling


DEFERRED = Verdict(Action.DEFER)


async def _insist(write: Callable[[], Awaitable[object]]) -> None:
    """Write to the spool, however long it takes to come back."""
    while True:
        try:
            await write()
            return
        except StoreUnavailable as error:
            log.warning("an outcome waits to be written down: %s", error)
            await asyncio.sleep(_STORE_PAUSE)


def _crowded_out(answered: Sequence[tuple[Ruling, Reply]]) -> list[Ruling]:
    """Return who was one too many in a transaction that others got through (RFC 5321 §4.5.3.1.10)."""
    if not any(reply.is_positive for _, reply in answered):
        return []
    return [ruling for ruling, reply in answered if (reply.code, reply.enhanced) in _TOO_MANY_RECIPIENTS]


def _learn(lane: Lane, going: Sequence[Ruling], replies: Sequence[Reply]) -> None:
    """Remember which destinations want to be served more slowly, and which do not any more (OUT-16)."""
    now = asyncio.get_running_loop().time()
    for ruling, reply in zip(going, replies, strict=True):
        lane.paces.heard(domain_of(ruling.addressee.recipient.address), reply, now)


def _unread(addressee: SpooledRecipient) -> Facts:
    """Return what is known of an addressee without the people store: what was said at the door."""
    return Facts(addressee.who, None, NOTHING_KNOWN, is_read=False)
