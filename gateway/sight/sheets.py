"""What a page's style sheets say of its elements, as far as one rule names one element.

The one rule: a rule that holds only on some screens hides nothing, and one that shows something anywhere counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from gateway.sight.elements import Element, Unseen, hides, host_of, is_tiny, style_of

REACH: Final = 8 * 1024
"""Octets before a place in which the tag, or the rule, that it stands in begins."""

_MOST_RULES: Final = 10_000
"""Rules of style sheets that are read; no page that is meant to be read has as many."""

_DECLARATION = re.compile(rb"display\s*:|visibility\s*:|opacity\s*:|(?:width|height)\s*:\s*0*[01](?![0-9])")
CSS_URL = re.compile(rb"url\(\s*[\"']?((?:https?:)?//[^)\"']*)[\"']?\s*\)")
_SIMPLE_SELECTOR = re.compile(rb"[a-z0-9*]*([.#][\w-]+)|([a-z][a-z0-9]*)")
_NAMES = re.compile(rb"[.#][\w-]+")


class Rules(NamedTuple):
    """What the page's style sheets say of elements, by the simple selectors that name them.

    Some rules are `hiding` or `shrinking` them wherever the page is read, some are `showing` them somewhere, if need be
    `forcing` it upon an element's own style; `unseen` are the backgrounds of what is hidden.
    """

    hiding: frozenset[bytes] = frozenset()
    shrinking: frozenset[bytes] = frozenset()
    showing: frozenset[bytes] = frozenset()
    forcing: frozenset[bytes] = frozenset()
    unseen: tuple[Unseen, ...] = ()


NO_RULES: Final = Rules()


def rules_of(text: bytes) -> Rules:
    if b"<style" not in text:
        return NO_RULES
    hiding, shrinking, showing, forcing, unseen = set[bytes](), set[bytes](), set[bytes](), set[bytes](), list[Unseen]()
    for start, end in _sheets(text):
        for rule in islice(_telling_rules(text, start, end), _MOST_RULES):
            declared = text[rule.open + 1 : rule.close]
            style = style_of(declared.decode("utf-8", "replace"))
            selectors = text[rule.start : rule.open].split(b",")
            is_hiding, is_shrinking = hides(style, {}), is_tiny(Element(0, 0, "", {}, style))
            if rule.is_certain and (is_hiding or is_shrinking):
                (hiding if is_hiding else shrinking).update(_simple(selectors))
                unseen += _in_rule(text, rule)
            elif style.get("display", "none") != "none" or style.get("visibility") == "visible":
                named = {name for one in selectors for name in _NAMES.findall(one)}
                showing |= named
                forcing |= named if b"!important" in declared else set()
    return Rules(frozenset(hiding), frozenset(shrinking), frozenset(showing), frozenset(forcing), tuple(unseen))


def _simple(selectors: Sequence[bytes]) -> Iterator[bytes]:
    found = (_SIMPLE_SELECTOR.fullmatch(one.strip()) for one in selectors)
    yield from (one[1] or one[2] for one in found if one)


def _sheets(text: bytes) -> Iterator[tuple[int, int]]:
    for match in re.finditer(rb"<style\b[^>]*>", text):
        end = _STYLE_END.search(text, match.end())
        yield match.end(), end.start() if end else len(text)
        if end is None:
            return


_STYLE_END = re.compile(rb"</style")


class _Rule(NamedTuple):
    """A rule of a sheet: where it starts, where its braces are, and whether it holds wherever the page is read."""

    start: int
    open: int
    close: int
    is_certain: bool


def _telling_rules(text: bytes, start: int, end: int) -> Iterator[_Rule]:
    """Yield the rules that say anything of whether something is seen."""
    counted, depth, closed = start, 0, start
    for match in _DECLARATION.finditer(text, start, end):
        at = match.start()
        opened = text.rfind(b"{", max(closed, at - REACH), at)
        if opened < 0:
            continue
        begun = 1 + max(text.rfind(mark, max(closed, opened - REACH), opened) for mark in (b"{", b"}", b";", b"/"))
        begun = max(begun, closed)
        depth += text.count(b"{", counted, opened) - text.count(b"}", counted, opened)
        counted = opened
        found = text.find(b"}", opened, end)
        closed = found if found >= 0 else end
        yield _Rule(begun, opened, closed, is_certain=depth == 0)


def _in_rule(text: bytes, rule: _Rule) -> Iterator[Unseen]:
    for url in CSS_URL.finditer(text, rule.open, rule.close):
        yield Unseen(url.start(), url.end(), b"none", host_of(url[1].decode("utf-8", "replace")))
