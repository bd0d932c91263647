"""Who may log in, how often somebody may be wrong about it (reliability S13), and how fast a login may go.

The rule that must not be broken: whoever guesses is slowed, over all processes and connections, and nobody is shut out
by somebody else's guesses. An address that has guessed wrong too often is refused unheard, a login that is guessed at
from many addresses is answered late, and neither concerns an address from which that login has come in before. A right
guess forgives no wrong one. Hashes are made one at a time, and whoever has been wrong least goes first.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Final

from gateway.listener.crowd import Census, is_over
from gateway.listener.peers import network_of
from gateway.model import Pace, Reply
from gateway.passwords import PasswordCheck
from gateway.store import LoginRecord, People

PATIENCE: Final = 10
"""Wrong passwords that an address, or a login, may have on its account; they fade in `crowd.FORGET_A_GUESS`."""

_LONGEST_PAUSE: Final = 5.0
_PAUSE_A_GUESS: Final = 0.1

_WRONG: Final = Reply(535, "5.7.8", "the name or the password is wrong")
_TOO_OFTEN: Final = Reply(454, "4.7.0", "too many failed logins from your address, try again later")


@dataclass(frozen=True, slots=True)
class _Try:
    """One try to log in. `account` is where its failure counts: the address's, or that of both for a regular."""

    place: str
    name: str
    password: str
    stored: str
    is_regular: bool

    @property
    def pair(self) -> str:
        return f"{self.place}\0{self.name}"

    @property
    def account(self) -> str:
        return self.pair if self.is_regular else self.place

    @property
    def credential(self) -> str:
        return "\0".join((self.name, self.stored, self.password))


class LoginDesk:
    """Admits logins for one process of a listener."""

    def __init__(self, people: People, census: Census, messages: Pace | None = None) -> None:
        self._people = people
        self._pace, self._messages = messages, census.messages
        self._guesses, self._regulars, self._passwords = census.guesses, census.regulars, census.passwords
        self._check = PasswordCheck()
        self._line = _Line()

    async def admit(self, ip: str, name: str, password: str) -> LoginRecord | Reply:
        """Return the login whose password this is, or the reply that it is owed."""
        record = await self._people.login(name)
        stored = record.secret if record and not record.disabled else ""
        place = network_of(ip)
        one = _Try(place, name, password, stored, self._regulars.level(f"{place}\0{name}") > 0)
        objection = await self._objection(one)
        if objection or record is None:
            return objection or _WRONG
        self._regulars.put(one.pair, 1.0)
        self._passwords.put(one.credential, 1.0)
        return record

    def keeps_waiting(self, name: str) -> bool:
        """True where a login has begun too many messages of late; otherwise one more is counted."""
        if self._pace is None:
            return False
        if is_over(self._pace, self._messages.level(name)):
            return True
        self._messages.add(name)
        return False

    async def _objection(self, one: _Try) -> Reply | None:
        is_remembered = self._passwords.level(one.credential) > 0
        if self._is_tired_of(one):
            return None if is_remembered and one.is_regular else _TOO_OFTEN
        if is_remembered:
            return None
        await self._hesitate(one)
        async with self._line.turn(round(self._guesses.level(one.account))):
            if self._is_tired_of(one):
                return _TOO_OFTEN
            if await self._check.accepts(one.password, one.stored):
                return None
        self._count_guess(one)
        return _WRONG

    def _is_tired_of(self, one: _Try) -> bool:
        return self._guesses.level(one.account) > PATIENCE - 0.5

    async def _hesitate(self, one: _Try) -> None:
        """Answer late where many have guessed at this login, and its own addresses are not among them."""
        if not one.is_regular:
            excess = self._guesses.level(f"\0{one.name}") - PATIENCE
            await asyncio.sleep(min(max(excess, 0.0) * _PAUSE_A_GUESS, _LONGEST_PAUSE))

    def _count_guess(self, one: _Try) -> None:
        for account in {one.place, one.account, f"\0{one.name}"}:
            self._guesses.add(account)


class _Line:
    """Those who wait for one thing: one at a time has it, and the lowest rank is next."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._is_taken = False

    @asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        if self._is_taken:
            called = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._numbers), called))
            await called
        self._is_taken = True
        try:
            yield
        finally:
            self._call_next()

    def _call_next(self) -> None:
        """Hand the turn on; it stays taken until whoever is called has come."""
        self._is_taken = False
        while self._waiting and not self._is_taken:
            called = heapq.heappop(self._waiting)[2]
            if not called.done():
                called.set_result(None)
                self._is_taken = True
