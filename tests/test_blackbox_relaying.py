"""What the installed program says to its smarthosts: which one, how securely, how fast, and in which envelope.

One gateway with a smarthost for each situation, and a stream for each smarthost; the judges are strict scripted sinks.
What comes of a smarthost that misbehaves is `test_blackbox_faults`.
"""

from __future__ import annotations

import json
import mailbox
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.copies_under_test import dkimpy_accepts
from tests.gateway_under_test import Gateway, eventually, fetch, field_of, link_of, newsletter, transact
from tests.sink import DROP, OFFERED, Certificate, Received, Sink, make_certificate, offering

RATE_SECONDS = float(os.environ.get("ASSENT_RATE_SECONDS", "4"))
"""How long the rate of 14 a second is watched; `make torture` watches it for 30 seconds."""

READER = "relayed@example.org"
WITHOUT_UTF8 = tuple(offer for offer in OFFERED if offer != "SMTPUTF8")
WITHOUT_PIPELINING = tuple(offer for offer in OFFERED if offer != "PIPELINING")
WITHOUT_DSN = tuple(offer for offer in OFFERED if offer != "DSN")


@dataclass
class Hub:
    """A gateway and its smarthosts, each with an account stream of the same name and From address."""

    folder: Path
    stack: ExitStack
    sinks: dict[str, Sink] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    gateway: Gateway = field(init=False)

    def smarthost(self, name: str, sink: Sink, *more: str, host: str = "") -> None:
        """Add a smarthost at a sink, under the name `host` where its certificate is for another than the sink's."""
        self.sinks[name] = self.stack.enter_context(sink)
        url = sink.url.replace(sink.host, host) if host else sink.url
        self.keys[name] = "\n".join([f'urls = ["{url}"]', 'retry = ["1s"]', *more])

    def start(self) -> Gateway:
        hosts = "\n".join(f"[smarthosts.{name}]\n{keys}" for name, keys in self.keys.items())
        accounts = "\n".join(
            f'[streams.{name}]\nclass = "account"\nfrom = ["{name}@example.com"]\nsmarthost = "{name}"'
            for name in self.keys
        )
        self.gateway = Gateway(self.folder, "", sections={"smarthosts": hosts, "accounts": accounts}, workers=2)
        self.gateway.prepare()
        self.gateway.add_login("all", ",".join(["newsletter", *self.keys]))
        self.gateway.opt_in(READER)
        self.stack.callback(self.gateway.close)
        return self.gateway.start()

    def submit(
        self,
        name: str,
        *recipients: str,
        content: bytes = b"",
        options: tuple[str, ...] = (),
        recipient_options: tuple[str, ...] = (),
    ) -> str:
        """Submit an account message for that smarthost; return its Message-ID."""
        with self.gateway.smtp("all") as client:
            message = content or notice(name, recipients[0])
            assert client.mail(f"{name}@example.com", list(options))[0] == 250
            for recipient in recipients:
                assert client.rcpt(recipient, list(recipient_options))[0] == 250
            code, text = client.data(message)
            assert code == 250, text
        return re.search(rb"(?m)^Message-ID: (\S+)", message)[1].decode()

    def relayed(self, name: str, *recipients: str, **how: tuple[str, ...] | bytes) -> Received:
        """Submit an account message, and return what its smarthost received."""
        return self.arrived(name, self.submit(name, *recipients, **how))

    def arrived(self, name: str, message_id: str) -> Received:
        """Return the first copy of a message that a smarthost received, whatever else comes there meanwhile."""
        found: Received = eventually(
            lambda: next(
                (one for one in self.sinks[name].messages if one.envelope_from and holds(one, message_id)), None
            )
        )
        return found

    def report(self, message_id: str) -> Received:
        """Return the report on a message that could not be relayed."""
        found: Received = eventually(
            lambda: next(
                (one for one in self.sinks["default"].messages if not one.envelope_from and holds(one, message_id)),
                None,
            )
        )
        return found

    def attempts(self, message_id: str, recipient: str) -> list[dict[str, str]]:
        """Return the attempts to relay a message to somebody, from the first on; there is at least one."""
        return list(
            eventually(lambda: [line for line in self.lines(message_id, recipient) if line["kind"] == "attempt"])
        )

    def settled(self, message_id: str, recipient: str) -> str:
        """Return how it ended for a recipient; "" while it has not."""
        outcome = self.attempts(message_id, recipient)[-1]["outcome"]
        return "" if outcome == "deferred" else outcome

    def lines(self, message_id: str, recipient: str) -> list[dict[str, str]]:
        done = self.gateway.run("--json", "explain", message_id, recipient, check=False)
        return [] if done.returncode else list(json.loads(done.stdout))

    def verifies(self, received: Received) -> bool:
        """True where dkimpy accepts the signature of what the sink received."""
        records = {one["name"]: one["record"] for one in self.gateway.json("dkim", "dns", "example.com")}
        return dkimpy_accepts(received.content, records)

    def counted(self, metric: str) -> int:
        told = fetch(f"http://127.0.0.1:{self.gateway.console}/metrics").text
        found = re.search(rf"(?m)^{re.escape(metric)} (\d+)$", told)
        return int(found[1]) if found else 0


