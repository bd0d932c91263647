"""Group commit: one transaction for all callers who wait, one process at a time.

The rule that must not be broken: a caller hears of success only after COMMIT has returned, which with
`synchronous=FULL` means after the write-ahead log was fsynced. The statements run on the event loop's
thread, where they cost microseconds; only what may wait, for our turn or for the disk, runs in a thread, so
that no statement queues for the interpreter's lock. Processes take turns before they begin (`turn`), since
SQLite's own waiting is a sleep.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from pysqlite3 import dbapi2 as sqlite

from gateway.consent import EventType
from gateway.errors import ConfigError, StoreFull, StoreUnavailable
from gateway.model import Scope
from gateway.store import disk
from gateway.store.turn import Turn

T = TypeVar("T")
Connection = Any  # pysqlite3 brings no types

for _kind, _plain in ((bytes, bytes), (type(None), lambda none: none), (EventType, str), (Scope, str)):
    sqlite.register_adapter(_kind, _plain)
"""Of a value of a kind that is not registered the driver first finds out, for a microsecond, that nobody adapts it."""

OLDEST_SQLITE = (3, 51, 3)
"""Before this version two connections that write and checkpoint at one instant can lose commits (WAL-reset bug)."""

LOG_OCTETS = 32 * 1024 * 1024
"""Octets of write-ahead log from which it is begun anew, at the cost of a moment in which nobody writes."""

CACHE_KIB = 4096
"""Of pages, for each connection: a process has half a dozen, and what they leave to the system is shared by all."""

BUSY_SECONDS = 10
PATIENCE_SECONDS = 15
"""How long a caller waits for the lock before it hears `StoreUnavailable` (451 at the door)."""


def connect(path: Path, *, read_only: bool = False, create: bool = False, patience: float | None = None) -> Connection:
    """Open a database of ours with the settings that its promises rest on; raises `ConfigError`, `StoreUnavailable`.

    Without `create`, a file that is not there is `StoreUnavailable` and stays so: an empty store knows no "no". Whoever
    reads on an event loop has no `patience` (seconds) with a file that is locked.
    """
    if sqlite.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigError(
            [f"SQLite {sqlite.sqlite_version} can lose commits; install a pysqlite3 with SQLite {wanted} or newer"]
        )
    try:
        if create:
            os.close(disk.open_private(path, os.O_RDWR | os.O_CREAT))
        connection = sqlite.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS if patience is None else patience,
        )
        for pragma in (
            *("synchronous=FULL", "secure_delete=ON", "wal_autocheckpoint=0", f"cache_size=-{CACHE_KIB}"),
            f"journal_size_limit={LOG_OCTETS}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
    except (sqlite.Error, OSError) as error:
        raise StoreUnavailable(f"{path.name} cannot be opened: {error}") from error
    return connection


def identity_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from any other that may come to have its name; raises `StoreUnavailable` for none."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise StoreUnavailable(f"{path.name} has gone: {error.strerror}") from error
    return found.st_dev, found.st_ino


def log_octets(path: Path) -> int:
    """Return how large the write-ahead log of a database is."""
    try:
        return os.stat(f"{path}-wal").st_size
    except OSError:
        return 0


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what SQLite raises while it reads into `StoreUnavailable`."""
    try:
        yield
    except sqlite.Error as error:
        raise StoreUnavailable(f"{path.name} cannot be read: {error}") from error


class Frame(Protocol):
    """What is done once for all the work of a transaction, however often that is run."""

    def begin(self) -> None: ...
    def end(self, connection: Connection) -> None: ...


