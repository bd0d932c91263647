"""What becomes of mail after its 250: when it is tried again, what goes first, who is told, what an operator can do.

The judge stands outside: what a strict sink was offered and took, what the reports say that came there, and what the
command line answers.
"""

from __future__ import annotations

import os
import re
import smtplib
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import TOPIC, Gateway, eventually, field_of, invoice, newsletter
from tests.reports import Report, is_report, read_report
from tests.sink import OFFERED, Sink

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
    [streams.robot]
    class = "system"
    from = ["robot@example.com"]
"""


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one worker with an impatient schedule, and a login for each kind of mail."""
    folder = tmp_path_factory.mktemp("delivery") / "house"
    smarthosts = f"""
        [smarthosts.default]
        urls = ["{shared_sink.url}"]
        retry = ["1s", "1s", "2s"]
        warn_after = "2s"
    """
    sections = {"smarthosts": smarthosts, "streams": STREAMS}
    running = Gateway(folder, shared_sink.url, sections=sections).prepare()
    for name, streams in {"alarm": "alarm", "robot": "robot", "both": "newsletter,billing"}.items():
        running.add_login(name, streams)
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
        give_up_after = "12s"
    """
    streams = STREAMS.replace("[streams.billing]", 'give_up_after = "4s"\n    [streams.billing]')
    gateway = make_gateway({"smarthosts": smarthosts, "streams": streams})
    gateway.opt_in("news@example.org")
    gateway.start()
    sink.on("RCPT", "451 4.2.1 later", containing="@example.org")
    began = time.time()
    tell(gateway, {"bill@example.org": ""})
    letters = "letters@news.example.com"
    news = newsletter("news@example.org")
    tell(gateway, {"news@example.org": ""}, message=news, login="news", sender=letters)
    about_news, about_bill = sink.wait_for(2, 60)
    assert (about_news.recipients, about_bill.recipients) == ((letters,), ("billing@example.com",))
    assert about_news.at - began >= 4 and about_bill.at - began >= 12
    for taken, recipient in ((about_news, "news@example.org"), (about_bill, "bill@example.org")):
        fields = read_report(taken.content).of(recipient)
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
    for minutes, is_due in [(0.5, False), (1.5, True), (7, True), (24, True), (56, True), (118, True), (7201, True)]:
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


# who is told


def tell(
    gateway: Gateway,
    recipients: dict[str, str],
    *,
    message: bytes = b"",
    options: str = "",
    login: str = "shop",
    sender: str = "billing@example.com",
) -> str:
    """Submit one message with DSN parameters for each recipient; return the id under which it was queued."""
    with gateway.smtp(login) as client:
        client.command_encoding = "utf-8"
        assert client.docmd(f"MAIL FROM:<{sender}> {options}".strip())[0] == 250
        for recipient, asked in recipients.items():
            code, text = client.docmd(f"RCPT TO:<{recipient}> {asked}".strip())
            assert code == 250, text
        code, text = client.data(message or invoice(next(iter(recipients))))
        assert code == 250, text
        return text.decode().split()[-1]


def reports(sink: Sink) -> list[Report]:
    """Return every report that was taken; each came from the null sender, for one recipient."""
    found = [one for one in sink.messages if is_report(one.content)]
    assert all(one.envelope_from == "" and len(one.recipients) == 1 for one in found)
    return [read_report(one.content) for one in found]


def the_report(gateway: Gateway, sink: Sink, *, to: str = "billing@example.com") -> Report:
    """Return the one report, once nothing waits any more."""
    settled(gateway)
    (found,) = [one for one in sink.messages if is_report(one.content)]
    assert found.recipients == (to,)
    return reports(sink)[0]


WITHOUT_DSN = tuple(one for one in OFFERED if one != "DSN")


@pytest.fixture
def old_sink(house: Gateway, sink: Sink) -> Iterator[Sink]:
    """The smarthost without DSN: what it takes, it says no more about."""
    sink.drop_connections()
    sink.offered = WITHOUT_DSN
    yield sink
    sink.drop_connections()
    sink.offered = OFFERED


@pytest.mark.req("OUT-10")
def test_a_success_that_nobody_else_will_report_is_reported_as_relayed(house: Gateway, old_sink: Sink) -> None:
    tell(house, {"asks@example.org": "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Old@example.net", "silent@example.org": ""})
    report = the_report(house, old_sink)
    assert report.named == ["asks@example.org"]
    fields = report.of("asks@example.org")
    assert (fields["Action"], fields["Status"]) == ("relayed", "2.0.0")
    assert fields["Original-Recipient"] == "rfc822; Old@example.net"


@pytest.mark.req("OUT-10")
def test_a_smarthost_that_knows_dsn_reports_the_success_itself(house: Gateway, sink: Sink) -> None:
    tell(house, {"asks@example.org": "NOTIFY=SUCCESS"})
    settled(house)
    (taken,) = sink.messages
    assert (taken.recipients, taken.recipient_options) == (("asks@example.org",), (("NOTIFY=SUCCESS",),))


@pytest.mark.req("OUT-10")
def test_a_failure_is_reported_unless_the_submitter_wants_to_hear_of_none(house: Gateway, sink: Sink) -> None:
    asked = {"usual": "", "failure": "NOTIFY=FAILURE", "success": "NOTIFY=SUCCESS", "never": "NOTIFY=NEVER"}
    sink.on("RCPT", "250 2.1.5 ok", containing="billing@")
    sink.on("RCPT", "550 5.1.1 unknown")
    tell(house, {f"{name}@example.org": notify for name, notify in asked.items()})
    assert the_report(house, sink).named == ["usual@example.org", "failure@example.org"]


@pytest.mark.req("OUT-10")
def test_nobody_hears_of_a_message_for_those_who_want_no_report(house: Gateway, old_sink: Sink) -> None:
    old_sink.on("RCPT", "550 5.1.1 unknown", containing="gone@")
    tell(house, {"gone@example.org": "NOTIFY=NEVER", "there@example.org": "NOTIFY=NEVER"})
    settled(house)
    assert [one.recipients for one in old_sink.messages] == [("there@example.org",)]


@pytest.mark.req("OUT-10")
def test_a_delay_is_reported_once_to_whoever_asked(house: Gateway, sink: Sink) -> None:
    sink.on("RCPT", "451 4.2.2 full", containing="full@", times=4)
    sink.on("RCPT", "451 4.2.2 full", containing="quiet@", times=4)
    tell(house, {"full@example.org": "NOTIFY=DELAY", "quiet@example.org": "", "there@example.org": "NOTIFY=DELAY"})
    report = the_report(house, sink)
    assert "delayed" in report.header["Subject"]
    assert report.named == ["full@example.org"]
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("delayed", "4.2.2")
    assert sorted(one for taken in sink.messages for one in taken.recipients) == [
        *("billing@example.com", "full@example.org", "quiet@example.org", "there@example.org"),
    ]


@pytest.mark.req("OUT-11")
def test_a_report_is_what_the_standards_ask_for(house: Gateway, sink: Sink) -> None:
    gone = "Bob.Smith@Example.ORG"
    sink.on("RCPT", "550 5.7.1 we do not know you", containing=gone)
    message = invoice(gone)
    before = datetime.now(UTC)
    tell(house, {gone: ""}, message=message, options="ENVID=Q+2B1")
    report = the_report(house, sink)
    assert report.header["Auto-Submitted"] == "auto-replied"
    assert report.header["To"] == "billing@example.com"
    assert report.header["From"].addresses[0].addr_spec == "postmaster@relay.example.com"
    assert report.about.keys() == {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert (report.about["Original-Envelope-Id"], report.about["Reporting-MTA"]) == ("Q+1", "dns; relay.example.com")
    assert abs(parsedate_to_datetime(report.about["Arrival-Date"]) - before) < timedelta(minutes=1)
    assert report.recipients == [
        {
            "Final-Recipient": f"rfc822; {gone}",
            "Action": "failed",
            "Status": "5.7.1",
            "Diagnostic-Code": "smtp; 550 5.7.1 we do not know you",
        }
    ]
    assert report.returned_kind == "text/rfc822-headers"
    assert field_of(report.returned, "Message-ID") == field_of(message, "Message-ID")
    assert b"The amount" not in report.returned


@pytest.mark.req("OUT-11")
def test_whoever_asks_for_the_whole_message_gets_it_back(house: Gateway, sink: Sink) -> None:
    sink.on("RCPT", "550 5.1.1 unknown", containing="gone@")
    message = invoice("gone@example.org").replace(b"10.00", "10,00 €".encode()).replace(b"us-ascii", b"utf-8")
    tell(house, {"gone@example.org": ""}, message=message, options="RET=FULL BODY=8BITMIME")
    report = the_report(house, sink)
    assert (report.returned_kind, report.returned) == ("message/rfc822", message)


@pytest.mark.req("OUT-12")
def test_nobody_who_did_not_log_in_is_ever_sent_a_report(house: Gateway, sink: Sink) -> None:
    victim = "victim@elsewhere.example"
    with house.smtp(login=None) as stranger:
        assert stranger.mail(victim)[0] == 530
    with house.smtp("shop") as tool:
        assert tool.mail(victim)[0] == 550
    with smtplib.SMTP("127.0.0.1", house.feedback, timeout=20) as stranger:
        stranger.ehlo()
        stranger.mail(victim)
        assert stranger.rcpt("nobody@bounce.example.com")[0] == 550
        assert stranger.rcpt("someone@elsewhere.example")[0] == 550
    settled(house)
    assert sink.commands == []


@pytest.mark.req("OUT-13")
def test_all_who_failed_stand_in_one_report_though_they_failed_at_different_times(house: Gateway, sink: Sink) -> None:
    people = readers()[10:14]
    sink.on("RCPT", "550 5.1.1 unknown", containing=people[0])
    sink.on("RCPT", "451 4.2.1 later", containing=people[1], times=2)
    sink.on("RCPT", "550 5.1.1 unknown after all", containing=people[1])
    sink.on("RCPT", "451 4.2.1 later", containing=people[2], times=3)
    letters = "letters@news.example.com"
    tell(
        house,
        dict.fromkeys(people, ""),
        message=newsletter("all@news.example.com"),
        options="ENVID=one",
        login="news",
        sender=letters,
    )
    report = the_report(house, sink, to=letters)
    assert report.about["Original-Envelope-Id"] == "one"
    assert report.named == people[:2]
    assert {one.recipients[0] for one in sink.messages} == {letters, people[2], people[3]}


@pytest.mark.req("SMTP-21")
def test_whoever_is_refused_after_data_is_reported_and_the_others_get_the_message(house: Gateway, sink: Sink) -> None:
    reader, stranger, silent = readers()[20], "stranger@example.org", "silent@example.org"
    letters = "letters@news.example.com"
    asked = {reader: "", stranger: "", silent: "NOTIFY=NEVER"}
    tell(house, asked, message=newsletter(reader), login="both", sender=letters)
    report = the_report(house, sink, to=letters)
    assert report.named == [stranger]
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("failed", "5.7.1")
    assert "no-consent" in report.recipients[0]["Diagnostic-Code"]
    assert {one.recipients[0] for one in sink.messages} == {letters, reader}
    decision = re.search(r"decision (\w{26})", report.text)[1]
    assert house.json("explain", decision)[0]["reason"] == "no-consent"


@pytest.mark.req("SMTP-21")
def test_where_everybody_is_refused_after_data_that_is_the_answer(house: Gateway, sink: Sink) -> None:
    strangers = ["stranger1@example.org", "stranger2@example.org"]
    replies = house.submit(newsletter(strangers[0]), strangers, login="both")
    assert replies[""][0] == 550 and replies[""][1].startswith("5.7.1 no-consent")
    settled(house)
    assert sink.messages == []


@pytest.mark.req("SMTP-18")
def test_a_message_from_the_null_sender_goes_as_it_is_and_its_failure_is_for_the_postmaster(
    house: Gateway, sink: Sink
) -> None:
    sink.on("RCPT", "550 5.1.1 unknown", containing="gone@")
    message = invoice("gone@example.org").replace(b"billing@", b"robot@")
    queued = tell(house, {"gone@example.org": "", "there@example.org": ""}, message=message, login="robot", sender="")
    settled(house)
    (taken,) = sink.messages
    assert (taken.envelope_from, taken.recipients) == ("", ("there@example.org",))
    (line,) = [line for line in house.log.read_text().splitlines() if queued in line]
    assert "nobody can be told" in line and "550 5.1.1 unknown" in line
    assert "gone@" not in line
    told = house.json("explain", re.search(r"decision (\w{26})", line)[1])
    assert [one["outcome"] for one in told if one["kind"] == "attempt"] == ["failed"]


@pytest.mark.req("SMTP-18")
def test_a_report_that_fails_makes_no_report(house: Gateway, sink: Sink) -> None:
    people = [f"gone{n}@example.org" for n in range(5)]
    sink.on("RCPT", "550 5.1.1 unknown")
    for one in people:
        tell(house, {one: ""})
    settled(house)
    assert sink.messages == []
    assert Counter(person for _, person in sink.attempts) == {**dict.fromkeys(people, 1), "billing@example.com": 5}


@pytest.mark.req("I18N-06")
def test_an_internationalised_recipient_is_reported_as_it_is_to_whoever_takes_utf_8(house: Gateway, sink: Sink) -> None:
    sink.on("RCPT", "550 5.1.1 niemand da: ü".encode() + b"\r\n", containing="δοκιμή@")
    asked = r"ORCPT=utf-8;\x{3B4}οκιμή@παράδειγμα.example"
    tell(house, {"δοκιμή@bücher.example": asked}, options="SMTPUTF8 BODY=8BITMIME")
    report = the_report(house, sink)
    assert report.status_kind == "message/global-delivery-status"
    fields = report.of("δοκιμή@bücher.example")
    assert fields["Final-Recipient"] == "utf-8; δοκιμή@bücher.example"
    assert fields["Original-Recipient"] == "utf-8; δοκιμή@παράδειγμα.example"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 niemand da: ü"


# what an operator can do


def waiting(gateway: Gateway, queued: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = gateway.json("queue", "show", queued)
    return rows


def test_what_is_held_does_not_leave_before_it_is_released(house: Gateway, sink: Sink) -> None:
    reader = readers()[30]
    sink.hold()
    queued = tell(house, {reader: ""}, message=newsletter(reader), login="news", sender="letters@news.example.com")
    assert house.json("queue", "hold", queued) == {"held": 1}
    eventually(lambda: [one["state"] for one in waiting(house, queued)] == ["held"])
    sink.release()
    sink.clear()
    time.sleep(3)
    assert sink.attempts == []
    (row,) = house.json("queue", "list", "--held")
    assert (row["message"], row["recipient"], row["due"]) == (queued, reader, None)
    assert house.json("queue", "release", queued) == {"released": 1}
    assert sink.wait_for(1)[0].recipients == (reader,)
    settled(house)
    assert house.run("queue", "release", queued, check=False).returncode == 1


def test_a_whole_stream_is_held_also_what_a_worker_has_in_memory_already(house: Gateway, sink: Sink) -> None:
    people = readers()[40:90]
    letters = "letters@news.example.com"
    sink.on("MAIL", delay=3, containing=letters)
    assert house.submit(newsletter("all@news.example.com"), people)[""][0] == 250
    eventually(lambda: len([one for one in sink.commands if letters in one]) >= 18)
    assert 0 < house.json("queue", "hold", "--stream", "newsletter")["held"] <= len(people)
    invoiced = house.submit(invoice(people[0]), [people[0]], login="shop", sender="billing@example.com")
    assert invoiced[""][0] == 250
    eventually(lambda: {one["state"] for one in house.json("queue", "list")} == {"held"}, 30)
    sink.normal()
    left = [one["recipient"] for one in house.json("queue", "list", "--stream", "newsletter")]
    gone = [one.recipients[0] for one in sink.messages if one.envelope_from == letters]
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
    sink.normal()
    assert house.json("queue", "retry", queued)["retried"] <= 1
    settled(house)
