"""Other spellings of a suppressed mailbox: always told, and a reason to refuse only where an operator says so."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway, newsletter
from tests.sink import Sink

SAID, SPELLED, GOOGLE = "alice@gmail.com", "A.Lice+Z@gmail.com", "al.ice@googlemail.com"
ELSEWHERE, ELSEWHERE_SPELLED = "alice@example.org", "a.lice+z@example.org"


def object_by_phone(house: Gateway, *people: str) -> None:
    for one in people:
        house.run("suppressions", "add", one, "--scope", "all-marketing", "--reason", "objected", "--why", "by phone")


def answer_of(house: Gateway, *arguments: str) -> Any:
    return json.loads(house.run("--json", *arguments, check=False).stdout)


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("related") / "house", shared_sink.url).prepare().start()
    running.opt_in(SPELLED, GOOGLE, ELSEWHERE_SPELLED)
    object_by_phone(running, SAID, ELSEWHERE)
    yield running
    running.close()


@pytest.mark.req("SUP-04")
@pytest.mark.parametrize("spelled", [SPELLED, GOOGLE])
def test_another_spelling_of_a_suppressed_mailbox_is_told_and_gets_its_mail(house: Gateway, spelled: str) -> None:
    told = answer_of(house, "suppressions", "check", spelled)
    assert (told["suppressions"], told["related"]) == ([], [SAID])
    explained = answer_of(house, "explain", spelled, "--topic", TOPIC)
    assert (explained["action"], explained["related"]) == ("send", [SAID])
    assert house.outcome(spelled) == "sent"


@pytest.mark.req("SUP-02", "CON-01")
def test_the_no_of_an_address_that_looks_the_same_is_explained_and_ends_where_it_was_said(house: Gateway) -> None:
    said, looks_alike = "stra\u00dfe@example.org", "strasse@example.org"
    house.opt_in(looks_alike)
    object_by_phone(house, said)
    assert house.outcome(looks_alike) == "objected"
    explained = answer_of(house, "explain", looks_alike, "--topic", TOPIC)
    assert (explained["action"], explained["reason"]) == ("refuse", "objected")
    (entry,) = answer_of(house, "suppressions", "check", looks_alike)
    assert entry["entry"] == said
    lift = ("--scope", "all-marketing", "--why", "said in error")
    assert house.run("suppressions", "remove", looks_alike, *lift, check=False).returncode == 1
    house.run("suppressions", "remove", said, *lift)
    assert house.outcome(looks_alike) == "sent"


@pytest.mark.req("SUP-04")
def test_a_simulation_counts_them(house: Gateway) -> None:
    listed = house.folder / "list.txt"
    listed.write_text("\n".join([SAID, SPELLED, GOOGLE, ELSEWHERE_SPELLED]))
    told = house.json("simulate", "--stream", "newsletter", str(listed))
    assert (told["would_get_it"], told["suppressed_under_another_spelling"]) == (3, 2)


@pytest.mark.req("SUP-04")
def test_it_is_told_to_programs_too(house: Gateway) -> None:
    token = house.json("tokens", "add", "crm", "--scopes", "read")["token"]

    def ask(path: str, body: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", house.console, timeout=20)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())

    people = [SPELLED, GOOGLE, ELSEWHERE_SPELLED]
    verdicts = ask("/check", {"topic": TOPIC, "addresses": people})["verdicts"]
    assert [(one["action"], one["related"]) for one in verdicts] == [("send", [SAID]), ("send", [SAID]), ("send", [])]
    assert ask("/people/lookup", {"address": SPELLED})["related"] == [SAID]


@pytest.mark.req("SUP-04")
def test_at_a_domain_whose_spellings_nobody_knows_they_are_other_people(house: Gateway) -> None:
    told = answer_of(house, "suppressions", "check", ELSEWHERE_SPELLED)
    assert (told["suppressions"], told["related"]) == ([], [])
    assert house.outcome(ELSEWHERE_SPELLED) == "sent"


@pytest.mark.req("SUP-04")
def test_the_no_counts_for_every_spelling_where_an_operator_says_so(house: Gateway) -> None:
    house.write_config(consent='[consent]\nblock_related = ["example.org"]\n')
    assert "block_related" in house.run("check", check=False).stderr, "nobody knows the spellings of that domain"
    house.write_config(consent='[consent]\nblock_related = ["gmail.com"]\n')
    house.stop()
    house.start()
    try:
        assert [house.outcome(one) for one in (SPELLED, GOOGLE, ELSEWHERE_SPELLED)] == ["objected", "objected", "sent"]
        (row,) = answer_of(house, "suppressions", "check", SPELLED)
        assert (row["entry"], row["related"]) == (SAID, [SAID])
        (explained, line) = _explained_twice(house, SPELLED)
        assert (explained["reason"], explained["evidence"]) == ("objected", [row["event"]])
        assert (line["evidence"], line["again"]["is_the_same"]) == ([row["event"]], True)
        lift = ("suppressions", "remove", "--scope", "all-marketing", "--why", "it was a mistake")
        assert house.run(*lift, SPELLED, check=False).returncode == 1, "it is the other spelling's"
        house.run(*lift, SAID)
        assert house.outcome(SPELLED) == "sent"
    finally:
        house.write_config(consent="")
        house.stop()
        house.start()


def _explained_twice(house: Gateway, address: str) -> tuple[Any, Any]:
    """Return why an address would be refused now, and why it was."""
    decision = re.search(r"decision (\w{26})", house.submit(newsletter(address), [address])[address][1])
    assert decision
    return answer_of(house, "explain", address, "--topic", TOPIC), answer_of(house, "explain", decision[1])[0]


@pytest.mark.req("SUP-04")
def test_a_stranger_gets_the_no_of_the_mailbox_and_never_its_yes(house: Gateway) -> None:
    object_by_phone(house, "bob@outlook.com")
    house.opt_in("bob@outlook.com")
    stranger = "bob+news@outlook.com"
    assert house.outcome(stranger) == "no-consent"
    explained = answer_of(house, "explain", stranger, "--topic", TOPIC)
    assert (explained["reason"], explained["related"]) == ("no-consent", ["bob@outlook.com"])
