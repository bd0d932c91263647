"""Lists of suppressions that leave the house: what for, who took them, and that they come back as they went."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import TOPIC, Gateway

Someone = Callable[[], str]


@pytest.mark.req("SUP-13")
def test_an_export_asks_for_a_purpose_and_is_recorded_with_who_took_it(gateway: Gateway, someone: Someone) -> None:
    person = someone()
    gateway.run("suppressions", "add", person, "--scope", "all-marketing", "--reason", "objected")
    assert gateway.run("suppressions", "export", check=False).returncode == 2
    assert gateway.run("suppressions", "export", "--purpose", "  ", check=False).returncode == 2
    done = gateway.run("suppressions", "export", "--purpose", "scrub the agency's list")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [one["reason"] for one in rows if one["address"] == person] == ["objected"]
    (line,) = gateway.json("explain", done.stderr.split()[-1])
    assert (line["kind"], line["purpose"], line["count"]) == ("export", "scrub the agency's list", len(rows))
    assert line["by"]


@pytest.mark.req("SUP-11")
def test_digests_are_those_of_the_trade_and_come_back_as_the_same_suppressions(
    make_gateway: MakeGateway, someone: Someone
) -> None:
    ours, theirs = make_gateway().start(), make_gateway().start()
    people = ["user@example.com", someone(), someone()]
    for one in people:
        ours.run("suppressions", "add", one, "--scope", "all-marketing", "--reason", "unsubscribed")
    assert ours.run("suppressions", "export", "--purpose", "test", "--format", "plain").stdout.split() != []
    for form, make in (("md5", hashlib.md5), ("sha256", hashlib.sha256)):
        file = ours.folder / f"{form}.txt"
        ours.run("suppressions", "export", "--purpose", "test", "--format", form, "--output", str(file))
        lines = file.read_text().splitlines()
        assert set(lines) == {make(one.encode()).hexdigest() for one in people}
        assert form != "md5" or "b58996c504c5638798eb6b511e6f49af" in lines
        again = ours.run("suppressions", "export", "--purpose", "x", "--output", str(file), check=False)
        assert again.returncode == 1, "nothing is overwritten"
        told = theirs.json("suppressions", "import", str(file), "--scope", "all-marketing")
        assert told["format"] == form
        theirs.opt_in(*people)
        assert [theirs.outcome(one) for one in people] == ["unsubscribed"] * 3
        theirs.run("suppressions", "undo", str(told["import"]))
    mixed = ours.folder / "mixed.txt"
    mixed.write_text("b58996c504c5638798eb6b511e6f49af\nuser@example.com\n")
    assert theirs.json("suppressions", "import", str(mixed), "--scope", "all-marketing")["errors"]


@pytest.mark.req("SUP-13")
def test_who_has_been_erased_is_in_no_list(gateway: Gateway, someone: Someone) -> None:
    gone = someone()
    gateway.opt_in(gone, topic=TOPIC)
    gateway.run("person", "erase", gone)
    for form in ("csv", "plain", "md5", "sha256"):
        text = gateway.run("suppressions", "export", "--purpose", "test", "--format", form).stdout
        assert gone not in text and hashlib.md5(gone.encode()).hexdigest() not in text
