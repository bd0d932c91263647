"""Commands that root types where the service is somebody else: all that they leave behind is the service's."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually

SERVICE = 65534
"""The account of the service: any that is not root's."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for somebody else")


def everything_in(folder: Path) -> Iterator[Path]:
    return (path for path in (folder, *folder.rglob("*")) if not path.is_symlink())


def give(folder: Path) -> None:
    for path in everything_in(folder):
        os.chown(path, SERVICE, SERVICE)


def foreign_to_the_service(folder: Path) -> list[str]:
    found = [path for path in everything_in(folder) if path.stat().st_uid != SERVICE]
    return [str(path.relative_to(folder)) for path in found]


@pytest.fixture
def house(make_gateway: MakeGateway) -> Gateway:
    """An installation that belongs to the service, not started."""
    house = make_gateway()
    give(house.folder)
    return house


def test_a_command_of_roots_leaves_nothing_that_the_service_cannot_open(house: Gateway) -> None:
    house.opt_in("ann@example.net")
    house.add_login("crm", "billing")
    house.run("suppressions", "add", "bob@example.net", "--scope", "all-marketing", "--reason", "objected")
    house.run("dkim", "new", "example.com", "--selector", "later")
    house.run("backup", "backup.tar.gz")
    house.run("purge")
    assert foreign_to_the_service(house.folder) == []


def test_what_root_brings_back_is_the_services(house: Gateway) -> None:
    house.run("backup", "backup.tar.gz")
    told = house.json("restore", "backup.tar.gz", "--replace")
    assert Path(told["aside"]).is_dir()
    assert foreign_to_the_service(house.folder) == []


def test_what_root_makes_for_the_service_is_the_services(house: Gateway, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    give(fresh)
    made = [*house.command()[:-2], "--config", str(fresh / "config.toml"), "init"]
    subprocess.run(made, cwd=fresh, check=True, capture_output=True, timeout=60)
    assert (fresh / "var" / "assent.db").exists()
    assert foreign_to_the_service(fresh) == []


def test_a_command_that_was_killed_leaves_no_lease_that_the_service_cannot_look_at(house: Gateway) -> None:
    var = house.folder / "var"
    with (var / "assent.db.lock").open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        waiting = subprocess.Popen(house.command("streams", "pause", "newsletter", "--why", "a test"), cwd=house.folder)
        eventually(lambda: any((var / "leases").glob("operator-*")))
        waiting.kill()
        waiting.wait(10)
    assert any((var / "leases").glob("operator-*"))
    assert foreign_to_the_service(var) == []


def test_a_link_in_the_folder_hands_over_nothing_of_roots(house: Gateway) -> None:
    target = house.folder / "roots.txt"
    target.write_text("root's own\n")
    lock = house.folder / "var" / "assent.db.lock"
    lock.unlink()
    lock.symlink_to(target)
    house.opt_in("ann@example.net")
    assert target.stat().st_uid == 0
