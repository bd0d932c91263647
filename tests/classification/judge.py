"""Judge the reading of messages on labelled ones, and say what came of it: the figures, their intervals, the misses.

Nothing here knows the signals: it reads the corpus, asks `promotion`, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from gateway.headers import split
from gateway.model import Advertising, Finding
from gateway.promotion import Reading, read
from tests.classification.gather import Labelled

TRANSACTIONAL, PROMOTIONAL = "transactional", "promotional"
RULES = {
    "US": (Advertising.PRIMARY, False),
    "UK": (Advertising.SIGNIFICANT, False),
    "CA": (Advertising.ANY, False),
    "DE, AT": (Advertising.ANY, True),
}
_Z = 1.959964


class Share(NamedTuple):
    """So many of so many."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval at 95 %."""
        n, p = self.total, self.value
        middle, spread = p + _Z * _Z / (2 * n), _Z * sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n))
        scale = 1 + _Z * _Z / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.total} = {self.value:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Judged:
    """A labelled message and what it was read as."""

    labelled: Labelled
    reading: Reading

    def found(self, rules: str = "US") -> Finding | None:
        return self.reading.under(*RULES[rules])


def judged(messages: Iterable[Labelled]) -> list[Judged]:
    return [Judged(one, read(octets, split(octets))) for one in messages for octets in (one.message(),)]


def flagged(those: Sequence[Judged], label: str, rules: str = "US") -> Share:
    """Return how many with a label read as promotion under a country's rules."""
    found = [one.found(rules) is not None for one in those if one.labelled.label == label]
    return Share(sum(found), len(found))


def by_source(those: Iterable[Judged]) -> list[tuple[str, str, str, Share]]:
    """Return label, source, licence, and how many of a source read as promotion, in the order of the corpus."""
    totals, counts = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for one in those:
        key = (one.labelled.label, one.labelled.source, one.labelled.licence)
        totals[key] += 1
        counts[key] += one.found() is not None
    return [(*key, Share(counts[key], total)) for key, total in totals.items()]
