"""The supervisor, as a process of its own: who falls is raised, who is told to leave leaves, nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Two workers a crew; each writes its name and process id, then waits for SIGTERM or for the supervisor's end.
_PROGRAM = """
import itertools, os, select, signal, sys
from pathlib import Path
from gateway import supervisor
from gateway.supervisor import Crew, Supervisor

folder, drain, stubborn = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "stubborn"
supervisor.DRAIN_SECONDS, supervisor._RESTART_PAUSE = drain, 0.0
crews = itertools.count(1)

def main(name):
    def run(pipe):
        leave, told = os.pipe()
        if stubborn and name == "1a":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, lambda *_: os.write(told, b"."))
        scratch = folder / f".{os.getpid()}"
        scratch.touch()
        scratch.rename(folder / f"{name}-{os.getpid()}")
        select.select([leave, pipe], [], [])
        (folder / f"{name}-{os.getpid()}").unlink()
        return 0
    return run

def crew():
    number = next(crews)
    return Crew({name: main(name) for name in (f"{number}a", f"{number}b")})

sys.exit(Supervisor(crew(), lambda: None if (folder / "keep").exists() else crew()).run())
"""


class Running:
    """A supervisor with its workers, seen through the files that they write."""

    def __init__(self, folder: Path, drain: float, mode: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(folder), str(drain), mode], cwd=ROOT)

    def workers(self) -> dict[int, str]:
        named = [path.name.partition("-") for path in self.folder.glob("[0-9]*-*")]
        return {int(pid): name for name, _, pid in named if _lives(int(pid))}

    def names(self) -> list[str]:
        return sorted(self.workers().values())

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.workers()
            time.sleep(0.02)

    def pid(self, name: str) -> int:
        return next(pid for pid, one in self.workers().items() if one == name)

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        self.tell(signal.SIGTERM)
        return self.process.wait(20)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(drain: float = 20, mode: str = "obedient") -> Running:
        started.append(Running(tmp_path, drain, mode))
        started[0].until(lambda: started[0].names() == ["1a", "1b"])
        return started[0]

    yield begin
    for one in started:
        for pid in (one.process.pid, *one.workers()):
            if _lives(pid):
                os.kill(pid, signal.SIGKILL)
        one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everybody_leaves_when_told(start: Callable[..., Running], number: signal.Signals) -> None:
    running = start()
    running.tell(number)
    assert running.process.wait(20) == 0
    assert running.names() == []


def test_whoever_falls_is_raised(start: Callable[..., Running]) -> None:
    running = start()
    fallen = running.pid("1a")
    os.kill(fallen, signal.SIGKILL)
    running.until(lambda: running.names() == ["1a", "1b"] and fallen not in running.workers())
    assert running.end() == 0
    assert running.names() == []


def test_workers_end_with_their_supervisor_however_it_ends(start: Callable[..., Running]) -> None:
    running = start()
    running.tell(signal.SIGKILL)
    running.process.wait(20)
    running.until(lambda: running.names() == [])


def test_a_reload_changes_the_crew_and_another_one_changes_it_again(start: Callable[..., Running]) -> None:
    running = start()
    running.tell(signal.SIGHUP)
    running.until(lambda: running.names() == ["2a", "2b"])
    running.tell(signal.SIGHUP)
    running.until(lambda: running.names() == ["3a", "3b"])
    assert running.end() == 0
    assert running.names() == []


def test_a_reload_that_fails_keeps_the_crew(start: Callable[..., Running]) -> None:
    running = start()
    before = running.workers()
    (running.folder / "keep").touch()
    running.tell(signal.SIGHUP)
    fallen = running.pid("1b")
    os.kill(fallen, signal.SIGKILL)
    running.until(lambda: running.names() == ["1a", "1b"] and fallen not in running.workers())
    assert set(before) - set(running.workers()) == {fallen}
    assert running.end() == 0


def test_a_worker_that_falls_while_the_crew_before_it_is_leaving_is_raised(start: Callable[..., Running]) -> None:
    running = start(mode="stubborn")
    running.tell(signal.SIGHUP)
    running.until(lambda: running.names() == ["1a", "2a", "2b"])
    fallen = running.pid("2a")
    os.kill(fallen, signal.SIGKILL)
    running.until(lambda: running.names() == ["1a", "2a", "2b"] and fallen not in running.workers())
    os.kill(running.pid("1a"), signal.SIGKILL)
    running.until(lambda: running.names() == ["2a", "2b"])
    assert running.end() == 0


def test_whoever_does_not_leave_is_killed_and_the_exit_status_tells(start: Callable[..., Running]) -> None:
    running = start(drain=0.3, mode="stubborn")
    assert running.end() == 1
    running.until(lambda: running.names() == [])


def test_being_told_to_stop_during_a_reload_stops_everybody(start: Callable[..., Running]) -> None:
    running = start(drain=1, mode="stubborn")
    running.tell(signal.SIGHUP)
    running.until(lambda: running.names() == ["1a", "2a", "2b"])
    assert running.end() == 1
    running.until(lambda: running.names() == [])
