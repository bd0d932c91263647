"""Work that other processes do ahead of this one, so that several processors share it.

The rule that must not be broken: the other process ends when this one does, however that comes about, and what goes
wrong in it is raised here.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

_PIPE_OCTETS = 1 << 20
"""How far the other process gets ahead; as much as Linux lets anybody have."""

_NICE = 10
"""How far the other processes step back behind this one, and behind whoever answers people."""

_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class _End:
    """The last that comes through the pipe: all has been done, or this has gone wrong."""

    error: Exception | None = None


@contextmanager
def ahead(*makes: Callable[[], Iterable[T]]) -> Iterator[Iterator[T]]:
    """Have each of these yield in a process of its own, and yield here what they do, one of each in turn.

    The processes are forked now, and neither threads nor databases that are open survive that. Raises what one of them
    raises, and `ChildProcessError` where a process was ended from outside.
    """
    with ExitStack() as processes:
        streams = [processes.enter_context(_process(make)) for make in makes]
        yield (one for some in zip_longest(*streams, fillvalue=_NOTHING) for one in some if one is not _NOTHING)


@contextmanager
def _process(make: Callable[[], Iterable[T]]) -> Iterator[Iterator[T]]:
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    with suppress(OSError):  # without it all goes as well, only less far ahead
        fcntl.fcntl(sending.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_OCTETS)
    other = context.Process(target=_work, args=(make, receiving, sending), daemon=True)
    other.start()
    sending.close()
    try:
        yield _received(receiving)
    finally:
        receiving.close()
        other.terminate()
        other.join()


def _received(receiving: Connection) -> Iterator[T]:
    try:
        while not isinstance(found := receiving.recv(), _End):
            yield found
    except EOFError as error:
        raise ChildProcessError("the process that works ahead has been ended") from error
    if found.error:
        raise found.error


def _work(make: Callable[[], Iterable[T]], receiving: Connection, sending: Connection) -> None:
    """Send all there is, for as long as somebody takes it, who alone decides about interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    receiving.close()
    with suppress(BrokenPipeError):
        try:
            for one in make():
                sending.send(one)
            end = _End()
        except Exception as error:
            end = _End(error)
        sending.send(end)
