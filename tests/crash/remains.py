"""What a crash left in a data folder: which copies wait, with which octets, and whether the files are whole.

The only place of these tests that knows the spool's tables. Looking opens the files, and thereby mends them; whoever
wants the crash to stay as it is looks into a copy.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from gateway.ids import spool_text
from gateway.store.sqlite import DataFolder
from gateway.store.writer import connect
from tests.crash.load import Pair, load_id_of


def waiting(house: DataFolder) -> dict[Pair, bytes]:
    """Return the copies that had not been written down as relayed, and the message of each."""
    with closing(connect(house.spool)) as connection:
        messages = dict(connection.execute("SELECT id, body FROM messages"))
        rows = connection.execute("SELECT message_id, address FROM recipients").fetchall()
    contents = {number: _content(house, number, body) for number, body in messages.items()}
    names = {number: load_id_of(content) for number, content in contents.items()}
    return {(names[number], address): contents[number] for number, address in rows}


def _content(house: DataFolder, number: int, body: bytes | None) -> bytes:
    return body if body is not None else (house.bodies / spool_text(number)).read_bytes()


def damage(house: DataFolder) -> list[str]:
    """Return what SQLite finds wrong with any of the files."""
    return [f"{path.name}: {line}" for path in house.root.rglob("*.db") for line in _check(path) if line != "ok"]


def _check(path: Path) -> list[str]:
    with closing(connect(path)) as connection:
        return [str(line) for (line,) in connection.execute("PRAGMA integrity_check")]
