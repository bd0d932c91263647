"""`Listener` over real loopback sockets, on asyncio's own loop and on uvloop, with a small handler."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.dialogue import Auth, Terms
from gateway.errors import StoreUnavailable
from gateway.listener import Limits, Listener, Session, server_tls
from gateway.model import Recipient, Reply

TERMS = Terms("mx.example.com", max_size=1_000_000, auth=Auth.AFTER_TLS)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
MESSAGE = b"Subject: hi\r\n\r\nhi\r\n"
TRANSACTION = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Handler:
    """Takes everything, and keeps it. `fault` is raised by the hook it is filed under; `gate` holds DATA up."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, list[Recipient], bytes]] = []
        self.protocols: list[str] = []
        self.sessions: list[Session] = []
        self.faults: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached_data = asyncio.Event()
        self.welcome: Reply | None = None

    async def handle_CONNECT(self, server: Any, session: Session) -> Reply | None:
        return self.welcome

    async def handle_AUTH(
        self, server: Any, session: Session, envelope: Any, mechanism: str, name: str, password: str
    ) -> Reply:
        self._fail("AUTH")
        return Reply(235, "2.7.0", "welcome") if password == "right" else Reply(535, "5.7.8", "wrong")

    async def handle_MAIL(self, server: Any, session: Session, envelope: Any, path: str, options: Any) -> Reply:
        self._fail("MAIL")
        self.protocols.append(session.protocol)
        self.sessions.append(session)
        return Reply(250, "2.1.0", "ok")

    async def handle_RCPT(self, server: Any, session: Session, envelope: Any, recipient: Recipient) -> Reply:
        self._fail("RCPT")
        if recipient.address.local == "refused":
            return Reply(550, "5.7.1", "no-consent: nobody asked")
        return Reply(250, "2.1.5", "ok")

    async def handle_DATA(self, server: Any, session: Session, envelope: Any) -> Reply:
        self.reached_data.set()
        await self.gate.wait()
        self._fail("DATA")
        self.kept.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return Reply(250, "2.0.0", f"queued as {len(self.kept)}")

    def _fail(self, hook: str) -> None:
        if hook in self.faults:
            raise self.faults[hook]


class Client:
    """Speaks octets and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> str:
        """Return the next reply, its lines joined by newlines; "" at the end of the connection."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            lines.append((await asyncio.wait_for(self.reader.readline(), 10)).decode("ascii"))
        return "\n".join(line.rstrip("\r\n") for line in lines)

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def codes(self, count: int) -> list[str]:
        return [reply[:3] for reply in await self.replies(count)]

    async def ask(self, line: bytes) -> str:
        self.send(line + b"\r\n")
        return await self.reply()

    async def hello(self) -> str:
        assert (await self.reply()).startswith("220 mx.example.com")
        return await self.ask(b"EHLO client.example")

    async def start_tls(self, tls: ssl.SSLContext) -> None:
        assert (await self.ask(b"STARTTLS")).startswith("220 2.0.0")
        await self.writer.start_tls(tls, server_hostname="mx.example.com")

    async def is_over(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        except ConnectionResetError:
            return True


class House:
    """A handler, a listener in front of it, and the way in."""

    def __init__(self, handler: Handler, listener: Listener, port: int, tls: ssl.SSLContext) -> None:
        self.handler = handler
        self.listener = listener
        self.port = port
        self.tls = tls
        self.clients: list[Client] = []

    async def connect(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20, **options))
        self.clients.append(client)
        return client

    async def greeted(self) -> Client:
        client = await self.connect()
        await client.hello()
        return client


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    yield folder / "cert.pem", folder / "key.pem"


@contextlib.asynccontextmanager
async def house(certificate: tuple[Path, Path], *, implicit_tls: bool = False, **settings: Any) -> AsyncIterator[House]:
    handler = Handler()
    listener = Listener(handler, settings.pop("terms", TERMS), tls=server_tls(*certificate), **settings)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    await listener.serve(sock, implicit_tls=implicit_tls)
    home = House(handler, listener, port, ssl.create_default_context(cafile=str(certificate[0])))
    yield home
    handler.gate.set()
    for client in home.clients:
        if not client.writer.is_closing():
            client.writer.transport.abort()
    await listener.drain(0.5)


