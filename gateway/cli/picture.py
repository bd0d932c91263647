"""The days of a report as a picture: an SVG that needs nothing else, and says in words what it shows."""

from __future__ import annotations

from datetime import timedelta
from html import escape
from typing import Final

from gateway.activity import Activity, Day

_WIDTH, _HEIGHT, _FOOT = 720, 180, 24
_SERIES: Final = (("relayed", "#0b57d0"), ("refused", "#b3261e"), ("opt_outs", "#5f6368"))
"""Each at least 4.5:1 on white; the legend and the titles of the bars say the same in words."""


def of_days(found: Activity) -> str:
    """Return bars for each day: relayed and refused recipients, and opt-outs, each to the same scale."""
    count = max(1, (found.until - found.since).days)
    days = [found.days.get((found.since + timedelta(days=n)).date(), Day()) for n in range(count)]
    most = max([1, *(getattr(day, name) for day in days for name, _ in _SERIES)])
    slot = _WIDTH / count
    bars = "".join(
        _bar(n * slot + at * slot / 4, slot / 4, getattr(day, name), most, color, name)
        for n, day in enumerate(days)
        for at, (name, color) in enumerate(_SERIES)
    )
    legend = "".join(f'<tspan fill="{color}" dx="12">■ {name.replace("_", "-")}</tspan>' for name, color in _SERIES)
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" style="max-width:100%;background:#fff">'
        f"<title>{escape(_sentence(found))}</title>{bars}"
        f'<text x="0" y="{_HEIGHT + 16}" font-size="12" font-family="sans-serif">{found.since:%Y-%m-%d} to'
        f" {found.until - timedelta(days=1):%Y-%m-%d};"
        f" the highest bar is {most}.{legend}</text></svg>"
    )


def _bar(x: float, width: float, count: int, most: int, color: str, what: str) -> str:
    if not count:
        return ""
    height = count / most * (_HEIGHT - 8)
    place = f'x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{color}"><title>{count} {what}</title></rect>'


def _sentence(found: Activity) -> str:
    return (
        f"By day: {found.relayed} recipients relayed, {found.refused.total()} refused,"
        f" {found.opt_outs.total()} opt-outs in all"
    )
