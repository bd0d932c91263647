"""What has been read of a file, each statement once, on disk until all of it is there.

The rule that must not be broken: opt-outs come out before consents, whatever the order of the file. The stage has no
name on disk from the beginning, so that nothing of it outlives the import. Processes that are forked once it is full
may read it at the same time.
"""

from __future__ import annotations

import marshal
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from gateway.consent import EventType
from gateway.imports.rows import Row

_CONSENTS = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED)

_PARTS = 256
"""As many as a place has first octets: the rows of one part are sorted in memory at a time."""

_TOGETHER = 32
"""Rows of one part that are written at a time."""

_Kept = tuple[bytes, str, str, int, str, str]
"""A row's place, type, time and line, which is less than 0, so that of equal ones the first of the file comes last.

Its subject and algorithm follow. Times are in UTC, so that their texts sort as they do.
"""


class Stage:
    """What the rows of a file say: two piles, of which the opt-outs are applied first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.opt_outs = Pile(file)
        self.consents = Pile(file)

    def add(self, rows: Iterable[tuple[bytes, Row]]) -> None:
        """Take rows, each with the place of its subject in the order in which they come out."""
        for place, one in rows:
            if one.type:
                pile = self.consents if one.type in _CONSENTS else self.opt_outs
                pile.add((place, one.type.value, _text(one.at), -one.line, one.subject, one.algorithm))
        self._file.flush()

    def __len__(self) -> int:
        """Return how many rows were taken, those counted that say the same."""
        return len(self.opt_outs) + len(self.consents)

    def rows(self) -> Iterator[tuple[bytes, Row]]:
        """Yield every row with its place, opt-outs first, each kind by places."""
        return chain(self.opt_outs.rows(), self.consents.rows())


class Pile:
    """Rows by what they say of whom; of two that say the same, the newer, or else the first."""

    def __init__(self, file: BinaryIO) -> None:
        self._parts = [_Part(file) for _ in range(_PARTS)]
        self._count = 0

    def __len__(self) -> int:
        """Return how many rows were added, those counted that say the same."""
        return self._count

    def add(self, row: _Kept) -> None:
        self._parts[row[0][0]].add(row)
        self._count += 1

    def rows(self, share: int = 0, of: int = 1) -> Iterator[tuple[bytes, Row]]:
        """Yield every row about one of so many shares of the people, with its place and by places."""
        for part in self._parts[share::of]:
            for place, kind, at, line, subject, algorithm in part.newest():
                yield place, Row(-line, subject, EventType(kind), datetime.fromisoformat(at) if at else None, algorithm)


def _text(at: datetime | None) -> str:
    return at.isoformat() if at else ""


class _Part:
    """The rows of one part: the latest in memory, the others as blocks of a file, which all parts share."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offsets, self._sizes = array("Q"), array("L")
        self._latest: list[_Kept] = []

    def add(self, row: _Kept) -> None:
        self._latest.append(row)
        if len(self._latest) == _TOGETHER:
            self._offsets.append(self._file.tell())
            self._sizes.append(self._file.write(marshal.dumps(self._latest)))
            self._latest.clear()

    def newest(self) -> Iterable[_Kept]:
        """Return them sorted, of those that say the same of one place only the newest."""
        rows = self._latest.copy()
        for offset, size in zip(self._offsets, self._sizes, strict=True):
            rows += marshal.loads(os.pread(self._file.fileno(), size, offset))
        rows.sort()
        return {row[:2]: row for row in rows}.values()


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Open an empty stage, which goes when it is closed or the process ends."""
    with tempfile.TemporaryFile(prefix=".import-", dir=folder) as file:
        yield Stage(file)
