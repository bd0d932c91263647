"""What the processes of one listener know together of those who come: who is here, who came, who guessed wrong.

The rule that must not be broken: a limit on an address or a login is the machine's, however many processes there are,
and keeping it costs no lock and no message between them. What is done about it is `protocol`'s and `desk`'s.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

from gateway.listener.door import Seats
from gateway.listener.tally import SharedTally, Tally
from gateway.model import Pace

FORGET_A_GUESS: Final = 600.0
"""Seconds in which a wrong password fades to a third of a count."""


@dataclass(frozen=True, slots=True)
class Census:
    """One process's view of the crowd. Addresses are counted as `peers.network_of` says."""

    seats: Seats
    connections: Tally
    """Open ones, by address."""
    arrivals: Tally
    """Connections of late, by address."""
    messages: Tally
    """Transactions of late, by login."""
    guesses: Tally
    """Wrong passwords of late, by address, by login, and by both."""
    regulars: Tally
    """Addresses from which a login has come in, by both."""
    passwords: Tally
    """Good ones, with the hash that they are good for."""


class Crowd:
    """The shared memory, made by the supervisor before it forks: one row for each of its processes."""

    def __init__(self, processes: int, arrivals: Pace | None = None, messages: Pace | None = None) -> None:
        self._taken = memoryview(mmap.mmap(-1, processes * 8)).cast("Q")
        self._connections, self._regulars, self._passwords = (SharedTally(processes) for _ in range(3))
        self._arrivals = SharedTally(processes, arrivals.seconds if arrivals else None)
        self._messages = SharedTally(processes, messages.seconds if messages else None)
        self._guesses = SharedTally(processes, FORGET_A_GUESS)

    def seen_by(self, process: int) -> Census:
        """Return what this process sees; nobody is here yet that it has let in."""
        census = Census(
            Seats(self._taken, process),
            self._connections.own(process),
            self._arrivals.own(process),
            self._messages.own(process),
            self._guesses.own(process),
            self._regulars.own(process),
            self._passwords.own(process),
        )
        census.seats.tell(0)
        census.connections.clear()
        return census


def is_over(pace: Pace, level: float) -> bool:
    """True where one more would be too many; half a count may have faded between the first and the last."""
    return level > pace.count - 0.5
