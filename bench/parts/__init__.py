"""The parts of the bench, one module each: what is measured, how, and which bars that must clear.

The one rule: a part measures whole or not at all; where Assent itself fails it raises `PassFailed` or `Unavailable`,
and what was kept of an earlier run stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results import Part


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured. `peers` are the words of `--only`; `messages` is a pass's, None for seconds' worth.

    `recipients` are those of one submission, `people` those in the larger store, `queued` the recipients that wait,
    `imported` the rows of a file.
    """

    rounds: int
    sessions: Sequence[int]
    messages: int | None
    peers: Sequence[str]
    recipients: int
    people: int
    queued: int
    imported: int


Measure = Callable[[Path, Options], Part]
"""Measures one part in a fresh folder."""
