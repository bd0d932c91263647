"""How it goes, in numbers that anybody can count again: `assent status`, and the signed report of a month."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, invoice, newsletter, token_of
from tests.sink import Sink

Someone = Callable[[], str]
READER = "reader@example.org"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a known day behind it: five opted in, three leave by three ways, two were never asked."""
    running = Gateway(tmp_path_factory.mktemp("status") / "house", shared_sink.url).prepare().start()
    readers = [f"reader{n}@example.org" for n in range(5)]
    running.opt_in(*readers)
    shared_sink.clear()
    for reader in readers:
        assert running.submit(newsletter(reader), [reader])[""][0] == 250
    tokens = {one.recipients[0]: token_of(one.content) for one in shared_sink.wait_for(5)}
    running.one_click(tokens[readers[0]])
    running.one_click(tokens[readers[0]])
    running.run("suppressions", "add", readers[1], "--scope", "all-marketing", "--reason", "objected")
    running.run("suppressions", "add", readers[2], "--scope", "all-marketing", "--reason", "complained")
    for refused in (*readers[:3], "never1@example.org", "never2@example.org"):
        assert running.submit(newsletter(refused), [refused])[refused][0] == 550
    assert running.submit(invoice(), [readers[0]], login="shop", sender="billing@example.com")[""][0] == 250
    eventually(lambda: running.json("status")["relayed"] == 6)
    yield running
    running.close()


@pytest.mark.req("OPS-02")
def test_status_says_what_came_of_the_day(house: Gateway) -> None:
    told = eventually(lambda: (found := house.json("status"))["submitted"] == 11 and found)
    assert (told["relayed"], told["failed"], told["queued_recipients"]) == (6, 0, 0)
    refused = {(one["reason"], one["login"]): one["recipients"] for one in told["refused"]}
    assert refused == {
        ("no-consent", "news"): 2,
        ("unsubscribed", "news"): 1,
        ("objected", "news"): 1,
        ("complained", "news"): 1,
    }
    assert told["refused_promotion"] == 5
    assert told["opt_outs"] == {"operator": 2, "one-click": 1}, "a second click says nothing new"
    assert (told["opt_ins"], told["complaints"]) == (5, 1)
    assert told["alarms"] == []
    assert told["slowest_opt_out_seconds"] < 5 and told["latest_promotion_after_an_opt_out_seconds"] is None
    assert len(told["timeline"]) == 24
    counted = [sum(step[name] for step in told["timeline"]) for name in ("relayed", "refused", "opt_outs")]
    assert counted == [6, 5, 3]
    page = house.run("status").stdout
    assert "no-consent" in page and "nothing to look at" in page
    (bar,) = re.findall(r"^ +submitted +11 (█+)$", page, re.MULTILINE)
    assert re.search(rf"^ +relayed +6 █{{{round(len(bar) * 6 / 11)}}}$", page, re.MULTILINE)
    assert re.search(r"^ +opt-outs over time +[▁▂▃▄▅▆▇█ ]*█", page, re.MULTILINE)


UNKNOWN = "01K" + "0" * 23


