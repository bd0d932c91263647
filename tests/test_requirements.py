"""Tests of the plugins `tests.requirements` and `tests.skips`, and of the table made from what they keep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import ROOT, read_matrix, worst
from tests.requirements_table import counted, names_of, shortened

MATRIX = """
## 5. UNS — one-click

| ID | Requirement | Source | Test | Pri | Ver |
|---|---|---|---|---|---|
| UNS-01 | Each copy has **one** `List-Unsubscribe`. | RFC 8058 §3.1 | Count. | M | V |
| LAW-CA-06 | Consent-exempt messages → still carry a link. | CASL 6(6) | Look. | S | Q |

## 17. X — moonshots

| ID | Idea | Source | Test | Ver |
|---|---|---|---|---|
| X-01 | Stamp a header. | RFC 7293 | Look. | V |

| # | Conflict | Resolution |
|---|---|---|
| C-10 | Both. | Hold both. |
"""


def run_pytest(folder: Path, source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_scratch.py").write_text(source, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = req(*ids): rows\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "tests.requirements",
        "-p",
        "tests.skips",
        str(folder),
    ]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    variables = inherited | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_every_row_of_the_matrix_is_read_with_its_priority() -> None:
    rows = [(row.id, row.section, row.priority) for row in read_matrix(MATRIX)]
    assert rows == [
        ("UNS-01", "UNS — one-click", "M"),
        ("LAW-CA-06", "UNS — one-click", "S"),
        ("X-01", "X — moonshots", "X"),
    ]


def test_a_row_is_shown_as_plain_text() -> None:
    first, second, _ = read_matrix(MATRIX)
    assert shortened(first.text) == "Each copy has one List-Unsubscribe."
    assert shortened(second.text) == "still carry a link."
    assert len(shortened("x" * 200)) == 90


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        ([], "no test"),
        (["passed"], "passed"),
        (["passed", "not run"], "not run"),
        (["not run", "skipped"], "skipped"),
        (["passed", "failed", "skipped"], "failed"),
    ],
)
def test_a_row_is_as_good_as_its_worst_test(outcomes: list[str], result: str) -> None:
    assert worst(outcomes) == result


def test_the_cases_of_one_test_are_one_line() -> None:
    tests = ["tests/test_a.py::test_x[1]", "tests/test_a.py::test_x[2]", "tests/test_a.py::test_y"]
    assert names_of(tests) == ["test_a.py::test_x ×2", "test_a.py::test_y"]
    assert counted(["passed", "no test", "passed"]) == "3 rows, 2 passed, 1 no test"


def test_a_claim_about_an_unknown_row_stops_the_run(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "import pytest\n@pytest.mark.req('UNS-99')\ndef test_it(): pass\n")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "test_scratch.py::test_it claims UNS-99" in run.stdout + run.stderr


def test_a_skip_is_counted_with_its_reason(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "import pytest\ndef test_it(): pytest.skip('Postfix is not here')\n")
    assert run.returncode == pytest.ExitCode.OK
    assert "Postfix is not here" in run.stdout
    assert "1 skipped" in run.stdout.splitlines()[-1]


def test_a_skip_is_a_failure_where_ci_runs(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "import pytest\ndef test_it(): pytest.skip('Postfix is not here')\n", CI="true")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "CI=true and this was not tested: Skipped: Postfix is not here" in run.stdout


def test_a_module_that_skips_itself_is_a_failure_where_ci_runs(tmp_path: Path) -> None:
    source = "import pytest\npytest.skip('no browser', allow_module_level=True)\n"
    assert run_pytest(tmp_path, source).returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert run_pytest(tmp_path, source, CI="true").returncode == pytest.ExitCode.INTERRUPTED


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False\n"
    assert run_pytest(tmp_path, source, CI="true").returncode == pytest.ExitCode.OK
