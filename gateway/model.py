"""The nouns that every room shares: envelope, submission, stream, and the four result words.

Values only: frozen, without I/O. A result that contradicts itself cannot be built. The words are those of
docs/glossary.md and mean here exactly what they mean there.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple

from gateway.address import Address
from gateway.errors import Malformed


class MessageClass(StrEnum):
    """Why a message exists (requirements §1.2, a closed set)."""

    PROMOTIONAL = "promotional"
    CONFIRMATION = "confirmation"
    PRODUCT = "product"
    ACCOUNT = "account"
    REQUESTED = "requested"
    POLICY_NOTICE = "policy-notice"
    BREACH_NOTICE = "breach-notice"
    SYSTEM = "system"


class Priority(IntEnum):
    """What goes first: breach notices before everything, promotion and product mail last (POL-20)."""

    BREACH = 0
    ESSENTIAL = 1
    PROMOTION = 2


_PRIORITIES = {
    MessageClass.BREACH_NOTICE: Priority.BREACH,
    MessageClass.PROMOTIONAL: Priority.PROMOTION,
    MessageClass.PRODUCT: Priority.PROMOTION,
}


def priority_of(message_class: MessageClass) -> Priority:
    """Return how urgent mail of a class is."""
    return _PRIORITIES.get(message_class, Priority.ESSENTIAL)


class Scope(StrEnum):
    """How much a suppression covers."""

    TOPIC = "topic"
    PARTNER = "partner"
    ALL_MARKETING = "all-marketing"
    ADDRESS = "address"


class Reason(StrEnum):
    """The stable slug of a refusal; it stands first in the reply's text."""

    NO_CONSENT = "no-consent"
    UNPROVEN = "unproven"
    UNSUBSCRIBED = "unsubscribed"
    OBJECTED = "objected"
    COMPLAINED = "complained"
    BOUNCED = "bounced"
    ERASED = "erased"
    EXPIRED = "expired"
    MINOR = "minor"
    NOT_CUSTOMER = "not-customer"
    MOVED = "moved"
    REPEATED = "repeated"
    CLASS_MISMATCH = "class-mismatch"
    UNKNOWN_TOPIC = "unknown-topic"
    CONTENT = "content"
    UNSUPPORTED_HEADER = "unsupported-header"
    PAUSED = "paused"
    MAIL_LOOP = "mail-loop"
    CANNOT_SIGN = "cannot-sign"


class Action(Enum):
    """What a verdict tells the shell to do."""

    SEND = "send"
    REFUSE = "refuse"
    HOLD = "hold"
    DEFER = "defer"


class Outcome(StrEnum):
    """Where one recipient of one message stands; never "delivered" (RFC 3464 §2.3.3: relayed)."""

    QUEUED = "queued"
    RELAYED = "relayed"
    DEFERRED = "deferred"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"

    @property
    def is_settled(self) -> bool:
        return self not in (Outcome.QUEUED, Outcome.DEFERRED)


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP answer, either direction: code, enhanced status (RFC 3463; "" for none), one line of text.

    Raises `ValueError` where code and enhanced status contradict each other (RFC 2034 §4).
    """

    code: int
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"{self.code} is not an SMTP reply code")
        if self.enhanced and self.enhanced[0] != str(self.code)[0]:
            raise ValueError(f"{self.code} {self.enhanced} contradicts itself")

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


class Treatment(StrEnum):
    """What happens where mail that a stream calls essential reads as promotion (CLS-14)."""

    REPORT = "report"
    HOLD = "hold"
    REFUSE = "refuse"


class Advertising(StrEnum):
    """From when on a country's rules call a message with another purpose promotion; the loosest first."""

    PRIMARY = "primary"
    SIGNIFICANT = "significant"
    ANY = "any"

    def or_stricter(self, other: Advertising) -> Advertising:
        """Return the one of two by which more is promotion."""
        return max(self, other, key=list(Advertising).index)


class Finding(NamedTuple):
    """What reading a message's words came to: one sentence, the ids of the signals it rests on, their version."""

    sentence: str
    signs: tuple[str, ...]
    rules: str

    def __str__(self) -> str:
        return f"{self.sentence}: {', '.join(self.signs)}"