@pytest.fixture
async def open_house(certificate: tuple[Path, Path]) -> AsyncIterator[House]:
    async with house(certificate, plaintext_from=LOOPBACK) as home:
        yield home


def without_sleep(home: House, seconds: float) -> None:
    """Let the listener look at the clock as if this much time had passed."""
    now = asyncio.get_running_loop().time() + seconds
    for connection in list(home.listener.traffic.connections):
        connection.look_at_the_clock(now)


# -- the conversation --


async def test_a_message_reaches_the_handler_with_its_reverse_path_and_its_accepted_recipients(
    open_house: House,
) -> None:
    client = await open_house.greeted()
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.net> NOTIFY=NEVER\r\nRCPT TO:<refused@example.net>\r\nDATA\r\n")
    assert await client.codes(4) == ["250", "250", "550", "354"]
    client.send(MESSAGE + b".\r\n")
    assert await client.reply() == "250 2.0.0 queued as 1"
    [(path, recipients, content)] = open_house.handler.kept
    assert (path, content) == ("", MESSAGE)
    assert [(one.address.text, one.options) for one in recipients] == [("b@example.net", ("NOTIFY=NEVER",))]


@pytest.mark.req("SMTP-09")
async def test_replies_to_pipelined_commands_come_in_one_packet(open_house: House) -> None:
    client = await open_house.greeted()
    client.send(TRANSACTION)
    replies = await asyncio.wait_for(client.reader.read(1000), 10)
    assert [line[:3] for line in replies.split(b"\r\n")] == [b"250", b"250", b"354", b""]