def holds(received: Received, message_id: str) -> bool:
    return message_id.encode() in received.content


def notice(name: str, to: str, *, header: str = "", body: str = "Your order has been sent.\n") -> bytes:
    text = (
        f"From: {name}@example.com\nTo: {to}\nSubject: Your order\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
        f"Message-ID: <{time.monotonic_ns()}@shop.example.net>\n{header}MIME-Version: 1.0\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{body}"
    )
    return text.replace("\n", "\r\n").encode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("relaying")
    right = make_certificate(folder, "localhost", "127.0.0.1")
    wrong = make_certificate(folder, "mx.example.net")
    expired = make_certificate(folder, "expired.localhost", "localhost", days=-1)
    (folder / "house").mkdir()
    _write_authorities(folder / "house" / "authorities.pem", right, wrong, expired)
    (folder / "house" / "password").write_text("secret\n")
    (folder / "house" / "password").chmod(0o600)
    trusting = 'tls_authorities = "authorities.pem"'
    logged_in = ('username = "user"', 'password_file = "password"')
    with ExitStack() as stack:
        made = Hub(folder / "house", stack)
        made.smarthost("default", Sink())
        made.smarthost("implicit", Sink(tls=right, implicit_tls=True), trusting)
        made.smarthost("starttls", Sink(tls=right, login=("user", "secret")), trusting, *logged_in, host="localhost")
        made.smarthost("stripped", Sink(login=("user", "secret")), trusting, *logged_in)
        made.smarthost("misnamed", Sink(tls=wrong), trusting)
        made.smarthost("misnamed-implicit", Sink(tls=wrong, implicit_tls=True), trusting)
        made.smarthost("expired", Sink(tls=expired), trusting, host="localhost")
        made.smarthost("expired-implicit", Sink(tls=expired, implicit_tls=True), trusting, host="localhost")
        made.smarthost("unknown-authority", Sink(tls=right, implicit_tls=True))
        made.smarthost("login", Sink(login=("user", "secret")), *logged_in)
        made.smarthost("throttled", Sink(), 'rate = "14/s"')
        made.smarthost("patient", Sink(), "connections = 2", "messages_per_connection = 2")
        made.smarthost("single", Sink(), "connections = 1")
        made.smarthost("lmtp", Sink(lmtp=True))
        made.smarthost("first", Sink())
        second = stack.enter_context(Sink())
        made.sinks["second"] = second
        made.keys["first"] = made.keys["first"].replace("]", f', "{second.url}"]', 1)
        made.keys["folder"] = 'urls = ["maildir:outbox"]'
        made.start()
        yield made


@pytest.fixture(autouse=True)
def _nothing_recorded(hub: Hub) -> Iterator[None]:
    """Begin with sinks that remember nothing, and end with sinks that were spoken to as the standards say."""
    for sink in hub.sinks.values():
        sink.normal()
        sink.clear()
    yield
    faults = {name: sink.faults for name, sink in hub.sinks.items() if sink.faults}
    assert not faults


def _write_authorities(path: Path, *certificates: Certificate) -> None:
    path.write_text("".join(one.certificate.read_text() for one in certificates))


# TLS and logging in


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize(("name", "login"), [("implicit", ""), ("starttls", "user")])
def test_mail_goes_encrypted_to_a_smarthost_whose_certificate_is_right(hub: Hub, name: str, login: str) -> None:
    received = hub.relayed(name, READER)
    assert (received.tls, received.login) == (True, login)


