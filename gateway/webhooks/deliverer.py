"""Make the calls of one target, one after another where they are about the same person.

The rules that must not be broken: a call goes once it was taken, and not before; a target that takes nothing is asked
by one call at a time, with ever longer rests; and a call that is refused by itself holds up none but its person's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from gateway.errors import StoreUnavailable
from gateway.store import Now
from gateway.store.outgoing import Call, Calls, Failure
from gateway.webhooks.caller import CONNECTIONS, Answer

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
BATCH = 4 * CONNECTIONS
"""Calls after which it is written down what came of them: what a kill makes come twice, at most."""

LONGEST_REST = timedelta(minutes=5)
"""How long a target rests at most that has taken nothing of late."""

RECOVERED_AFTER = 3
"""After so many failures in a row, a success means that the target is back: what has failed is tried again at once."""


class Target(Protocol):
    """Whom calls are made to. `ends_when_gone` says that a 410 settles a call, as opposed to ending the target."""

    retry: tuple[timedelta, ...]
    ends_when_gone: bool

    async def call(self, content: str) -> Answer | None:
        """Make one call; None where there is nothing to tell any more."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(slots=True)
class Tally:
    """How many calls were taken, and how many attempts failed, by target, since the process began."""

    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def count(self, target: str, result: str, number: int) -> None:
        if number:
            self._counts[target, result] += number

    def text(self, waiting: Mapping[str, int]) -> str:
        lines = [
            "# HELP assent_webhook_calls_total Events that were told to programs, and attempts that failed.",
            "# TYPE assent_webhook_calls_total counter",
            *(
                f'assent_webhook_calls_total{{webhook="{target}",result="{result}"}} {number}'
                for (target, result), number in sorted(self._counts.items())
            ),
            "# HELP assent_webhook_waiting Events that wait to be told.",
            "# TYPE assent_webhook_waiting gauge",
            *(f'assent_webhook_waiting{{webhook="{target}"}} {number}' for target, number in sorted(waiting.items())),
        ]
        return "\n".join(lines) + "\n"


class Deliverer:
    """The calls of one target, for as long as this process is the one that makes them."""

    def __init__(self, name: str, target: Target, calls: Calls, tally: Tally, now: Now) -> None:
        self._name = name
        self._target = target
        self._calls = calls
        self._tally = tally
        self._now = now
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._failures = 0
        self._is_failing = False

    async def run(self) -> None:
        """Make calls until cancelled."""
        try:
            while True:
                try:
                    is_more = await self._round()
                except StoreUnavailable as error:
                    log.warning("what %s has taken waits to be written down: %s", self._name, error)
                    is_more = False
                if not is_more:
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._target.close()

    async def _round(self) -> bool:
        """Make the calls that are due; True where there may be more."""
        due = self._calls.due(self._name, 1 if self._failures else BATCH)
        if not due:
            return False
        self._is_failing = False
        answers = await asyncio.gather(*map(self._attempt, due))
        made = [(call, answer) for call, answer in zip(due, answers, strict=True) if answer is not _NOT_TRIED]
        await self._settle(made)
        return not self._is_failing

    async def _attempt(self, call: Call) -> Answer | None:
        async with self._slots:
            if self._is_failing:
                return _NOT_TRIED
            try:
                answer = await self._target.call(call.content)
            except Exception:
                log.exception("a call to %s could not be made", self._name)
                answer = Answer(0, "it could not be made, as the log says")
            self._is_failing |= answer is not None and not self._is_settled(answer)
            return answer

    def _is_settled(self, answer: Answer | None) -> bool:
        return answer is None or answer.is_taken or (answer.is_gone and self._target.ends_when_gone)

    async def _settle(self, made: Sequence[tuple[Call, Answer | None]]) -> None:
        done = [call.id for call, answer in made if self._is_settled(answer)]
        failed = [(call, answer) for call, answer in made if answer and not self._is_settled(answer)]
        self._tally.count(self._name, "taken", len(done))
        self._tally.count(self._name, "failed", len(failed))
        before, self._failures = self._failures, self._failures + 1 if failed else 0
        self._tell(before, [answer for _, answer in failed])
        failures = [
            Failure(call.id, self._now() + self._patience(call, answer), answer.words) for call, answer in failed
        ]
        rest = self._now() + self._rest() if failed else None
        await self._calls.settle(self._name, done, failures, rest)
        if any(answer.is_gone for _, answer in failed):
            await self._calls.gone(self._name)
        elif before >= RECOVERED_AFTER and not failed:
            await self._calls.try_again(self._name)

    def _patience(self, call: Call, answer: Answer) -> timedelta:
        steps = self._target.retry
        return max(steps[min(call.attempts, len(steps) - 1)], answer.wait)

    def _rest(self) -> timedelta:
        steps = self._target.retry
        return min(steps[min(self._failures, len(steps)) - 1], LONGEST_REST)

    def _tell(self, before: int, failed: Sequence[Answer]) -> None:
        if failed and any(answer.is_gone for answer in failed):
            log.error("%s answered 410 and is told nothing more; assent webhooks retry ends that", self._name)
        elif failed and not before:
            log.warning("%s does not take what it is told: %s", self._name, failed[0].words)
        elif before and not failed:
            log.warning("over: %s did not take what it was told", self._name)


_NOT_TRIED = Answer(0, "not tried")
