"""The words that are closed sets: classes of mail, reasons, outcomes, scopes; as docs/glossary.md has them."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum


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


class Leave(StrEnum):
    """What lets promotion go to somebody who has not opted in; a person's "no" holds against both."""

    TEST = "test"
    SHADOW = "shadow"


class Tracking(StrEnum):
    """What a stream does with images that nobody sees and that tell somebody else of their reader (POL-16)."""

    STRIP = "strip"
    REFUSE = "refuse"
    ALLOW = "allow"


class Alphabet(Enum):
    """What a next hop takes: ASCII alone, any octet in a body (RFC 6152), UTF-8 in the header too (RFC 6531)."""

    ASCII = "ascii"
    EIGHT_BIT = "8bit"
    UTF8 = "utf8"