UNSAFE = ["stripped", "misnamed", "misnamed-implicit", "expired", "expired-implicit", "unknown-authority"]


@pytest.mark.req("OUT-05", "POL-19")
def test_without_a_verified_certificate_mail_waits_and_nothing_of_it_is_said(hub: Hub) -> None:
    sent = {name: hub.submit(name, READER) for name in UNSAFE}
    for name, message_id in sent.items():
        attempt, *later = hub.attempts(message_id, READER)
        assert {one["outcome"] for one in (attempt, *later)} == {"deferred"}, name
        assert re.search("STARTTLS is not offered" if name == "stripped" else "(?i)certificate", attempt["reply"]), name
        said = {line.split()[0] for line in hub.sinks[name].commands}
        assert said <= {"EHLO", "STARTTLS", "QUIT"}, f"{name} heard {said}"
        assert hub.sinks[name].messages == []


@pytest.mark.parametrize("offer", ["AUTH PLAIN LOGIN", "AUTH LOGIN", "AUTH=LOGIN PLAIN"])
def test_the_smarthost_is_logged_in_to_by_plain_or_login(hub: Hub, offer: str) -> None:
    sink = hub.sinks["login"]
    sink.on("EHLO", f"250-sink.example.com\r\n250 {offer}")
    sink.drop_connections()
    assert hub.relayed("login", READER).login == "user"


def test_a_password_that_the_smarthost_refuses_defers_and_is_nowhere_to_be_read(hub: Hub) -> None:
    sink = hub.sinks["login"]
    sink.on("AUTH", "535 5.7.8 wrong password", times=1)
    sink.drop_connections()
    message_id = hub.submit("login", READER)
    attempt = hub.attempts(message_id, READER)[0]
    assert (attempt["outcome"], "535 5.7.8" in attempt["reply"]) == ("deferred", True)
    assert sink.wait_for(1, 20)[0].login == "user"
    assert "secret" not in hub.gateway.log.read_text() + attempt["reply"]


def test_a_smarthost_that_knows_only_helo_is_relayed_to(hub: Hub) -> None:
    sink = hub.sinks["default"]
    sink.on("EHLO", "502 5.5.1 not implemented")
    sink.drop_connections()
    received = hub.relayed("default", READER)
    assert (received.helo, received.options) == ("relay.example.com", ())
    sink.normal()
    sink.drop_connections()


# the envelope


DSN = ("RET=HDRS", "ENVID=QQ314159")
RCPT_DSN = ("NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Bob+2BSmith@Example.ORG")


@pytest.mark.req("OUT-09")
def test_dsn_parameters_are_passed_on_unchanged(hub: Hub) -> None:
    received = hub.relayed("default", READER, options=DSN, recipient_options=RCPT_DSN)
    assert [one for one in received.options if not one.startswith("SIZE=")] == list(DSN)
    assert received.recipient_options == (RCPT_DSN,)


@pytest.mark.req("OUT-09")
def test_dsn_parameters_are_not_invented(hub: Hub) -> None:
    received = hub.relayed("default", READER)
    assert [one.partition("=")[0] for one in received.options] == ["SIZE"]
    assert received.recipient_options == ((),)


@pytest.mark.req("OUT-09")
def test_dsn_parameters_are_not_said_to_a_smarthost_that_does_not_offer_them(hub: Hub) -> None:
    with offering(hub.sinks["default"], WITHOUT_DSN):
        received = hub.relayed("default", READER, options=DSN, recipient_options=RCPT_DSN)
    assert (received.options[1:], received.recipient_options) == ((), ((),))


@pytest.mark.req("I18N-01")
@pytest.mark.parametrize(
    ("recipient", "header", "needs"),
    [
        (READER, "", False),
        ("δοκιμή@example.org", "", True),
        ("reader@bücher.example", "", True),
        (READER, "Comments: Grüße\n", True),
    ],
)
def test_smtputf8_is_asked_for_where_envelope_or_header_need_it(
    hub: Hub, recipient: str, header: str, needs: bool
) -> None:
    content = notice("default", "undisclosed-recipients:;", header=header)
    received = hub.relayed("default", recipient, content=content, options=("SMTPUTF8",))
    assert received.recipients == (recipient,)
    assert ("SMTPUTF8" in received.options) == needs


