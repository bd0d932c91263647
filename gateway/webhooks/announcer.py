"""Turn what has been committed into calls: the ledger's events, pauses of streams, and how recipients ended.

The rule that must not be broken: a source's position moves in the transaction that keeps its calls, so that whatever
dies, nothing is passed over; what is read twice has the same id. Who has been erased is named once more, to whoever has
to be told, and nothing else waits about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from gateway.announcements import (
    Announcement,
    Happening,
    Webhook,
    events_behind,
    is_subscribed,
    of_event,
    of_line,
    of_pause,
    word_for,
)
from gateway.consent import Event, fold
from gateway.model import Login, Scope, Stream, Topic
from gateway.store import Store
from gateway.store.outgoing import SINCE, NewCall, ToolLink
from gateway.webhooks.tools import call_of

PORTION = 500
_UNTOLD = 5000
"""Events that nobody wants to hear of, after which it is written down that they have been read."""

_NOES = (Happening.UNSUBSCRIBED, Happening.COMPLAINED, Happening.ERASED)


@dataclass(slots=True)
class _Portion:
    """What a few events amount to: calls, the tools' links that these follow, and who is to be forgotten."""

    calls: list[NewCall] = field(default_factory=list)
    told: list[tuple[str, ToolLink]] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)


class Announcer:
    """Reads what is new and keeps a call for whoever wants to hear of it."""

    def __init__(
        self,
        webhooks: Mapping[str, Webhook],
        streams: Mapping[str, Stream],
        topics: Mapping[str, Topic],
        store: Store,
    ) -> None:
        self._webhooks = webhooks
        self._streams = streams
        self._topics = topics
        self._store = store
        heard = {what for what in Happening for one in webhooks.values() if one.hears_of(what)}
        self._wanted = events_behind({*_NOES, *heard})
        self._read = 0
        self._written = 0

    async def look(self) -> bool:
        """Announce what is new, some of it at a time; True where there is more."""
        logins = await self._logins()
        more = [await self._of_ledger(logins), await self._of_endings(logins)]
        await self._of_pauses(logins)
        return any(more)

    async def _logins(self) -> Mapping[str, Login]:
        if not any(one.logins for one in self._webhooks.values()):
            return {}
        return {one.login.name: one.login for one in await self._store.people.logins()}

    # the ledger

    async def _of_ledger(self, logins: Mapping[str, Login]) -> bool:
        positions = self._store.calls.positions()
        self._read = max(self._read, positions.get("ledger", 0))
        events, last = await self._store.people.events_of(self._wanted, self._read, PORTION)
        if last == self._read:
            return False
        erased = await self._store.people.farewells(self._read, last)
        portion = _Portion()
        for event in events:
            what = word_for(event)
            if what:
                self._tell_tools(event, what, portion)
                announcement = await self._of_event(event, what, erased)
                told = self._calls(announcement, logins) if announcement else ()
                portion.calls += [one for one in told if positions.get(f"{SINCE}{one.target}", 0) < event.seq]
        await self._keep(portion, last)
        if erased:
            await self._store.people.forget_farewells(last)
        return True

    def _tell_tools(self, event: Event, what: Happening, portion: _Portion) -> None:
        """Tell each tool once that has a link to this person's "no"; of an erased person no other link is kept."""
        who = event.address_id.hex()
        if what in _NOES:
            links = [link for link in self._links_about(event, what) if (who, link) not in portion.told]
            portion.calls += [call_of(who, link) for link in links]
            portion.told += [(who, link) for link in links]
        if what is Happening.ERASED:
            portion.forget.append(who)

    async def _keep(self, portion: _Portion, last: int) -> None:
        """Keep calls; what nobody wants to hear of is only now and then worth a transaction."""
        self._read = last
        if portion.calls or portion.told or portion.forget or last - self._written > _UNTOLD:
            await self._store.calls.publish(portion.calls, {"ledger": last}, told=portion.told, forget=portion.forget)
            self._written = last

    async def _of_event(self, event: Event, what: Happening, erased: Mapping[int, str]) -> Announcement | None:
        """Return what is announced; None where nobody may be named any more, or nothing has changed."""
        if not any(one.hears_of(what) for one in self._webhooks.values()):
            return None
        if what is Happening.ERASED:
            address = erased.get(event.seq, "")
        else:
            found = await self._store.people.address_of(event.address_id)
            address = found.text if found else ""
        if not address or (what is Happening.SUBSCRIBED and not await self._counts(event)):
            return None
        return of_event(event, what, address)

    async def _counts(self, event: Event) -> bool:
        history = await self._store.people.history(event.address_id)
        standing = fold(one for one in history if one.seq <= event.seq)
        return is_subscribed(standing, event, partner=self._is_partner(event.topic))

    def _is_partner(self, slug: str) -> bool:
        topic = self._topics.get(slug)
        return topic is not None and topic.partner

    def _links_about(self, event: Event, what: Happening) -> list[ToolLink]:
        """Return where tools want to hear of this "no"."""
        links = self._store.calls.tool_links(event.address_id.hex())
        if not links:
            return []
        told = of_event(event, what, "").facts
        return [link for link in links if self._covers(told["scope"], told["topic"], link.topic)]

    def _covers(self, scope: str, topic: str | None, linked: str) -> bool:
        if scope == Scope.TOPIC:
            return linked == topic
        return scope != Scope.PARTNER or self._is_partner(linked)

    # the others

    async def _of_pauses(self, logins: Mapping[str, Login]) -> None:
        pauses = await self._store.people.pauses_after(self._store.calls.positions().get("pauses", 0))
        if pauses:
            calls = [call for one in pauses for call in self._calls(of_pause(*one), logins)]
            await self._store.calls.publish(calls, {"pauses": pauses[-1].number})

    async def _of_endings(self, logins: Mapping[str, Login]) -> bool:
        endings = self._store.calls.endings(PORTION)
        if not endings:
            return False
        calls = list[NewCall]()
        for ending in endings:
            told = of_line(orjson.loads(ending.line), ending.address)
            if told and not await self._is_erased(told.who):
                calls += self._calls(told, logins)
        await self._store.calls.publish(calls, {}, endings=endings[-1].id)
        return len(endings) == PORTION

    async def _is_erased(self, who: str) -> bool:
        """True for a person without an address; what is no person's id is an address that is nobody's."""
        return bool(who) and ":" not in who and await self._store.people.address_of(bytes.fromhex(who)) is None

    def _calls(self, told: Announcement, logins: Mapping[str, Login]) -> Iterator[NewCall]:
        for webhook in self._webhooks.values():
            if webhook.wants(told, self._streams, logins):
                content = webhook.worded(told).to_json()
                yield NewCall(webhook.name, told.who, content, told.what.is_of_recipient)
