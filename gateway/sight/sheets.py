"""What a page's style sheets say of its elements, by the names and the surroundings by which rules select them.

The one rule: a rule that holds only on some screens, or by a selector that is not understood, hides nothing, and one
that shows something anywhere counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from gateway.sight.elements import Element, Unseen, hides, host_of, is_tiny, style_of
from gateway.sight.tree import Around

REACH: Final = 8 * 1024
"""Octets before a place in which the tag, or the rule, that it stands in begins."""

_MOST_RULES: Final = 10_000
"""Rules of style sheets that are read; no page that is meant to be read has as many."""

_DECLARATION = re.compile(rb"(?:display|visibility|opacity|position)\s*:|(?:width|height)\s*:\s*0*[01](?![0-9])")
CSS_URL = re.compile(rb"url\(\s*[\"']?((?:https?:)?//[^)\"']*)[\"']?\s*\)")
_SIMPLE_SELECTOR = re.compile(rb"[a-z0-9*]*([.#][\w-]+)|([a-z][a-z0-9]*)")
_NAMES = re.compile(rb"[.#][\w-]+")
_COMPOUND = re.compile(rb"(?:\*|([a-z][a-z0-9]*))?((?:[.#][\w-]+)*)")
_OWN_TAG = re.compile(rb"(?:\A|[\s>+~])([a-z][a-z0-9]*)(?:[:\[][^\s>+~]*)?\s*\Z")
_COMBINATOR = re.compile(rb"\s*(>)\s*|\s+")
_OTHERWISE: Final = (b"background", b"font")
_MOST_WITHIN: Final = 100
"""Selectors of a sheet that are read which say what encloses an element; each is asked for each element it may mean."""

_LONGEST_SELECTOR: Final = 8
"""Elements in a selector, which is not understood if it names more."""


class Selector(NamedTuple):
    """What selects an element by several names, or by what encloses it: its own names, and its surroundings' from
    the inside out.
    """

    names: frozenset[bytes]
    around: tuple[Around, ...]


class Rules(NamedTuple):
    """What the page's style sheets say of elements, by the simple selectors that name them.

    Some rules are `hiding` or `shrinking` them wherever the page is read, or do so `within` or `shrinking_within`
    others; some are `showing` them somewhere, if need be `forcing` it upon an element's own style; `unseen` are the
    backgrounds of what is hidden. What they are `speaking_of` otherwise is not read.
    """

    hiding: frozenset[bytes] = frozenset()
    shrinking: frozenset[bytes] = frozenset()
    hiding_within: frozenset[Selector] = frozenset()
    shrinking_within: frozenset[Selector] = frozenset()
    showing: frozenset[bytes] = frozenset()
    forcing: frozenset[bytes] = frozenset()
    unseen: tuple[Unseen, ...] = ()
    speaking_of: frozenset[bytes] = frozenset()

    @property
    def name_any(self) -> bool:
        """True where any rule hides or shrinks anything."""
        return bool(self.hiding or self.shrinking or self.hiding_within or self.shrinking_within)


NO_RULES: Final = Rules()


def rules_of(text: bytes, opened: Sequence[int]) -> Rules:
    """Return what the style sheets of a page say, whose tags are `opened` at these places."""
    told = [(start, _rules_in(sheet)) for start, sheet in _sheets(text, opened)]
    if not told:
        return NO_RULES
    unseen = (one._replace(start=at + one.start, end=at + one.end) for at, rules in told for one in rules.unseen)
    return Rules(
        hiding=frozenset().union(*(rules.hiding for _, rules in told)),
        shrinking=frozenset().union(*(rules.shrinking for _, rules in told)),
        hiding_within=frozenset().union(*(rules.hiding_within for _, rules in told)),
        shrinking_within=frozenset().union(*(rules.shrinking_within for _, rules in told)),
        showing=frozenset().union(*(rules.showing for _, rules in told)),
        forcing=frozenset().union(*(rules.forcing for _, rules in told)),
        unseen=tuple(unseen),
        speaking_of=frozenset().union(*(rules.speaking_of for _, rules in told)),
    )


def _rules_in(sheet: bytes) -> Rules:
    return _remembered(sheet) if len(sheet) <= _COMMON else _read(sheet)


_COMMON: Final = 64 * 1024
"""Octets of a sheet that is remembered: it is mostly the same in all messages of a campaign."""


@lru_cache(maxsize=64)
def _remembered(sheet: bytes) -> Rules:
    return _read(sheet)


def _read(sheet: bytes) -> Rules:
    hiding, shrinking, showing, forcing, unseen = set[bytes](), set[bytes](), set[bytes](), set[bytes](), list[Unseen]()
    hiding_within, shrinking_within = set[Selector](), set[Selector]()
    for rule in islice(_telling_rules(sheet), _MOST_RULES):
        declared = sheet[rule.open + 1 : rule.close]
        style = style_of(declared.decode("utf-8", "replace"))
        selectors = sheet[rule.start : rule.open].split(b",")
        is_hiding, is_shrinking = hides(style, {}), is_tiny(Element(0, 0, "", {}, style))
        if rule.is_certain and (is_hiding or is_shrinking):
            (hiding if is_hiding else shrinking).update(_simple(selectors))
            within = hiding_within if is_hiding else shrinking_within
            within.update(islice(_within(selectors), _MOST_WITHIN - len(within)))
            unseen += _in_rule(sheet, rule)
        elif style.get("display", "none") != "none" or style.get("visibility") == "visible":
            named = {name for one in selectors for name in _NAMES.findall(one)}
            showing |= named | {found[1] for one in selectors if (found := _OWN_TAG.search(one))}
            forcing |= named if b"!important" in declared else set()
    return Rules(
        *(frozenset(hiding), frozenset(shrinking), frozenset(hiding_within), frozenset(shrinking_within)),
        *(frozenset(showing), frozenset(forcing), tuple(unseen)),
        frozenset(one for one in _OTHERWISE if one in sheet),
    )


def _simple(selectors: Sequence[bytes]) -> Iterator[bytes]:
    found = (_SIMPLE_SELECTOR.fullmatch(one.strip()) for one in selectors)
    yield from (one[1] or one[2] for one in found if one)


def _within(selectors: Sequence[bytes]) -> Iterator[Selector]:
    """Yield the selectors that are more than simple, and are made of names and of what encloses what alone."""
    for written in map(bytes.strip, selectors):
        if not written or _SIMPLE_SELECTOR.fullmatch(written):
            continue
        steps = _COMBINATOR.split(written)
        named = [_names_in(one) for one in steps[::2]]
        own, *others = reversed(named)
        if own and all(one is not None for one in named) and len(named) <= _LONGEST_SELECTOR:
            parents = (one is not None for one in reversed(steps[1::2]))
            around = zip(others, parents, strict=True)
            yield Selector(own, tuple(Around(names, is_parent) for names, is_parent in around if names is not None))


def _names_in(compound: bytes) -> frozenset[bytes] | None:
    """Return the names that an element must have; None for what is not understood, such as `[dir]` or `a:hover`."""
    found = _COMPOUND.fullmatch(compound)
    if found is None or not compound:
        return None
    return frozenset([*_NAMES.findall(found[2]), *([found[1]] if found[1] else [])])


def _sheets(text: bytes, opened: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield where each sheet starts, and what it says."""
    begun = 0
    for at in opened:
        tag = _STYLE.match(text, at) if at >= begun else None
        if tag:
            begun = tag.end()
            end = text.find(b"</style", begun)
            sheet = text[begun : end if end >= 0 else len(text)]
            if not (b"amp4email-boilerplate" in tag[0] and _BOILERPLATE.fullmatch(sheet)):
                yield begun, sheet
            if end < 0:
                return


