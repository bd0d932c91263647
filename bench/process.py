"""Programs that the bench starts: free ports, waiting until they answer, and stopping what was started.

The one rule: only processes of our own are ever signalled, and each is gone when its `stop` returns.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO

PATIENCE = 30.0


class Unavailable(Exception):
    """A peer cannot be measured here; the text says why and stands in the table."""


class PassFailed(Exception):
    """A pass did not come out as it must, so there is no figure; the text says what happened."""


def say(text: str) -> None:
    """Tell whoever waits what is being done."""
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of an installed program; raises `Unavailable` if there is none."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


def run(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; raises `PassFailed` with its last words."""
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise PassFailed(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stdout[-800:].strip()}")
    return done.stdout


def greets(port: int) -> bool:
    """True where somebody accepts on a loopback port and says something first, as SMTP servers do."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
            return bool(probe.recv(64))
    except OSError:
        return False


def accepts(port: int) -> bool:
    """True where somebody accepts on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_ready: Callable[[], bool], what: str) -> None:
    """Return once it is so; raises `PassFailed` after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        if time.monotonic() > deadline:
            raise PassFailed(f"{what} is not ready after {PATIENCE:g} seconds")
        time.sleep(0.05)


class Daemon:
    """One program in a process group of its own; what it prints goes to a file or, for `output=PIPE`, to `printed`."""

    def __init__(self, command: Sequence[str], output: Path | int, *, cwd: Path | None = None) -> None:
        self._log = output if isinstance(output, Path) else None
        with ExitStack() as stack:
            to = output if isinstance(output, int) else stack.enter_context(output.open("ab"))
            self._process = subprocess.Popen(
                command, cwd=cwd, stdout=to, stderr=None if to == PIPE else to, stdin=DEVNULL, start_new_session=True
            )
        atexit.register(self.stop)  # an interrupted bench leaves nothing behind

    @property
    def printed(self) -> IO[bytes]:
        """The pipe that the program prints to."""
        assert self._process.stdout is not None
        return self._process.stdout

    def wait_until(self, is_ready: Callable[[], bool], what: str) -> None:
        """As the function, with the program's last words in the error."""
        try:
            wait_until(is_ready, what)
        except PassFailed as error:
            words = self._log.read_text(errors="replace")[-800:].strip() if self._log else ""
            raise PassFailed(f"{error}: {words}") from None

    def memory(self) -> int:
        """Octets that the processes of its session hold (PSS: what several share counts once)."""
        return sum(map(_proportional_memory, _processes_of_session(self._process.pid)))

    def stop(self) -> None:
        """Ask the program to end, wait up to ten seconds, and end whatever is left of its group."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        atexit.unregister(self.stop)


def _processes_of_session(session: int) -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _session_of(one) == session]


def _session_of(process: Path) -> int:
    with suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    return 0


def _proportional_memory(pid: int) -> int:
    with suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return 0
