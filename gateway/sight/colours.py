"""Colours of text and of what is behind it, and whether one can be told from the other (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from gateway.sight.elements import Element

WHITE: Final = (255, 255, 255)
_NAMED: Final = {
    **{
        "white": WHITE,
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


def colour_of(element: Element) -> tuple[int, int, int] | None:
    return _colour(element.style.get("color", "") or element.attributes.get("color", "").lower())


def background_of(element: Element) -> tuple[int, int, int] | None:
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


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2.2: the contrast ratio of two colours, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    shares = [part / 255 for part in colour]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
