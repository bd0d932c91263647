"""What waits for a smarthost: essential mail in one lane, promotion in another, each with connections of its own.

The rule that must not be broken: essential mail never waits for promotion (OUT-17). Promotion leaves some of a
smarthost's connections alone, however slow the conversations on the others are and however much of it there is. What
becomes of a parcel is left to `delivery`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from gateway.address import Address
from gateway.copies import MessageDraft
from gateway.model import Alphabet, Priority, Smarthost, SpooledMessage, SpooledRecipient, priority_of
from gateway.pacing import Paces
from gateway.smarthost import Connection, Pool
from gateway.stamp import Unstampable

MEMORY_BUDGET = 64 * 1024 * 1024
"""Octets of messages that may wait in one process; what comes beyond is left in the spool and read back."""

PROMOTION_OF_IT = 0.75
LEFT_ALONE = 10
"""One connection in so many, and at least one, is never lent to promotion; a single one has to be shared."""

PARCEL_OCTETS = 1024
"""What a parcel takes besides its message."""


@dataclass(slots=True)
class Shared:
    """What the parcels of one message have in common: the message, and its draft, which the first works out (`lock`).

    `written` says of an alphabet whether the message is in it, None, or why it cannot be. `parcels` counts those that
    are in a lane: together they hold the message's memory once, as many octets as it `took`.
    """

    message: SpooledMessage
    draft: MessageDraft | Unstampable | None = None
    written: dict[Alphabet, Unstampable | None] = field(default_factory=lambda: {Alphabet.UTF8: None})
    parcels: int = 0
    took: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def rewrite(self, message: SpooledMessage) -> None:
        """Let the message's octets be others, and go; what was worked out of them goes with them."""
        if message.message is not self.message.message:
            self.message, self.draft = message, None


@dataclass(slots=True)
class Parcel:
    """What goes out in one transaction: a promotional copy for one recipient, or an essential message for all."""

    shared: Shared
    addressees: tuple[SpooledRecipient, ...]

    @property
    def message(self) -> SpooledMessage:
        return self.shared.message

    @property
    def draft(self) -> MessageDraft | None:
        """What its copies have in common, once that has been worked out."""
        return self.shared.draft if isinstance(self.shared.draft, MessageDraft) else None

    @property
    def destination(self) -> str:
        """The domain that it goes to; "" where there are several."""
        domains = {domain_of(one.recipient.address) for one in self.addressees}
        return domains.pop() if len(domains) == 1 else ""


def domain_of(address: Address) -> str:
    """Return an address's domain as destinations are told apart by it."""
    return address.key.rpartition("@")[2]


class Lane:
    """The parcels that wait for one smarthost and are of one kind; breach notices first."""

    def __init__(
        self,
        pool: Pool,
        smarthost: Smarthost,
        connections: int,
        budget: int,
        paces: Paces,
        *,
        gives_way: bool = False,
    ) -> None:
        self.pool = pool
        self.smarthost = smarthost
        self.paces = paces
        self.connections = connections
        self.slots = asyncio.Semaphore(connections)
        self.room = budget
        self._gives_way = gives_way
        self._waiting: tuple[deque[Parcel], deque[Parcel]] = (deque(), deque())
        self._idle: list[asyncio.Future[Parcel | None]] = []
        self._closed = asyncio.Event()

    def put(self, parcel: Parcel) -> None:
        """Hand a parcel to one of those who wait for one, or let it wait; it takes room until it is `done`."""
        if not parcel.shared.parcels:
            parcel.shared.took = len(parcel.message.message)
            self.room -= parcel.shared.took
        parcel.shared.parcels += 1
        self.room -= PARCEL_OCTETS
        while self._idle:
            runner = self._idle.pop()
            if not runner.done():
                runner.set_result(parcel)
                return
        is_breach = priority_of(parcel.message.message_class) is Priority.BREACH
        self._waiting[not is_breach].append(parcel)

    async def next(self) -> Parcel | None:
        """Return the most urgent parcel, waiting for one; None once the lane is closed."""
        if self._closed.is_set():
            return None
        for waiting in self._waiting:
            if waiting:
                return waiting.popleft()
        runner: asyncio.Future[Parcel | None] = asyncio.get_running_loop().create_future()
        self._idle.append(runner)
        return await runner

    def done(self, parcel: Parcel) -> None:
        """Give back the room that a parcel took; the last of a message gives back the message's."""
        parcel.shared.parcels -= 1
        if not parcel.shared.parcels:
            self.room += parcel.shared.took
        self.room += PARCEL_OCTETS

    def connection(self, parcel: Parcel) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for a parcel; where the smarthost has a rate, promotion gives way (OUT-17)."""
        return self.pool.connection(len(parcel.addressees), gives_way=self._gives_way)

    def recall(self, message_ids: Collection[int]) -> list[Parcel]:
        """Take out and return what still waits of these messages; it is done with."""
        recalled: list[Parcel] = []
        for waiting in self._waiting:
            parcels = list(waiting)
            waiting.clear()
            for parcel in parcels:
                (recalled if parcel.message.id in message_ids else waiting).append(parcel)
        for parcel in recalled:
            self.done(parcel)
        return recalled

    async def rest(self) -> None:
        """Wait until the smarthost is worth trying again, or until the lane is closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), self.pool.rest_left)

    def close(self) -> None:
        self._closed.set()
        for runner in self._idle:
            if not runner.done():
                runner.set_result(None)

    def __len__(self) -> int:
        return sum(map(len, self._waiting))


class Lanes:
    """The two lanes of a smarthost, which share so many connections and so much memory: neither, where it is none."""

    def __init__(self, pool: Pool, smarthost: Smarthost, connections: int, budget: int) -> None:
        paces = Paces()
        promotion = int(budget * PROMOTION_OF_IT)
        lent = max(min(1, connections), connections - max(1, connections // LEFT_ALONE))
        self.schedule = smarthost.schedule
        self.essential = Lane(pool, smarthost, connections, budget - promotion, paces)
        self.promotion = Lane(pool, smarthost, lent, promotion, paces, gives_way=True)

    def lane(self, priority: Priority) -> Lane:
        return self.promotion if priority is Priority.PROMOTION else self.essential

    def __iter__(self) -> Iterator[Lane]:
        return iter((self.essential, self.promotion))
