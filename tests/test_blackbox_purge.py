"""What is forgotten in time, judged by who searches the disk, and by what the ledger still proves (DSR-08, POL-22).

The running program goes by the real clock; `assent purge` is asked as on a later day.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, link_of, newsletter
from tests.sink import Sink

Someone = Callable[[], str]
RETENTION = """
    [retention]
    decisions = "10d"
    evidence = "30d"
    evidence_ip = "5d"
    backups = "20d"
    """


@pytest.fixture
def house(make_gateway: MakeGateway) -> Gateway:
    return make_gateway(sections={"retention": RETENTION})


@contextmanager
def days_later(house: Gateway, days: int) -> Iterator[None]:
    """What the operator types meanwhile happens on another day."""
    house.environment = shifted(f"+{days}d")
    try:
        yield
    finally:
        house.environment = {}


def purged(house: Gateway, days: int, *more: str) -> Any:
    with days_later(house, days):
        return house.json("purge", *more)


def proof(house: Gateway, reader: str) -> list[Any]:
    return [one["personal"] for one in house.json("consent", "show", reader)]


def say_yes(house: Gateway, reader: str, ip: str) -> None:
    """Record an opt-in as a web form does, with the IP address that it saw."""
    words = house.folder / "words.txt"
    words.write_text("Yes, send me news.")
    house.run(
        *("notices", "add", f"box-{ip}", "--topic", TOPIC, "--text", str(words), "--url", "https://example.com/join"),
        *("--control", "unticked", "--from", "2020-01-01"),
    )
    token = house.json("tokens", "add", f"form-{ip}", "--scopes", "record")["token"]
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    body = json.dumps({"address": reader, "notice": f"box-{ip}", "at": at, "ip": ip}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = fetch(f"http://127.0.0.1:{house.console}/api/v1/consents", "POST", body, headers)
    assert answer.status == 201, answer.text


def sealed(house: Gateway, lines: int) -> list[bytes]:
    """Return the files of the decision log once so many lines stand in it."""

    def whole() -> list[bytes] | None:
        found = [path.read_bytes() for path in (house.folder / "var" / "decisions").glob("*.db*")]
        return found if sum(one.count(b'"kind":') for one in found) >= lines else None

    return eventually(whole)


def verify(house: Gateway) -> None:
    done = house.run("ledger", "verify", "--anchor", str(house.folder / "var" / "anchor.jsonl"), check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.req("DSR-08", "DSR-11")
def test_proof_and_decisions_lapse_in_time_and_the_ledger_still_verifies(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    house.start()
    stays, leaves = someone(), someone()
    say_yes(house, stays, "192.0.2.11")
    say_yes(house, leaves, "192.0.2.12")
    decision = house.submit(newsletter(stays), [stays])
    assert decision[""][0] == 250
    house.submit(newsletter(leaves), [leaves])
    tokens = {one.recipients[0]: link_of(one.content).rpartition("/")[2] for one in sink.wait_for(2)}
    assert house.one_click(tokens[leaves]).status == 200
    sealed(house, 4)
    nothing = {"decisions": 0, "proofs": 0, "ip_addresses": 0, "backups": [], "missing": []}
    assert purged(house, 4) == nothing
    assert purged(house, 6, "--dry-run") == {**nothing, "ip_addresses": 1}
    assert proof(house, leaves)[0]["ip"] == "192.0.2.12", "a dry run changes nothing"

    assert purged(house, 6) == {**nothing, "ip_addresses": 1}
    assert "ip" not in proof(house, leaves)[0] and proof(house, leaves)[0]["address"] == leaves
    assert proof(house, leaves)[1]["ip"], "the no stands, and its proof is in use"
    assert proof(house, stays)[0]["ip"] == "192.0.2.11", "the yes is in force, and its proof is in use"
    verify(house)

    gone = purged(house, 11)
    assert gone["decisions"] >= 4 and gone["ip_addresses"] == 0
    assert purged(house, 11) == nothing, "nothing goes twice"
    log = [path.read_bytes() for path in (house.folder / "var" / "decisions").glob("*.db*")]
    assert not any(b'"kind":' in one for one in log)
    verify(house)
    house.submit(newsletter(stays), [stays])
    sealed(house, 2)
    verify(house)

    assert purged(house, 31)["proofs"] == 1
    yes, no = proof(house, leaves)
    assert yes is None and no["ip"] == "127.0.0.1"
    assert house.submit(newsletter(leaves), [leaves])[leaves][0] == 550, "the no outlives its proof"
    assert house.submit(newsletter(stays), [stays])[""][0] == 250
    verify(house)


@pytest.mark.req("DSR-08")
def test_what_goes_by_itself_cannot_be_taken_for_what_was_taken_away(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    house.start()
    reader = someone()
    house.opt_in(reader)
    house.submit(newsletter(reader), [reader])
    sink.wait_for(1)
    sealed(house, 2)
    house.stop()
    assert purged(house, 11)["decisions"] >= 2
    anchor = house.folder / "var" / "anchor.jsonl"
    announced = [line for line in anchor.read_text().splitlines() if '"chain": "purges"' in line]
    assert len(announced) == 1
    anchor.write_text(anchor.read_text().replace(announced[0], announced[0].replace('"count": ', '"count": 1')))
    done = house.run("ledger", "verify", "--anchor", str(anchor), check=False)
    assert done.returncode == 1 and "purges" in done.stdout


@pytest.mark.req("POL-22", "SUP-09")
def test_a_year_after_an_erasure_no_copy_names_the_person(make_gateway: MakeGateway, sink: Sink) -> None:
    house = make_gateway().start()
    reader = "long.gone@example.org"
    house.opt_in(reader)
    house.submit(newsletter(reader), [reader])
    sink.wait_for(1)
    early, moved, aside = (house.folder / name for name in ("early.tar.gz", "moved.tar.gz", "elsewhere.tar.gz"))
    house.run("backup", str(early))
    house.run("backup", str(moved))
    moved.rename(aside)
    house.run("person", "erase", reader)
    house.stop()
    house.run("restore", str(early), "--replace")
    (house.folder / "var" / "assent.db.schema-1").write_bytes(reader.encode())
    house.start()
    assert purged(house, 364)["backups"] == []

    told = purged(house, 366)
    assert {Path(one).name.partition("-")[0] for one in told["backups"]} == {
        "early.tar.gz",
        "assent.db.schema",
        "before",
    }
    assert [Path(one).name for one in told["missing"]] == ["moved.tar.gz"], "the operator is told of the other"
    assert not early.exists()
    left = [path for path in (house.folder / "var").rglob("*") if path.is_file()]
    assert not [path.name for path in left if reader.encode() in path.read_bytes()]
    assert house.submit(newsletter(reader), [reader])[reader][0] == 550
    verify(house)


@pytest.mark.req("DSR-08")
def test_the_running_program_makes_its_round_by_itself(house: Gateway, sink: Sink, someone: Someone) -> None:
    house.start()
    reader = someone()
    house.opt_in(reader)
    house.submit(newsletter(reader), [reader])
    sink.wait_for(1)
    sealed(house, 2)
    house.stop()
    with days_later(house, 11):
        house.start()
    eventually(lambda: "forgotten: " in house.log.read_text())
    verify(house)