class Leave(StrEnum):
    """What lets promotion go to somebody who has not opted in; a person's "no" holds against both."""

    TEST = "test"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What we decided for one recipient: what to do, why, on which evidence, by which rules.

    A `leave` says that only that let it go; the reason and sentence of one in shadow mode are those of the refusal.
    `content` is what the message's words were found to say, whatever came of it.
    `is_unasked` says of promotion that its reader has not opted in to it, whatever else lets it go.
    """

    action: Action
    reason: Reason | None = None
    sentence: str = ""
    evidence: tuple[int, ...] = ()
    rules: str = ""
    leave: Leave | None = None
    content: tuple[Finding, ...] = ()
    is_unasked: bool = False

    @property
    def may_send(self) -> bool:
        return self.action is Action.SEND

    @property
    def is_kept(self) -> bool:
        """True for what is sent, and for what an operator must release first."""
        return self.action in (Action.SEND, Action.HOLD)


class Period(NamedTuple):
    """A span by the calendar, as laws count: so many months, or so many days."""

    months: int = 0
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read "24mo", "2 years", "90 days"; raises `ValueError`."""
        match = _PERIOD.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a period such as 24mo, 2 years or 90 days")
        count, unit = int(match[1]), match[2][0]
        return cls(days=count) if unit == "d" else cls(months=count * (12 if unit == "y" else 1))

    def after(self, moment: datetime) -> datetime:
        """Return the end of the period that begins at `moment`; where a month has no such day, its last one."""
        month = moment.month - 1 + self.months
        year, month = moment.year + month // 12, month % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        return moment.replace(year=year, month=month, day=day) + timedelta(days=self.days)


_PERIOD = re.compile(r"(\d{1,4})\s*(d|days?|mo|months?|y|years?)")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a person can opt in to and out of. Its number in links is the store's (`Store.topic_numbers`).

    `families` are the product families that it is about (LAW-EU-03); an opt-in lapses after `max_age` (CON-15);
    `also_called` are other systems' names for it, in lower case ("sendgrid:17").
    """

    slug: str
    name: str
    partner: bool = False
    families: tuple[str, ...] = ()
    max_age: Period | None = None
    also_called: tuple[str, ...] = ()


class PolicyNotice(NamedTuple):
    """What a notice of a new policy is about: the version, and whether it asks for consent anew.

    `message` is the spooled message that carries it, "" at the door.
    """

    version: str
    asks: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why a message is sent: its class; for promotion its topic and whose it is ("" is the company); its product.

    Up to the end of `shadow_until` (UTC) promotion goes to those as well who have not opted in (OPS-04).
    """

    message_class: MessageClass
    topic: Topic | None = None
    product: str = ""
    controller: str = ""
    shadow_until: date | None = None
    notice: PolicyNotice | None = None

    def is_in_shadow(self, now: datetime) -> bool:
        return self.shadow_until is not None and now.date() <= self.shadow_until


@dataclass(frozen=True, eq=False, slots=True)
class FooterTemplate:
    """An operator's own footers, plain text and HTML, by language; "" for who reads any other.

    Each has one `{{unsubscribe_url}}`, lines that end with CRLF, and whatever else the law wants said.
    """

    text: Mapping[str, str] = field(default_factory=dict)
    html: Mapping[str, str] = field(default_factory=dict)


class Manner(NamedTuple):
    """How a copy speaks to its one reader.

    `language` is a BCP 47 tag. It says that it `is_advertising` where the reader has not opted in (15 USC 7704(a)(5)),
    and `states_objection` in the first one (GDPR 21(4)); of one that `is_untracked` our own hidden images go too.
    """

    language: str = "en"
    is_advertising: bool = False
    states_objection: bool = False
    is_untracked: bool = False


PLAIN_MANNER = Manner()


class Tracking(StrEnum):
    """What a stream does with images that nobody sees and that tell somebody else of their reader (POL-16)."""

    STRIP = "strip"
    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Brake:
    """When a stream pauses by itself: where `percent` of the `first` recipients of a campaign are refused."""

    percent: int
    first: int

    def __str__(self) -> str:
        return f"{self.percent}% of {self.first}"


