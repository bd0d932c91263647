"""Who may log in: guesses are slowed over all processes, and nobody is shut out by somebody else's.

Two desks of one crowd stand for two processes. The password check is replaced by one that counts the hashes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.listener import Crowd
from gateway.listener import desk as desk_module
from gateway.listener.desk import PATIENCE, LoginDesk
from gateway.model import Login, Reply
from gateway.store import LoginRecord


class People:
    """Knows the logins `shop` and `news`; the stored hash of a password is the password."""

    def __init__(self) -> None:
        self.secrets = {"shop": "right", "news": "also right"}
        self.disabled: set[str] = set()

    async def login(self, name: str) -> LoginRecord | None:
        if name not in self.secrets:
            return None
        return LoginRecord(Login(name, ()), self.secrets[name], name in self.disabled)


class Check:
    """Pays for each hash with one turn of the loop."""

    hashed: list[str]

    async def accepts(self, password: str, stored: str) -> bool:
        Check.hashed.append(password)
        await asyncio.sleep(0)
        return bool(stored) and password == stored


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each try was kept waiting."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(desk_module.asyncio, "sleep", noted)
    return waits


@pytest.fixture
def desks(people: People, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> list[LoginDesk]:
    Check.hashed = []
    monkeypatch.setattr(desk_module, "PasswordCheck", Check)
    crowd = Crowd(2)
    made: Any = people
    return [LoginDesk(made, crowd.seen_by(process)) for process in range(2)]


def code(admitted: LoginRecord | Reply) -> int:
    return admitted.code if isinstance(admitted, Reply) else 235


async def guess(desks: list[LoginDesk], ip: str, name: str = "shop", times: int = 1) -> list[int]:
    return [code(await desks[n % 2].admit(ip, name, f"wrong {n}")) for n in range(times)]


async def test_an_address_that_was_wrong_too_often_is_refused_unheard_by_every_process(desks: list[LoginDesk]) -> None:
    assert await guess(desks, "192.0.2.1", times=PATIENCE + 5) == [535] * PATIENCE + [454] * 5
    assert len(Check.hashed) == PATIENCE
    for desk in desks:
        assert code(await desk.admit("192.0.2.1", "shop", "right")) == 454
    assert code(await desks[0].admit("192.0.2.2", "shop", "right")) == 235


async def test_a_right_guess_forgives_no_wrong_one(desks: list[LoginDesk]) -> None:
    assert await guess(desks, "192.0.2.1", times=PATIENCE - 1) == [535] * (PATIENCE - 1)
    assert code(await desks[0].admit("192.0.2.1", "news", "also right")) == 235
    assert await guess(desks, "192.0.2.1", times=2) == [535, 454]


async def test_an_address_gets_in_where_it_has_been_in_whoever_guesses_beside_it(desks: list[LoginDesk]) -> None:
    assert code(await desks[0].admit("192.0.2.1", "news", "also right")) == 235
    await guess(desks, "192.0.2.1", "shop", times=PATIENCE + 1)
    await guess(desks, "192.0.2.1", "news", times=PATIENCE + 1)
    for desk in desks:
        assert code(await desk.admit("192.0.2.1", "news", "also right")) == 235
        assert code(await desk.admit("192.0.2.1", "shop", "right")) == 454


async def test_a_login_that_many_guess_at_lets_a_new_address_in_late_and_a_known_one_at_once(
    desks: list[LoginDesk], slept: list[float]
) -> None:
    assert code(await desks[0].admit("198.51.100.1", "shop", "right")) == 235
    for host in range(20):
        await guess(desks, f"192.0.2.{host}", times=PATIENCE)
    slept.clear()
    assert code(await desks[1].admit("198.51.100.1", "shop", "right")) == 235
    assert [wait for wait in slept if wait] == []
    await guess(desks, "198.51.100.2")
    assert max(slept) == 5.0
    assert code(await desks[1].admit("198.51.100.2", "shop", "right")) == 235


async def test_a_good_password_is_hashed_once_for_all_processes_and_forgotten_when_it_is_changed(
    desks: list[LoginDesk], people: People
) -> None:
    for host in range(3):
        for desk in desks:
            assert code(await desk.admit(f"192.0.2.{host}", "shop", "right")) == 235
    assert Check.hashed == ["right"]
    people.secrets["shop"] = "new"
    assert code(await desks[0].admit("192.0.2.1", "shop", "right")) == 535
    assert code(await desks[0].admit("192.0.2.1", "shop", "new")) == 235
    people.disabled.add("shop")
    assert code(await desks[0].admit("192.0.2.1", "shop", "new")) == 535


async def test_a_login_that_does_not_exist_is_answered_like_one_that_does(desks: list[LoginDesk]) -> None:
    nobody = await guess(desks, "192.0.2.1", "nobody", times=PATIENCE + 1)
    assert nobody == await guess(desks, "192.0.2.2", "shop", times=PATIENCE + 1)


async def test_the_many_addresses_of_one_ipv6_host_are_one(desks: list[LoginDesk]) -> None:
    for host in range(PATIENCE):
        await guess(desks, f"2001:db8::{host:x}")
    assert await guess(desks, "2001:db8::ffff") == [454]
    assert await guess(desks, "2001:db8:0:1::1") == [535]


async def test_whoever_has_been_wrong_least_is_heard_first(desks: list[LoginDesk]) -> None:
    desk = desks[0]
    await guess([desk, desk], "192.0.2.1", times=5)
    Check.hashed.clear()
    tries = [desk.admit("192.0.2.1", "shop", f"guess {n}") for n in range(4)]
    await asyncio.gather(*tries, desk.admit("198.51.100.1", "shop", "right"))
    assert Check.hashed == ["guess 0", "right", "guess 1", "guess 2", "guess 3"]
