"""A text of HTML in pieces, and what stands in each: it is looked for once, and remembered for all texts that share it.

Marketing tools merge names into a campaign, so that each of its messages has a text of its own, and nearly all of its
pieces are those of the message before. The rule that must not be broken: what is found is what looking at the whole
text would find, so only what depends on one piece alone may be looked for here. No text is kept, only hashes of its
pieces, whose key is the process's own secret.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import accumulate, compress, count, repeat
from operator import is_not
from typing import Final, Generic, TypeVar

_CUTS: Final = (b"</td", b"</p", b"</div", b"</")
"""What each piece of a text but the first may begin with; the first that cuts it small enough does."""

_LONG: Final = 512
"""Octets of a piece, on average, that are not small enough: all of them are looked at for a name that is merged in."""

_LARGE: Final = 256 * 1024
"""Octets of a text from which on it is not cut, since its pieces take several times its memory."""

_REMEMBERED: Final = 16_384
"""Pieces of which each `Finder` knows what stands in them: those of some dozens of campaigns."""

_NOTHING: Final = ()

Found = TypeVar("Found")


class Pieces:
    """A text, cut before its end tags of one kind, or before all of them; one that is large is in one piece."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.cut = next((cut for cut in _CUTS if text.count(cut) * _LONG >= len(text)), _CUTS[-1])
        self.said = text.split(self.cut) if len(text) <= _LARGE else [text]

    @cached_property
    def lowered(self) -> bytes:
        """The text in lower case, place for place: whoever looks for words of HTML looks here."""
        return self.text.lower()

    @cached_property
    def marks(self) -> list[int]:
        """What tells each piece from others, the first left out: nothing but the beginning of the text precedes it."""
        return list(map(hash, self.said[1:]))

    @cached_property
    def lengths(self) -> list[int]:
        """How much of the text precedes each piece, the marks between them left out."""
        return list(accumulate(map(len, self.said), initial=0))


class Finder(Generic[Found]):
    """Finds whatever `look` finds in a text, or with `lowered` in what that is in lower case, each with its place.

    What `look` says of a place may depend on nothing before the last `</`, and nothing behind the next.
    """

    def __init__(self, look: Callable[[bytes], Iterable[tuple[int, Found]]], *, lowered: bool = False) -> None:
        self._look = look
        self._lowered = lowered
        self._memories = {cut: dict[int, Sequence[tuple[int, Found]]]() for cut in _CUTS}

    def find(self, pieces: Pieces) -> Iterable[tuple[int, Found]]:
        """Return what stands in a text, piece by piece; within one in the order in which it was found."""
        if len(pieces.said) == 1:
            return self._look(pieces.lowered if self._lowered else pieces.text)
        cut, memory = pieces.cut, self._memories[pieces.cut]
        known = [None, *map(memory.get, pieces.marks)]
        telling = list(compress(count(), map(is_not, known, repeat(_NOTHING))))
        new = [n for n in telling if known[n] is None]
        learned = dict(zip(new, self._found_in([pieces.said[n] for n in new], cut), strict=True))
        _remember(memory, {pieces.marks[n - 1]: found for n, found in learned.items() if n})
        return [
            (pieces.lengths[n] + len(cut) * n + at, one)
            for n in telling
            for at, one in learned.get(n, known[n] or _NOTHING)
        ]

    def _found_in(self, said: Sequence[bytes], cut: bytes) -> list[Sequence[tuple[int, Found]]]:
        """Look at several pieces at once, the first of which begins the text; places count from behind the mark."""
        ends = list(accumulate([len(one) + len(cut) for one in said]))
        found = defaultdict[int, list[tuple[int, Found]]](list)
        text = cut.join(said)
        for at, one in self._look(text.lower() if self._lowered else text):
            n = bisect_right(ends, at + len(cut))
            found[n].append((at - (ends[n - 1] if n else 0), one))
        return [found.get(n, _NOTHING) for n in range(len(said))]


def _remember(memory: dict[int, Sequence[Found]], learned: dict[int, Sequence[Found]]) -> None:
    if len(memory) + len(learned) > _REMEMBERED:
        memory.clear()
    if len(learned) <= _REMEMBERED:
        memory.update(learned)