_STYLE = re.compile(rb"<style\b[^>]*>")
_BOILERPLATE = re.compile(rb"\s*body\s*\{\s*visibility\s*:\s*hidden\s*;?\s*\}\s*")
"""What every page of AMP for Email begins with; it holds until the page has been read."""


class _Rule(NamedTuple):
    """A rule of a sheet: where it starts, where its braces are, and whether it holds wherever the page is read."""

    start: int
    open: int
    close: int
    is_certain: bool


def _telling_rules(sheet: bytes) -> Iterator[_Rule]:
    """Yield the rules that say anything of whether something is seen."""
    counted, depth, closed = 0, 0, 0
    for match in _DECLARATION.finditer(sheet):
        at = match.start()
        opened = sheet.rfind(b"{", max(closed, at - REACH), at)
        if opened < 0:
            continue
        begun = 1 + max(sheet.rfind(mark, max(closed, opened - REACH), opened) for mark in (b"{", b"}", b";", b"/"))
        begun = max(begun, closed)
        depth += sheet.count(b"{", counted, opened) - sheet.count(b"}", counted, opened)
        counted = opened
        found = sheet.find(b"}", opened)
        closed = found if found >= 0 else len(sheet)
        yield _Rule(begun, opened, closed, is_certain=depth == 0)


def _in_rule(sheet: bytes, rule: _Rule) -> Iterator[Unseen]:
    for url in CSS_URL.finditer(sheet, rule.open, rule.close):
        yield Unseen(url.start(), url.end(), b"none", host_of(url[1].decode("utf-8", "replace")))
