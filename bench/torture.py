"""What the long sizes of the fault tests found, one row a fault: the part `torture` of the report.

The one rule: a row is entered by the test that found it, with its own date and revision, before that test judges it; so
a figure that is bad stands in the report too, and a test that is run by itself leaves the other rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.machine import revision
from bench.results import REPORT, RESULTS, Bar, Cell, Part, Table, keep, kept_parts

NAME: Final = "torture"
_HEAD: Final = ("fault", "how often", "promised", "lost", "came twice", "besides", "date", "revision")
_ABOUT: Final = """\
`make torture`: the program as a separate process, judged from outside. *Promised* are copies and opt-outs that were
answered 250 or 200, *lost* those that were gone afterwards, *came twice* the copies of which the smarthost got one
more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one fault did; None where a figure does not apply."""

    fault: str
    how_often: str
    promised: int | None = None
    lost: int | None = None
    came_twice: int | None = None
    besides: str = ""


def enter(finding: Finding, results: Path = RESULTS, report: Path = REPORT) -> None:
    """Keep a finding in the place of the one that its fault had before."""
    rows = {str(row[0]): row for row in _kept_rows(results)}
    rows[finding.fault] = _row(finding)
    in_order = [rows[fault] for fault in sorted(rows)]
    lost = sum(row[3] for row in in_order if isinstance(row[3], int))
    bar = Bar("promised and lost, whatever the fault", 0, lost, "", at_most=True)
    keep([Part(NAME, "Torture", _ABOUT, [Table(_HEAD, in_order)], [bar])], results, report)


def _kept_rows(results: Path) -> Sequence[Sequence[Cell]]:
    return next((part.tables[0].rows for part in kept_parts(results) if part.name == NAME), ())


def _row(finding: Finding) -> Sequence[Cell]:
    figures = (finding.promised, finding.lost, finding.came_twice)
    return (finding.fault, finding.how_often, *figures, finding.besides, f"{datetime.now(UTC):%Y-%m-%d}", revision())
