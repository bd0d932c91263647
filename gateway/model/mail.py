"""A message on its way: as it is submitted, as it is kept, as one recipient's copy, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from gateway.address import Address
from gateway.model.settings import Login
from gateway.model.verdict import PolicyNotice
from gateway.model.words import MessageClass, Outcome


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


Segment = bytes | memoryview
"""A run of a copy's octets; those of a large message are views of the message's own memory."""


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
    server: str = ""
    """The host that gave the reply; "" where it is our own."""
