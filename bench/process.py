"""Programs that the bench starts: free ports, waiting until they answer, and stopping what was started.

The one rule: only processes of our own are ever signalled, and each is gone when its `stop` returns.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 30.0


class Unavailable(Exception):
    """A peer cannot be measured here; the text says why and stands in the table."""


class PassFailed(Exception):
    """A pass did not come out as it must, so there is no figure; the text says what happened."""


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
    """One program in a process group of its own, its output in a log file."""

    def __init__(
        self, command: Sequence[str], log: Path, *, cwd: Path | None = None, env: dict[str, str] | None = None
    ):
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """As the function; on failure the program is stopped and its last words go into the error."""
        try:
            wait_until(is_ready, self._log.stem)
        except PassFailed as error:
            self.stop()
            raise PassFailed(f"{error}: {self._log.read_text(errors='replace')[-800:].strip()}") from None

    def stop(self) -> None:
        """Ask the program to end, and after ten seconds make its whole group end."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
