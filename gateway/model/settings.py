"""What operators have set: the company, its streams and logins, where mail goes and how hard it is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from gateway.address import Address
from gateway.errors import Malformed
from gateway.model.verdict import Purpose, Topic
from gateway.model.words import MessageClass, Tracking, Treatment


@dataclass(frozen=True, eq=False, slots=True)
class FooterTemplate:
    """An operator's own footers, plain text and HTML, by language; "" for who reads any other.

    Each has one `{{unsubscribe_url}}`, lines that end with CRLF, and whatever else the law wants said.
    """

    text: Mapping[str, str] = field(default_factory=dict)
    html: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Brake:
    """When a stream pauses by itself: where `percent` of the `first` recipients of a campaign are refused."""

    percent: int
    first: int

    def __str__(self) -> str:
        return f"{self.percent}% of {self.first}"


LONGEST_SHADOW = timedelta(days=60)
"""How far ahead of today the end of a stream's shadow mode may be (OPS-04)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A configured kind of mail: its class, its topics (slugs) and the From addresses it may use.

    `product` is what product mail is about, where the stream has only one (POL-04); `controller` whose mail it is, ""
    for the company's own (POL-31). `is_shadow` says that it only records who has not opted in, up to the end of the
    day `until` (OPS-04). `also_called` is as a topic's. `reads_as_promotion` is what happens to essential mail that
    does, by its class where None; `needs_ends` that a subject whose claim ends needs Assent-Campaign-Ends (CLS-09).
    `tracking`, `language` and `footer` are how its promotion looks; `refuses_others` is that it must not name others of
    its envelope (UNS-32), `mailto_first` that its List-Unsubscribe prefers mail (UNS-05). Essential mail that
    `is_commercial` has a footer where the law wants one (LAW-CA-06).
    """

    name: str
    message_class: MessageClass
    topics: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    return_paths: tuple[str, ...] = ()
    smarthost: str = "default"
    give_up_after: timedelta | None = None
    brake: Brake | None = None
    reports_refusals: bool = False
    summary_after: timedelta = timedelta(hours=1)
    product: str = ""
    controller: str = ""
    is_shadow: bool = False
    until: date | None = None
    also_called: tuple[str, ...] = ()
    reads_as_promotion: Treatment | None = None
    needs_ends: bool = False
    tracking: Tracking = Tracking.STRIP
    refuses_others: bool = False
    mailto_first: bool = False
    language: str = ""
    footer: FooterTemplate | None = None
    is_commercial: bool = False

    @property
    def is_promotional(self) -> bool:
        return self.message_class is MessageClass.PROMOTIONAL

    def in_shadow(self, now: datetime) -> bool:
        """True while it only records who has not opted in, and what its messages must not claim (OPS-04)."""
        return self.promotes(None).is_in_shadow(now)

    def treatment_of(self, message_class: MessageClass) -> Treatment:
        """Return what happens to the stream's mail of a class, not promotional, that reads as promotion."""
        by_class = Treatment.HOLD if message_class is MessageClass.PRODUCT else Treatment.REPORT
        return self.reads_as_promotion or by_class

    def promotion_schedule(self, usual: RetrySchedule) -> RetrySchedule:
        """Return when the stream's promotion is tried again: as usual, for a shorter life where it has one (OUT-03)."""
        return usual.ending(self.give_up_after) if self.give_up_after else usual

    def promotes(self, topic: Topic | None) -> Purpose:
        """Return why promotion of this stream on a topic is sent."""
        until = self.until if self.is_shadow else None
        return Purpose(MessageClass.PROMOTIONAL, topic, controller=self.controller, shadow_until=until)


@dataclass(frozen=True, slots=True)
class Login:
    """Who submits: a marketing tool or an application, with the streams it may use."""

    name: str
    streams: tuple[str, ...]
    contact: str = ""
    networks: tuple[str, ...] = ()
    tool_hosts: tuple[str, ...] = ()
    test_recipients: tuple[str, ...] = ()

    @property
    def reader(self) -> Address | None:
        """Who reads what is written about this login's mail; None where nobody can be told."""
        try:
            return Address.parse(self.contact)
        except Malformed:
            return None

    def tests(self, address: Address) -> bool:
        """True for somebody to whom the login may send promotion as a test, without an opt-in (OUT-21)."""
        return bool(self.test_recipients) and address.key in {Address.parse(one).key for one in self.test_recipients}


@dataclass(frozen=True, slots=True)
class Pace:
    """At most so many in so many seconds."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """When a deferred copy is tried again, when whoever asked hears of the delay, and when we give up.

    RFC 5321 §4.5.4.1.
    """

    steps: tuple[timedelta, ...]
    give_up_after: timedelta
    warn_after: timedelta = timedelta(hours=4)

    def ending(self, give_up_after: timedelta) -> RetrySchedule:
        """Return the same schedule for what gives up sooner."""
        return replace(self, give_up_after=min(give_up_after, self.give_up_after))

    def due(self, attempts: int, received_at: datetime, now: datetime) -> datetime | None:
        """Return when to try again after `attempts` failed ones, for the last time at the end; None to give up."""
        end = received_at + self.give_up_after
        if now >= end:
            return None
        return min(now + self.steps[min(max(attempts, 1), len(self.steps)) - 1], end)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Versioned secrets: key id (1 to 255) → key. The one in force makes new values; all verify old ones.

    The highest id is in force, unless a lower one is named because somebody at work does not know the highest yet.
    """

    keys: Mapping[int, bytes] = field(repr=False)
    named: int | None = None

    def __post_init__(self) -> None:
        if not self.keys or any(not 1 <= kid <= 255 for kid in self.keys):
            raise ValueError("a key ring needs at least one key, with ids from 1 to 255")

    @property
    def in_force(self) -> int:
        return self.named if self.named and self.named in self.keys else max(self.keys)

    def in_force_first(self) -> list[tuple[int, bytes]]:
        """Return all keys, the one that makes new values before the others, of which the newest comes first."""
        return sorted(self.keys.items(), key=lambda one: (one[0] == self.in_force, one[0]), reverse=True)


@dataclass(frozen=True, slots=True)
class Company:
    """Who promises: the sender that footers, proof and the record of processing name.

    `language` is that of footers for readers of whom none is known, `footer` the operator's own words for them.
    `list_help` and `list_owner` are URLs, and where it `refuses_posts` its lists say so (RFC 2369).
    """

    name: str
    postal_address: str
    contact: str
    privacy_policy: str
    region: str = ""
    hosts: tuple[str, ...] = ()
    help_url: str = ""
    phone: str = ""
    language: str = "en"
    footer: FooterTemplate | None = None
    list_help: str = ""
    list_owner: str = ""
    refuses_posts: bool = False

    def owns(self, host: str) -> bool:
        """True for a host that is the company's own."""
        return any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in self.hosts)


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A next hop: its addresses in order of preference, how to log in, how hard to push, when to retry.

    `authorities` are PEM certificates that are trusted instead of the system's; `rate` is in recipients a second, 0 for
    no limit.
    """

    name: str
    urls: tuple[str, ...]
    username: str = ""
    password: str = field(default="", repr=False)
    processor: str = ""
    authorities: str = field(default="", repr=False)
    connections: int = 20
    rate: float = 0.0
    messages_per_connection: int = 100
    schedule: RetrySchedule = RetrySchedule((timedelta(minutes=1),), timedelta(days=5))
