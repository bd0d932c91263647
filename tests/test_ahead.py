"""What another process does ahead comes here in order, so does what goes wrong there, and the process ends with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from gateway.errors import StoreUnavailable
from gateway.imports.ahead import ahead
from tests.gateway_under_test import eventually


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def octets_without_end() -> Iterator[bytes | int]:
    yield os.getpid()
    for _ in count():
        yield bytes(10_000)


def test_all_of_it_comes_in_order_and_from_another_process() -> None:
    with ahead(lambda: ((n, os.getpid()) for n in range(10_000))) as found:
        numbers, pids = zip(*found, strict=True)
    assert numbers == tuple(range(10_000))
    assert set(pids).isdisjoint({os.getpid()})


def test_what_goes_wrong_there_is_raised_here_after_what_came_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise StoreUnavailable("assent.db cannot be read")

    with ahead(broken) as found:
        assert next(found) == 1
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            next(found)


def test_it_is_no_end_of_the_work_that_the_other_process_is_killed() -> None:
    with ahead(octets_without_end) as found:
        os.kill(int(next(found)), signal.SIGKILL)
        with pytest.raises(ChildProcessError):
            list(found)


def test_it_ends_when_nobody_wants_more() -> None:
    with ahead(octets_without_end) as found:
        pid = int(next(found))
    assert not is_alive(pid)


def test_it_ends_when_this_process_is_killed() -> None:
    program = (
        "import sys; from gateway.imports.ahead import ahead; from tests.test_ahead import octets_without_end\n"
        "with ahead(octets_without_end) as found: print(next(found), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as running:
        assert running.stdout
        pid = int(running.stdout.readline())
        running.kill()
    eventually(lambda: not is_alive(pid))


def test_an_interrupt_is_for_this_process_alone() -> None:
    with ahead(octets_without_end) as found:
        pid = int(next(found))
        os.kill(pid, signal.SIGINT)
        assert len([next(found) for _ in range(500)]) == 500
        assert is_alive(pid)
