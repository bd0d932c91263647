"""Keep the record of who has been sent the notice of a policy version, and what the next hop said of it.

The rule that must not be broken: the record that a copy is about to leave is on disk before its MAIL FROM, so that no
two messages take the same version to one person (POL-10). While the people store is away notices go without: a notice
that the law asks for is not held back for want of a record.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from gateway.address import Address
from gateway.consent import EventType, NewEvent
from gateway.decisions import nameless
from gateway.errors import StoreUnavailable
from gateway.headers import split
from gateway.ids import spool_text
from gateway.model import Outcome, SpooledMessage
from gateway.prose import subject_of, texts_of
from gateway.store import Now, People, Settlement

log = logging.getLogger(__name__)

_ENDS = (Outcome.RELAYED, Outcome.FAILED, Outcome.EXPIRED)


class Reader(NamedTuple):
    """Who reads a notice, None if nobody could be asked; `is_first` is False for who has it in another message."""

    address_id: bytes | None
    is_first: bool = True


class NoticeRecords:
    """Records the notices of one worker's copies."""

    def __init__(self, people: People, now: Now) -> None:
        self._people = people
        self._now = now

    async def begin(self, message: SpooledMessage, recipients: Sequence[Address]) -> list[Reader]:
        """Record that copies are about to leave.

        Raises `StoreUnavailable` where that cannot be recorded and the notice asks for consent, whose link must name
        its reader; a notice that only tells something goes all the same.
        """
        events = [self._event(EventType.POLICY_NOTICE, message, one, {}) for one in recipients]
        try:
            begun = await self._people.begin_notices(events, notice_text(message.message))
        except StoreUnavailable as error:
            if message.notice and message.notice.asks:
                raise
            log.warning("a policy notice goes without a record: %s", error)
            return [Reader(None)] * len(recipients)
        return [Reader(one.address_id, one.facts["message"] == spool_text(message.id)) for one in begun]

    async def end(self, message: SpooledMessage, settlements: Sequence[Settlement]) -> None:
        """Record what came of the copies whose end this is."""
        events = [
            self._event(
                EventType.POLICY_NOTICE_ENDED,
                message,
                message.recipients[one.n].address,
                {"outcome": str(one.outcome), "reply": nameless(one.reply)},
            )
            for one in settlements
            if one.outcome in _ENDS
        ]
        try:
            await self._people.record(events)
        except StoreUnavailable as error:
            log.warning("what came of a policy notice stands in the decision log only: %s", error)

    def _event(self, kind: EventType, message: SpooledMessage, person: Address, further: dict[str, str]) -> NewEvent:
        assert message.notice is not None
        facts = {"policy_version": message.notice.version, "message": spool_text(message.id), **further}
        return NewEvent(kind, person, self._now(), facts=facts, personal={"address": person.text})


def notice_text(message: bytes) -> str:
    """Return a notice as its readers see it: the subject, then the text of each part that is shown."""
    block = split(message)
    return "\n\n".join([subject_of(block), *dict.fromkeys(texts_of(message, block))])
