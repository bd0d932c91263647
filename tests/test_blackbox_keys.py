"""Keys of links from outside: a ring that grows, and links that no key of ours made."""

from __future__ import annotations

import base64
import os
import secrets
import signal
from pathlib import Path

import pytest

from tests.gateway_under_test import Gateway, eventually, newsletter, token_of
from tests.sink import Sink


def copy_for(house: Gateway, sink: Sink, reader: str) -> bytes:
    house.opt_in(reader)
    sink.clear()
    assert house.submit(newsletter(reader), [reader])[""][0] == 250
    return sink.wait_for(1)[0].content


def key_of(token: str) -> int:
    """Return the id of the key that signed a token: its first octet."""
    octets = base64.urlsafe_b64decode(token.partition(".")[0] + "==")
    return octets[0]


def claimed_for(token: str, key: int) -> str:
    """Return a token that names another key, its signature left as it was."""
    body, _, signature = token.partition(".")
    octets = bytes([key]) + base64.urlsafe_b64decode(body + "==")[1:]
    return f"{base64.urlsafe_b64encode(octets).rstrip(b'=').decode()}.{signature}"


@pytest.mark.req("WEB-16")
@pytest.mark.req("UNS-26")
def test_a_new_key_signs_and_the_links_of_every_older_one_still_unsubscribe(sink: Sink, tmp_path: Path) -> None:
    house = Gateway(tmp_path / "house", sink.url).prepare()
    ring = house.folder / "var" / "keys" / "tokens.keys"
    readers = [f"reader{number}@example.org" for number in range(1, 4)]
    links = {}
    try:
        for number, reader in enumerate(readers, 1):
            if number > 1:
                with ring.open("a") as lines:
                    lines.write(f"{number} {secrets.token_hex(32)}\n")
            house.start()
            links[reader] = token_of(copy_for(house, sink, reader))
            assert key_of(links[reader]) == number, "the newest key signs"
            house.stop()
        house.start()
        for key in (2, 4, 255):
            forged = claimed_for(links[readers[0]], key)
            assert house.get(f"/u/{forged}").status == house.one_click(forged).status == 404
        assert house.run("suppressions", "check", readers[0], check=False).returncode == 1
        for reader, token in links.items():
            assert house.get(f"/u/{token}").status == 200
            assert house.one_click(token).status == 200
            assert house.run("suppressions", "check", reader, check=False).returncode == 0
    finally:
        house.close()


@pytest.mark.req("SUP-10", "WEB-16")
def test_keys_that_are_added_beside_the_program_change_nothing_before_its_next_start(
    sink: Sink, tmp_path: Path
) -> None:
    house = Gateway(tmp_path / "house", sink.url, workers=2).prepare()
    people = ["added@example.net", "clicks@example.net"]
    try:
        house.start()
        for name in ("addresses", "tokens"):
            with (house.folder / "var" / "keys" / f"{name}.keys").open("a") as lines:
                lines.write(f"2 {secrets.token_hex(32)}\n")
        waiting = "key 2 of tokens.keys is not in force, key 1 is: restart while no other command is at work"
        assert {"alarm": waiting, "command": "assent check"} in house.json("status")["alarms"]
        assert {"state": "warning", "what": "key in force", "told": waiting} in house.json("check")
        os.kill(house.process.pid, signal.SIGHUP)
        eventually(lambda: waiting in house.log.read_text())
        house.opt_in(*people)
        house.run("suppressions", "add", people[0], "--scope", "all-marketing", "--reason", "objected")
        (reply,) = house.submit(newsletter(people[0]), [people[0]]).values()
        assert reply[0] == 550 and "objected" in reply[1], "who is added by a command is found by the program"
        workers = house.children()
        for one in workers:
            os.kill(one, signal.SIGKILL)
        eventually(lambda: len(house.children()) == len(workers) and not set(house.children()) & set(workers))
        eventually(house.is_ready)
        token = token_of(copy_for(house, sink, people[1]))
        assert key_of(token) == 1, "a worker that is restarted makes links that all of its crew know"
        house.stop()
        house.start()
        assert house.one_click(token).status == 200
        assert key_of(token_of(copy_for(house, sink, "later@example.net"))) == 2
        assert not [one for one in house.json("check") if one["what"] == "key in force"]
        for one in people:
            (reply,) = house.submit(newsletter(one), [one]).values()
            assert reply[0] == 550, "no objection is lost by the new key"
    finally:
        house.close()


def test_a_damaged_note_of_the_keys_in_force_is_named_with_its_remedy(sink: Sink, tmp_path: Path) -> None:
    house = Gateway(tmp_path / "house", sink.url).prepare()
    note = house.folder / "var" / "keys-in-force"
    note.write_text("not a note\n")
    done = house.run("status", check=False)
    assert done.returncode == 78 and f"{note}: not `RING ID` a line; delete it" in done.stderr
    note.unlink()
    house.run("migrate")
    assert note.read_text() == "addresses.keys 1\ntokens.keys 1\n"