@pytest.mark.req("I18N-01", "I18N-02")
def test_a_domain_is_written_in_a_labels_for_a_smarthost_without_smtputf8(hub: Hub) -> None:
    content = notice("default", "undisclosed-recipients:;")
    with offering(hub.sinks["default"], WITHOUT_UTF8):
        received = hub.relayed("default", "reader@bücher.example", content=content, options=("SMTPUTF8",))
    assert received.recipients == ("reader@xn--bcher-kva.example",)
    assert "SMTPUTF8" not in received.options
    assert received.content.partition(b"\r\n\r\n")[0].isascii()


@pytest.mark.req("I18N-02")
def test_a_local_part_beyond_ascii_fails_with_its_status_at_a_smarthost_without_smtputf8(hub: Hub) -> None:
    content = notice("default", "undisclosed-recipients:;")
    with offering(hub.sinks["default"], WITHOUT_UTF8):
        message_id = hub.submit("default", "δοκιμή@example.org", content=content, options=("SMTPUTF8",))
        attempt = hub.attempts(message_id, "δοκιμή@example.org")[0]
        report = hub.report(message_id)
    assert b"Status: 5.6.7" in report.content
    assert (attempt["outcome"], attempt["reply"][:9]) == ("failed", "550 5.6.7")
    assert copies_in(hub.sinks["default"]) == []


# what a smarthost cannot take

NESTED = """\
From: default@example.com
To: relayed@example.org
Subject: Nested
Message-ID: <{id}@shop.example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer
Content-Transfer-Encoding: 8bit

--outer
Content-Type: multipart/alternative; boundary=inner
Content-Transfer-Encoding: 8bit

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Die Rechnung ist fällig, liebe Grüße.
--inner
Content-Type: text/html; charset=utf-8

<p>Съешь же ещё этих мягких французских булок</p>
--inner--
--outer
Content-Type: message/rfc822

Subject: the one before
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

Very late, in a caf\u00e9
--outer
Content-Type: application/octet-stream
Content-Transfer-Encoding: binary

octets \u00ff\u00fe
--outer--
"""


def nested() -> bytes:
    text = NESTED.replace("{id}", str(time.monotonic_ns())).replace("\n", "\r\n")
    return text.encode().replace("\u00e9".encode(), b"\xe9").replace("\u00ff\u00fe".encode(), b"\xff\xfe")


def seen(content: bytes) -> list[tuple[str, bytes]]:
    parts = [part for part in message_from_bytes(content).walk() if not part.is_multipart()]
    return [(part.get_content_type(), part.get_payload(decode=True).rstrip()) for part in parts]


@pytest.mark.req("OUT-08", "DKIM-11")
def test_8bit_content_is_converted_part_by_part_before_it_is_signed(hub: Hub) -> None:
    content = nested()
    with offering(hub.sinks["default"], ("PIPELINING", "SIZE 26214400")):
        received = hub.relayed("default", READER, content=content)
    assert received.content.isascii()
    assert [one.partition("=")[0] for one in received.options] == ["SIZE"]
    assert seen(received.content) == seen(content)
    assert hub.verifies(received)


@pytest.mark.req("OUT-08")
def test_8bit_content_is_declared_and_keeps_its_octets_where_that_is_offered(hub: Hub) -> None:
    content = nested()
    received = hub.relayed("default", READER, content=content)
    assert "BODY=8BITMIME" in received.options
    assert received.content.endswith(content.partition(b"\r\n\r\n")[2])
    assert hub.verifies(received)


@pytest.mark.req("OUT-08", "DKIM-11")
def test_promotion_is_converted_with_its_footer_and_its_links(hub: Hub) -> None:
    content = newsletter(READER).replace(b"Hello", "Schöne Grüße".encode())
    content = content.replace(b"charset=utf-8\r\n", b"charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n")
    with offering(hub.sinks["default"], ("PIPELINING",)):
        assert hub.gateway.submit(content, [READER])[""][0] == 250
        received = hub.arrived("default", field_of(content, "Message-ID")[0].decode().split()[1])
    assert received.content.isascii()
    text, html = (octets.decode() for _, octets in seen(received.content))
    link = link_of(received.content)
    assert all("Schöne Grüße" in part and link in part for part in (text, html))
    assert hub.verifies(received)


