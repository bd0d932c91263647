"""A pytest plugin that ties tests to the rows of docs/requirements.md.

A test says `@pytest.mark.req("UNS-11")`; an id that is not in the matrix stops the run, so that no proof can point at
nothing. What came out of each such test is kept in build/requirements.json, over runs of parts of the suite
too. Who prints the table is `tests.requirements_table`.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MATRIX = ROOT / "docs" / "requirements.md"
RESULTS = ROOT / "build" / "requirements.json"

_HEADING = re.compile(r"^## (?:\d+\. )?(.+)$")
_ROW = re.compile(r"^\| ((?:X|[A-Z][A-Z0-9]+)(?:-[A-Z]{2})?-\d{2}) \|(.*)\|\s*$")
_WORST_FIRST = ("failed", "skipped", "not run", "passed")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the matrix: its section's heading, its text as Markdown, and how much it matters (M, S or X)."""

    id: str
    section: str
    text: str
    priority: str


def read_matrix(text: str) -> list[Row]:
    """Return the matrix's rows in their order. The table of moonshots has no priority column: they are all X."""
    rows, section = [], ""
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            section = heading.group(1)
        elif row := _ROW.match(line):
            cells = [cell.strip() for cell in row.group(2).split(" | ")]
            priority = cells[-2] if cells[-2] in ("M", "S", "X") else "X"
            rows.append(Row(row.group(1), section, cells[0], priority))
    return rows


def proven_by(item: pytest.Item) -> list[str]:
    """Return the ids that a test claims to prove, from its own marks and those of its class and module."""
    return sorted({id for mark in item.iter_markers("req") for id in mark.args})


def unknown_ids(claims: Iterable[tuple[str, list[str]]], known: set[str]) -> list[str]:
    """Return a sentence for each claim about a row that the matrix does not have."""
    return [
        f"{test} claims {id}, which docs/requirements.md does not have"
        for test, ids in claims
        for id in ids
        if id not in known
    ]


def worst(outcomes: Iterable[str]) -> str:
    """Return what several outcomes amount to; "no test" where there are none."""
    seen = set(outcomes)
    return next((outcome for outcome in _WORST_FIRST if outcome in seen), "no test")


def read_results() -> dict[str, str]:
    """Return the last outcome of each test that claims a row, by node id."""
    return dict(json.loads(RESULTS.read_text("utf-8"))) if RESULTS.exists() else {}


class Recorder:
    """Keeps the outcome of each test with a claim, and writes them when the run ends, or this process's part of it."""

    def __init__(self) -> None:
        self._claimed: set[str] = set()
        self._outcomes: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        claims = [(item.nodeid, proven_by(item)) for item in items]
        known = {row.id for row in read_matrix(MATRIX.read_text("utf-8"))}
        if mistakes := unknown_ids(claims, known):
            raise pytest.UsageError("\n".join(mistakes))
        self._claimed = {test for test, ids in claims if ids}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._claimed and (report.when == "call" or not report.passed):
            self._outcomes[report.nodeid] = worst([report.outcome, self._outcomes.get(report.nodeid, "passed")])

    def pytest_sessionfinish(self) -> None:
        if not self._outcomes:
            return
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            scratch = RESULTS.with_suffix(".new")
            scratch.write_text(json.dumps(read_results() | self._outcomes, indent=1, sort_keys=True) + "\n", "utf-8")
            scratch.replace(RESULTS)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(), "requirement-recorder")
