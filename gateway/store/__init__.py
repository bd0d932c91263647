"""The store's interface: domain verbs, not SQL. What it keeps is on disk before a verb returns.

The seam for another back end is here: `Store` is what every room sees, and each back end writes its own SQL behind
it. A verb that cannot be carried out raises `StoreUnavailable` and has changed nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gateway.address import Address
from gateway.consent import Event, EventType, NewEvent, Standing
from gateway.errors import ConfigError
from gateway.evidence import Notice
from gateway.law import PolicyVersion
from gateway.model import (
    CampaignName,
    Fate,
    Login,
    Outcome,
    Priority,
    ReportedRefusal,
    SpooledMessage,
    SpooledRecipient,
)
from gateway.rights import Breach, Request
from gateway.store.condition import Condition
from gateway.store.outgoing import Calls, Pause

Now = Callable[[], datetime]
Progress = Callable[[float], None]
"""Is told how far something is, from 0 to 1."""


def untold(part: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows of one address: how decision lines call it, its id if it is a person's, its standing."""

    who: str
    address_id: bytes | None
    standing: Standing
    is_read: bool = True
    """False where the people store was away: then nothing is known, and only what needs no consent may go."""

    @property
    def person(self) -> bytes:
        """The id of whoever has a standing; raises `LookupError` for an address that is nobody's yet."""
        if self.address_id is None:
            raise LookupError("the address is nobody's yet")
        return self.address_id


@dataclass(frozen=True, slots=True)
class Claimed:
    """A copy that this worker alone may relay now."""

    message: SpooledMessage
    addressee: SpooledRecipient


class Waiting(NamedTuple):
    """A kind of mail of which something is due: how urgent it is, and its stream."""

    priority: Priority
    stream: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one attempt ended. `due` is when to try again, for `DEFERRED` only; `line` is the decision line; `server`
    the host that gave the reply, "" where it is our own.

    With `is_told` the submitter hears of it, though nothing has failed: in the message's one report, now if deferred.
    """

    message_id: int
    n: int
    outcome: Outcome
    reply: str
    line: bytes
    due: datetime | None = None
    is_told: bool = False
    server: str = ""


@dataclass(frozen=True, slots=True)
class Unidentified:
    """A decision at the door that was made without the people store, and the address that it was about."""

    decision: str
    message_id: str
    address: str


ReportMaker = Callable[[SpooledMessage, Sequence[Fate]], tuple[SpooledMessage, SpooledRecipient] | None]
"""Makes the message that tells a submitter what became of recipients; None where nobody is to be told."""


SummaryMaker = Callable[[Sequence[ReportedRefusal]], tuple[SpooledMessage, SpooledRecipient]]
"""Makes the message that tells a login's contact who was refused of a campaign."""


@dataclass(frozen=True, slots=True)
class LoginRecord:
    """A login as the store keeps it. `secret` is its password's hash, "" where it has none."""

    login: Login
    secret: str = field(repr=False)
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A program that may use the API, and what for. The token itself is nowhere: only its SHA-256 digest is kept."""

    name: str
    digest: bytes = field(repr=False)
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is carried out once, however often it comes: who sent it, its key, and its digest."""

    holder: str
    key: str
    request: bytes


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a stream is paused since `at`, or was released then; `changes` counts how often it was either."""

    changes: int
    is_paused: bool
    why: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """A version of the privacy policy as it was published: what it asks for, its text, when and by whom."""

    version: PolicyVersion
    text: str
    published_at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """What is on record of one person's notice of a policy version.

    `address` is None once it has been erased, `text` where that was only theirs; without an outcome it may be on its
    way.
    """

    address_id: bytes
    address: str | None
    message: str
    begun_at: datetime
    text_digest: str
    text: str | None
    ended_at: datetime | None
    outcome: str | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators have ordered: every login by name, streams that were ever paused by theirs, policies."""

    logins: Mapping[str, LoginRecord]
    streams: Mapping[str, StreamState]
    policies: tuple[PolicyVersion, ...] = ()

    def is_paused(self, stream: str) -> bool:
        state = self.streams.get(stream)
        return state is not None and state.is_paused


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """One line of `queue list`. `due` is None for what an operator holds; `message` comes without its octets."""

    message: SpooledMessage
    size: int
    n: int
    address: str
    outcome: Outcome
    attempts: int
    due: datetime | None
    is_claimed: bool
    reply: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What an operator means: some messages, or some copies (message, n), or all of a stream, or everything."""

    messages: tuple[int, ...] = ()
    stream: str = ""
    only_held: bool = False
    copies: tuple[tuple[int, int], ...] = ()


class LedgerLine(NamedTuple):
    """An event with all that its hash is made of; salt is None where the personal fields have been erased.

    `redaction` signs the personal fields where some have lapsed, so that the commitment covers more than is left.
    """

    event: Event
    commitment: bytes
    digest: bytes
    salt: bytes | None
    redaction: bytes | None


class PersonHistory(NamedTuple):
    """A person with all their events; `who` is how an address's key is told ("" once the address has been erased)."""

    person: bytes
    who: str
    events: list[Event]


