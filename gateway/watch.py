"""Look at what can go wrong with this machine, tell everybody, and mend what can be mended.

One keeper watches for all processes. The rule: the people store counts as back only once it has every opt-out that the
journal kept for it. What to do about a trouble is left to whoever asks the condition.
"""

from __future__ import annotations

import asyncio
import logging
import os

from gateway.address import Address
from gateway.decisions import person_line
from gateway.errors import StoreUnavailable
from gateway.ids import Ids
from gateway.installation import Clock
from gateway.store import Store
from gateway.store.condition import Trouble
from gateway.store.sqlite import DataFolder
from gateway.store.writer import LOG_OCTETS, log_octets

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""How long the people store may take to give somebody else's turn away before it counts as away."""

JUMP_SECONDS = 60.0
"""By how much the wall clock may leave ours before promotion waits: more is no correction but a mistake."""

MOST_LOG_OCTETS = 2 * LOG_OCTETS
"""Octets of write-ahead log that are more than a busy moment explains."""

_BATCH = 500


class Watch:
    """The keeper's eye on one installation."""

    def __init__(self, store: Store, ids: Ids, clock: Clock, folder: DataFolder, largest_message: int) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock
        self._folder = folder
        self._room = largest_message * 3 // 2

    async def look_at_people(self) -> None:
        """See whether the people store takes events; where it does again, give it what was kept for it."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._store.people.probe()
            await self._catch_up()
        except (StoreUnavailable, TimeoutError) as error:
            self._tell(Trouble.PEOPLE, 1, str(error) or f"no turn to write in {PROBE_SECONDS} s")
        else:
            self._tell(Trouble.PEOPLE, 0)

    async def look_at_machine(self) -> None:
        """See whether the wall clock has left the time that this crew goes by (OPS-06), and whether there is room."""
        jump = self._clock.jump()
        self._tell(Trouble.CLOCK, int(jump) if jump > JUMP_SECONDS else 0)
        self._tell(Trouble.DISK, int(not self._has_room()))
        log_size = max(log_octets(self._folder.people), log_octets(self._folder.spool))
        self._tell(Trouble.LOG, log_size if log_size > MOST_LOG_OCTETS else 0)

    def _has_room(self) -> bool:
        try:
            disk = os.statvfs(self._folder.root)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= self._room

    def _tell(self, trouble: Trouble, number: int, why: str = "") -> None:
        """Say how it stands, and where that has changed, say it in the log too."""
        before = self._store.condition.tell(trouble, number)
        if number and not before:
            log.error("%s%s", trouble.sentence, f": {why}" if why else "")
        elif before and not number:
            log.warning("over: %s", trouble.sentence)

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
            one.decision: person_line(self._ids.decision(), one.decision, self._clock.now(), known.who, one.message_id)
            for one, known in zip(unread, facts, strict=True)
        }
        if lines:
            await self._store.spool.identify(lines)
        return len(lines)
