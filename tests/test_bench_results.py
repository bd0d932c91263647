"""Reads the bench's report and the data it is made of: neither may say what the other does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import torture
from bench.results import REPORT, Bar, Part, Table, keep, kept_parts, render
from bench.torture import Finding

MEASURED = Part(
    name="large",
    title="Large mail",
    about="One megabyte each.",
    tables=[Table(("", "MB/s"), [["Assent", 61.25], ["a peer that could not run", None]], "20 sessions")],
    bars=[Bar("taken in", 60, 61.25, "MB/s"), Bar("a wait", 0.5, 0.75, "s", at_most=True)],
    notes=["Assent: default settings."],
    facts=[("revision", "0123456789ab")],
)


@pytest.mark.req("SMTP-30")
def test_the_report_is_what_the_data_amount_to() -> None:
    assert REPORT.read_text("utf-8") == render(kept_parts()), "run `python -m bench --render`"


def test_a_part_that_is_measured_anew_leaves_the_others_alone(tmp_path: Path) -> None:
    results, report = tmp_path / "results.json", tmp_path / "RESULTS.md"
    other = replace(MEASURED, name="queue", title="A long queue", bars=[])
    keep([other, MEASURED], results, report)
    keep([replace(MEASURED, about="Two megabytes each.")], results, report)
    assert [(part.name, part.about) for part in kept_parts(results)] == [
        ("large", "Two megabytes each."),
        ("queue", "One megabyte each."),
    ]
    assert report.read_text("utf-8") == render(kept_parts(results))


def test_a_finding_of_torture_leaves_other_findings_and_parts_alone(tmp_path: Path) -> None:
    results, report = tmp_path / "results.json", tmp_path / "RESULTS.md"
    keep([MEASURED], results, report)
    torture.enter(Finding("power loss", "300 points", 4000, 1), results, report)
    torture.enter(Finding("kill -9", "200 times", 9000, 0, 17), results, report)
    torture.enter(Finding("power loss", "600 points", 5000, 0), results, report)
    large, found = kept_parts(results)
    assert render([large]) == render([MEASURED])
    assert [list(row[:5]) for row in found.tables[0].rows] == [
        ["kill -9", "200 times", 9000, 0, 17],
        ["power loss", "600 points", 5000, 0, None],
    ]
    assert [bar.is_met for bar in found.bars] == [True]


def test_the_report_shows_bars_first_and_figures_with_what_they_were_measured_on() -> None:
    report = render([MEASURED])
    assert "| taken in | at least 60 MB/s | 61.2 MB/s | met |" in report
    assert "| a wait | at most 0.5 s | 0.75 s | **missed** |" in report
    assert "| a peer that could not run |  |" in report
    assert report.index("## Bars") < report.index("## Large mail") < report.index("revision 0123456789ab")


@pytest.mark.parametrize(
    ("bar", "missed"),
    [
        (Bar("", 4, 4.0), False),
        (Bar("", 4, 3.99), True),
        (Bar("", 4, 3.99, is_goal=True), False),
        (Bar("", 4, None), False),
        (Bar("", 4, 4.01, at_most=True), True),
    ],
)
def test_only_a_bar_that_was_measured_and_is_no_goal_can_be_missed(bar: Bar, missed: bool) -> None:
    assert bar.is_missed is missed
