"""Look for what is left of a person in the files, as somebody would who has stolen them.

The rule that must not be broken: what is not found here is not there; so the write-ahead logs are emptied first, free
pages are read like any other, and an address is looked for as text, in UTF-16, in base64, in quoted-printable, in URLs
and in hex, also where a line of mail breaks in the middle of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gateway.store.turn import Turn
from gateway.store.writer import connect, reading

_STEP = 4 * 1024 * 1024
_BREAK = re.compile(rb"=?\r?\n[ \t]*")
"""Where a line of quoted-printable or base64 ends, or of a header that is folded."""


def empty_log(path: Path) -> None:
    """Move a write-ahead log's content into its file and cut it to nothing; raises `StoreUnavailable`."""
    turn = Turn(path)
    with reading(path), closing(connect(path)) as connection:
        turn.take()
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            turn.give()
            turn.close()


def find_traces(files: Iterable[Path], addresses: Collection[str]) -> list[Path]:
    """Return the files that hold one of the addresses; one that goes meanwhile holds nothing."""
    spelled = sorted({one for address in addresses for one in _spellings(address)}, key=len)
    pattern = re.compile(b"|".join(map(re.escape, spelled)), re.IGNORECASE)
    return [path for path in sorted(files) if _holds(path, pattern, overlap=2 * len(spelled[-1]))]


def _spellings(address: str) -> list[bytes]:
    text, wide = address.encode("utf-8"), address.encode("utf-16-le")[:-1]
    hexadecimal = text.hex().encode("ascii")
    quoted = b"".join(b"=%02X" % octet for octet in text)
    url = quote(address).encode("ascii")
    in_base64 = [_inner_base64(octets, shift) for octets in (text, wide) for shift in range(3)]
    return [text, wide, text.replace(b"@", b"=40"), url, hexadecimal, quoted, *in_base64]


def _inner_base64(octets: bytes, shift: int) -> bytes:
    """Return the base64 digits that are the octets' own wherever they begin in a group of three."""
    digits = base64.b64encode(b"\0" * shift + octets)
    return digits[(0, 2, 3)[shift] : (shift + len(octets)) * 8 // 6]


def _holds(path: Path, pattern: re.Pattern[bytes], overlap: int) -> bool:
    try:
        with path.open("rb") as file:
            tail = b""
            while read := file.read(_STEP):
                piece = tail + read
                if pattern.search(piece) or pattern.search(_BREAK.sub(b"", piece)):
                    return True
                tail = piece[-overlap:]
    except FileNotFoundError:
        pass
    return False
