"""How one thing was found that an operator asked about: as `assent check` and its sisters tell it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How one thing was found."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it was found, and in which words an operator is told."""

    what: str
    state: State
    told: str
