"""Passwords: hashed with scrypt, and checked where nothing waits for them."""

from __future__ import annotations

import base64
import hashlib
import os
import sys

import pytest

from gateway import passwords
from gateway.passwords import PasswordCheck, hash_password, is_password, new_password


def test_a_new_password_is_long_and_never_the_same() -> None:
    made = {new_password() for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {24}


def test_only_the_password_that_was_hashed_is_right() -> None:
    stored = hash_password("Grüße, 1234")
    assert is_password("Grüße, 1234", stored)
    for wrong in ("", "grüße, 1234", "Grüße, 1234 ", stored):
        assert not is_password(wrong, stored)


def test_what_is_stored_is_scrypt_with_a_salt_of_its_own() -> None:
    one, other = hash_password("secret"), hash_password("secret")
    assert one != other
    name, salt, digest = one.split("$")
    expected = hashlib.scrypt(b"secret", salt=base64.b64decode(salt), n=16384, r=8, p=1, dklen=32)
    assert (name, base64.b64decode(digest)) == ("scrypt", expected)
    assert "secret" not in one


async def test_a_password_is_checked_against_what_is_stored() -> None:
    check, stored = PasswordCheck(), hash_password("good")
    assert await check.accepts("good", stored)
    assert not await check.accepts("bad", stored)


@pytest.mark.parametrize("password", ["", "anything", "\0"])
async def test_nobodys_password_costs_a_hash_and_is_never_right(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    paid: list[str] = []
    derive = passwords._derive
    monkeypatch.setattr(passwords, "_derive", lambda text, salt: (paid.append(text), derive(text, salt))[1])
    assert not await PasswordCheck().accepts(password, "")
    assert paid == [password]


async def test_mail_goes_before_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Niceness is a thread's own on Linux: that of the loop stays as it was."""
    if sys.platform != "linux":
        pytest.skip("niceness is the whole process's")
    seen: list[int] = []
    monkeypatch.setattr(passwords, "is_password", lambda *_: seen.append(os.nice(0)) is None)
    before = os.nice(0)
    assert await PasswordCheck().accepts("good", "stored")
    assert seen == [min(before + 10, 19)] and os.nice(0) == before
