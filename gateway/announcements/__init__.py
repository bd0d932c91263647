"""What programs are told: one vocabulary for what the ledger, the decision log and orders to streams say has happened.

The rule that must not be broken: a "no" is announced to whoever wants to hear of any, and never as less than it is.
An announcement names its person while that is still allowed; how it is written is `shapes`' part, how it is proved
`signatures`', and when it is sent that of `webhooks`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from gateway.consent import Event, EventType, Standing, extent
from gateway.model import Login, Outcome, Scope, Stream


class Happening(StrEnum):
    """The words of contract.md, one for each thing that a program may want to be told."""

    UNSUBSCRIBED = "recipient.unsubscribed"
    SUBSCRIBED = "recipient.subscribed"
    COMPLAINED = "recipient.complained"
    BOUNCED = "recipient.bounced"
    ERASED = "recipient.erased"
    REFUSED = "message.refused"
    RELAYED = "message.relayed"
    FAILED = "message.failed"
    PAUSED = "stream.paused"

    @property
    def is_of_recipient(self) -> bool:
        """True for what changes whom a tool may mail: it is told for as long as it takes."""
        return self.startswith("recipient.")

    @property
    def is_of_message(self) -> bool:
        return self.startswith("message.")


class Shape(StrEnum):
    """In whose words an announcement is written: the Standard Webhooks specification's, or a vendor's."""

    STANDARD = "standard"
    SENDGRID = "sendgrid"
    MAILGUN = "mailgun"
    POSTMARK = "postmark"
    SES = "ses"


@dataclass(frozen=True, slots=True)
class Announcement:
    """One thing that has happened. `id` is the same however often it is told; `who` puts what is told in order.

    `who` is a person as decision lines call it, or a stream; `address` is "" where nobody is named; `facts` are what
    else there is to know, fit for JSON.
    """

    id: str
    what: Happening
    at: datetime
    who: str
    address: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        told = [self.id, self.what, self.at.isoformat(), self.who, self.address, dict(self.facts)]
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Announcement:
        number, what, at, who, address, facts = json.loads(text)
        return cls(number, Happening(what), datetime.fromisoformat(at), who, address, facts)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint that wants to hear of something: where it is, how it knows us, what it wants, when it is tried again.

    With `streams` or `logins` it hears only of theirs. `authorities` are PEM certificates that are trusted instead of
    the system's.
    """

    name: str
    url: str
    secret: str = field(repr=False)
    happenings: frozenset[Happening]
    streams: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    shape: Shape = Shape.STANDARD
    retry: tuple[timedelta, ...] = (timedelta(seconds=5),)
    authorities: str = field(default="", repr=False)

    def wants(self, told: Announcement, streams: Mapping[str, Stream], logins: Mapping[str, Login]) -> bool:
        """True where this is to be told here; what is true of an address concerns whoever may mail it."""
        if not self.hears_of(told.what):
            return False
        if not self.streams and not self.logins:
            return True
        if told.what.is_of_message:
            return _is_one(told.facts["stream"], self.streams) and _is_one(told.facts["login"], self.logins)
        ours = {*self.streams, *(stream for name in self.logins if name in logins for stream in logins[name].streams)}
        if told.what is Happening.PAUSED:
            return told.facts["stream"] in ours
        topic = told.facts.get("topic")
        return not topic or any(topic in streams[name].topics for name in ours if name in streams)

    def hears_of(self, what: Happening) -> bool:
        """True where such a thing is told here, in whichever word."""
        return self._word_for(what) in self.happenings

    @property
    def hears_of_erasures(self) -> bool:
        """True where an erased person has to be named once more."""
        return self.hears_of(Happening.ERASED)

    def worded(self, told: Announcement) -> Announcement:
        """Return the announcement in words that are wanted here: who is not told of erasures is told of the "no"."""
        what = self._word_for(told.what)
        return told if what is told.what else Announcement(told.id, what, told.at, told.who, told.address, told.facts)

    def _word_for(self, what: Happening) -> Happening:
        if what is Happening.ERASED and what not in self.happenings:
            return Happening.UNSUBSCRIBED
        return what


def _is_one(name: str, wanted: Collection[str]) -> bool:
    return not wanted or name in wanted


