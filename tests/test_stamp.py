"""A copy's headers and body: what is added, what is removed, and that nothing else changes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway import stamp
from gateway.address import Address
from gateway.headers import Field, split
from gateway.mend import with_regular_header
from gateway.model import Peer
from tests.copies_under_test import (
    ALICE,
    BOB,
    CAROL,
    COMPANY,
    LINK,
    MESSAGE_ID,
    NAMES,
    NOW,
    PROMOTION,
    SEALED,
    STAMPABLE,
    TRACE,
    draft,
    essential,
    essential_copy,
    message,
    promotional,
    promotional_copy,
    read,
    wire,
)

PLAIN = b"From: News <news@example.com>\r\nTo: %b\r\nDate: Sun, 22 Nov 2026 10:15:00 +0100\r\n\r\nHi\r\n"
HOSTILE = st.text('ab<>,@"\\:;=? \r\n\0\t\x0b\x0c\x85\u2028é', max_size=12)


def names_of(stamped: stamp.Stamped) -> list[str]:
    return [field.name for field in stamped.header]


def value_of(stamped: stamp.Stamped, name: str) -> bytes:
    (field,) = [field for field in stamped.header if field.name == name]
    return field.value


def addressed_to(value: bytes, recipient: Address, *envelope: Address) -> bytes:
    return value_of(promotional_copy(PLAIN % value, promotional(*envelope), recipient), "to")


@pytest.mark.req("UNS-01", "HDR-01", "HDR-02")
@pytest.mark.parametrize("name", STAMPABLE)
def test_a_promotional_copy_has_exactly_one_of_each_list_header(name: str) -> None:
    listed = [name for name in names_of(promotional_copy(message(name))) if name.startswith("list-")]
    assert listed == ["list-unsubscribe", "list-unsubscribe-post", "list-id"]


@pytest.mark.req("UNS-02", "UNS-03", "UNS-04", "UNS-05")
@pytest.mark.parametrize(("mailto_first", "schemes"), [(False, ["https", "mailto"]), (True, ["mailto", "https"])])
def test_the_link_is_one_https_and_one_mailto_in_order_of_preference(mailto_first: bool, schemes: list[str]) -> None:
    copy = promotional_copy(message("text-only"), promotional(promotion=replace(PROMOTION, mailto_first=mailto_first)))
    value = value_of(copy, "list-unsubscribe").decode("ascii")
    assert re.fullmatch(r"<[^<>\s,]+>, <[^<>\s,]+>", value)
    assert re.findall(r"<(\w+):", value) == schemes
    assert f"<{LINK.url}>" in value and f"<mailto:{LINK.mailto}?subject=unsubscribe>" in value


@pytest.mark.req("UNS-03")
def test_no_mailto_is_written_where_no_mail_is_read() -> None:
    copy = draft(message("text-only"), promotional()).copy_for(ALICE, stamp.Link(LINK.url), MESSAGE_ID)
    assert value_of(copy, "list-unsubscribe") == f"<{LINK.url}>".encode()


@pytest.mark.req("UNS-06")
def test_the_one_click_header_is_one_line_octet_for_octet() -> None:
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in wire(promotional_copy(message("text-only")))


@pytest.mark.req("UNS-07", "UNS-08")
@pytest.mark.parametrize("length", [30, 78, 100, 250, 400])
def test_a_long_link_is_neither_encoded_nor_broken(length: int) -> None:
    url = "https://" + "m" * (length - len("https:///u/") - 49) + "/u/" + "A" * 49
    copy = draft(message("text-only"), promotional()).copy_for(ALICE, LINK._replace(url=url), MESSAGE_ID)
    (field,) = [field for field in copy.header if field.name == "list-unsubscribe"]
    assert field.raw.startswith(f"List-Unsubscribe: <{url}>,\r\n <mailto:".encode())
    assert b"=?" not in field.raw
    assert max(map(len, field.raw.split(b"\r\n"))) <= 998


@pytest.mark.req("UNS-02", "UNS-08")
@pytest.mark.parametrize(
    "link",
    [
        stamp.Link("http://mail.example.com/u/A"),
        stamp.Link("https://mail.example.com/u/A>, <http://evil.example"),
        stamp.Link("https://mail.example.com/u/A B"),
        stamp.Link("https://mail.example.com/u/A\r\nBcc: x"),
        stamp.Link("https://mail.example.com/u/é"),
        stamp.Link("https://mail.example.com/" + "A" * 998),
        stamp.Link(LINK.url, "u@example.com?bcc=x"),
        stamp.Link(LINK.url, "u@example.com>,<http://evil.example"),
    ],
)
def test_a_link_that_cannot_stand_in_the_header_is_refused(link: stamp.Link) -> None:
    with pytest.raises(ValueError):
        draft(message("text-only"), promotional()).copy_for(ALICE, link, MESSAGE_ID)


@pytest.mark.req("UNS-31")
def test_each_copy_carries_its_own_link_in_header_and_body() -> None:
    made = draft(message("alternative"), promotional(ALICE, BOB))
    links = [stamp.Link(f"https://mail.example.com/u/{letter * 49}") for letter in "AB"]
    copies = [wire(made.copy_for(who, link, MESSAGE_ID)) for who, link in zip((ALICE, BOB), links, strict=True)]
    for copy, own, other in zip(copies, links, reversed(links), strict=True):
        assert copy.count(own.url.encode()) == 3
        assert other.url.encode() not in copy


@pytest.mark.req("UNS-32")
@pytest.mark.parametrize(
    ("to", "recipient", "told"),
    [
        (b"alice@example.org, Bob <bob@example.org>", ALICE, b"alice@example.org"),
        (b"alice@example.org, Bob <bob@example.org>", BOB, b"Bob <bob@example.org>"),
        (b"alice@example.org, Bob <bob@example.org>", CAROL, b"carol@example.org"),
        (b"Alice <ALICE@Example.ORG>, list@example.org", BOB, b"list@example.org"),
        (b"Alice <ALICE@Example.ORG>, list@example.org", ALICE, b"Alice <ALICE@Example.ORG>, list@example.org"),
        (b'"The List" <list@example.org>', ALICE, b'"The List" <list@example.org>'),
        (b"undisclosed-recipients:;", ALICE, b"undisclosed-recipients:;"),
        (b"Friends: alice@example.org, bob@example.org;", BOB, b"bob@example.org"),
        (b"alice@example.org bob@example.org", BOB, b"bob@example.org"),
        (b'"B\xc3\xb6b, x" <bob@example.org> (b),\r\n\tJ\xfc <alice@example.org>', ALICE, b"J\xfc <alice@example.org>"),
    ],
)
def test_a_copy_names_no_other_recipient_of_its_envelope(to: bytes, recipient: Address, told: bytes) -> None:
    assert addressed_to(to, recipient, ALICE, BOB, CAROL) == told


@pytest.mark.req("UNS-32")
def test_cc_is_rewritten_too_and_stays_in_its_place() -> None:
    content = (PLAIN % b"list@example.org").replace(b"Date:", b"Cc: bob@example.org,\r\n x@example.org\r\nDate:")
    copy = promotional_copy(content, promotional(ALICE, BOB))
    assert [name for name in names_of(copy) if name in ("from", "to", "cc", "date")] == ["from", "to", "cc", "date"]
    assert value_of(copy, "cc") == b"x@example.org" and value_of(copy, "to") == b"list@example.org"


@pytest.mark.req("UNS-32", "HDR-07")
def test_a_message_to_one_recipient_keeps_its_to_octet_for_octet() -> None:
    odd = b"Anybody ,bob@example.org"
    assert addressed_to(odd, ALICE, ALICE) == odd


@pytest.mark.req("UNS-33")
def test_split_copies_get_ids_of_their_own_and_a_single_one_keeps_its() -> None:
    split_copy = promotional_copy(message("alternative"), promotional(ALICE, BOB))
    assert value_of(split_copy, "message-id") == MESSAGE_ID.encode()
    assert value_of(promotional_copy(message("alternative")), "message-id") == b"<20261122.1@news.example.com>"
    assert value_of(essential_copy(message("alternative")), "message-id") == b"<20261122.1@news.example.com>"


@pytest.mark.req("UNS-34", "HDR-01")
@pytest.mark.parametrize("name", NAMES)
def test_other_mail_carries_no_list_header_and_its_body_as_it_was(name: str) -> None:
    copy = essential_copy(message(name))
    assert not [name for name in names_of(copy) if name.startswith("list-")]
    if name != "long-html-line":
        body = message(name).partition(b"\r\n\r\n")[2]
        assert b"".join(copy.body) == body + b"\r\n" * (not body.endswith(b"\r\n"))


@pytest.mark.req("HDR-01", "DKIM-13", "DKIM-12")
def test_what_a_submitter_must_not_say_is_removed() -> None:
    for copy in (promotional_copy(message("newsletter-campaign")), essential_copy(message("newsletter-campaign"))):
        content = wire(copy).lower()
        for forbidden in (
            b"assent-",
            b"bcc:",
            b"archive@example.org",
            b"esp.example/u",
            b"esp.example/help",
            b"old list",
        ):
            assert forbidden not in content
        assert b"d=example.com; s=old" not in content and b"feedback-id: 1:2:campaign:esp\r\n" in content


@pytest.mark.req("DKIM-12")
def test_a_foreign_signature_stays_only_where_the_body_stays() -> None:
    assert "dkim-signature" not in names_of(promotional_copy(message("newsletter-campaign")))
    assert value_of(essential_copy(message("newsletter-campaign")), "dkim-signature").startswith(
        b"v=1; a=rsa-sha256; d=esp.example"
    )


@pytest.mark.req("HDR-07")
@pytest.mark.parametrize("name", [name for name in STAMPABLE if name != "long-html-line"])
def test_what_is_kept_is_kept_octet_for_octet_below_what_is_new(name: str) -> None:
    kept = split(with_regular_header(message(name))).without(
        lambda field: field.name.startswith(("list-", "assent-")) or field.name in ("bcc", "dkim-signature")
    )
    new = ("received", "list-unsubscribe", "list-unsubscribe-post", "list-id")
    raws = [field.raw for field in promotional_copy(message(name)).header]
    assert raws[-len(kept) :] == [field.raw for field in kept]
    assert names_of(promotional_copy(message(name)))[: -len(kept)] == list(new)


@pytest.mark.req("HDR-10")
@pytest.mark.parametrize("given_header", [b"", b"Date: \r\nMessage-ID:\r\n \r\n"])
def test_a_missing_date_and_message_id_are_added(given_header: bytes) -> None:
    content = b"From: a@example.com\r\n" + given_header + b"\r\nHi\r\n"
    for copy in (promotional_copy(content), essential_copy(content)):
        assert value_of(copy, "date") == b"Sun, 22 Nov 2026 19:02:00 +0000"
        assert value_of(copy, "message-id") == MESSAGE_ID.encode()


def test_a_message_that_ends_within_its_header_is_completed() -> None:
    copy = wire(essential_copy(b"From: a@example.com\r\nSubject: no end"))
    assert copy.endswith(b"Subject: no end\r\n\r\n")


@pytest.mark.parametrize("message_id", ["", "no brackets@x", "<a@b>\r\nBcc: x", "<a b@c>", "<a\u2028@b>", "<a@b><c@d>"])
def test_a_message_id_that_is_none_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError):
        essential_draft = draft(b"From: a@example.com\r\n\r\nHi\r\n", essential())
        essential_draft.shared_copy(message_id)


def test_promotion_never_leaves_without_a_link_and_other_mail_never_with_one() -> None:
    with pytest.raises(ValueError):
        draft(message("text-only"), promotional()).shared_copy(MESSAGE_ID)
    with pytest.raises(ValueError):
        draft(message("text-only"), essential()).copy_for(ALICE, LINK, MESSAGE_ID)


@pytest.mark.req("BODY-04")
@pytest.mark.parametrize("name", sorted(SEALED))
def test_sealed_mail_of_other_classes_goes_out_as_it_is(name: str) -> None:
    assert wire(essential_copy(message(name))).endswith(message(name).partition(b"\r\n\r\n")[2])


@pytest.mark.req("HDR-02")
@pytest.mark.parametrize(
    ("phrase", "written"),
    [
        ("Product announcements", b"Product announcements <a.example.com>"),
        ('News, "hot" \\ offers', b'"News, \\"hot\\" \\\\ offers" <a.example.com>'),
        ("=?utf-8?q?x?=", b'"=?utf-8?q?x?=" <a.example.com>'),
        ("", b"<a.example.com>"),
        (" a\r\n\tb\u2028c\x85d\x00e ", b"a b c d e <a.example.com>"),
    ],
)
def test_a_list_is_named_so_that_it_cannot_be_misread(phrase: str, written: bytes) -> None:
    promotion = stamp.Promotion(COMPANY, phrase, "a.example.com")
    assert value_of(promotional_copy(message("text-only"), promotional(promotion=promotion)), "list-id") == written


@pytest.mark.req("HDR-02")
def test_a_list_name_beyond_ascii_is_read_back_as_it_was() -> None:
    name = "Überblick für Köln – 株式会社 ☕ " * 3
    copy = promotional_copy(message("text-only"), promotional(promotion=replace(PROMOTION, list_name=name)))
    (raw,) = [field.raw for field in copy.header if field.name == "list-id"]
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert read(wire(copy))["List-Id"] == f"{name.strip()} <{PROMOTION.list_id}>"


@pytest.mark.req("HDR-02")
@pytest.mark.parametrize("list_id", ["", "nodot", "a b.c", "a..b", "a.b>", "ä.example", "a.b\r\n", "a." + "b" * 254])
def test_a_list_identifier_that_is_none_is_refused(list_id: str) -> None:
    with pytest.raises(ValueError):
        stamp.Promotion(COMPANY, "News", list_id)


@pytest.mark.req("SMTP-15")
def test_the_trace_field_says_who_by_which_protocol_when_and_for_whom() -> None:
    at = NOW.astimezone(timezone(timedelta(hours=-5)))
    peer = Peer("tool.example", "2001:db8::1", "ESMTPSA", "TLSv1.3")
    assert stamp.received(peer, "relay.example.com", "01JABC", at, ALICE).raw == (
        b"Received: from tool.example ([IPv6:2001:db8::1])\r\n"
        b"\tby relay.example.com with ESMTPSA (TLSv1.3) id 01JABC\r\n"
        b"\tfor <alice@example.org>;\r\n\tSun, 22 Nov 2026 14:02:00 -0500\r\n"
    )
    several = stamp.received(Peer("[192.0.2.1]", "192.0.2.1", "ESMTPA"), "relay.example.com", "01JABC", at)
    assert several.value.startswith(b"from [192.0.2.1] ([192.0.2.1])\tby relay.example.com with ESMTPA id 01JABC;")
    assert b"for <" not in several.raw


@given(HOSTILE)
def test_a_greeting_cannot_break_out_of_the_trace_field(helo: str) -> None:
    raw = stamp.received(Peer(helo, "192.0.2.1", "ESMTP"), "relay.example.com", "01J", NOW).raw
    assert re.fullmatch(rb"Received: from [\w.:\[\]-]+ \(\[192.0.2.1\]\)(\r\n\t[^\r\n]+){2}\r\n", raw)


@pytest.mark.req("SMTP-07")
@settings(max_examples=400)
@given(company=HOSTILE, address=HOSTILE, topic=HOSTILE, subject=HOSTILE.map(str.encode), name=HOSTILE.map(str.encode))
def test_no_name_or_text_adds_a_header_or_breaks_a_line(
    company: str, address: str, topic: str, subject: bytes, name: bytes
) -> None:
    promotion = stamp.Promotion(replace(COMPANY, name=company, postal_address=address), topic, "a.example.com")
    content = b'From: a@example.com\r\nTo: "%b" <alice@example.org>, bob@example.org\r\nSubject: %b\r\n\r\nHi\r\n'
    message = content % (name, subject)
    assume(not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", message))  # which the dialogue refuses
    prepared = stamp.prepare(message, split(message), promotional(ALICE, BOB, promotion=promotion))
    assert isinstance(prepared, stamp.Draft)
    copy = wire(prepared.copy_for(ALICE, LINK, MESSAGE_ID))
    new = ["received", "list-unsubscribe", "list-unsubscribe-post", "list-id", "message-id", "date"]
    submitted = [field.name for field in split(with_regular_header(message)).fields]
    assert [field.name for field in split(copy).fields] == new + submitted
    assert copy.count(b"\r") == copy.count(b"\n") == copy.count(b"\r\n") and b"\0" not in copy
    assert b"bob@example.org" not in copy or b"\r\n" in name


@pytest.mark.req("SMTP-07")
@given(st.lists(st.binary(max_size=40).map(lambda line: line.translate(None, b"\r\n\0")), max_size=12))
def test_any_message_comes_out_with_whole_lines_or_is_refused(lines: list[bytes]) -> None:
    content = b"\r\n".join(lines)
    for treatment in (promotional(ALICE, BOB), essential()):
        prepared = stamp.prepare(content, split(content), treatment)
        if isinstance(prepared, stamp.Unstampable):
            continue
        made = prepared.copy_for(BOB, LINK, MESSAGE_ID) if treatment.promotion else prepared.shared_copy(MESSAGE_ID)
        copy = wire(made)
        assert copy.count(b"\r") == copy.count(b"\n") == copy.count(b"\r\n")
        assert copy.endswith(b"\r\n")


@pytest.mark.req("SMTP-07")
def test_lines_that_begin_with_a_dot_are_left_to_who_sends_them() -> None:
    assert b"\r\n\r\n.\r\n..\r\n.hidden\r\n...\r\n" in wire(promotional_copy(message("dot-lines")))


def test_a_signature_stands_on_top_of_the_trace_field() -> None:
    copy = wire(essential_copy(message("text-only")), b"DKIM-Signature: v=1\r\n")
    assert copy.startswith(b"DKIM-Signature: v=1\r\n" + TRACE.raw)
    assert isinstance(TRACE, Field)


PLACE = b"{{assent_reconsent_url}}"


@pytest.mark.parametrize("name", STAMPABLE)
def test_a_notice_without_a_place_for_its_link_stays_as_it_is(name: str) -> None:
    submitted = message(name)
    asking = replace(essential(), asks=True)
    assert body_of_notice(submitted, asking, "https://x/a/t") == body_of_notice(submitted, essential(), "")


@pytest.mark.parametrize(
    "name", [one for one in STAMPABLE if b"</body>" in message(one) and one != "rfc822-attachment"]
)
def test_a_notice_differs_in_its_link_alone(name: str) -> None:
    asking = replace(essential(), asks=True)
    wanted = message(name).replace(b"</body>", PLACE + b"</body>", 1)
    expected = message(name).replace(b"</body>", b"https://x/a/t?1&amp;2</body>", 1)
    filled = body_of_notice(wanted, asking, "https://x/a/t?1&2")
    assert filled.replace(b"=\r\n", b"") == body_of_notice(expected, essential(), "").replace(b"=\r\n", b"")
    with pytest.raises(ValueError, match="link"):
        draft(wanted, asking).shared_copy(MESSAGE_ID)


def body_of_notice(content: bytes, treatment: stamp.Treatment, url: str) -> bytes:
    return b"".join(map(bytes, draft(content, treatment).shared_copy(MESSAGE_ID, url).body))
