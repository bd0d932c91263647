"""Texts in pieces: whatever was read before, what is found is what looking at the whole text would find."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pieces import Finder, Pieces

FRAGMENTS = ["</td", "</p", "</", "<", "/", "//", ">", "<td>", "<p>", "Ann", "Bob", " ", "none", "NONE", '"', "x" * 600]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map(lambda fragments: "".join(fragments).encode())


def look(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Find links and words: neither goes on at a `<`."""
    yield from ((match.start(), match[0]) for match in re.finditer(rb"//[^<\s\"]*|none|Ann[^<>]*>", text))


FINDER, LOWERED = Finder(look), Finder(look, lowered=True)


@given(texts)
def test_what_was_read_before_makes_no_difference(text: bytes) -> None:
    """The finders are the same for all examples, so that most of each one's pieces are known to them."""
    assert list(FINDER.find(Pieces(text))) == list(look(text))
    assert list(LOWERED.find(Pieces(text))) == list(look(text.lower()))


@pytest.mark.parametrize("tag", ["td", "p", "b"])
def test_only_what_is_new_is_looked_at(tag: str) -> None:
    looked_at = list[bytes]()

    def note(text: bytes) -> Iterator[tuple[int, bytes]]:
        looked_at.append(text)
        return look(text)

    finder, row = Finder(note), f"<{tag}>Ann //x.example</{tag}>"
    for name in ("Cat", "Dora"):
        found = list(finder.find(Pieces(f"{row * 40}<{tag}>Dear {name}</{tag}>{row * 40}".encode())))
        assert len(found) == 80
    assert len(looked_at[1]) < len(row) * 4 and b"Dora" in looked_at[1]


def test_more_pieces_than_are_remembered_are_found_all_the_same() -> None:
    finder = Finder(look)
    for first in range(0, 40_000, 4_000):
        text = b"".join(b"<b>none %d</b>" % number for number in range(first, first + 4_000))
        assert list(finder.find(Pieces(text))) == list(look(text))


def test_a_large_text_is_found_in_as_a_whole() -> None:
    text = b"<b>none //x</b>" * 40_000
    assert list(Finder(look).find(Pieces(text))) == list(look(text))
