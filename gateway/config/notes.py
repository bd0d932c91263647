"""What is wrong with a file, and what is only odd: every finding, each with its line.

One problem a place: the first stands, so that a value which could not be read is not also blamed for what it is
compared with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from gateway.config.lines import Lines, Place


def dotted(place: Place) -> str:
    """Return a place as the file may write it; an array's element has its number, from 1, in brackets."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            bare = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
            text += f".{bare}" if text else bare
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" for a misspelt word, or ""."""
    found = get_close_matches(word.lower(), sorted(known), 1)
    return f'did you mean "{found[0]}"?' if found else ""


class Notes:
    """Gathers findings, and tells them in the order of the file."""

    def __init__(self, file: str, lines: Lines) -> None:
        self._file = file
        self._lines = lines
        self._problems: dict[Place, str] = {}
        self._spoilt: set[Place] = set()
        self._warnings: list[tuple[Place, str]] = []

    def problem(self, place: Place, sentence: str, *, spoils: bool = True) -> None:
        """Note what must be mended. `spoils` says that nothing can be known of what stands at the place and in it."""
        if self.is_spoilt(place):
            return
        self._problems[place] = sentence
        if spoils:
            self._spoilt.add(place)

    def warning(self, place: Place, sentence: str) -> None:
        if not self.is_spoilt(place):
            self._warnings.append((place, sentence))

    @property
    def problems(self) -> list[str]:
        return self._told(self._problems.items())

    @property
    def warnings(self) -> list[str]:
        return self._told(self._warnings)

    def is_spoilt(self, place: Place) -> bool:
        """True where what stands at a place could not be read, or was found wrong."""
        return any(place[:length] in self._spoilt for length in range(1, len(place) + 1))

    def _told(self, found: Iterable[tuple[Place, str]]) -> list[str]:
        lines = sorted((self._lines.of(place), sentence) for place, sentence in found)
        return [f"{self._file}:{line}: {sentence}" for line, sentence in lines]
