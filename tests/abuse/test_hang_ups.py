"""Clients that hang up or change the channel at the worst moment: a message is kept whole, or it is not kept."""

from __future__ import annotations

import random
import re
import socket
import ssl
import struct
from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.abuse import size
from tests.abuse.conftest import READERS, connect
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.raw_smtp import RawSmtp
from tests.sink import Sink
from tests.torture import Finding, enter

CROWD = [f"half{n}@example.org" for n in range(3)]


def tls(gateway: Gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.folder / "server.pem"))


def half_close(client: RawSmtp) -> None:
    client.end()


def close(client: RawSmtp) -> None:
    client.connection.close()


def reset(client: RawSmtp) -> None:
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.connection.close()


@pytest.mark.req("OUT-01")
@pytest.mark.parametrize("hang_up", [half_close, close, reset])
def test_who_hangs_up_right_after_the_dot_was_heard_wholly_or_not_at_all(
    abused: Gateway, sink: Sink, hang_up: Callable[[RawSmtp], None]
) -> None:
    acknowledged, count = set[str](), size(100, 1000)
    for n in range(count):
        name = f"{hang_up.__name__}-{n}"
        content = f"X-Mark: {name}\r\n".encode() + invoice() + b".\r\n"
        with connect(abused, "shop") as client:
            recipients = [f"RCPT TO:<{one}>" for one in CROWD]
            assert client.say("MAIL FROM:<billing@example.com>", *recipients, "DATA").code == 354
            cut = random.choice([0, 1, 3, len(content)])
            client.send(content[: len(content) - cut])
            client.send(content[len(content) - cut :])
            hang_up(client)
            if hang_up is half_close and any(line.startswith("250 2.0.0 queued") for line in client.rest()):
                acknowledged.add(name)
    assert hang_up is not half_close or len(acknowledged) == count, "who only stops talking still hears the answer"
    eventually(lambda: abused.json("queue", "list") == [])
    relayed = defaultdict(list)
    for message in sink.messages:
        found = re.search(rb"X-Mark: (\S+)", message.content)
        assert found
        relayed[found[1].decode()] += message.recipients
    lost = acknowledged - set(relayed)
    enter(
        Finding(
            f"{hang_up.__name__.replace('_', '-')} right after the dot", f"{count} times", len(acknowledged), len(lost)
        )
    )
    assert not lost
    assert all(sorted(recipients) == CROWD for recipients in relayed.values())


@pytest.mark.parametrize("missing", [1, 2, 3, 5, 200])
@pytest.mark.parametrize("secured", [False, True], ids=["clear", "tls"])
def test_a_message_that_breaks_off_before_its_final_dot_is_not_kept(
    abused: Gateway, sink: Sink, missing: int, secured: bool
) -> None:
    """Under TLS by close_notify, which is how an attacker on the way cannot do it and a tired client does."""
    content = newsletter(READERS[0]) + b".\r\n"
    with RawSmtp(abused.submission_tls, tls=tls(abused)) if secured else RawSmtp(abused.submission) as client:
        client.ehlo()
        assert client.login("news", abused.passwords["news"]).code == 235
        assert client.say("MAIL FROM:<letters@news.example.com>", f"RCPT TO:<{READERS[0]}>", "DATA").code == 354
        client.send(content[:-missing])
        if isinstance(client.connection, ssl.SSLSocket):
            client.connection.unwrap()
        else:
            client.end()
            assert client.rest()[-1].startswith("354")
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[1]), [READERS[1]]).code == 250
    (honest,) = sink.wait_for(1)
    assert honest.recipients == (READERS[1],)
    assert abused.json("queue", "list") == []


INJECTED = {
    "RSET": b"RSET\r\n",
    "a transaction": b"MAIL FROM:<letters@news.example.com>\r\nRCPT TO:<%s>\r\nDATA\r\nevil\r\n.\r\n"
    % READERS[0].encode(),
    "a login": b"AUTH PLAIN AG5ld3MAcGFzc3dvcmQ=\r\n",
    "half a command": b"RCPT TO:<evil@exa",
    "another STARTTLS": b"STARTTLS\r\n",
    "many commands": b"NOOP\r\n" * 20_000,
}


@pytest.mark.req("SMTP-04")
@pytest.mark.parametrize("injected", INJECTED.values(), ids=INJECTED)
def test_what_comes_in_one_packet_with_starttls_is_never_answered(abused: Gateway, sink: Sink, injected: bytes) -> None:
    with connect(abused) as client:
        client.send(b"STARTTLS\r\n" + injected)
        assert client.reply().code == 220
        try:
            client.start_tls(tls(abused))
        except (ssl.SSLError, ConnectionError):
            return  # what was injected was taken for a handshake, and ended it
        assert client.say("HELP").code == 214, "the first reply under TLS belongs to the first command under TLS"
        assert client.say(f"RCPT TO:<{READERS[0]}>").code == 503
        assert client.say("MAIL FROM:<letters@news.example.com>").code == 503
    assert sink.messages == []
