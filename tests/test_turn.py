"""The lock that writers hand on: one at a time, in order, and nobody overtakes who waits."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from gateway.store.turn import Turn


def test_who_lets_go_cannot_overtake_who_waits(tmp_path: Path) -> None:
    """`flock` by itself lets the busy one in again and again; here the one that waits is next."""
    one, other = Turn(tmp_path / "a.db"), Turn(tmp_path / "a.db")
    order: list[str] = []
    one.take()
    waits = threading.Thread(target=lambda: (other.take(), order.append("other"), other.give()))
    waits.start()
    while not _is_taken(tmp_path / "a.db.door"):
        pass
    one.give()
    one.take()
    order.append("one")
    one.give()
    waits.join(10)
    assert order == ["other", "one"]
    one.close()
    other.close()


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        Turn(tmp_path / "a.db").take()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert not _is_taken(tmp_path / "a.db.lock")


def _is_taken(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
