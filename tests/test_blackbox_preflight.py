"""A draft to `preflight@` the feedback domain, as a login submits it and as the letter about it arrives.

The program is a separate process. The letter is read by Python's own parser, the copy that it brings is judged by
dkimpy against what `assent dkim dns` prints.
"""

from __future__ import annotations

import smtplib
import textwrap
from collections.abc import Iterator
from datetime import date, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple

import pytest

from tests.copies_under_test import dkimpy_accepts
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, invoice, newsletter, token_of
from tests.sink import Sink

PREFLIGHT = "Preflight@bounce.EXAMPLE.com"
CONTACT = "campaigns@example.com"
STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.letters]
    class = "promotional"
    topics = ["{TOPIC}", "special-offers"]
    from = ["*@letters.example.com"]
    [streams.abroad]
    class = "account"
    from = ["*@partner.example.net"]
    [streams.product]
    class = "product"
    product = "drafting"
    from = ["drafting@example.com"]
    [streams.quiet]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@quiet.example.com"]
    mode = "shadow"
    until = {date.today() + timedelta(days=7)}
    [streams.receipts]
    class = "account"
    from = ["receipts@example.com"]
    reads_as_promotion = "refuse"
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    """
DRAFT = """\
    From: Example Letters <letters@news.example.com>
    To: Our readers <readers@news.example.com>
    Subject: =?utf-8?q?Spring_news_=E2=80=93_tables?=
    Assent-Topic: product-announcements
    MIME-Version: 1.0
    Content-Type: multipart/alternative; boundary="cut"

    --cut
    Content-Type: text/plain; charset=utf-8

    Hello, see https://www.example.com/tables, and http://elsewhere.example.org/more.

    --cut
    Content-Type: text/html; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    <html><body><p>Hello, see <a href=3D"https://www.example.com/tables?a=3D1&amp;b=3D2">tables</a>.</p>
    <p>Example Software, Inc.</p><img src=3D"https://open.tracker.example.org/o.gif" width=3D"1" height=3D"1">
    </body></html>
    --cut--
    """


class Letter(NamedTuple):
    """The letter as its reader has it: its subject, both its texts, and what came with it."""

    to: str
    subject: str
    text: str
    html: str
    attached: list[EmailMessage]
    octets: bytes

    @property
    def copy(self) -> bytes:
        """Return the copy that came with it, octet for octet."""
        (one,) = self.attached
        assert (one.get_content_type(), one.get_filename()) == ("message/rfc822", "copy.eml")
        return self.octets.partition(b'filename="copy.eml"\r\n\r\n')[2].rpartition(b"\r\n--preflight-")[0]

    def section(self, heading: str) -> list[str]:
        """Return the lines under a heading of the plain text."""
        lines = self.text.splitlines()
        start = lines.index(heading) + 2
        return lines[start : lines.index("", start)]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(tmp_path_factory.mktemp("preflight") / "house", shared_sink.url, sections={"streams": STREAMS})
    made.prepare_files()
    made.run("migrate")
    made.add_login("news", "newsletter,letters,product,quiet,receipts,billing", "--contact", CONTACT)
    made.add_login("alone", "newsletter,abroad")
    made.opt_in(*(f"reader-{n}@example.org" for n in range(4)))
    made.run("customers", "add", "owner@example.org", "--product", "drafting")
    told = ("--scope", "topic", "--topic", TOPIC, "--reason", "unsubscribed")
    made.run("suppressions", "add", "reader-3@example.org", *told)
    made.run("suppressions", "add", "*@nobody.example.org", "--scope", "all-marketing", "--reason", "objected")
    yield made.start()
    made.close()


def draft(text: str = DRAFT) -> bytes:
    return textwrap.dedent(text).replace("\n", "\r\n").encode()


def preflight(house: Gateway, sink: Sink, message: bytes, login: str = "news", sender: str = "") -> Letter:
    """Submit a draft; return the one letter that comes of it."""
    sink.messages.clear()
    replies = house.submit(message, [PREFLIGHT], login=login, sender=sender or "letters@news.example.com")
    code, said = replies[""]
    assert code == 250 and said.startswith("2.0.0 preflight: a letter about it goes to "), replies
    (letter,) = sink.wait_for(1)
    assert letter.envelope_from == ""
    read = message_from_bytes(letter.content, _class=EmailMessage, policy=policy.default)
    text, html = read.get_body(["plain"]), read.get_body(["html"])
    assert text is not None and html is not None and read["Auto-Submitted"] == "auto-generated"
    attached = [one for one in read.iter_parts() if one.is_attachment()]
    (to,) = letter.recipients
    return Letter(to, read["Subject"], text.get_content(), html.get_content(), attached, letter.content)


def test_a_newsletter_comes_back_with_all_that_is_to_be_known_of_it(house: Gateway, sink: Sink) -> None:
    letter = preflight(house, sink, draft())
    assert (letter.to, letter.subject) == (CONTACT, "Preflight: as it would be sent")
    assert letter.section("The draft")[:3] == ["Subject: Spring news – tables", "Login: news", "It would be taken."]
    kind = letter.section("What it is")
    assert kind[:3] == ["Class: promotional", "Stream: newsletter", "Topic: Product announcements"]
    assert "Because Assent-Topic says product-announcements." in kind
    assert letter.section("Who would get it") == [
        "3 of the 5 people on record",
        "not 1: no-consent",
        "not 1: unsubscribed",
    ]
    links = letter.section("Links")
    assert "text, foreign, elsewhere.example.org, not encrypted: http://elsewhere.example.org/more" in links
    assert "link, ours, www.example.com: https://www.example.com/tables?a=1&b=2" in links
    assert len([one for one in links if "https://mail.example.com/u/" in one and ", ours, " in one]) == 1
    assert letter.section("Trackers") == ["taken out of the copy: open.tracker.example.org"]
    assert not any("open.tracker.example.org" in one for one in links)
    added = letter.section("Put into the copy")
    assert [one.partition(":")[0] for one in added] == [
        "the link to unsubscribe",
        "the name",
        "the postal address",
        "the contact",
    ]
    checks = letter.section("Looked at as its receiver does")
    assert [one.partition(" ")[0] for one in checks] == ["well:", "well:", "well:"], checks
    assert "DKIM, s1._domainkey.example.com: rsa-sha256" in checks[0]
    assert "200 OK" in checks[2]
    assert {"What its reader sees", "Hello, see tables."} <= set(letter.text.splitlines())
    for line in (*links, *added, *checks):
        assert line.replace("&", "&amp;") in letter.html


def test_the_copy_that_comes_with_it_is_signed_and_its_link_is_nobodys(house: Gateway, sink: Sink) -> None:
    copy = preflight(house, sink, draft()).copy
    records = {one["name"]: one["record"] for one in house.json("dkim", "dns")}
    assert dkimpy_accepts(copy, records)
    before = house.json("suppressions", "list")
    house.one_click(token_of(copy))
    assert house.json("suppressions", "list") == before


def decided(house: Gateway) -> list[str]:
    page = fetch(f"http://127.0.0.1:{house.console}/metrics").text
    return [line for line in page.splitlines() if line.startswith("assent_decisions")]


def test_nothing_is_sent_counted_or_recorded_of_a_draft(house: Gateway, sink: Sink) -> None:
    before, since = decided(house), house.json("status")
    preflight(house, sink, draft())
    preflight(house, sink, draft().replace(b"product-announcements", b"no-such-topic"))
    assert decided(house) == before
    after = house.json("status")
    assert (after["refused"], after["suppressed_people"]) == (since["refused"], since["suppressed_people"])
    assert after["paused_streams"] == []


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ((b"Assent-Topic: product-announcements", b"Assent-Topic: no-such-topic"), "unknown-topic: "),
        ((b"Hello, see https://www.example.com/tables,", b"Hello {{ MessageURL }}"), "554 5.6.0 content: "),
        ((b"Subject: ", b"Subject: Re: is it you?\r\nX-Old-Subject: "), "content: "),
        ((b"Assent-Topic: ", b"X-SMTPAPI: {not json\r\nX-Topic: "), "unsupported-header: "),
    ],
)
def test_a_draft_that_would_be_refused_comes_back_with_the_refusal(
    house: Gateway, sink: Sink, change: tuple[bytes, bytes], refusal: str
) -> None:
    letter = preflight(house, sink, draft().replace(*change))
    assert letter.subject == "Preflight: it would be refused"
    assert letter.section("The draft")[2].startswith(f"It would be refused: {refusal}")
    assert letter.attached == []
    assert "Links" not in letter.text.splitlines(), "of a draft that was not made into a copy no links are known"


def test_a_draft_that_leaves_its_topic_open_is_counted_by_all_of_them(house: Gateway, sink: Sink) -> None:
    message = newsletter(sender="letters@letters.example.com")
    letter = preflight(house, sink, message, sender="letters@letters.example.com")
    assert letter.section("Who would get it")[0] == "0 of the 5 people on record"
    assert letter.section("What it is")[2] == "Topic: Product announcements, Special offers"


def test_recipients_that_a_header_names_get_nothing_of_a_draft(house: Gateway, sink: Sink) -> None:
    named = b'X-SMTPAPI: {"to": ["reader-0@example.org", "reader-1@example.org"]}\r\n'
    letter = preflight(house, sink, named + draft())
    assert "Its header names 2 more recipients; to each the same rules would apply." in letter.section("The draft")
    assert b"reader-0@" not in letter.octets
    eventually(lambda: house.json("queue", "list") == [])
    assert [one.recipients for one in sink.messages] == [(CONTACT,)]


def test_who_gets_it_only_in_shadow_mode_is_counted(house: Gateway, sink: Sink) -> None:
    letter = preflight(house, sink, newsletter(sender="a@quiet.example.com"), sender="a@quiet.example.com")
    assert letter.section("Who would get it") == [
        "4 of the 5 people on record",
        "1 of them only because the stream is in shadow mode",
        "not 1: unsubscribed",
    ]


def test_essential_mail_that_reads_as_promotion_comes_back_with_the_words_that_say_so(
    house: Gateway, sink: Sink
) -> None:
    sold = invoice().replace(b"Your invoice 4711", b"50% off everything, buy now! Sale ends Sunday")
    letter = preflight(house, sink, sold, sender="billing@example.com")
    assert "It would be taken." in letter.section("The draft")
    assert any(one.startswith("Its words: its subject reads as promotion: ") for one in letter.section("The draft"))
    letter = preflight(house, sink, sold.replace(b"billing@", b"receipts@"), sender="receipts@example.com")
    assert letter.section("The draft")[2].startswith("It would be refused: 550 5.7.0 content: ")


def test_an_invoice_needs_nobodys_opt_in_and_a_product_message_is_for_owners(house: Gateway, sink: Sink) -> None:
    letter = preflight(house, sink, invoice(), sender="billing@example.com")
    assert letter.section("What it is")[:3] == ["Class: account", "Stream: billing", "Topic: none"]
    assert "Who would get it" not in letter.text.splitlines()
    assert letter.section("Put into the copy") == ["nothing"]
    assert [one.partition(":")[0] for one in letter.section("Looked at as its receiver does")] == ["well"]
    about = invoice().replace(b"billing@", b"drafting@")
    letter = preflight(house, sink, about, sender="drafting@example.com")
    assert letter.section("Who would get it") == ["1 of the 5 people on record", "not 4: not-customer"]


def test_a_login_without_a_contact_hears_at_its_own_from_address(house: Gateway, sink: Sink) -> None:
    assert preflight(house, sink, draft(), login="alone").to == "letters@news.example.com"
    sink.messages.clear()
    foreign = invoice().replace(b"billing@example.com", b"victim@partner.example.net")
    colleague = draft().replace(b"letters@news.example.com", b"boss@example.com")
    for message in (foreign, colleague):
        replies = house.submit(message, [PREFLIGHT], login="alone", sender="victim@partner.example.net")
        assert replies[""][0] == 550 and "--contact" in replies[""][1]
    assert house.json("queue", "list") == [] and sink.messages == []


def test_a_draft_has_no_other_recipient_and_the_next_message_may_have_them(house: Gateway, sink: Sink) -> None:
    reader = "reader-1@example.org"
    sink.messages.clear()
    with house.smtp("news") as client:
        assert client.mail("letters@news.example.com")[0] == 250
        assert [client.rcpt(one)[0] for one in (PREFLIGHT, reader, PREFLIGHT)] == [250, 550, 550]
        client.rset()
        assert client.mail("letters@news.example.com")[0] == 250
        assert [client.rcpt(one)[0] for one in (reader, PREFLIGHT)] == [250, 550]
        assert client.data(draft())[0] == 250
    (copy,) = sink.wait_for(1)
    assert copy.recipients == (reader,)


def test_strangers_cannot_ask(house: Gateway) -> None:
    with house.smtp(None) as client:
        assert client.mail("letters@news.example.com")[0] == 530
    with smtplib.SMTP("127.0.0.1", house.feedback, timeout=30) as client:
        client.ehlo()
        client.mail("someone@example.net")
        assert client.rcpt(PREFLIGHT)[0] == 550


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 1000,
        b"Content-Type: text/html; charset=no-such\r\nContent-Transfer-Encoding: base64\r\n\r\nPGEgaHJlZj0iaHR0c",
        b"Content-Type: text/html\r\n\r\n" + b"<a href='https://[" * 20_000,
        b"Content-Type: text/html\r\n\r\n" + b"<img width=" * 20_000,
    ],
    ids=["deep", "unfinished", "quotes", "tags"],
)
def test_whatever_a_draft_is_something_comes_back(house: Gateway, sink: Sink, body: bytes) -> None:
    head = (
        b"From: letters@news.example.com\r\nSubject: x\r\nAssent-Topic: product-announcements\r\nMIME-Version: 1.0\r\n"
    )
    assert preflight(house, sink, head + body).subject.startswith("Preflight: ")
