"""The ceiling: the load straight into the sink. No gateway can be faster than this on this machine."""

from __future__ import annotations

from pathlib import Path

from bench.workload import Workload


class Ceiling:
    """Nothing at all between `smtp-source` and `smtp-sink`."""

    name = "ceiling"
    title = "ceiling (no gateway)"
    keeps = "nothing"
    note = "smtp-source straight into smtp-sink: what load and sink themselves can do on this machine."

    def __init__(self, workload: Workload) -> None:
        self.port = workload.sink_port

    def prepare(self, folder: Path) -> None:
        """Nothing to prepare."""

    def version(self) -> str:
        """It has none: load and sink are Postfix's."""
        return ""

    def start(self) -> None:
        """The sink runs already."""

    def stop(self) -> None:
        """The sink is stopped by its owner."""
