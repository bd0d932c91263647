"""`make requirements`: every row of the matrix, the tests that claim it, and what came out of them last.

The links are collected now, the outcomes are those of build/requirements.json: a test that was renamed or removed
proves nothing any more. `--run` runs the tests first. Exit code 1 where a row has a failing test.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from itertools import groupby
from operator import attrgetter

import pytest
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.requirements import MATRIX, Row, proven_by, read_matrix, read_results, worst

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow", "not run": "yellow", "no test": "dim"}
_SENTENCE_LENGTH = 90

Claims = Mapping[str, Sequence[str]]


class Collected:
    """A pytest plugin that keeps which tests claim which rows."""

    def __init__(self) -> None:
        self.claims: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for id in proven_by(item):
                self.claims[id].append(item.nodeid)


def collect(*, run: bool) -> Claims:
    """Return the tests that claim each row; with `run`, run the suite first.

    Raises `SystemExit`, with what pytest said, if the tests cannot be read.
    """
    collected = Collected()
    said = io.StringIO()
    with nullcontext() if run else redirect_stdout(said):
        status = pytest.main([] if run else ["--collect-only", "-q"], plugins=[collected])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"{said.getvalue()}\nThe tests cannot be collected, so that nothing can be said about them.")
    return collected.claims


def names_of(tests: Sequence[str]) -> list[str]:
    """Return node ids without their folder, the cases of one parametrised test as one line with their number."""
    cases = Counter(test.partition("[")[0].removeprefix("tests/") for test in tests)
    return [f"{name} ×{count}" if count > 1 else name for name, count in cases.items()]


def shortened(markdown: str) -> str:
    """Return what a row asks for as one line of plain text."""
    plain = re.sub(r"\*\*|`", "", markdown.split(" → ")[-1])
    return plain if len(plain) <= _SENTENCE_LENGTH else plain[: _SENTENCE_LENGTH - 1].rstrip() + "…"


def table_of(section: str, rows: Sequence[Row], claims: Claims, results: Mapping[str, str]) -> Table:
    counts = counted(results[row.id] for row in rows)
    table = Table(title=f"{section}: {counts}", title_justify="left", title_style="bold", box=box.SIMPLE)
    table.add_column("ID", no_wrap=True)
    table.add_column("Pri")
    table.add_column("Result", no_wrap=True)
    table.add_column("Requirement and its tests", ratio=1, overflow="fold")
    for row in rows:
        lines = [shortened(row.text), *(f"  {name}" for name in names_of(claims.get(row.id, ())))]
        result = results[row.id]
        table.add_row(row.id, row.priority, Text(result, _STYLES[result]), Text("\n".join(lines)))
    return table


def counted(results: Iterable[str]) -> str:
    """Return how many rows have which result, as one line: "36 rows, 20 passed, 16 no test"."""
    counts = Counter(results)
    return ", ".join([f"{counts.total()} rows", *(f"{counts[name]} {name}" for name in _STYLES if counts[name])])


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    claims = collect(run=options.run)
    rows = [row for row in read_matrix(MATRIX.read_text("utf-8")) if row.id.startswith(tuple(options.prefix or [""]))]
    outcomes = read_results()
    results = {row.id: worst(outcomes.get(test, "not run") for test in claims.get(row.id, ())) for row in rows}
    console = Console(width=None if sys.stdout.isatty() else 120)
    for section, members in groupby(rows, key=attrgetter("section")):
        console.print(table_of(section, list(members), claims, results))
    console.print(f"All sections: {counted(results.values())}", style="bold")
    return 1 if "failed" in results.values() else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.requirements_table", description="Which rows are proven?")
    parser.add_argument("prefix", nargs="*", help="only rows whose id begins so: UNS, DKIM-0, LAW-CA")
    parser.add_argument("--run", action="store_true", help="run the tests first")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
