"""Bind the sockets, start one process a core, restart the fallen, reload all or none.

The supervisor holds nothing but sockets and process ids: it opens no database and serves nobody, so there is
nothing in it that could fail with the work. Workers inherit the sockets, and end when the supervisor ends, however it
ends, because they watch a pipe whose other end only it holds.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

BACKLOG = 1024
DRAIN_SECONDS = 30
_RESTART_PAUSE = 1.0
_MOMENT, _LONG = 0.1, 3600.0

Main = Callable[[int], int]
"""What a child process runs; it is given the read end of the pipe to watch, and returns its exit status."""


@dataclass(slots=True)
class Crew:
    """The processes of one configuration: a name for each, and what it runs."""

    mains: Mapping[str, Main]
    pids: dict[int, str] = field(default_factory=dict)


def bind(addresses: Sequence[tuple[str, int]], ipv4_ports: Collection[int] = ()) -> list[socket.socket]:
    """Return listening sockets that children inherit; raises `OSError` naming the address.

    One of IPv6 takes IPv4 as well, where the system has it so, but at none of the `ipv4_ports`, which have sockets of
    their own.
    """
    return [_bind(host, port, port in ipv4_ports) for host, port in addresses]


def _bind(host: str, port: int, is_apart: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_apart and family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        why = f"{os.strerror(error.errno or 0)}; free it, or choose another address in the configuration"
        raise OSError(error.errno, f"{host}:{port} cannot be listened on: {why}") from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


class Supervisor:
    """Keeps a crew running until it is told to stop; `reload` returns the next crew, or None to keep this one."""

    def __init__(self, crew: Crew, reload: Callable[[], Crew | None]) -> None:
        self._crew = crew
        self._reload = reload
        self._leaving: dict[int, float] = {}
        self._watched, self._held = os.pipe()

    def run(self) -> int:
        """Start everyone and stay until SIGTERM or SIGINT; return the exit status: 1 if anyone had to be killed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._start(self._crew)
        while (received := self._next_signal()) not in (signal.SIGTERM, signal.SIGINT):
            if received == signal.SIGHUP:
                self._change_crew()
            self._raise_the_fallen()
            self._kill_the_late()
        return self._stop()

    def _next_signal(self) -> int | None:
        """Wait for a signal; while somebody is leaving, no longer than a moment."""
        received = signal.sigtimedwait(_SIGNALS, _MOMENT if self._leaving else _LONG)
        return received.si_signo if received else None

    def _start(self, crew: Crew) -> None:
        for name in crew.mains:
            self._fork(crew, name)

    def _fork(self, crew: Crew, name: str) -> None:
        pid = os.fork()
        if pid:
            crew.pids[pid] = name
            return
        status = 1
        try:
            os.close(self._held)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = crew.mains[name](self._watched)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            log.exception("%s ended unforeseen", name)
        finally:
            os._exit(status)

    def _raise_the_fallen(self) -> None:
        """Start again whoever of the crew has ended; whoever was told to leave is only seen off."""
        for pid, status in _ended_children():
            self._leaving.pop(pid, None)
            name = self._crew.pids.pop(pid, None)
            if name is not None:
                log.error("%s (process %d) ended with status %d; it is started again", name, pid, status)
                time.sleep(_RESTART_PAUSE)
                self._fork(self._crew, name)

    def _change_crew(self) -> None:
        """Start the next crew beside this one, then let this one finish: no connection meets a closed door."""
        following = self._reload()
        if following is None:
            return
        leaving, self._crew = self._crew, following
        self._start(following)
        self._dismiss(leaving)

    def _dismiss(self, crew: Crew) -> None:
        """Tell a crew to finish what it is at, within `DRAIN_SECONDS`."""
        for pid in crew.pids:
            os.kill(pid, signal.SIGTERM)
            self._leaving[pid] = time.monotonic() + DRAIN_SECONDS

    def _kill_the_late(self) -> int:
        """Kill whoever was told to leave and has not; return how many that were."""
        late = [pid for pid, deadline in self._leaving.items() if time.monotonic() >= deadline]
        for pid in late:
            os.kill(pid, signal.SIGKILL)
            del self._leaving[pid]
        return len(late)

    def _stop(self) -> int:
        leaving, self._crew = self._crew, Crew({})
        self._dismiss(leaving)
        killed = 0
        while self._leaving:
            self._next_signal()
            self._raise_the_fallen()
            killed += self._kill_the_late()
        return 1 if killed else 0


_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def _ended_children() -> list[tuple[int, int]]:
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))
