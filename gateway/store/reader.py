"""Reading on the event loop's thread: look-ups that cost microseconds, and must never wait.

The rule that must not be broken: a file that is locked, or has gone, is `StoreUnavailable` at once, because whoever
waits here keeps every connection of the process waiting. A file that took the old one's name is opened in its place.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from time import monotonic

from pysqlite3 import dbapi2 as sqlite

from gateway.store.writer import Connection, connect, identity_of

LOOK_SECONDS = 1.0
"""How often it is looked whether the name still leads to the file that was opened."""


class Reader:
    """A connection for reading one file, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Connection = None
        self._identity = (0, 0)
        self._look_at = 0.0

    def connection(self) -> Connection:
        """Return a connection to the file that has the name now; raises `StoreUnavailable`. Ask each time."""
        now = monotonic()
        if now >= self._look_at:
            self._look()
            self._look_at = now + LOOK_SECONDS
        return self._connection

    def _look(self) -> None:
        self._look_at = 0.0
        identity = identity_of(self._path)
        if self._connection and identity == self._identity:
            return
        self.close()
        self._connection, self._identity = connect(self._path, read_only=True, patience=0), identity

    def close(self) -> None:
        gone, self._connection, self._look_at = self._connection, None, 0.0
        if gone:
            with suppress(sqlite.Error):
                gone.close()
