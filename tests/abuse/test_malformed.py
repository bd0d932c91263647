"""Malformed MIME: content that lies about itself, breaks off, or is nothing that anybody would write.

Each kind passes or is refused in one sentence; account mail that passes keeps its octets; nobody crashes; and none
costs more than a second of processor a mebibyte, whatever it is submitted as. Structures are test_bombs' matter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from tests.abuse.conftest import READERS, connect
from tests.abuse.footprint import MIB, Footprint
from tests.gateway_under_test import Gateway, newsletter
from tests.sink import Sink

HEADER = b"From: letters@news.example.com\r\nTo: abuse-reader0@example.org\r\nSubject: Odd\r\nMIME-Version: 1.0\r\n"
OCTETS = MIB
WORDS = "Grüße an alle, 100 % günstig\r\n".encode()


def text(charset: str, encoding: str = "8bit", subtype: str = "plain", body: bytes = WORDS) -> bytes:
    """Return a message of one part with that label, its body repeated to the size of all here."""
    label = f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return HEADER + label.encode() + body * (OCTETS // len(body))


def html(body: bytes) -> bytes:
    return text("utf-8", subtype="html", body=body)


def mixed(*parts: bytes, boundary: bytes = b"cut") -> bytes:
    opened = HEADER + b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n"
    return opened + b"".join(b"--" + boundary.strip(b'"') + b"\r\n" + part + b"\r\n" for part in parts)


LINES = base64.encodebytes(WORDS * 1000).replace(b"\n", b"\r\n")
LYING = {
    f"called {charset}": text(charset)
    for charset in (
        *("utf-16", "utf-32", "utf-7", "us-ascii", "iso-2022-jp", "iso-2022-kr", "hz", "gb18030", "big5", "no-such"),
        *("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "base64", "hex", "zlib", "rot13"),
        *('""', '"a\\"b"', "utf-8''x", "x" * 200),
    )
}
BROKEN = {
    "base64 that breaks off": text("utf-8", "base64", body=LINES[:-7]),
    "base64 of nothing but padding": text("utf-8", "base64", body=b"=" * 76 + b"\r\n"),
    "base64 with anything between": text("utf-8", "base64", body=b"SGVs*bG8\xff!\r\n"),
    "base64 of one letter a line": text("utf-8", "base64", body=b"S\r\n"),
    "quoted-printable of equals signs": text("utf-8", "quoted-printable", body=b"=" * 70 + b"\r\n"),
    "quoted-printable of soft breaks": text("utf-8", "quoted-printable", body=b"=\r\n"),
    "quoted-printable that is none": text("utf-8", "quoted-printable", body=b"=ZZ=\xff=1\r\n"),
    "an encoding that nobody knows": text("utf-8", "x-own"),
    "two encodings in one": text("utf-8", "base64, quoted-printable"),
    "quoted-printable full of placeholders": text(
        "utf-8", "quoted-printable", body=b"Leave by [unsubscribe], dear friend\r\n"
    ),
    "uuencode": text("utf-8", "x-uuencode", body=b"begin 644 a\r\n#86)C\r\n"),
}
PARTS = {
    "a part of garbage before its first line": mixed(bytes(range(128, 256)) + b"\xfe: \xff\r\n" * 1000 + b"\r\nHello"),
    "a part without an end": mixed(b"Content-Type: text/html\r\n\r\n<p>Hello" + WORDS * 1000),
    "parts within a part of the same boundary": mixed(*[b"Content-Type: multipart/mixed; boundary=cut\r\n"] * 5000),
    "a boundary that begins another": mixed(b"\r\nHello\r\n--cut-on\r\n\r\nmore\r\n" * 20_000),
    "a boundary of nothing": mixed(b"\r\nHello", boundary=b'""'),
    "a boundary of two hundred characters": mixed(b"\r\nHello", boundary=b"c" * 200),
    "a boundary of spaces": mixed(b"\r\nHello", boundary=b'"   "'),
    "a message in base64": mixed(b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + LINES),
    "a multipart in base64": HEADER
    + b"Content-Type: multipart/mixed; boundary=cut\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + LINES,
    "a type that is none": HEADER + b"Content-Type: ;;;=\xff/;\r\n\r\n" + WORDS,
    "a type of many parameters": HEADER + b"Content-Type: text/plain" + b"; a*0*=b''c" * 5000 + b"\r\n\r\n" + WORDS,
}
TAGS = {
    f"HTML of {name}": html(body)
    for name, body in {
        "opening brackets": b"<" * 70 + b"\r\n",
        "unfinished links": b'<a href="x\r\n',
        "unfinished images": b"<img width=\r\n",
        "unfinished comments": b"<!-- <!-->\r\n",
        "unfinished entities": b"&#x&#&amp&\r\n",
        "nested boxes": b"<div><p><table><td>\r\n",
        "unfinished styles": b"<style><script><title>\r\n",
        "attributes": b"<p a=b c='d' e\r\n",
        "closing brackets": b"</body></html>\r\n",
        "hidden text": b'<p style="display:none">a</p>\r\n',
        "unfinished placeholders": b"{{unsubscribe\r\n",
        "rules by what encloses what": b"<style>.a b .o, i > b {display:none}</style><b class=o>a\r\n",
        "links in no colour": b'<p style="color:#fff"><a href="{{unsubscribe_url}}">a</a>\r\n',
        "declarations": b"<![CDATA[<!DOCTYPE<?xml\r\n",
    }.items()
}
HEADERS = {
    "a subject of unfinished words": HEADER.replace(b"Odd", b"=?utf-8?q?=C3\r\n =?utf-8?b?=\r\n " * 2500)
    + b"\r\nHello\r\n",
    "a subject of a lying word": HEADER.replace(b"Odd", b"=?punycode?b?" + b"YQ" * 30_000 + b"?=") + b"\r\nHello\r\n",
    "garbage for a header": HEADER
    + bytes(range(128, 256)) * 20
    + b"\r\n: nothing\r\n \r\n\t\r\nno field\r\n\r\nHello\r\n",
}
MALFORMED = LYING | BROKEN | PARTS | TAGS | HEADERS


@pytest.fixture(scope="module", autouse=True)
def honest_mail_still_flows(abused: Gateway, shared_sink: Sink) -> Iterator[None]:
    yield
    shared_sink.clear()
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[3]), [READERS[3]]).code == 250
    shared_sink.wait_for(1)


@pytest.mark.parametrize("login", ["news", "receipts"])
@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_passes_or_is_refused_in_one_sentence_and_costs_little(
    abused: Gateway, spent: Footprint, sink: Sink, content: bytes, login: str
) -> None:
    sink.clear()
    with connect(abused, login) as client, spent:
        said = client.transact(re.sub(rb"(?m)^\.", b"..", content), [READERS[0]])
        copies = sink.wait_for(1, timeout=30) if said.code == 250 else []
    assert said.code == 250 or re.match(
        r"5(?:50 5\.7\.0 content: |54 5\.6\.0 |50 5\.6\.0 |52 5\.3\.4 )\w", str(said)
    ), said
    assert len(said.lines) == 1
    assert spent.seconds <= max(1.0, len(content) / MIB), spent.seconds
    for copy in copies:
        body, ours = (one.partition(b"\r\n\r\n")[2] for one in (copy.content, content))
        assert login == "news" or len(max(content.split(b"\r\n"), key=len)) > 998 or body.rstrip() == ours.rstrip()