class Writer:
    """The only way in which one process writes to one database file."""

    def __init__(self, path: Path, frame: Frame | None = None) -> None:
        self._path = path
        self._frame = frame
        self._connection: Connection = None
        self._identity = (0, 0)
        self._turn = Turn(path)
        self._thread = ThreadPoolExecutor(1, f"commit-{path.stem}")
        with suppress(StoreUnavailable):
            self._open()
        self._waiting: list[_Job[Any]] = []
        self._running: asyncio.Task[None] | None = None

    async def do(self, work: Callable[[Connection], T]) -> T:
        """Run `work` inside a transaction and return its result once that has been committed.

        `work` may be run twice: if another caller's work fails, the group is rolled back and each is run by itself.
        """
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._running is None:
            self._running = asyncio.create_task(self._commit_while_wanted())
        result: T = await job.future
        return result

    async def close(self) -> None:
        """Commit what is waiting, then close the file."""
        while self._running:
            await asyncio.wait([self._running])
        self._thread.shutdown()
        self._close()
        self._turn.close()

    async def _commit_while_wanted(self) -> None:
        try:
            while self._waiting:
                await self._commit_group()
        except BaseException as error:
            self._fail_waiting(error)
            raise
        finally:
            self._running = None

    async def _commit_group(self) -> None:
        try:
            await self._take_turn()
        except _FAILURES as error:
            self._fail_waiting(error)
            return
        group, self._waiting = [job for job in self._waiting if not job.future.done()], []
        if not await self._transact(group):
            for job in group:
                await self._transact_alone(job)

    async def _transact_alone(self, job: _Job[Any]) -> None:
        try:
            await self._take_turn()
        except _FAILURES as error:
            _refuse([job], self._path, error)
        else:
            await self._transact([job])

    async def _transact(self, group: list[_Job[Any]]) -> bool:
        """Run and commit a group, whose turn it is; False where its members should be tried one by one.

        The turn is given away in the thread that commits, so that no other process waits for this one's event loop.
        """
        try:
            failed = self._run(group)
            if failed:
                self._roll_back()
                if len(group) == 1:
                    _fail(group, failed)
                return len(group) == 1
            await self._in_thread(self._commit)
        except _FAILURES as error:
            self._let_go()
            _refuse(group, self._path, error)
        for job in group:
            if not job.future.done():
                job.future.set_result(job.result)
        return True

    def _run(self, group: list[_Job[Any]]) -> Exception | None:
        """Do the work of a group; return what one of them raised. Raises what concerns the database itself."""
        if self._frame:
            self._frame.begin()
        for job in group:
            try:
                job.result = job.work(self._connection)
            except Exception as error:
                if _is_the_databases(error):
                    raise
                return error
        if self._frame:
            self._frame.end(self._connection)
        return None

    def _commit(self) -> None:
        connection: Connection = self._connection
        connection.execute("COMMIT")
        self._turn.give()

    def _roll_back(self) -> None:
        connection: Connection = self._connection
        connection.execute("ROLLBACK")
        self._turn.give()

    async def _take_turn(self) -> None:
        """Begin a transaction when our turn has come; whoever has waited too long for it hears so."""
        turn = asyncio.ensure_future(self._in_thread(self._wait_and_begin))
        while not (await asyncio.wait([turn], timeout=PATIENCE_SECONDS))[0]:
            self._fail_waiting(TimeoutError("another process holds the database"))
        turn.result()

    def _wait_and_begin(self) -> None:
        self._turn.take()
        try:
            self._open()
            self._begin()
        except BaseException:
            self._let_go()
            raise

    def _open(self) -> None:
        """See that the connection is one to the file that has the name now: nothing is committed to one that went."""
        identity = identity_of(self._path)
        if self._connection and identity != self._identity:
            self._close()
        if not self._connection:
            self._connection, self._identity = connect(self._path), identity

    def _begin(self) -> None:
        connection: Connection = self._connection
        connection.execute("BEGIN IMMEDIATE")

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _fail_waiting(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, []
        _refuse(waiting, self._path, error)

    def _let_go(self) -> None:
        """Close the connection, which rolls back, and end our turn. None is trusted after a failure."""
        self._close()
        self._turn.give()

    def _close(self) -> None:
        broken, self._connection = self._connection, None
        if broken:
            with suppress(sqlite.Error):
                broken.close()


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Connection], T]
    future: asyncio.Future[T]
    result: Any = None


_SQLITE_IOERR, _SQLITE_FULL = 10, 13
_NO_LIMIT = resource.RLIM_INFINITY
_FAILURES = (sqlite.Error, OSError, StoreUnavailable)


def _is_the_databases(error: Exception) -> bool:
    """True where the file or the disk failed (full, broken, malformed), not the statement."""
    return isinstance(error, sqlite.OperationalError) or type(error) is sqlite.DatabaseError


def _refuse(jobs: list[_Job[Any]], path: Path, error: BaseException) -> None:
    _fail(jobs, unavailable(path.name, error))


def unavailable(what: str, error: BaseException) -> StoreUnavailable:
    """Return what an error means to whoever asked; `StoreFull` where there was no room for it."""
    return (StoreFull if _is_out_of_room(error) else StoreUnavailable)(f"{what}: {error}")


def _is_out_of_room(error: BaseException) -> bool:
    """True where the disk, a quota or a limit on a file's size took no more; the last SQLite does not tell apart."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    code = getattr(error, "sqlite_errorcode", 0)
    return code == _SQLITE_FULL or (code == _SQLITE_IOERR and resource.getrlimit(resource.RLIMIT_FSIZE)[0] != _NO_LIMIT)


def _fail(jobs: list[_Job[Any]], error: Exception) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)
