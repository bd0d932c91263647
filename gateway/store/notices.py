"""What `assent.db` keeps of the notices about the privacy policy: to whom, in which words, and what came of it.

The rule that must not be broken: a person's notice of a version begins once, whichever worker asks first (POL-10), and
a text that only one person was sent goes when that person is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from gateway.consent import Event, EventType, NewEvent
from gateway.store import NoticeRecord
from gateway.store.history import EVENTS, append_event, event_of
from gateway.store.writer import Connection

_OF_VERSION = (
    f"{EVENTS} WHERE e.type IN ('POLICY_NOTICE', 'POLICY_NOTICE_ENDED')"
    " AND json_extract(e.facts, '$.policy_version') = ? ORDER BY e.seq"
)
_KEEP_TEXT = (
    "INSERT INTO policy_notice_texts VALUES (?1, ?2, ?3)"
    " ON CONFLICT (digest) DO UPDATE SET reader = CASE WHEN reader = ?3 THEN reader END"
)


def begin_notices(
    connection: Connection, ring: Sequence[tuple[int, bytes]], notices: Sequence[NewEvent], text: str, now: datetime
) -> list[Event]:
    """Record that notices are about to leave; where one has begun already, return that line."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    begun = []
    for one in notices:
        told = NewEvent(one.type, one.person, one.at, facts={**one.facts, "text": digest}, personal=one.personal)
        event = append_event(connection, ring, told, now)
        if event.facts.get("text") == digest:
            connection.execute(_KEEP_TEXT, (digest, text, event.address_id))
        begun.append(event)
    return begun


def read_notices(connection: Connection, version: str) -> list[NoticeRecord]:
    """Return what is on record of a version's notices, in the order in which they began."""
    ended: dict[tuple[bytes, str], Event] = {}
    begun = []
    for row in connection.execute(_OF_VERSION, (version,)).fetchall():
        event = event_of(row)
        if event.type is EventType.POLICY_NOTICE_ENDED:
            ended[event.address_id, event.facts["message"]] = event
        elif "linked" not in event.facts:
            begun.append(event)
    return [_record(connection, one, ended.get((one.address_id, one.facts["message"]))) for one in begun]


def _record(connection: Connection, begun: Event, ended: Event | None) -> NoticeRecord:
    digest = begun.facts["text"]
    text = connection.execute("SELECT text FROM policy_notice_texts WHERE digest = ?", (digest,)).fetchone()
    return NoticeRecord(
        address_id=begun.address_id,
        address=(begun.personal or {}).get("address"),
        message=begun.facts["message"],
        begun_at=begun.recorded_at,
        text_digest=digest,
        text=text[0] if text else None,
        ended_at=ended.recorded_at if ended else None,
        outcome=ended.facts["outcome"] if ended else None,
        reply=ended.facts["reply"] if ended else None,
    )
