"""What becomes of mail after its 250: when it is tried again, what goes first, who is told, what an operator can do.

The judge stands outside: what a strict sink was offered and took, what the reports say that came there, and what the
command line answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice, newsletter
from tests.sink import Sink

BACKLOG = int(os.environ.get("ASSENT_BACKLOG", "80"))
STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    [streams.alarm]
    class = "breach-notice"
    from = ["security@example.com"]
"""


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one worker with an impatient schedule, and a login for breach notices."""
    folder = tmp_path_factory.mktemp("delivery") / "house"
    running = Gateway(folder, shared_sink.url, sections={"streams": STREAMS}).prepare()
    running.add_login("alarm", "alarm")
    running.opt_in(*readers(), *at("slow.example", 3), *at("quick.example", 3))
    yield running.start()
    running.close()


def readers() -> list[str]:
    return at("example.org", 100)


def at(domain: str, count: int) -> list[str]:
    return [f"reader{n}@{domain}" for n in range(count)]


def settled(gateway: Gateway, seconds: float = 60) -> None:
    eventually(lambda: gateway.json("queue", "list") == [], seconds)


def notice(to: str) -> bytes:
    return invoice(to).replace(b"billing@example.com", b"security@example.com").replace(b"invoice 4711", b"account")


@pytest.mark.req("OUT-17")
def test_a_backlog_of_slow_promotion_does_not_delay_an_invoice_or_a_breach_notice(house: Gateway, sink: Sink) -> None:
    leaver, customer, *_ = readers()
    house.run("suppressions", "add", leaver, "--scope", "all-marketing", "--reason", "objected")
    sink.on("MAIL", delay=4, containing="letters@news")
    people = [one for one in readers() if one != leaver]
    for start in range(0, BACKLOG, len(people)):
        accepted = house.submit(newsletter("all@news.example.com"), people[: BACKLOG - start])
        assert accepted == {"": accepted[""]} and accepted[""][0] == 250
    eventually(lambda: len([one for one in sink.commands if one.startswith("MAIL")]) >= 18)
    warned = house.submit(notice(leaver), [leaver], login="alarm", sender="security@example.com")
    billed = house.submit(invoice(customer), [customer], login="shop", sender="billing@example.com")
    assert (warned[""][0], billed[""][0]) == (250, 250)
    first = {one.recipients for one in sink.wait_for(2)[:2]}
    assert first == {(leaver,), (customer,)}
    sink.normal()
    settled(house, 60 + BACKLOG / 20)
    assert len(sink.messages) == BACKLOG + 2


@pytest.mark.req("OUT-16")
def test_a_destination_that_asks_us_to_slow_down_gets_promotion_more_slowly_and_nobody_else_does(
    house: Gateway, sink: Sink
) -> None:
    slow, quick = at("slow.example", 3), at("quick.example", 3)
    sink.on("RCPT", "421 4.7.28 unusual rate of mail", containing="@slow.example")
    began = time.time()
    assert house.submit(newsletter("all@news.example.com"), [*slow, *quick])[""][0] == 250
    taken = sink.wait_for(len(quick))
    assert sorted(one.recipients[0] for one in taken) == quick
    time.sleep(max(0.0, began + 4 - time.time()))
    early = [person for _, person in sink.attempts if person in slow]
    assert sorted(early) == slow, "the schedule alone would have tried each of them three times by now"
    invoiced = house.submit(invoice(slow[0]), [slow[0]], login="shop", sender="billing@example.com")
    assert invoiced[""][0] == 250
    eventually(lambda: [person for _, person in sink.attempts].count(slow[0]) > 1, 2)
    sink.normal()
    settled(house)
    assert sorted(one.recipients[0] for one in sink.messages) == sorted([*slow, slow[0], *quick])
