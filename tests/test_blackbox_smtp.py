"""SMTP submission to the installed program: what is offered, what is refused and why, and what a refusal leaves behind.

The program is a separate process. Clients are raw sockets, smtplib and `openssl s_client`; the judge is a strict sink.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import raw_smtp
from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, field_of, invoice, newsletter
from tests.raw_smtp import RawSmtp, Said
from tests.sink import Received, Sink

Someone = Callable[[], str]

BOUND = "127.0.0.7"
"""The address from which the login `printer` of the guarded gateway needs no password."""

ENHANCED = re.compile(r"([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} \S.*")
SENTENCE = re.compile(r"(?:[a-z-]+: )?\w[^\n]{5,}")
DECISION = re.compile(r"\(decision ([0-9A-Z]{26}), see https://wiki\.example\.com/mail\)")


@pytest.fixture(scope="module")
def readers(shared_gateway: Gateway) -> list[str]:
    """Return people who have opted in to the newsletter."""
    addresses = [f"smtp-reader{n}@example.org" for n in range(4)]
    shared_gateway.opt_in(*addresses)
    return addresses


@pytest.fixture(scope="module")
def guarded(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that takes no password in the clear, binds one login to an address, and has tight limits."""
    running = Gateway(tmp_path_factory.mktemp("guarded") / "house", shared_sink.url).prepare()
    running.write_config(
        submission=submission(running, 'plaintext_from = []\nmax_message_size = "64KiB"\nmax_recipients = 100')
    )
    running.add_login("printer", "billing", "--network", f"{BOUND}/32")
    yield running.start()
    running.close()


def submission(gateway: Gateway, more: str, *hosts: str) -> str:
    listen = [f"{host}:{gateway.submission}" for host in ("127.0.0.1", *hosts)]
    return (
        textwrap.dedent(f"""
        [submission]
        listen = {listen}
        listen_tls = ["127.0.0.1:{gateway.submission_tls}"]
        tls_certificate = "server.pem"
        tls_key = "server.key"
        """)
        + more
    )


def tls(gateway: Gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.folder / "server.pem"))


def connect(gateway: Gateway, login: str = "", source: str = "") -> RawSmtp:
    """Connect to the submission port and say EHLO; log in where a login is named."""
    client = RawSmtp(gateway.submission, source=source)
    client.ehlo()
    if login:
        assert client.login(login, gateway.passwords[login]).code == 235
    return client


def started_tls(gateway: Gateway) -> RawSmtp:
    client = connect(gateway)
    assert client.say("STARTTLS").code == 220
    client.start_tls(tls(gateway))
    return client


def with_lines(*lines: bytes, subject: str = "Invoice") -> bytes:
    """Return account mail of these lines."""
    header = f"From: billing@example.com\r\nTo: ann@example.org\r\nSubject: {subject}\r\n\r\n"
    return header.encode() + b"".join(line + b"\r\n" for line in lines)


def still_works(gateway: Gateway, sink: Sink, client: RawSmtp, reader: str) -> list[Received]:
    """Submit an honest newsletter on the same connection; return everything that the sink has got by then."""
    assert client.transact(newsletter(reader), [reader]).code == 250
    return sink.wait_for(1)


def refused_in_one_sentence(said: Said, code: int, enhanced: str) -> bool:
    status, _, sentence = said.text.partition(" ")
    return (said.code, status, len(said.lines)) == (code, enhanced, 1) and bool(SENTENCE.fullmatch(sentence))


# what is offered, and to whom


