"""What a value of the file may be: the making of kinds, and the plainest of them.

Every refusal is a `ValueError` of one sentence that says what is wrong and how to write it; none repeats a secret.
Names, hosts and networks are `names`', what stands in other files is `files`'.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.model import Brake, Pace, Period

_FAR_FUTURE_DIGITS = 6
_LEAST_MESSAGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `read` takes what TOML gave and the file's folder; `blank` stands for "not set".

    `name` has its article ("a duration"), `form` shows how the value is written.
    """

    name: str
    form: str
    read: Callable[[Any, Path], Any]
    blank: Any = None


class Missing(ValueError):
    """A file that the configuration names does not exist yet; `value` is what the key says all the same.

    `meanwhile` says what happens without the file; it is "" where nothing can run without it.
    """

    def __init__(self, sentence: str, value: Any, meanwhile: str = "") -> None:
        super().__init__(sentence)
        self.value = value
        self.meanwhile = meanwhile


def shown(value: object) -> str:
    """Return a value as the operator wrote it, cut short."""
    if isinstance(value, date):
        return value.isoformat()
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "a table" if isinstance(value, dict) else text if len(text) <= 60 else f"{text[:57]}…"


def written(name: str, form: str, convert: Callable[[str, Path], Any], blank: Any = "") -> Kind:
    """Make a kind that is written as a string; `convert` answers None where the general sentence will do."""

    def read(value: Any, folder: Path) -> Any:
        found = convert(value, folder) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"{shown(value)} is not {name}; write {form}")
        return found

    return Kind(name, form, read, blank)


def word(name: str, form: str, convert: Callable[[str], Any], blank: Any = "") -> Kind:
    return written(name, form, lambda text, folder: convert(text), blank)


def many(kind: Kind, name: str, form: str, *, at_least: int = 0) -> Kind:
    """Make a kind that is an array of another kind."""

    def read(value: Any, folder: Path) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not {name}; write {form}")
        if len(value) < at_least:
            raise ValueError(f"the array is empty, and needs at least {at_least}; write {form}")
        return _each(kind, value, folder)

    return Kind(name, form, read, ())


def _each(kind: Kind, values: list[Any], folder: Path) -> tuple[Any, ...]:
    found, wrong = [], []
    for value in values:
        try:
            found.append(kind.read(value, folder))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; and ".join(wrong))
    return tuple(found)


def choice(*words: str) -> Kind:
    """Make a kind that is one of a few words."""
    listed = ", ".join(f'"{one}"' for one in words)
    return word("one of these words", listed, lambda text: text if text in words else None, words[0])


def whole_number(least: int, most: int) -> Kind:
    """Make a kind that is an integer between two others, both included."""

    def read(value: Any, folder: Path) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{shown(value)} is not a whole number from {least} to {most}; write one, without quotes")
        return value

    return Kind("a whole number", f"from {least} to {most}", read, least)


def line(text: str) -> str | None:
    return text if text.strip() and text.isprintable() else None


LINE = word("a line of text", "one that is not empty", line)


def _yes_or_no(value: Any, folder: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false; write one of them, without quotes")
    return value


FLAG = Kind("a switch", "`true`, `false`", _yes_or_no, False)


def _day(value: Any, folder: Path) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(f"{shown(value)} is not a date; write 2026-12-31, without quotes")
    return value


DAY = Kind("a date", "`2026-12-31`, without quotes", _day)

_DURATION = re.compile(rf"([0-9]{{1,{_FAR_FUTURE_DIGITS}}})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _period(text: str) -> Period | None:
    try:
        return Period.parse(text)
    except ValueError:
        return None


PERIOD = word("a period", '"24mo", "2 years" or "90 days"', _period, None)

_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_OCTETS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text)
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]]) if found else None


def _interval(text: str) -> timedelta | None:
    return _duration(text) or None


DURATION = word("a duration", '"30s", "15m", "36h" or "365d"', _duration, timedelta(0))
INTERVAL = word("a duration above zero", '"30s", "15m", "36h" or "5d"', _interval, timedelta(days=5))
OPTIONAL_INTERVAL = replace(INTERVAL, blank=None)
INTERVALS = replace(
    many(INTERVAL, "an array of durations", '["1m", "5m", "1h"]', at_least=1), blank=(timedelta(minutes=1),)
)


def _size(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    octets = int(found[1]) * _OCTETS[found[2]] if found else None
    if octets is not None and octets < _LEAST_MESSAGE:
        raise ValueError(f'{shown(text)} is too small for a message; write "64KiB" or more (RFC 5321 §4.5.3.1.7)')
    return octets


SIZE = word("a size", '"25MiB", "512KiB"', _size, _LEAST_MESSAGE)


def _rate(text: str) -> float | None:
    """Return how many a second, 0 for no limit."""
    found = re.fullmatch(r"none|([1-9][0-9]{0,6})/([smh])", text)
    if found is None:
        return None
    return int(found[1]) / _SECONDS[found[2]] if found[1] else 0.0


RATE = word("a rate", '"none" or "14/s" (a second; also /m, /h)', _rate, 0.0)


def _pace(value: Any, folder: Path) -> Pace | None:
    found = re.fullmatch(r"([1-9][0-9]{0,6})/([smh])", value) if isinstance(value, str) else None
    if not found and value != "none":
        raise ValueError(f'{shown(value)} is not a pace; write "none" or "60/m" (a minute; also /s, /h)')
    return Pace(int(found[1]), _SECONDS[found[2]]) if found else None


PACE = Kind("a pace", '"none" or "60/m" (a minute; also /s, /h)', _pace)


def _brake(value: Any, folder: Path) -> Brake | None:
    found = re.fullmatch(r"([0-9]{1,3})% of ([1-9][0-9]{0,6})", value) if isinstance(value, str) else None
    if value == "none":
        return None
    if not found or not 1 <= int(found[1]) <= 100:
        raise ValueError(f"{shown(value)} is not a brake; write {BRAKE.form}")
    return Brake(int(found[1]), int(found[2]))


BRAKE = Kind("a brake", '"none" or "80% of 500"', _brake)


MOST_WORKERS = 60
"""Two crews, while one takes over from the other, share the 126 slots for ids (`gateway.ids`)."""


def _workers(value: Any, folder: Path) -> int:
    if value == "auto":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, MOST_WORKERS)
    if type(value) is not int or not 1 <= value <= MOST_WORKERS:
        raise ValueError(
            f'{shown(value)} is not a number of processes; write "auto" (one a core), or 1 to {MOST_WORKERS}'
        )
    return value


WORKERS = Kind("a number of processes", '"auto", or a number from 1 to 60', _workers, 1)
