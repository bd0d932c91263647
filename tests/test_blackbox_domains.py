"""A "no" for all of a domain: by the command line, by a file and by the API, and who is the only one to lift it."""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway, newsletter
from tests.sink import Sink

DOMAIN = "objects.example"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("domains") / "house", shared_sink.url).prepare().start()
    yield running
    running.close()


def by_command(house: Gateway, entry: str) -> None:
    house.run("suppressions", "add", entry, "--scope", "all-marketing", "--reason", "objected", "--why", "a letter")


def by_file(house: Gateway, entry: str) -> None:
    file = house.folder / "objections.txt"
    file.write_text(f"{entry}\nsomebody@example.org\n")
    told = house.json("suppressions", "import", str(file), "--scope", "all-marketing", "--dry-run")
    assert told["whole_domains"] == [entry.lower()]
    assert house.outcome(f"ann@{entry[2:]}") == "sent", "a preview changes nothing"
    assert house.json("suppressions", "import", str(file), "--scope", "all-marketing")["counts"]["suppressed"] == 2


def ask(house: Gateway, token: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", house.console, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, f"/api/v1{path}", json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.fixture(scope="module")
def token(house: Gateway) -> str:
    return str(house.json("tokens", "add", "crm", "--scopes", "record,lift,read")["token"])


def by_api(house: Gateway, entry: str) -> None:
    token = house.json("tokens", "add", f"for-{entry[2:].split('.')[0]}", "--scopes", "record")["token"]
    form = {"address": entry, "reason": "objected"}
    assert ask(house, token, "POST", "/withdrawals", form)[0] == 422, "a form for one person takes no domain"
    assert ask(house, token, "POST", "/suppressions", {**form, "reason": "minor"})[0] == 422
    assert ask(house, token, "POST", "/suppressions", form)[0] == 201


@pytest.mark.req("SUP-16")
@pytest.mark.parametrize(
    ("way", "domain"), [(by_command, "One.Example"), (by_file, "two.example"), (by_api, "three.example")]
)
def test_an_objection_for_a_domain_refuses_whoever_is_there_known_or_not(
    house: Gateway, way: Callable[[Gateway, str], None], domain: str
) -> None:
    ann, ben, later, else_ = f"ann@{domain}", f"ben@{domain.upper()}", f"info@{domain}", f"ann@sub.{domain}"
    house.opt_in(ann, ben, else_)
    assert [house.outcome(one) for one in (ann, ben)] == ["sent", "sent"]
    way(house, f"*@{domain}")
    assert {house.outcome(ann), house.outcome(ben)} < {"objected", "unsubscribed"}
    assert house.outcome(later) == house.outcome(ann), "somebody whom nobody knew"
    assert house.outcome(else_) == "sent", "another domain"
    (row,) = house.json("suppressions", "check", ann)
    assert row["entry"] == f"*@{domain.lower()}"
    assert f"*@{domain}" in {one["address"] for one in house.json("suppressions", "list")}


@pytest.mark.req("SUP-16")
def test_mail_that_is_not_marketing_still_reaches_the_domain(house: Gateway, sink: Sink) -> None:
    by_command(house, "*@bills.example")
    person = "accounts@bills.example"
    bill = f"From: billing@example.com\r\nTo: {person}\r\nSubject: Your bill\r\n\r\nDue.\r\n".encode()
    assert house.submit(bill, [person], login="shop", sender="billing@example.com")[""][0] == 250


@pytest.mark.req("SUP-16", "SUP-06")
def test_only_a_written_reversal_of_the_entry_itself_ends_it(house: Gateway, token: str) -> None:
    person, entry = f"eve@{DOMAIN}", f"*@{DOMAIN}"
    house.opt_in(person)
    by_command(house, entry)
    house.run("consent", "record", person, "--topic", TOPIC, "--basis", "confirmed")
    assert house.outcome(person) == "objected", "one person does not speak for the domain"
    lift = ("suppressions", "remove", "--scope", "all-marketing", "--why", "their postmaster asked us to")
    refused = house.run("--json", *lift, person, check=False)
    assert (refused.returncode, json.loads(refused.stdout)["entry"]) == (1, entry)
    status, problem = ask(
        house,
        token,
        "POST",
        "/suppressions/remove",
        {"address": person, "scope": "all-marketing", "why": "it was a mistake"},
    )
    assert (status, entry in problem["detail"]) == (404, True)
    assert house.run("suppressions", "remove", entry, "--scope", "all-marketing", check=False).returncode == 2
    house.run(*lift, entry)
    assert house.outcome(person) == "sent"
    assert house.json("ledger", "verify")["problems"] == []


@pytest.mark.req("SUP-16")
def test_explain_status_and_export_name_the_entry(house: Gateway, token: str) -> None:
    person, entry = "joe@shown.example", "*@shown.example"
    house.opt_in(person)
    before = house.json("status")["suppressed_people"]
    by_command(house, entry)
    assert house.json("status")["suppressed_people"] == before + 1
    (check,) = house.json("suppressions", "check", person)
    explained = json.loads(house.run("--json", "explain", person, "--topic", TOPIC, check=False).stdout)
    assert (explained["action"], explained["reason"], explained["evidence"]) == ("refuse", "objected", [check["event"]])
    decision = re.search(r"decision (\w{26})", house.submit(newsletter(person), [person])[person][1])
    assert decision
    line = house.json("explain", decision[1])[0]
    assert (line["evidence"], line["again"]["is_the_same"]) == ([check["event"]], True)
    told = house.run("suppressions", "export", "--purpose", "scrub the agency's list").stdout
    assert entry in [one["address"] for one in csv.DictReader(io.StringIO(told))]
    status, found = ask(house, token, "POST", "/people/lookup", {"address": person})
    assert (status, [one["entry"] for one in found["suppressions"]]) == (200, [entry])


@pytest.mark.req("SUP-16")
def test_a_domain_is_nobody_and_gets_no_mail_and_gives_no_consent(house: Gateway) -> None:
    entry = "*@nobody.example"
    assert house.submit(newsletter(entry), [entry]).get(entry, (553, ""))[0] == 553
    for command in (("person", "erase"), ("consent", "record", "--topic", TOPIC), ("person", "export")):
        assert house.run(*command, entry, check=False).returncode == 2
    minor = ("suppressions", "add", entry, "--scope", "all-marketing", "--reason", "minor")
    assert house.run(*minor, check=False).returncode == 2
    assert house.run("suppressions", "check", entry, check=False).returncode == 1
