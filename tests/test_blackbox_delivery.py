"""What becomes of mail after its 250: when it is tried again, what goes first, who is told, what an operator can do.

The judge stands outside: what a strict sink was offered and took, what the reports say that came there, and what the
command line answers.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.delivery_under_test import LETTERS, STREAMS, at, impatient, readers, settled, tell, the_report
from tests.faketime import shifted
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.reports import read_report
from tests.sink import Sink

BACKLOG = int(os.environ.get("ASSENT_BACKLOG", "80"))


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = impatient(tmp_path_factory.mktemp("delivery") / "house", shared_sink)
    running.opt_in(*readers(), *at("slow.example", 2), *at("quick.example", 3))
    yield running.start()
    running.close()


def notice(to: str) -> bytes:
    return invoice(to).replace(b"billing@example.com", b"security@example.com").replace(b"invoice 4711", b"account")


@pytest.mark.req("OUT-17", "POL-20")
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
    slow, quick = at("slow.example", 2), at("quick.example", 3)
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


# when it is tried again


def gaps(sink: Sink, recipient: str) -> list[float]:
    """Return the seconds between one attempt and the next."""
    times = [at for at, person in sink.attempts if person == recipient]
    return [after - before for before, after in pairwise(times)]


@pytest.mark.req("OUT-03")
def test_waits_grow_as_configured_and_promotion_may_give_up_sooner(make_gateway: MakeGateway, sink: Sink) -> None:
    smarthosts = f"""
        [smarthosts.default]
        urls = ["{sink.url}"]
        retry = ["1s", "2s", "4s"]
        give_up_after = "9s"
    """
    streams = STREAMS.replace("[streams.billing]", 'give_up_after = "3s"\n    [streams.billing]')
    gateway = make_gateway({"smarthosts": smarthosts, "streams": streams})
    gateway.opt_in("news@example.org")
    gateway.start()
    sink.on("RCPT", "451 4.2.1 later", containing="@example.org")
    began = time.time()
    tell(gateway, {"bill@example.org": ""})
    news = newsletter("news@example.org")
    tell(gateway, {"news@example.org": ""}, message=news, login="news", sender=LETTERS)
    about_news, about_bill = sink.wait_for(2, 60)
    assert (about_news.recipients, about_bill.recipients) == ((LETTERS,), ("billing@example.com",))
    assert about_news.at - began >= 3 and about_bill.at - began >= 9
    for taken, recipient in ((about_news, "news@example.org"), (about_bill, "bill@example.org")):
        report = read_report(taken.content)
        assert f"<{recipient}>: tried until its time was over, last answered 451 4.2.1 later" in report.text
        fields = report.of(recipient)
        assert (fields["Action"], fields["Status"]) == ("failed", "4.4.7")
        assert fields["Diagnostic-Code"] == "smtp; 451 4.2.1 later"
    waits = gaps(sink, "bill@example.org")
    assert len(waits) >= 3 and all(wait >= step - 0.1 for wait, step in zip(waits, (1, 2, 4), strict=False)), waits
    assert len(gaps(sink, "news@example.org")) >= 2
    assert gateway.json("queue", "list") == []


@pytest.mark.req("OUT-03")
def test_usually_mail_is_tried_after_1_5_15_and_30_minutes_then_hourly_for_five_days(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway({"smarthosts": f'[smarthosts.default]\nurls = ["{sink.url}"]'})
    sink.on("RCPT", "451 4.2.1 later", containing="@example.org")
    gateway.start()
    tell(gateway, {"bill@example.org": ""})
    eventually(lambda: len(sink.attempts) == 1)
    gateway.stop()
    for minutes, is_due in [(0.5, False), (1.5, True), (7, True), (56, True), (7201, True)]:
        gateway.environment = shifted(f"+{round(minutes * 60)}")
        before = len(sink.attempts)
        gateway.start()
        if not is_due:
            tell(gateway, {"mark@example.net": ""})
        eventually(lambda before=before: len(sink.attempts) > before)
        gateway.stop()
        last = sink.attempts[-1][1]
        assert last == ("bill@example.org" if is_due else "mark@example.net"), f"after {minutes} minutes"
    gateway.start()
    report = the_report(gateway, sink)
    assert report.of("bill@example.org")["Status"] == "4.4.7"


# what an operator can do


def waiting(gateway: Gateway, queued: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = gateway.json("queue", "show", queued)
    return rows


def test_what_is_held_does_not_leave_before_it_is_released(house: Gateway, sink: Sink) -> None:
    reader, other = readers()[30:32]
    sink.hold()
    queued = tell(house, {reader: ""}, message=newsletter(reader), login="news", sender=LETTERS)
    assert house.json("queue", "hold", queued) == {"held": 1}
    eventually(lambda: [one["state"] for one in waiting(house, queued)] == ["held"])
    again = house.run("queue", "hold", queued, check=False)
    assert (again.returncode, again.stdout) == (1, "nothing of that waits that is not held already\n")
    tell(house, {other: ""}, message=newsletter(other), login="news", sender=LETTERS)
    eventually(lambda: other in [recipient for _, recipient in sink.attempts])
    sink.clear()
    sink.release()
    assert sink.wait_for(1)[0].recipients == (other,), "which is due after the one that is held would be"
    assert {recipient for _, recipient in sink.attempts} == {other}
    (row,) = house.json("queue", "list", "--held")
    assert (row["message"], row["recipient"], row["due"]) == (queued, reader, None)
    assert house.json("queue", "release", queued) == {"released": 1}
    assert sink.wait_for(2)[1].recipients == (reader,)
    settled(house)
    assert house.run("queue", "release", queued, check=False).returncode == 1


def test_a_whole_stream_is_held_also_what_a_worker_has_in_memory_already(house: Gateway, sink: Sink) -> None:
    people = readers()[40:90]
    sink.on("MAIL", delay=3, containing=LETTERS)
    assert house.submit(newsletter("all@news.example.com"), people)[""][0] == 250
    eventually(lambda: len([one for one in sink.commands if LETTERS in one]) >= 18)
    assert 0 < house.json("queue", "hold", "--stream", "newsletter")["held"] <= len(people)
    invoiced = house.submit(invoice(people[0]), [people[0]], login="shop", sender="billing@example.com")
    assert invoiced[""][0] == 250
    eventually(lambda: {one["state"] for one in house.json("queue", "list")} == {"held"}, 30)
    sink.normal()
    left = [one["recipient"] for one in house.json("queue", "list", "--stream", "newsletter")]
    gone = [one.recipients[0] for one in sink.messages if one.envelope_from == LETTERS]
    assert len(gone) <= 18 + 1 and sorted([*left, *gone]) == sorted(people)
    assert len(sink.messages) == len(gone) + 1, "the invoice was not held"
    assert house.json("queue", "release", "--stream", "newsletter")["released"] == len(left)
    settled(house)
    assert sorted(one.recipients[0] for one in sink.messages) == sorted([*people, people[0]])


def test_what_is_dropped_is_recorded_and_its_submitter_is_told_why(house: Gateway, sink: Sink) -> None:
    sink.hold()
    queued = tell(house, {"one@example.org": "", "two@example.org": "", "three@example.org": "NOTIFY=NEVER"})
    assert house.run("queue", "drop", queued, check=False).returncode == 2, "there must be a reason"
    told = house.json("queue", "drop", queued, "--why", "the wrong price list")
    assert told == {"dropped": 3, "under_way": 0}
    sink.release()
    report = the_report(house, sink)
    assert report.named == ["one@example.org", "two@example.org"]
    assert report.of("one@example.org")["Diagnostic-Code"] == "smtp; 550 5.7.1 dropped: the wrong price list"
    assert len(sink.messages) == 1
    decision = re.search(r"decision (\w{26})", report.text)[1]
    (drop,) = [line for line in house.json("explain", decision) if line["kind"] == "drop"]
    assert (drop["outcome"], drop["sentence"]) == ("failed", "the wrong price list")
    assert drop["by"]
    assert house.run("queue", "drop", queued, "--why", "again", check=False).returncode == 1


def peak(house: Gateway, *arguments: str) -> int:
    """Run `assent …`, which must succeed; return the most memory that it had, in KiB."""
    with subprocess.Popen(house.command(*arguments), cwd=house.folder, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss


def test_a_message_to_a_thousand_costs_the_commands_about_it_no_more_memory(house: Gateway, sink: Sink) -> None:
    sink.hold()
    queued = tell(house, dict.fromkeys(at("many.example", 1000), "NOTIFY=NEVER"))
    at_rest = peak(house, "logins", "list")
    assert peak(house, "queue", "show", queued) < at_rest + 32 * 1024
    assert peak(house, "queue", "drop", queued, "--why", "a mistake") < at_rest + 32 * 1024
    sink.release()
    settled(house)
    assert not sink.messages


def test_the_queue_shows_what_waits_and_why(house: Gateway, sink: Sink) -> None:
    sink.on("RCPT", "452 4.2.2 the mailbox is full", containing="full@")
    queued = tell(house, {"full@example.org": "", "there@example.org": ""})
    eventually(lambda: len(waiting(house, queued)) == 1 and waiting(house, queued)[0]["attempts"])
    row = waiting(house, queued)[0]
    about = {name: row[name] for name in ("message", "recipient", "stream", "class", "login", "reverse_path")}
    assert about == {
        "message": queued,
        "recipient": "full@example.org",
        "stream": "billing",
        "class": "account",
        "login": "shop",
        "reverse_path": "<billing@example.com>",
    }
    assert (row["outcome"], row["reply"]) == ("deferred", "452 4.2.2 the mailbox is full")
    for word in (queued, "full@example.org", "billing", "the mailbox is full"):
        assert word in house.run("queue", "show", queued).stdout
    for command in (
        ["show"],
        ["hold"],
        ["drop", "--why", "x"],
        ["retry", "nonsense"],
        ["hold", queued, "--stream", "a"],
    ):
        assert house.run("queue", *command, check=False).returncode == 2
    house.run("queue", "hold", queued)
    eventually(lambda: waiting(house, queued)[0]["state"] == "held")
    sink.normal()
    assert house.json("queue", "retry", queued) == {"retried": 1}
    settled(house)
