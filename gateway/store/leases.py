"""Who is alive: a worker holds a lock on its lease file for as long as its process lives.

No clock takes part: the kernel lets go of the lock when the process ends, however it ends, so a killed worker's
mail is taken over at once, and a slow worker's never. No owner comes twice, and a lease has its name only while or
after it is held: so an owner whose lease is not there is as dead as one whose lease is free.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from gateway.store import disk


class Leases:
    """This process's own lease, and a look at everybody else's."""

    def __init__(self, folder: Path, name: str) -> None:
        if not folder.exists():
            disk.make_folder(folder)
        self._folder = folder
        self.owner = f"{name}-{secrets.token_hex(4)}"
        unnamed = folder / f".{self.owner}"
        self._descriptor = disk.open_private(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(folder / self.owner)

    def dead(self, owners: Iterable[str]) -> list[str]:
        """Return those of `owners`, and of all who ever left a lease, whose process has ended."""
        known = {*owners, *(path.name for path in _leases(self._folder))}
        return [owner for owner in sorted(known - {self.owner}) if _is_free(self._folder / owner)]

    def clear(self, owner: str) -> None:
        """Forget a dead owner, once nothing is in its name any more."""
        (self._folder / owner).unlink(missing_ok=True)

    def close(self) -> None:
        self.clear(self.owner)
        os.close(self._descriptor)


def anyone_lives(folder: Path) -> bool:
    """True where some process has the store open now."""
    return any(not _is_free(path) for path in _leases(folder))


def _leases(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
