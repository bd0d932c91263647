"""Where and on what a run was made: enough for a reader to judge its figures, and to repeat it.

The one rule: nothing here identifies the machine or whoever owns it, only what it can do.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

FSYNCS = 200


def describe_machine(scratch: Path) -> list[tuple[str, str]]:
    """Name and value of each fact, in the order of the table."""
    processor = _first("/proc/cpuinfo", r"model name\s*: (.*)")
    memory = int(_first("/proc/meminfo", r"MemTotal:\s*(\d+)")) / 2**20
    system = _first("/etc/os-release", r'PRETTY_NAME="?([^"\n]*)')
    load = os.getloadavg()[0]
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("revision", revision()),
        ("processors", f"{len(os.sched_getaffinity(0))} × {processor}"),
        ("memory", f"{memory:.1f} GiB"),
        ("system", f"{system}, kernel {platform.release()}"),
        (
            "disk",
            f"{_filesystem(scratch)}; 4 kB appended and fsynced in {_fsync_milliseconds(scratch):.2f} ms (median)",
        ),
        ("load before", f"{load:.2f} (well above 0 means that something else was running)"),
        ("Python", platform.python_version()),
    ]


def revision() -> str:
    """The commit, and whether files differ from it; results that this program wrote do not count."""
    here = Path(__file__).parent
    head = _output(["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"])
    others = [":/", ":!/bench/RESULTS.md", ":!/bench/results.json"]
    changed = _output(["git", "-C", str(here), "status", "--porcelain", "--", *others])
    return f"{head} with uncommitted changes" if changed else head or "unknown"


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def _first(file: str, pattern: str) -> str:
    found = re.search(pattern, Path(file).read_text())
    return found.group(1).strip() if found else "0"


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder, by the longest mount point above it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _fsync_milliseconds(folder: Path) -> float:
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
