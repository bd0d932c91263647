"""Keep the record of who has been told of the right to object, so that only the first message to each says it.

The rule that must not be broken: it is recorded of nobody before a copy that said it was relayed (GDPR 21(4)). A record
that is lost costs nothing but saying it once more, so it waits for the next second and is written with others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.consent import EventType, NewEvent
from gateway.errors import StoreUnavailable
from gateway.law import Law
from gateway.store import Facts, Now, People

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Records of one transaction, which nobody else's click should wait for."""


class Explanations:
    """Records what one worker's copies have explained."""

    def __init__(self, people: People, law: Law, now: Now) -> None:
        self._people = people
        self._law = law
        self._now = now
        self._told = dict[bytes, None]()

    def relayed(self, readers: Sequence[Facts]) -> None:
        """Take note of who was relayed promotion just now."""
        for one in readers:
            standing = one.standing
            if one.address_id and not standing.explained and self._law.demands(standing.places).states_objection:
                self._told[one.address_id] = None

    async def record(self) -> None:
        """Write down what has been noted since the last time."""
        while self._told:
            people = list(self._told)[:_AT_ONCE]
            try:
                now = self._now()
                await self._people.record([NewEvent(EventType.OBJECTION_EXPLAINED, one, now) for one in people])
            except StoreUnavailable as error:
                log.warning("who was told of the right to object is recorded later: %s", error)
                return
            for one in people:
                del self._told[one]
