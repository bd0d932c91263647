"""Behind a load balancer: the client that a PROXY header names is the one that is capped, bound, trusted and traced.

The program is a separate process. The balancer is a raw socket from an address of its own on loopback.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.gateway_under_test import Gateway, field_of, invoice
from tests.raw_smtp import RawSmtp
from tests.sink import Received, Sink
from tests.test_blackbox_smtp import refused_in_one_sentence, submission, tls

BALANCER, STRANGER = "127.0.9.1", "127.0.9.2"
BOUND = "198.51.100.7"
BILLING = "billing@example.com"


@pytest.fixture(scope="module")
def behind(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two workers behind a balancer; the login `printer` is bound to a network beyond it."""
    running = Gateway(tmp_path_factory.mktemp("behind") / "house", shared_sink.url, workers=2).prepare()
    bears = f'proxy_from = ["{BALANCER}"]\nconnections_per_address = 4\n'
    running.write_config(submission=submission(running, bears))
    running.add_login("printer", "billing", "--network", "198.51.100.0/24")
    yield running.start()
    running.close()


def line(client: str) -> bytes:
    family = ipaddress.ip_address(client).version
    return f"PROXY TCP{family} {client} {'::1' if family == 6 else '127.0.0.1'} 40000 587\r\n".encode()


def binary(client: str, command: int = 0x21, more: bytes = b"\x20\x00\x03abc") -> bytes:
    address = ipaddress.ip_address(client)
    family = 0x11 if address.version == 4 else 0x21
    told = address.packed + bytes(len(address.packed)) + b"\x9c\x40\x02\x4b" + more
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + len(told).to_bytes(2) + told


def balanced(gateway: Gateway, header: bytes) -> RawSmtp:
    return RawSmtp(gateway.submission, source=BALANCER, preface=header)


def handed_in_from(message: Received) -> str:
    found = re.search(rb"\(\[([^\]]+)\]\)", field_of(message.content, "Received")[0])
    assert found
    return found[1].decode()


@pytest.mark.req("SMTP-15", "SMTP-26")
@pytest.mark.parametrize("header", [line(BOUND), binary(BOUND), binary(BOUND, more=b"")], ids=["v1", "v2 TLV", "v2"])
def test_the_client_that_is_named_is_bound_to_its_login_and_stands_in_received(
    behind: Gateway, sink: Sink, header: bytes
) -> None:
    with balanced(behind, header + b"EHLO printer.example.net\r\n") as client:
        assert client.reply().code == 250
        assert client.transact(invoice(), ["proxied@example.org"], BILLING).code == 250
    (message,) = sink.wait_for(1)
    assert handed_in_from(message) == BOUND


@pytest.mark.req("SMTP-03")
def test_a_named_client_is_outside_however_near_the_balancer_is(behind: Gateway, sink: Sink) -> None:
    with balanced(behind, binary("2001:db8::7")) as client:
        assert "AUTH" not in client.ehlo()
        assert refused_in_one_sentence(client.login("shop", behind.passwords["shop"]), 538, "5.7.11")
        assert client.say("STARTTLS").code == 220
        client.start_tls(tls(behind))
        client.ehlo()
        assert client.login("shop", behind.passwords["shop"]).code == 235
        assert client.transact(invoice(), ["proxied@example.org"], BILLING).code == 250
    (message,) = sink.wait_for(1)
    assert handed_in_from(message) == "IPv6:2001:db8::7"


def test_the_header_comes_before_implicit_tls(behind: Gateway, sink: Sink) -> None:
    with RawSmtp(behind.submission_tls, source=BALANCER, preface=line("203.0.113.9"), tls=tls(behind)) as client:
        client.ehlo()
        assert client.login("shop", behind.passwords["shop"]).code == 235
        assert client.transact(invoice(), ["proxied@example.org"], BILLING).code == 250
    (message,) = sink.wait_for(1)
    assert handed_in_from(message) == "203.0.113.9"


@pytest.mark.req("SMTP-28")
def test_the_client_that_is_named_is_the_one_that_is_capped(behind: Gateway) -> None:
    with ExitStack() as open_ones:
        for _ in range(4):
            assert open_ones.enter_context(balanced(behind, line("203.0.113.10"))).greeting.code == 220
        with balanced(behind, line("203.0.113.10")) as client:
            assert refused_in_one_sentence(client.greeting, 421, "4.7.0")
        for host in range(20, 30):
            greeting = open_ones.enter_context(balanced(behind, line(f"203.0.113.{host}"))).greeting
            assert greeting.code == 220


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", binary(BOUND, command=0x20)], ids=["v1", "v2"])
def test_a_balancer_may_speak_for_itself(behind: Gateway, header: bytes) -> None:
    with balanced(behind, header) as client:
        assert "AUTH" in client.ehlo(), "it is on loopback"
        assert refused_in_one_sentence(client.say(f"MAIL FROM:<{BILLING}>"), 530, "5.7.0")


@pytest.mark.parametrize("header", [line(BOUND), binary(BOUND)], ids=["v1", "v2"])
def test_a_header_may_come_in_pieces(behind: Gateway, header: bytes) -> None:
    with socket.create_connection(("127.0.0.1", behind.submission), 20, (BALANCER, 0)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in header:
            client.sendall(bytes([octet]))
            time.sleep(0.002)
        assert client.recv(100).startswith(b"220 ")
        client.sendall(b"EHLO printer\r\nMAIL FROM:<billing@example.com>\r\nQUIT\r\n")
        heard = b"".join(iter(lambda: client.recv(1000), b""))
    assert b"\r\n250 2.1.0 " in heard, "it is the bound client's"


@pytest.mark.parametrize(
    "words", [b"EHLO tool.example.net\r\n", b"PROXY TCP4 nobody\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"]
)
def test_a_balancer_that_sends_no_header_is_not_talked_to(behind: Gateway, words: bytes) -> None:
    with pytest.raises((EOFError, ConnectionResetError)):
        balanced(behind, words)


@pytest.mark.req("SMTP-26")
@pytest.mark.parametrize("header", [line(BOUND), binary(BOUND)], ids=["v1", "v2"])
def test_from_anybody_else_a_header_is_a_bad_command_and_names_nobody(
    behind: Gateway, sink: Sink, header: bytes
) -> None:
    with RawSmtp(behind.submission, source=STRANGER, preface=header.removesuffix(b"\r\n") + b"\r\nNOOP\r\n") as client:
        replies = list(iter(lambda: client.reply().code, 250))
        assert replies and set(replies) == {500}
        client.ehlo()
        assert refused_in_one_sentence(client.say(f"MAIL FROM:<{BILLING}>"), 530, "5.7.0")
    assert sink.messages == []
