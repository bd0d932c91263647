"""Another time for one process: libfaketime answers it when it asks the clock, and it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

_PLACES = ("usr/lib/*/faketime", "usr/lib/faketime", "usr/lib64/faketime", "usr/local/lib/faketime")


def shifted(shift: str) -> dict[str, str]:
    """Return the environment in which the wall clock differs, by "+1d" say, and intervals are as long as ever."""
    return {"LD_PRELOAD": _library("libfaketime.so.1"), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def faster(times: int) -> dict[str, str]:
    """Return the environment in which all clocks run so many times faster, so that limits of minutes take seconds."""
    return {"LD_PRELOAD": _library("libfaketimeMT.so.1"), "FAKETIME": f"+0 x{times}"}


def _library(name: str) -> str:
    found = [file for place in _PLACES for file in Path("/").glob(f"{place}/{name}")]
    if not found:
        pytest.skip("libfaketime is not installed (Debian package libfaketime)")
    return str(found[0])
