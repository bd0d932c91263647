"""Passwords: hashed with scrypt, remembered without being kept, gone at once when they are changed."""

from __future__ import annotations

import base64
import hashlib

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


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords for which the price of a hash was paid."""
    paid: list[str] = []
    derive = passwords._derive

    def counted(password: str, salt: bytes) -> bytes:
        paid.append(password)
        return derive(password, salt)

    monkeypatch.setattr(passwords, "_derive", counted)
    return paid


async def test_a_good_password_is_hashed_once_and_a_bad_one_each_time(hashed: list[str]) -> None:
    check, stored = PasswordCheck(), hash_password("good")
    hashed.clear()
    assert [await check.accepts("shop", "good", stored) for _ in range(3)] == [True] * 3
    assert hashed == ["good"]
    assert [await check.accepts("shop", "bad", stored) for _ in range(2)] == [False] * 2
    assert hashed == ["good", "bad", "bad"]


async def test_a_changed_password_and_another_name_are_not_remembered(hashed: list[str]) -> None:
    check, stored = PasswordCheck(), hash_password("good")
    assert await check.accepts("shop", "good", stored)
    changed = hash_password("better")
    assert not await check.accepts("shop", "good", changed)
    assert not await check.accepts("shop", "good", "")
    assert await check.accepts("shop", "better", changed)
    hashed.clear()
    assert await check.accepts("crm", "good", stored)
    assert hashed == ["good"]


@pytest.mark.parametrize("password", ["", "anything", "\0"])
async def test_nobodys_password_costs_a_hash_and_is_never_right(hashed: list[str], password: str) -> None:
    assert not await PasswordCheck().accepts("nobody", password, "")
    assert hashed == [password]


async def test_what_is_remembered_is_no_password_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_REMEMBERED", 2)
    check, stored = PasswordCheck(), hash_password("good")
    for name in ("a", "b", "c"):
        assert await check.accepts(name, "good", stored)
    assert len(check._known) == 2
    assert not any(b"good" in one or len(one) != 32 for one in check._known)
