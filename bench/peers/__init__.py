"""The peers, one class each: `prepare` once, then `start` and `stop` at each of its turns.

The one rule: a peer gets the settings with which it is fastest while it keeps its promise, and runs from a
folder and ports of its own, so that neither this machine's mail nor another peer is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.process import PassFailed, Unavailable, say

OURS = "assent"
"""Without this one there is nothing to compare."""


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


@dataclass(slots=True)
class Entrant:
    """A peer in a comparison, and why it is out of it, "" while it is not."""

    peer: Peer
    trouble: str = ""

    @contextmanager
    def at_risk(self, folder: Path) -> Iterator[None]:
        """Whoever fails here is out; the table says why, and its logs' last words are printed. We may not fail."""
        try:
            yield
        except (Unavailable, PassFailed, OSError) as error:
            self.trouble = " ".join(str(error).split())
            say(f"    {self.peer.title}: {self.trouble}")
            for log in folder.glob("*.log"):
                say(f"{log.name} ends:\n{log.read_text(errors='replace')[-3000:]}")
            if self.peer.name == OURS:
                raise PassFailed(f"Assent itself failed: {self.trouble}") from None
