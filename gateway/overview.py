"""How an installation is doing: what came of the last hours, what waits, what to look at, and the command for it.

The one rule: an alarm comes with something to do about it. The command line and the console show the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.activity import gather
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.model import LONGEST_SHADOW, Purpose, Stream, Topic
from gateway.policy import LACKS_CONSENT, strictest
from gateway.shadow import shadow_ends
from gateway.store import Selection, Store
from gateway.store.condition import Trouble
from gateway.store.outgoing import Backlog
from gateway.store.sqlite import DataFolder

OLD_MAIL: Final = timedelta(hours=1)
"""How long mail may have been waiting before somebody should look at the queue."""

OPT_OUT_SECONDS: Final = 60
"""How long a "no" may take to be recorded; the law gives days, the product promises a second."""

SHADOW_DAYS: Final = 7

_AT_ONCE = 500
"""People about whom it is decided before others have a turn."""

_UNREACHABLE = "451 4.4.1 "
_LOOKED_AT = 100
"""How much of what has waited longest is looked at for a smarthost that cannot be reached."""

LATE_EVENT: Final = timedelta(minutes=1)
"""How long an event may wait to be told before its endpoint counts as behind."""


async def overview(config: Config, folder: DataFolder, store: Store, since: datetime, now: datetime) -> dict[str, Any]:
    """Return the numbers since a moment, what waits, and every alarm with its command, as JSON can tell it."""
    waiting, oldest = await store.queue.depth()
    told = await asyncio.to_thread(_activity, folder, since, now)
    suppressed = await _suppressed(store)
    return {
        **told,
        "queued_recipients": waiting,
        "oldest_queued": oldest.isoformat(timespec="seconds") if oldest else None,
        "suppressed_people": suppressed,
        "logins": len([one for one in await store.people.logins() if not one.disabled]),
        "paused_streams": _paused(store),
        "webhooks_behind": [one["name"] for one in webhook_rows(config, store, now) if one["state"] != "up to date"],
        "shadow_ends": await _shadow_ends(config, folder, store, now),
        "troubles": [one.sentence for one in store.condition.troubles()],
        "alarms": [
            {"alarm": alarm, "command": command}
            for alarm, command in (
                *_about_store(folder, store, now - oldest if oldest else timedelta(0)),
                *([("the people store cannot be read", "assent check")] if suppressed is None else []),
                *await _about_smarthosts(store),
                *_about_streams(config, store, told, now),
                *_about_webhooks(config, store, now),
                *_about_deadlines(folder, now),
            )
        ],
    }


def _activity(folder: DataFolder, since: datetime, now: datetime) -> dict[str, Any]:
    """Return the numbers since then; none of them while the store cannot be read."""
    try:
        found = gather(folder.events_between(since, now), folder.lines_between(since, now), since, now)
    except StoreUnavailable:
        return {"since": since.isoformat(timespec="seconds"), "refused": []}
    return found.to_json()


_ANSWERS: Final = {"request": "assent requests list", "breach": "assent breach list"}


def _about_store(folder: DataFolder, store: Store, oldest: timedelta) -> Iterator[tuple[str, str]]:
    for one in store.condition.troubles():
        yield one.sentence, "assent dkim check" if one is Trouble.KEYS else "assent check"
    for told in folder.keys_not_in_force():
        yield told, "assent check"
    if oldest > OLD_MAIL:
        yield f"mail has waited for {oldest.total_seconds() / 3600:.0f} hours", "assent queue list"


async def _about_smarthosts(store: Store) -> list[tuple[str, str]]:
    """Say of the mail that has waited longest that its smarthost cannot be reached, and why."""
    waiting = await store.queue.waiting(Selection(), _LOOKED_AT)
    replies = [one.reply.removeprefix(_UNREACHABLE) for one in waiting if one.reply.startswith(_UNREACHABLE)]
    return (
        [(f"mail waits for a smarthost that cannot be reached: {replies[0]}", "assent queue list")] if replies else []
    )


def _about_deadlines(folder: DataFolder, now: datetime) -> Iterator[tuple[str, str]]:
    try:
        found = folder.deadlines()
    except StoreUnavailable:
        return
    for one in found:
        if one.warned_from <= now:
            yield one.told(now), _ANSWERS[one.kind]


def _about_streams(config: Config, store: Store, told: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    states = store.people.orders().streams
    for name in _paused(store):
        yield f"the stream {name} is paused by {states[name].by}: {states[name].why}", f"assent streams release {name}"
    for end in shadow_ends(config.streams):
        if 0 <= end.days_left(now.date()) <= SHADOW_DAYS:
            yield (
                f"the stream {end.stream} enforces after {end.until}",
                f"assent simulate --stream {end.stream} LIST.csv",
            )
    slowest = told.get("slowest_opt_out_seconds") or 0
    if slowest > OPT_OUT_SECONDS:
        yield f"an opt-out took {slowest:.0f} s to be recorded", "assent check"
    for stream, count in told.get("held_for_content", {}).items():
        yield f"{count} recipients of {stream} were held, since it reads as promotion", "assent queue list --held"
    unproven = [one for one in told["refused"] if one["reason"] in ("no-consent", "unproven")]
    if sum(one["recipients"] for one in unproven) > told.get("relayed", 0):
        yield (
            "most of what came was refused for want of consent",
            "assent consent import FILE --topic TOPIC --dry-run",
        )


def webhook_rows(config: Config, store: Store, now: datetime) -> list[dict[str, Any]]:
    """Return what waits for each endpoint and each tool: since when, after how many attempts, with which answer."""
    backlogs = {one.target: one for one in store.calls.backlogs()}
    return [
        {
            "name": one.target,
            "state": "disabled" if one.gone_at else "behind" if _is_behind(one, now) else "up to date",
            "waiting": one.waiting,
            "oldest": one.oldest.isoformat(timespec="seconds") if one.oldest else None,
            "attempts": one.attempts,
            "last_answer": one.answer,
        }
        for one in ({name: Backlog(name) for name in config.webhooks} | backlogs).values()
    ]


def _is_behind(backlog: Backlog, now: datetime) -> bool:
    return bool(backlog.answer) or (backlog.oldest is not None and now - backlog.oldest > LATE_EVENT)


def _about_webhooks(config: Config, store: Store, now: datetime) -> Iterator[tuple[str, str]]:
    for one in webhook_rows(config, store, now):
        name, waiting = one["name"], one["waiting"]
        if one["state"] == "disabled":
            yield (
                f"{name} answered 410 and is told nothing more; {waiting} events wait",
                f"assent webhooks retry {name}",
            )
        elif one["state"] == "behind":
            yield f"{name} does not take what it is told ({one['last_answer'] or 'late'})", "assent webhooks list"


def _paused(store: Store) -> list[str]:
    return sorted(name for name, state in store.people.orders().streams.items() if state.is_paused)


async def _shadow_ends(config: Config, folder: DataFolder, store: Store, now: datetime) -> list[str]:
    """Say of each stream in shadow mode when it will enforce, and how many people it will refuse then."""
    ends = [one for one in shadow_ends(config.streams) if one.days_left(now.date()) >= 0]
    return [f"{one.stream} after {one.until}: {await _counted(config, folder, store, one.stream, now)}" for one in ends]


async def _counted(config: Config, folder: DataFolder, store: Store, stream: str, now: datetime) -> str:
    try:
        return f"{await lacking(config, folder, store, stream, now)} people"
    except StoreUnavailable:
        return "nobody can be counted now"


async def lacking(config: Config, folder: DataFolder, store: Store, name: str, now: datetime) -> int:
    """Return how many people got a stream's mail in shadow mode only, and would get none without it today (OPS-04).

    Whoever has opted in since is none of them, nor who has said no, and would be refused with it as well. Nor is, where
    shadow mode was prolonged, who got the last of it longer ago than it may be announced ahead.
    """
    stream, law = config.streams[name], config.law.under(store.people.orders().policies)
    shadowed = defaultdict[str, set[str]](set)
    since = min(now.date(), stream.until or now.date()) - LONGEST_SHADOW
    for who, topic in await asyncio.to_thread(folder.shadowed, name, since):
        shadowed[who].add(topic)
    found, people = 0, list(shadowed)
    for start in range(0, len(people), _AT_ONCE):
        for person, standing in await store.people.standings_of(people[start : start + _AT_ONCE]):
            verdicts = (
                strictest(_enforcing(stream, topic, config.topics), standing, law, now)
                for topic in shadowed[person.hex()]
            )
            found += any(one.reason in LACKS_CONSENT for one in verdicts)
        await asyncio.sleep(0)
    return found


def _enforcing(stream: Stream, topic: str, topics: Mapping[str, Topic]) -> list[Purpose]:
    """Return for what a stream's message on a topic would be sent, once it enforces; on any of its topics for ""."""
    named = [topic] if topic in stream.topics else stream.topics
    return [replace(stream.promotes(topics[one]), shadow_until=None) for one in named]


async def _suppressed(store: Store) -> int | None:
    """Return how many people are suppressed; None while nobody can be asked."""
    try:
        return await store.people.count_suppressed()
    except StoreUnavailable:
        return None
