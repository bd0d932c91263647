"""A store that the bench fills in bulk must be one that the program would have made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import stores
from bench.peers.assent import Assent
from bench.workload import prepare_workload

PEOPLE = 300


def test_a_store_made_in_bulk_is_whole_and_knows_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "BUILD", tmp_path / "build")
    monkeypatch.setattr(stores, "CHUNK", 100)
    workload = prepare_workload(tmp_path, 9, PEOPLE)
    gateway = Assent(workload, stores.queue_store(PEOPLE, workload))
    gateway.prepare(tmp_path)
    assert asked(gateway, "ledger", "verify").startswith("the ledger and the decision log are whole")
    assert f'"queued_recipients": {PEOPLE}' in asked(gateway, "--json", "status")
    for number in (1, PEOPLE):
        assert "EXPRESS_OPT_IN" in asked(gateway, "consent", "show", workload.reader(number))


def asked(gateway: Assent, *arguments: str) -> str:
    return subprocess.run(gateway.command(*arguments), capture_output=True, text=True, check=True).stdout
