"""A webhook as a target: an announcement becomes the request that its shape asks for."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.announcements import Announcement, Webhook
from gateway.announcements.signatures import request_of
from gateway.model import Topic
from gateway.store import Now
from gateway.webhooks.caller import Answer, Caller, Post


class Endpoint:
    """One `[webhooks.NAME]`."""

    ends_when_gone = False

    def __init__(self, webhook: Webhook, topics: Mapping[str, Topic], now: Now) -> None:
        self.retry = webhook.retry
        self._webhook = webhook
        self._topics = topics
        self._now = now
        self._caller = Caller(webhook.authorities)

    async def call(self, content: str) -> Answer | None:
        """Tell it of an announcement; None where its shape has no word for that."""
        request = request_of(self._webhook, Announcement.from_json(content), self._topics, self._now())
        return await self._caller.post(Post(self._webhook.url, *request)) if request else None

    async def close(self) -> None:
        await self._caller.close()
