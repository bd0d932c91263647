"""Passwords of logins: hashed with scrypt, and verified off the loop.

The rule that must not be broken: what is stored tells nobody the password, and a login that does not exist takes as
long to refuse as one that does.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor

_COST = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_NICE = 10
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
    """Checks passwords one by one, on a thread that yields to all others of the machine."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "passwords", initializer=_step_back)

    async def accepts(self, password: str, stored: str) -> bool:
        """True where `stored` is this password's hash; an empty one, of nobody, takes as long and is never right."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, is_password, password, stored or _NOBODY) and bool(stored)


def _step_back() -> None:
    """Where niceness is a thread's own, let mail go before hashes (nice(2): so it is on Linux)."""
    if sys.platform == "linux":
        os.nice(_NICE)


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8"), salt=salt, **_COST)
