"""Kill an upgrade while it changes the files: each has the old schema or the new one, and both versions can go on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.schema import PEOPLE, SPOOL
from gateway.store.sqlite import DataFolder
from gateway.store.writer import connect
from tests.conftest import MakeGateway
from tests.crash.later_version import MORE_PEOPLE, MORE_SPOOL, TABLE
from tests.crash.remains import damage
from tests.gateway_under_test import Gateway, newsletter
from tests.sink import Sink
from tests.torture import Finding, enter

MIGRATIONS = int(os.environ.get("ASSENT_MIGRATIONS", "5"))
"""How many of them are killed."""

ROOT = Path(__file__).resolve().parents[2]
READER = "reader@example.org"
NEWER = 78
"""The exit status of a program that meets files of a newer version."""


class Upgrade:
    """One run of the later version's `assent migrate` on a folder of today's."""

    def __init__(self, gateway: Gateway) -> None:
        command = [sys.executable, "-m", "tests.crash.later_version", "--config", str(gateway.config), "migrate"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout
        assert self._process.stdout.readline() == b"now\n"

    def finish(self) -> float:
        """Return how many seconds it took."""
        began = time.monotonic()
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return time.monotonic() - began

    def kill(self, after: float) -> None:
        time.sleep(after)
        self._process.kill()
        self._process.communicate(timeout=60)


@pytest.fixture
def house(make_gateway: MakeGateway, sink: Sink) -> Gateway:
    """An installation of today with somebody in it and something in its queue."""
    gateway = make_gateway()
    gateway.opt_in(READER)
    sink.hold()
    gateway.start()
    assert gateway.submit(newsletter(READER), [READER])[""][0] == 250
    gateway.stop()
    return gateway


def files_of(folder: DataFolder) -> list[tuple[Path, int, int]]:
    """Return each file with the number of its schema today and later."""
    return [(folder.people, len(PEOPLE), len(MORE_PEOPLE)), (folder.spool, len(SPOOL), len(MORE_SPOOL))]


def versions_of(folder: DataFolder) -> list[str]:
    """Return whether each file is of today's version or of the later one; that there is no third is tested here."""
    found = []
    for path, today, later in files_of(folder):
        with closing(connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (TABLE,)).fetchall()
        assert (version, bool(tables)) in ((today, False), (later, True))
        found.append("later" if tables else "today")
    return found


def check_copies(folder: DataFolder) -> None:
    """A copy that has its name is whole, and is what the file was; one is there before its file changes."""
    for (path, today, _), version in zip(files_of(folder), versions_of(folder), strict=True):
        copy = path.with_name(f"{path.name}.schema-{today}")
        assert copy.exists() or version == "today"
        if copy.exists():
            with closing(connect(copy)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("PRAGMA user_version").fetchone() == (today,)


@pytest.mark.req("OPS-07")
def test_a_migration_that_is_killed_leaves_the_old_schema_or_the_new_one(
    house: Gateway, sink: Sink, tmp_path: Path
) -> None:
    pristine, var = tmp_path / "pristine", house.folder / "var"
    shutil.copytree(var, pristine)
    seconds = Upgrade(house).finish()
    folder, seen = DataFolder(var, var / "assent.db"), []
    for _ in range(MIGRATIONS):
        shutil.rmtree(var)
        shutil.copytree(pristine, var)
        Upgrade(house).kill(random.uniform(0, 1.1 * seconds))
        assert damage(folder) == []
        check_copies(folder)
        seen.append(versions_of(folder))
        status = house.run("migrate", check=False).returncode
        assert status == (NEWER if "later" in seen[-1] else 0)
    enter(Finding("`kill -9` while it migrates", f"{MIGRATIONS} kills", besides=_counted(seen)))
    Upgrade(house).finish()
    assert versions_of(folder) == ["later", "later"]
    go_back(folder)
    relays_what_was_queued(house, sink)


def _counted(seen: list[list[str]]) -> str:
    old, new = seen.count(["today", "today"]), seen.count(["later", "later"])
    return f"old schema {old} times, new {new} times, one file each {len(seen) - old - new} times; each went on"


def go_back(folder: DataFolder) -> None:
    """Put the copies back, as docs/operating.md says."""
    for path, today, _ in files_of(folder):
        path.with_name(f"{path.name}.schema-{today}").rename(path)
        for rest in ("-wal", "-shm"):
            path.with_name(f"{path.name}{rest}").unlink(missing_ok=True)


def relays_what_was_queued(gateway: Gateway, sink: Sink) -> None:
    sink.release()
    gateway.start()
    assert [one.recipients for one in sink.wait_for(1, 30)] == [(READER,)]
