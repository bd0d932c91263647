"""The secrets under the data folder: made once, readable by their owner only, never overwritten.

A key ring is a text file, one `ID HEX` a line: a new key is a new line with the next id, and an old line is never
removed, since links and erased addresses must verify for ever.

Which key of each ring makes new values is told by a file, and changes only while nobody is at work: a process that has
been started before would not find a person, nor know a link, by a key that it has never read.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.errors import ConfigError
from gateway.model import KeyRing
from gateway.store import disk

ADDRESS_RING = "addresses.keys"
TOKEN_RING = "tokens.keys"
LEDGER_KEY = "ledger.pem"
_REMEDY = "put back your copy of it, which is in no backup; `assent init` makes the keys of a new store only"


def make_keys(folder: Path) -> list[Path]:
    """Make whatever is missing of the store's secrets; return the files that were made."""
    disk.make_folder(folder)
    contents = {
        ADDRESS_RING: lambda: f"1 {secrets.token_hex(32)}\n".encode("ascii"),
        TOKEN_RING: lambda: f"1 {secrets.token_hex(32)}\n".encode("ascii"),
        LEDGER_KEY: _new_ledger_key,
    }
    missing = [name for name in contents if not (folder / name).exists()]
    for name in missing:
        disk.write_new(folder / name, contents[name]())
    disk.sync_folder(folder)
    return [folder / name for name in missing]


def read_ring(path: Path) -> KeyRing:
    """Read a key ring; raises `ConfigError` with a remedy where it is missing, loose or unreadable."""
    try:
        lines = [line.split() for line in _read_secret(path).decode("ascii").splitlines() if line.strip()]
        return KeyRing({int(kid): bytes.fromhex(key) for kid, key in lines})
    except ValueError as error:
        raise ConfigError([f"{path}: not a key ring, one `ID HEX` a line ({error}); {_REMEDY}"]) from error


def read_keys_in_force(file: Path) -> dict[str, int]:
    """Return the id of the key in force by its ring's name; nothing where no program has been started yet.

    Raises `ConfigError` for a file that somebody has changed by hand.
    """
    if not file.exists():
        return {}
    try:
        return {name: int(kid) for name, kid in (line.split() for line in file.read_text("ascii").splitlines())}
    except ValueError as error:
        raise ConfigError([f"{file}: not `RING ID` a line; delete it, it is made again at the next start"]) from error


def put_newest_in_force(file: Path, folder: Path) -> None:
    """Let the highest key of each ring make new values from now on. Nobody else may be at work."""
    newest = {name: max(read_ring(folder / name).keys) for name in (ADDRESS_RING, TOKEN_RING)}
    if newest != read_keys_in_force(file):
        unnamed = file.with_name(f".{file.name}-{os.getpid()}")
        disk.write_new(unnamed, "".join(f"{name} {kid}\n" for name, kid in newest.items()).encode("ascii"))
        disk.rename(unnamed, file)


def read_ledger_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs segment heads; raises `ConfigError`."""
    try:
        key = serialization.load_pem_private_key(_read_secret(path), password=None)
    except ValueError as error:
        raise ConfigError([f"{path}: not a PEM private key ({error}); {_REMEDY}"]) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError([f"{path}: the ledger is signed with Ed25519; {_REMEDY}"])
    return key


def _read_secret(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError([f"{path}: others can read this secret; run chmod 600 {path}"])
        return path.read_bytes()
    except OSError as error:
        remedy = "make it readable to this user" if isinstance(error, PermissionError) else _REMEDY
        raise ConfigError([f"{path}: {error.strerror}; {remedy}"]) from error


def _new_ledger_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
