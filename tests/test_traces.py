"""What an erasure searches the files for: an address in every spelling in which mail may hold it."""

from __future__ import annotations

import base64
import quopri
from pathlib import Path

import pytest

from gateway.store.traces import find_traces

ADDRESS = "ann.reader+news@readers.example"
LETTER = f"Dear customer, your address {ADDRESS} is what we write to."


def in_lines(octets: bytes, width: int, end: bytes) -> bytes:
    return end.join(octets[at : at + width] for at in range(0, len(octets), width))


SPELLED = {
    "text": LETTER.encode(),
    "upper case": LETTER.upper().encode(),
    "UTF-16": LETTER.encode("utf-16"),
    "UTF-16, big end first": LETTER.encode("utf-16-be"),
    "base64": base64.b64encode(LETTER.encode()),
    "base64 in lines": in_lines(base64.b64encode(LETTER.encode()), 60, b"\r\n"),
    "base64 of UTF-16 in lines": in_lines(base64.b64encode(LETTER.encode("utf-16")), 76, b"\r\n"),
    "quoted-printable": quopri.encodestring(LETTER.encode(), quotetabs=True).replace(b"@", b"=40"),
    "quoted-printable with a soft break": LETTER.encode().replace(b"+news", b"+ne=\r\nws"),
    "a field folded": LETTER.encode().replace(b"@", b"\r\n @"),
    "a long line before it": b"x" * (4 * 1024 * 1024 - 10) + LETTER.encode(),
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_an_address_is_found_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.write_bytes(SPELLED[spelling])
    other.write_bytes(LETTER.replace("reader+", "writer+").encode())
    assert find_traces([named, other], [ADDRESS]) == [named]
