"""What leaves: every message that is accepted reaches a strict sink as exactly one, whole and signed, octet for octet.

The sink itself counts a bare CR, a bare LF, a NUL, a dot that was not doubled and a second message; a test of this file
fails where it has counted any.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.abuse import size
from tests.abuse.conftest import READERS, connect
from tests.copies_under_test import MESSAGES, SEALED, dkimpy_accepts
from tests.gateway_under_test import Gateway
from tests.raw_smtp import Said
from tests.sink import Received, Sink

REAL = {path.stem: path.read_bytes() for path in sorted(MESSAGES.glob("*.eml"))}
OURS = re.compile(
    rb"(?mi)^(?:dkim-signature|received|list-[a-z-]+|date|message-id|assent-[a-z-]+|x-campaign|bcc)[ \t]*:.*\r\n"
    rb"(?:[ \t].*\r\n)*"
)
"""The fields that may come or go (another system's name for a campaign goes); all others stay."""


@pytest.fixture(scope="module")
def records(abused: Gateway) -> dict[str, str]:
    return {one["name"]: one["record"] for one in abused.json("dkim", "dns", "example.com")}


def submit(
    gateway: Gateway, sink: Sink, content: bytes, login: str, timeout: float = 10
) -> tuple[Said, list[Received]]:
    """Submit a message, dots doubled; return the answer and what the sink has got once the queue is empty."""
    sink.clear()
    stuffed = re.sub(rb"(?m)^\.", b"..", content)
    with connect(gateway, login) as client:
        said = client.transact(stuffed, [READERS[0]])
    return said, sink.wait_for(1, timeout) if said.code == 250 else []


def labelled(content: bytes) -> bytes:
    """Return a message without control fields, which name topics that this gateway does not have."""
    return re.sub(rb"(?mi)^assent-.*\r\n(?:[ \t].*\r\n)*", b"", content)


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def needs_no_mending(content: bytes) -> bool:
    """True where no line is too long, so that no part is encoded anew."""
    return max(map(len, content.split(b"\r\n"))) <= 998


def kept_header(content: bytes) -> bytes:
    return OURS.sub(b"", content.partition(b"\r\n\r\n")[0] + b"\r\n")


def regular(header: bytes) -> bytes:
    """Return a header without the white space that stands before a colon in one message."""
    return header.replace(b"FROM : ", b"FROM: ")


@pytest.mark.req("SMTP-07", "DKIM-10", "HDR-01")
@pytest.mark.parametrize("name", REAL)
def test_real_account_mail_leaves_as_it_came_and_signed(
    abused: Gateway, sink: Sink, records: dict[str, str], name: str
) -> None:
    content = labelled(REAL[name])
    said, messages = submit(abused, sink, content, "receipts")
    assert said.code == 250, said
    (message,) = messages
    if needs_no_mending(content):
        ending = b"" if content.endswith(b"\r\n") else b"\r\n"
        assert body_of(message.content) == body_of(content) + ending
        assert kept_header(message.content) == regular(kept_header(content))
    assert dkimpy_accepts(message.content, records)


@pytest.mark.req("SMTP-07", "DKIM-10")
@pytest.mark.parametrize("name", sorted(set(REAL) - SEALED))
def test_real_promotion_leaves_once_and_signed(abused: Gateway, sink: Sink, records: dict[str, str], name: str) -> None:
    content = labelled(REAL[name])
    said, messages = submit(abused, sink, content, "news")
    assert said.code == 250, said
    (message,) = messages
    assert dkimpy_accepts(message.content, records)
    if needs_no_mending(content):
        assert kept_header(message.content) == regular(kept_header(content))
    assert len(re.findall(rb"(?mi)^list-unsubscribe:", message.content)) == 1


@pytest.mark.parametrize("name", sorted(SEALED))
def test_real_promotion_that_is_sealed_is_refused_with_the_reason(abused: Gateway, sink: Sink, name: str) -> None:
    said, _ = submit(abused, sink, labelled(REAL[name]), "news")
    assert said.code == 550 and said.text.startswith("5.7.0 content: ")


# anything at all

_BITS = st.sampled_from(
    [
        *(
            b"\r\n",
            b".",
            b"..",
            b"\r\n.\r\n.",
            b"\r\n..",
            b" ",
            b"\t",
            b"  \r\n",
            b"=",
            b"=\r\n",
            b"=20\r\n",
            b"--cut\r\n",
        ),
        *(b"--cut--\r\n", b"From ", b"\xff", b"\x00"[:0], b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"</body>"),
        *(b"<!--", b"-->", b"Content-Type: text/html\r\n\r\n", b"x" * 997, b"word " * 300, b"A" * 76 + b"\r\n"),
        *(b"Content-Transfer-Encoding: base64\r\n", b"\x1b$B", b"-----BEGIN PGP MESSAGE-----\r\n", b"\x7f", b"\x01"),
    ]
)
_TYPES = st.sampled_from(
    [
        *(b"", b"Content-Type: text/plain; charset=utf-8\r\n", b"Content-Type: text/html\r\n"),
        *(
            b'Content-Type: multipart/mixed; boundary="cut"\r\n',
            b"Content-Type: multipart/alternative; boundary=cut\r\n",
        ),
        *(b"Content-Type: text/plain; format=flowed\r\n", b"Content-Type: message/rfc822\r\n", b"Content-Type: ;;\r\n"),
        b"Content-Type: text/plain; charset=iso-2022-jp\r\n",
    ]
)
_ENCODINGS = st.sampled_from(
    [b"", *(b"Content-Transfer-Encoding: %b\r\n" % one for one in (b"base64", b"8bit", b"x-no"))]
)
_ENCODINGS |= st.just(b"Content-Transfer-Encoding: quoted-printable\r\n")
BODIES = st.lists(_BITS | st.binary(max_size=20), max_size=12).map(
    lambda bits: re.sub(rb"\r(?!\n)|(?<!\r)\n|\0", b"", b"".join(bits))
)


@settings(
    max_examples=size(150, 20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(BODIES, _TYPES, _ENCODINGS, st.sampled_from(["news", "receipts"]))
def test_whatever_is_in_a_message_it_stays_one_and_whole(
    abused: Gateway, sink: Sink, records: dict[str, str], body: bytes, kind: bytes, encoding: bytes, login: str
) -> None:
    content = b"From: letters@news.example.com\r\nSubject: Any\r\n" + kind + encoding + b"\r\n" + body + b"\r\n"
    said, messages = submit(abused, sink, content, login)
    assert said.code in (250, 550, 554), said
    assert len(messages) == (said.code == 250)
    assert sink.faults == []
    for message in messages:
        assert dkimpy_accepts(message.content, records)
        if login == "receipts" and needs_no_mending(content):
            assert body_of(message.content) == body_of(content)
