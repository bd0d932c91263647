"""Input made by chance: whatever comes, the gateway answers in good order, and nothing in it fails unforeseen.

A failure inside is known from outside by its reply, 451 4.3.0 or HTTP 500, and by a traceback in what `serve` prints.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.abuse import size
from tests.abuse.conftest import READERS, connect
from tests.gateway_under_test import Gateway, eventually, newsletter
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

fuzzed = settings(
    max_examples=size(120, 20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
REPLY = re.compile(r"[2345]\d\d(?:[ -]|$)[ -~]{0,507}")
FAILED_INSIDE = re.compile(r"451 4\.3\.0|internal error|Traceback|Error\b")


@pytest.fixture(autouse=True, scope="module")
def nothing_failed_inside(abused: Gateway) -> Iterator[None]:
    before = abused.log.stat().st_size
    yield
    printed = abused.log.read_bytes()[before:].decode()
    assert "Traceback" not in printed, printed[-3000:]


@pytest.fixture(autouse=True)
def honest_mail_still_flows(abused: Gateway, sink: Sink) -> Iterator[None]:
    yield
    sink.clear()
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[3]), [READERS[3]]).code == 250
    sink.wait_for(1)


# the conversation

ODD = [
    "\0",
    "\x01",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\udcff",
    "é",
    "😀",
    '"',
    "\\",
    "<",
    ">",
    "@",
    ",",
]
ADDRESSES = st.sampled_from(
    [
        READERS[0],
        "nobody@example.org",
        "",
        "postmaster",
        '"a b"@example.org',
        "a@[127.0.0.1]",
        "a@b",
        "@a:b@c.org",
        "ü@ü.org",
    ]
) | st.text(alphabet=st.sampled_from(["a", ".", "-", *ODD]), max_size=40)
PARAMETERS = st.lists(
    st.sampled_from(
        [
            *(
                "SIZE=1",
                "SIZE=99999999999999999999",
                "SIZE=",
                "SIZE=-1",
                "BODY=8BITMIME",
                "BODY=x",
                "SMTPUTF8",
                "SMTPUTF8=1",
            ),
            *(
                "RET=FULL",
                "RET=",
                "ENVID=a+3Db",
                "ENVID=+",
                "ENVID=" + "x" * 101,
                "AUTH=<>",
                "AUTH=a+40b",
                "NOTIFY=NEVER",
            ),
            *(
                "NOTIFY=NEVER,SUCCESS",
                "NOTIFY=success,delay",
                "ORCPT=rfc822;a@b.c",
                "ORCPT=;",
                "ORCPT=utf-8;\\x{ZZ}",
                "=",
            ),
        ]
    )
    | st.text(max_size=10),
    max_size=3,
)


def with_parameters(verb: str) -> st.SearchStrategy[str]:
    return st.builds(lambda to, more: " ".join([f"{verb}:<{to}>", *more]), ADDRESSES, PARAMETERS)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


COMMANDS = (
    st.sampled_from(
        [
            *(
                "EHLO tool.example.net",
                "EHLO",
                "HELO x",
                "NOOP",
                "RSET",
                "VRFY a",
                "HELP",
                "DATA",
                "DATA",
                "DATA x",
                "STARTTLS x",
            ),
            *(
                "MAIL FROM:<letters@news.example.com>",
                f"RCPT TO:<{READERS[0]}>",
                "AUTH LOGIN",
                "AUTH PLAIN",
                "*",
                "=",
                "",
            ),
            *(
                ".",
                "BDAT 3",
                "Subject: x",
                "From: letters@news.example.com",
                "\t",
                " QUIT",
                "mail from: <>",
                "RCPT TO:",
            ),
        ]
    )
    | with_parameters("MAIL FROM")
    | with_parameters("RCPT TO")
    | st.text(max_size=30)
    | st.builds(lambda text: f"AUTH PLAIN {encoded(text)}", st.text(max_size=20))
    | st.builds(
        lambda text: f"EHLO {text}", st.text(alphabet=st.sampled_from(["a", ".", "-", "[", ":", *ODD]), max_size=20)
    )
)
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\r\n", "\r\n.\r\n"])


@fuzzed
@given(st.lists(st.tuples(COMMANDS, ENDS), max_size=30), st.lists(st.integers(1, 400), max_size=5), st.booleans())
def test_any_conversation_is_answered_line_by_line_and_ends(
    abused: Gateway, sink: Sink, conversation: list[tuple[str, str]], cuts: list[int], logged_in: bool
) -> None:
    sink.clear()
    said = "".join(command + end for command, end in conversation).encode("utf-8", "surrogateescape")
    with connect(abused, "office" if logged_in else "") as client:
        say_in_pieces(client, said + b"\r\n.\r\nQUIT\r\n\r\n.\r\nQUIT\r\n", cuts)
        heard = client.rest()
    assert not [line for line in heard if not REPLY.fullmatch(line)]
    assert not [line for line in heard if FAILED_INSIDE.search(line)]
    sink.wait_for(len([line for line in heard if line.startswith("250 2.0.0 queued")]))


def say_in_pieces(client: RawSmtp, said: bytes, cuts: list[int]) -> None:
    """Send octets cut as told, and then no more; the gateway may have had enough of it before the end."""
    with suppress(OSError):
        for cut in cuts:
            client.send(said[:cut])
            said = said[cut:]
        client.send(said)
        client.end()


@fuzzed
@given(st.binary(max_size=2000), st.booleans())
def test_any_octets_are_answered_and_the_connection_ends(abused: Gateway, octets: bytes, under_tls: bool) -> None:
    with RawSmtp(abused.submission) if not under_tls else connect(abused) as client:
        say_in_pieces(client, (b"STARTTLS\r\n" if under_tls else b"") + octets + b"\r\nQUIT\r\n", [])
        if not under_tls:
            assert all(REPLY.fullmatch(line) for line in client.rest())
        else:
            assert client.reply().code == 220
            client.connection.settimeout(20)
            assert is_over(client)


def is_over(client: RawSmtp) -> bool:
    """Read whatever a handshake that cannot succeed is told; True once the gateway has hung up."""
    try:
        while client.connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


# headers

NAMES = st.sampled_from(
    [
        *(
            "To",
            "Cc",
            "Subject",
            "Date",
            "Message-ID",
            "Reply-To",
            "Sender",
            "References",
            "Content-Type",
            "X-Any",
            "Received",
        ),
        *(
            "List-Unsubscribe",
            "List-Id",
            "DKIM-Signature",
            "Bcc",
            "Resent-To",
            "Content-Transfer-Encoding",
            "Auto-Submitted",
        ),
        *(
            "Assent-Topic",
            "Assent-Class",
            "Assent-Stream",
            "Assent-Campaign",
            "Content-Disposition",
            "MIME-Version",
            "to",
            "DATE ",
        ),
    ]
)
VALUES = st.lists(
    st.sampled_from(
        [
            *(
                "a@example.org",
                "<a@example.org>",
                "\r\n ",
                "\r\n\t",
                "(",
                ")",
                '"',
                "\\",
                ";",
                ":",
                ",",
                "=?utf-8?q?",
                "?=",
                "<",
                ">",
            ),
            *(
                "promotional",
                "account",
                "newsletter",
                "receipts",
                "product-announcements",
                "text/html",
                "multipart/mixed",
                "boundary",
            ),
            *(
                "boundary=x",
                "charset=utf-7",
                "charset=utf-16",
                "base64",
                "v=1; d=example.com; b=",
                "d=",
                "\xa0",
                "ü",
                "\x0b",
                "\x0c",
            ),
            *(
                "\u2028",
                "\x85",
                "\x7f",
                "\x01",
                "x" * 990,
                "[",
                "]",
                "=",
                "%",
                "Mon, 32 Jan",
                "auto-replied",
                "=?x?b?",
                READERS[0],
            ),
        ]
    ),
    max_size=6,
).map("".join)
HEADERS = st.lists(st.tuples(NAMES, VALUES) | st.tuples(st.text(alphabet="aX-:. \t", max_size=8), VALUES), max_size=8)


@fuzzed
@given(HEADERS, st.sampled_from(["news", "receipts", "office"]))
def test_any_header_is_taken_or_refused_with_a_reason(
    abused: Gateway, sink: Sink, header: list[tuple[str, str]], login: str
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in header).encode("utf-8", "surrogateescape")
    content = b"From: letters@news.example.com\r\n" + lines + b"\r\nHello\r\n"
    sink.clear()
    with connect(abused, login) as client:
        said = client.transact(content, READERS[:2])
        assert said.code in (250, 550, 554), said
        assert said.code == 250 or re.match(r"5\.\d\.\d (?:[a-z-]+: )?\w", said.text)
    if said.code == 250:
        eventually(lambda: sorted(one for message in sink.messages for one in message.recipients) == READERS[:2])
    assert sink.faults == []


# tokens

NOBODYS = (404, 429)
"""How a link is answered that is nobody's; the latter, over the same page, where a network has tried many (WEB-04)."""


@fuzzed
@given(st.text(max_size=60) | st.binary(max_size=45).map(lambda octets: base64.urlsafe_b64encode(octets).decode()))
def test_any_token_is_nobodys(abused: Gateway, token: str) -> None:
    octets = "".join(f"%{octet:02X}" for octet in token.encode("utf-8", "surrogatepass"))
    assert abused.get(f"/u/{octets}").status in NOBODYS
    assert abused.one_click(octets).status in NOBODYS


@fuzzed
@given(ADDRESSES.filter(str.isprintable), st.text(max_size=60).filter(str.isprintable))
def test_any_mail_to_the_feedback_address_is_answered(abused: Gateway, local: str, subject: str) -> None:
    with RawSmtp(abused.feedback) as client:
        client.ehlo()
        client.send(f"MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<{local}@bounce.example.com>\r\n".encode())
        assert [client.reply().code for _ in range(2)][1] in (250, 501, 550, 551, 553)
        client.send(b"RSET\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<unsubscribe@bounce.example.com>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(4)] == [250, 250, 250, 354]
        client.send(f"Subject: {subject}\r\n\r\n.\r\n".encode())
        assert client.reply().code == 550
