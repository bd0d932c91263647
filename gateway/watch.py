"""Look at what can go wrong with this machine, tell everybody, and mend what can be mended.

One keeper watches for all processes. The rule: the people store counts as back only once it has every opt-out that the
journal kept for it. What to do about a trouble is left to whoever asks the condition.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.address import Address
from gateway.decisions import person_line
from gateway.errors import StoreUnavailable
from gateway.ids import Ids
from gateway.store import Now, Store
from gateway.store.condition import Trouble

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""How long the people store may take to give somebody else's turn away before it counts as away."""

_BATCH = 500


class Watch:
    """The keeper's eye on one installation."""

    def __init__(self, store: Store, ids: Ids, now: Now) -> None:
        self._store = store
        self._ids = ids
        self._now = now

    async def look_at_people(self) -> None:
        """See whether the people store takes events; where it does again, give it what was kept for it."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._store.people.probe()
            await self._catch_up()
        except (StoreUnavailable, TimeoutError) as error:
            if not self._store.condition.tell(Trouble.PEOPLE, 1):
                log.error("the people store is away, promotion waits, opt-outs go to the journal: %s", error)
            return
        if self._store.condition.tell(Trouble.PEOPLE, 0):
            log.warning("the people store is back, and knows every opt-out")

    async def _catch_up(self) -> None:
        applied = await self._store.people.apply_journal()
        if applied:
            log.warning("%d opt-outs from the journal are recorded", applied)
        while await self._identify():
            pass

    async def _identify(self) -> int:
        """Write down whom decisions were about that were made without the people store; return how many."""
        unread = await self._store.spool.unidentified(_BATCH)
        facts = await self._store.people.facts([Address.parse(one.address) for one in unread])
        lines = {
            one.decision: person_line(self._ids.decision(), one.decision, self._now(), known.who, one.message_id)
            for one, known in zip(unread, facts, strict=True)
        }
        if lines:
            await self._store.spool.identify(lines)
        return len(lines)
