"""What a decision line says: one line of JSON for each recipient at the door, and for each attempt to relay.

`explain` reads them, the sealer seals them, so a line says everything that was decided and names nobody: `who` is a
person's id, or a keyed digest of an address that is nobody's yet, and a Message-ID stands only as its digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from gateway.model import Action, MessageClass, Outcome, SpooledMessage, Verdict


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision was about; `message` is the spooled message's id, "" if there was none.

    `bypasses` are where the message asked to pass over what people have said, `trackers` the hosts to which its copy
    does not report, though it was to (POL-16). `ends` is when the campaign says it is over, `claims`
    are the signals in its subject that hold until then (CLS-09).
    """

    message: str
    message_id: str
    login: str
    stream: str
    message_class: MessageClass | None
    topic: str
    campaign: str = ""
    bypasses: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    ends: datetime | None = None
    claims: tuple[str, ...] = ()


def subject_of(message: SpooledMessage, spool_id: str, message_id: str = "", bypasses: tuple[str, ...] = ()) -> Subject:
    """Return what a decision about a spooled message says of it; `message_id` is its Message-ID's digest."""
    return Subject(
        message=spool_id,
        message_id=message_id,
        login=message.login,
        stream=message.stream,
        message_class=message.message_class,
        topic=message.topic,
        campaign=message.campaign,
        bypasses=bypasses,
        ends=message.ends,
    )


PEOPLE_AWAY = {"people": "away"}
"""Marks a decision that was made without the people store (SMTP-22); `person_line` follows once it is back."""


def door_line(
    decision: str, at: datetime, who: str, subject: Subject, verdict: Verdict, *, people_read: bool = True
) -> bytes:
    """Return the line of a verdict at the door."""
    told = {"id": decision, "kind": "door", "at": at.isoformat(), "who": who, **_about(subject), **_told(verdict)}
    return _line(told if people_read else told | PEOPLE_AWAY)


def person_line(line_id: str, door: str, at: datetime, who: str, message: str) -> bytes:
    """Return the line that says whom a decision at the door was about, which nobody could look up then."""
    return _line({"id": line_id, "kind": "person", "at": at.isoformat(), "who": who, "door": door, "message": message})


def attempt_line(
    line_id: str,
    door: str,
    at: datetime,
    who: str,
    subject: Subject,
    verdict: Verdict,
    outcome: Outcome,
    reply: str,
    attempt: int,
    selectors: Sequence[str],
    *,
    people_read: bool = True,
) -> bytes:
    """Return the line of one attempt to relay a copy; `door` is the decision that let the message in."""
    told = {"id": line_id, "kind": "attempt", "at": at.isoformat(), "who": who, "door": door}
    tried = {"outcome": outcome, "reply": nameless(reply), "attempt": attempt, "dkim": selectors}
    line = {**told, **_about(subject), **_told(verdict), **tried}
    return _line(line if people_read else line | PEOPLE_AWAY)


def drop_line(line_id: str, door: str, at: datetime, who: str, subject: Subject, why: str, by: str) -> bytes:
    """Return the line of a copy that an operator gave up; `door` is the decision that let the message in."""
    told = {"id": line_id, "kind": "drop", "at": at.isoformat(), "who": who, "door": door, **_about(subject)}
    return _line(
        {**told, "action": Action.REFUSE.value, "sentence": nameless(why), "by": by, "outcome": Outcome.FAILED}
    )


def export_line(line_id: str, at: datetime, purpose: str, form: str, count: int, by: str) -> bytes:
    """Return the line of an export of suppressions: who took how many, and what for (15 USC 7704(a)(4)(A)(iv))."""
    told = {"id": line_id, "kind": "export", "at": at.isoformat(), "who": "", "message": "", "message_id": ""}
    return _line({**told, "purpose": purpose, "format": form, "count": count, "by": by})


def nameless(text: str) -> str:
    """Return what others wrote, a reply, a campaign's name or a reason, without the addresses in it: a sealed line can
    never be erased.
    """
    return _ADDRESS.sub("(address)", text) if "@" in text else text


_ADDRESS = re.compile(r"[^\s<>,;:()]+@[^\s<>,;:()]+")


def message_id_digest(message_id: str) -> str:
    """Return what stands for a Message-ID in a decision line: some Message-IDs hold addresses."""
    return hashlib.sha256(message_id.strip().encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _about(subject: Subject) -> dict[str, Any]:
    asked: dict[str, Any] = {"bypasses": subject.bypasses} if subject.bypasses else {}
    asked |= {"trackers": subject.trackers} if subject.trackers else {}
    asked |= {"campaign_ends": subject.ends, "claims": subject.claims} if subject.ends else {}
    return {
        **asked,
        "message": subject.message,
        "message_id": subject.message_id,
        "login": subject.login,
        "stream": subject.stream,
        "class": subject.message_class,
        "topic": subject.topic,
        "campaign": nameless(subject.campaign),
    }


def _told(verdict: Verdict) -> dict[str, Any]:
    mark: dict[str, Any] = {verdict.leave.value: True} if verdict.leave else {}
    if verdict.content:
        mark["content"] = [str(one) for one in verdict.content]
        mark["content_rules"] = verdict.content[0].rules
    mark |= {"advertising": True} if verdict.is_unasked else {}
    return {
        **mark,
        "action": verdict.action.value,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        "evidence": verdict.evidence,
        "rules": verdict.rules,
    }


def _line(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told)
