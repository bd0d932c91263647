"""Enters what a fault test found into the bench's report, where `make torture` runs it at its full size."""

from __future__ import annotations

import os

from bench import torture
from bench.torture import Finding

__all__ = ["Finding", "enter"]


def enter(finding: Finding) -> None:
    """Keep a finding if this is torture; say it before judging it."""
    if os.environ.get("ASSENT_TORTURE"):
        torture.enter(finding)
