"""The keeper's eye on DNS: what it tells all processes, and what it takes back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.keywatch import KeyWatch
from gateway.sign import Signer, SigningKey, dns_record, generate_rsa_key
from gateway.store.condition import Condition, Trouble

OLD, NEW, OTHER = (SigningKey.load("example.com", name, generate_rsa_key()) for name in ("s1", "s2", "s2"))
RIGHT = dict(map(dns_record, (OLD, NEW)))
WRONG = dict(map(dns_record, (OLD, OTHER)))
"""DNS publishes another key than ours under the second selector."""


class Dns:
    """Answers from a table; None is silence."""

    def __init__(self, records: Mapping[str, str] | None) -> None:
        self.records = records

    async def texts(self, name: str) -> tuple[str, ...] | None:
        if self.records is None:
            return None
        return (self.records[name],) if name in self.records else ()


@pytest.fixture
def condition(tmp_path: Path) -> Condition:
    return Condition(tmp_path / "condition")


def watch(condition: Condition, dns: Dns, *keys: SigningKey) -> KeyWatch:
    told: Any = dns
    return KeyWatch(keys, told, condition, timedelta(minutes=15))


@pytest.mark.req("DKIM-18")
async def test_a_domain_is_contradicted_only_when_all_of_its_keys_are(condition: Condition, tmp_path: Path) -> None:
    """One signature that verifies is enough for a receiver; every process sees the same."""
    worker = Condition(tmp_path / "condition")
    await watch(condition, Dns(WRONG), OLD, NEW)._look()
    assert worker[Trouble.KEYS] == 1
    assert worker.are_contradicted(Signer([NEW]).marks)
    assert not worker.are_contradicted(Signer([OLD, NEW]).marks)
    assert not worker.are_contradicted(Signer([OTHER]).marks), "the same name with the right key"


@pytest.mark.req("DKIM-18")
async def test_what_was_seen_holds_until_something_else_is_seen(condition: Condition) -> None:
    dns = Dns(WRONG)
    first = watch(condition, dns, NEW)
    assert not await first._look()
    dns.records = None
    assert not await first._look()
    assert condition.are_contradicted([NEW.mark])
    await watch(condition, dns, NEW)._look()
    assert condition.are_contradicted([NEW.mark]), "after a restart too"
    dns.records = {}
    assert not await first._look()
    assert not condition.are_contradicted([NEW.mark]), "a name that is not there contradicts nobody"
    dns.records = RIGHT
    assert await first._look()
    assert condition.troubles() == []


async def test_what_has_not_changed_is_told_once(condition: Condition, caplog: pytest.LogCaptureFixture) -> None:
    dns = Dns(WRONG)
    keeper = watch(condition, dns, OLD, NEW)
    with caplog.at_level(logging.INFO):
        for records in (WRONG, WRONG, None, None, RIGHT):
            dns.records = records
            await keeper._look()
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "ERROR", "WARNING", "WARNING", "INFO", "INFO"]


def test_there_is_room_for_many_marks_and_no_more(condition: Condition) -> None:
    condition.contradict(range(1, 1000))
    assert 400 < condition[Trouble.KEYS] < 1000
    assert condition.are_contradicted([1, 400]) and not condition.are_contradicted([999])
