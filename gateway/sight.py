"""What of a page nobody sees: parts that are hidden, images that only report, links that cannot be made out.

The one rule: no page, however it is written, costs more than a few looks at each of its octets, and none raises. What
stands in doubt (a rule for small screens, a class that some rule shows) counts as seen. Only places are told;
what is done about them is for others.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple

_REACH: Final = 8 * 1024
"""Octets before a place in which the tag, or the rule, that it stands in begins."""

_BESIDE: Final = 24
"""Octets before a value in which the name of what it is the value of is looked for."""

_MOST_FAILURES: Final = 12
"""Tags, and elements, that never end after which none is looked for any more: each costs a look at all that follows."""

_MOST_RULES: Final = 10_000
"""Rules of style sheets that are read; no page that is meant to be read has as many."""

_ILLEGIBLE: Final = 1.5
"""A contrast below which a link is the colour of what is behind it (WCAG 2.2 asks for 4.5)."""

_TAG = re.compile(rb"</?[a-z][^\s/>\"']*(?:[^>\"']+|\"[^\"]*\"|'[^']*')*+>")
_NAME = re.compile(rb"[^\s/>]+")
_ATTRIBUTE = re.compile(rb"([^\s\"'>/=]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+))?")
_SOURCES = re.compile(rb"<(?:img|image|input|iframe|embed|bgsound|amp-img|amp-pixel|link|object)[\s/]")
_IMAGES = re.compile(rb"<im(?:g|age)[\s/](?:[^>\"']{1,2000}|\"[^\"]{0,4000}\"|'[^']{0,4000}'){0,60}+>")
_OTHERS = re.compile(rb"<(?:input|iframe|embed|bgsound|amp-img|amp-pixel|link|object)[\s/]")
_REMOTE = re.compile(r"\s*(?:https?:)?[/\\]{2}([^/\\?#\s]*)", re.IGNORECASE)
_EARLY = frozenset({"prefetch", "preload", "dns-prefetch", "preconnect", "prerender", "modulepreload"})
_ALWAYS_UNSEEN = frozenset({"bgsound", "amp-pixel"})

_HINTS: Final = (b"none", b"visib", b"hidden", b"opacity", b"\\", b"&#", b"&co")
_SHORT = re.compile(rb"[thp]\s*[=:][\"'\s]*(?:-|\.|[01](?![0-9]))")
"""The end of a name (width, height, left, top), and the beginning of a length that hides what has it."""

_DECLARATION = re.compile(rb"display\s*:|visibility\s*:|opacity\s*:|(?:width|height)\s*:\s*[01](?![0-9])")
_BACKGROUND = re.compile(rb".url\(|\sbackground\s*=", re.DOTALL)
_URL = re.compile(rb"url\(\s*[\"']?((?:https?:)?//[^)\"']*)[\"']?\s*\)")
_CLASSES = re.compile(rb"\s(?:class|id)\s*=\s*[\"']?([^\"'>]{1,500})")
_SIMPLE_SELECTOR = re.compile(rb"[a-z0-9*]*([.#][\w-]+)|([a-z][a-z0-9]*)")
_WORDS: Final = ((b"none", b"display"), (b"collapse", b"visibility"), (b"hidden", b""), (b"opacity", b""))
"""What hides an element, and what stands shortly before it; looking for these costs next to nothing."""

_NAMES = re.compile(rb"[.#][\w-]+")
_LENGTH = re.compile(r"\s*(-?\d*\.?\d+)\s*(px|pt|%|em|rem|vw|vh)?")


class Unseen(NamedTuple):
    """Something at `start:end` of a page that fetches from a `host` and shows nothing; what to put in its place."""

    start: int
    end: int
    instead: bytes
    host: str


class _Element(NamedTuple):
    """A start tag: where it lies, its name, its attributes and its style's declarations, and what host it calls."""

    start: int
    end: int
    name: str
    attributes: Mapping[str, str]
    style: Mapping[str, str]
    host: str = ""

    @property
    def names(self) -> set[bytes]:
        """The selectors by which a rule may mean this element alone."""
        classes = [f".{one}" for one in self.attributes.get("class", "").lower().split()]
        identities = [f"#{one}" for one in self.attributes.get("id", "").lower().split()]
        return {one.encode("utf-8", "replace") for one in (*classes, *identities, self.name)}


