"""Start tags as they are written: their attributes, their styles, whether those hide them, what host they fetch from.

The one rule: nothing here raises, whatever stands in a tag. Where in a page a tag stands is for `Page` to know.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

TAG = re.compile(rb"</?[a-z][^\s/>\"']*(?:[^>\"']+|\"[^\"]*\"|'[^']*')*+>")
_NAME = re.compile(rb"[^\s/>]+")
_ATTRIBUTE = re.compile(rb"([^\s\"'>/=]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+))?")
_REMOTE = re.compile(r"\s*(?:https?:)?[/\\]{2}([^/\\?#\s]*)", re.IGNORECASE)
_HINTS: Final = (b"none", b"visib", b"hidden", b"opacity", b"\\", b"&#", b"&co")
_SHORT = re.compile(rb"[thp]\s*[=:][\"'\s]*(?:-|\.|0*[01](?![0-9]))")
"""The end of a name (width, height, left, top), and the beginning of a length that hides what has it."""
_LENGTH = re.compile(r"\s*(-?\d*\.?\d+)\s*(px|pt|%|em|rem|vw|vh)?")


class Unseen(NamedTuple):
    """Something at `start:end` of a page that fetches from a `host` and shows nothing; what to put in its place."""

    start: int
    end: int
    instead: bytes
    host: str


class Element(NamedTuple):
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


@lru_cache(maxsize=64)
def marks_of(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"<(/)?%b(?=[\s/>])" % re.escape(name.encode("utf-8", "replace")))


def name_of(tag: bytes) -> str:
    """Return the name of a start or end tag."""
    named = _NAME.match(tag, 2 if tag.startswith(b"</") else 1)
    return named[0].decode("utf-8", "replace") if named else ""


def element_of(tag: re.Match[bytes]) -> Element:
    """Read a start tag; those of a campaign are mostly the same in each of its messages."""
    text = tag[0]
    name, attributes, style, host = _remembered(text) if len(text) <= COMMON_TAG else _read(text)
    return Element(tag.start(), tag.end(), name, attributes, style, host)


_Read = tuple[str, Mapping[str, str], Mapping[str, str], str]
COMMON_TAG: Final = 512


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
    return name, attributes, style_of(attributes.get("style", "")), _host_in(name, attributes)


def style_of(text: str) -> dict[str, str]:
    """Read the declarations of a style; of two the later one counts."""
    plain = _unescaped_css(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)).lower()
    declared = (one.partition(":") for one in plain.split(";"))
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in declared}


def _unescaped_css(text: str) -> str:
    return _CSS_ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0xFFFD)), text) if "\\" in text else text


_CSS_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?")


def hides(style: Mapping[str, str], attributes: Mapping[str, str]) -> bool:
    if "hidden" in attributes or style.get("display") == "none" or style.get("visibility") in ("hidden", "collapse"):
        return True
    if is_nothing(style.get("opacity", "")):
        return True
    if style.get("position") in ("absolute", "fixed") and any(_is_far_off(style.get(one, "")) for one in _SIDES):
        return True
    is_flat = any(is_nothing(style.get(one, "")) for one in _EXTENTS)
    return is_flat and style.get("overflow") == "hidden"


_SIDES: Final = ("left", "top", "margin-left", "margin-top", "text-indent")
_EXTENTS: Final = ("height", "width", "max-height", "max-width")


def is_nothing(length: str) -> bool:
    found = _LENGTH.match(length)
    return found is not None and float(found[1]) == 0


def _is_far_off(length: str) -> bool:
    found = _LENGTH.match(length)
    return found is not None and float(found[1]) <= -500


def is_tiny(element: Element) -> bool:
    """True for an image of at most one pixel; one whose other side is left open keeps its proportions."""
    style, attributes = element.style, element.attributes
    if any(is_nothing(style.get(one, "")) for one in ("max-width", "max-height")):
        return True
    sides = [_is_dot(style.get(one) or attributes.get(one, "")) for one in ("width", "height")]
    lengths = [style.get(one) or attributes.get(one, "") for one in ("width", "height")]
    return any(map(is_nothing, lengths)) or (any(sides) and all(is_dot is not False for is_dot in sides))


def _is_dot(length: str) -> bool | None:
    """True for a length of at most a pixel; None for one that is left open."""
    found = _LENGTH.match(length)
    if found is None:
        return None
    return float(found[1]) <= 1 and found[2] in (None, "px", "pt")


@lru_cache(maxsize=4096)
def may_hide(tag: bytes) -> bool:
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
