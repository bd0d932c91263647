"""What the law gives a time for, from outside: answers to people, and the report of a breach.

The operator's commands are asked as on a later day; the running program is started on one.
"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.sink import Sink

Someone = Callable[[], str]
DAY = timedelta(days=1)


@pytest.fixture
def house(make_gateway: MakeGateway) -> Gateway:
    return make_gateway()


@contextmanager
def days_later(house: Gateway, days: float) -> Iterator[None]:
    house.environment = shifted(f"+{days}d")
    try:
        yield
    finally:
        house.environment = {}


def deadlines(house: Gateway, days: float) -> list[tuple[str, str]]:
    """Return what `check` says of deadlines so many days ahead: the state, and the words."""
    with days_later(house, days):
        found = house.run("--json", "check", check=False)
    told = [one for one in json.loads(found.stdout) if one["what"] == "deadline"]
    assert found.returncode == 1 or not [one for one in told if one["state"] == "problem"]
    return [(one["state"], one["told"]) for one in told]


def answered(house: Gateway, *arguments: str) -> int:
    return house.run("requests", "answer", *arguments, check=False).returncode


@contextmanager
def nobody_writes(house: Gateway) -> Iterator[None]:
    """Let whoever wants to write wait, so that all of them have read before one of them writes."""
    with closing(sqlite.connect(str(house.folder / "var" / "assent.db"), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def at_once(house: Gateway, *commands: str) -> list[int]:
    """Run commands at the same moment; return what each exited with."""
    with nobody_writes(house):
        running = [subprocess.Popen(house.command(*one.split()), cwd=house.folder) for one in commands]
        time.sleep(3)
    return [one.wait() for one in running]


@pytest.mark.req("DSR-09", "POL-24")
def test_of_two_operators_at_once_only_the_sooner_one_is_told_that_it_is_done(house: Gateway, someone: Someone) -> None:
    assert sorted(at_once(house, "breach open leak --what one", "breach open leak --what two")) == [0, 1]
    number = house.json("requests", "add", someone(), "--right", "access")["request"]
    answers = {"accepted": "", "refused": " --reason excessive --article GDPR"}
    codes = at_once(house, *(f"requests answer {number} {one}{more}" for one, more in answers.items()))
    (found,) = house.json("requests", "list", "--all")
    assert dict(zip(answers, codes, strict=True)) == {one: int(one != found["answer"]) for one in answers}


@pytest.mark.req("DSR-03", "POL-24")
def test_a_request_is_answered_within_its_month_or_an_alarm_says_so(house: Gateway, someone: Someone) -> None:
    reader = someone()
    added = house.json("requests", "add", reader, "--right", "erasure")
    number = added["request"]
    (open_one,) = house.json("requests", "list")
    assert added["due"] == open_one["due"]
    assert (open_one["address"], open_one["right"], open_one["answer"]) == (reader, "erasure", None)
    assert deadlines(house, 20) == [], "nobody is warned too early"
    ((state, told),) = deadlines(house, 25)
    assert state == "warning" and number in told
    ((state, told),) = deadlines(house, 32)
    assert state == "problem" and "was due" in told
    with days_later(house, 32):
        house.start()
    eventually(lambda: f"request {number} (erasure) was due" in house.log.read_text())
    house.stop()

    assert answered(house, number, "refused", "--reason", "claims are pending") == 2, "it names no article"
    assert answered(house, number, "partly", "--article", "GDPR 17(3)(e)") == 2, "it gives no reason"
    assert answered(house, number, "refused", "--reason", f"ask {reader}", "--article", "GDPR 17(3)(e)") == 2
    assert answered(house, number, "refused", "--reason", "claims are pending", "--article", "GDPR 17(3)(e)") == 0
    assert answered(house, number, "accepted") == 1, "it has been answered"
    assert house.json("requests", "list") == [] and deadlines(house, 32) == []
    (told_of,) = house.json("requests", "list", "--all")
    assert (told_of["answer"], told_of["article"]) == ("refused", "GDPR 17(3)(e)")
    types = [one["type"] for one in house.json("consent", "show", reader)]
    assert types == ["RIGHT_REQUESTED", "RIGHT_ANSWERED"], "it is in the ledger, and in the person's own export"
    assert house.run("ledger", "verify").returncode == 0


@pytest.mark.req("DSR-03")
def test_two_months_more_must_be_taken_within_the_first(house: Gateway, someone: Someone) -> None:
    slow, late = (house.json("requests", "add", someone(), "--right", "access")["request"] for _ in range(2))
    assert house.run("requests", "extend", slow, "--why", "many systems").returncode == 0
    assert house.run("requests", "extend", slow, "--why", "more yet", check=False).returncode == 1
    with days_later(house, 33):
        assert house.run("requests", "extend", late, "--why", "forgotten", check=False).returncode == 1
    assert [told.split()[4] for _, told in deadlines(house, 40)] == [late]
    assert {told.split()[4] for _, told in deadlines(house, 95)} == {slow, late}


@pytest.mark.req("DSR-03", "DSR-04")
def test_a_request_outlives_the_erasure_that_it_asked_for_without_a_name(house: Gateway, someone: Someone) -> None:
    reader = f"asked-{someone()}"
    house.opt_in(reader)
    number = house.json("requests", "add", reader, "--right", "erasure")["request"]
    assert house.json("person", "erase", reader)["traces"] == []
    assert [one["address"] for one in house.json("requests", "list")] == ["(erased)"]
    assert answered(house, number, "accepted") == 0


@pytest.mark.req("DSR-09")
def test_a_breach_must_be_reported_within_72_hours(house: Gateway) -> None:
    house.run("breach", "open", "laptop", "--what", "a laptop with an export was stolen")
    ((state, told),) = deadlines(house, 0)
    assert state == "warning" and "laptop" in told and "2 days" in told
    assert [state for state, _ in deadlines(house, 2.9)] == ["warning"]
    assert [state for state, _ in deadlines(house, 3.1)] == ["problem"]
    for never in ("2020-01-01", f"{datetime.now(UTC) + DAY:%Y-%m-%d}"):
        assert house.run("breach", "reported", "laptop", "--at", never, check=False).returncode == 2
    assert house.run("breach", "reported", "laptop").returncode == 0
    assert deadlines(house, 3.1) == []
    assert house.run("breach", "reported", "never opened", check=False).returncode == 1


def listed(house: Gateway, name: str, *how: str) -> set[str]:
    output = house.folder / f"{len(list(house.folder.glob('*.csv')))}.csv"
    house.run("breach", "affected", name, *how, "--output", str(output))
    assert output.stat().st_mode & 0o077 == 0
    header, *rows = csv.reader(output.open())
    assert header == ["address"]
    return {one for (one,) in rows}


@pytest.mark.req("DSR-09", "POL-20")
def test_whom_a_breach_concerns_can_be_derived_and_told(make_gateway: MakeGateway, sink: Sink) -> None:
    streams = """
        [streams.newsletter]
        class = "promotional"
        topics = ["product-announcements"]
        from = ["*@news.example.com"]
        [streams.billing]
        class = "account"
        from = ["billing@example.com"]
        [streams.security]
        class = "breach-notice"
        from = ["security@example.com"]
        """
    house = make_gateway(sections={"streams": streams}).start()
    house.add_login("alarm", "security")
    planted = {"anna@example.org", "bert@example.org", "carl@example.org"}
    stranger, other, erased = "nobody@example.net", "dora@example.org", "emil@example.org"
    house.opt_in(*planted, other, erased)
    leaked = house.folder / "leaked.txt"
    leaked.write_text(
        f'"Anna";<ANNA@example.org>\nbert@example.org,x\n(carl@example.org)\n{stranger}\nno@@address\n{erased}\n'
    )
    house.run("person", "erase", erased)
    assert house.run("breach", "affected", "leak", "--file", str(leaked), "--output", "x", check=False).returncode == 1
    house.run("breach", "open", "leak", "--what", "a list was published")
    found = listed(house, "leak", "--file", str(leaked))
    assert {one.lower() for one in found} == {*planted, erased}, "whoever was in the file may be told, erased or not"

    moment = datetime.now(UTC)
    house.submit(newsletter("anna@example.org"), ["anna@example.org"])
    house.run("suppressions", "add", "bert@example.org", "--scope", "all-marketing", "--reason", "objected")
    sink.wait_for(1)
    span = ("--from", f"{moment:%Y-%m-%dT%H:%M:%S}", "--until", f"{moment + DAY:%Y-%m-%dT%H:%M:%S}")
    assert listed(house, "leak", *span) >= {"anna@example.org", "bert@example.org"}
    before = ("--from", f"{moment - 2 * DAY:%Y-%m-%dT%H:%M:%S}", "--until", f"{moment - DAY:%Y-%m-%dT%H:%M:%S}")
    assert listed(house, "leak", *before) == set()
    backwards = ("--from", "2026-11-02", "--until", "2026-11-01", "--output", "nobody.csv")
    assert house.run("breach", "affected", "leak", *backwards, check=False).returncode == 2

    notice = invoice().replace(b"billing@", b"security@").replace(b"invoice 4711", b"data")
    selling = notice.rstrip() + b"\r\n-- \r\nUpgrade now and save 20%!\r\n"
    code, text = house.submit(selling, ["anna@example.org"], login="alarm", sender="security@example.com")[""]
    assert (code, text.split(",")[0]) == (550, "5.7.0 content: a breach notice holds no marketing")
    for one in sorted(found):
        assert house.submit(notice, [one], login="alarm", sender="security@example.com")[""][0] == 250
    told = {one.recipients[0].lower() for one in sink.wait_for(1 + len(found))[1:]}
    assert told == {*planted, erased}, "objections and erasures do not keep anybody from being warned"


@pytest.mark.req("DSR-09")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_people_are_found_in_whatever_has_got_out(house: Gateway, encoding: str) -> None:
    planted = {f"reader{number}@example.org" for number in range(9)} | {"o'brien@example.org", "a+b@example.org"}
    house.opt_in(*planted, "b@example.org")
    leaked = house.folder / "leaked"
    leaked.write_text(
        "1|reader0@example.org|reader1@example.org|x\n"
        "GET /join?email=reader2@example.org&to=reader3%40example.org HTTP/1.1\n"
        '{"mail":"reader4@example.org"}{reader5@example.org}\n'
        "INSERT INTO people VALUES ('reader6@example.org');\n"
        "mailto:Reader7@example.org, O'Brien@example.org. home/reader8@example.org\na+b@example.org",
        encoding,
    )
    house.run("breach", "open", "leak", "--what", "a disk was lost")
    assert {one.lower() for one in listed(house, "leak", "--file", str(leaked))} == planted