class Page:
    """One HTML text, decoded from its transfer encoding; what is found out about it is found out once."""

    def __init__(self, text: bytes) -> None:
        self._text = text.lower()
        self._comments = list(_comments(text))
        self._failures = 0
        self._rules: _Rules | None = None
        self._hidden: list[tuple[int, int]] | None = None

    def is_seen(self, at: int) -> bool:
        """True where what stands here is shown: not in a comment, a tag or a hidden element."""
        return not (_covers(self._comments, at) or self._is_in_tag(at) or _covers(self._hidden_spans(), at))

    def has_legible_link(self, at: int) -> bool:
        """True where the link whose target stands here can be seen and told from what is behind it."""
        element = self._element_around(at)
        if element is None or element.name not in ("a", "area"):
            return element is not None
        if _covers(self._comments, at) or _covers(self._hidden_spans(), at) or self._is_hidden(element):
            return False
        end = self._text.find(b"</a", element.end, element.end + _REACH)
        content = self._text[element.end : end if end >= 0 else element.end + _REACH]
        return self._shows_something(content) and self._is_legible(element, content)

    @property
    def end(self) -> int:
        """Where the body ends: before the last `</body>`, but never within a comment, whoever else may read that."""
        at = self._text.rfind(b"</body")
        marked = list(_spans(self._text, b"<!--", b"-->"))
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
            tag = _TAG.match(self._text, match.start())
            if tag is None:
                return
            position = tag.end()
            if not _covers(self._comments, tag.start()):
                yield from self._unseen_source(tag)

    def _may_have_any(self) -> bool:
        """False for most pages: all of their images can be seen, and nothing else fetches anything."""
        images = _IMAGES.findall(self._text)
        rules = self._its_rules()
        if len(images) != self._text.count(b"<im") or rules.hiding or rules.shrinking or any(map(_may_hide, images)):
            return True
        spans = self._hidden_spans()
        return any(self._text.find(b"<im", *span) >= 0 for span in spans) or _OTHERS.search(self._text) is not None

    def _unseen_source(self, tag: re.Match[bytes]) -> Iterator[Unseen]:
        if not self._may_be_unseen(tag):
            return
        element = _element(tag)
        host = element.host
        if host and (self._fetches_unseen(element) or _covers(self._hidden_spans(), element.start)):
            yield Unseen(element.start, element.end, b"", host)

    def _may_be_unseen(self, tag: re.Match[bytes]) -> bool:
        """Most images say nothing that could hide them, and are not looked at closely."""
        text = tag[0]
        if not text.startswith(b"<im") or len(text) > _COMMON_TAG or _may_hide(text):
            return True
        rules = self._its_rules()
        is_named = bool(rules.hiding or rules.shrinking)
        return is_named or _covers(self._hidden_spans(), tag.start())

    def _fetches_unseen(self, element: _Element) -> bool:
        if element.name == "link":
            return not _EARLY.isdisjoint(element.attributes.get("rel", "").lower().split())
        if element.name == "input" and element.attributes.get("type", "").strip().lower() != "image":
            return False
        return element.name in _ALWAYS_UNSEEN or self._is_hidden(element) or self._is_tiny(element)

    def _unseen_backgrounds(self) -> Iterator[Unseen]:
        for at in [*self._places(b"url(", b""), *self._places(b"background", b"")]:
            match = _BACKGROUND.match(self._text, at - 1)
            element = self._element_around(at) if match else None
            if match is None or element is None:
                continue
            if not (self._is_hidden(element) or self._is_tiny(element) or _covers(self._hidden_spans(), element.start)):
                continue
            yield from _backgrounds(self._text, element, at)
        yield from self._its_rules().unseen

    # what is hidden

    def _is_hidden(self, element: _Element) -> bool:
        names, rules = element.names, self._its_rules()
        if _hides(element.style, element.attributes):
            return rules.forcing.isdisjoint(names)
        return not rules.hiding.isdisjoint(names) and rules.showing.isdisjoint(names)

    def _is_tiny(self, element: _Element) -> bool:
        return _is_tiny(element) or not self._its_rules().shrinking.isdisjoint(element.names)

    def _hidden_spans(self) -> list[tuple[int, int]]:
        """Return where hidden elements lie that have something in them."""
        if self._hidden is None:
            self._hidden = list(self._found_hidden())
        return self._hidden

    def _found_hidden(self) -> Iterator[tuple[int, int]]:
        end, failures = 0, 0
        for at in self._perhaps_hidden():
            if failures > _MOST_FAILURES:
                return
            if at < end or _covers(self._comments, at):
                continue
            element = self._element_around(at)
            if element is None or element.name in _VOID or not self._is_hidden(element):
                continue
            closed = self._end_of(element)
            if closed is None:
                failures += 1
            else:
                yield element.start, closed
                end = closed

    def _perhaps_hidden(self) -> list[int]:
        places = [at for word, before in _WORDS for at in self._places(word, before)]
        hiding = {name[1:] for name in self._its_rules().hiding}
        if hiding:
            named = _CLASSES.finditer(self._text)
            places += [match.start() + 1 for match in named if not hiding.isdisjoint(match[1].split())]
        return sorted(places)

    def _places(self, word: bytes, before: bytes) -> Iterator[int]:
        at = self._text.find(word)
        while at >= 0:
            if before in self._text[max(0, at - _BESIDE) : at]:
                yield at
            at = self._text.find(word, at + len(word))

    def _end_of(self, element: _Element) -> int | None:
        """Return where an element ends; None where nothing ends it."""
        depth = 1
        for match in _marks_of(element.name).finditer(self._text, element.end):
            depth += -1 if match[1] else 1
            if not depth:
                return match.start()
        return None

    def _its_rules(self) -> _Rules:
        if self._rules is None:
            self._rules = _rules(self._text)
        return self._rules

    # where something stands

    def _is_in_tag(self, at: int) -> bool:
        start, end = (self._text.rfind(mark, max(0, at - _REACH), at) for mark in (b"<", b">"))
        return start > end and _BEGINS_TAG.match(self._text, start) is not None

    def _element_around(self, at: int) -> _Element | None:
        """Return the start tag in which something stands; None where it stands in none."""
        start = self._text.rfind(b"<", max(0, at - _REACH), at)
        if start < 0 or self._failures > _MOST_FAILURES:
            return None
        tag = _TAG.match(self._text, start, start + 2 * _REACH)
        self._failures += tag is None
        if tag is None or tag.end() <= at or tag[0].startswith(b"</"):
            return None
        return _element(tag)

    # what can be told apart

    def _shows_something(self, content: bytes) -> bool:
        if re.search(rb"<img\b", content):
            return True
        return bool(html.unescape(re.sub(rb"<[^>]*>", b"", content).decode("utf-8", "replace")).strip(_BLANKS))

    def _is_legible(self, element: _Element, content: bytes) -> bool:
        inner = [_element(tag) for tag in _TAG.finditer(content) if tag[0].startswith((b"<span", b"<font"))]
        colour = next((found for one in (*inner, element) if (found := _colour_of(one))), None)
        small = any(_is_nothing(one.style.get("font-size", "")) for one in (*inner, element))
        if small or colour is None:
            return not small
        return _contrast(colour, self._colour_behind(element)) >= _ILLEGIBLE

    def _colour_behind(self, element: _Element) -> tuple[int, int, int]:
        """Return the nearest background that encloses an element; white where there is none."""
        before = [element, *self._enclosing(element.start)]
        return next((found for one in before if (found := _background_of(one))), _WHITE)

    def _enclosing(self, at: int) -> Iterator[_Element]:
        """Yield the elements with a background of their own in which something stands, from the inside out."""
        start, before = max(0, at - _FARTHEST_BACKGROUND), at
        while (before := max(self._text.rfind(word, start, before) for word in _COLOURED)) >= 0:
            element = self._element_around(before)
            if element and element.end <= at and not self._is_closed_before(element, at):
                yield element

    def _is_closed_before(self, element: _Element, at: int) -> bool:
        depth = 1
        for match in _marks_of(element.name).finditer(self._text, element.end, at):
            depth += -1 if match[1] else 1
            if not depth:
                return True
        return False


