"""A pytest plugin: where CI runs, a skipped test is a failed one.

On a developer's machine a missing peer (Postfix, Chromium) skips the tests that need it, each with its reason, and
the last lines count them. With CI=true everything has been installed, so that a skip means that something was
not tested and nobody noticed. Expected failures (`xfail`) are not skips.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def is_forbidden() -> bool:
    """True where a skip is a failure."""
    return os.environ.get("CI", "") == "true"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    if is_forbidden():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI=true and this was not tested: {reason}"
