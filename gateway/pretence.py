"""What a promotional message's header must not pretend: a reply that is none, a campaign that is over.

The rule that must not be broken: nothing is guessed from words that a header does not say plainly; what is refused
here is refused by rules that name themselves. What a whole message amounts to is left to `classify`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from gateway.errors import Malformed
from gateway.headers import HeaderBlock
from gateway.prose import decoded

_REPLY = re.compile(r"\s*(?:re|fwd?)\s*(?:\[\d{1,4}\]\s*)?[:\uff1a]", re.IGNORECASE)
_MAY_BE_REPLY = re.compile(rb"[^:]*:\s*(?:re|fw|=\?)", re.IGNORECASE)
_BEFORE_IT = ("in-reply-to", "references")


def feigned_reply(block: HeaderBlock) -> str:
    """Return what is wrong with a subject that begins as a reply's and answers nothing (CLS-08); "" if nothing is."""
    subject = block.first("subject")
    if subject is None or not _MAY_BE_REPLY.match(subject.raw) or not _REPLY.match(decoded(subject)):
        return ""
    if any(field.name in _BEFORE_IT and field.value for field in block.fields):
        return ""
    return "its Subject begins as a reply's or a forwarded message's, and it answers none (CLS-08)"


def end_of_campaign(block: HeaderBlock) -> datetime | None:
    """Return when a campaign is over by its Assent-Campaign-Ends: a time with its zone (RFC 3339), or a day in UTC.

    Raises `Malformed` for anything else: who gives an end means one.
    """
    field = block.first("assent-campaign-ends")
    if field is None:
        return None
    text = field.value.decode("ascii", "replace")
    try:
        moment = datetime.fromisoformat(text)
        is_day = len(text) == len("2026-12-31")
        found = datetime.combine(date.fromisoformat(text), time.max, UTC) if is_day else moment
    except ValueError as error:
        raise Malformed("Assent-Campaign-Ends is no date such as 2026-12-31") from error
    if found.tzinfo is None:
        raise Malformed("Assent-Campaign-Ends is a time without its zone, such as 2026-12-31T18:00:00+01:00")
    return found.astimezone(UTC)


def over(end: datetime | None, now: datetime) -> str:
    """Return what is wrong with a campaign whose end has come (CLS-09); "" while it may be sent."""
    if end is None or now <= end:
        return ""
    return f"the campaign ended at {end:%Y-%m-%d %H:%M} UTC, by its Assent-Campaign-Ends (CLS-09)"
