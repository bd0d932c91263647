"""What a promotional message's header may not pretend, at the door of the installed program and before MAIL FROM."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.gateway_under_test import Gateway, invoice, newsletter
from tests.sink import Sink

MESSAGES = Path(__file__).parent / "messages"
READER = "pretence-reader@example.org"
ENCRYPTED = ("smime-enveloped", "pgp-encrypted", "pgp-inline")


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One login for the newsletter's domain, and one whose stream makes any mail of that domain account mail."""
    essential = '[streams.receipts]\nclass = "account"\nfrom = ["*@news.example.com"]'
    made = Gateway(
        tmp_path_factory.mktemp("pretence") / "house", shared_sink.url, sections={"receipts": essential}
    ).prepare()
    made.add_login("receipts", "receipts")
    made.opt_in(READER)
    yield made.start()
    made.close()


def answer(house: Gateway, message: bytes, login: str = "news") -> str:
    """Submit one message; return "sent", or the code, the enhanced status and the slug of its refusal."""
    code, text = house.submit(message, [READER], login=login)[""]
    return "sent" if code == 250 else f"{code} {text.partition(':')[0]}"


def with_fields(*fields: str, subject: str = "News") -> bytes:
    return "".join(f"{one}\r\n" for one in fields).encode() + newsletter(READER, subject=subject)


def by(*authors: str) -> bytes:
    return re.sub(rb"From: [^\r]+", f"From: {', '.join(authors)}".encode(), newsletter(READER))


@pytest.mark.req("HDR-09")
def test_promotion_has_exactly_one_author(house: Gateway, sink: Sink) -> None:
    two = by("Ann <ann@news.example.com>", "bob@news.example.com")
    assert answer(house, two) == "550 5.7.1 class-mismatch"
    assert answer(house, by("Team: ann@news.example.com, bob@news.example.com;")) == "550 5.7.1 class-mismatch"
    assert not sink.messages
    assert answer(house, by('"Bob, Ann" <ann@news.example.com>')) == "sent"
    assert answer(house, two, login="receipts") == "sent", "other mail may have several (RFC 5322 section 3.6.2)"
    assert len(sink.wait_for(2)) == 2


def encoded(subject: str) -> str:
    return f"=?utf-8?b?{b64encode(subject.encode()).decode()}?="


@pytest.mark.req("CLS-08")
@pytest.mark.parametrize(
    "subject",
    [
        *("Re: your order", "RE:your order", "  Re : x", "Fwd: for you", "FW: for you", "re[2]: offer"),
        *(encoded("Re: your order"), "=?utf-8?q?Fwd=3A?= for you", "Re\uff1a offer"),
    ],
)
def test_promotion_that_feigns_a_reply_is_refused(house: Gateway, sink: Sink, subject: str) -> None:
    assert answer(house, with_fields(subject=subject)) == "550 5.7.0 content"
    assert answer(house, with_fields("In-Reply-To:", "References: ", subject=subject)) == "550 5.7.0 content"
    assert not sink.messages
    assert answer(house, with_fields(subject=subject), login="receipts") == "sent"
    assert sink.wait_for(1)


@pytest.mark.req("CLS-08")
@pytest.mark.parametrize("field", ["In-Reply-To: <1@example.org>", "References: <1@example.org>\r\n <2@example.org>"])
def test_a_reply_may_say_that_it_is_one(house: Gateway, sink: Sink, field: str) -> None:
    assert answer(house, with_fields(field, subject="Re: your order")) == "sent"
    assert sink.wait_for(1)


@pytest.mark.parametrize(
    "subject", ["Repairs: now half", "Re News", "Reply: yes", "Forward: march", "=?x-no?b?UmU6?= a", ""]
)
def test_a_subject_that_only_looks_a_little_like_a_replys_passes(house: Gateway, sink: Sink, subject: str) -> None:
    assert answer(house, with_fields(subject=subject)) == "sent"
    assert sink.wait_for(1)


@pytest.mark.req("CLS-13")
@pytest.mark.parametrize("name", ENCRYPTED)
def test_what_nobody_can_read_is_no_promotion_and_passes_unmodified_as_other_mail(
    house: Gateway, sink: Sink, name: str
) -> None:
    message = re.sub(rb"(?m)^From: .*\r$", b"From: letters@news.example.com\r", (MESSAGES / f"{name}.eml").read_bytes())
    assert answer(house, message) == "550 5.7.0 content"
    assert not sink.messages
    assert answer(house, message, login="receipts") == "sent"
    (relayed,) = sink.wait_for(1)
    assert relayed.content.partition(b"\r\n\r\n")[2] == message.partition(b"\r\n\r\n")[2]


# the end of a campaign


def ending(when: str, **told: str) -> bytes:
    return with_fields(f"Assent-Campaign-Ends: {when}", **told)


def test_a_campaign_that_is_over_is_refused(house: Gateway, sink: Sink) -> None:
    now = datetime.now(UTC)
    yesterday, hence = (now - timedelta(days=1)).date(), now + timedelta(hours=1)
    for when in (yesterday.isoformat(), (now - timedelta(minutes=1)).isoformat(timespec="seconds")):
        assert answer(house, ending(when)) == "550 5.7.0 content"
    assert answer(house, ending(f"{hence:%Y-%m-%dT%H:%M:%S}+02:00")) == "550 5.7.0 content", "an hour ago in UTC"
    assert not sink.messages
    for when in (f"{now + timedelta(days=1):%Y-%m-%d}", f"{hence:%Y-%m-%dT%H:%M:%S}Z"):
        assert answer(house, ending(when)) == "sent"
    assert len(sink.wait_for(2)) == 2


@pytest.mark.parametrize("when", ["", "soon", "2099-13-01", "31.12.2099", "2099-12-31T10:00:00", "2099-12-31 \xff"])
def test_an_end_that_cannot_be_read_is_refused(house: Gateway, sink: Sink, when: str) -> None:
    assert answer(house, ending(when)) == "550 5.7.0 content"
    assert not sink.messages


def test_a_copy_that_still_waits_at_the_end_of_its_campaign_never_leaves(house: Gateway, sink: Sink) -> None:
    sink.on("RCPT", "451 4.2.0 later", containing=READER)
    end = datetime.now(UTC) + timedelta(seconds=3)
    assert answer(house, ending(end.isoformat())) == "sent"
    (report,) = sink.wait_for(1, 20.0)
    assert report.envelope_from == "" and report.recipients == ("letters@news.example.com",)
    assert READER.encode() in report.content and b"content: the campaign ended at" in report.content
    assert datetime.fromtimestamp(report.at, UTC) >= end


def test_account_mail_has_no_end(house: Gateway, sink: Sink) -> None:
    message = b"Assent-Campaign-Ends: 2020-01-01\r\n" + invoice(READER)
    assert house.submit(message, [READER], login="shop", sender="billing@example.com")[""][0] == 250
    assert sink.wait_for(1)
