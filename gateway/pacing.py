"""How fast each destination takes promotion, once it has asked us to slow down (OUT-16).

The one rule: a destination's wish concerns that destination alone. After each refusal it is left alone twice as long,
and one copy then finds out whether more is wanted; each that is taken halves the wait, until it is forgotten. Times are
seconds of the caller's clock. What waits, and where, is left to `lanes`.
"""

from __future__ import annotations

from gateway.model import Reply

FIRST_REST = 5.0
LONGEST_REST = 600.0
_SLOW_DOWN = 421


class Paces:
    """The destinations (domains) that asked us to slow down; usually there is none."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}

    def __bool__(self) -> bool:
        return bool(self._paces)

    def wait(self, domain: str, now: float) -> float:
        """Return 0 where a copy may go now, or else in how many seconds to ask again, each later than the last."""
        pace = self._paces.get(domain)
        return pace.wait(now) if pace else 0.0

    def heard(self, domain: str, reply: Reply, now: float) -> None:
        """Learn from what a copy was answered."""
        if _asks_to_slow_down(reply):
            if domain not in self._paces:
                self._begin(domain, now)
            self._paces[domain].refused(now)
        elif reply.is_positive and (pace := self._paces.get(domain)) and pace.taken(now):
            del self._paces[domain]

    def _begin(self, domain: str, now: float) -> None:
        """Remember a wish, and forget those that nobody has come back to for a long time."""
        self._paces = {name: pace for name, pace in self._paces.items() if not pace.is_forgotten(now)}
        self._paces[domain] = _Pace(now)


class _Pace:
    def __init__(self, now: float) -> None:
        self._interval = FIRST_REST
        self._next = self._line_ends = now + FIRST_REST
        self._is_on_trial = False

    def wait(self, now: float) -> float:
        if now >= self._next:
            self._next = now + self._interval
            self._is_on_trial = True
            return 0.0
        turn = max(self._line_ends, self._next)
        self._line_ends = turn + self._interval
        return min(turn - now, LONGEST_REST)

    def refused(self, now: float) -> None:
        """Copies that were under way when the pace was set say nothing new; the one on trial does."""
        if self._is_on_trial:
            self._set(min(self._interval * 2, LONGEST_REST), now)

    def taken(self, now: float) -> bool:
        """True where the destination takes everything again."""
        if self._is_on_trial:
            self._set(self._interval / 2, now)
        return self._interval < FIRST_REST

    def is_forgotten(self, now: float) -> bool:
        return now > max(self._next, self._line_ends) + LONGEST_REST

    def _set(self, interval: float, now: float) -> None:
        self._is_on_trial = False
        self._interval = interval
        self._next = now + interval


def _asks_to_slow_down(reply: Reply) -> bool:
    """True for 4.7.x (RFC 3463: policy; Gmail's 4.7.28 is a rate), and for a 421 that does not say what it is about."""
    return reply.is_transient and (
        reply.enhanced.startswith("4.7.") or (reply.code == _SLOW_DOWN and not reply.enhanced)
    )
