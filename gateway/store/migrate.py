"""Bring a database file to the newest schema: by all the migrations that it lacks, or by none.

The rule that must not be broken: a file that holds anything is copied whole, beside itself, before the first statement
that changes it, and the migrations and the number that says that they have run are one transaction; so whatever ends
the process leaves the old schema or the new one, and the way back is a file. What the tables are is `schema`'s part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from pysqlite3 import dbapi2 as sqlite

from gateway.errors import ConfigError, StoreUnavailable
from gateway.store import disk
from gateway.store.writer import Connection, connect, reading


def migrate(path: Path, migrations: Sequence[str]) -> Path | None:
    """Bring one file up to date, making it if it is not there; return the copy of what it was, if one was made.

    Call it in one process, before the others open the file. Raises `ConfigError` for a file that a newer version has
    made, and `StoreUnavailable`, with nothing changed, where another process writes or the disk is full.
    """
    from sqlite_utils import Database  # here, because few processes make a file, and all would pay for it

    try:
        with closing(connect(path, create=True)) as connection:
            Database(connection).enable_wal()
            connection.execute("BEGIN IMMEDIATE")
            return _run(path, connection, migrations)
    except (sqlite.Error, OSError) as error:
        raise StoreUnavailable(f"{path.name} cannot be brought up to date: {error}") from error


def is_up_to_date(path: Path, migrations: Sequence[str]) -> bool:
    """True where a file is there and has the schema of this version, neither an older nor a newer one."""
    if not path.exists():
        return False
    with reading(path), closing(connect(path, read_only=True)) as connection:
        return _version(connection) == len(migrations)


def _run(path: Path, connection: Connection, migrations: Sequence[str]) -> Path | None:
    """Run what has not run, inside the transaction that has been begun, and commit."""
    version = _version(connection)
    if version > len(migrations):
        raise ConfigError([f"{path}: made by a newer version of Assent; install that one, or restore a backup"])
    due = migrations[version:]
    copy = _copy(path, version) if version and due else None
    for statement in (one for migration in due for one in _statements(migration)):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")
    return copy


def _version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _copy(path: Path, version: int) -> Path:
    """Copy a file that nobody else can write to now; a copy of the same schema made earlier is older, and replaced."""
    copy = path.with_name(f"{path.name}.schema-{version}")
    unnamed = copy.with_name(f".{copy.name}")
    unnamed.unlink(missing_ok=True)
    disk.write_new(unnamed, b"")
    with closing(connect(path, read_only=True)) as source, closing(connect(unnamed)) as target:
        source.backup(target)
    disk.rename(unnamed, copy)
    return copy


def _statements(script: str) -> Iterator[str]:
    """Yield a script's statements one by one: SQLite's own `executescript` would first commit what was begun."""
    begun = ""
    for piece in script.split(";"):
        begun += f"{piece};"
        if sqlite.complete_statement(begun):
            yield begun
            begun = ""