class People(Protocol):
    """People, their history, and what operators keep beside them."""

    async def facts(self, addresses: Sequence[Address]) -> list[Facts]:
        """Return what stands for each address now, in order: one look-up each."""

    async def look_alikes(self, address: Address) -> list[bytes]:
        """Return who has an address that differs in Unicode case only, whose "no" counts for this one too (SUP-02)."""

    async def related(self, address: Address) -> list[tuple[bytes, Address, Standing]]:
        """Return who has a suppression and is, by the provider's rules, the same mailbox spelled otherwise (SUP-04)."""

    async def introduce(self, addresses: Sequence[Address]) -> list[Facts]:
        """Make people of addresses that are nobody's, so that links can name them; nothing is recorded about them."""

    async def record(self, events: Sequence[NewEvent]) -> list[Event]:
        """Append events to the ledger, all or none; what would say nothing new returns its earlier line (UNS-24)."""

    async def record_once(self, once: Once, events: Sequence[NewEvent]) -> list[int]:
        """Record events, and remember the key with them; return their numbers, those of the first time if it is known.

        Raises `KeyReused` where the key came with another request before.
        """

    async def done(self, once: Once) -> list[int] | None:
        """Return the events of a request that has been carried out, None for a new one; raises `KeyReused`."""

    async def link(self, old: Address, new: Address, facts: Mapping[str, Any]) -> list[Event]:
        """Record that two addresses are one person's; what was objected to at one holds at the other, from now on too.

        Returns nothing where that is on record already.
        """

    async def erase(self, erasure: NewEvent) -> Event | None:
        """Record an erasure: what names the person goes from the ledger at once. None while a legal hold stands."""

    async def opt_out(self, events: Sequence[NewEvent]) -> None:
        """Keep a "no": in the ledger, or within seconds in this machine's journal, which the ledger gets later.

        On return it is on disk, and no promotion is decided on without it; `StoreUnavailable` if neither took it.
        """

    async def apply_journal(self) -> int:
        """Record what the journal has, and return how many events that were."""

    async def probe(self) -> None:
        """See that events could be recorded; raises `StoreUnavailable`."""

    def unread(self, address: Address) -> Facts:
        """Return what can be said of an address without asking: how decision lines call it, and nothing else."""

    async def history(self, address_id: bytes) -> list[Event]:
        """Return a person's events in the order in which they were recorded."""

    async def events(self, numbers: Sequence[int]) -> list[Event]:
        """Return events by their numbers, those that there are, in the order of the ledger."""

    async def address_of(self, address_id: bytes) -> Address | None:
        """Return a person's address; None once it has been erased, or if there is no such person."""

    async def suppressed(self) -> list[tuple[Address | None, Standing]]:
        """Return everyone who has a suppression, with None for an erased address."""

    async def count_suppressed(self) -> int:
        """Return how many people have a suppression."""

    async def suppressed_after(self, address_id: bytes, limit: int) -> list[tuple[bytes, Address | None, Standing]]:
        """Return the next people who have a suppression, in the order of their ids; b"" comes before the first."""

    async def search_suppressed(
        self, part: str, address_id: bytes, limit: int
    ) -> tuple[list[tuple[bytes, Address, Standing]], bytes]:
        """Return the next suppressed people in whose address a part stands, and where to go on, b"" at the end.

        Some thousands are looked through at a time, so that nobody waits: what is returned may be few, or nobody.
        """

    async def standings_after(self, address_id: bytes, limit: int) -> list[tuple[bytes, Standing]]:
        """Return what stands for the next people with an address of their own, as `facts` does, in the order of ids."""

    async def standings_of(self, persons: Sequence[str]) -> list[tuple[bytes, Standing]]:
        """Return what stands for people by their ids in hexadecimal, without those who are unknown or erased."""

    async def events_after(self, seq: int, limit: int) -> list[Event]:
        """Return the next events of the ledger, in the order in which they were recorded."""

    async def events_of(self, types: Collection[EventType], seq: int, limit: int) -> tuple[list[Event], int]:
        """Return the next events of these types after one, and up to which event has been looked.

        Some thousands are looked through at a time, so that nobody waits: what is returned may be none.
        """

    async def imports_completed(self) -> dict[int, datetime]:
        """Return when the consents of each import began to count; a time to come for one that is not complete."""

    async def last_event(self) -> int:
        """Return the number of the newest event; 0 for an empty ledger."""

    async def lines_after(self, seq: int, limit: int) -> list[LedgerLine]:
        """Return the next events of the ledger with what their hashes are made of."""

    async def histories_after(self, address_id: bytes, limit: int) -> list[PersonHistory]:
        """Return the next people and all their events, in the order of their ids; b"" comes before the first."""

    async def number_topics(self, slugs: Sequence[str]) -> None:
        """Give each topic that has none a number in links; a number is never reused."""

    def topic_slug(self, number: int) -> str | None:
        """Return the topic that has this number in links, also one that the configuration no longer names."""

    def topic_number(self, slug: str) -> int:
        """Return the topic's number in links."""

    async def api_tokens(self) -> list[ApiToken]:
        """Return every API token, by name."""

    async def put_api_token(self, token: ApiToken) -> None:
        """Add an API token, or change the one of that name."""

    async def login(self, name: str) -> LoginRecord | None:
        """Return a login, disabled or not."""

    async def logins(self) -> list[LoginRecord]:
        """Return every login, by name."""

    async def put_login(self, record: LoginRecord) -> None:
        """Add a login, or change the one of that name; its test recipients become people whom links can name."""

    def orders(self) -> Orders:
        """Return what operators had ordered when `facts` was last asked: the same object until somebody commits."""

    async def pause_stream(self, stream: str, why: str, by: str) -> bool:
        """Let a stream take no more mail until it is released; False where it is paused already."""

    async def release_stream(self, stream: str, by: str) -> bool:
        """Let a paused stream take mail again; False where it is not paused."""

    async def pauses_after(self, number: int) -> list[Pause]:
        """Return the pauses of streams after one, in the order in which they came."""

    async def last_pause(self) -> int:
        """Return the number of the newest pause; 0 for none."""

    async def tell_of_erasures(self, webhooks: Sequence[str]) -> None:
        """Keep an erased person's address for whoever is to be told of it, and from now on only for these."""

    async def farewells(self, after: int, until: int) -> dict[int, str]:
        """Return the addresses of those who were erased by an event in between (the last one included)."""

    async def forget_farewells(self, until: int) -> None:
        """Forget the addresses of those who were erased by an event up to this one."""

    async def policies(self) -> list[PublishedPolicy]:
        """Return every published version of the privacy policy, the newest first."""

    async def publish_policy(self, policy: PublishedPolicy) -> bool:
        """Publish a version, which never changes afterwards; False where it has been published already."""

    async def requests(self) -> list[Request]:
        """Return what people have asked for by right, answered or not, in the order in which it came in."""

    async def breaches(self) -> list[Breach]:
        """Return every breach of personal data that was opened, the oldest first."""

    async def open_breach(self, breach: Breach, by: str) -> bool:
        """Record a breach; False where there is one of that name, whoever was sooner."""

    async def close_breach(self, name: str, reported_at: datetime, by: str) -> None:
        """Record when the authority was told."""

    async def begin_notices(self, notices: Sequence[NewEvent], text: str) -> list[Event]:
        """Record that notices of a policy version are about to leave; for who has one, return the line that said so."""

    async def notices_of_policy(self, version: str) -> list[NoticeRecord]:
        """Return what is on record of a policy version's notices, in the order in which they began."""

    async def take_snapshot(self) -> None:
        """Keep what this machine must know of logins and topics while the people store is away."""

    async def notices(self) -> list[Notice]:
        """Return every registered notice, the oldest first."""

    async def add_notice(self, notice: Notice) -> None:
        """Register a notice; it never changes afterwards."""

    async def close(self) -> None:
        """Finish what was begun and let go of the files."""