@pytest.mark.req("SMTP-01", "SMTP-03")
def test_who_has_come_while_the_workers_change_is_offered_auth_and_hands_in_a_message(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    """To a worker that leaves, and says so to whoever has been served."""
    house = make_gateway().start()
    assert house.process is not None
    with connect(house, "shop") as served, RawSmtp(house.submission) as plain, RawSmtp(house.submission) as protected:
        assert served.transact(invoice(), ["served@example.org"], "billing@example.com").code == 250
        house.process.send_signal(signal.SIGHUP)
        assert str(served.reply()).startswith("421 4.3.2 ")
        assert "STARTTLS" in protected.ehlo()
        assert protected.say("STARTTLS").code == 220
        protected.start_tls(tls(house))
        for newcomer in (plain, protected):
            assert "AUTH" in newcomer.ehlo()
            assert newcomer.login("shop", house.passwords["shop"]).code == 235
            assert newcomer.transact(invoice(), ["newcomer@example.org"], "billing@example.com").code == 250
            assert str(newcomer.reply()).startswith("421 4.3.2 ")
    sink.wait_for(3)


@pytest.mark.req("SMTP-01", "SMTP-03")
def test_auth_is_offered_under_tls_only_and_starttls_before_it_only(guarded: Gateway) -> None:
    always = {"SIZE", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"}
    with connect(guarded) as plain:
        assert plain.ehlo() == always | {"STARTTLS"}
    with started_tls(guarded) as protected:
        assert protected.ehlo() == always | {"AUTH"}
    with RawSmtp(guarded.submission_tls, tls=tls(guarded)) as protected:
        assert protected.ehlo() == always | {"AUTH"}


@pytest.mark.req("SMTP-01")
def test_what_is_offered_is_honoured(gateway: Gateway, sink: Sink, readers: list[str]) -> None:
    umlaut = newsletter(readers[0], subject="Grüße")
    with connect(gateway, "news") as client:
        replies = [
            client.say(
                f"MAIL FROM:<grüße@news.example.com> SIZE={len(umlaut)} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a1"
            ),
            client.say(f"RCPT TO:<{readers[0]}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{readers[0]}"),
            client.say("DATA"),
        ]
        assert [said.code for said in replies] == [250, 250, 354]
        client.send(umlaut + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert message.envelope_from == "grüße@news.example.com"
    assert "Subject: Grüße\r\n".encode() in message.content
    assert {"BODY=8BITMIME", "SMTPUTF8"} <= set(message.options)


@pytest.mark.req("SMTP-03")
def test_a_password_in_the_clear_is_refused_even_if_it_is_right(guarded: Gateway, sink: Sink) -> None:
    with connect(guarded) as client:
        assert refused_in_one_sentence(client.login("news", guarded.passwords["news"]), 538, "5.7.11")
        assert refused_in_one_sentence(client.say("MAIL FROM:<letters@news.example.com>"), 530, "5.7.0")
    with started_tls(guarded) as client:
        client.ehlo()
        assert client.login("news", guarded.passwords["news"]).code == 235
    assert sink.messages == []


class Elsewhere(NamedTuple):
    """Another network namespace, the address at which it finds us, and its own."""

    name: str
    ours: str
    theirs: str

    def says(self, port: int, *lines: str) -> str:
        """Say lines to our port from there; return the server's side of the conversation."""
        command = ["ip", "netns", "exec", self.name, sys.executable, raw_smtp.__file__, self.ours, str(port), *lines]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("another network namespace needs root and iproute2")
    mark = f"as{os.getpid() % 100_000}"
    block = f"198.18.{random.randrange(256)}.{4 * random.randrange(64)}".rsplit(".", 1)
    ours, theirs = (f"{block[0]}.{int(block[1]) + n}" for n in (1, 2))
    commands = [
        f"ip netns add {mark}",
        f"ip link add {mark}a type veth peer name {mark}b netns {mark}",
        f"ip addr add {ours}/30 dev {mark}a",
        f"ip link set {mark}a up",
        f"ip -n {mark} addr add {theirs}/30 dev {mark}b",
        f"ip -n {mark} link set {mark}b up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield Elsewhere(mark, ours, theirs)
    finally:
        subprocess.run(["ip", "netns", "del", mark], capture_output=True)


@pytest.mark.req("SMTP-03", "SMTP-26", "POL-19")
def test_another_host_can_neither_log_in_without_tls_nor_submit_without_login(
    elsewhere: Elsewhere, make_gateway: MakeGateway, sink: Sink
) -> None:
    house = make_gateway()
    house.write_config(submission=submission(house, "", elsewhere.ours))
    house.start()
    heard = elsewhere.says(
        house.submission, "EHLO tool.example.net", "AUTH PLAIN AG5ld3MAeA==", "MAIL FROM:<a@news.example.com>"
    )
    assert "STARTTLS" in heard and "250-AUTH" not in heard
    assert [line[:9] for line in heard.splitlines()[-2:]] == ["538 5.7.1", "530 5.7.0"]
    with connect(house) as client:
        assert {"AUTH", "STARTTLS"} <= client.ehlo()
    assert sink.messages == []


@pytest.mark.req("SMTP-03")
def test_a_network_that_is_not_listed_gets_no_auth_in_the_clear(make_gateway: MakeGateway) -> None:
    house = make_gateway()
    house.write_config(submission=submission(house, 'plaintext_from = ["127.0.0.1", "127.5.0.0/16"]'))
    house.start()
    for source, is_listed in (("127.0.0.1", True), ("127.5.6.7", True), ("127.0.0.2", False)):
        with connect(house, source=source) as client:
            assert ("AUTH" in client.ehlo()) is is_listed
            assert client.login("news", house.passwords["news"]).code == (235 if is_listed else 538)


@pytest.mark.req("SMTP-26")
def test_a_login_is_bound_to_the_network_that_the_operator_named(guarded: Gateway, sink: Sink) -> None:
    for unbound in ("127.0.0.1", "127.0.0.8"):
        with connect(guarded, source=unbound) as client:
            assert refused_in_one_sentence(client.say("MAIL FROM:<billing@example.com>"), 530, "5.7.0")
    with connect(guarded, source=BOUND) as client:
        assert client.transact(invoice(), ["bound@example.org"], "billing@example.com").code == 250
        refused = client.transact(newsletter(), ["bound@example.org"], "billing@example.com")
    (message,) = sink.wait_for(1)
    assert message.recipients == ("bound@example.org",)
    assert refused_in_one_sentence(refused, 550, "5.7.1"), "the login is that of the network, and has no newsletter"
    identifier = re.search(rb"Message-ID: (\S+)", message.content)
    assert identifier
    told = guarded.json("explain", identifier[1].decode(), "bound@example.org")
    assert told[0]["login"] == "printer"


@pytest.mark.req("SMTP-26")
@pytest.mark.parametrize(
    "recipient", ["<a@example.org>", "<@relay.example.com:a@example.org>", "<a%example.org@relay.example.com>"]
)
def test_nobody_relays_without_a_login(gateway: Gateway, sink: Sink, recipient: str) -> None:
    with connect(gateway) as client:
        assert refused_in_one_sentence(client.say("MAIL FROM:<letters@news.example.com>"), 530, "5.7.0")
        assert client.say(f"RCPT TO:{recipient}").code == 503
        assert client.say("DATA").code == 503
    assert sink.messages == []


# TLS


@pytest.mark.req("SMTP-04")
def test_what_was_sent_ahead_of_the_handshake_is_never_obeyed(gateway: Gateway, sink: Sink, readers: list[str]) -> None:
    with connect(gateway, "news") as client:
        client.send(f"STARTTLS\r\nMAIL FROM:<letters@news.example.com>\r\nRCPT TO:<{readers[0]}>\r\nNOOP\r\n".encode())
        assert client.reply().code == 220
        client.start_tls(tls(gateway))
        assert client.say("VRFY ann").code == 252, "the first reply under TLS belongs to the first command under TLS"
        assert refused_in_one_sentence(client.say(f"RCPT TO:<{readers[0]}>"), 503, "5.5.1")
        assert refused_in_one_sentence(client.say("MAIL FROM:<letters@news.example.com>"), 503, "5.5.1")
        assert "STARTTLS" not in client.ehlo()
        assert refused_in_one_sentence(client.say("MAIL FROM:<letters@news.example.com>"), 530, "5.7.0")
        assert client.login("news", gateway.passwords["news"]).code == 235
        (message,) = still_works(gateway, sink, client, readers[0])
    assert message.recipients == (readers[0],)


def s_client(gateway: Gateway, *options: str, typed: str = "Q", implicit: bool = False) -> str:
    """Return what `openssl s_client` says; `typed` is typed once the handshake is over, Q to quit, R to renegotiate."""
    port = gateway.submission_tls if implicit else gateway.submission
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *([] if implicit else ["-starttls", "smtp"])]
    command += ["-CAfile", "server.pem", "-verify_hostname", "relay.example.com", *options]
    told = gateway.folder / "s_client.log"
    with told.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=gateway.folder, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
        eventually(lambda: process.poll() is not None or b"Verify return code" in told.read_bytes())
        process.communicate(f"{typed}\n", timeout=20)
    return told.read_text(errors="replace")


@pytest.mark.req("SMTP-05")
@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
def test_tls_is_1_2_or_later_with_a_certificate_for_our_name(gateway: Gateway, implicit: bool) -> None:
    willing = ("-cipher", "ALL:@SECLEVEL=0")
    for version in ("-tls1", "-tls1_1"):
        told = s_client(gateway, version, *willing, implicit=implicit)
        assert "New, (NONE), Cipher is (NONE)" in told, told
        assert "no protocols available" not in told, "the client would not have spoken this version with anyone"
    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        told = s_client(gateway, version, "-verify_return_error", implicit=implicit)
        assert f"New, {name}, Cipher is" in told or f"Protocol  : {name}" in told, told
        assert "Verify return code: 0 (ok)" in told, told


@pytest.mark.req("SMTP-05")
def test_renegotiation_is_refused(gateway: Gateway) -> None:
    told = s_client(gateway, "-tls1_2", typed="R", implicit=True)
    assert "RENEGOTIATING" in told and "no renegotiation" in told, told


# where a message ends

SMUGGLING = {
    "LF.LF": b"\n.\n",
    "LF.CR": b"\n.\r",
    "CR.LF": b"\r.\n",
    "CR.CR": b"\r.\r",
    "LF.CRLF": b"\n.\r\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF-NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL-CRLF": b"\r\n.\0\r\n",
    "CRLF.CR-CRLF": b"\r\n.\r\r\n",
    "CR-CRLF.CR-CRLF": b"\r\r\n.\r\r\n",
}
BROKEN = {"bare LF": b"a\nb", "bare CR": b"a\rb", "NUL": b"a\0b", "CR at the very end": b"a\r", "LF in a header": b""}


@pytest.mark.req("SMTP-06", "DKIM-10")
@pytest.mark.parametrize("ending", SMUGGLING.values(), ids=SMUGGLING)
def test_no_other_ending_makes_two_messages_of_one(
    gateway: Gateway, sink: Sink, readers: list[str], ending: bytes
) -> None:
    second = newsletter(readers[1], subject="smuggled")
    envelope = f"MAIL FROM:<letters@news.example.com>\r\nRCPT TO:<{readers[1]}>\r\nDATA\r\n".encode()
    with connect(gateway, "news") as client:
        said = client.transact(newsletter(readers[0])[:-2] + ending + envelope + second, [readers[0]])
        assert refused_in_one_sentence(said, 554, "5.6.0")
        (honest,) = still_works(gateway, sink, client, readers[2])
    assert honest.recipients == (readers[2],)


@pytest.mark.req("SMTP-06", "DKIM-10")
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_bare_line_end_or_a_nul_is_refused_and_never_repaired(
    gateway: Gateway, sink: Sink, readers: list[str], broken: bytes
) -> None:
    content = newsletter(readers[0]) + broken + b"\r\n" if broken else newsletter(readers[0]).replace(b"\r\n", b"\n", 1)
    with connect(gateway, "news") as client:
        assert refused_in_one_sentence(client.transact(content, [readers[0]]), 554, "5.6.0")
        (honest,) = still_works(gateway, sink, client, readers[2])
    assert honest.recipients == (readers[2],)


@pytest.mark.req("SMTP-06")
def test_all_that_is_pipelined_into_a_refused_message_is_one_transaction(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    """The row's own example, in one segment with what precedes it."""
    evil = f"hi\n.\r\nMAIL FROM:<evil@news.example.com>\r\nRCPT TO:<{readers[1]}>\r\nDATA\r\nevil\r\n.\r\n"
    with connect(gateway, "news") as client:
        client.send(f"MAIL FROM:<a@news.example.com>\r\nRCPT TO:<{readers[0]}>\r\nDATA\r\n{evil}NOOP\r\n".encode())
        assert [client.reply().code for _ in range(5)] == [250, 250, 354, 554, 250]
        (honest,) = still_works(gateway, sink, client, readers[2])
    assert honest.recipients == (readers[2],)


@pytest.mark.req("SMTP-07")
def test_on_the_wire_each_leading_dot_is_doubled_and_each_line_ends_with_crlf(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    lines = [b".", b"..", b".hidden", b"", b".MAIL FROM:<evil@example.com>", b". "]
    plain = newsletter(readers[0]).split(b"MIME-Version")[0] + b"\r\n"
    with connect(gateway, "news") as client, connect(gateway, "shop") as shop:
        stuffed = b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines)
        assert client.transact(plain + stuffed, [readers[0]]).code == 250
        assert shop.transact(with_lines() + stuffed, ["dots@example.org"], "billing@example.com").code == 250
    for message in sink.wait_for(2):
        assert message.raw.replace(b"\r\n", b"").translate(None, b"\r\n\0") == message.raw.replace(b"\r\n", b"")
        assert all(line.startswith(b"..") for line in message.raw.split(b"\r\n") if line.startswith(b"."))
        body = message.content.split(b"\r\n\r\n", 1)[1]
        assert body.split(b"\r\n")[: len(lines)] == lines


# long lines

LENGTHS = [999, 100_000]


def words(length: int) -> str:
    """Return a line of exactly this many octets; its words have a letter that is not ASCII."""
    text = "wörter " * (length // len("wörter ".encode()))
    return text + "x" * (length - len(text.encode()))


def parts_of(content: bytes) -> list[EmailMessage]:
    message = message_from_bytes(content, _class=EmailMessage, policy=policy.default)
    return [part for part in message.walk() if not part.is_multipart()]


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("subtype", ["plain", "html"])
def test_a_long_line_reaches_the_reader_whole_in_quoted_printable(
    gateway: Gateway, sink: Sink, length: int, subtype: str
) -> None:
    line = words(length)
    header = f"MIME-Version: 1.0\r\nContent-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    content = header.encode() + with_lines(line.encode(), b"second")
    with connect(gateway, "shop") as client:
        assert client.transact(content, ["long@example.org"], "billing@example.com").code == 250
    (message,) = sink.wait_for(1)
    (part,) = parts_of(message.content)
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert part.get_content().splitlines() == [line, "second"]


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_line_of_base64_reaches_the_reader_whole(gateway: Gateway, sink: Sink, length: int) -> None:
    header = b"MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    with connect(gateway, "shop") as client:
        said = client.transact(
            header + with_lines(b"QUJD" * (length // 4) + b"QQ=="), ["long@example.org"], "billing@example.com"
        )
        assert said.code == 250
    (message,) = sink.wait_for(1)
    (part,) = parts_of(message.content)
    assert part.get_payload(decode=True) == b"ABC" * (length // 4) + b"A"


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_line_in_a_signed_part_is_refused(gateway: Gateway, sink: Sink, length: int) -> None:
    lines = [b"--cut", b"Content-Type: text/plain", b"", b"x" * length, b"--cut"]
    lines += [b"Content-Type: application/pkcs7-signature; name=smime.p7s", b"", b"MIIB", b"--cut--"]
    header = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=cut\r\n'
    )
    with connect(gateway, "shop") as client:
        said = client.transact(header + with_lines(*lines), ["long@example.org"], "billing@example.com")
        assert refused_in_one_sentence(said, 554, "5.6.0")
        assert client.transact(invoice(), ["long@example.org"], "billing@example.com").code == 250
    (message,) = sink.wait_for(1)
    assert b"multipart/signed" not in message.content


@pytest.mark.req("SMTP-08")
@pytest.mark.parametrize("count", [28, 2_500])
def test_a_long_header_line_is_folded_at_white_space_only(gateway: Gateway, sink: Sink, count: int) -> None:
    value = b" ".join([b"<0123456789abcdef@tool.example.net>"] * count)
    assert len(value) > 998
    with connect(gateway, "shop") as client:
        content = b"References: " + value + b"\r\n" + with_lines(b"Hello")
        assert client.transact(content, ["long@example.org"], "billing@example.com").code == 250
    (message,) = sink.wait_for(1)
    (field,) = field_of(message.content, "References")
    assert field.replace(b"\r\n", b"") == b"References: " + value
    assert max(map(len, field.split(b"\r\n"))) <= 998


@pytest.mark.req("SMTP-08")
def test_a_long_header_line_without_white_space_is_refused(gateway: Gateway, sink: Sink) -> None:
    with connect(gateway, "shop") as client:
        said = client.transact(
            b"X-Data: " + b"x" * 999 + b"\r\n" + with_lines(b"Hello"), ["long@example.org"], "billing@example.com"
        )
        assert refused_in_one_sentence(said, 554, "5.6.0")
        assert client.transact(invoice(), ["long@example.org"], "billing@example.com").code == 250
    (message,) = sink.wait_for(1)
    assert not field_of(message.content, "X-Data")


# the order of things


@pytest.mark.req("SMTP-09")
def test_pipelined_commands_are_answered_in_order_one_by_one(
    gateway: Gateway, sink: Sink, someone: Someone, readers: list[str]
) -> None:
    never_asked = someone()
    segment = [
        "MAIL FROM:<letters@news.example.com>",
        *(f"RCPT TO:<{one}>" for one in (readers[0], never_asked, readers[1])),
        "DATA",
    ]
    with connect(gateway, "news") as client:
        client.send("".join(f"{line}\r\n" for line in segment).encode())
        replies = [client.reply() for _ in segment]
        assert [said.code for said in replies] == [250, 250, 550, 250, 354]
        assert replies[2].text.startswith("5.7.1 no-consent: ")
        client.send(newsletter("list@news.example.com") + b".\r\nNOOP\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 221]
        assert client.is_closed()
    messages = sink.wait_for(2)
    assert sorted(message.recipients for message in messages) == sorted([(readers[0],), (readers[1],)])


@pytest.mark.req("SMTP-09")
def test_data_after_no_accepted_recipient_is_refused_and_nothing_is_sent(
    gateway: Gateway, sink: Sink, someone: Someone, readers: list[str]
) -> None:
    with connect(gateway, "news") as client:
        refused = "".join(f"RCPT TO:<{someone()}>\r\n" for _ in range(2))
        client.send(f"MAIL FROM:<letters@news.example.com>\r\n{refused}DATA\r\n".encode())
        assert [client.reply().code for _ in range(4)] == [250, 550, 550, 554]
        client.send(b"DATA\r\nRSET\r\n")
        assert client.reply().code in (503, 554)
        assert client.reply().code == 250
        (honest,) = still_works(gateway, sink, client, readers[0])
    assert honest.recipients == (readers[0],)


@pytest.mark.req("SMTP-09")
def test_a_conversation_cut_into_single_octets_means_the_same(gateway: Gateway, sink: Sink, readers: list[str]) -> None:
    content = f"From: letters@news.example.com\r\nTo: {readers[0]}\r\nSubject: slowly\r\n\r\nHello\r\n.\r\n"
    with connect(gateway, "news") as client:
        for octet in f"MAIL FROM:<a@news.example.com>\r\nRCPT TO:<{readers[0]}>\r\nDATA\r\n{content}".encode():
            client.send(bytes([octet]))
        assert [client.reply().code for _ in range(4)] == [250, 250, 354, 250]
    (message,) = sink.wait_for(1)
    assert b"Subject: slowly\r\n" in message.content


@pytest.mark.req("SMTP-31")
def test_after_only_refusals_the_next_mail_begins_a_new_transaction(
    gateway: Gateway, sink: Sink, someone: Someone, readers: list[str]
) -> None:
    with connect(gateway, "news") as client:
        for _ in range(30):
            assert client.say("MAIL FROM:<letters@news.example.com>").code == 250
            assert client.say(f"RCPT TO:<{someone()}>").code == 550
        (honest,) = still_works(gateway, sink, client, readers[0])
    assert honest.recipients == (readers[0],)


@pytest.mark.req("SMTP-31")
def test_smtplib_gets_a_campaign_of_single_mails_through(
    gateway: Gateway, sink: Sink, someone: Someone, readers: list[str]
) -> None:
    with gateway.smtp("news") as client:
        for address in (readers[0], someone(), readers[1], someone(), readers[2]):
            if address in readers:
                client.sendmail("letters@news.example.com", address, newsletter(address))
            else:
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("letters@news.example.com", address, newsletter(address))
    assert sorted(message.recipients[0] for message in sink.wait_for(3)) == sorted(readers[:3])


# replies


FUZZ = """
EHLO tool.example.net|EHLO|EHLO a b|HELO|HELO tool|NOOP|NOOP x|RSET|RSET x|VRFY ann|EXPN list|HELP|HELP MAIL|ETRN x|TURN
MAIL|MAIL FROM:|MAIL FROM:<>|MAIL FROM:<a@b|MAIL FROM:<letters@news.example.com>|MAIL FROM:<x@elsewhere.example>
MAIL FROM:<letters@news.example.com> SIZE=99999999999|MAIL FROM:<letters@news.example.com> FOO=1
MAIL FROM:<letters@news.example.com> BODY=BINARYMIME|MAIL FROM:<letters@news.example.com> SIZE=1 SIZE=2
MAIL FROM:<ü@news.example.com>|RCPT|RCPT TO:<>|RCPT TO:<a>|RCPT TO:<@a:b@example.org>|RCPT TO:<nobody@example.org>
RCPT TO:<reader@example.org> NOTIFY=X|RCPT TO:<smtp-reader0@example.org>|RCPT TO:<smtp-reader1@example.org> NOTIFY=NEVER
RCPT TO:<ü@example.org>|RCPT TO:<a@b..c>|DATA|DATA x|.|From: letters@news.example.com|From: ceo@example.com|..
BDAT 5 LAST|STARTTLS x|AUTH|AUTH CRAM-MD5|AUTH PLAIN !|AUTH PLAIN AG5ld3MAd3Jvbmc=|AUTH LOGIN|*|XYZZY|
"""
TRANSACTION = [
    "MAIL FROM:<a@news.example.com>",
    "RCPT TO:<nobody@example.org>",
    "RCPT TO:<smtp-reader2@example.org>",
    "DATA",
]


def fuzz(choose: random.Random) -> bytes:
    """Return commands, good and bad, out of any order, and a QUIT that may come too late."""
    lines = FUZZ.strip().replace("\n", "|").split("|")
    lines += ["a\rb", "\0", "\x7f", "X" * 600, "X" * 20_000]
    lines += [f"MAIL FROM:<{'a' * 300}@b.org>", f"RCPT TO:<{'a' * 65}@b.org>"]
    lines += ["\r\n".join([*TRANSACTION, "X: y", "."])] * 5
    chosen = choose.choices(lines, k=choose.randrange(3, 60))
    return "\r\n".join([*chosen, "", ".", "QUIT", ""]).encode()


@pytest.mark.req("SMTP-10")
@pytest.mark.usefixtures("sink", "readers")
def test_each_line_of_each_reply_has_an_enhanced_status_of_its_class(gateway: Gateway) -> None:
    """Only the greeting, the replies to EHLO and HELO, and the 3xx have none (RFC 2034 §4)."""
    choose = random.Random(2034)
    without = {
        f"250-{one}" for one in ("relay.example.com", "PIPELINING", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "DSN")
    }
    without |= {"250-STARTTLS", "250-AUTH PLAIN LOGIN", "250 ENHANCEDSTATUSCODES", "250 relay.example.com"}
    heard: set[str] = set()
    for _ in range(150):
        with connect(gateway, choose.choice(["news", "news", ""])) as client:
            client.send(fuzz(choose))
            heard.update(client.rest()[1:])
    wrong = [line for line in heard - without if not ENHANCED.fullmatch(line) and not re.match(r"3\d\d ", line)]
    assert not wrong
    expected = {*(214, 221, 250, 252, 334, 354, 421), *(500, 501, 502, 503, 504, 550, 552, 553, 554, 555)}
    assert expected <= {int(line[:3]) for line in heard}


@pytest.mark.req("SMTP-12")
def test_the_size_that_is_offered_is_the_size_that_holds(guarded: Gateway, sink: Sink) -> None:
    limit = 64 * 1024
    with connect(guarded, source=BOUND) as client:
        assert f"SIZE {limit}" in client.say("EHLO printer").lines
        assert refused_in_one_sentence(client.say(f"MAIL FROM:<billing@example.com> SIZE={limit + 1}"), 552, "5.3.4")
        assert client.say(f"MAIL FROM:<billing@example.com> SIZE={limit}").code == 250
        client.say("RSET")
        for size, code in ((limit, 250), (limit + 1, 552)):
            said = client.transact(_sized(size), ["size@example.org"], "billing@example.com")
            assert said.code == code
        assert refused_in_one_sentence(said, 552, "5.3.4")
        said = client.transact(_sized(40 * limit), ["size@example.org"], "billing@example.com")
        assert refused_in_one_sentence(said, 552, "5.3.4")
        assert client.transact(invoice(), ["size@example.org"], "billing@example.com").code == 250
    assert sorted(len(message.content) > limit for message in sink.wait_for(2)) == [False, True]


def _sized(octets: int) -> bytes:
    """Return account mail of exactly this size, as RFC 1870 counts it."""
    lines, rest = divmod(octets - len(with_lines()), 64)
    return with_lines(*[b"x" * 62] * (lines - 1), b"x" * (62 + rest))


@pytest.mark.req("SMTP-12")
def test_less_than_64_kib_cannot_be_configured(tmp_path: Path) -> None:
    house = Gateway(tmp_path, "smtp://127.0.0.1:1")
    house.write_config(submission='[submission]\nmax_message_size = "65535B"')
    done = house.run("migrate", check=False)
    assert done.returncode == 78
    told = r'config\.toml:\d+: submission\.max_message_size: "65535B" is too small .+; write "64KiB" or more'
    assert re.search(told, done.stderr)


@pytest.mark.req("SMTP-11")
def test_past_the_limit_of_recipients_each_is_refused_and_those_before_stand(guarded: Gateway, sink: Sink) -> None:
    recipients = [f"many{n}@example.org" for n in range(101)]
    with connect(guarded, source=BOUND) as client:
        client.send(
            "".join(["MAIL FROM:<billing@example.com>\r\n", *(f"RCPT TO:<{one}>\r\n" for one in recipients)]).encode()
        )
        replies = [client.reply() for _ in range(102)]
        assert [said.code for said in replies] == [250] * 101 + [452]
        assert refused_in_one_sentence(replies[-1], 452, "4.5.3")
        assert client.say("DATA").code == 354
        client.send(invoice() + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert sorted(message.recipients) == sorted(recipients[:100])


@pytest.mark.req("SMTP-09")
@pytest.mark.parametrize("login", ["news", "shop"])
def test_whoever_is_named_twice_gets_one_copy(gateway: Gateway, sink: Sink, login: str, someone: Someone) -> None:
    reader, other, told = someone(), someone(), ("NOTIFY=FAILURE", "ORCPT=rfc822;first@example.net")
    gateway.opt_in(reader, other)
    sender, message = ("letters@news.example.com", newsletter) if login == "news" else ("billing@example.com", invoice)
    with gateway.smtp(login) as client:
        client.mail(sender)
        again = reader.replace("@example.org", "@EXAMPLE.org")
        named = [(reader, told), (other, ()), (again, ()), (reader, ())]
        assert [client.rcpt(one, list(options))[0] for one, options in named] == [250] * 4
        assert client.data(message(reader))[0] == 250
    eventually(lambda: not gateway.json("queue", "list"))
    reached = [pair for one in sink.messages for pair in zip(one.recipients, one.recipient_options, strict=True)]
    assert sorted(reached) == sorted([(reader, told), (other, ())])


# what is written into the message, and who may say they wrote it


RECEIVED = re.compile(
    r"from (?P<helo>\S+) \(\[(?P<ip>[^\]]+)\]\)\s+by relay\.example\.com\s+with (?P<protocol>\w+)(?: \([^)]*\))?"
    r"\s+id (?P<id>\w+)(?:\s+for <(?P<recipient>[^>]+)>)?;\s+(?P<date>.+ [+-]\d{4})"
)


def trace_of(message: Received) -> re.Match[str]:
    """Return the parsed Received field, which stands above everything that the submitter wrote."""
    (field,) = field_of(message.content, "Received")
    assert message.content.index(field) < message.content.index(b"From: ")
    parsed = RECEIVED.fullmatch(re.sub(r"\s+", " ", field.decode().removeprefix("Received:")).strip())
    assert parsed, field
    return parsed


@pytest.mark.req("SMTP-15")
def test_received_tells_who_handed_the_message_in_how_and_when(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    with RawSmtp(gateway.submission_tls, tls=tls(gateway)) as client:
        client.ehlo()
        client.login("news", gateway.passwords["news"])
        queued = client.transact(newsletter(readers[0]), [readers[0]])
        (message,) = sink.wait_for(1)
        trace = trace_of(message)
        assert trace.group("helo", "ip", "protocol", "recipient") == (
            "tool.example.net",
            "127.0.0.1",
            "ESMTPSA",
            readers[0],
        )
        assert queued.text == f"2.0.0 queued as {trace['id']}"
        assert abs(parsedate_to_datetime(trace["date"]).timestamp() - message.at) < 60
        sink.clear()
        assert (
            client.say("MAIL FROM:<letters@news.example.com> SMTPUTF8", f"RCPT TO:<{readers[1]}>", "DATA").code == 354
        )
        client.send(newsletter(readers[1]) + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert trace_of(message)["protocol"] == "UTF8SMTPSA"


@pytest.mark.req("SMTP-15")
def test_with_several_recipients_the_message_tells_nobody_who_else_got_it(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    hidden, also_hidden = "hidden@example.org", readers[1]
    bcc = f"Bcc: {hidden},\r\n {also_hidden}\r\nResent-Bcc: {hidden}\r\n".encode()
    with started_tls(gateway) as client:
        client.ehlo()
        client.login("shop", gateway.passwords["shop"])
        assert (
            client.transact(bcc + invoice(readers[0]), [readers[0], hidden, also_hidden], "billing@example.com").code
            == 250
        )
    with connect(gateway, "news") as client:
        assert client.transact(bcc + newsletter(readers[0]), [readers[0], also_hidden]).code == 250
    messages = sink.wait_for(3)
    assert sorted(map(len, (message.recipients for message in messages))) == [1, 1, 3]
    for message in messages:
        assert trace_of(message)["recipient"] is None
        assert hidden.encode() not in message.content
        assert not field_of(message.content, "Bcc") and not field_of(message.content, "Resent-Bcc")
        if message.recipients != (also_hidden,):
            assert also_hidden.encode() not in message.content


@pytest.mark.req("SMTP-25")
@pytest.mark.parametrize(
    "author",
    [
        "billing@example.com",
        "letters@offers.example.com",
        "letters@news.example.com.evil.example",
        "news.example.com@evil.example",
        "letters@news.example.com, ceo@example.com",
        '"letters@news.example.com" <ceo@example.com>',
        "letters@xnews.example.com",
        "(letters@news.example.com) ceo@example.com",
        "undisclosed:;",
        "",
    ],
)
def test_a_from_that_the_stream_does_not_have_is_refused(
    gateway: Gateway, sink: Sink, readers: list[str], author: str
) -> None:
    content = newsletter(readers[0]).replace(b"Example Letters <letters@news.example.com>", author.encode())
    with connect(gateway, "news") as client:
        said = client.transact(content, [readers[0]])
        assert refused_in_one_sentence(said, 550, "5.7.1")
        assert DECISION.search(said.text)
        (honest,) = still_works(gateway, sink, client, readers[1])
    assert honest.recipients == (readers[1],)


@pytest.mark.req("SMTP-25")
def test_the_reverse_path_is_one_of_the_stream_or_of_its_from_domains(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    allowed = [
        "bounce-4711-ann=example.org@bounces.news.example.com",
        "anything+x@news.example.com",
        "a@NEWS.Example.com",
    ]
    refused = [
        "a@example.com",
        "a@evil.example",
        "a@xbounces.news.example.com",
        "a@bounces.news.example.com.evil.example",
        "",
    ]
    with connect(gateway, "news") as client:
        for sender in refused:
            said = client.say(f"MAIL FROM:<{sender}>")
            assert refused_in_one_sentence(said, 550, "5.7.1"), sender
        for sender in allowed:
            assert client.transact(newsletter(readers[0]), [readers[0]], sender).code == 250
    messages = sink.wait_for(len(allowed))
    assert sorted(message.envelope_from for message in messages) == sorted(allowed)


# bad input: one sentence each, and everything as it was


def test_a_wrong_password_is_refused_and_the_right_one_works_afterwards(
    gateway: Gateway, sink: Sink, readers: list[str]
) -> None:
    with connect(gateway) as client:
        for name, password in (("news", "wrong"), ("nobody", "wrong")):
            assert refused_in_one_sentence(client.login(name, password), 535, "5.7.8")
        assert client.login("news", gateway.passwords["shop"]).code == 535
        assert client.reply().text == "4.7.0 too many failed logins"
        assert client.is_closed()
    with connect(gateway, "news") as client:
        still_works(gateway, sink, client, readers[0])


def test_a_refused_message_leaves_nothing_in_the_queue(gateway: Gateway, sink: Sink, readers: list[str]) -> None:
    sink.hold()
    broken = [
        newsletter() + b"\n",
        b"From: x@evil.example\r\n\r\nHi\r\n",
        b"Subject: a\r\nSubject: b\r\n" + newsletter(),
        b"\0\r\n",
    ]
    with connect(gateway, "news") as client:
        assert [client.transact(content, [readers[0]]).code for content in broken] == [554, 550, 554, 554]
    waiting = [row for row in gateway.json("queue", "list") if row["recipient"] == readers[0]]
    assert waiting == []


def test_a_broken_configuration_is_told_whole_and_makes_nothing(tmp_path: Path) -> None:
    house = Gateway(tmp_path, "smtp://127.0.0.1:1")
    house.write_config()
    text = house.config.read_text()
    wrong = {
        'hostname = "relay.example.com"': 'hostnam = "relay.example.com"',
        "workers = 1": 'workers = "many"',
        "retry = [": "retry = [12, ",
        'class = "account"': 'class = "acount"',
        'from = ["*@offers.example.com"]': 'from = ["*@offers.example.net"]',
    }
    for right, mistake in wrong.items():
        assert right in text
        text = text.replace(right, mistake)
    house.config.write_text(text)
    for command in ("serve", "migrate", "check", "status"):
        done = house.run(command, check=False)
        assert done.returncode == 78, command
        problems = done.stderr.splitlines()
        assert all(re.fullmatch(r"(?:.*/)?config\.toml:\d+: .+[;?].*", one) for one in problems), problems
        for mistake in ("hostnam ", '"many"', "12", '"acount"', "offers.example.net", "tls_certificate"):
            assert any(mistake in one for one in problems), (mistake, problems)
        lines = {int(one.split(":")[1]) for one in problems}
        assert {
            text.splitlines().index(line) + 1 for line in text.splitlines() if "many" in line or "hostnam " in line
        } <= lines
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_an_sqlite_that_loses_commits_is_refused_at_the_start(make_gateway: MakeGateway, tmp_path: Path) -> None:
    house = make_gateway()
    before = {path: path.read_bytes() for path in house.folder.rglob("*.db")}
    old = "from pysqlite3 import dbapi2\ndbapi2.sqlite_version, dbapi2.sqlite_version_info = '3.51.2', (3, 51, 2)\n"
    (tmp_path / "sitecustomize.py").write_text(old)
    house.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for command in ("serve", "migrate", "status"):
        done = house.run(command, check=False)
        assert done.returncode == 78, (command, done.stderr)
        assert "SQLite 3.51.2 can lose commits; install a pysqlite3 with SQLite 3.51.3 or newer" in done.stderr
    assert {path: path.read_bytes() for path in house.folder.rglob("*.db")} == before
