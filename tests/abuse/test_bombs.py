"""Messages and commands that are small to send and dear to take: what they cost is bounded, and refusals are told.

Memory is the worker's resident peak as the kernel counts it, processor time too. The bounds are those of the project:
twice the largest message for one connection, a second of processor a mebibyte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.abuse import size
from tests.abuse.conftest import MAX_SIZE, READERS, connect
from tests.abuse.footprint import MIB, Footprint
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.raw_smtp import RawSmtp, Said
from tests.sink import Sink

SENDER = "letters@news.example.com"
HEADER = b"From: letters@news.example.com\r\nTo: abuse-reader0@example.org\r\nSubject: Bomb\r\nMIME-Version: 1.0\r\n"
PIECE = 64 * 1024
NOISE = 16 * MIB
"""Resident memory that comes and goes without anybody's doing: the store's page cache, what is settled meanwhile."""


@pytest.fixture(autouse=True)
def honest_mail_still_flows(abused: Gateway, sink: Sink) -> Iterator[None]:
    yield
    eventually(lambda: abused.json("queue", "list") == [])
    sink.clear()
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[3]), [READERS[3]]).code == 250
    sink.wait_for(1)


_IN_UTF8 = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
_IN_HTML = _IN_UTF8.replace("plain", "html")


def pour(client: RawSmtp, pattern: bytes, octets: int) -> None:
    """Send a pattern again and again, about so many octets of it."""
    piece = pattern * max(1, PIECE // len(pattern))
    for _ in range(octets // len(piece)):
        client.send(piece)


def submitted(client: RawSmtp, content: bytes, to: str = READERS[0]) -> Said:
    return client.transact(content, [to])


def is_cheap(spent: Footprint, octets: int) -> bool:
    """True where it cost at most a second of processor a mebibyte, and at least a second is granted."""
    return spent.seconds <= max(1.0, octets / MIB)


# commands


def test_an_endless_command_line_is_forgotten_as_it_comes(abused: Gateway, spent: Footprint) -> None:
    octets = size(16, 256) * MIB
    with connect(abused) as client, spent:
        pour(client, b"x", octets)
        client.send(b"\r\n")
        assert str(client.reply()) == "500 5.5.2 the line is too long"
        assert client.say("NOOP").code == 250
    assert spent.grown <= NOISE
    assert is_cheap(spent, octets)


def test_of_a_million_recipients_the_thousandth_is_the_last(abused: Gateway, spent: Footprint, sink: Sink) -> None:
    """Whoever goes on is told so each time, however often, and the worker does not grow by it."""
    count, burst = size(20_000, 1_000_000), 1000
    with connect(abused, "receipts") as client:
        assert client.say(f"MAIL FROM:<{SENDER}>").code == 250
        assert named(client, range(1000)) == ["250"] * 1000
        with spent:
            for first in range(1000, count, burst):
                assert named(client, range(first, first + burst)) == ["452"] * burst
        assert client.say("DATA").code == 354
        client.send(HEADER + b"\r\nHello\r\n.\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert len(message.recipients) == 1000
    assert spent.grown <= NOISE
    assert spent.seconds <= max(1.0, count * len("RCPT TO:<many000000@example.org>\r\n") / MIB)


def named(client: RawSmtp, numbers: range) -> list[str]:
    """Name recipients in one segment; return the codes of the replies."""
    client.send("".join(f"RCPT TO:<many{n:06}@example.org>\r\n" for n in numbers).encode())
    return [str(client.reply().code) for _ in numbers]


# size

LINES = {"one line": b"x", "empty lines": b"\r\n", "dots": b"..\r\n", "lines of one letter": b"x\r\n"}


@pytest.mark.req("SMTP-12")
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_of_a_message_over_size_nothing_is_kept_while_it_comes(abused: Gateway, spent: Footprint, line: bytes) -> None:
    octets = size(2, 10) * MAX_SIZE
    with connect(abused, "shop") as client, spent:
        assert client.say("MAIL FROM:<billing@example.com>", "RCPT TO:<a@example.org>", "DATA").code == 354
        client.send(invoice())
        pour(client, line, octets)
        client.send(b"\r\n.\r\n")
        assert client.reply().text.startswith("5.3.4 ")
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, octets)


IN_GERMAN = "Für heute wünschen wir Ihnen nichts als einen guten Tag und morgen dasselbe\r\n".encode()
LARGE = {**LINES, "lines in German": IN_GERMAN}


@pytest.mark.parametrize("login", ["shop", "news"])
@pytest.mark.parametrize("line", LARGE.values(), ids=LARGE)
def test_the_largest_message_is_in_memory_twice_as_it_was_and_as_it_becomes(
    abused: Gateway, spent: Footprint, sink: Sink, line: bytes, login: str
) -> None:
    """One line, which is too long for SMTP, is encoded anew."""
    with connect(abused, login) as client, spent:
        assert largest(client, line, login).code == 250
        sink.wait_for(1, timeout=60)
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, MAX_SIZE)


@pytest.fixture
def seven_bits(sink: Sink) -> Iterator[Sink]:
    """The sink, which takes no eighth bit meanwhile, and any size."""
    offered, sink.offered = sink.offered, ("PIPELINING", "ENHANCEDSTATUSCODES", "DSN")
    sink.drop_connections()
    yield sink
    sink.offered = offered
    sink.drop_connections()


@pytest.mark.parametrize("login", ["shop", "news"])
def test_a_message_that_is_encoded_anew_for_a_smarthost_is_in_memory_twice(
    abused: Gateway, spent: Footprint, seven_bits: Sink, login: str
) -> None:
    with connect(abused, login) as client, spent:
        assert largest(client, IN_GERMAN, login).code == 250
        (message,) = seven_bits.wait_for(1, timeout=60)
    assert message.content.isascii()
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, MAX_SIZE)


def test_the_largest_page_is_in_memory_a_third_time_in_lower_case(
    abused: Gateway, spent: Footprint, sink: Sink
) -> None:
    with connect(abused, "news") as client, spent:
        assert largest(client, b"<p>Dear reader, here is <b>news</b></p>\r\n", "news", _IN_HTML).code == 250
        sink.wait_for(1, timeout=60)
    assert spent.grown <= 3 * MAX_SIZE + NOISE
    assert is_cheap(spent, MAX_SIZE)


def test_large_messages_are_forgotten_once_they_are_relayed(abused: Gateway, spent: Footprint, sink: Sink) -> None:
    count = size(3, 30)
    with connect(abused, "shop") as client:
        for n in range(count):
            assert largest(client, b"x\r\n", "shop").code == 250
            sink.wait_for(n + 1, timeout=60)
    with spent:
        assert abused.get("/healthz").status == 200
    assert spent.grown <= 2 * MAX_SIZE + NOISE


def largest(client: RawSmtp, line: bytes, login: str, content: str = _IN_UTF8) -> Said:
    """Submit a message of nearly the largest size, made of one pattern; return the last reply."""
    sender, to = ("billing@example.com", "a@example.org") if login == "shop" else (SENDER, READERS[0])
    assert client.say(f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA").code == 354
    client.send(f"From: {sender}\r\nSubject: Large\r\n{content}\r\n".encode())
    pour(client, line, MAX_SIZE - PIECE)
    client.send(b"\r\n.\r\n")
    return client.reply()


IN_FLIGHT = 256 * MIB
SLACK = IN_FLIGHT // 8
"""What a buffer that grows has in reserve."""


def test_what_all_connections_hold_together_is_bounded(abused: Gateway, spent: Footprint, sink: Sink) -> None:
    """Whoever would go over it is put off, not refused for good; and once the others have gone there is room."""
    held = MAX_SIZE - MIB
    with ExitStack() as crowd, spent:
        clients = [crowd.enter_context(connect(abused, "shop")) for _ in range(IN_FLIGHT // held + 4)]
        for client in clients:
            assert client.say("MAIL FROM:<billing@example.com>", "RCPT TO:<a@example.org>", "DATA").code == 354
            client.send(invoice())
            pour(client, b"x\r\n", held)
        clients[-1].send(b"\r\n.\r\n")
        assert str(clients[-1].reply()).startswith("452 4.3.1 ")
        with connect(abused, "shop") as late:
            assert str(late.say(f"MAIL FROM:<billing@example.com> SIZE={held}")).startswith("452 4.3.1 ")
    assert spent.grown <= IN_FLIGHT + SLACK + NOISE
    with connect(abused, "shop") as client:
        assert eventually(lambda: client.say(f"MAIL FROM:<billing@example.com> SIZE={held}", "RSET").code == 250)
    with spent:
        assert abused.get("/healthz").status == 200
    assert spent.grown <= 2 * NOISE


# headers

LONG_HEADERS = {
    "one field": b"X-Long: " + b"word " * 200_000 + b"\r\n",
    "one folded field": b"X-Long: " + b"word\r\n " * 150_000 + b"word\r\n",
    "many fields": b"a:\r\n" * 250_000,
    "one field many times": b"To:\r\n" * 200_000,
    "no field at all": b"x\r\n" * 333_000,
}


@pytest.mark.parametrize("login", ["news", "receipts"])
@pytest.mark.parametrize("header", LONG_HEADERS.values(), ids=LONG_HEADERS)
def test_a_header_of_a_megabyte_is_refused(
    abused: Gateway, spent: Footprint, sink: Sink, header: bytes, login: str
) -> None:
    with connect(abused, login) as client, spent:
        said = submitted(client, HEADER + header + b"\r\nHello\r\n")
    assert str(said) == "552 5.3.4 the header is larger than 102400 octets"
    assert spent.grown <= NOISE
    assert is_cheap(spent, len(header))
    assert sink.messages == []


@pytest.mark.parametrize("login", ["news", "receipts"])
def test_a_million_header_lines_are_refused(abused: Gateway, spent: Footprint, sink: Sink, login: str) -> None:
    lines = b"a:\r\n" * 1_000_000
    with connect(abused, login) as client, spent:
        said = submitted(client, HEADER + lines + b"\r\nHello\r\n")
    assert str(said).startswith("552 5.3.4 ")
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, len(lines))
    assert sink.messages == []


def test_a_header_of_just_the_limit_passes_and_of_an_octet_more_does_not(
    abused: Gateway, spent: Footprint, sink: Sink
) -> None:
    lines = HEADER + b"X-Fill: some words\r\n" * ((102_400 - len(HEADER) - 200) // 20)
    with connect(abused, "receipts") as client:
        for total, code in ((102_400, 250), (102_401, 552)):
            last = b"X-Last: " + b"x" * (total - len(lines) - len("X-Last: \r\n")) + b"\r\n"
            assert len(lines + last) == total
            assert submitted(client, lines + last + b"\r\nHello\r\n").code == code
    (message,) = sink.wait_for(1)
    assert message.content.endswith(b"\r\n\r\nHello\r\n")


REPEATED = {name: f"{name}:\r\n".encode() for name in ("To", "Subject", "From", "Received", "Assent-Topic", "X")}
CROWDED = {
    "addresses": b"Cc: " + b"a@b.example,\r\n " * 6_000 + b"a@b.example\r\n",
    "comments": b"Cc: " + b"(\r\n " * 20_000 + b"\r\n",
    "quotes": b"Cc: " + b'"a\\"\r\n ' * 12_000 + b"\r\n",
    "parameters": b"Content-Type: text/plain" + b';\r\n a="\\' * 9_000 + b"\r\n",
    "domain": b"Cc: a@" + "ü".encode() * 30_000 + b".example\r\n",
}


@pytest.mark.parametrize("login", ["news", "receipts"])
@pytest.mark.parametrize("field", [*REPEATED.values(), *CROWDED.values()], ids=[*REPEATED, *CROWDED])
def test_a_header_of_less_than_the_limit_is_read_in_no_time(
    abused: Gateway, spent: Footprint, field: bytes, login: str
) -> None:
    header = HEADER + field * (90_000 // len(field) if len(field) < 100 else 1)
    with connect(abused, login) as client, spent:
        said = submitted(client, header + b"\r\nHello\r\n")
        assert said.code in (250, 550, 554), said
    assert spent.seconds <= 1.0
    assert spent.grown <= NOISE


# structure


def deep(levels: int) -> bytes:
    """Return a message with so many multiparts in each other, and a line of text in the innermost one."""
    opened = [b'Content-Type: multipart/mixed; boundary="cut%d"\r\n\r\n--cut%d\r\n' % (n, n) for n in range(levels)]
    closed = [b"\r\n--cut%d--\r\n" % n for n in reversed(range(levels))]
    return HEADER + b"".join([*opened, b"\r\nHello", *closed])


def wide(parts: int) -> bytes:
    return (
        HEADER + b"Content-Type: multipart/mixed; boundary=cut\r\n\r\n" + b"--cut\r\n\r\nx\r\n" * parts + b"--cut--\r\n"
    )


def within_a_part(lines: bytes) -> bytes:
    """Return a message whose only part has these lines in its header, or no end of it."""
    return HEADER + b"Content-Type: multipart/mixed; boundary=cut\r\n\r\n--cut\r\n" + lines + b"--cut--\r\n"


def messages_in_messages(levels: int, octets: int) -> bytes:
    return HEADER + b"Content-Type: message/rfc822\r\n\r\n" * levels + b"hello\r\n" * (octets // 7)


STRUCTURES: dict[str, Callable[[], bytes]] = {
    "a thousand multiparts deep": lambda: deep(1000),
    "a hundred thousand parts": lambda: wide(100_000),
    "a part of a million header lines": lambda: within_a_part(b"a:\r\n" * 1_000_000),
    "a part with a header line of megabytes": lambda: within_a_part(
        b"a: " + b"word " * 1_000_000 + b"\r\n\r\nHello\r\n"
    ),
    "a hundred messages deep": lambda: messages_in_messages(99, 4 * MIB),
    "half a million lines that look like delimiters": lambda: wide(1)[:-9] + b"--cutter\r\n" * 500_000 + b"--cut--\r\n",
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_promotion_whose_structure_cannot_be_followed_is_refused(
    abused: Gateway, spent: Footprint, sink: Sink, structure: Callable[[], bytes]
) -> None:
    content = structure()
    with connect(abused, "news") as client, spent:
        said = submitted(client, content)
    assert said.code in (550, 554), said
    assert re.match(r"5\.7\.0 content: |5\.6\.0 ", said.text)
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, len(content))
    assert sink.messages == []


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_account_mail_of_any_structure_passes_as_it_is_or_not_at_all(
    abused: Gateway, spent: Footprint, sink: Sink, structure: Callable[[], bytes]
) -> None:
    content = structure()
    with connect(abused, "receipts") as client, spent:
        said = submitted(client, content)
        if said.code == 250:
            (message,) = sink.wait_for(1, timeout=30)
            assert message.content.endswith(content.partition(b"\r\n\r\n")[2])
        else:
            assert said.text.startswith("5.6.0 "), said
    assert spent.grown <= 2 * MAX_SIZE + NOISE
    assert is_cheap(spent, len(content))
