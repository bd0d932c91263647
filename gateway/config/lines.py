"""On which line of a TOML text does each key stand? `tomllib` does not say.

The text must be one that `tomllib` accepts: this module finds places, it judges nothing. What stands inside an inline
table or an array has the line of the key that holds it.
"""

from __future__ import annotations

import re
import tomllib

Place = tuple[str | int, ...]
"""A key's full path: names of tables and keys, and the index where an array of tables is passed through."""

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_HEADER = re.compile(rf"\[(?P<again>\[)?[ \t]*(?P<key>{_KEY})[ \t]*\]\]?")
_ASSIGNMENT = re.compile(rf"(?P<key>{_KEY})[ \t]*=")
_PIECE = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\''''
    r"""|\#[^\n]*|[\[{]|[\]}]|\n|[^"'\#\[\]{}\n]+""",
    re.DOTALL,
)
_DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}
_TOLD = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Lines:
    """The line of every table and key of one text, counted from 1."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Place, int] = {}
        self._last: dict[Place, int] = {}
        self._scan(text)

    def of(self, place: Place) -> int:
        """Return the line of a place, or of the nearest table or key around it; 1 for the whole text."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def _scan(self, text: str) -> None:
        table: Place = ()
        position = _skip(text, 0)
        while header := _HEADER.match(text, position) or _ASSIGNMENT.match(text, position):
            line = text.count("\n", 0, position) + 1
            parts = _parts(header["key"])
            if header.re is _HEADER:
                table = self._open(parts, line, again=bool(header["again"]))
                position = _skip(text, header.end())
            else:
                self._note(table, parts, line)
                position = _skip(text, _end_of_value(text, header.end()))

    def _open(self, parts: list[str], line: int, *, again: bool) -> Place:
        if again:
            array = (*self._note((), parts[:-1], line), parts[-1])
            self._last[array] = self._last.get(array, -1) + 1
        return self._note((), parts, line)

    def _note(self, table: Place, parts: list[str], line: int) -> Place:
        """Walk down from a table; TOML lets a path pass through the latest element of an array of tables."""
        place = table
        for part in parts:
            place = (*place, part)
            self._lines.setdefault(place, line)
            if place in self._last:
                place = (*place, self._last[place])
                self._lines.setdefault(place, line)
        return place


def syntax_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Return the line at which `tomllib` gave up, and what it said without the place."""
    told = _TOLD.search(str(error))
    sentence = _TOLD.sub("", str(error))
    if told is None or told[1] is None:
        return text.rstrip("\n").count("\n") + 1, sentence
    return int(told[1]), sentence


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _parts(key: str) -> list[str]:
    return [_plain(part) for part in re.findall(_PART, key)]


def _plain(part: str) -> str:
    return str(tomllib.loads(f"key = {part}")["key"]) if part[0] in "\"'" else part


def _end_of_value(text: str, position: int) -> int:
    depth = 0
    while piece := _PIECE.match(text, position):
        if piece[0] == "\n" and depth == 0:
            break
        depth += _DEPTH.get(piece[0], 0)
        position = piece.end()
    return position
