"""Keys of links from outside: a ring that grows, and links that no key of ours made."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest

from tests.gateway_under_test import Gateway, newsletter, token_of
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
