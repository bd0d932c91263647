"""What of a page nobody sees: parts that are hidden, images that only report, links that cannot be made out.

The one rule: no page, however it is written, costs more than a few looks at each of its octets, and none raises. What
stands in doubt (a rule for small screens, a class that some rule shows) counts as seen. Only places are told;
what is done about them is for others.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from typing import Final, TypeVar

from gateway.pieces import Finder, Pieces
from gateway.sight.colours import WHITE, background_of, colour_of, contrast
from gateway.sight.elements import (
    COMMON_TAG,
    TAG,
    Element,
    Unseen,
    element_of,
    hides,
    host_of,
    is_nothing,
    is_tiny,
    marks_of,
    may_hide,
)
from gateway.sight.sheets import CSS_URL, REACH, Rules, Selector, rules_of
from gateway.sight.tree import VOID, Tree

_BESIDE: Final = 24
"""Octets before a value in which the name of what it is the value of is looked for."""

_MOST_FAILURES: Final = 12
"""Tags, and elements, that never end after which none is looked for any more: each costs a look at all that follows."""

_MOST_NAMED: Final = 20_000
"""Elements that are looked at because a rule hides what has their tag's name; no page that is read has as many."""

_ILLEGIBLE: Final = 1.5
"""A contrast below which a link is the colour of what is behind it (WCAG 2.2 asks for 4.5)."""

_SOURCES = re.compile(rb"<(?:img|image|input|iframe|embed|bgsound|amp-img|amp-pixel|link|object)[\s/]")
_PLAIN_IMAGE = re.compile(rb"<im(?:g|age)[\s/](?:[^<>\"']{1,2000}|\"[^\"<]{0,4000}\"|'[^'<]{0,4000}'){0,60}+>")
_OTHERS = re.compile(rb"<(?:input|iframe|embed|bgsound|amp-img|amp-pixel|link|object)[\s/]")
_EARLY = frozenset({"prefetch", "preload", "dns-prefetch", "preconnect", "prerender", "modulepreload"})
_ALWAYS_UNSEEN = frozenset({"bgsound", "amp-pixel"})
_BACKGROUND = re.compile(rb".url\(|\sbackground\s*=", re.DOTALL)
_CLASSES = re.compile(rb"\s(?:class|id)\s*=\s*[\"']?([^\"'>]{1,500})")
_WORDS: Final = ((b"none", b"display"), (b"collapse", b"visibility"), (b"hidden", b""), (b"opacity", b""))
"""What hides an element, and what stands shortly before it."""

_COLOURED: Final = (b"background", b"bgcolor")
_COMMENT: Final = b"<!--"
_TELLING: Final = (*(word for word, _ in _WORDS), *_COLOURED, _COMMENT, b"<style", b"url(")
_MOST_PLACES: Final = 100_000
"""Places of each kind that are looked at; what a page hides in spite of more than that counts as seen."""

_IMAGE: Final = b"<im"
_OTHER: Final = b"other"
_SIZE: Final = b"font-size"
_SIZELESS: Final = b"sizeless"
_OF_NOTHING = re.compile(rb"font-size\s*:\s*[0.]")


