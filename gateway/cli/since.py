"""What `--since` takes: a moment in the past, as people say it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from gateway.cli.people import instant

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPANS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class SinceType(click.ParamType[str]):
    """A moment in the past, as people say it: fri, today, 36h, 7d, 2026-11-20; what is meant depends on now."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            moment(str(value), datetime.now(UTC))
        except ValueError:
            self.fail(f"{value!r} is no time; write fri, today, 36h, 7d, 2026-11-20 or 2026-11-20T08:00", param, ctx)
        return str(value)


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that a text means, in UTC unless it names a zone; raises `ValueError`."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    word = text.strip().lower()
    if word == "today":
        return midnight
    if word[:3] in _DAYS and re.fullmatch("[a-z]{3,9}", word):
        return midnight - timedelta(days=(now.weekday() - _DAYS.index(word[:3])) % 7)
    span = re.fullmatch(r"(\d{1,4})([hdw])", word)
    if span:
        return now - int(span[1]) * _SPANS[span[2]]
    return instant(text)
