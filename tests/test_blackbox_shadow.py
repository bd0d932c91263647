"""A stream in shadow mode, from outside: what it lets go, what it still refuses, and how it ends by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, newsletter, token_of
from tests.sink import Sink

Someone = Callable[[], str]

TOPICS = f"""
    [topics.{TOPIC}]
    name = "Product announcements"
    max_age = "12mo"
    """


def ahead(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def streams(until: str, mode: str = "shadow") -> str:
    return f"""
        [streams.newsletter]
        class = "promotional"
        topics = ["{TOPIC}"]
        from = ["*@news.example.com"]
        mode = "{mode}"
        {until and f"until = {until}"}
        [streams.billing]
        class = "account"
        from = ["billing@example.com"]
        """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("shadow") / "house"
    running = Gateway(folder, shared_sink.url, sections={"topics": TOPICS, "streams": streams(ahead(30))}, workers=2)
    yield running.prepare().start()
    running.close()


def decided_at_the_door(house: Gateway, message: bytes, recipient: str) -> dict[str, object]:
    """Return the line of the decision that let a message in."""
    message_id = re.findall(rb"(?im)^message-id: (<.*>)", message)[0].decode()
    lines = house.json("explain", message_id, recipient)
    (door,) = [one for one in lines if one["kind"] == "door"]
    return dict(door)


def lacking(house: Gateway, someone: Someone) -> dict[str, str]:
    """Return one person for each way of not having opted in, as things stand."""
    stranger, unproven, lapsed = someone(), someone(), someone()
    old = (datetime.now(UTC) - timedelta(days=400)).date().isoformat()
    house.run("consent", "record", lapsed, "--topic", TOPIC, "--basis", "express", "--at", old)
    listed = house.folder / f"{unproven}.txt"
    listed.write_text(f"email,name,attributes,status\n{unproven},,,enabled\n")
    house.run("consent", "import", str(listed), "--topic", TOPIC)
    return {"no-consent": stranger, "unproven": unproven, "expired": lapsed}


@pytest.mark.req("OPS-04")
def test_who_has_not_opted_in_gets_it_and_the_verdict_is_recorded(house: Gateway, sink: Sink, someone: Someone) -> None:
    for reason, person in lacking(house, someone).items():
        message = newsletter(person)
        assert house.submit(message, [person])[""][0] == 250
        received = sink.wait_for(1)[0]
        sink.clear()
        door = decided_at_the_door(house, message, person)
        assert (door["action"], door["reason"], door["shadow"]) == ("send", reason, True)
        assert house.one_click(token_of(received.content)).status == 200, "the link names whoever got it"
        assert house.outcome(person) == "unsubscribed"


@pytest.mark.req("OPS-04")
def test_a_no_is_a_no_in_shadow_mode_too(house: Gateway, someone: Someone) -> None:
    for reason in ("unsubscribed", "objected", "complained", "minor", "bounced"):
        person = someone()
        scope = "address" if reason == "bounced" else "all-marketing"
        house.run("suppressions", "add", person, "--scope", scope, "--reason", reason)
        assert house.outcome(person) == reason
    erased = someone()
    house.opt_in(erased)
    house.run("person", "erase", erased)
    assert house.outcome(erased) == "erased"


def test_status_and_metrics_tell_when_it_ends_and_for_how_many(house: Gateway, sink: Sink, someone: Someone) -> None:
    first, second = someone(), someone()
    assert [house.outcome(one) for one in (first, second, first)] == ["sent"] * 3
    sink.wait_for(3)
    (told,) = house.json("status")["shadow_ends"]
    assert told.startswith(f"newsletter after {ahead(30)}: ") and int(told.split()[-2]) >= 2
    metrics = fetch(f"http://127.0.0.1:{house.console}/metrics").text
    assert 'assent_shadow_days_left{stream="newsletter"} 30' in metrics


def to_be_refused(house: Gateway) -> int:
    """Return how many people `assent status` says will be refused when shadow mode ends."""
    (told,) = house.json("status")["shadow_ends"]
    return int(told.split()[-2])


@pytest.mark.req("OPS-04")
def test_who_opts_in_or_says_no_meanwhile_is_no_more_among_those_who_will_be_refused(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    stays, agrees, objects, erased = (someone() for _ in range(4))
    before = to_be_refused(house)
    for one in (stays, agrees, objects, erased):
        assert house.outcome(one) == "sent"
    sink.wait_for(4)
    eventually(lambda: to_be_refused(house) == before + 4)
    house.opt_in(agrees)
    house.run("suppressions", "add", objects, "--scope", "all-marketing", "--reason", "objected")
    house.run("person", "erase", erased)
    assert to_be_refused(house) == before + 1


@pytest.mark.req("OPS-04")
def test_who_got_the_last_of_it_longer_ago_than_shadow_mode_may_last_is_not_counted(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    """Or each look would read the decisions of years. The command alone is told another day and another end."""
    assert house.outcome(someone()) == "sent"
    sink.wait_for(1)
    was = house.config.read_text()
    try:
        house.config.write_text(was.replace(ahead(30), ahead(95)))
        for shift, count in (("+50d", range(1, 1000)), ("+93d", [0])):
            house.environment = shifted(shift)
            assert to_be_refused(house) in count
    finally:
        house.environment = {}
        house.config.write_text(was)


@pytest.mark.req("OPS-04")
def test_after_the_last_day_it_enforces_by_itself(make_gateway: MakeGateway, sink: Sink, someone: Someone) -> None:
    house = make_gateway({"topics": TOPICS, "streams": streams(ahead(5))})
    house.start()
    strangers = [someone() for _ in range(3)]
    assert [house.outcome(one) for one in strangers] == ["sent"] * 3
    sink.wait_for(3)
    house.stop()
    for shift, alarm in (("+4d", f"ends with {ahead(5)}: 3 people"), ("+6d", f"since {ahead(5)} was over: 3 people")):
        house.environment = shifted(shift)
        house.start()
        eventually(lambda alarm=alarm: alarm in house.log.read_text())
        assert house.outcome(strangers[0]) == ("sent" if shift == "+4d" else "no-consent")
        house.stop()


@pytest.mark.req("OPS-04")
def test_what_waits_when_it_ends_is_decided_again(make_gateway: MakeGateway, sink: Sink, someone: Someone) -> None:
    house = make_gateway({"topics": TOPICS, "streams": streams(ahead(1))})
    house.start()
    sink.on("MAIL", "451 4.3.0 later")
    stranger = someone()
    message = newsletter(stranger)
    assert house.submit(message, [stranger])[""][0] == 250
    house.stop()
    sink.normal()
    sink.clear()
    house.environment = shifted("+2d")
    house.start()
    eventually(lambda: house.json("status")["queued_recipients"] == 0)
    message_id = re.findall(rb"(?im)^message-id: (<.*>)", message)[0].decode()
    last = eventually(lambda: [one for one in house.json("explain", message_id, stranger) if "outcome" in one][-1])
    assert (last["outcome"], last["reason"]) == ("suppressed", "no-consent")
    assert not [one for one in sink.messages if stranger in map(str, one.recipients)]


@pytest.mark.req("OPS-04")
@pytest.mark.parametrize(
    ("until", "said"),
    [("", "in shadow mode without an end"), (ahead(61), "more than 60 days ahead")],
)
def test_shadow_mode_without_a_near_end_is_no_configuration(make_gateway: MakeGateway, until: str, said: str) -> None:
    house = make_gateway()
    house.write_config(streams=streams(until))
    done = house.run("check", check=False)
    assert done.returncode == 78
    assert said in done.stdout + done.stderr