async def test_two_transactions_in_one_packet_do_not_share_an_envelope(open_house: House) -> None:
    client = await open_house.greeted()
    second = TRANSACTION.replace(b"b@", b"c@")
    client.send(TRANSACTION + MESSAGE + b".\r\n" + second + b"two\r\n.\r\nQUIT\r\n")
    assert await client.codes(9) == ["250", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert await client.is_over()
    kept = [([one.address.text for one in recipients], text) for _, recipients, text in open_house.handler.kept]
    assert kept == [(["b@example.net"], MESSAGE), (["c@example.net"], b"two\r\n")]


@pytest.mark.req("SMTP-31")
async def test_a_refused_transaction_does_not_stand_in_the_way_of_the_next(open_house: House) -> None:
    client = await open_house.greeted()
    client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<refused@example.net>\r\n" + TRANSACTION + MESSAGE + b".\r\n")
    assert await client.codes(6) == ["250", "550", "250", "250", "354", "250"]


async def test_a_handler_may_turn_a_client_away(open_house: House) -> None:
    open_house.handler.welcome = Reply(554, "5.7.1", "not you")
    client = await open_house.connect()
    assert await client.reply() == "554 5.7.1 not you"
    assert await client.is_over()


@pytest.mark.req("SMTP-15")
async def test_the_session_knows_the_word_for_received(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, plaintext_from=LOOPBACK) as home:
        client = await home.connect()
        await client.reply()
        await client.ask(b"HELO client.example")
        await client.ask(b"MAIL FROM:<a@example.com>")
        await client.ask(b"EHLO client.example")
        await client.ask(b"MAIL FROM:<a@example.com>")
        await client.ask(b"RSET")
        await client.start_tls(home.tls)
        await client.ask(b"EHLO secret.example")
        await client.ask(b"MAIL FROM:<a@example.com>")
        await client.ask(b"RSET")
        await client.ask(b"AUTH PLAIN AHNob3AAcmlnaHQ=")
        await client.ask(b"MAIL FROM:<a@example.com>")
        await client.ask(b"RSET")
        await client.ask(b"MAIL FROM:<a@example.com> SMTPUTF8")
        assert home.handler.protocols == ["SMTP", "ESMTP", "ESMTPS", "ESMTPSA", "UTF8SMTPSA"]
        session = home.handler.sessions[-1]
        assert (session.peer[0], session.host_name, session.login_data) == ("127.0.0.1", "secret.example", "shop")
        assert session.tls in ("TLSv1.2", "TLSv1.3")


# -- TLS and logins --


@pytest.mark.req("SMTP-01", "SMTP-03")
async def test_logins_are_offered_under_tls_and_elsewhere_only_to_trusted_networks(
    certificate: tuple[Path, Path],
) -> None:
    async with house(certificate) as home:
        client = await home.connect()
        offer = await client.hello()
        assert "STARTTLS" in offer and "AUTH" not in offer
        assert (await client.ask(b"AUTH PLAIN AHNob3AAcmlnaHQ=")).startswith("538 5.7.11")
        await client.start_tls(home.tls)
        offer = await client.ask(b"EHLO client.example")
        assert "STARTTLS" not in offer and "250-AUTH PLAIN LOGIN" in offer
    async with house(certificate, plaintext_from=LOOPBACK) as home:
        offer = await (await home.connect()).hello()
        assert "STARTTLS" in offer and "250-AUTH PLAIN LOGIN" in offer


async def test_a_listener_without_logins_never_offers_them(certificate: tuple[Path, Path]) -> None:
    terms = replace(TERMS, auth=Auth.NEVER)
    async with house(certificate, terms=terms, plaintext_from=LOOPBACK, implicit_tls=True) as home:
        client = await home.connect(ssl=home.tls, server_hostname="mx.example.com")
        assert "AUTH" not in await client.hello()


async def test_implicit_tls_offers_no_second_layer(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, implicit_tls=True) as home:
        client = await home.connect(ssl=home.tls, server_hostname="mx.example.com")
        offer = await client.hello()
        assert "STARTTLS" not in offer and "AUTH PLAIN LOGIN" in offer
        client.send(TRANSACTION + MESSAGE + b".\r\n")
        assert await client.codes(4) == ["250", "250", "354", "250"]
        assert home.handler.protocols == ["ESMTPS"]


@pytest.mark.req("SMTP-05")
async def test_tls_before_1_2_is_not_spoken(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, implicit_tls=True) as home:
        home.tls.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            home.tls.minimum_version = home.tls.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await home.connect(ssl=home.tls, server_hostname="mx.example.com")


@pytest.mark.req("SMTP-04")
async def test_what_is_injected_before_the_handshake_is_never_obeyed(open_house: House) -> None:
    client = await open_house.greeted()
    client.send(b"STARTTLS\r\nEHLO evil.example\r\n" + TRANSACTION)
    assert (await client.reply()).startswith("220 ")
    await client.writer.start_tls(open_house.tls, server_hostname="mx.example.com")
    assert (await client.ask(b"MAIL FROM:<a@example.com>")).startswith("503 5.5.1 say EHLO first")
    assert open_house.handler.sessions == []


@pytest.mark.req("SMTP-04")
async def test_a_login_from_before_the_handshake_is_forgotten(open_house: House) -> None:
    client = await open_house.greeted()
    assert (await client.ask(b"AUTH PLAIN AHNob3AAcmlnaHQ=")).startswith("235")
    await client.start_tls(open_house.tls)
    await client.ask(b"EHLO client.example")
    await client.ask(b"MAIL FROM:<a@example.com>")
    assert open_house.handler.protocols == ["ESMTPS"]
    assert open_house.handler.sessions[0].login_data is None


async def test_a_failed_handshake_ends_the_connection_and_is_forgotten(open_house: House) -> None:
    client = await open_house.greeted()
    await client.ask(b"STARTTLS")
    client.send(b"EHLO what.is.a.handshake\r\n" * 10)
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(client.reader.read(), 10)
    await gone(open_house)


async def test_a_handshake_that_does_not_come_is_not_waited_for(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, limits=Limits(handshake=timedelta(seconds=0.1))) as home:
        client = await home.greeted()
        await client.ask(b"STARTTLS")
        assert await client.is_over()
        await gone(home)


async def test_login_guessing_ends_the_connection(open_house: House) -> None:
    client = await open_house.greeted()
    client.send(b"AUTH PLAIN AHNob3AAd3Jvbmc=\r\n" * 5)
    assert await client.codes(4) == ["535", "535", "535", "421"]
    assert await client.is_over()


async def gone(home: House) -> None:
    for _ in range(500):
        if not home.listener.traffic.connections:
            return
        await asyncio.sleep(0.01)
    pytest.fail("a connection is still counted")


# -- faults --


@pytest.mark.parametrize("fault", [RuntimeError("secret"), StoreUnavailable("secret disk"), KeyError("x")], ids=repr)
@pytest.mark.parametrize(
    ("hook", "said", "yeses"),
    [
        ("AUTH", b"AUTH PLAIN AHNob3AAcmlnaHQ=\r\n", 0),
        ("MAIL", b"MAIL FROM:<a@example.com>\r\n", 0),
        ("RCPT", b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n", 1),
        ("DATA", TRANSACTION + MESSAGE + b".\r\n", 3),
    ],
    ids=["AUTH", "MAIL", "RCPT", "DATA"],
)
async def test_whatever_a_hook_raises_is_a_temporary_refusal_that_tells_nothing(
    open_house: House, hook: str, said: bytes, yeses: int, fault: Exception
) -> None:
    open_house.handler.faults[hook] = fault
    client = await open_house.greeted()
    client.send(said)
    await client.replies(yeses)
    reason = "the store is unavailable" if isinstance(fault, StoreUnavailable) else "internal error"
    assert await client.reply() == f"451 4.3.0 {reason}, try again later"
    assert open_house.handler.kept == []


async def test_a_connection_goes_on_after_a_fault(open_house: House) -> None:
    open_house.handler.faults["DATA"] = RuntimeError("once")
    client = await open_house.greeted()
    client.send(TRANSACTION + MESSAGE + b".\r\n")
    assert await client.codes(4) == ["250", "250", "354", "451"]
    del open_house.handler.faults["DATA"]
    client.send(TRANSACTION + MESSAGE + b".\r\n")
    assert await client.codes(4) == ["250", "250", "354", "250"]


async def test_a_half_closed_client_still_gets_its_message_kept_and_answered(open_house: House) -> None:
    open_house.handler.gate.clear()
    client = await open_house.greeted()
    client.send(TRANSACTION + MESSAGE + b".\r\n")
    client.writer.write_eof()
    await asyncio.wait_for(open_house.handler.reached_data.wait(), 10)
    await asyncio.sleep(0.05)
    open_house.handler.gate.set()
    assert await client.codes(4) == ["250", "250", "354", "250"]
    assert await client.is_over()
    assert len(open_house.handler.kept) == 1


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["plain", "tls"])
async def test_a_hook_that_has_begun_is_finished_though_the_client_has_gone(
    certificate: tuple[Path, Path], implicit_tls: bool
) -> None:
    async with house(certificate, implicit_tls=implicit_tls) as home:
        home.handler.gate.clear()
        way = {"ssl": home.tls, "server_hostname": "mx.example.com"} if implicit_tls else {}
        client = await home.connect(**way)
        await client.hello()
        client.send(TRANSACTION + MESSAGE + b".\r\n")
        await asyncio.wait_for(home.handler.reached_data.wait(), 10)
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert len(home.listener.traffic.connections) == 1
        home.handler.gate.set()
        await gone(home)
        assert len(home.handler.kept) == 1
        assert home.listener.traffic.octets_in_flight == 0


# -- caps --


async def test_one_address_gets_so_many_connections_and_no_more(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, limits=Limits(connections_per_address=2)) as home:
        first, second, third = [await home.connect() for _ in range(3)]
        assert [(await one.reply())[:3] for one in (first, second)] == ["220", "220"]
        assert (await third.reply()).startswith("421 4.7.0")
        assert await third.is_over()
        assert (await first.ask(b"QUIT"))[:3] == "221"
        assert (await (await home.connect()).reply())[:3] == "220"
        assert (home.listener.traffic.opened, home.listener.traffic.turned_away) == (3, 1)


async def test_a_full_house_says_so(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, limits=Limits(connections=1)) as home:
        await home.greeted()
        assert (await (await home.connect()).reply()).startswith("421 4.3.2")


async def test_messages_in_flight_share_a_budget(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, limits=Limits(octets_in_flight=300_000)) as home:
        home.handler.gate.clear()
        first, second = await home.greeted(), await home.greeted()
        big = b"\r\n" + b"x" * 200_000 + b"\r\n.\r\n"
        first.send(TRANSACTION + big)
        await asyncio.wait_for(home.handler.reached_data.wait(), 10)
        assert (await second.ask(b"MAIL FROM:<a@example.com> SIZE=200000")).startswith("452 4.3.1")
        second.send(TRANSACTION + big)
        assert await second.codes(4) == ["250", "250", "354", "452"]
        home.handler.gate.set()
        assert await first.codes(4) == ["250", "250", "354", "250"]
        second.send(TRANSACTION + big)
        assert await second.codes(4) == ["250", "250", "354", "250"]
        assert home.listener.traffic.octets_in_flight == 0


async def test_what_a_client_sends_ahead_of_a_slow_hook_is_not_read_without_end(open_house: House) -> None:
    open_house.handler.gate.clear()
    client = await open_house.greeted()
    client.send(TRANSACTION + MESSAGE + b".\r\n")
    await asyncio.wait_for(open_house.handler.reached_data.wait(), 10)
    for _ in range(200):
        client.send(b"VRFY x" * 8_000)
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert open_house.listener.traffic.octets_in_flight < 1_000_000
    open_house.handler.gate.set()
    assert await client.codes(4) == ["250", "250", "354", "250"]


# -- time --


async def test_an_idle_client_is_told_and_let_go(open_house: House) -> None:
    client = await open_house.greeted()
    without_sleep(open_house, 290)
    assert (await client.ask(b"NOOP"))[:3] == "250"
    without_sleep(open_house, 310)
    assert (await client.reply()).startswith("421 4.4.2")
    assert await client.is_over()
    assert open_house.listener.traffic.timed_out == 1


async def test_a_message_that_trickles_in_is_cut_and_one_that_flows_is_not(open_house: House) -> None:
    trickling, flowing = await open_house.greeted(), await open_house.greeted()
    trickling.send(TRANSACTION)
    flowing.send(TRANSACTION)
    assert await trickling.codes(3) == await flowing.codes(3) == ["250", "250", "354"]
    flowing.send(b"x" * 100_000)
    await asyncio.sleep(0.05)
    without_sleep(open_house, 55)
    without_sleep(open_house, 100)
    assert (await trickling.reply()).startswith("421 4.4.2")
    flowing.send(b"\r\n.\r\n")
    assert (await flowing.reply())[:3] == "250"


async def test_a_client_that_only_keeps_itself_busy_is_let_go_after_twenty_minutes(
    certificate: tuple[Path, Path],
) -> None:
    limits = Limits(idle=timedelta(hours=9))
    async with house(certificate, limits=limits) as home:
        client = await home.greeted()
        without_sleep(home, 19 * 60)
        assert (await client.ask(b"NOOP"))[:3] == "250"
        without_sleep(home, 21 * 60)
        assert (await client.reply()).startswith("421 4.4.2")


async def test_a_hook_at_work_is_not_the_clients_idleness(open_house: House) -> None:
    open_house.handler.gate.clear()
    client = await open_house.greeted()
    client.send(TRANSACTION + MESSAGE + b".\r\n")
    await asyncio.wait_for(open_house.handler.reached_data.wait(), 10)
    without_sleep(open_house, 3600)
    open_house.handler.gate.set()
    assert await client.codes(4) == ["250", "250", "354", "250"]


async def test_a_client_that_does_not_read_is_cut(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, terms=replace(TERMS, max_idle=10**9)) as home:
        client = await home.greeted()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        [connection] = home.listener.traffic.connections
        for _ in range(1000):
            client.send(b"HELP\r\n" * 2000)
            await asyncio.sleep(0)
            if connection._blocked:
                break
        await asyncio.sleep(0.2)
        assert home.listener.traffic.octets_in_flight < 1_000_000
        without_sleep(home, 310)
        await gone(home)


# -- leaving --


async def test_draining_finishes_the_message_under_way_and_dismisses_the_rest(certificate: tuple[Path, Path]) -> None:
    async with house(certificate) as home:
        idle, sending, waiting = [await home.greeted() for _ in range(3)]
        await idle.ask(b"MAIL FROM:<a@example.com>")
        sending.send(TRANSACTION)
        assert await sending.codes(3) == ["250", "250", "354"]
        home.handler.gate.clear()
        waiting.send(TRANSACTION + MESSAGE + b".\r\n" + TRANSACTION)
        await asyncio.wait_for(home.handler.reached_data.wait(), 10)
        draining = asyncio.create_task(home.listener.drain(10))
        assert (await idle.reply()).startswith("421 4.3.2")
        assert await idle.is_over()
        sending.send(MESSAGE + b".\r\n" + b"NOOP\r\n")
        home.handler.gate.set()
        assert await sending.codes(2) == ["250", "421"]
        assert await waiting.codes(5) == ["250", "250", "354", "250", "421"]
        for client in home.clients:
            client.writer.close()
        await asyncio.wait_for(draining, 10)
        assert len(home.handler.kept) == 2
        with pytest.raises(OSError):
            await home.connect()


@pytest.mark.req("SMTP-03")
async def test_who_has_just_come_is_not_told_that_there_is_no_auth_here_because_we_leave(
    certificate: tuple[Path, Path],
) -> None:
    """Programs take an EHLO that is answered 421 for one without AUTH; so they may hand in one message, no other."""
    async with house(certificate, plaintext_from=LOOPBACK, limits=Limits(welcome=timedelta(minutes=1))) as home:
        newcomer, protected = await home.connect(), await home.greeted()
        assert (await newcomer.reply()).startswith("220")
        draining = asyncio.create_task(home.listener.drain(120))
        while not home.listener.traffic.draining:
            await asyncio.sleep(0)
        assert "AUTH PLAIN" in await newcomer.ask(b"EHLO client.example")
        await protected.start_tls(home.tls)
        assert "AUTH PLAIN" in await protected.ask(b"EHLO client.example")
        for one in (newcomer, protected):
            one.send(TRANSACTION + MESSAGE + b".\r\n" + TRANSACTION)
            assert await one.codes(5) == ["250", "250", "354", "250", "421"]
            one.writer.close()
        await asyncio.wait_for(draining, 10)
        assert len(home.handler.kept) == 2


async def test_who_has_come_and_says_nothing_is_told_to_come_again(certificate: tuple[Path, Path]) -> None:
    async with house(certificate, limits=Limits(welcome=timedelta(seconds=0.1))) as home:
        client = await home.greeted()
        draining = asyncio.create_task(home.listener.drain(60))
        assert (await client.reply()).startswith("421 4.3.2")
        client.writer.close()
        await asyncio.wait_for(draining, 10)


async def test_the_last_reply_is_not_lost_with_what_the_client_sent_too_much(certificate: tuple[Path, Path]) -> None:
    async with house(certificate) as home:
        home.handler.gate.clear()
        client = await home.greeted()
        client.send(TRANSACTION + MESSAGE + b".\r\n")
        await asyncio.wait_for(home.handler.reached_data.wait(), 10)
        client.send(b"VRFY x\r\n" * 500_000)
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(home.listener.drain(10))
        home.handler.gate.set()
        assert await client.codes(5) == ["250", "250", "354", "250", "421"]
        assert await asyncio.wait_for(client.reader.read(), 10) == b""
        client.writer.close()
        await asyncio.wait_for(draining, 10)


async def test_draining_does_not_wait_for_ever(certificate: tuple[Path, Path]) -> None:
    async with house(certificate) as home:
        client = await home.greeted()
        client.send(TRANSACTION)
        assert await client.codes(3) == ["250", "250", "354"]
        draining = asyncio.create_task(home.listener.drain(0.1))
        assert (await client.reply()).startswith("421 4.3.2")
        client.writer.close()
        await asyncio.wait_for(draining, 10)
        assert home.handler.kept == []
