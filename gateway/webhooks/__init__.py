"""Tell programs outside what has happened, each until it has heard: the keeper's work on events.

The rules that must not be broken: what was committed is told at least once, whatever dies in between; one target that
does not answer delays no other; and people are told about in the order in which things happened to them. What is told
is `announcements`' part; what waits is kept by `store.calls`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

from gateway.announcements import Webhook
from gateway.errors import StoreUnavailable
from gateway.model import Stream, Topic
from gateway.retention import Retention
from gateway.store import Now, Store
from gateway.store.outgoing import TOOL
from gateway.webhooks.announcer import Announcer
from gateway.webhooks.deliverer import Deliverer, Tally, Target
from gateway.webhooks.endpoint import Endpoint
from gateway.webhooks.tools import Tool

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
FORGET_SECONDS = 60.0
GIVE_UP_AFTER = timedelta(days=5)
"""How long a target may be away before it is no more told what changes nobody's consent."""


class Webhooks:
    """Everything that one installation tells; of several processes on one store, the one that `is_elected` does."""

    def __init__(
        self,
        webhooks: Mapping[str, Webhook],
        streams: Mapping[str, Stream],
        topics: Mapping[str, Topic],
        keep: Retention,
        store: Store,
        is_elected: Callable[[], bool],
        now: Now,
    ) -> None:
        self._webhooks = webhooks
        self._topics = topics
        self._keep = keep
        self._store = store
        self._is_elected = is_elected
        self._now = now
        self._announcer = Announcer(webhooks, streams, topics, store)
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        self._tally = Tally()
        self._next_forgetting = 0.0

    async def run(self, leave: asyncio.Event) -> None:
        """Announce and deliver until told to leave; what is under way then is done again by whoever comes next."""
        try:
            while not leave.is_set():
                is_more = await self._look() if self._is_elected() else False
                if not is_more:
                    await _wait(leave, LOOK_SECONDS)
        finally:
            for delivery in self._deliveries.values():
                delivery.cancel()
            await asyncio.gather(*self._deliveries.values(), return_exceptions=True)

    async def _look(self) -> bool:
        try:
            is_more = await self._announcer.look()
            await self._forget()
            targets = self._store.calls.targets()
        except StoreUnavailable as error:
            log.warning("what is to be told to programs waits: %s", error)
            return False
        for name in targets:
            self._deliver_to(name)
        return is_more

    def _deliver_to(self, name: str) -> None:
        """Begin to make the calls to a target, unless it is being done, or the configuration does not know it."""
        running = self._deliveries.get(name)
        target = self._target(name) if running is None or running.done() else None
        if target:
            deliverer = Deliverer(name, target, self._store.calls, self._tally, self._now)
            self._deliveries[name] = asyncio.create_task(deliverer.run())

    def _target(self, name: str) -> Target | None:
        if name.startswith(TOOL):
            return Tool(name.removeprefix(TOOL), self._store.people)
        webhook = self._webhooks.get(name)
        return Endpoint(webhook, self._topics, self._now) if webhook else None

    async def _forget(self) -> None:
        """Now and then, forget what has waited too long, and where tools would hear of those who get nothing more."""
        clock = asyncio.get_running_loop().time()
        if clock < self._next_forgetting:
            return
        self._next_forgetting = clock + FORGET_SECONDS
        await self._store.calls.forget_tool_links(self._now() - self._keep.decisions)
        given_up = await self._store.calls.give_up(self._now() - GIVE_UP_AFTER)
        if given_up:
            log.error(
                "%d events were given up, which their targets did not take for days; they change nobody's consent here",
                given_up,
            )

    def metrics(self) -> str:
        """Return the counters and gauges, in the Prometheus text exposition format 0.0.4."""
        if not self._webhooks and not self._tally:
            return ""
        try:
            waiting = {one.target: one.waiting for one in self._store.calls.backlogs()}
        except StoreUnavailable:
            waiting = {}
        return self._tally.text({**dict.fromkeys(self._webhooks, 0), **waiting})


async def _wait(leave: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(leave.wait(), seconds)
    except TimeoutError:
        return
