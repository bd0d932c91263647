"""Fewer letters: what a next hop without 8BITMIME or SMTPUTF8 is sent reads as what was submitted, or is not sent.

The judge of what a reader sees is Python's own parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import stamp
from gateway.downgrade import Inexpressible, written_in
from gateway.headers import split
from gateway.model import Alphabet
from tests.copies_under_test import (
    ALICE,
    COMPANY,
    LINK,
    MESSAGE_ID,
    NAMES,
    SEALED,
    draft,
    essential,
    message,
    promotional,
    read,
    wire,
)

PLAIN = b"From: a@example.com\r\nMIME-Version: 1.0\r\n"
EIGHT_BIT_HEADERS = {"utf8-headers", "odd-headers"}
Part = tuple[str, bytes | str]


def in_ascii(content: bytes) -> bytes:
    return written_in(Alphabet.ASCII, content, is_utf8=False)


def seen(content: bytes) -> list[Part]:
    """Return what a reader sees: each part's type and its decoded octets."""
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in leaves(read(content))]


def leaves(part: EmailMessage) -> Sequence[EmailMessage]:
    return [one for one in part.walk() if not one.is_multipart()]


def encodings(content: bytes) -> list[str]:
    return [part.get("Content-Transfer-Encoding", "") for part in read(content).walk()]


@pytest.mark.req("OUT-08")
@pytest.mark.parametrize("name", sorted(set(NAMES) - EIGHT_BIT_HEADERS))
def test_a_real_message_reads_the_same_in_seven_bits(name: str) -> None:
    content = message(name)
    converted = in_ascii(content)
    assert converted.isascii()
    assert [(kind, octets.rstrip()) for kind, octets in seen(converted)] == [
        (kind, octets.rstrip()) for kind, octets in seen(content)
    ]
    assert {"8bit", "binary"}.isdisjoint(encodings(converted))


@pytest.mark.parametrize("name", sorted(set(NAMES) - EIGHT_BIT_HEADERS))
def test_what_is_seven_bits_already_keeps_its_octets(name: str) -> None:
    content = in_ascii(message(name))
    assert in_ascii(content) == content


@pytest.mark.parametrize("name", sorted(SEALED))
def test_what_is_sealed_keeps_its_octets(name: str) -> None:
    content = message(name)
    assert in_ascii(content).partition(b"\r\n\r\n")[2] == content.partition(b"\r\n\r\n")[2]


@given(st.text(max_size=300))
def test_any_text_survives(text: str) -> None:
    body = "\r\n".join("".join(one for one in line if one.isprintable()) for line in text.split("\n")).encode()
    content = PLAIN + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body
    converted = in_ascii(content)
    assert converted.isascii()
    assert read(converted).get_payload(decode=True).rstrip(b"\r\n") == body.rstrip(b"\r\n")


@pytest.mark.parametrize(
    ("kind", "body", "encoding"),
    [
        ("text/plain; charset=utf-8", "Zwölf Boxkämpfer jagen Viktor".encode(), "quoted-printable"),
        ("text/plain; charset=utf-8", "Съешь же ещё этих булок".encode(), "base64"),
        ("text/html; charset=iso-8859-1", b"<p>caf\xe9 au lait</p>", "quoted-printable"),
        ("application/octet-stream", b"only one \xff octet of many is high", "base64"),
    ],
)
def test_each_part_gets_the_encoding_that_suits_it(kind: str, body: bytes, encoding: str) -> None:
    part = b"Content-Type: %b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b\r\n" % (kind.encode(), body)
    content = PLAIN + b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    content += b"--b\r\n\r\nplain\r\n--b\r\n" + part + b"--b--\r\n"
    converted = in_ascii(content)
    assert encodings(converted) == ["7bit", "", encoding]
    assert seen(converted)[1][1].rstrip(b"\r\n") == body
    assert b"--b\r\n\r\nplain\r\n--b\r\n" in converted, "the part that was plain keeps its octets"


@pytest.mark.req("OUT-08")
def test_parts_within_an_embedded_message_are_converted_in_it() -> None:
    text = "Das Haus ist grün\r\n".encode()
    inner = b"Subject: inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    content = PLAIN + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner + text
    converted = in_ascii(content)
    assert encodings(converted) == ["7bit", "quoted-printable"]
    assert seen(converted) == [("text/plain", text)]


def test_a_message_without_mime_gets_what_its_octets_need() -> None:
    converted = in_ascii(b"Subject: x\r\n\r\ncaf\xe9\r\n")
    assert converted.startswith(
        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\n\r\n"
    )