_OF_EVENT: Final = {
    EventType.UNSUBSCRIBE: Happening.UNSUBSCRIBED,
    EventType.OBJECTION: Happening.UNSUBSCRIBED,
    EventType.CONSENT_REFUSED: Happening.UNSUBSCRIBED,
    EventType.EXPRESS_OPT_IN: Happening.SUBSCRIBED,
    EventType.OPT_IN_CONFIRMED: Happening.SUBSCRIBED,
    EventType.COMPLAINT: Happening.COMPLAINED,
    EventType.HARD_BOUNCE: Happening.BOUNCED,
    EventType.ERASURE: Happening.ERASED,
    EventType.MINOR_FLAG: Happening.ERASED,
}


def events_behind(happenings: Collection[Happening]) -> frozenset[EventType]:
    """Return the types of the ledger's events that can be such things to programs."""
    return frozenset(kind for kind, what in _OF_EVENT.items() if what in happenings)


def word_for(event: Event) -> Happening | None:
    """Return what an event of the ledger is to programs; None for what they need not hear.

    A claim without proof is no subscription, nor is one that a file brings: whoever wrote the file knows it.
    """
    what = _OF_EVENT.get(event.type)
    if what is Happening.SUBSCRIBED and ("import" in event.facts or event.facts.get("provenance") == "unproven"):
        return None
    return what


def is_subscribed(standing: Standing, opt_in: Event, *, partner: bool) -> bool:
    """True where an opt-in counts, as the person stands with it: an older "no" outlives all but a confirmed one."""
    return standing.suppression(opt_in.topic, partner=partner, controller=opt_in.facts.get("controller", "")) is None


def of_event(event: Event, what: Happening, address: str) -> Announcement:
    """Return the announcement of an event, about the person who has this address."""
    facts = {
        "person": event.address_id.hex(),
        "topic": event.topic or None,
        **_extent(event),
        "channel": event.facts.get("channel"),
        "recorded_at": event.recorded_at.isoformat(),
        "event": event.seq,
    }
    return Announcement(f"event_{event.seq}", what, event.at, event.address_id.hex(), address, facts)


def _extent(event: Event) -> dict[str, Any]:
    if event.type is EventType.CONSENT_REFUSED:
        return {"scope": Scope.TOPIC, "reason": "refused"}
    if _OF_EVENT[event.type] is Happening.SUBSCRIBED:
        return {"scope": Scope.TOPIC, "reason": "confirmed" if event.type is EventType.OPT_IN_CONFIRMED else "express"}
    scope, topic, reason = extent(event)
    return {"scope": scope, "topic": topic or None, "reason": reason}


_OF_OUTCOME: Final = {
    Outcome.RELAYED: Happening.RELAYED,
    Outcome.SUPPRESSED: Happening.REFUSED,
    Outcome.FAILED: Happening.FAILED,
    Outcome.EXPIRED: Happening.FAILED,
}


def outcomes_of(happenings: Collection[Happening]) -> frozenset[Outcome]:
    """Return which ends of a recipient are wanted; a refusal at the door is `SUPPRESSED`."""
    return frozenset(outcome for outcome, what in _OF_OUTCOME.items() if what in happenings)


def of_line(line: Mapping[str, Any], address: str) -> Announcement | None:
    """Return the announcement of a decision line; None for mail of our own, whose submitter is nobody."""
    if not line["login"]:
        return None
    outcome = Outcome(line.get("outcome", Outcome.SUPPRESSED))
    facts = {
        **{name: line.get(name) or None for name in ("message", "login", "stream", "class", "topic", "campaign")},
        **{name: line.get(name) or None for name in ("reason", "sentence", "reply")},
        "outcome": outcome,
        "decision": line["id"],
    }
    at = datetime.fromisoformat(line["at"])
    return Announcement(f"decision_{line['id']}", _OF_OUTCOME[outcome], at, line["who"], address, facts)


def of_pause(number: int, stream: str, why: str, by: str, at: datetime) -> Announcement:
    """Return the announcement that a stream takes no more mail."""
    return Announcement(f"pause_{number}", Happening.PAUSED, at, stream, "", {"stream": stream, "why": why, "by": by})
