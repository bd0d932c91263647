"""Passwords of logins: hashed with scrypt, verified off the loop, remembered as a keyed digest.

What is remembered of a good password lives in this process's memory only, under a key that dies with it, and is bound
to the stored hash: a changed password or a disabled login counts at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from base64 import b64decode, b64encode
from collections import OrderedDict

_COST = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_REMEMBERED = 1024
_NOBODY = "scrypt$" + b64encode(bytes(16)).decode("ascii") + "$" + b64encode(bytes(32)).decode("ascii")


def new_password() -> str:
    """Return a password that nobody can guess: 24 characters, 144 bits."""
    return secrets.token_urlsafe(18)


def hash_password(password: str) -> str:
    """Return what the store keeps of a password: scrypt (RFC 7914), n=16384, r=8, p=1, with its salt."""
    salt = os.urandom(16)
    return f"scrypt${b64encode(salt).decode('ascii')}${b64encode(_derive(password, salt)).decode('ascii')}"


def is_password(password: str, stored: str) -> bool:
    """True where the password is the one that was hashed. Costs some 50 ms: not for the event loop."""
    _, salt, expected = stored.split("$")
    return hmac.compare_digest(_derive(password, b64decode(salt)), b64decode(expected))


class PasswordCheck:
    """Checks passwords without paying for the hash at each connection."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def accepts(self, name: str, password: str, stored: str) -> bool:
        """True where `stored` is this password's hash; an empty one, of nobody, takes as long and is never right."""
        digest = self._digest(name, password, stored)
        if digest in self._known:
            self._known.move_to_end(digest)
            return True
        right = await asyncio.to_thread(is_password, password, stored or _NOBODY) and bool(stored)
        if right:
            self._remember(digest)
        return right

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._key, "\0".join(parts).encode("utf-8"), "sha256")


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8"), salt=salt, **_COST)