@pytest.mark.req("OUT-08")
@pytest.mark.parametrize(
    "content",
    [
        b"Subject: caf\xe9\r\n\r\nhello\r\n",
        PLAIN + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-ID: \xc3\xbc\r\n\r\nx\r\n--b--\r\n",
        PLAIN + b"Content-Type: multipart/mixed; boundary=b\r\n\r\ngr\xc3\xbcn\r\n--b\r\n\r\nx\r\n--b--\r\n",
        PLAIN
        + b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\ngr\xc3\xbcn\r\n--b\r\n\r\nx\r\n--b--\r\n",
        PLAIN + b"Content-Type: message/rfc822\r\n\r\nSubject: gr\xc3\xbcn\r\n\r\nx\r\n",
        PLAIN + b"Content-Type: message/partial; id=x; number=1\r\n\r\ngr\xc3\xbcn\r\n",
        PLAIN + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\ngr\xc3\xbcn\r\n",
        PLAIN + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-own\r\n\r\ngr\xc3\xbcn\r\n",
        PLAIN + b"Content-Type: multipart/mixed\r\n\r\ngr\xc3\xbcn\r\n",
    ],
    ids=["header", "part header", "preamble", "sealed", "embedded", "partial", "not base64", "unknown", "no boundary"],
)
def test_what_no_encoding_can_hide_is_not_sent(content: bytes) -> None:
    with pytest.raises(Inexpressible) as refused:
        in_ascii(content)
    assert refused.value.enhanced == "5.6.3"
    unsendable = stamp.prepare(content, split(content), replace(essential(), alphabet=Alphabet.ASCII))
    assert isinstance(unsendable, stamp.Unstampable)
    assert (unsendable.reply.code, unsendable.reply.enhanced) == (554, "5.6.3")


@pytest.mark.req("I18N-02")
@pytest.mark.parametrize("alphabet", [Alphabet.EIGHT_BIT, Alphabet.ASCII])
def test_the_domains_of_addresses_are_written_in_a_labels(alphabet: Alphabet) -> None:
    header = (
        'From: "News" <news@straße.example>\r\n'
        "To: bob@bücher.example,\r\n Eve <eve@bücher.example>, mallory@example.com\r\nSubject: x\r\n"
    )
    converted = written_in(alphabet, f"{header}\r\nhello\r\n".encode(), is_utf8=True)
    assert converted == (
        b'From: "News" <news@xn--strae-oqa.example>\r\n'
        b"To: bob@xn--bcher-kva.example,\r\n Eve <eve@xn--bcher-kva.example>, mallory@example.com\r\nSubject: x\r\n"
        b"\r\nhello\r\n"
    )


@pytest.mark.req("I18N-02")
@pytest.mark.parametrize(
    "field", ["Subject: grün", "To: Jürgen <j@example.com>", "To: δοκιμή@example.com", "Cc: broken <ü", "X-Note: é"]
)
def test_words_of_a_header_are_not_encoded_anew(field: str) -> None:
    for alphabet in (Alphabet.EIGHT_BIT, Alphabet.ASCII):
        with pytest.raises(Inexpressible) as refused:
            written_in(alphabet, f"{field}\r\n\r\nhello\r\n".encode(), is_utf8=True)
        assert refused.value.enhanced == "5.6.7"


def test_a_body_keeps_its_octets_for_a_next_hop_that_lacks_smtputf8_alone() -> None:
    content = "From: a@bücher.example\r\n\r\ngrün\r\n".encode()
    converted = written_in(Alphabet.EIGHT_BIT, content, is_utf8=True)
    assert converted == "From: a@xn--bcher-kva.example\r\n\r\ngrün\r\n".encode()


def test_a_header_of_unknown_octets_stays_where_eight_bits_are_taken() -> None:
    content = b"Subject: caf\xe9\r\n\r\nhello\r\n"
    assert written_in(Alphabet.EIGHT_BIT, content, is_utf8=False) == content


@pytest.mark.req("OUT-08")
@pytest.mark.parametrize("name", sorted(set(NAMES) - SEALED - EIGHT_BIT_HEADERS))
def test_a_promotional_copy_with_its_footer_has_seven_bits_too(name: str) -> None:
    assert not COMPANY.name.isascii()
    treatment = replace(promotional(), alphabet=Alphabet.ASCII)
    assert wire(draft(message(name), treatment).copy_for(ALICE, LINK, MESSAGE_ID)).isascii()
