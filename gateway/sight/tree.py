"""Which elements of a page enclose which, as far as its tags tell: the gist of how HTML is read (WHATWG HTML §13.2.6).

The one rule: one look at each tag, and a bounded number of steps for all questions together. Where a page is too odd
to tell, nothing encloses anything, so that what stands in it counts as seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from gateway.sight.elements import Element, element_of, name_of

VOID: Final = frozenset({"img", "image", "input", "br", "hr", "link", "meta", "area", "col", "embed", "source", "wbr"})

_DEEPEST: Final = 100
"""Elements within each other that are told apart; no page that is meant to be read has as many."""

_MOST_STRAYS: Final = 10_000
"""End tags that end nothing, after which a page is too odd."""

_MOST_STEPS: Final = 100_000
"""Questions about a page, and enclosing elements that are looked at for them, taken together."""

_CELLS: Final = frozenset({"td", "th"})
_ENDS: Final = {"td": _CELLS, "th": _CELLS, "tr": _CELLS | {"tr"}, "li": frozenset({"li"}), "p": frozenset({"p"})}
"""What a start tag ends where it is still open, its own end tag having been left out."""

_OF_TABLES: Final = _CELLS | {"tr", "tbody", "thead", "tfoot"}


class Around(NamedTuple):
    """What a selector wants of an enclosing element: all these names, and whether it is to be the parent."""

    names: frozenset[bytes]
    is_parent: bool


class Tree:
    """The elements of a page, each known by the place of its start tag."""

    def __init__(self, tags: Iterable[re.Match[bytes]]) -> None:
        self._parents = dict[int, re.Match[bytes] | None]()
        self._steps = self._strays = 0
        self._opened, self._names = list[tuple[str, re.Match[bytes]]](), Counter[str]()
        for tag in tags:
            if self._strays > _MOST_STRAYS:
                return
            self._take(tag)

    @property
    def is_spent(self) -> bool:
        """True once so much was asked that nothing encloses anything any more."""
        return self._steps >= _MOST_STEPS

    def is_within(self, element: Element, around: Sequence[Around]) -> bool:
        """True where an element's ancestors, from the inside out, are what a selector wants."""
        self._steps += 1
        return self._is_within(element.start, around)

    def _is_within(self, at: int, around: Sequence[Around]) -> bool:
        if not around:
            return True
        parent = self._parents.get(at)
        while parent is not None and not self.is_spent:
            self._steps += 1
            if around[0].names <= element_of(parent).names and self._is_within(parent.start(), around[1:]):
                return True
            parent = None if around[0].is_parent else self._parents.get(parent.start())
        return False

    def _take(self, tag: re.Match[bytes]) -> None:
        name = name_of(tag[0])
        if tag[0].startswith(b"</"):
            self._end({name})
            return
        self._end(_ENDS.get(name, frozenset()))
        self._parents[tag.start()] = self._opened[-1][1] if self._opened else None
        if name not in VOID and len(self._opened) < _DEEPEST:
            self._opened.append((name, tag))
            self._names[name] += 1

    def _end(self, ended: Iterable[str]) -> None:
        """End the innermost element of one of these names, and all in it; none outside the cell or table around."""
        if not any(self._names[name] for name in ended):
            return
        border = {"table"} if _OF_TABLES.issuperset(ended) else _CELLS | {"table"}
        for n in range(len(self._opened) - 1, -1, -1):
            name = self._opened[n][0]
            if name in ended:
                self._names.subtract(inner for inner, _ in self._opened[n:])
                del self._opened[n:]
                return
            if name in border:
                break
        self._strays += 1
