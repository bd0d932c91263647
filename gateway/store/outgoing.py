"""What is told to programs outside, as the store keeps it until they have heard it: the nouns and the verbs.

A call is one thing that one target has to be told. The rule that must not be broken: what was committed elsewhere
becomes its calls in one transaction with the position up to which it was read, so that nothing is passed over; and a
call goes only once its target has taken it, or may no longer be told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

SINCE = "since:"
"""What stands before a target's name where a position says from which event of the ledger on it is told."""

TOOL = "tool:"
"""What stands before the host where a call's target is no webhook, but the tool that sent a message."""


@dataclass(frozen=True, slots=True)
class NewCall:
    """What a target has to be told. Calls about one subject are made in order; a `lasting` one is never given up."""

    target: str
    subject: str
    content: str
    is_lasting: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is to be made now; `attempts` have failed before."""

    id: int
    content: str
    is_lasting: bool
    since: datetime
    attempts: int


class Failure(NamedTuple):
    """A call that failed: when it is made again, and what came of it, in words that name nobody."""

    id: int
    due: datetime
    answer: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one target: how many calls, since when the oldest, how it last failed; since when it is gone."""

    target: str
    waiting: int = 0
    oldest: datetime | None = None
    attempts: int = 0
    answer: str = ""
    gone_at: datetime | None = None


class Ending(NamedTuple):
    """A decision line that ended a recipient, with the address, which the line itself does not say."""

    id: int
    address: str
    line: bytes


class Pause(NamedTuple):
    """One time that a stream was paused."""

    number: int
    stream: str
    why: str
    by: str
    at: datetime


class ToolLink(NamedTuple):
    """Where the tool of a login wants to hear of a person's "no" to a topic; "" for mail that left its topic open."""

    topic: str
    login: str
    url: str


class Calls(Protocol):
    """What waits to be told, for all targets."""

    def positions(self) -> Mapping[str, int]:
        """Return up to where each source has been read."""

    def endings(self, limit: int) -> list[Ending]:
        """Return what is to be announced of recipients' ends, the oldest first."""

    def tool_links(self, who: str) -> list[ToolLink]:
        """Return where tools want to hear of a person's "no"."""

    async def publish(
        self,
        calls: Sequence[NewCall],
        positions: Mapping[str, int],
        *,
        endings: int = 0,
        told: Sequence[tuple[str, ToolLink]] = (),
        forget: Collection[str] = (),
    ) -> None:
        """Keep calls, and that their sources have been read up to here: endings up to that one, these links.

        What else waits about those to `forget` goes before.
        """

    async def settle(
        self, target: str, done: Collection[int], failures: Collection[Failure], rest: datetime | None = None
    ) -> None:
        """Write down what came of calls to a target, to which none is made before it has had a rest."""

    async def give_up(self, before: datetime) -> int:
        """Forget calls that have waited since before, unless they are lasting; return how many."""

    async def forget_tool_links(self, before: datetime) -> None:
        """Forget where tools want to hear of people to whom nothing was sent since."""

    def due(self, target: str, limit: int) -> list[Call]:
        """Return the calls to make now, the oldest of each subject; none to a target that rests or is gone."""

    def targets(self) -> list[str]:
        """Return whom something waits for."""

    def backlogs(self) -> list[Backlog]:
        """Return what waits for each target, and which are gone."""

    async def gone(self, target: str) -> None:
        """Make no call to a target any more, until it is tried again."""

    async def try_again(self, target: str) -> int:
        """Make every call to a target due now, also where it rests or is gone; return how many wait."""

    async def drop_targets(self, targets: Collection[str]) -> None:
        """Forget targets, and what waits for them."""