_VOID = frozenset({"img", "image", "input", "br", "hr", "link", "meta", "area", "col", "embed", "source", "wbr"})
_BEGINS_TAG = re.compile(rb"</?[a-zA-Z!]")
_COLOURED: Final = (b"background", b"bgcolor")
_FARTHEST_BACKGROUND: Final = 64 * 1024
_BLANKS: Final = " \t\r\n\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff\u00ad"


def _comments(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield the comments, except those that some programs read as part of the page (`<!--[if mso]>`)."""
    at = text.find(b"<!--")
    while at >= 0:
        if text.startswith(b"[if", at + 4) or text.startswith(b"<![", at + 4):
            end = text.find(b">", at)
        else:
            end = text.find(b"-->", at + 4)
            yield at, end if end >= 0 else len(text)
        at = text.find(b"<!--", end) if end >= 0 else -1


def _spans(text: bytes, opening: bytes, closing: bytes) -> Iterator[tuple[int, int]]:
    """Yield what lies between two marks, the first of which counts; where the second is lacking, to the end."""
    at = text.find(opening)
    while at >= 0:
        end = text.find(closing, at + len(opening))
        yield at, end if end >= 0 else len(text)
        at = text.find(opening, end) if end >= 0 else -1


def _covers(spans: Sequence[tuple[int, int]], at: int) -> bool:
    """True where one of the spans, which are in order and apart, holds a place."""
    n = bisect_right(spans, at, key=itemgetter(0)) - 1
    return n >= 0 and at < spans[n][1]


@lru_cache(maxsize=64)
def _marks_of(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"<(/)?%b(?=[\s/>])" % re.escape(name.encode("utf-8", "replace")))


def _element(tag: re.Match[bytes]) -> _Element:
    """Read a start tag; those of a campaign are mostly the same in each of its messages."""
    text = tag[0]
    name, attributes, style, host = _remembered(text) if len(text) <= _COMMON_TAG else _read(text)
    return _Element(tag.start(), tag.end(), name, attributes, style, host)


_Read = tuple[str, Mapping[str, str], Mapping[str, str], str]
_COMMON_TAG: Final = 512


@lru_cache(maxsize=4096)
def _remembered(tag: bytes) -> _Read:
    return _read(tag)


def _read(tag: bytes) -> _Read:
    """Return a tag's name, its attributes, the declarations of its style, and the host that it fetches from."""
    named = _NAME.match(tag, 1)
    assert named is not None
    name = named[0].decode("utf-8", "replace")
    attributes = dict[str, str]()
    for match in _ATTRIBUTE.finditer(tag, named.end(), len(tag) - 1):
        value = (match[2] or b"").strip(b"\"'").decode("utf-8", "replace")
        attributes.setdefault(match[1].decode("utf-8", "replace").lower(), html.unescape(value))
    return name, attributes, _style(attributes.get("style", "")), _host_in(name, attributes)


def _style(text: str) -> dict[str, str]:
    """Read the declarations of a style; of two the later one counts."""
    plain = _unescaped_css(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)).lower()
    declared = (one.partition(":") for one in plain.split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in declared}