@pytest.mark.req("OUT-08")
@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("", b"multipart/signed; boundary=b; micalg=x; protocol=x"),
        ("X-Note: caf\u00e9\n", b"text/plain; charset=utf-8"),
    ],
)
def test_what_cannot_be_converted_fails_and_is_never_sent_raw(hub: Hub, header: str, kind: bytes) -> None:
    body = "--b\nContent-Type: text/plain; charset=utf-8\n\nfällig\n--b\n\nseal\n--b--\n"
    content = notice("default", READER, header=header, body=body).replace(b"text/plain; charset=utf-8", kind, 1)
    with offering(hub.sinks["default"], ("PIPELINING",)):
        message_id = hub.submit("default", READER, content=content)
        attempt = hub.attempts(message_id, READER)[0]
        report = hub.report(message_id)
    assert (attempt["outcome"], attempt["reply"][:9]) == ("failed", "554 5.6.3")
    assert report.recipients == ("default@example.com",)
    assert b"Status: 5.6.3" in report.content
    assert copies_in(hub.sinks["default"]) == []


@pytest.mark.req("I18N-02", "DKIM-11")
def test_a_domain_in_the_header_is_written_in_a_labels_before_it_is_signed(hub: Hub) -> None:
    content = notice("default", "Reader <reader@bücher.example>", body="Grüße\n")
    with offering(hub.sinks["default"], WITHOUT_UTF8):
        received = hub.relayed("default", "reader@bücher.example", content=content, options=("SMTPUTF8",))
    assert field_of(received.content, "To") == [b"To: Reader <reader@xn--bcher-kva.example>\r\n"]
    assert "Grüße".encode() in received.content, "without SMTPUTF8 a body may still have eight bits"
    assert hub.verifies(received)


@pytest.mark.req("I18N-02")
def test_a_header_that_needs_utf8_fails_with_a_report(hub: Hub) -> None:
    content = notice("default", READER, header="Comments: Grüße\n")
    with offering(hub.sinks["default"], WITHOUT_UTF8):
        message_id = hub.submit("default", READER, content=content, options=("SMTPUTF8",))
        report = hub.report(message_id)
    assert [one["reply"][:9] for one in hub.attempts(message_id, READER)] == ["550 5.6.7"]
    assert report.recipients == ("default@example.com",)
    assert b"Status: 5.6.7" in report.content


@pytest.mark.req("I18N-02")
def test_a_recipient_who_cannot_be_written_does_not_stop_the_rest(hub: Hub) -> None:
    content = notice("default", "undisclosed-recipients:;")
    with offering(hub.sinks["default"], WITHOUT_UTF8):
        hub.submit("default", "δοκιμή@example.org", READER, content=content, options=("SMTPUTF8",))
        eventually(lambda: (READER,) in [one.recipients for one in hub.sinks["default"].messages])


# connections


@pytest.mark.req("OUT-19")
def test_each_stream_goes_to_the_smarthost_that_it_names(hub: Hub) -> None:
    hub.submit("patient", READER)
    assert hub.gateway.submit(newsletter(READER), [READER])[""][0] == 250
    assert [one.envelope_from for one in hub.sinks["patient"].wait_for(1)] == ["patient@example.com"]
    eventually(lambda: "letters@news.example.com" in [one.envelope_from for one in hub.sinks["default"].messages])


@pytest.mark.req("OUT-19")
def test_a_smarthost_gets_no_more_connections_and_messages_on_each_than_it_allows(hub: Hub) -> None:
    sink = hub.sinks["patient"]
    sink.on("MAIL", delay=0.02)
    before, most = sink.connections, 0
    for _ in range(8):
        hub.submit("patient", READER)
    deadline = time.monotonic() + 20
    while len(sink.messages) < 8 and time.monotonic() < deadline:
        most = max(most, sink.open_connections)
        time.sleep(0.005)
    assert len(sink.messages) == 8
    assert most <= 2
    assert sink.connections - before >= 3, "at most two messages on each connection"


@pytest.mark.req("OUT-19")
def test_a_smarthost_that_allows_fewer_connections_than_there_are_workers_gets_no_more(hub: Hub) -> None:
    """Who has no connection to open leaves what it takes to the worker that has."""
    sink, message = hub.sinks["single"], notice("single", READER)
    with ExitStack() as stack:
        clients = [stack.enter_context(hub.gateway.smtp("all")) for _ in range(12)]
        for client in clients:
            assert transact(client, message, [READER], "single@example.com")[""][0] == 250
    assert {one.connection for one in sink.wait_for(len(clients))} == {1}