class Refusals(Protocol):
    """What was refused and answered 250, until a summary has told it."""

    async def add(self, campaign: CampaignName, refusals: Sequence[ReportedRefusal], lines: Sequence[bytes]) -> None:
        """Keep refusals for their campaign's summary, and their decision lines; on disk on return."""

    def campaigns(self) -> list[tuple[CampaignName, datetime]]:
        """Return the campaigns that have something to tell, each with the time of its latest refusal."""

    async def summarise(self, campaign: CampaignName, make: SummaryMaker) -> None:
        """Keep the message that tells a campaign's refusals, and forget them, in one transaction."""


class Spool(Protocol):
    """The messages that we answer for."""

    refusals: Refusals

    async def keep(
        self,
        message: SpooledMessage,
        addressees: Sequence[SpooledRecipient],
        lines: Sequence[bytes],
        *,
        claimed: int,
    ) -> None:
        """Keep a message until every recipient is settled.

        All or nothing: on return the octets, the recipients and the decision lines are on disk together; if
        it raises `StoreUnavailable`, nothing is. Only then may the listener say 250. The first `claimed`
        of the recipients that are not settled are this worker's from the start, the others anybody's.
        """

    def note(self, lines: Sequence[bytes], refused: Sequence[str] = ()) -> None:
        """Keep decision lines with the next commit, within a second; a crash may lose them.

        Those of refusals that are final come with the addresses that they are about, in the same order.
        """

    def due(self) -> list[Waiting]:
        """Return of which kinds something is due and nobody's: breach notices first, promotion last."""

    async def claim(self, kinds: Sequence[Waiting], limit: int, octets: int) -> list[Claimed]:
        """Claim copies of these kinds that are due and nobody's, the most urgent first, each stream its share.

        At most `limit` of them, and at least one, but no more than `octets` of bodies.
        """

    def recalled(self) -> set[int]:
        """Return the messages of which this worker has claimed something that an operator holds since."""

    async def put_back(self, copies: Sequence[tuple[int, int]], due: datetime) -> None:
        """Let go of claimed copies (message, n) without an attempt; what is held stays so, the rest is due then."""

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Write down how attempts ended; a message whose last recipient is settled goes, and is reported on once."""

    async def take_over(self) -> int:
        """Take the copies of workers that have died back into the queue; return how many."""

    async def unidentified(self, limit: int) -> list[Unidentified]:
        """Return decisions of which it was not written down yet whom they were about."""

    async def identify(self, lines: Mapping[str, bytes]) -> None:
        """Write the line that belongs to each decision, once: of a decision that has one already, it is dropped."""

    async def close(self) -> None:
        """Write down what was noted and let go of the files."""


class Queue(Protocol):
    """What operators see of the messages that we answer for, and do to them.

    What may take long tells its `progress`, from 0 to 1, and lets others write meanwhile.
    """

    async def waiting(self, which: Selection, limit: int = ...) -> list[QueuedRecipient]:
        """Return who waits, the oldest message first."""

    async def copies_to(self, address: Address) -> tuple[tuple[int, int], ...]:
        """Return the copies (message, n) that wait for one mailbox, however it was spelled."""

    async def depth(self) -> tuple[int, datetime | None]:
        """Return how many recipients there are, and since when the oldest message has waited."""

    async def retry(self, which: Selection, progress: Progress = ...) -> int:
        """Make what is deferred or held due now; return how many recipients that were."""

    async def hold(self, which: Selection, progress: Progress = ...) -> int:
        """Let nothing more of this be relayed until it is released; return how many recipients that concerns.

        A worker that has claimed some lets go of them within a second or two, unless they are under way.
        """

    async def release(self, which: Selection, progress: Progress = ...) -> int:
        """Make what is held due now; return how many recipients that were."""

    def held(
        self, which: Selection, progress: Progress = ...
    ) -> AsyncIterator[list[tuple[SpooledMessage, SpooledRecipient]]]:
        """Yield the held copies that nobody has claimed, some at a time, their messages without octets.

        What one portion brought may be settled before the next is asked for.
        """

    async def under_way(self, which: Selection) -> int:
        """Return how many recipients a worker has claimed."""


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that the rooms ask of the store: who may be sent what, and what we answer for."""

    people: People
    spool: Spool
    queue: Queue
    calls: Calls
    condition: Condition

    async def close(self) -> None:
        """Finish what was begun and let go of every file."""
        await self.spool.close()
        await self.people.close()
        self.condition.close()


def open_path(url: str) -> Path:
    """Return the file of a `sqlite:` URL; raises `ConfigError` for what this version cannot open."""
    scheme, _, path = url.partition(":")
    if scheme != "sqlite" or not path:
        raise ConfigError([f"database = {url!r}: this version keeps its store in SQLite; write sqlite:PATH"])
    return Path(path)
