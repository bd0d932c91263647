"""The report to a submitter: read back by a parser that is not ours, and by nobody taken for another message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.address import Address
from gateway.model import Fate, MessageClass, Outcome, Peer, Recipient, SpooledMessage
from gateway.report import RETURNED_OCTETS, delivery_report, is_told
from tests.reports import Report, read_report

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORIGINAL = b"From: news@example.com\r\nSubject: Offer\r\nX-Long: a\r\n folded\r\n\r\nthe secret body\r\n"
GERMAN = ORIGINAL.replace(b"Offer", "Grüße".encode())
RECEIVED = "Sun, 22 Nov 2026 12:00:00 +0000"


def fate(
    address: str = "bob@example.org",
    reply: str = "550 5.1.1 unknown",
    outcome: Outcome = Outcome.FAILED,
    options: tuple[str, ...] = (),
    server: str = "",
) -> Fate:
    return Fate(Recipient(Address.parse(address), options), outcome, reply, "01ARYZ6S410000000000000000", server)


def written(*fates: Fate, original: bytes = ORIGINAL, options: tuple[str, ...] = ()) -> bytes:
    about = SpooledMessage(
        id=1,
        login="shop",
        stream="newsletter",
        message_class=MessageClass.PROMOTIONAL,
        topics=("news",),
        reverse_path="bounce+1@example.com",
        options=options,
        peer=Peer("tool.example.com", "192.0.2.7", "ESMTPSA"),
        received_at=NOW,
        recipients=(Recipient(Address.parse("bob@example.org")),),
        message=original,
    )
    return delivery_report("mx.example.com", about, fates, "01REPORT", NOW, NOW + timedelta(days=5))


def report(*fates: Fate, original: bytes = ORIGINAL, options: tuple[str, ...] = ()) -> Report:
    return read_report(written(*fates, original=original, options=options))


# who is told


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ((), {Outcome.FAILED, Outcome.EXPIRED, Outcome.SUPPRESSED}),
        (("ORCPT=rfc822;NOTIFY@example.org",), {Outcome.FAILED, Outcome.EXPIRED, Outcome.SUPPRESSED}),
        (("NOTIFY=NEVER",), set()),
        (("notify=success",), {Outcome.RELAYED}),
        (("NOTIFY=Delay",), {Outcome.DEFERRED}),
        (("NOTIFY=SUCCESS,FAILURE,DELAY",), set(Outcome) - {Outcome.QUEUED}),
    ],
)
def test_a_submitter_is_told_what_it_asked_for(notify: tuple[str, ...], told: set[Outcome]) -> None:
    recipient = Recipient(Address.parse("bob@example.org"), notify)
    assert {one for one in Outcome if one is not Outcome.QUEUED and is_told(recipient, one)} == told


# the whole


def test_a_report_is_marked_as_automatic_and_goes_to_the_reverse_path() -> None:
    header = report(fate()).header
    assert header["To"] == "bounce+1@example.com"
    assert header["Auto-Submitted"] == "auto-replied"
    assert header["Message-ID"] == "<01REPORT@mx.example.com>"
    assert header["Date"].datetime == NOW


@pytest.mark.parametrize(
    ("outcomes", "subject"),
    [
        ([Outcome.RELAYED], "passed on"),
        ([Outcome.RELAYED, Outcome.DEFERRED], "delayed"),
        ([Outcome.DEFERRED], "delayed"),
        ([Outcome.RELAYED, Outcome.SUPPRESSED], "did not reach everybody"),
    ],
)
def test_the_subject_says_the_worst(outcomes: list[Outcome], subject: str) -> None:
    assert subject in report(*(fate(outcome=one) for one in outcomes)).header["Subject"]


@pytest.mark.parametrize("original", [ORIGINAL, GERMAN, b"", b"Subject: no body", b"\r\nonly a body\r\n"])
@pytest.mark.parametrize("options", [(), ("RET=FULL",), ("SMTPUTF8",), ("RET=FULL", "SMTPUTF8")])
def test_a_report_is_whole_lines_and_sound(original: bytes, options: tuple[str, ...]) -> None:
    content = written(fate("jürgen@bücher.example", "550 5.1.1 gibt's nicht: ü"), original=original, options=options)
    assert content.endswith(b"--report-01REPORT--\r\n")
    assert b"\n" not in content.replace(b"\r\n", b"") and b"\r" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii() or b"message/rfc822" in content
    read_report(content)


def test_the_longest_reply_and_header_stay_within_the_longest_line() -> None:
    content = written(fate(reply="550 5.1.1 " + "x" * 5000), original=b"X: " + b"y" * 5000 + b"\r\n\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998


# for people


def test_every_failure_is_told_with_its_reply_and_its_decision() -> None:
    one = report(fate(), fate("eve@example.org", "550 5.7.1 no-consent: the recipient has not opted in"))
    for told in ("bob@example.org", "eve@example.org", "no-consent", "01ARYZ6S410000000000000000"):
        assert told in one.text


def test_what_went_well_and_what_did_not_stand_under_sentences_of_their_own() -> None:
    text = report(fate(), fate("eve@example.org", "250 2.0.0 ok", Outcome.RELAYED)).text
    assert text.index("could not") < text.index("bob@") < text.index("passed your message on for") < text.index("eve@")


# for programs


def test_every_recipient_has_its_fields() -> None:
    one = report(
        fate("Bob@Example.ORG"), fate("eve@example.org", "550 5.7.1 no-consent: the recipient has not opted in")
    )
    assert one.status_kind == "message/delivery-status"
    assert one.about == {"Reporting-MTA": "dns; mx.example.com", "Arrival-Date": RECEIVED}
    assert one.recipients == [
        {
            "Final-Recipient": "rfc822; Bob@Example.ORG",
            "Action": "failed",
            "Status": "5.1.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 unknown",
        },
        {
            "Final-Recipient": "rfc822; eve@example.org",
            "Action": "failed",
            "Status": "5.7.1",
            "Diagnostic-Code": "smtp; 550 5.7.1 no-consent: the recipient has not opted in",
        },
    ]


@pytest.mark.parametrize(
    ("reply", "outcome", "action", "status"),
    [
        ("550 5.1.1 unknown", Outcome.FAILED, "failed", "5.1.1"),
        ("554 no", Outcome.FAILED, "failed", "5.0.0"),
        ("554", Outcome.FAILED, "failed", "5.0.0"),
        ("550 5.7.1unsubscribed", Outcome.SUPPRESSED, "failed", "5.0.0"),
        ("550 5.7.1 unsubscribed: left", Outcome.SUPPRESSED, "failed", "5.7.1"),
        ("451 4.4.1 no smarthost answers", Outcome.EXPIRED, "failed", "4.4.7"),
        ("550 4.2.2 contradicts itself", Outcome.FAILED, "failed", "5.0.0"),
        ("451 4.2.2 full", Outcome.DEFERRED, "delayed", "4.2.2"),
        ("451", Outcome.DEFERRED, "delayed", "4.0.0"),
        ("250 2.6.0 taken", Outcome.RELAYED, "relayed", "2.6.0"),
        ("250 ok", Outcome.RELAYED, "relayed", "2.0.0"),
    ],
)
def test_action_and_status_agree_with_what_happened(reply: str, outcome: Outcome, action: str, status: str) -> None:
    (fields,) = report(fate(reply=reply, outcome=outcome)).recipients
    assert (fields["Action"], fields["Status"]) == (action, status)


def test_the_server_that_said_it_is_named_and_none_is_where_nobody_else_said_it() -> None:
    told = report(
        fate(server="mta.example.com"), fate("eve@example.org", "550 5.1.1 gone", server="[192.0.2.1]"), fate()
    )
    assert [one.get("Remote-MTA") for one in told.recipients] == ["dns; mta.example.com", "dns; [192.0.2.1]", None]


def test_it_is_said_until_when_a_delayed_message_is_tried() -> None:
    told = report(fate(outcome=Outcome.DEFERRED, reply="451 4.3.0 later"), fate("eve@example.org"))
    assert [one.get("Will-Retry-Until") for one in told.recipients] == ["Fri, 27 Nov 2026 12:00:00 +0000", None]
    assert "goes on trying until Fri, 27 Nov 2026 12:00:00 +0000:" in told.text


def test_the_submitters_own_references_are_given_back() -> None:
    one = fate(options=("NOTIFY=FAILURE", "ORCPT=rfc822;Bob@Old.example"))
    told = report(one, options=("RET=HDRS", "ENVID=QQ314159"))
    assert told.about["Original-Envelope-Id"] == "QQ314159"
    assert told.recipients[0]["Original-Recipient"] == "rfc822; Bob@Old.example"


def test_references_are_decoded_from_xtext_and_cannot_break_out_of_their_field() -> None:
    plain, evil = "ORCPT=rfc822;bob+2Btag@old.example", "ORCPT=rfc822;bob+0D+0AAction:+20delivered"
    told = report(fate(options=(plain,)), fate(options=(evil,)), options=("ENVID=a+3Db+0Ac",))
    assert [one["Original-Recipient"].partition("; ")[2] for one in told.recipients] == [
        *("bob+tag@old.example", "bob+0D+0AAction:+20delivered"),
    ]
    assert [one["Action"] for one in told.recipients] == ["failed", "failed"]
    assert told.about["Original-Envelope-Id"] == "a+3Db+0Ac"


# internationalised mail


def test_whoever_takes_utf_8_gets_addresses_as_they_are() -> None:
    one = fate("jürgen@bücher.example", options=(r"ORCPT=utf-8;j\x{FC}rgen@bücher.example",))
    told = report(one, original=GERMAN, options=("SMTPUTF8",))
    assert told.status_kind == "message/global-delivery-status"
    assert told.recipients[0]["Final-Recipient"] == "utf-8; jürgen@bücher.example"
    assert told.recipients[0]["Original-Recipient"] == "utf-8; jürgen@bücher.example"
    assert (told.returned_kind, "Grüße".encode() in told.returned) == ("message/global-headers", True)


def test_whoever_does_not_gets_them_in_ascii() -> None:
    one = fate("jürgen=1@bücher.example", "550 5.1.1 für immer", options=("ORCPT=utf-8;δ@bücher.example",))
    told = report(one, original=GERMAN)
    assert told.status_kind == "message/delivery-status"
    assert told.recipients[0]["Final-Recipient"] == r"utf-8; j\x{FC}rgen\x{3D}1@b\x{FC}cher.example"
    assert told.recipients[0]["Original-Recipient"] == r"utf-8; \x{3B4}@b\x{FC}cher.example"
    assert told.recipients[0]["Diagnostic-Code"] == "smtp; 550 5.1.1 f?r immer"
    assert (told.returned_kind, "Grüße".encode() in told.returned) == ("text/rfc822-headers", True)


def test_an_escape_in_an_internationalised_reference_cannot_break_out_of_its_field() -> None:
    told = report(fate(options=(r"ORCPT=utf-8;a\x{D}\x{A}Action:\x{20}delivered",)), options=("SMTPUTF8",))
    assert [one["Action"] for one in told.recipients] == ["failed"]


# what is given back


def test_the_originals_header_is_returned_and_its_body_is_not() -> None:
    for options in ((), ("RET=HDRS",)):
        told = report(fate(), options=options)
        assert told.returned_kind == "text/rfc822-headers"
        assert told.returned == ORIGINAL.partition(b"the secret")[0]


@pytest.mark.parametrize(
    ("original", "options", "kind"),
    [
        (ORIGINAL, ("RET=FULL",), "message/rfc822"),
        (ORIGINAL + "8 bits: ü\r\n".encode(), ("ret=full",), "message/rfc822"),
        (GERMAN, ("RET=FULL", "SMTPUTF8"), "message/global"),
    ],
)
def test_the_whole_message_is_returned_to_whoever_asked(original: bytes, options: tuple[str, ...], kind: str) -> None:
    told = report(fate(), original=original, options=options)
    assert (told.returned_kind, told.returned) == (kind, original)


@pytest.mark.parametrize("outcome", [Outcome.RELAYED, Outcome.DEFERRED])
def test_the_whole_message_is_returned_only_where_something_failed(outcome: Outcome) -> None:
    assert report(fate(outcome=outcome), options=("RET=FULL",)).returned_kind == "text/rfc822-headers"
    assert report(fate(outcome=outcome), fate(), options=("RET=FULL",)).returned_kind == "message/rfc822"


@pytest.mark.parametrize("filling", [b"line\r\n" * (RETURNED_OCTETS // 6), b"x" * 2000 + b"\r\n"])
def test_a_message_that_is_too_large_or_has_overlong_lines_is_not_returned_whole(filling: bytes) -> None:
    assert report(fate(), original=ORIGINAL + filling, options=("RET=FULL",)).returned_kind == "text/rfc822-headers"
