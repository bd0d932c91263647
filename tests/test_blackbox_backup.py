"""Backups from outside: made while mail flows, brought back without forgetting anybody's "no" (POL-23, R15)."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.crash.recording import can_record
from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice, newsletter, token_of, transact
from tests.sink import Sink

Someone = Callable[[], str]


def backed_up(house: Gateway, name: str = "backup.tar.gz") -> Path:
    file = house.folder / name
    house.run("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    return file


@pytest.mark.req("POL-23", "SUP-06")
def test_what_people_said_since_a_backup_is_not_forgotten(
    make_gateway: MakeGateway, sink: Sink, someone: Someone
) -> None:
    house = make_gateway(workers=2).start()
    stays, leaves, objects, forgotten, newcomer, new_reader = (someone() for _ in range(6))
    house.opt_in(stays, leaves, objects, forgotten)
    assert house.outcome(leaves) == "sent"
    old_link = token_of(sink.wait_for(1)[0].content)
    backup = backed_up(house)

    house.opt_in(newcomer, new_reader)
    assert house.outcome(newcomer) == house.outcome(new_reader) == "sent"
    newest = {one.recipients[0]: token_of(one.content) for one in sink.wait_for(3)}
    assert house.one_click(old_link).status == 200
    house.run("suppressions", "add", objects, "--scope", "all-marketing", "--reason", "objected")
    house.run("suppressions", "add", newcomer, "--scope", "all-marketing", "--reason", "complained")
    house.run("person", "erase", forgotten)
    house.stop()

    told = house.json("restore", str(backup), "--replace")
    assert told["later"] == 4 and told["paused"] == []
    shutil.rmtree(told["aside"])
    house.start()
    said = [house.outcome(one) for one in (stays, leaves, objects, forgotten, newcomer, new_reader)]
    assert said == ["sent", "unsubscribed", "objected", "erased", "complained", "no-consent"], "a yes since is lost"
    assert house.one_click(newest[new_reader]).status == 200, "a link that left since still works"
    assert house.outcome(new_reader) == "unsubscribed"
    assert house.run("ledger", "verify").returncode == 0
    house.stop()
    data = [one for one in (house.folder / "var").rglob("*") if one.is_file()]
    assert not [one for one in data if forgotten.encode() in one.read_bytes()]


@pytest.mark.req("POL-23")
def test_where_nothing_later_is_left_promotion_waits_for_the_operator(
    make_gateway: MakeGateway, sink: Sink, someone: Someone
) -> None:
    house = make_gateway().start()
    reader = someone()
    house.opt_in(reader)
    backup = backed_up(house)
    house.stop()
    for name in ("assent.db", "assent.db-wal", "assent.db-shm", "spool.db", "spool.db-wal", "spool.db-shm"):
        (house.folder / "var" / name).unlink(missing_ok=True)
    asked = house.run("restore", str(backup), check=False)
    assert asked.returncode == 2 and "would be forgotten" in asked.stderr
    house.run("restore", str(backup), "--nothing-later")
    house.start()
    with house.smtp("news") as client:
        client.mail("letters@news.example.com")
        code, text = client.rcpt(reader)
    assert (code, text.decode().split()[1]) == (451, "paused:")
    assert house.submit(invoice(reader), [reader], login="shop", sender="billing@example.com")[""][0] == 250
    house.run("streams", "release", "newsletter")
    assert house.outcome(reader) == "sent"


@pytest.mark.req("CON-16", "POL-12", "POL-23", "POL-32")
def test_what_operators_ordered_since_a_backup_stands(make_gateway: MakeGateway, someone: Someone) -> None:
    house = make_gateway()
    held, imported, old, new = (f"ordered-{someone()}" for _ in range(4))
    house.opt_in(held, old)
    house.run("person", "hold", held, "--why", "court order 4713")
    (house.folder / "list.csv").write_text(f"email,name,attributes,status\n{imported},Ann,{{}},enabled\n")
    house.run("consent", "import", "list.csv", "--topic", TOPIC)
    backup = backed_up(house)

    house.run("suppressions", "undo", "1")
    house.run("person", "release", held, "--why", "order lifted")
    house.run("person", "erase", held)
    house.run("person", "link", old, new)
    house.run("logins", "disable", "news")
    house.publish_policy("2026-2", "--reconsent", "DE")
    notice = ("--topic", TOPIC, "--text", "policy.txt", "--url", "https://example.com/join", "--control", "unticked")
    house.run("notices", "add", "later", *notice, "--from", "2026-01-01")
    shutil.rmtree(house.json("restore", str(backup), "--replace")["aside"])
    assert [one["name"] for one in house.json("notices", "list")] == ["later"]
    assert [one["version"] for one in house.json("policy", "list")] == ["2026-2"]
    assert [one["name"] for one in house.json("logins", "list") if one["disabled"]] == ["news"]
    undone = house.run("--json", "explain", imported, "--topic", TOPIC, check=False)
    assert json.loads(undone.stdout)["reason"] == "no-consent", "no more than unproven"
    assert held.encode() not in (house.folder / "var" / "assent.db").read_bytes()
    house.run("suppressions", "add", old, "--scope", "all-marketing", "--reason", "objected")
    assert house.json("suppressions", "check", new)[0]["reason"] == "objected"
    assert house.json("ledger", "verify")["problems"] == []


@pytest.mark.req("DSR-04", "POL-23")
def test_mail_that_waited_in_a_backup_is_held_and_that_for_who_was_erased_since_dropped(
    make_gateway: MakeGateway, sink: Sink, someone: Someone
) -> None:
    house = make_gateway().start()
    large = invoice() + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5000
    readers, forgotten = [someone() for _ in range(3)], f"Forgotten.{someone()}"
    sink.on("MAIL", "451 4.3.0 later")
    for reader in (*readers, forgotten):
        assert house.submit(large, [reader], login="shop", sender="billing@example.com")[""][0] == 250
    backup = backed_up(house)
    sink.normal()
    assert len(sink.wait_for(4)) == 4
    house.run("person", "erase", forgotten.lower())
    house.stop()
    sink.clear()
    told = house.json("restore", str(backup), "--replace")
    assert (told["held"], told["dropped"]) == (3, 1)
    shutil.rmtree(told["aside"])
    data = [one for one in (house.folder / "var").rglob("*") if one.is_file()]
    assert not [one for one in data if forgotten.encode() in one.read_bytes()]
    assert len(list((house.folder / "var" / "bodies").iterdir())) == 3
    house.start()
    assert {one["recipient"] for one in house.json("queue", "list")} == set(readers)
    assert not sink.messages
    house.run("queue", "release", "--stream", "billing")
    assert {one.recipients[0] for one in sink.wait_for(3)} == set(readers)


@pytest.mark.req("POL-23")
@pytest.mark.skipif(not can_record(), reason="strace is not installed, or may not trace (apt install strace)")
def test_a_restore_that_is_killed_leaves_a_store_or_none_that_starts(make_gateway: MakeGateway, tmp_path: Path) -> None:
    house = make_gateway()
    house.run("suppressions", "add", "out@example.org", "--scope", "all-marketing", "--reason", "objected")
    backup, var, before = backed_up(house), house.folder / "var", tmp_path / "before"
    shutil.copytree(var, before)
    outcomes = []
    while not outcomes or outcomes[-1] == -signal.SIGKILL:
        shutil.rmtree(var)
        shutil.copytree(before, var)
        kill = f"inject=/rename:signal=KILL:when={len(outcomes) + 1}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", kill]
        restore = house.command("restore", str(backup), "--replace")
        outcomes.append(subprocess.run([*command, *restore], cwd=house.folder, capture_output=True).returncode)
        started = house.run("migrate", check=False)
        if started.returncode == 0:
            assert "out@example.org" in house.run("suppressions", "list").stdout
        else:
            assert "assent.db has gone; bring it back, or restore a backup of it" in started.stderr
    assert outcomes[-1] == 0 and len(outcomes) > 4


def test_a_backup_is_made_under_load_and_is_whole(make_gateway: MakeGateway, sink: Sink, someone: Someone) -> None:
    house = make_gateway(workers=2).start()
    readers = [someone() for _ in range(60)]
    house.opt_in(*readers)
    with house.smtp("news") as client:
        for n, reader in enumerate(readers):
            transact(client, newsletter(reader), [reader], "letters@news.example.com")
            if n % 20 == 10:
                backed_up(house, f"backup-{n}.tar.gz")
    assert len(sink.wait_for(60)) == 60
    house.stop()
    for n in (10, 30, 50):
        house.run("restore", f"backup-{n}.tar.gz", "--replace")
        assert house.run("ledger", "verify").returncode == 0
    assert house.run("backup", "backup-10.tar.gz", check=False).returncode == 1, "a backup is never overwritten"


def flipped(octets: bytes) -> bytes:
    """Return a compressed file with one bit turned, where that matters: in a run of zeros it need not."""
    whole = gzip.decompress(octets)
    turned = (octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :] for at in range(len(octets) // 2, 0, -1))
    return next(one for one in turned if decompressed(one) != whole)


def decompressed(octets: bytes) -> bytes:
    try:
        return gzip.decompress(octets)
    except (OSError, EOFError, zlib.error):
        return b""


def unfinished(house: Gateway) -> set[str]:
    """Return what lies hidden in the data folder, and where backups are made."""
    return {one.name for folder in (house.folder, house.folder / "var") for one in folder.glob(".?*")}


def killed_while_it_packs(house: Gateway) -> None:
    """Kill a backup that has copied everything, and has begun to write the file."""
    body = house.folder / "var" / "bodies" / "large"
    body.write_bytes(os.urandom(40 * 1024 * 1024))  # which takes seconds to pack
    before = unfinished(house)
    process = subprocess.Popen(house.command("backup", "backup.tar.gz"), cwd=house.folder)
    eventually(lambda: len(unfinished(house) - before) == 2)
    process.kill()
    process.wait()
    body.unlink()
    assert len(unfinished(house) - before) == 2 and not (house.folder / "backup.tar.gz").exists()


@pytest.mark.req("DSR-04", "POL-22")
def test_what_a_killed_backup_left_is_in_nobodys_way_and_goes(make_gateway: MakeGateway, someone: Someone) -> None:
    house, reader = make_gateway(), someone()
    house.opt_in(reader)
    before = unfinished(house)
    killed_while_it_packs(house)
    assert house.run("person", "erase", reader, check=False).returncode == 0, (
        "a copy of the store is no trace that stays"
    )
    backed_up(house)
    assert unfinished(house) == before, "the next one takes the place of the one before"


def test_what_is_no_whole_backup_changes_nothing(make_gateway: MakeGateway) -> None:
    house = make_gateway()
    backup = backed_up(house)
    with tarfile.open(backup) as archive:
        assert not [name for name in archive.getnames() if "key" in name], "no keys in a backup"
        names = set(json.loads(archive.extractfile("manifest.json").read())["files"])  # type: ignore[union-attr]
    assert {"assent.db", "spool.db"} <= names
    before = (house.folder / "var" / "assent.db").stat().st_ino
    octets = backup.read_bytes()
    damaged = {
        "cut.tar.gz": octets[: len(octets) // 2],
        "empty.tar.gz": b"",
        "text.tar.gz": b"no backup at all",
        "flipped.tar.gz": flipped(octets),
    }
    for name, content in damaged.items():
        (house.folder / name).write_bytes(content)
        done = house.run("restore", name, "--replace", check=False)
        assert done.returncode == 1 and "Nothing was changed" in done.stdout, (name, done)
    assert (house.folder / "var" / "assent.db").stat().st_ino == before
    assert house.run("restore", backup.name, check=False).returncode == 1, "a store is there"
    house.start()
    assert house.run("restore", backup.name, "--replace", check=False).returncode == 1, "it is at work"