@dataclass(frozen=True, slots=True)
class Stream:
    """A configured kind of mail: its class, its topics (slugs) and the From addresses it may use.

    `product` is what product mail is about, where the stream has only one (POL-04); `controller` whose mail it is, ""
    for the company's own (POL-31). `is_shadow` says that it only records who has not opted in, up to the end of the
    day `until` (OPS-04). `also_called` is as a topic's. `reads_as_promotion` is what happens to essential mail that
    does, by its class where None; `needs_ends` that a subject whose claim ends needs Assent-Campaign-Ends (CLS-09).
    `tracking`, `language` and `footer` are how its promotion looks; essential mail that `is_commercial` has a footer
    where the law wants one (LAW-CA-06).
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
class Recipient:
    """One RCPT: the address as it was given, and its ESMTP parameters ("NOTIFY=NEVER", …)."""

    address: Address
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """RFC 5321 §2.3.1: the reverse path ("" is the null sender), the recipients, MAIL's parameters."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a submission came from, for `Received:` (RFC 5321 §4.4) and the log. `tls` as in "TLSv1.3"."""

    helo: str
    ip: str
    protocol: str
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A message handed in by a login: envelope, bytes (CRLF lines), who, from where, when."""

    envelope: Envelope
    message: bytes
    login: Login
    peer: Peer
    received_at: datetime


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


Segment = bytes | memoryview
"""A run of a copy's octets; those of a large message are views of the message's own memory."""


class Alphabet(Enum):
    """What a next hop takes: ASCII alone, any octet in a body (RFC 6152), UTF-8 in the header too (RFC 6531)."""

    ASCII = "ascii"
    EIGHT_BIT = "8bit"
    UTF8 = "utf8"


@dataclass(frozen=True, slots=True)
class Copy:
    """What one recipient is relayed: the envelope of that one transaction, and the bytes in segments."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    segments: tuple[Segment, ...]
    options: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Versioned secrets: key id (1 to 255) → key. The highest id makes new values; all verify old ones."""

    keys: Mapping[int, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys or any(not 1 <= kid <= 255 for kid in self.keys):
            raise ValueError("a key ring needs at least one key, with ids from 1 to 255")

    @property
    def newest(self) -> int:
        return max(self.keys)

    def newest_first(self) -> list[tuple[int, bytes]]:
        return sorted(self.keys.items(), reverse=True)


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


@dataclass(frozen=True, slots=True)
class SpooledRecipient:
    """One recipient of a spooled message; `n` counts from 0 in the order of the RCPT commands.

    One that was refused after DATA, when others were not, is kept as `FAILED` with our reply, for the report.
    """

    n: int
    recipient: Recipient
    who: str
    decision: str
    attempts: int = 0
    outcome: Outcome = Outcome.QUEUED
    reply: str = ""
    is_identified: bool = True
    """False where `who` is only what could be said without the people store."""
    is_held: bool = False
    """True where it waits for an operator to release it."""


@dataclass(frozen=True, slots=True)
class SpooledMessage:
    """A message that we answer for: the submitted octets once, and what was decided about it at the door.

    `recipients` is the whole envelope; a recipient's `n` is its place there. Nothing of it leaves after its
    campaign `ends`. `tool_url` is where the submitting tool wants to hear of its one recipient's "no" (UNS-36).
    """

    id: int
    login: str
    stream: str
    message_class: MessageClass
    topics: tuple[str, ...]
    reverse_path: str
    options: tuple[str, ...]
    peer: Peer
    received_at: datetime
    recipients: tuple[Recipient, ...]
    message: bytes = field(repr=False)
    campaign: str = ""
    product: str = ""
    notice: PolicyNotice | None = None
    ends: datetime | None = None
    tool_url: str = field(default="", repr=False)

    @property
    def topic(self) -> str:
        """The one topic; "" where the message has none, or left open which."""
        return self.topics[0] if len(self.topics) == 1 else ""


class CampaignName(NamedTuple):
    """One sending as its refusals are told: whose, on which stream, under which name ("" where it has none)."""

    login: str
    stream: str
    name: str


@dataclass(frozen=True, slots=True)
class ReportedRefusal:
    """A recipient who was answered 250 and not sent to, as the campaign's summary names them."""

    address: str
    reason: str
    decision: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one recipient, or has so far, as the report to the submitter tells it."""

    recipient: Recipient
    outcome: Outcome
    reply: str
    decision: str
