"""Slow down whoever tries links that are not ours, by the network that they come from.

The rule that must not be broken: only a link that has already failed counts, so a valid one is never refused, however
many come from one network (WEB-03, WEB-04). Memory is bounded: a window forgets everything.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Final

ALLOWANCE: Final = 600
WINDOW: Final = 60.0
NETWORKS: Final = 10_000


class Throttle:
    """Count failures for each /24 or /64, in windows of `WINDOW` seconds."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self._ends = 0.0

    def allows_failure(self, ip: str, now: float) -> bool:
        """Count one failure at `now` (monotonic seconds); False once its network has had `ALLOWANCE` of them."""
        if now >= self._ends or len(self._failures) >= NETWORKS:
            self._failures.clear()
            self._ends = now + WINDOW
        network = _network(ip)
        self._failures[network] += 1
        return self._failures[network] <= ALLOWANCE


def _network(ip: str) -> str:
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    return str(ip_network((address, 24 if address.version == 4 else 64), strict=False))
