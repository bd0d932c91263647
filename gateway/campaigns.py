"""How each campaign fares, over all workers: what is counted at the door, and the brake that is pulled.

The rule that must not be broken: counting costs an accepted message no lock, no system call and no statement. Every
worker counts in its own row of shared memory, and rows are added up only when somebody is refused. `brake`
says when it is too much; the pause itself is the store's, so that every worker and every restart knows of it.
"""

from __future__ import annotations

import logging
import mmap
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from gateway.brake import Totals, Window
from gateway.errors import StoreUnavailable
from gateway.metrics import Metrics
from gateway.model import Brake, Stream
from gateway.store import Now, People

log = logging.getLogger(__name__)

PLACES = 256
"""Campaigns that one worker counts at a time; the one it has not heard of for longest makes room."""

_COLUMNS = 4
BY = "the brake"


class Campaign(NamedTuple):
    """One sending: whose, on which stream, under which name ("" for all of them), since which change of the stream."""

    login: str
    stream: str
    name: str
    changes: int


class CampaignBoard:
    """The shared block: made before the workers are, one row a slot, which is one worker's at a time."""

    def __init__(self, slots: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, slots * _COLUMNS * PLACES * 8)).cast("Q")

    def rows(self, first: int, count: int) -> list[Row]:
        """Return the rows of so many slots."""
        size = _COLUMNS * PLACES
        return [Row(self._cells[slot * size : (slot + 1) * size]) for slot in range(first, first + count)]


class Row:
    """One worker's counts: for each place the campaign's tag, its recipients, the refused, and when it began."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        columns = [cells[n * PLACES : (n + 1) * PLACES] for n in range(_COLUMNS)]
        self._tags, self._recipients, self._refused, self._since = columns

    def clear(self) -> None:
        for place in range(PLACES):
            self._tags[place] = 0

    def begin(self, place: int, tag: int, since: int) -> None:
        """Give a place to another campaign; until its tag stands there, nobody adds it up."""
        self._tags[place] = self._recipients[place] = self._refused[place] = 0
        self._since[place] = since
        self._tags[place] = tag

    def add(self, place: int, recipients: int, refused: int) -> None:
        self._recipients[place] += recipients
        self._refused[place] += refused

    def find(self, tag: int) -> tuple[int, int, int] | None:
        """Return the recipients, the refused and the beginning of a campaign, if this worker has met it."""
        tags = self._tags.tolist()
        if tag not in tags:
            return None
        place = tags.index(tag)
        return self._recipients[place], self._refused[place], self._since[place]


@dataclass(slots=True)
class _Counted:
    """A campaign that this worker counts: its place in the row, its tag in everybody's, what was seen of it."""

    place: int
    tag: int
    window: Window


class Campaigns:
    """One worker's counting; `own` is its place among the rows of its crew."""

    def __init__(self, rows: Sequence[Row], own: int, people: People, metrics: Metrics, now: Now) -> None:
        self._rows = rows
        self._own = rows[own]
        self._own.clear()
        self._people = people
        self._metrics = metrics
        self._now = now
        self._counted: OrderedDict[Campaign, _Counted] = OrderedDict()

    def count(self, login: str, stream: Stream, name: str, recipients: int, refused: int) -> bool:
        """Count what was decided for some recipients of a campaign; True where its stream must be paused.

        Everything counts for what the login sends on the stream, and under the campaign's name where it has one.
        """
        if stream.brake is None or not recipients:
            return False
        state = self._people.orders().streams.get(stream.name)
        changes = state.changes if state else 0
        is_too_much = self._add(Campaign(login, stream.name, "", changes), stream.brake, recipients, refused)
        if name:
            is_too_much |= self._add(Campaign(login, stream.name, name, changes), stream.brake, recipients, refused)
        return is_too_much

    async def pause(self, login: str, stream: Stream, name: str) -> None:
        """Pause a stream and raise the alarm, once however many workers see the need."""
        why = f"{stream.brake} recipients were refused: login {login}" + (f", campaign {name}" if name else "")
        try:
            is_news = await self._people.pause_stream(stream.name, why, BY)
        except StoreUnavailable as error:
            log.error("the stream %s should be paused and cannot be yet: %s", stream.name, error)
            return
        if is_news:
            self._metrics.stream_paused()
            log.error("the stream %s is paused (%s); see assent streams release", stream.name, why)

    def _add(self, campaign: Campaign, brake: Brake, recipients: int, refused: int) -> bool:
        counted = self._counted.get(campaign) or self._begin(campaign, brake)
        self._counted.move_to_end(campaign)
        self._own.add(counted.place, recipients, refused)
        if not refused:
            return False
        return counted.window.observe(self._totals(counted.tag), recipients, refused, self._now())

    def _begin(self, campaign: Campaign, brake: Brake) -> _Counted:
        place = len(self._counted)
        if place == PLACES:
            place = self._counted.popitem(last=False)[1].place
        counted = self._counted[campaign] = _Counted(place, _tag(campaign), Window(brake))
        self._own.begin(place, counted.tag, int(self._now().timestamp()))
        return counted

    def _totals(self, tag: int) -> Totals:
        found = [counts for row in self._rows if (counts := row.find(tag))]
        recipients, refused, since = zip(*found, strict=True)
        return Totals(sum(recipients), sum(refused), datetime.fromtimestamp(min(since), UTC))


def _tag(campaign: Campaign) -> int:
    """Return what stands for a campaign in the cells of every worker; never 0, which is an empty place."""
    text = "\0".join(map(str, campaign)).encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=8).digest()) or 1
