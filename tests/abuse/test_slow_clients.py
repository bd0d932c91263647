"""Clients that take their time: each is shaken off in time, and meanwhile honest mail flows as if nobody were there.

The gateway's limits are those of an installation: five minutes of silence, a minute for a handshake, 500 octets a
second for a message. Its clocks run forty times faster, so that a test needs seconds; what they measure is theirs.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from tests.abuse import IS_TORTURE, size
from tests.abuse.conftest import READERS, connect
from tests.abuse.footprint import MIB, resident
from tests.conftest import MakeGateway
from tests.faketime import faster
from tests.gateway_under_test import Gateway, eventually, newsletter, token_of
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

TIMES = 40
GRACE = 10 + 2 * TIMES
"""Seconds of the gateway's clock that a client may be late in going: the bar's ten, and two of ours."""

TOO_LONG = b"421 4.4.2 you took too long\r\n"
UNTOLD = {"begins no handshake", "begins no handshake after STARTTLS", "never reads"}
"""Whom nothing can be told: they would not understand it, or do not listen."""

AN_ADDRESS = 50
IDLE = size(500, 10_000)


@pytest.fixture(scope="module")
def hasty(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two workers for which a minute is a second and a half of ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = Gateway(tmp_path_factory.mktemp("hasty") / "house", shared_sink.url, workers=2).prepare()
    running.opt_in(*READERS)
    running.environment = faster(TIMES)
    yield running.start()
    running.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Guest:
    """A client that will overstay: how long it is borne with, what it does to stay, when it went."""

    connection: socket.socket
    patience: float
    nags: Callable[[socket.socket], object] | None = None
    gone_after: float | None = None

    @property
    def is_still_there(self) -> bool:
        """True while the kernel calls it ESTABLISHED: the gateway has neither closed nor reset it."""
        return self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"

    def last_words(self) -> bytes:
        """Return what the gateway said to it before it closed."""
        heard = bytearray()
        with suppress(ConnectionError):
            while said := self.connection.recv(65536):
                heard += said
        return bytes(heard[-200:])


def silent(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20, (source, 0))


def guests_of(gateway: Gateway) -> dict[str, Guest]:
    def talking(login: str = "") -> RawSmtp:
        return connect(gateway, login, source="127.0.9.9")

    waiting, slow, stalled, deaf = talking("news"), talking("news"), talking(), talking("shop")
    begun = ("MAIL FROM:<letters@news.example.com>", f"RCPT TO:<{READERS[0]}>", "DATA")
    assert waiting.say(*begun).code == slow.say(*begun).code == 354
    assert stalled.say("STARTTLS").code == 220
    assert deaf.say("MAIL FROM:<billing@example.com>").code == 250
    stop_listening(deaf.connection)
    guests = {
        "says nothing": Guest(silent(gateway.submission), 300),
        "says nothing after DATA": Guest(waiting.connection, 300),
        "sends an octet a second": Guest(slow.connection, 60, lambda connection: connection.send(b"x")),
        "never ends its command": Guest(talking().connection, 300),
        "begins no handshake": Guest(silent(gateway.submission_tls), 60),
        "begins no handshake after STARTTLS": Guest(stalled.connection, 60),
        "never reads": Guest(deaf.connection, 300 + 60),
    }
    if IS_TORTURE:
        guests["says something every few minutes"] = Guest(talking().connection, 20 * 60, say_something_now_and_then)
    return guests


def say_something_now_and_then(connection: socket.socket) -> None:
    if time.monotonic() % 10 < 0.3:
        connection.send(b"NOOP\r\n")


def stop_listening(connection: socket.socket) -> None:
    """Ask for replies without reading any, until the gateway takes no more."""
    connection.settimeout(1)
    commands = b"".join(b"RCPT TO:<too-many%d@example.org>\r\n" % n for n in range(2000))
    with suppress(TimeoutError):
        for _ in range(1000):
            connection.sendall(commands)
        pytest.fail("the gateway took 80 MB of commands whose replies nobody read")


def see_off(guests: dict[str, Guest]) -> None:
    """Watch the guests until the last one has gone, reading nothing; note when each went."""
    began = time.monotonic()
    longest = max(guest.patience for guest in guests.values()) + GRACE
    staying = list(guests.values())
    while staying and (now := (time.monotonic() - began) * TIMES) < longest:
        for guest in staying:
            if not guest.is_still_there:
                guest.gone_after = now
            elif guest.nags:
                with suppress(OSError):
                    guest.nags(guest.connection)
        staying = [guest for guest in staying if guest.gone_after is None]
        time.sleep(0.2)


def test_whoever_overstays_is_gone_in_time_and_keeps_nobody_from_sending(hasty: Gateway, sink: Sink) -> None:
    sources = [f"127.0.{n // 250}.{n % 250 + 2}" for n in range(IDLE // AN_ADDRESS)]
    idle = [silent(hasty.submission, one) for one in sources for _ in range(AN_ADDRESS)]
    guests = guests_of(hasty) | {f"idles {n}": Guest(connection, 300) for n, connection in enumerate(idle)}
    for n in range(20):
        began = time.monotonic()
        assert hasty.submit(newsletter(READERS[1]), [READERS[1]])[""][0] == 250
        sink.wait_for(n + 1)
        assert time.monotonic() - began < 5
    assert resident(hasty) < 2 * 500 * MIB
    see_off(guests)
    for name, guest in guests.items():
        assert guest.gone_after is not None, f"{name}: still there"
        assert guest.gone_after <= guest.patience + GRACE, (name, guest.gone_after)
        assert name in UNTOLD or guest.last_words().endswith(TOO_LONG), name
        guest.connection.close()
    assert len(sink.messages) == 20, "nothing of what was never finished has been relayed"


def test_the_fifty_first_connection_of_an_address_is_turned_away(hasty: Gateway, sink: Sink) -> None:
    with ExitStack() as crowd:
        for _ in range(AN_ADDRESS):
            crowd.enter_context(RawSmtp(hasty.submission, source="127.0.8.8"))
        one_more = crowd.enter_context(RawSmtp(hasty.submission, source="127.0.8.8"))
        assert str(one_more.greeting).startswith("421 4.7.0 ")
        assert one_more.is_closed()
        assert hasty.submit(newsletter(READERS[1]), [READERS[1]])[""][0] == 250
    sink.wait_for(1)


@pytest.mark.parametrize("command", ["NOOP", "RSET", "VRFY ann", "HELP", "EHLO tool.example.net"])
def test_a_loop_of_commands_that_ask_for_nothing_ends(hasty: Gateway, command: str) -> None:
    with connect(hasty) as client:
        client.send(f"{command}\r\n".encode() * 200)
        heard = client.rest()
    assert heard[-1] == "421 4.7.0 too many commands without a message"
    assert heard.count(heard[-2]) <= 101


# the site

HTTP_PATIENCE = 15.0
FILES = 256


@pytest.mark.req("WEB-05")
def test_slow_requests_are_shaken_off_and_readers_are_still_answered(hasty: Gateway, sink: Sink) -> None:
    assert hasty.submit(newsletter(READERS[2]), [READERS[2]])[""][0] == 250
    path = f"/u/{token_of(sink.wait_for(1)[0].content)}"
    post = f"POST {path} HTTP/1.1\r\nHost: mail.example.com\r\n"
    begun = {
        "says nothing": b"",
        "never ends its request line": b"GET /",
        "never ends its header": f"GET {path} HTTP/1.1\r\nHost: mail.example.com\r\nX-Slow: ".encode(),
        "never ends its body": f"{post}Content-Length: 8000\r\n\r\nList".encode(),
        "never ends its chunk": f"{post}Transfer-Encoding: chunked\r\n\r\nfff\r\na".encode(),
        "comes back for nothing": f"GET {path} HTTP/1.1\r\nHost: mail.example.com\r\n\r\n".encode(),
    }
    guests: dict[str, Guest] = {}
    for name, said in begun.items():
        for n in range(size(20, 200)):
            connection = silent(hasty.site)
            connection.sendall(said)
            drips = "never" in name and n % 2
            guests[f"{name} {n}"] = Guest(connection, HTTP_PATIENCE, drip if drips else None)
    see_off(guests)
    late = {name: guest.gone_after for name, guest in guests.items() if guest.gone_after is None}
    assert not late
    answer = eventually(lambda: (one := hasty.one_click(path.removeprefix("/u/"))).status == 200 and one)
    assert "Unsubscribed" in answer.text


def drip(connection: socket.socket) -> None:
    connection.send(b"a")


@pytest.mark.req("WEB-05")
def test_a_crowd_at_the_site_leaves_mail_and_readers_the_files_that_they_need(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway()
    gateway.opt_in(READERS[0])
    gateway.wrapper = ["prlimit", f"--nofile={FILES}:{FILES}"]
    gateway.start()
    with ExitStack() as crowd:
        for _ in range(2 * FILES):
            crowd.enter_context(silent(gateway.site)).sendall(b"GET /u/")
        assert gateway.submit(newsletter(READERS[0]), [READERS[0]])[""][0] == 250
        token = token_of(sink.wait_for(1)[0].content)
        assert gateway.one_click(token).status == 200
    assert "Too many open files" not in gateway.log.read_text()
