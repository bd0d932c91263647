"""The signals by which a message's purpose is read: a data file of phrases, and how they are found in words.

The rule that must not be broken: what is found depends on the words and on the file alone, and takes time in proportion
to the words. A phrase is words; the places where it stands are found by walking a tree of words, never by a pattern
that could look back. What the finds amount to is left to the package.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple

WORDS_READ: Final = 20_000
"""Words of a text that are looked at."""

_LETTERS_READ: Final = 100_000

_NUMBER: Final = "#"
_END: Final = ""
_WORD = re.compile(r"[^\W\d_]+|\d[\d.,]*|[%$€£¥]")
_MONEY: Final = dict.fromkeys("$€£¥", "$")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"]+", re.IGNORECASE)
_CHOICE = re.compile(r"\(([^()\[\]]*)\)(\??)|\[([^()\[\]]*)\]")
_PHRASE_WORD = re.compile(r"[^\W\d_]+|[#%$]")


class Kind(StrEnum):
    """What a signal speaks for."""

    OFFER = "offer"
    LIST = "list"
    SURVEY = "survey"
    TRANSACTION = "transaction"


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of the data, which has so many `phrases`.

    `is_claim` says that it holds on certain days only, such as a discount (CLS-09).
    """

    id: str
    kind: Kind
    weight: int
    sample: str
    phrases: int
    is_claim: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The weights at which a text reads as what its signals say; `beginning` is a count of words."""

    subject: int
    body: int
    transaction: int
    significant: int
    any: int
    beginning: int


class Find(NamedTuple):
    """A signal that stands in a text, and the number of the word at which it first does."""

    at: int
    signal: Signal


Node = dict[str, Any]
"""A place in the tree of phrases: what may come next by word, and under "" the signal of a phrase that ends here."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The whole data file, ready to be looked for."""

    version: str
    thresholds: Thresholds
    all: tuple[Signal, ...]
    tree: Node

    def find(self, words: Sequence[str]) -> list[Find]:
        """Return each signal once, in the order of where it first stands; of phrases that overlap the longest."""
        found = dict[str, Find]()
        end = 0
        for at, word in enumerate(words):
            if word in self.tree and at >= end:
                length, signal = _longest(self.tree, words, at)
                if signal is not None:
                    end = at + length
                    found.setdefault(signal.id, Find(at, signal))
        return list(found.values())


def _longest(tree: Node, words: Sequence[str], at: int) -> tuple[int, Signal | None]:
    """Return the length of the longest phrase that begins at a word, and its signal; 0 and None for none."""
    length, signal, node = 0, None, tree
    for ahead in range(at, len(words)):
        following = node.get(words[ahead])
        if following is None:
            break
        node = following
        if _END in node:
            length, signal = ahead - at + 1, node[_END]
    return length, signal


@lru_cache(maxsize=1)
def our_signals() -> Signals:
    """Return our own signals; read once."""
    return signals_of(tomllib.loads(resources.files(__package__).joinpath("signals.toml").read_text("utf-8")))


def signals_of(raw: Mapping[str, Any]) -> Signals:
    """Build the signals from a parsed file; a phrase that two of them have is the first one's."""
    every, tree = list[Signal](), Node()
    for row in raw["signals"]:
        phrases = {tuple(_PHRASE_WORD.findall(one)) for written in row["phrases"] for one in _spelled_out(written)}
        is_claim = row.get("claim", False)
        every.append(Signal(row["id"], Kind(row["kind"]), row["weight"], row["sample"], len(phrases), is_claim))
        for phrase in phrases:
            _plant(tree, phrase, every[-1])
    return Signals(raw["version"], Thresholds(**raw["thresholds"]), tuple(every), tree)


def _plant(tree: Node, phrase: Iterable[str], signal: Signal) -> None:
    node = tree
    for word in phrase:
        node = node.setdefault(word, {})
    node.setdefault(_END, signal)


def _spelled_out(written: str) -> Iterator[str]:
    """Yield every phrase that one with choices means, the innermost choice first."""
    match = _CHOICE.search(written)
    if match is None:
        yield written
        return
    is_optional = match[3] is not None or match[2] == "?"
    choices = (match[1] if match[3] is None else match[3]).split("|")
    for one in dict.fromkeys([*choices, ""] if is_optional else choices):
        yield from _spelled_out(written[: match.start()] + one + written[match.end() :])


# words


class _Dropped(dict[int, int | None]):
    """A table for `str.translate` that leaves out marks and what has no shape; it learns as it goes."""

    def __missing__(self, point: int) -> int | None:
        is_shapeless = unicodedata.category(chr(point)) in ("Mn", "Me", "Cf")
        self[point] = None if is_shapeless else point
        return self[point]


_DROPPED = _Dropped()


def words_of(text: str) -> list[str]:
    """Return the words of a text as a reader takes them in, at most `WORDS_READ` of them.

    Full-width letters, accents, cases and letters without a shape make no difference; a number is "#", an address of
    a page nothing.
    """
    words = _WORD.findall(_URL.sub(" ", _folded(text[:_LETTERS_READ])))[:WORDS_READ]
    return [_NUMBER if one[0].isdigit() else _MONEY.get(one, one) for one in words]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    bare = unicodedata.normalize("NFKD", text.translate(_DROPPED)).translate(_DROPPED)
    return bare.casefold()
