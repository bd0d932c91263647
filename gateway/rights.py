"""What people have asked for by right, by when it must be answered, and how it was (GDPR 12; POL-24, DSR-03).

The rule that must not be broken: a request is open until it is answered, and a "no", even in part, says why and by
which article. Requests are events of the ledger; who asked is known there by their id alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gateway.consent import Event, EventType
from gateway.model import Period

ANSWERED_WITHIN, EXTENDED_TO = Period(months=1), Period(months=3)
"""GDPR 12(3): one month of receipt, and two more where the person is told so within the first."""

WARNED_BEFORE = timedelta(days=7)
REPORTED_WITHIN = timedelta(hours=72)
"""GDPR 33(1): how long after a breach became known the authority may have to wait to be told."""

REQUEST_EVENTS = (EventType.RIGHT_REQUESTED, EventType.RIGHT_EXTENDED, EventType.RIGHT_ANSWERED)


class Right(StrEnum):
    """What a person may ask for (GDPR 15 to 21)."""

    ACCESS = "access"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    PORTABILITY = "portability"
    OBJECTION = "objection"


class Answer(StrEnum):
    """How a request was answered."""

    ACCEPTED = "accepted"
    PARTLY = "partly"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: whose (the 16-octet id), what for, since when; `answer` is None while it is open."""

    id: str
    person: bytes
    right: Right
    received_at: datetime
    is_extended: bool = False
    answer: Answer | None = None
    reason: str = ""
    article: str = ""

    @property
    def due(self) -> datetime:
        return (EXTENDED_TO if self.is_extended else ANSWERED_WITHIN).after(self.received_at)


@dataclass(frozen=True, slots=True)
class Breach:
    """A breach of personal data: its name, when it became known, and when the authority was told (GDPR 33)."""

    name: str
    what: str
    known_at: datetime
    reported_at: datetime | None = None

    @property
    def due(self) -> datetime:
        return self.known_at + REPORTED_WITHIN


@dataclass(frozen=True, slots=True)
class Deadline:
    """What has to be done by when, a "request" or a "breach"; nobody need be told of it before `warned_from`."""

    kind: str
    what: str
    due: datetime
    warned_from: datetime

    def is_over(self, now: datetime) -> bool:
        return now > self.due

    def told(self, now: datetime) -> str:
        """Return a sentence for an operator."""
        left = self.due - now
        if left < timedelta(0):
            return f"{self.what} was due at {self.due:%Y-%m-%d %H:%M} UTC"
        span = f"{left.days} days" if left.days > 1 else f"{int(left.total_seconds() // 3600)} hours"
        return f"{self.what} is due in {span}, at {self.due:%Y-%m-%d %H:%M} UTC"


def requests_of(events: Iterable[Event]) -> list[Request]:
    """Return the requests that events of the three kinds amount to, in the order in which they came in.

    Of two answers the first counts.
    """
    requests: dict[str, Request] = {}
    for event in events:
        number = event.facts["request"]
        if event.type is EventType.RIGHT_REQUESTED:
            requests[number] = Request(number, event.address_id, Right(event.facts["right"]), event.at)
        elif event.type is EventType.RIGHT_EXTENDED:
            requests[number] = replace(requests[number], is_extended=True)
        elif requests[number].answer is None:
            answer, reason, article = (event.facts[name] for name in ("answer", "reason", "article"))
            requests[number] = replace(requests[number], answer=Answer(answer), reason=reason, article=article)
    return list(requests.values())


def deadlines(requests: Iterable[Request], breaches: Iterable[Breach]) -> list[Deadline]:
    """Return what is still to be done, the most urgent first."""
    answers = [
        Deadline("request", f"the answer to request {one.id} ({one.right})", one.due, one.due - WARNED_BEFORE)
        for one in requests
        if one.answer is None
    ]
    reports = [
        Deadline("breach", f"telling the authority of the breach {one.name}", one.due, one.known_at)
        for one in breaches
        if one.reported_at is None
    ]
    return sorted((*answers, *reports), key=lambda one: one.due)