@pytest.mark.req("OUT-19")
def test_the_rate_of_a_smarthost_holds_for_all_workers_together(hub: Hub) -> None:
    sink = hub.sinks["throttled"]
    count = int(14 * RATE_SECONDS) + 1
    for _ in range(count):
        hub.submit("throttled", READER)
    times = [one.at for one in sink.wait_for(count, 3 * RATE_SECONDS + 20)]
    assert len({one.connection for one in sink.messages}) >= 2, "both workers took part"
    seconds = times[-1] - times[0]
    assert max_within(times, 1.0) <= 14 + LATE
    assert count <= 14 * seconds + LATE
    assert count >= 7 * seconds, "the rate is used, too"


LATE = 3
"""Copies by which a count at the sink may differ: both ends of a span count, and copies take some time to get there."""


def max_within(times: list[float], seconds: float) -> int:
    """Return how many at most fall within any window of so many seconds."""
    return max(sum(start <= at < start + seconds for at in times) for start in times)


@pytest.mark.req("OUT-19")
def test_the_next_address_takes_over_and_gives_back(hub: Hub) -> None:
    first, second = hub.sinks["first"], hub.sinks["second"]
    hub.relayed("first", READER)
    first.stop()
    hub.submit("first", READER)
    assert len(second.wait_for(1)) == 1
    first.start()
    eventually(lambda: hub.submit("first", READER) and len(first.messages) > 1, 30)


@pytest.mark.req("OUT-19")
@pytest.mark.parametrize("refusal", ["421 4.3.2 going down", "421 going down"])
def test_a_copy_that_the_first_address_turns_away_goes_to_the_next_at_once(hub: Hub, refusal: str) -> None:
    """Each worker has an address rest by itself: at first the copies of both must go to the first one again."""
    first = hub.sinks["first"]
    eventually(lambda: goes_to_the_first(hub) and goes_to_the_first(hub) and goes_to_the_first(hub), 60)
    first.drop_connections()
    first.on("MAIL", refusal)
    before = len(first.commands)
    message_id = hub.submit("first", READER)
    assert hub.arrived("second", message_id)
    assert [one["outcome"] for one in hub.attempts(message_id, READER)] == ["relayed"]
    assert any(one.startswith("MAIL") for one in first.commands[before:]), "the first one was asked"
    first.normal()
    eventually(lambda: hub.submit("first", READER) and len(first.messages) > 1, 30)


def goes_to_the_first(hub: Hub) -> bool:
    message_id = hub.submit("first", READER)
    return hub.settled(message_id, READER) == "relayed" and any(
        holds(one, message_id) for one in hub.sinks["first"].messages
    )


@pytest.mark.req("OUT-20")
def test_a_connection_that_went_stale_between_two_messages_costs_no_attempt(hub: Hub) -> None:
    sink = hub.sinks["default"]
    for n in range(6):
        message_id = hub.submit("default", READER)
        sink.wait_for(n + 1, 5)
        sink.drop_connections()
    assert [attempt["outcome"] for attempt in hub.attempts(message_id, READER)] == ["relayed"]


@pytest.mark.req("OUT-04")
def test_a_copy_whose_answer_is_lost_is_sent_once_more_with_its_message_id_and_counted(hub: Hub) -> None:
    sink, before = hub.sinks["default"], hub.counted("assent_answers_lost_total")
    sink.on("DOT", DROP, times=1)
    content = notice("default", READER)
    without = re.sub(rb"Message-ID: .*\r\n", b"", content)
    with hub.gateway.smtp("all") as client:
        assert client.mail("default@example.com")[0] == client.rcpt(READER)[0] == 250
        code, text = client.data(without)
    assert code == 250
    queued = text.decode().split()[-1]
    eventually(lambda: queued not in [one["message"] for one in hub.gateway.json("queue", "list")])
    assert len(copies_in(sink)) == 2
    assert len({field_of(one.content, "Message-ID")[0] for one in copies_in(sink)}) == 1
    assert hub.counted("assent_answers_lost_total") == before + 1


def copies_in(sink: Sink) -> list[Received]:
    """Return what a sink received that is no report."""
    return [one for one in sink.messages if one.envelope_from]