def _unescaped_css(text: str) -> str:
    return _CSS_ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0xFFFD)), text) if "\\" in text else text


_CSS_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?")


def _hides(style: Mapping[str, str], attributes: Mapping[str, str]) -> bool:
    if "hidden" in attributes or style.get("display") == "none" or style.get("visibility") in ("hidden", "collapse"):
        return True
    if _is_nothing(style.get("opacity", "")):
        return True
    if style.get("position") in ("absolute", "fixed") and any(_is_far_off(style.get(one, "")) for one in _SIDES):
        return True
    is_flat = any(_is_nothing(style.get(one, "")) for one in _EXTENTS)
    return is_flat and style.get("overflow") == "hidden"


_SIDES: Final = ("left", "top", "margin-left", "margin-top", "text-indent")
_EXTENTS: Final = ("height", "width", "max-height", "max-width")


def _is_nothing(length: str) -> bool:
    found = _LENGTH.match(length)
    return found is not None and float(found[1]) == 0


def _is_far_off(length: str) -> bool:
    found = _LENGTH.match(length)
    return found is not None and float(found[1]) <= -500


def _is_tiny(element: _Element) -> bool:
    """True for an image of at most one pixel; one whose other side is left open keeps its proportions."""
    style, attributes = element.style, element.attributes
    if any(_is_nothing(style.get(one, "")) for one in ("max-width", "max-height")):
        return True
    sides = [_is_dot(style.get(one) or attributes.get(one, "")) for one in ("width", "height")]
    lengths = [style.get(one) or attributes.get(one, "") for one in ("width", "height")]
    return any(map(_is_nothing, lengths)) or (any(sides) and all(is_dot is not False for is_dot in sides))


def _is_dot(length: str) -> bool | None:
    """True for a length of at most a pixel; None for one that is left open."""
    found = _LENGTH.match(length)
    if found is None:
        return None
    return float(found[1]) <= 1 and found[2] in (None, "px", "pt")


@lru_cache(maxsize=4096)
def _may_hide(tag: bytes) -> bool:
    return _SHORT.search(tag) is not None or any(one in tag for one in _HINTS)


def _host_in(name: str, attributes: Mapping[str, str]) -> str:
    """Return the host that an element fetches from; "" for what comes with the message."""
    names = ("href",) if name == "link" else ("src", "data", "srcset", "href")
    targets = [re.sub(r"[\t\r\n]", "", attributes.get(one, "")) for one in names]
    return next((host for one in targets if (host := host_of(one))), "")


def host_of(url: str) -> str:
    """Return the host of a remote URL in lower case; "" for any other."""
    found = _REMOTE.match(url)
    if found is None:
        return ""
    return found[1].rpartition("@")[2].partition(":")[0].rstrip(".").lower()


