"""The anchor: the signed heads of sealed segments, in a file outside the database, one JSON object a line.

It only ever grows, by some 400 octets a segment, and is never in memory whole: years of it would not fit. A copy that
is kept on another machine shows what the database alone cannot (docs/decisions/0004-ledger-and-segments.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from gateway.ledger import SegmentHead
from gateway.store import disk

ANCHOR = "anchor.jsonl"

SignedHead = tuple[SegmentHead, bytes]
"""A segment's head, and the signature over its octets."""

_BLOCK = 65_536
_NAMES = [field.name for field in fields(SegmentHead)]


class Anchor:
    """An anchor file, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, heads: Iterable[SignedHead]) -> None:
        """Write signed heads at the end, and see them on disk."""
        with open(self.path, "a", encoding="ascii", opener=disk.open_private) as file:
            for head, signature in heads:
                file.write(json.dumps({**asdict(head), "signature": signature.hex()}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def heads(self) -> Iterator[SignedHead]:
        """Yield the heads from the first; a last line that a crash left unfinished is passed over.

        Raises `ValueError` at another line that is not one of ours.
        """
        if self.path.exists():
            with self.path.open(encoding="utf-8", errors="replace") as file:
                yield from (_head_in(line) for line in file if line.endswith("\n"))

    def newest(self, chains: Collection[str]) -> dict[str, int]:
        """Return the number of the newest head of each chain that has one here; what is no head is passed over."""
        found: dict[str, int] = {}
        for line in self._lines_backwards():
            if found.keys() >= set(chains):
                break
            with suppress(ValueError):
                head, _ = _head_in(line.decode("ascii"))
                found.setdefault(head.chain, head.number)
        return found

    def cut_torn_line(self) -> None:
        """Remove a last line that a crash left unfinished, so that the next one does not continue it."""
        torn = next(self._lines_backwards(), b"")
        if torn:
            os.truncate(self.path, self.path.stat().st_size - len(torn))

    def _lines_backwards(self) -> Iterator[bytes]:
        """Yield the lines from the last, a block of the file at a time; first what stands behind the last line feed."""
        if not self.path.exists():
            return
        rest = b""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            for start in range(end - end % _BLOCK, -1, -_BLOCK):
                file.seek(start)
                rest, *lines = (file.read(_BLOCK) + rest).split(b"\n")
                yield from reversed(lines)
        yield rest


def _head_in(line: str) -> SignedHead:
    try:
        told = json.loads(line)
        return SegmentHead(**{name: told[name] for name in _NAMES}), bytes.fromhex(told["signature"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a segment head: {line[:80].rstrip()!r}") from error
