"""What happened in a span of time as a picture: an SVG that needs nothing else, and says in words what it shows.

The one rule: no style attribute and no script, so that it may stand on a page that allows neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

_WIDTH, _HEIGHT, _FOOT = 720, 180, 24
_SERIES: Final = (("relayed", "#0b57d0"), ("refused", "#b3261e"), ("opt_outs", "#5f6368"))
"""Each at least 4.5:1 on white; the legend and the titles of the bars say the same in words."""


def of_timeline(timeline: Sequence[Mapping[str, Any]]) -> str:
    """Return bars for each hour or day of an activity's `timeline`, all to the same scale; "" for none.

    They are relayed and refused recipients, and opt-outs.
    """
    if not timeline:
        return ""
    most = max([1, *(step[name] for step in timeline for name, _ in _SERIES)])
    slot = _WIDTH / len(timeline)
    bars = "".join(
        _bar(n * slot + at * slot / 4, slot / 4, step[name], most, color, f"{_words(name)}, {_moment(step['from'])}")
        for n, step in enumerate(timeline)
        for at, (name, color) in enumerate(_SERIES)
    )
    legend = "".join(f'<tspan fill="{color}" dx="12">■ {_words(name)}</tspan>' for name, color in _SERIES)
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" width="100%">'
        f'<title>{escape(_sentence(timeline))}</title><rect width="100%" height="100%" fill="#fff"/>{bars}'
        f'<text x="4" y="{_HEIGHT + 16}" font-size="12" font-family="sans-serif">{_moment(timeline[0]["from"])} to'
        f" {_moment(timeline[-1]['from'])}; the highest bar is {most}.{legend}</text></svg>"
    )


def _bar(x: float, width: float, count: int, most: int, color: str, what: str) -> str:
    if not count:
        return ""
    height = count / most * (_HEIGHT - 8)
    place = f'x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{color}"><title>{count} {what}</title></rect>'


def _sentence(timeline: Sequence[Mapping[str, Any]]) -> str:
    relayed, refused, opt_outs = (sum(step[name] for step in timeline) for name, _ in _SERIES)
    return f"Over time: {relayed} recipients relayed, {refused} refused, {opt_outs} opt-outs in all"


def _words(name: str) -> str:
    return name.replace("_", "-")


def _moment(text: str) -> str:
    """Write when a step begins: a day by its date, an hour with its time."""
    day, _, time = text.partition("T")
    return day if time.startswith("00:00:00") else f"{day} {time[:5]}"
