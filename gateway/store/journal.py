"""Opt-outs that the people store could not take: a file on this machine, synced before anybody hears of success.

The rule that must not be broken: what was appended stays until the people store has committed it, and the shared
condition says so before the append returns, so that nobody sends promotion past a "no" that only the journal knows.
A line that a crash left unfinished was never acknowledged, and is cut off.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.address import Address
from gateway.consent import EventType, NewEvent
from gateway.errors import Malformed
from gateway.ledger import canonical_json, timestamp
from gateway.model import Scope
from gateway.store import disk
from gateway.store.condition import Condition, Trouble
from gateway.store.writer import unavailable

log = logging.getLogger(__name__)

Record = Callable[[Sequence[NewEvent]], Awaitable[object]]

_BATCH = 256 * 1024
"""Octets of lines that are recorded in one transaction: some thousand opt-outs."""


class Journal:
    """The journal of one machine, for all of its processes; a lock on the file puts them in order."""

    def __init__(self, path: Path, condition: Condition) -> None:
        self._path = path
        self._drainer = path.with_name(path.name + ".drainer")
        self._condition = condition

    @property
    def is_empty(self) -> bool:
        """True where the people store knows everything; costs no system call."""
        return not self._condition[Trouble.JOURNAL]

    def make(self) -> None:
        """Make the file, so that its name is on disk before anything depends on it."""
        with _locked(self._path) as descriptor:
            self._condition.tell(Trouble.JOURNAL, _cut_torn_line(descriptor))
        disk.sync_folder(self._path.parent)

    def append(self, events: Sequence[NewEvent]) -> None:
        """Keep events; on return they are on disk. Raises `StoreUnavailable`, and then keeps nothing. Blocks."""
        lines = b"".join(canonical_json(_told(event)) + b"\n" for event in events)
        try:
            with _locked(self._path) as descriptor:
                size = _append(descriptor, lines)
                self._condition.tell(Trouble.JOURNAL, size)
        except OSError as error:
            raise unavailable(f"{self._path.name} cannot be written", error) from error

    async def drain(self, record: Record) -> int:
        """Record what waits, the oldest first, and return how many events that were; raises `StoreUnavailable`.

        Recording an opt-out twice says nothing new, so a crash between the commit and the end of this costs nothing.
        """
        if self.is_empty and not self._size():
            return 0
        with _opened(self._drainer) as descriptor:
            if not _elected(descriptor):
                return 0
            return await self._drain(record)

    async def _drain(self, record: Record) -> int:
        recorded = position = 0
        while not await asyncio.to_thread(self._forget, position):
            events, position = await asyncio.to_thread(self._read, position)
            if events:
                await record(events)
            recorded += len(events)
        return recorded

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _read(self, position: int) -> tuple[list[NewEvent], int]:
        """Return the next events, and where the ones after them begin."""
        with _locked(self._path) as descriptor:
            size = _cut_torn_line(descriptor)
            batch = os.pread(descriptor, _BATCH, position)
            if b"\n" not in batch:
                batch = os.pread(descriptor, size, position)
        whole = batch[: batch.rfind(b"\n") + 1]
        return list(_events(whole.splitlines())), position + len(whole)

    def _forget(self, position: int) -> bool:
        """Empty the journal, if everything in it lies before the position; False where more has come."""
        with _locked(self._path) as descriptor:
            if _cut_torn_line(descriptor) > position:
                return False
            os.ftruncate(descriptor, 0)
            os.fsync(descriptor)
            self._condition.tell(Trouble.JOURNAL, 0)
        return True


def _append(descriptor: int, lines: bytes) -> int:
    """Write lines at the end and see them on disk; return the new size. What failed leaves nothing behind."""
    end = _cut_torn_line(descriptor)
    try:
        if os.pwrite(descriptor, lines, end) < len(lines):
            raise OSError(errno.ENOSPC, "not everything was written")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    return end + len(lines)


def _cut_torn_line(descriptor: int) -> int:
    """Remove a last line that a crash left unfinished; return the size."""
    end = size = os.fstat(descriptor).st_size
    while end and os.pread(descriptor, 1, end - 1) != b"\n":
        end -= 1
    if end < size:
        os.ftruncate(descriptor, end)
    return end


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = disk.open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor


def _elected(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(event: NewEvent) -> dict[str, Any]:
    person = event.person
    return {
        "type": event.type,
        "person": person.hex() if isinstance(person, bytes) else None,
        "address": person.text if isinstance(person, Address) else None,
        "at": timestamp(event.at),
        "topic": event.topic,
        "scope": event.scope,
        "facts": dict(event.facts),
        "personal": dict(event.personal),
    }


def _events(lines: Sequence[bytes]) -> Iterator[NewEvent]:
    """Read lines back; one that is not ours is named in the log, and the others do not wait for it."""
    for line in lines:
        try:
            yield _event(json.loads(line))
        except (ValueError, KeyError, TypeError, Malformed) as error:
            log.error("a line of the journal cannot be read (%s); it is passed over", type(error).__name__)


def _event(told: dict[str, Any]) -> NewEvent:
    return NewEvent(
        type=EventType(told["type"]),
        person=Address.parse(told["address"]) if told["address"] else bytes.fromhex(told["person"]),
        at=datetime.fromisoformat(told["at"]),
        topic=told["topic"],
        scope=Scope(told["scope"]) if told["scope"] else None,
        facts=told["facts"],
        personal=told["personal"],
    )