def _backgrounds(text: bytes, element: _Element, at: int) -> Iterator[Unseen]:
    url = _URL.match(text, at, element.end)
    if url:
        yield Unseen(url.start(), url.end(), b"none", host_of(url[1].decode("utf-8", "replace")))
    attribute = _BACKGROUND_ATTRIBUTE.match(text, at - 1, element.end)
    host = host_of(html.unescape(attribute[1].strip(b"\"'").decode("utf-8", "replace"))) if attribute else ""
    if attribute and host:
        yield Unseen(attribute.start(), attribute.end(), b"", host)


_BACKGROUND_ATTRIBUTE = re.compile(rb"\sbackground\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+)")


class _Rules(NamedTuple):
    """What the page's style sheets say of elements, by the simple selectors that name them.

    Some rules are `hiding` or `shrinking` them wherever the page is read, some are `showing` them somewhere, if need be
    `forcing` it upon an element's own style; `unseen` are the backgrounds of what is hidden.
    """

    hiding: frozenset[bytes] = frozenset()
    shrinking: frozenset[bytes] = frozenset()
    showing: frozenset[bytes] = frozenset()
    forcing: frozenset[bytes] = frozenset()
    unseen: tuple[Unseen, ...] = ()


_NO_RULES: Final = _Rules()


def _rules(text: bytes) -> _Rules:
    if b"<style" not in text:
        return _NO_RULES
    hiding, shrinking, showing, forcing, unseen = set[bytes](), set[bytes](), set[bytes](), set[bytes](), list[Unseen]()
    for start, end in _sheets(text):
        for rule in islice(_telling_rules(text, start, end), _MOST_RULES):
            declared = text[rule.open + 1 : rule.close]
            style = _style(declared.decode("utf-8", "replace"))
            selectors = text[rule.start : rule.open].split(b",")
            hides, shrinks = _hides(style, {}), _is_tiny(_Element(0, 0, "", {}, style))
            if rule.is_certain and (hides or shrinks):
                (hiding if hides else shrinking).update(_simple(selectors))
                unseen += _in_rule(text, rule)
            elif style.get("display", "none") != "none" or style.get("visibility") == "visible":
                named = {name for one in selectors for name in _NAMES.findall(one)}
                showing |= named
                forcing |= named if b"!important" in declared else set()
    return _Rules(frozenset(hiding), frozenset(shrinking), frozenset(showing), frozenset(forcing), tuple(unseen))


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
        opened = text.rfind(b"{", max(closed, at - _REACH), at)
        if opened < 0:
            continue
        begun = 1 + max(text.rfind(mark, max(closed, opened - _REACH), opened) for mark in (b"{", b"}", b";", b"/"))
        begun = max(begun, closed)
        depth += text.count(b"{", counted, opened) - text.count(b"}", counted, opened)
        counted = opened
        found = text.find(b"}", opened, end)
        closed = found if found >= 0 else end
        yield _Rule(begun, opened, closed, is_certain=depth == 0)


def _in_rule(text: bytes, rule: _Rule) -> Iterator[Unseen]:
    for url in _URL.finditer(text, rule.open, rule.close):
        yield Unseen(url.start(), url.end(), b"none", host_of(url[1].decode("utf-8", "replace")))


# colours

_WHITE: Final = (255, 255, 255)
_NAMED: Final = {
    **{
        "white": _WHITE,
        "black": (0, 0, 0),
        "gray": (128, 128, 128),
        "grey": (128, 128, 128),
        "silver": (192, 192, 192),
    },
    **{"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "navy": (0, 0, 128), "yellow": (255, 255, 0)},
    **{"whitesmoke": (245, 245, 245), "snow": (255, 250, 250), "ivory": (255, 255, 240)},
}
_HEXADECIMAL = re.compile(r"#([0-9a-f]{6}|[0-9a-f]{3})(?![0-9a-f])")
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})")


def _colour_of(element: _Element) -> tuple[int, int, int] | None:
    return _colour(element.style.get("color", "") or element.attributes.get("color", "").lower())


def _background_of(element: _Element) -> tuple[int, int, int] | None:
    style = element.style
    told = style.get("background-color") or style.get("background") or element.attributes.get("bgcolor", "").lower()
    return _colour(told)


@lru_cache(maxsize=512)
def _colour(text: str) -> tuple[int, int, int] | None:
    if found := _HEXADECIMAL.search(text):
        digits = found[1] if len(found[1]) == 6 else "".join(one * 2 for one in found[1])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    if found := _RGB.search(text):
        return int(found[1]), int(found[2]), int(found[3])
    return next((_NAMED[one] for one in text.split() if one in _NAMED), None)


def _contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2.2: the contrast ratio of two colours, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    shares = [part / 255 for part in colour]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
