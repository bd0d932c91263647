"""Long lines: seen wherever they are, mended where that changes nothing for a reader, refused elsewhere (SMTP-08)."""

from __future__ import annotations

import base64
import binascii
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import stamp
from gateway.errors import Malformed
from gateway.headers import split
from gateway.mend import LINE_LIMIT, base64_lines, has_long_line, mend, quoted_printable, with_regular_header
from tests.copies_under_test import COMPANY, draft, essential, essential_copy, message, promotional_copy, read, wire

HEAD = b"From: a@example.com\r\nMIME-Version: 1.0\r\n"
LENGTHS = (999, 100_000)


def longest_line(content: bytes) -> int:
    return max(len(line) for line in content.split(b"\r\n"))


@given(st.lists(st.integers(0, 1100), max_size=8), st.booleans())
def test_a_long_line_is_seen_wherever_it_is(lengths: list[int], ended: bool) -> None:
    content = b"\r\n".join(b"x" * length for length in lengths) + b"\r\n" * ended
    assert has_long_line(content) == (longest_line(content) > LINE_LIMIT)


@pytest.mark.parametrize("length", [997, 998])
def test_a_line_at_the_limit_is_not_long(length: int) -> None:
    assert not has_long_line(b"x" * length + b"\r\n" + b"y" * length)


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("subtype", ["plain", "html"])
def test_a_long_line_of_text_is_hidden_in_quoted_printable(length: int, subtype: str) -> None:
    text = "ü=\t" * (length // 3) + " \r\nnext\r\n"
    header = HEAD + b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n" % subtype.encode()
    mended = mend(header + b"\r\n" + text.encode())
    assert longest_line(mended) <= 76
    assert mended.startswith(header.replace(b"8bit", b"quoted-printable"))
    assert read(mended).get_payload(decode=True) == text.encode()


def test_a_large_part_that_quoted_printable_would_make_much_larger_is_hidden_in_base64() -> None:
    text = "ü".encode() * 600_000
    mended = mend(HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text)
    assert longest_line(mended) <= 76
    assert b"Content-Transfer-Encoding: base64\r\n" in mended
    assert read(mended).get_payload(decode=True) == text


def test_what_is_not_touched_of_a_large_quoted_printable_part_keeps_its_octets() -> None:
    head = HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    short, long = b"one=20line\r\n" * 50_000, b"=C3=BC" * 100_000
    mended = mend(head + long + b"\r\n" + short + long)
    assert longest_line(mended) <= 76
    assert short in mended
    assert (
        read(mended).get_payload(decode=True)
        == ("ü" * 100_000 + "\r\n" + "one line\r\n" * 50_000 + "ü" * 100_000).encode()
    )


@pytest.mark.req("SMTP-08")
def test_a_message_without_mime_gets_what_quoted_printable_needs() -> None:
    mended = mend(b"Subject: x\r\n\r\n" + b"word " * 400)
    assert mended.startswith(b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject: x\r\n\r\n")
    assert read(mended).get_payload(decode=True) == b"word " * 400


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_line_of_base64_is_broken_at_76(length: int) -> None:
    octets = bytes(range(251)) * (length // 251)
    part = b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(octets)
    content = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nshort\r\n" + part + b"\r\n--b--\r\n"
    mended = mend(content)
    assert longest_line(mended) == 76
    assert [part.get_payload(decode=True) for part in read(mended).iter_parts()] == [b"short", octets]
    assert mended.startswith(content[: content.index(b"short")])


@pytest.mark.req("SMTP-08")
def test_a_long_line_of_quoted_printable_gets_soft_breaks_outside_escapes() -> None:
    header = HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    content = header + b"=C3=BCx" * 300 + b"=3D =\r\nend=\r\n"
    mended = mend(content)
    assert longest_line(mended) <= 76
    assert read(mended).get_payload(decode=True) == read(content).get_payload(decode=True)


@pytest.mark.req("SMTP-08")
def test_a_long_line_in_an_attached_message_is_mended_there() -> None:
    inner = b"Subject: inner\r\nContent-Type: text/html\r\n\r\n" + b"<p>" * 500
    content = (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n%b\r\n--b--\r\n"
    )
    mended = mend(content % inner)
    assert not has_long_line(mended)
    (attached,) = read(mended).iter_parts()
    assert attached.get_content().get_payload(decode=True) == b"<p>" * 500
    assert attached.get_content()["Subject"] == "inner"


@pytest.mark.req("SMTP-08")
def test_a_long_header_line_is_folded_at_white_space_and_reads_the_same() -> None:
    value = b" ".join(b"word%d" % number for number in range(400))
    mended = mend(b"X-Before: 1\r\nX-Long: " + value + b"  \r\nX-After: 2\r\n\r\nbody\r\n")
    assert longest_line(mended) <= LINE_LIMIT
    assert read(mended)["X-Long"].encode() == value
    assert mended.startswith(b"X-Before: 1\r\nX-Long: word0 ") and mended.endswith(b"\r\nX-After: 2\r\n\r\nbody\r\n")


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize(
    "content",
    [
        b"X-Long: " + b"x" * 1000 + b"\r\n\r\nbody\r\n",
        b"X-Long: a" + b" " * 3000 + b"b\r\n\r\nbody\r\n",
        b"Content-Transfer-Encoding: x-unknown\r\n\r\n" + b"x" * 1000,
        b"Content-Type: multipart/mixed; boundary=nowhere\r\n\r\n" + b"x" * 1000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"x" * 1000 + b"\r\n--b\r\n\r\nx\r\n--b--\r\n",
        b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + b"x" * 1000 + b"\r\n--b--\r\n",
        b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"x" * 1000,
    ],
)
def test_what_cannot_be_mended_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        mend(content)
    refused = stamp.prepare(content, split(content), essential())
    assert isinstance(refused, stamp.Unstampable)
    assert str(refused.reply).startswith("554 5.6.0 ")


@pytest.mark.req("SMTP-08")
def test_a_newsletter_with_long_lines_is_stamped_in_its_new_encoding() -> None:
    copy = wire(promotional_copy(message("long-html-line")))
    text = read(copy).get_content()
    assert longest_line(copy) <= LINE_LIMIT
    assert text.count("<p>Grüße, eine lange Zeile ohne Umbruch.</p>") == 60
    assert text.index("Unsubscribe</a>") < text.index("</body>")


def test_other_mail_is_mended_too_and_nothing_else_changes() -> None:
    content = message("long-html-line")
    copy = read(wire(essential_copy(content)))
    assert copy.get_content() == read(content).get_content()
    assert COMPANY.postal_address not in copy.get_content()


def test_a_message_without_long_lines_is_not_touched() -> None:
    content = message("newsletter-campaign")
    body = content.partition(b"\r\n\r\n")[2]
    assert b"".join(draft(content, essential()).shared_copy("<a@b>").body) == body


@given(st.binary(max_size=300))
def test_encoders_break_lines_at_76_and_lose_nothing(data: bytes) -> None:
    encoded = base64_lines(data)
    assert longest_line(encoded) <= 76 and base64.b64decode(encoded) == data


@pytest.mark.parametrize(
    "piece", [b"word ", b"a line\r\n", b"=", b"\xc3\xa9", b"x" * 997 + b"\r\n", b" \t\r\n", b"\r\n.\r\n"]
)
def test_what_is_encoded_in_steps_is_what_would_be_encoded_at_once(piece: bytes) -> None:
    data = b"begin" + piece * (700_000 // len(piece)) + b"end"
    assert quoted_printable(data) == binascii.b2a_qp(data + b"\r\n", istext=True)[:-2]


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("piece", [b"=3D", b"a=C3=A9", b"=20=C3", b"x"])
def test_an_endless_quoted_printable_line_is_broken_between_its_escapes(piece: bytes) -> None:
    body = b"begin" + piece * (700_000 // len(piece))
    mended = mend(b"From: a@example.com\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body + b"\r\n")
    encoded = mended.partition(b"\r\n\r\n")[2]
    assert longest_line(encoded) <= 76
    assert encoded.replace(b"=\r\n", b"") == body + b"\r\n"
    assert not re.search(rb"=[0-9A-F]?=\r\n", encoded)


@given(st.lists(st.text(max_size=150).map(lambda text: "".join(text.split("\n"))), max_size=5))
@example(["x" * 200])
def test_quoted_printable_has_crlf_only_and_loses_nothing(lines: list[str]) -> None:
    data = "\r\n".join(line.replace("\r", "") for line in lines).encode()
    encoded = quoted_printable(data)
    header = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    assert longest_line(encoded) <= 76
    assert encoded.count(b"\r") == encoded.count(b"\n") == encoded.count(b"\r\n")
    assert read(header + encoded).get_payload(decode=True) == data


@pytest.mark.parametrize(
    ("irregular", "regular"),
    [
        (b"A: 1\r\nno field\r\nB: 2\r\n\r\nbody\r\n", b"A: 1\r\n\r\nno field\r\nB: 2\r\n\r\nbody\r\n"),
        (b"A: 1\r\n: 2\r\n\r\n", b"A: 1\r\n\r\n: 2\r\n\r\n"),
        (b" A: 1\r\n\r\nbody\r\n", b"\r\n A: 1\r\n\r\nbody\r\n"),
        (b"A: 1\r\nno field", b"A: 1\r\n\r\nno field"),
        (b"A \t: 1\r\n b :c\r\nB : 2", b"A: 1\r\n b :c\r\nB: 2"),
        (b"From : a@example.com\r\n\r\n", b"From: a@example.com\r\n\r\n"),
        (b"From a@example.com  Fri Sep  6 11:42:31 2002\r\nA : 1\r\n\r\n", b"A: 1\r\n\r\n"),
        (b"A: 1\r\n>From - Fri Sep 16 11:42:31 2002\r\nB: 2\r\n\r\n", b"A: 1\r\nB: 2\r\n\r\n"),
        (b"A: 1\r\nFrom all of us:\r\n\r\nbody\r\n", b"A: 1\r\n\r\nFrom all of us:\r\n\r\nbody\r\n"),
    ],
)
def test_a_header_becomes_fields_and_nothing_else(irregular: bytes, regular: bytes) -> None:
    assert with_regular_header(irregular) == regular
    assert with_regular_header(regular) is regular


@given(
    st.text("Fromx:> \t\u2028é", max_size=30).map(str.encode),
    st.lists(st.sampled_from([b"\r\n", b"A: 1\r\n", b" b\r\n"])),
)
def test_no_header_has_a_line_that_is_no_field(line: bytes, lines: list[bytes]) -> None:
    content = with_regular_header(b"".join([*lines, line, b"\r\n", *lines]))
    assert all(re.match(rb"[!-9;-~]+:", field.raw) for field in split(content).fields)
    assert with_regular_header(content) is content
