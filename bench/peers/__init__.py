"""The peers, one class each: `prepare` once, then `start` and `stop` at each of its turns.

The one rule: a peer gets the settings with which it is fastest while it keeps its promise, and runs from a
folder and ports of its own, so that neither this machine's mail nor another peer is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class Peer(Protocol):
    """Something between the load and the sink."""

    name: str
    """The word for `--only`."""
    title: str
    """The row of the table."""
    keeps: str
    """What its 250 promises: on disk, or not."""
    note: str
    """What a reader of the table must know."""
    port: int

    def prepare(self, folder: Path) -> None:
        """Write configuration and data into a fresh folder; raises `Unavailable` where it cannot run."""

    def version(self) -> str:
        """Name and version of the programs that run."""

    def start(self) -> None:
        """Return when it accepts mail."""

    def stop(self) -> None:
        """Return when nothing of it runs any more."""


@contextmanager
def running(peer: Peer) -> Iterator[None]:
    """Start a peer that was prepared, and stop it whatever happens."""
    peer.start()
    try:
        yield
    finally:
        peer.stop()