@pytest.mark.req("OPS-02")
@pytest.mark.parametrize(
    ("command", "status", "gives"),
    [
        ("check", 0, list),
        ("status", 0, dict),
        ("explain reader4@example.org --topic product-announcements", 0, dict),
        ("explain reader1@example.org --topic product-announcements", 1, dict),
        (f"explain {UNKNOWN}", 1, dict),
        ("explain nonsense", 2, None),
        ("explain reader4@example.org --topic nonsense", 2, None),
        ("ledger verify", 0, dict),
        ("ledger export --format jsonl", 0, list),
        ("ledger export --format runes", 2, None),
        ("person export reader3@example.org", 0, dict),
        ("person export no-address", 2, None),
        ("person hold reader3@example.org --why a-warrant", 0, dict),
        ("person erase reader3@example.org", 1, dict),
        ("person erase", 2, None),
        ("suppressions check reader1@example.org", 0, list),
        ("suppressions check reader4@example.org", 1, dict),
        ("suppressions undo 99", 1, dict),
        ("consent show reader4@example.org", 0, list),
        ("queue list", 0, list),
        ("streams list", 0, list),
        ("notices list", 0, list),
        ("policy list", 0, list),
        ("queue list --stream nonsense", 2, None),
        ("queue hold --stream nonsense", 2, None),
        ("streams release nonsense", 2, None),
        ("status --since 2099-01-01", 2, None),
        ("unheard-of", 2, None),
    ],
)
def test_commands_give_json_and_say_by_their_exit_status_what_came_of_it(
    house: Gateway, command: str, status: int, gives: type | None
) -> None:
    done = house.run("--json", *command.split(), check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    if gives is None:
        assert (done.stdout, done.stderr.count("Error")) == ("", 1)
    else:
        assert isinstance(json.loads(done.stdout), gives)


@pytest.mark.req("OPS-02", "SMTP-33")
def test_an_alarm_says_why_and_its_command_can_be_typed(make_gateway: MakeGateway, someone: Someone) -> None:
    streams = f'''
        [streams.newsletter]
        class = "promotional"
        topics = ["{TOPIC}"]
        from = ["*@news.example.com"]
        brake = "80% of 10"
        [streams.billing]
        class = "account"
        from = ["billing@example.com"]
    '''
    house = make_gateway({"streams": streams})
    house.start()
    with house.smtp("news") as client:
        client.mail("letters@news.example.com")
        codes = [client.rcpt(someone())[0] for _ in range(14)]
    assert codes == [550] * 10 + [451] * 4
    told = eventually(lambda: (found := house.json("status"))["submitted"] == 14 and found)
    assert told["put_off_at_the_door"] == {"paused": 4}, "what came is refused, put off, or goes"
    alarms = {one["alarm"]: one["command"] for one in told["alarms"]}
    assert "the stream newsletter is paused by the brake: 80% of 10 recipients were refused: login news" in alarms
    (house.folder / "list.csv").write_text(f"{someone()}\n")
    for command in alarms.values():
        words = command.replace("FILE", "list.csv").replace("TOPIC", TOPIC).split()
        assert house.run(*words[1:], check=False).returncode == 0, command


def test_a_smarthost_that_cannot_be_reached_is_told_of_until_it_is_back(tmp_path: Path) -> None:
    with Sink() as sink:
        house = Gateway(tmp_path / "house", sink.url).prepare().start()
        try:
            sink.stop()
            assert house.submit(invoice(), [READER], login="shop", sender="billing@example.com")[""][0] == 250
            (alarm,) = eventually(lambda: house.json("status")["alarms"])
            assert alarm["alarm"].startswith(f"mail waits for a smarthost that cannot be reached: {sink.url}: ")
            assert house.run(*alarm["command"].split()[1:]).stdout.count(READER) == 1
            assert f"{sink.url} does not take more mail now: " in house.log.read_text()
            sink.start()
            sink.wait_for(1, 60)
            eventually(lambda: f"{sink.url} takes mail again" in house.log.read_text())
            assert (
                eventually(lambda: (found := house.json("status"))["queued_recipients"] == 0 and found)["alarms"] == []
            )
        finally:
            house.close()


@pytest.mark.req("OPS-02")
def test_a_wrong_configuration_is_78_and_a_store_that_is_away_is_75(make_gateway: MakeGateway) -> None:
    house = make_gateway()
    text = house.config.read_text()
    house.config.write_text(f'{text}\nunheard_of = "x"\n')
    assert house.run("status", check=False).returncode == 78
    house.config.write_text(text)
    house.folder.joinpath("var", "assent.db").rename(house.folder / "var" / "away.db")
    done = house.run("suppressions", "check", "a@example.org", check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (75, False)
    assert house.json("status")["alarms"] == [{"alarm": "the people store cannot be read", "command": "assent check"}]
    checked = json.loads(house.run("check", "--json", check=False).stdout)
    (lost,) = [one["told"] for one in checked if one["what"] == "store" and one["state"] == "problem"]
    assert lost.endswith("assent.db is not there; put it back, or restore a backup"), "a new one would know no no"


@pytest.mark.parametrize("since", ["today", "24h", "7d", "1w", f"{datetime.now(UTC):%A}", f"{datetime.now(UTC):%F}"])
def test_the_span_of_status_is_said_as_people_say_it(house: Gateway, since: str) -> None:
    assert house.json("status", "--since", since)["submitted"] in (11, 0)
    assert house.json("status", "--since", "0h")["submitted"] == 0


def test_a_span_that_nobody_understands_is_told_so(house: Gateway) -> None:
    done = house.run("status", "--since", "noon", check=False)
    assert done.returncode == 2 and "write fri, today, 36h" in done.stderr


def test_what_needs_a_look_comes_with_a_command(house: Gateway) -> None:
    house.run("streams", "pause", "offers", "--why", "a test")
    house.run("breach", "open", "usb-stick", "--what", "lost on a train")
    received = datetime.now(UTC) - timedelta(days=26)
    house.run("requests", "add", "reader4@example.org", "--right", "access", "--received", f"{received:%F}")
    commands = {one["command"] for one in house.json("status")["alarms"]}
    assert {"assent streams release offers", "assent breach list", "assent requests list"} <= commands
    for command in commands:
        assert house.run(*command.split()[1:], "--help").returncode == 0, "each is a command that there is"
    house.run("streams", "release", "offers")


@pytest.mark.req("OPS-10")
def test_a_month_is_reported_in_numbers_that_the_log_confirms(house: Gateway) -> None:
    house.environment = shifted("+32d")
    signed = house.json("report", "--month", f"{datetime.now(UTC):%Y-%m}")
    house.environment = {}
    told = signed["report"]
    status = house.json("status", "--since", "1w")
    for number in ("submitted", "relayed", "refused", "opt_outs", "complaints", "refused_promotion", "opt_ins"):
        assert told[number] == status[number]
    assert told["is_whole"] and told["controller"]["name"] == "Example Software, Inc."
    assert set(told["sealed_by"]) == {"ledger", "decisions"}
    anchor = [json.loads(line) for line in (house.folder / "var" / "anchor.jsonl").read_text().splitlines()]
    assert {one["chain"] for one in anchor} >= set(told["sealed_by"])


@pytest.mark.req("OPS-10")
def test_a_report_is_signed_and_a_changed_one_is_found(house: Gateway) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    signed = house.json("report", "--month", month)
    assert not signed["report"]["is_whole"], "the month is not over"
    file = house.folder / "report.json"
    file.write_text(json.dumps(signed))
    assert house.run("report", "--verify", str(file)).returncode == 0
    signed["report"]["complaints"] = 0
    file.write_text(json.dumps(signed))
    assert house.run("report", "--verify", str(file), check=False).returncode == 1
    file.write_text("[]")
    assert house.run("report", "--verify", str(file), check=False).returncode == 2
    assert house.run("report", "--month", "2026-13", check=False).returncode == 2
    assert house.run("report", "--month", "2999-01", check=False).returncode == 2


def test_a_report_is_a_page_with_a_picture(house: Gateway) -> None:
    page = house.run("report", "--month", f"{datetime.now(UTC):%Y-%m}", "--html").stdout
    (picture,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    drawn = xml.etree.ElementTree.fromstring(picture)
    assert drawn.get("role") == "img"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    bars = {title for one in drawn.iter("rect") if (title := one.findtext("title"))}
    assert bars == {f"6 relayed, {today}", f"5 refused, {today}", f"3 opt-outs, {today}"}
    assert "<script" not in page and "http://" not in page and "https://example.com/privacy" in page


@pytest.mark.req("OPS-10")
def test_an_opt_out_that_took_long_shows(make_gateway: MakeGateway, sink: Sink, someone: Someone) -> None:
    house = make_gateway().start()
    reader = someone()
    house.opt_in(reader)
    assert house.json("status")["slowest_opt_out_seconds"] is None
    token = house.json("tokens", "add", "desk", "--scopes", "record")["token"]
    said_at = datetime.now(UTC).replace(microsecond=0)
    body = {"address": reader, "channel": "letter", "at": said_at.replace(year=said_at.year - 1).isoformat()}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = fetch(f"http://127.0.0.1:{house.console}/api/v1/withdrawals", "POST", json.dumps(body).encode(), headers)
    assert answer.status == 201, answer.text
    told = house.json("status")
    assert told["slowest_opt_out_seconds"] > 300 * 86400 and told["opt_outs"] == {"letter": 1}
    assert any("opt-out took" in one["alarm"] for one in told["alarms"])
