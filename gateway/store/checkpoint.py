"""Moving a write-ahead log's content into its file, so that the log stays small.

The rule that must not be broken: nobody who writes waits for more than the moment in which the log is begun anew. Who
does it is settled elsewhere: the sealer for a store at work, an import for what it brings itself.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from gateway.store.turn import Turn
from gateway.store.writer import LOG_OCTETS, Connection, connect, log_octets


def checkpoint(path: Path) -> None:
    """Move what has been committed into the file, and begin the log anew if it has grown past `LOG_OCTETS`."""
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if log_octets(path) > LOG_OCTETS:
            _begin_log_anew(connection, path)


def _begin_log_anew(connection: Connection, path: Path) -> None:
    """Empty a log that writers who never pause keep from being emptied; a reader who stays in it is not waited for."""
    connection.execute("PRAGMA busy_timeout=0")
    turn = Turn(path)
    try:
        turn.take()
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
    finally:
        turn.give()
        turn.close()
