"""Who is told what became of a message: the reports that come to a strict sink, read as a mail program reads them.

Nothing here looks into the program; that a message from the null sender failed stands in the log that operators read.
"""

from __future__ import annotations

import re
import smtplib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.delivery_under_test import LETTERS, impatient, readers, settled, tell, the_report
from tests.gateway_under_test import Gateway, field_of, invoice, newsletter
from tests.sink import OFFERED, Sink, offering


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = impatient(tmp_path_factory.mktemp("reports") / "house", shared_sink)
    running.opt_in(*readers())
    yield running.start()
    running.close()


WITHOUT_DSN = tuple(one for one in OFFERED if one != "DSN")


@pytest.fixture
def old_sink(house: Gateway, sink: Sink) -> Iterator[Sink]:
    """The smarthost without DSN: what it takes, it says no more about."""
    with offering(sink, WITHOUT_DSN):
        yield sink


@pytest.fixture
def ascii_sink(house: Gateway, sink: Sink) -> Iterator[Sink]:
    """The smarthost without 8BITMIME."""
    with offering(sink, tuple(one for one in OFFERED if one != "8BITMIME")):
        yield sink


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
    sink.on("RCPT", "451 4.2.2 full", containing="full@", times=3)
    sink.on("RCPT", "451 4.2.2 full", containing="quiet@", times=3)
    tell(house, {"full@example.org": "NOTIFY=DELAY", "quiet@example.org": "", "there@example.org": "NOTIFY=DELAY"})
    report = the_report(house, sink)
    assert "delayed" in report.header["Subject"]
    assert report.named == ["full@example.org"]
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("delayed", "4.2.2")
    assert report.recipients[0]["Remote-MTA"] == "dns; [127.0.0.1]"
    arrived, until = report.about["Arrival-Date"], report.recipients[0]["Will-Retry-Until"]
    assert parsedate_to_datetime(until) - parsedate_to_datetime(arrived) == timedelta(days=5)
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
            "Remote-MTA": "dns; [127.0.0.1]",
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


@pytest.mark.req("OUT-11", "SMTP-23")
def test_a_report_gives_no_more_back_than_can_reach_the_submitter(house: Gateway, ascii_sink: Sink) -> None:
    message = b"Subject: R\xe9sum\xe9\r\n" + invoice("gone@example.org").replace(b"Subject:", b"X-Was:")
    tell(house, {"gone@example.org": ""}, message=message, options="RET=FULL BODY=8BITMIME")
    report = the_report(house, ascii_sink)
    assert report.of("gone@example.org")["Status"] == "5.6.3"
    assert report.returned_kind == "text/rfc822-headers"


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
    sink.on("RCPT", "451 4.2.1 later", containing=people[1], times=1)
    sink.on("RCPT", "550 5.1.1 unknown after all", containing=people[1])
    sink.on("RCPT", "451 4.2.1 later", containing=people[2], times=2)
    tell(
        house,
        dict.fromkeys(people, ""),
        message=newsletter("all@news.example.com"),
        options="ENVID=one",
        login="news",
        sender=LETTERS,
    )
    report = the_report(house, sink, to=LETTERS)
    assert report.about["Original-Envelope-Id"] == "one"
    assert report.named == people[:2]
    assert {one.recipients[0] for one in sink.messages} == {LETTERS, people[2], people[3]}


@pytest.mark.req("SMTP-21")
def test_whoever_is_refused_after_data_is_reported_and_the_others_get_the_message(house: Gateway, sink: Sink) -> None:
    reader, stranger, silent = readers()[20], "stranger@example.org", "silent@example.org"
    asked = {reader: "", stranger: "", silent: "NOTIFY=NEVER"}
    tell(house, asked, message=newsletter(reader), login="both", sender=LETTERS)
    report = the_report(house, sink, to=LETTERS)
    assert report.named == [stranger]
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("failed", "5.7.1")
    assert "no-consent" in report.recipients[0]["Diagnostic-Code"]
    assert "Remote-MTA" not in report.recipients[0], "that was our own word"
    assert {one.recipients[0] for one in sink.messages} == {LETTERS, reader}
    (decision,) = re.findall(r"decision (\w{26})", report.text)
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
