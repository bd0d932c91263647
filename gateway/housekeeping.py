"""What an installation does by the calendar: let go of what `[retention]` no longer keeps, and warn of deadlines.

The rule: it never stands in the way of mail. It works in a thread of the keeper, in short transactions, and what one
day leaves undone the next one does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta
from threading import Event
from time import monotonic

from gateway.errors import StoreUnavailable
from gateway.retention import Retention
from gateway.store.sqlite import DataFolder

log = logging.getLogger(__name__)

EVERY = timedelta(days=1)
LOOK_EVERY = timedelta(minutes=10)

REST = 9
"""How many times as long as a piece of the daily round takes nothing is done after it: it costs a tenth of a core."""

MOST_REST = 1.0
"""Seconds that one rest may last, whatever the machine was busy with."""


class Housekeeper:
    """The keeper's daily round; of several processes on one store, only the one that `is_elected` makes it."""

    def __init__(
        self,
        folder: DataFolder,
        keep: Retention,
        is_elected: Callable[[], bool],
        is_leaving: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._is_elected = is_elected
        self._is_leaving = is_leaving
        self._now = now
        self._due = now()

    async def look(self) -> None:
        """Make the round if it is time for one."""
        now = self._now()
        if now < self._due or not self._is_elected():
            return
        self._due = now + EVERY
        try:
            done = await asyncio.to_thread(self._folder.purge, self._keep, now, Leisure(self._is_leaving))
        except Abandoned:
            return
        except (StoreUnavailable, OSError) as error:
            log.warning("what is due to be forgotten waits until tomorrow: %s", error)
            return
        if done:
            log.info(
                "forgotten: %d decision lines, the proof of %d events, the IP address of %d, backups: %s",
                *(done.decisions, done.proofs, done.ip_addresses, ", ".join(done.backups) or "none"),
            )
        for path in done.missing:
            log.warning("a backup is older than [retention] allows and not where it was made: %s", path)


class Abandoned(Exception):
    """The program stops before a round is done; each portion of it is done whole or not at all."""


class Leisure:
    """A purge's progress that nobody watches: after each piece of work it rests for a multiple of what that took."""

    def __init__(self, is_leaving: Callable[[], bool]) -> None:
        self._is_leaving = is_leaving
        self._rest = Event().wait
        self._rested = monotonic()

    def __call__(self, part: float) -> None:
        """Rest; raises `Abandoned` where the work is to be left."""
        self._rest(min(REST * (monotonic() - self._rested), MOST_REST))
        if self._is_leaving():
            raise Abandoned
        self._rested = monotonic()


class DeadlineAlarms:
    """Says each day what the law gives a time for that is running out, or has."""

    def __init__(self, folder: DataFolder, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._now = now
        self._due = now()
        self._told: set[tuple[str, date]] = set()

    async def look(self) -> None:
        """Say what is due to be said."""
        now = self._now()
        if now < self._due:
            return
        self._due = now + LOOK_EVERY
        try:
            pending = await asyncio.to_thread(self._folder.deadlines)
        except StoreUnavailable as error:
            log.warning("whether a deadline runs out cannot be seen: %s", error)
            return
        for one in pending:
            if one.warned_from <= now and (one.what, now.date()) not in self._told:
                self._told.add((one.what, now.date()))
                log.log(logging.ERROR if one.is_over(now) else logging.WARNING, "%s", one.told(now))
