"""Make a data folder as this version leaves one behind, for all later versions to prove themselves on.

    python -m tests.upgrades.make tests/upgrades/NAME.tar.xz

The program is installed anew, used as in life and killed, so that nothing is tidied up: mail waits, small and large,
for a smarthost that does not take it, with an opt-out that came after it; decisions wait to be sealed; leases of dead
workers lie about. What a later version must make of that is written into the archive, as story.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.gateway_under_test import Gateway, eventually, invoice, newsletter, token_of
from tests.sink import Sink

STAYS, LEFT, OBJECTS, STRANGER = (f"{name}@example.org" for name in ("stays", "left", "objects", "stranger"))
LARGE = 200 * 1024
_LINE = b"One more line of the invoice.\r\n"


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, Sink() as sink:
        gateway = Gateway(Path(scratch) / "house", sink.url, workers=2).prepare()
        try:
            story = _live(gateway, sink)
            gateway.kill()
        finally:
            gateway.close()
        (gateway.folder / "story.json").write_text(json.dumps(story, indent=1))
        with tarfile.open(archive, "w:xz") as packed:
            for name in ("var", "story.json"):
                packed.add(gateway.folder / name, name, filter=_impersonal)


def _live(gateway: Gateway, sink: Sink) -> dict[str, Any]:
    """Let people come and go; return what must still be so after an upgrade."""
    gateway.opt_in(STAYS, LEFT, OBJECTS)
    gateway.run("suppressions", "add", OBJECTS, "--scope", "all-marketing", "--reason", "objected")
    gateway.start()
    for reader in (STAYS, LEFT):
        assert gateway.submit(newsletter(reader), [reader])[""][0] == 250
    tokens = {one.recipients[0]: token_of(one.content) for one in sink.wait_for(2)}
    decision = gateway.submit(newsletter(STRANGER), [STRANGER])[STRANGER][1].partition("decision ")[2].partition(",")[0]
    eventually(lambda: gateway.run("explain", decision, check=False).returncode == 0)
    sink.hold()
    waiting = _queue(gateway)
    eventually(lambda: len({address for _, address in sink.attempts}) >= 4)
    assert gateway.one_click(tokens[LEFT]).status == 200
    return {
        "passwords": gateway.passwords,
        "tokens": tokens,
        "decision": decision,
        "waiting": waiting,
    }


def _queue(gateway: Gateway) -> dict[str, str]:
    """Submit mail that nobody takes; return the hash of each invoice's body by its recipient."""
    assert gateway.submit(newsletter("readers@example.org"), [STAYS, LEFT])[""][0] == 250
    hashes = {}
    for reader, text in (
        ("small@example.org", b""),
        ("large@example.org", b"A line of an invoice.\r\n" * (LARGE // 23)),
    ):
        message = invoice(reader) + text
        answer = gateway.submit(message, [reader], login="shop", sender="billing@example.com")
        assert answer[""][0] == 250, answer
        hashes[reader] = hash_of(message)
    return hashes


def hash_of(message: bytes) -> str:
    """Return the hash of a message's body, which no version may change for an invoice."""
    return hashlib.sha256(message.partition(b"\r\n\r\n")[2]).hexdigest()


def _impersonal(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))
