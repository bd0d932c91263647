"""Does a message go in circles? Its own trace fields tell (RFC 5321 §6.3, SMTP-17).

The rule that must not be broken: a loop ends here, with a permanent reply, whoever closed it. A smarthost that is
ourselves shows after a few rounds, because we know our own Received fields again; a loop through others shows when
there are too many of anybody's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.classify import Mismatch
from gateway.headers import HeaderBlock
from gateway.ids import SPOOL_TEXT_LENGTH
from gateway.model import Reason

MOST_ROUNDS: Final = 3
"""How often one message may come by: a mailing list behind us may honestly send us what we have relayed to it."""


def loop_refusal(block: HeaderBlock, hostname: str, max_hops: int) -> Mismatch | None:
    """Return the objection to a message that has more than `max_hops` Received fields, or too many that are ours."""
    trace = [field.raw for field in block.fields if field.name == "received"]
    if not trace:
        return None
    if len(trace) > max_hops:
        return _refusal(f"the message has {len(trace)} Received fields, and {max_hops} are borne with")
    ours = _ours(hostname)
    rounds = sum(1 for raw in trace if ours.search(raw))
    if rounds >= MOST_ROUNDS:
        return _refusal(f"the message has been here {rounds} times already")
    return None


def _refusal(sentence: str) -> Mismatch:
    return Mismatch(Reason.MAIL_LOOP, "5.4.6", sentence)


@lru_cache(maxsize=8)
def _ours(hostname: str) -> re.Pattern[bytes]:
    """Match what `stamp.received` writes: our name, and a queue id as only we make them."""
    queue_id = rf"[0-9A-HJKMNP-TV-Z]{{{SPOOL_TEXT_LENGTH}}}"
    words = rf"\bby {re.escape(hostname)}\s+with [A-Z0-9]+(?: \([^)]*\))?\s+id {queue_id}\b"
    return re.compile(words.encode("ascii"))
