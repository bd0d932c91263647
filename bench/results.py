"""What was measured, part by part: kept as data in results.json, written out as RESULTS.md.

The one rule: every figure of RESULTS.md stands in results.json, where a program put it with the date, revision and
machine of its measuring; so a part can be measured anew by itself, and none passes for newer than it is. What
the figures mean is left to whoever measures: a part brings its own tables and bars.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
REPORT = Path(__file__).with_name("RESULTS.md")

ORDER = ("peers", "recipients", "large", "people", "queue", "imports", "torture")
"""The parts as they stand in the report; others follow by name."""

Cell = str | int | float | None

_TOP = "# Results\n\nWritten by `python -m bench`, never by hand, from results.json. README.md says how to read it.\n"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures under their heads; a figure that there is none of is None."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """What was wanted and what was found, None where it could not be measured. A goal may be missed."""

    what: str
    wanted: float
    found: float | None
    unit: str = "×"
    at_most: bool = False
    is_goal: bool = False

    @property
    def is_met(self) -> bool:
        if self.found is None:
            return False
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    @property
    def is_missed(self) -> bool:
        """True where it was measured, is more than a goal, and is not met."""
        return self.found is not None and not self.is_goal and not self.is_met

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        if self.is_goal:
            return "goal reached" if self.is_met else "goal not reached"
        return "met" if self.is_met else "**missed**"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the report: what `about` tells of its measuring, its tables and bars, and remarks below them.

    `facts` say when and on what it was measured (`machine.describe_machine`).
    """

    name: str
    title: str
    about: str
    tables: Sequence[Table] = ()
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = ()
    facts: Sequence[Sequence[str]] = field(default=())

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Part:
        tables = [Table(**table) for table in told.pop("tables")]
        bars = [Bar(**bar) for bar in told.pop("bars")]
        return cls(**told, tables=tables, bars=bars)


def kept_parts(results: Path = RESULTS) -> list[Part]:
    """Return every part that was kept, in the order of the report."""
    told = json.loads(results.read_text("utf-8")) if results.exists() else []
    return sorted(map(Part.from_json, told), key=_place)


def keep(parts: Iterable[Part], results: Path = RESULTS, report: Path = REPORT) -> None:
    """Keep these parts, each in the place of its predecessor, and write the report anew."""
    kept = {part.name: part for part in (*kept_parts(results), *parts)}
    in_order = sorted(kept.values(), key=_place)
    told = json.dumps([asdict(part) for part in in_order], indent=1, ensure_ascii=False)
    results.write_text(f"{told}\n", "utf-8")
    report.write_text(render(in_order), "utf-8")


def render(parts: Sequence[Part]) -> str:
    """Return the report: all bars first, then each part."""
    return "\n".join([_TOP, *_bars_of(parts), *map(render_part, parts)])


def render_part(part: Part) -> str:
    """Return one part's section."""
    pieces = [f"## {part.title}", part.about, *map(_rendered_table, part.tables)]
    pieces += ["\n".join(f"* {note}" for note in part.notes)] if part.notes else []
    pieces += [f"Measured: {'; '.join(f'{name} {value}' for name, value in part.facts)}."] if part.facts else []
    return "\n\n".join(pieces) + "\n"


def bars_table(bars: Sequence[Bar]) -> str:
    """Return bars as a table."""
    rows = [(bar.what, _wanted(bar), _quantity(bar.found, bar.unit), bar.verdict) for bar in bars]
    return _rendered_table(Table(("bar", "wanted", "found", ""), rows))


def _bars_of(parts: Sequence[Part]) -> Iterator[str]:
    bars = [bar for part in parts for bar in part.bars]
    if bars:
        yield f"## Bars\n\n{bars_table(bars)}\n"


def _wanted(bar: Bar) -> str:
    return f"{'at most' if bar.at_most else 'at least'} {bar.wanted:g} {bar.unit}".rstrip()


def _quantity(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_figure(value)} {unit}".rstrip()


def _rendered_table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    marks = ["--:" if _is_numeric(column) else "---" for column in columns]
    lines = [table.head, marks, *([_figure(cell) for cell in row] for row in table.rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{text}" if table.title else text


def _is_numeric(column: Sequence[Cell]) -> bool:
    return any(cell is not None for cell in column) and not any(isinstance(cell, str) for cell in column)


def _figure(cell: Cell) -> str:
    """Write a figure with about three digits, however large."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    if isinstance(cell, int):
        return f"{cell:,}"
    digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2
    return f"{cell:,.{digits}f}"


def _place(part: Part) -> tuple[int, str]:
    return (ORDER.index(part.name) if part.name in ORDER else len(ORDER), part.name)
