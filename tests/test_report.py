"""The report to a submitter: read back by a parser that is not ours, and by nobody taken for another message."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage, Message

import pytest

from gateway.address import Address
from gateway.model import Failure, MessageClass, Outcome, Peer, Recipient, SpooledMessage
from gateway.report import failure_report

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORIGINAL = b"From: news@example.com\r\nSubject: Offer\r\nX-Long: a\r\n folded\r\n\r\nthe secret body\r\n"


def failure(
    address: str = "bob@example.org",
    reply: str = "550 5.1.1 unknown",
    outcome: Outcome = Outcome.FAILED,
    options: tuple[str, ...] = (),
) -> Failure:
    return Failure(Recipient(Address.parse(address), options), outcome, reply, "01ARYZ6S410000000000000000")


def about(original: bytes = ORIGINAL, options: tuple[str, ...] = ()) -> SpooledMessage:
    return SpooledMessage(
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


def report(*failures: Failure, original: bytes = ORIGINAL, options: tuple[str, ...] = ()) -> bytes:
    return failure_report("mx.example.com", about(original, options), failures, "01REPORT", NOW)


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects and not [one for part in message.walk() for one in part.defects]
    return message


def groups(content: bytes) -> list[dict[str, str]]:
    """Return the groups of fields of the delivery status: the message's, then each recipient's."""
    (_, status, _) = parsed(content).iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    parts = status.get_payload()
    assert isinstance(parts, list)
    return [dict(group.items()) for group in parts if isinstance(group, Message)]


def test_a_report_is_a_multipart_report_of_three_parts() -> None:
    message = parsed(report(failure()))
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        *("text/plain", "message/delivery-status", "text/rfc822-headers"),
    ]


def test_a_report_is_marked_as_automatic_and_goes_to_the_reverse_path() -> None:
    message = parsed(report(failure()))
    assert message["To"] == "bounce+1@example.com"
    assert message["Auto-Submitted"].startswith("auto-")
    assert message["Message-ID"] == "<01REPORT@mx.example.com>"
    assert message["Date"].datetime == NOW


def test_every_failure_is_told_with_its_reply_and_its_decision() -> None:
    content = report(failure(), failure("eve@example.org", "550 5.7.1 no-consent: the recipient has not opted in"))
    first, *rest = groups(content)
    assert first == {"Reporting-MTA": "dns; mx.example.com"}
    assert [(one["Final-Recipient"], one["Action"], one["Status"], one["Diagnostic-Code"]) for one in rest] == [
        ("rfc822; bob@example.org", "failed", "5.1.1", "smtp; 550 5.1.1 unknown"),
        (
            *("rfc822; eve@example.org", "failed", "5.7.1"),
            "smtp; 550 5.7.1 no-consent: the recipient has not opted in",
        ),
    ]
    (text, _, _) = parsed(content).iter_parts()
    shown = text.get_content()
    for told in ("bob@example.org", "eve@example.org", "no-consent", "01ARYZ6S410000000000000000"):
        assert told in shown


@pytest.mark.parametrize(
    ("reply", "outcome", "status"),
    [
        ("550 5.1.1 unknown", Outcome.FAILED, "5.1.1"),
        ("554 no", Outcome.FAILED, "5.0.0"),
        ("554", Outcome.FAILED, "5.0.0"),
        ("451 4.4.1 no smarthost answers", Outcome.EXPIRED, "4.4.7"),
        ("550 4.2.2 contradicts itself", Outcome.FAILED, "5.0.0"),
    ],
)
def test_a_status_agrees_with_what_happened(reply: str, outcome: Outcome, status: str) -> None:
    assert groups(report(failure(reply=reply, outcome=outcome)))[1]["Status"] == status


def test_the_submitters_own_references_are_given_back() -> None:
    one = failure(options=("NOTIFY=FAILURE", "ORCPT=rfc822;bob@old.example"))
    first, second = groups(report(one, options=("RET=HDRS", "ENVID=QQ314159")))
    assert first["Original-Envelope-Id"] == "QQ314159"
    assert second["Original-Recipient"].replace("; ", ";") == "rfc822;bob@old.example"


def test_references_are_decoded_from_xtext_and_cannot_break_out_of_their_field() -> None:
    plain, evil = "ORCPT=rfc822;bob+2Btag@old.example", "ORCPT=rfc822;bob+0D+0AAction:+20delivered"
    first, *rest = groups(report(failure(options=(plain,)), failure(options=(evil,)), options=("ENVID=a+3Db+0Ac",)))
    assert [one["Original-Recipient"].partition("; ")[2] for one in rest] == [
        *("bob+tag@old.example", "bob+0D+0AAction:+20delivered"),
    ]
    assert [one["Action"] for one in rest] == ["failed", "failed"]
    assert first["Original-Envelope-Id"] == "a+3Db+0Ac"


def test_the_originals_header_is_returned_and_its_body_is_not() -> None:
    content = report(failure())
    (_, _, header) = parsed(content).iter_parts()
    assert b"X-Long: a\r\n folded\r\n" in content
    assert header.get_content_type() == "text/rfc822-headers"
    assert b"the secret body" not in content


def test_a_report_is_whole_lines() -> None:
    for original in (ORIGINAL, b"", b"Subject: no body", b"\r\nonly a body\r\n"):
        content = report(failure(), original=original)
        assert content.endswith(b"--report-01REPORT--\r\n")
        assert b"\n" not in content.replace(b"\r\n", b"") and b"\r" not in content.replace(b"\r\n", b"")
        assert parsed(content).get_content_type() == "multipart/report"


def test_a_report_about_an_internationalised_address_is_utf_8() -> None:
    one = groups(report(failure("jürgen@bücher.example")))[1]
    assert one["Final-Recipient"].startswith("utf-8; j")
    assert "jürgen@bücher.example".encode() in report(failure("jürgen@bücher.example"))
