"""Who is alive: a worker holds a lock on its lease file for as long as its process lives.

No clock takes part: the kernel lets go of the lock when the process ends, however it ends, so a killed worker's
mail is taken over at once, and a slow worker's never.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Leases:
    """This process's own lease, and a look at everybody else's."""

    def __init__(self, folder: Path, owner: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.owner = owner
        self._descriptor = os.open(folder / owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def dead(self) -> list[str]:
        """Return the owners whose process has ended and whose lease has not been cleared away."""
        return [path.name for path in self._folder.iterdir() if path.name != self.owner and _is_free(path)]

    def clear(self, owner: str) -> None:
        """Forget a dead owner, once nothing is in its name any more."""
        (self._folder / owner).unlink(missing_ok=True)

    def close(self) -> None:
        self.clear(self.owner)
        os.close(self._descriptor)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
