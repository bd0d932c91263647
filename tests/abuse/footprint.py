"""What the gateway's processes spend, as the kernel counts it: memory at its peak, processor time.

Nothing is asked of the program itself. The supervisor is not counted: it hears no stranger.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.gateway_under_test import Gateway

MIB = 1024 * 1024


@dataclass
class Footprint:
    """How large the workers become at their peak within a `with` block, and how long they compute.

    Made once, when everything has happened once, it compares every block with that moment: what an earlier block left
    behind counts too.
    """

    gateway: Gateway

    grown: int = 0
    """Octets of resident memory above what it was when this was made."""
    seconds: float = 0.0
    """Of processor time, the system's included."""

    def __post_init__(self) -> None:
        self._workers = workers_of(self.gateway)
        self._resting = self._sum_of("VmRSS")

    def __enter__(self) -> Self:
        for pid in self._workers:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        self._computed = self._computed_so_far()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.grown = self._sum_of("VmHWM") - self._resting
        self.seconds = self._computed_so_far() - self._computed

    def _sum_of(self, field: str) -> int:
        return sum(_kibibytes(pid, field) for pid in self._workers) * 1024

    def _computed_so_far(self) -> float:
        times = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in self._workers]
        return sum(int(ticks) for pair in times for ticks in pair) / os.sysconf("SC_CLK_TCK")


def workers_of(gateway: Gateway) -> list[int]:
    """Return the process ids of the workers, the children of `serve`; fails where one has died meanwhile."""
    assert gateway.process is not None
    parent = gateway.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(children) >= gateway.workers, children
    return [int(child) for child in children]


def resident(gateway: Gateway) -> int:
    """Return the octets of memory that the workers hold now."""
    return sum(_kibibytes(pid, "VmRSS") for pid in workers_of(gateway)) * 1024


def _kibibytes(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1])