def _telling(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield where stands what a page is looked at for, and whatever of it may be something that nobody sees."""
    for word in _TELLING:
        places = _places(text, word)
        yield from ((at, word) for at in (places if word == _COMMENT else islice(places, _MOST_PLACES)))
    sizeless = (at for at in _places(text, _SIZE) if _OF_NOTHING.match(text, at))
    yield from ((at, _SIZELESS) for at in islice(sizeless, _MOST_PLACES))
    images = (at for at in _places(text, _IMAGE) if not _is_plain_image(text, at))
    yield from ((at, _IMAGE) for at in islice(images, _MOST_PLACES))
    yield from ((match.start(), _OTHER) for match in islice(_OTHERS.finditer(text), _MOST_PLACES))


def _places(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _is_plain_image(text: bytes, at: int) -> bool:
    image = _PLAIN_IMAGE.match(text, at)
    return image is not None and not may_hide(image[0])


_FINDER: Final = Finder(_telling, lowered=True)

Told = TypeVar("Told")


class Page:
    """One HTML text, decoded from its transfer encoding; what is found out about it is found out once."""

    def __init__(self, pieces: Pieces) -> None:
        self._text = pieces.lowered
        self._places = defaultdict[bytes, list[int]](list)
        for at, word in _FINDER.find(pieces):
            self._places[word].append(at)
        self._comments = list(_comments(self._text, self._places[_COMMENT]))
        self._sorted = dict[Sequence[bytes], list[int]]()
        self._failures = self._steps = 0

    def is_seen(self, at: int) -> bool:
        """True where what stands here is shown: not in a comment, a tag or a hidden element."""
        return not (_covers(self._comments, at) or self._is_in_tag(at) or _covers(self._hidden_spans, at))

    def is_legible(self, at: int) -> bool:
        """True where text that stands here has a size, and another colour than what is behind it."""
        if self._has_no_size(at):
            return False
        colour, behind = self._nearest(colour_of, at, b"color"), self._nearest(background_of, at, *_COLOURED)
        if colour is None or (behind is None and b"background" in self._rules.speaking_of):
            return True
        return contrast(colour, behind or WHITE) >= _ILLEGIBLE

    def has_legible_link(self, at: int) -> bool:
        """True where the link whose target stands here can be seen and told from what is behind it."""
        element = self._element_around(at)
        if element is None or element.name not in ("a", "area"):
            return element is not None
        if _covers(self._comments, at) or _covers(self._hidden_spans, at) or self._is_hidden(element):
            return False
        end = self._text.find(b"</a", element.end, element.end + REACH)
        content = self._text[element.end : end if end >= 0 else element.end + REACH]
        return self._shows_something(content) and self._is_legible(element, content)

    @property
    def end(self) -> int:
        """Where the body ends: before the last `</body>`, but never within a comment, whoever else may read that."""
        at = self._text.rfind(b"</body")
        marked = list(_spans(self._text, self._places[_COMMENT], b"-->"))
        while at >= 0 and _covers(marked, at):
            at = self._text.rfind(b"</body", 0, at)
        is_open = bool(marked) and marked[-1][1] == len(self._text) and not self._text.endswith(b"-->")
        return at if at >= 0 else marked[-1][0] if is_open else len(self._text)

    def unseen(self) -> list[Unseen]:
        """Return what fetches something from a remote host and shows nothing, in order and apart."""
        found = sorted([*self._unseen_sources(), *self._unseen_backgrounds()])
        apart = list[Unseen]()
        for one in found:
            if not apart or one.start >= apart[-1].end:
                apart.append(one)
        return apart

    # what is remote and unseen

    def _unseen_sources(self) -> Iterator[Unseen]:
        if not self._may_have_any():
            return
        position = 0
        while match := _SOURCES.search(self._text, position):
            tag = TAG.match(self._text, match.start())
            if tag is None:
                return
            position = tag.end()
            if not _covers(self._comments, tag.start()):
                yield from self._unseen_source(tag)

    def _may_have_any(self) -> bool:
        """False for most pages: all of their images can be seen, and nothing else fetches anything."""
        rules = self._rules
        if self._places[_IMAGE] or self._places[_OTHER] or rules.name_any:
            return True
        return any(self._text.find(_IMAGE, *span) >= 0 for span in self._hidden_spans)

    def _unseen_source(self, tag: re.Match[bytes]) -> Iterator[Unseen]:
        if not self._may_be_unseen(tag):
            return
        element = element_of(tag)
        host = element.host
        if host and (self._fetches_unseen(element) or _covers(self._hidden_spans, element.start)):
            yield Unseen(element.start, element.end, b"", host)

    def _may_be_unseen(self, tag: re.Match[bytes]) -> bool:
        """Most images say nothing that could hide them, and are not looked at closely."""
        text = tag[0]
        if not text.startswith(b"<im") or len(text) > COMMON_TAG or may_hide(text):
            return True
        return self._rules.name_any or _covers(self._hidden_spans, tag.start())

    def _fetches_unseen(self, element: Element) -> bool:
        if element.name == "link":
            return not _EARLY.isdisjoint(element.attributes.get("rel", "").lower().split())
        if element.name == "input" and element.attributes.get("type", "").strip().lower() != "image":
            return False
        return element.name in _ALWAYS_UNSEEN or self._is_hidden(element) or self._is_tiny(element)

    def _unseen_backgrounds(self) -> Iterator[Unseen]:
        for at in [*self._places[b"url("], *self._places[b"background"]]:
            match = _BACKGROUND.match(self._text, at - 1)
            element = self._element_around(at) if match else None
            if match is None or element is None:
                continue
            if not (self._is_hidden(element) or self._is_tiny(element) or _covers(self._hidden_spans, element.start)):
                continue
            yield from _backgrounds(self._text, element, at)
        yield from self._rules.unseen

    # what is hidden

    def _is_hidden(self, element: Element) -> bool:
        names, rules = element.names, self._rules
        if hides(element.style, element.attributes):
            return rules.forcing.isdisjoint(names)
        selecting = (names & rules.hiding).union(*self._selecting(element, names, rules.hiding_within))
        own = names - {element.name.encode("utf-8", "replace")}
        return bool(selecting) and rules.showing.isdisjoint(own if selecting & own else names)

    def _is_tiny(self, element: Element) -> bool:
        names, rules = element.names, self._rules
        is_selected = not rules.shrinking.isdisjoint(names)
        return is_tiny(element) or is_selected or any(self._selecting(element, names, rules.shrinking_within))

    def _selecting(
        self, element: Element, names: set[bytes], selectors: Iterable[Selector]
    ) -> Iterator[frozenset[bytes]]:
        """Yield the names by which rules select an element that stands where they want it to."""
        for one in selectors:
            if one.names <= names:
                if self._tree.is_spent:
                    return
                if self._tree.is_within(element, one.around):
                    yield one.names

    @cached_property
    def _tree(self) -> Tree:
        return Tree(tag for tag in TAG.finditer(self._text) if not _covers(self._comments, tag.start()))

    @cached_property
    def _hidden_spans(self) -> list[tuple[int, int]]:
        """Where hidden elements lie that have something in them."""
        return list(self._found_hidden())

    def _found_hidden(self) -> Iterator[tuple[int, int]]:
        end, failures = 0, 0
        for at in self._perhaps_hidden():
            if failures > _MOST_FAILURES:
                return
            if at < end or _covers(self._comments, at):
                continue
            element = self._element_around(at)
            if element is None or element.name in VOID or not self._is_hidden(element):
                continue
            closed = self._end_of(element)
            if closed is None:
                failures += 1
            else:
                yield element.start, closed
                end = closed

    def _perhaps_hidden(self) -> list[int]:
        places = [at for word, before in _WORDS for at in self._places[word] if self._stands_before(before, at)]
        names = {*self._rules.hiding, *(name for one in self._rules.hiding_within for name in one.names)}
        classes = {name[1:] for name in names if name.startswith(_MARKS_OF_NAMES)}
        if classes:
            named = _CLASSES.finditer(self._text)
            places += [match.start() + 1 for match in named if not classes.isdisjoint(match[1].split())]
        if any(not name.startswith(_MARKS_OF_NAMES) for name in names):
            tags = (match.end() for match in _START_OF_TAG.finditer(self._text) if match[1] in names)
            places += islice(tags, _MOST_NAMED)
        return sorted(places)

    def _stands_before(self, name: bytes, at: int) -> bool:
        return name in self._text[max(0, at - _BESIDE) : at]

    def _end_of(self, element: Element) -> int | None:
        """Return where an element ends; None where nothing ends it."""
        depth = 1
        for match in marks_of(element.name).finditer(self._text, element.end):
            depth += -1 if match[1] else 1
            if not depth:
                return match.start()
        return None

    @cached_property
    def _rules(self) -> Rules:
        return rules_of(self._text, self._places[b"<style"])

    # where something stands

    def _is_in_tag(self, at: int) -> bool:
        start, end = (self._text.rfind(mark, max(0, at - REACH), at) for mark in (b"<", b">"))
        return start > end and _BEGINS_TAG.match(self._text, start) is not None

    def _element_around(self, at: int) -> Element | None:
        """Return the start tag in which something stands; None where it stands in none."""
        start = self._text.rfind(b"<", max(0, at - REACH), at)
        if start < 0 or self._failures > _MOST_FAILURES:
            return None
        tag = TAG.match(self._text, start, start + 2 * REACH)
        self._failures += tag is None
        if tag is None or tag.end() <= at or tag[0].startswith(b"</"):
            return None
        return element_of(tag)

    # what can be told apart

    def _shows_something(self, content: bytes) -> bool:
        if _ANY_IMAGE.search(content):
            return True
        return bool(html.unescape(_ANY_TAG.sub(b"", content).decode("utf-8", "replace")).strip(_BLANKS))

    def _is_legible(self, element: Element, content: bytes) -> bool:
        inner = [element_of(tag) for tag in TAG.finditer(content) if tag[0].startswith((b"<span", b"<font"))]
        colour = next((found for one in (*inner, element) if (found := colour_of(one))), None)
        sizes = [size for one in (*inner, element) if (size := one.style.get("font-size"))]
        if any(map(is_nothing, sizes)) or not (
            sizes or _ANY_IMAGE.search(content) or not self._has_no_size(element.start)
        ):
            return False
        return colour is None or contrast(colour, self._colour_behind(element)) >= _ILLEGIBLE

    def _has_no_size(self, at: int) -> bool:
        if not self._places[_SIZELESS]:
            return False
        size = self._nearest(lambda one: one.style.get("font-size"), at, _SIZE)
        return size is not None and is_nothing(size) and b"font" not in self._rules.speaking_of

    def _colour_behind(self, element: Element) -> tuple[int, int, int]:
        """Return the nearest background that encloses an element; white where there is none."""
        return background_of(element) or self._nearest(background_of, element.start, *_COLOURED) or WHITE

    def _nearest(self, told: Callable[[Element], Told | None], at: int, *words: bytes) -> Told | None:
        """Return what the innermost element around a place tells, of those that have one of the words and tell any."""
        return next((found for one in self._enclosing(at, words) if (found := told(one))), None)

    def _enclosing(self, at: int, words: Sequence[bytes]) -> Iterator[Element]:
        """Yield the elements with one of these words in their tags in which something stands, from the inside out."""
        places = self._all_places(words)
        first, last = (bisect_left(places, place) for place in (at - _FARTHEST, at))
        for before in reversed(places[first:last]):
            if self._steps >= _MOST_STEPS:
                return
            self._steps += 1
            element = self._element_around(before)
            if element and element.end <= at and not self._is_closed_before(element, at):
                yield element

    def _all_places(self, words: Sequence[bytes]) -> list[int]:
        """Return where any of these words stands, in order."""
        known = self._sorted.get(words)
        if known is None:
            found = (self._places[one] if one in _TELLING else _places(self._text, one) for one in words)
            known = self._sorted[words] = sorted(chain.from_iterable(found))
        return known

    def _is_closed_before(self, element: Element, at: int) -> bool:
        if self._text.find(b"</%b" % element.name.encode("utf-8", "replace"), element.end, at) < 0:
            return False
        depth = 1
        for match in marks_of(element.name).finditer(self._text, element.end, at):
            depth += -1 if match[1] else 1
            if not depth:
                return True
        return False


_MARKS_OF_NAMES: Final = (b".", b"#")
_START_OF_TAG = re.compile(rb"<([a-z][a-z0-9]*)(?=[\s/>])")
_BEGINS_TAG = re.compile(rb"</?[a-zA-Z!]")
_ANY_IMAGE = re.compile(rb"<img\b")
_ANY_TAG = re.compile(rb"<[^>]*>")
_FARTHEST: Final = 64 * 1024
"""Octets before a place in which what encloses it begins, if it is to count."""

_MOST_STEPS: Final = 2000
"""Tags of which it is asked whether they enclose a place, for all places of a page; after that, nothing does."""

_BLANKS: Final = " \t\r\n\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff\u00ad"


def _comments(text: bytes, opened: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the comments, except those that some programs read as part of the page (`<!--[if mso]>`)."""
    end = 0
    for at in opened:
        if at < end:
            continue
        if text.startswith(b"[if", at + 4) or text.startswith(b"<![", at + 4):
            end = text.find(b">", at)
        else:
            end = text.find(b"-->", at + 4)
            yield at, end if end >= 0 else len(text)
        if end < 0:
            return


def _spans(text: bytes, opened: Sequence[int], closing: bytes) -> Iterator[tuple[int, int]]:
    """Yield what lies from each opening mark to the next closing one; where that is lacking, to the end."""
    end = 0
    for at in opened:
        if at >= end:
            found = text.find(closing, at + len(_COMMENT))
            end = found if found >= 0 else len(text)
            yield at, end


def _covers(spans: Sequence[tuple[int, int]], at: int) -> bool:
    """True where one of the spans, which are in order and apart, holds a place."""
    n = bisect_right(spans, at, key=itemgetter(0)) - 1
    return n >= 0 and at < spans[n][1]


def _backgrounds(text: bytes, element: Element, at: int) -> Iterator[Unseen]:
    url = CSS_URL.match(text, at, element.end)
    if url:
        yield Unseen(url.start(), url.end(), b"none", host_of(url[1].decode("utf-8", "replace")))
    attribute = _BACKGROUND_ATTRIBUTE.match(text, at - 1, element.end)
    host = host_of(html.unescape(attribute[1].strip(b"\"'").decode("utf-8", "replace"))) if attribute else ""
    if attribute and host:
        yield Unseen(attribute.start(), attribute.end(), b"", host)


_BACKGROUND_ATTRIBUTE = re.compile(rb"\sbackground\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+)")
