"""Who is here: the connections of one listener, what they hold in memory together, and how much of either is borne.

The rule that must not be broken: what has been given is taken back exactly once, so that no place and no octet is lost
for good. What a connection says and hears is `protocol`'s; what other processes have let in, `crowd`'s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from gateway.listener.crowd import Census, is_over
from gateway.listener.peers import network_of
from gateway.model import Pace, Reply

SHUTTING_DOWN: Final = Reply(421, "4.3.2", "the service is shutting down, try again soon")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one listener bears. Sizes in octets; `slowest_content` in octets a second, after the first minute.

    `without_progress` is how long a connection may last on which no recipient, message or login is decided; `arrivals`
    is for the connections of one address. While we leave, `welcome` is how long those may take who have come to hand in
    a message and have not yet.
    """

    connections: int = 10_000
    connections_per_address: int = 50
    arrivals: Pace | None = None
    octets_in_flight: int = 256 * 1024 * 1024
    idle: timedelta = timedelta(minutes=5)
    without_progress: timedelta = timedelta(minutes=20)
    slowest_content: int = 500
    patience_with_content: timedelta = timedelta(minutes=1)
    handshake: timedelta = timedelta(seconds=60)
    welcome: timedelta = timedelta(seconds=3)
    parting: timedelta = timedelta(seconds=5)


class Guest(Protocol):
    """A connection, as far as whoever counts it knows it."""

    def look_up(self) -> None:
        """See whether the listener is draining."""

    def look_at_the_clock(self, now: float) -> None:
        """Part from a client that has overstayed; `now` is the loop's time."""

    def dismiss(self) -> None:
        """The time to finish is over."""


@dataclass(slots=True)
class Traffic:
    """What the connections of one listener share: who is here, what they hold in memory, and whether we are leaving.

    A connection takes a place from its beginning until we hang up, so that whoever has read our 221 may come again
    at once; it is one of `connections` until its socket and its hooks are done with. While we leave (`draining`), those
    who have come for their first message may hand it in as long as we are `welcoming`.
    """

    limits: Limits
    census: Census
    connections: set[Guest] = field(default_factory=set)
    octets_in_flight: int = 0
    draining: bool = False
    welcoming: bool = True
    opened: int = 0
    turned_away: int = 0
    timed_out: int = 0
    _places: dict[Guest, str] = field(default_factory=dict)
    _by_address: Counter[str] = field(default_factory=Counter)

    def admit(self, connection: Guest, ip: str) -> Reply | None:
        """Give a new connection a place, or return the reply that turns it away."""
        refusal = self._objection(ip)
        if refusal:
            self.turned_away += 1
            return refusal
        self.opened += 1
        self.connections.add(connection)
        self._places[connection] = ip
        self._count(ip, 1)
        if self.limits.arrivals:
            self.census.arrivals.add(network_of(ip))
        return None

    def vacate(self, connection: Guest) -> None:
        """Take the connection's place back, if it still has one."""
        ip = self._places.pop(connection, None)
        if ip is not None:
            self._count(ip, -1)

    @property
    def guests(self) -> int:
        """How many have a place."""
        return len(self._places)

    def _count(self, ip: str, change: int) -> None:
        """Take note of one more or one less, and let the other processes know."""
        place = network_of(ip)
        self._by_address[place] += change
        self.census.connections.put(place, self._by_address[place])
        if not self._by_address[place]:
            del self._by_address[place]
        self.census.seats.tell(self.guests)

    def forget(self, connection: Guest) -> None:
        self.vacate(connection)
        self.connections.discard(connection)

    def _objection(self, ip: str) -> Reply | None:
        if self.draining:
            return SHUTTING_DOWN
        if len(self._places) >= self.limits.connections:
            return Reply(421, "4.3.2", "too many connections, try again later")
        place = network_of(ip)
        if self._by_address[place] + self.census.connections.elsewhere(place) >= self.limits.connections_per_address:
            return Reply(421, "4.7.0", "too many connections from your address")
        if self.limits.arrivals and is_over(self.limits.arrivals, self.census.arrivals.level(place)):
            return Reply(421, "4.7.0", "too many connections from your address of late, try again later")
        return None