@pytest.mark.parametrize("offered", [OFFERED, WITHOUT_PIPELINING], ids=["pipelining", "one by one"])
def test_one_refused_recipient_does_not_stop_the_rest(hub: Hub, offered: tuple[str, ...]) -> None:
    sink = hub.sinks["default"]
    sink.on("RCPT", "451 4.2.1 later", containing="later@", times=1)
    sink.on("RCPT", "550 5.1.1 unknown", containing="never@")
    with offering(sink, offered):
        message_id = hub.submit("default", "now@example.org", "later@example.org", "never@example.org")
        eventually(lambda: len(copies_in(sink)) == 2)
    assert [one.recipients for one in copies_in(sink)] == [("now@example.org",), ("later@example.org",)]
    assert hub.report(message_id).recipients == ("default@example.com",)


@pytest.mark.req("OUT-03")
@pytest.mark.parametrize("refusal", ["452 4.5.3 too many recipients", "452 enough", "552 5.5.3 too many recipients"])
def test_recipients_beyond_the_smarthosts_limit_go_in_the_next_transactions(hub: Hub, refusal: str) -> None:
    sink, people = hub.sinks["default"], [f"reader{n}@example.org" for n in range(7)]
    sink.on("RCPT", refusal, skip=3, times=4)
    message_id = hub.submit("default", *people)
    copies = eventually(lambda: len(copies_in(sink)) == 3 and copies_in(sink))
    assert sorted(len(one.recipients) for one in copies) == [1, 3, 3]
    assert sorted(to for one in copies for to in one.recipients) == people
    for recipient in people:
        assert [one["outcome"] for one in hub.attempts(message_id, recipient)] == ["relayed"]


@pytest.mark.req("OUT-03")
def test_a_full_mailbox_beside_others_is_an_attempt(hub: Hub) -> None:
    sink = hub.sinks["default"]
    sink.on("RCPT", "452 4.2.2 over quota", containing="full@", times=1)
    message_id = hub.submit("default", "full@example.org", "open@example.org")
    eventually(lambda: hub.settled(message_id, "full@example.org"))
    assert [one["outcome"] for one in hub.attempts(message_id, "full@example.org")] == ["deferred", "relayed"]


# next hops that are not SMTP


def test_an_lmtp_server_answers_for_each_recipient(hub: Hub) -> None:
    sink = hub.sinks["lmtp"]
    sink.on("DOT", "452 4.2.2 over quota", containing="full@", times=1)
    sink.on("DOT", "550 5.2.1 closed", containing="closed@")
    people = ["open@example.org", "full@example.org", "closed@example.org"]
    message_id = hub.submit("lmtp", *people)
    eventually(lambda: len(copies_in(sink)) == 2)
    first, again = copies_in(sink)
    assert (first.recipients, again.recipients) == (tuple(people), ("full@example.org",))
    outcomes = [eventually(lambda one=one: hub.settled(message_id, one)) for one in people]
    assert outcomes == ["relayed", "relayed", "failed"]
    assert first.helo == "relay.example.com"


def test_a_maildir_keeps_each_recipients_copy(hub: Hub) -> None:
    hub.submit("folder", "a@example.org", "b@example.org")
    box = mailbox.Maildir(hub.folder / "outbox", create=False)
    eventually(lambda: len(box) == 2)
    assert sorted(one["Delivered-To"] for one in box) == ["a@example.org", "b@example.org"]
    assert {one["Return-Path"] for one in box} == {"<folder@example.com>"}
    assert all(one["DKIM-Signature"] for one in box)


@pytest.mark.req("OUT-03")
def test_a_maildir_that_was_cleared_away_or_is_in_the_way_is_made_anew(hub: Hub) -> None:
    outbox, before = hub.folder / "outbox", hub.submit("folder", "before@example.org")
    eventually(lambda: hub.settled(before, "before@example.org"))
    shutil.rmtree(outbox)
    outbox.write_text("something else")
    message_id = hub.submit("folder", "after@example.org")
    reply = hub.attempts(message_id, "after@example.org")[0]["reply"]
    assert reply.startswith(("452 4.3.1 the maildir could not", "451 4.4.1 maildir:")), "by whether it was open already"
    outbox.unlink()
    hub.gateway.run("queue", "retry", "--stream", "folder")
    eventually(lambda: hub.settled(message_id, "after@example.org") == "relayed")
    assert len(mailbox.Maildir(outbox, create=False)) == 1
