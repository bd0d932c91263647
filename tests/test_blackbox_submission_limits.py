"""What the submission port bears with, and where it says enough: loops, sizes, parameters, time, connections, rates.

The program is a separate process; clients are raw sockets, the judge is a strict sink.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, fetch, field_of, invoice
from tests.raw_smtp import RawSmtp
from tests.sink import Sink
from tests.test_blackbox_smtp import connect, refused_in_one_sentence, submission, tls

BILLING = "billing@example.com"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tight(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two workers that bears with little; tests come to it from addresses of their own."""
    running = Gateway(tmp_path_factory.mktemp("tight") / "house", shared_sink.url, workers=2).prepare()
    bears = {
        "timeout": '"2s"',
        "connections_per_address": "6",
        "connection_rate": '"30/h"',
        "message_rate": '"20/h"',
    }
    running.write_config(submission=submission(running, "".join(f"{key} = {value}\n" for key, value in bears.items())))
    yield running.start()
    running.close()


# parameters


@pytest.mark.req("SMTP-13")
def test_a_parameter_that_is_not_known_is_refused_and_those_of_dsn_reach_the_smarthost(
    gateway: Gateway, sink: Sink
) -> None:
    asked = "ORCPT=rfc822;Reports+2Bx@Example.ORG"
    with connect(gateway, "shop") as client:
        for unknown in ("COLOUR=blue", "MT-PRIORITY=3", "BY=120;R", "HOLDFOR=60", "X", "=", "NOTIFY=NEVER"):
            assert refused_in_one_sentence(client.say(f"MAIL FROM:<{BILLING}> {unknown}"), 555, "5.5.4"), unknown
        assert client.say(f"MAIL FROM:<{BILLING}> RET=HDRS ENVID=a+2Bb AUTH=<>").code == 250
        for unknown in ("COLOUR=blue", "RET=HDRS", "SIZE=10"):
            assert refused_in_one_sentence(client.say(f"RCPT TO:<a@example.org> {unknown}"), 555, "5.5.4"), unknown
        assert client.say(f"RCPT TO:<reports@example.org> NOTIFY=FAILURE,DELAY {asked}", "DATA").code == 354
        client.send(invoice() + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert {"RET=HDRS", "ENVID=a+2Bb"} <= set(message.options)
    assert set(message.recipient_options[0]) == {"NOTIFY=FAILURE,DELAY", asked}


@pytest.mark.req("SMTP-13", "I18N-06")
def test_an_internationalised_original_recipient_may_be_written_as_mail_servers_write_it(
    gateway: Gateway, sink: Sink
) -> None:
    """Postfix gives a recipient beyond ASCII an ORCPT of type rfc822, UTF-8 octet by octet in xtext (RFC 3461 §4)."""
    asked = "ORCPT=rfc822;+CE+B4+CE+BF+CE+BA@b+C3+BCcher.example"
    with connect(gateway, "shop") as client:
        assert (
            client.say(f"MAIL FROM:<{BILLING}> SMTPUTF8", f"RCPT TO:<δοκ@bücher.example> {asked}", "DATA").code == 354
        )
        client.send(invoice() + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    assert message.recipient_options == ((asked,),)


@pytest.mark.req("SMTP-13")
@pytest.mark.parametrize(
    "parameters",
    [
        "ENVID=a+0D+0AX-Injected:+20yes",
        "ENVID=a=b",
        f"ENVID={'x' * 101}",
        "RET=HDRS RET=FULL",
        "RET=SOME",
        "AUTH=nobody",
    ],
)
def test_what_mail_asks_about_reports_is_read_strictly(gateway: Gateway, sink: Sink, parameters: str) -> None:
    with connect(gateway, "shop") as client:
        assert refused_in_one_sentence(client.say(f"MAIL FROM:<{BILLING}> {parameters}"), 501, "5.5.4")
        assert client.transact(invoice(), ["strict@example.org"], BILLING).code == 250
    assert len(sink.wait_for(1)) == 1


@pytest.mark.req("SMTP-13")
@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY=NEVER,FAILURE",
        "NOTIFY=FAILURE,failure",
        "NOTIFY=",
        "ORCPT=strict@example.org",
        "ORCPT=rfc822;a+0Ab@example.org",
        r"ORCPT=utf-8;a\x{0A}b@example.org",
    ],
)
def test_what_rcpt_asks_about_reports_is_read_strictly(gateway: Gateway, sink: Sink, parameters: str) -> None:
    with connect(gateway, "shop") as client:
        assert client.say(f"MAIL FROM:<{BILLING}>").code == 250
        assert refused_in_one_sentence(client.say(f"RCPT TO:<strict@example.org> {parameters}"), 501, "5.5.4")
        client.say("RSET")
        assert client.transact(invoice(), ["strict@example.org"], BILLING).code == 250
    assert len(sink.wait_for(1)) == 1


@pytest.mark.req("SMTP-14")
def test_chunking_is_neither_offered_nor_taken(gateway: Gateway, sink: Sink) -> None:
    with connect(gateway, "shop") as client:
        assert not {"CHUNKING", "BINARYMIME"} & client.ehlo()
        assert client.say(f"MAIL FROM:<{BILLING}> BODY=BINARYMIME").code == 501
        assert client.say(f"MAIL FROM:<{BILLING}>", "RCPT TO:<chunk@example.org>").code == 250
        assert refused_in_one_sentence(client.say("BDAT 0 LAST"), 502, "5.5.1")
        client.say("RSET")
        assert client.transact(invoice(), ["chunk@example.org"], BILLING).code == 250
    (message,) = sink.wait_for(1)
    assert message.content.endswith(b"The amount is 10.00.\r\n")


# lengths


@pytest.mark.req("SMTP-27")
def test_lines_paths_local_parts_and_domains_may_be_as_long_as_the_standard_says(gateway: Gateway, sink: Sink) -> None:
    """Octets of a line count with its CRLF, those of a path with its brackets (RFC 5321 §4.5.3.1)."""
    domain = ".".join(["d" * 61] * 3)
    longest = f"{'x' * 64}@{domain}.{'e' * (254 - 65 - len(domain) - 1)}"
    with connect(gateway, "shop") as client:
        for length, code in ((512, 250), (513, 500)):
            assert client.say("NOOP " + "x" * (length - 7)).code == code
        assert (
            client.say(f"MAIL FROM:<{BILLING}> ENVID={'x' * 100} RET=FULL SIZE=1000 BODY=8BITMIME AUTH=<>").code == 250
        )
        for path, code in (
            (longest, 250),
            (f"{longest}e", 553),
            (f"{'x' * 64}@example.org", 250),
            (f"{'x' * 65}@example.org", 553),
            (f"x@{'d' * 63}.example.org", 250),
            (f"x@{'d' * 64}.example.org", 553),
        ):
            assert client.say(f"RCPT TO:<{path}>").code == code, path
        orcpt = f"RCPT TO:<orcpt@example.org> ORCPT=rfc822;{'x' * 470}"
        assert client.say(orcpt).code == 250
        assert client.say(f"RCPT TO:<orcpt@example.org> ORCPT=rfc822;{'x' * 1000}").code == 500
    assert sink.messages == []


@pytest.mark.req("I18N-07")
@pytest.mark.parametrize(("octets", "lines"), [(998, 1), (1000, 2)])
def test_a_header_line_is_as_long_as_its_octets_and_not_its_characters(
    gateway: Gateway, sink: Sink, octets: int, lines: int
) -> None:
    """Of two octets a letter, 1,000 octets are some 500 characters; only the octets count (RFC 6532 §3.4)."""
    subject = ("ü" * 200 + " ") * 2
    subject += "ü" * ((octets - len(f"Subject: {subject}".encode())) // 2)
    content = invoice().replace(b"Subject: Your invoice 4711", f"Subject: {subject}".encode())
    with connect(gateway, "shop") as client:
        assert client.say(f"MAIL FROM:<{BILLING}> SMTPUTF8", "RCPT TO:<octets@example.org>", "DATA").code == 354
        client.send(content + b".\r\n")
        assert client.reply().code == 250
    (message,) = sink.wait_for(1)
    (field,) = field_of(message.content, "Subject")
    assert field.replace(b"\r\n", b"").decode() == f"Subject: {subject}"
    assert field.count(b"\r\n") == lines
    assert max(map(len, field.split(b"\r\n"))) <= 998


# who is there, and under which name


@pytest.mark.req("SMTP-29")
def test_vrfy_and_expn_tell_nobody_who_is_known(gateway: Gateway) -> None:
    gateway.opt_in("known@example.org")
    told = {}
    for login in ("", "shop"):
        with connect(gateway, login) as client:
            for name in ("known@example.org", "unknown@example.org", "news", "billing"):
                told[login, name] = [str(client.say(f"{verb} {name}")) for verb in ("VRFY", "EXPN")]
    (same,) = set(map(tuple, told.values()))
    assert [line[:9] for line in same] == ["252 2.0.0", "502 5.5.1"]


@pytest.mark.req("I18N-03")
def test_our_own_name_is_ascii_wherever_we_say_it(make_gateway: MakeGateway, sink: Sink) -> None:
    house = make_gateway({"top": 'hostname = "relay.bücher.example"\nworkers = 1\n'}).start()
    name = "relay.xn--bcher-kva.example"
    with connect(house, "shop") as client:
        assert client.greeting.text.startswith(f"{name} ")
        assert client.say("EHLO tool.example.net").lines[0] == name
        assert client.transact(invoice(), ["name@example.org"], BILLING).code == 250
        assert refused_in_one_sentence(client.say("EHLO tööl.example.net"), 501, "5.5.4")
        assert name in client.say("QUIT").text
    (message,) = sink.wait_for(1)
    assert message.helo == name
    assert f"by {name} ".encode() in field_of(message.content, "Received")[0]


@pytest.mark.req("SMTP-02")
def test_465_is_tls_at_once_587_needs_starttls_and_25_is_nobodys(make_gateway: MakeGateway, sink: Sink) -> None:
    if os.geteuid() != 0:
        pytest.skip("ports below 1024 need root")
    host = f"127.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}"
    house = make_gateway()
    ports = (
        f'listen = ["{host}:587", "127.0.0.1:{house.submission}"]\nlisten_tls = ["{host}:465"]\nplaintext_from = []\n'
    )
    house.write_config(submission=f'[submission]\n{ports}tls_certificate = "server.pem"\ntls_key = "server.key"\n')
    house.start()
    with RawSmtp(465, host, tls=tls(house)) as client:
        assert "AUTH" in client.ehlo() and "STARTTLS" not in client.ehlo()
        assert client.login("shop", house.passwords["shop"]).code == 235
    with RawSmtp(587, host) as client:
        assert "AUTH" not in client.ehlo()
        assert refused_in_one_sentence(client.login("shop", house.passwords["shop"]), 538, "5.7.11")
        assert client.say("STARTTLS").code == 220
        client.start_tls(tls(house))
        client.ehlo()
        assert client.login("shop", house.passwords["shop"]).code == 235
        assert client.transact(invoice(), ["ports@example.org"], BILLING).code == 250
    with pytest.raises(ConnectionRefusedError):
        RawSmtp(25, host)
    assert len(sink.wait_for(1)) == 1


# guesses


def say_from(gateway: Gateway, source: str, name: str, password: str) -> list[int]:
    """Try to log in three times on one connection from this address; return the codes."""
    with connect(gateway, source=source) as client:
        codes = [client.login(name, password).code for _ in range(3)]
        assert client.reply().code == 421
        assert client.is_closed()
    return codes


@pytest.mark.req("SMTP-28")
def test_who_guesses_is_refused_unheard_and_nobody_else_is(tight: Gateway, sink: Sink) -> None:
    """What is right does not help where too much was wrong; wherever the login has been in, it still gets in (S13)."""
    guesser, tool, elsewhere = "127.0.1.1", "127.0.1.2", "127.0.1.3"
    with connect(tight, "news", source=guesser), connect(tight, "shop", source=tool):
        pass
    codes = [code for _ in range(6) for code in say_from(tight, guesser, "shop", "wrong")]
    assert codes[:9] == [535] * 9 and set(codes[12:]) == {454}
    assert say_from(tight, guesser, "shop", tight.passwords["shop"]) == [454] * 3
    codes = [code for _ in range(6) for code in say_from(tight, tool, "news", "wrong")]
    assert set(codes[12:]) == {454}
    for source, login in ((tool, "shop"), (guesser, "news"), (elsewhere, "shop"), (elsewhere, "news")):
        with connect(tight, login, source=source):
            pass


# how many, how fast, how long


@pytest.mark.req("SMTP-28")
def test_an_address_has_so_many_connections_over_all_workers(tight: Gateway, sink: Sink) -> None:
    with ExitStack() as open_ones:
        for _ in range(6):
            open_ones.enter_context(connect(tight, source="127.0.2.1"))
        for _ in range(5):
            with RawSmtp(tight.submission, source="127.0.2.1") as client:
                assert refused_in_one_sentence(client.greeting, 421, "4.7.0")
                assert client.is_closed()
        with connect(tight, "shop", source="127.0.2.2") as client:
            assert client.transact(invoice(), ["cap@example.org"], BILLING).code == 250
    sink.wait_for(1)
    eventually(lambda: RawSmtp(tight.submission, source="127.0.2.1").greeting.code == 220)


@pytest.mark.req("SMTP-28")
def test_an_address_opens_so_many_connections_an_hour(tight: Gateway, sink: Sink) -> None:
    heard = []
    for _ in range(35):
        with RawSmtp(tight.submission, source="127.0.3.1") as client:
            heard.append(client.greeting)
    assert {said.code for said in heard[:28]} == {220}
    assert all(refused_in_one_sentence(said, 421, "4.7.0") for said in heard[32:])
    with connect(tight, "shop", source="127.0.3.2") as client:
        assert client.transact(invoice(), ["pace@example.org"], BILLING).code == 250
    sink.wait_for(1)


@pytest.mark.req("SMTP-28")
def test_a_login_begins_so_many_messages_an_hour(tight: Gateway, sink: Sink) -> None:
    tight.add_login("fast", "billing")
    heard = []
    for _ in range(4):
        with connect(tight, "fast", source="127.0.4.1") as client:
            for _ in range(6):
                heard.append(client.say(f"MAIL FROM:<{BILLING}>"))
                client.say("RSET")
    assert [said.code for said in heard[:20]] == [250] * 20
    assert all(refused_in_one_sentence(said, 450, "4.7.0") for said in heard[22:])
    with connect(tight, "fast", source="127.0.4.2") as client:
        assert client.say(f"MAIL FROM:<{BILLING}>").code == 450, "wherever it comes from"
    with connect(tight, "shop", source="127.0.4.1") as client:
        assert client.transact(invoice(), ["pace@example.org"], BILLING).code == 250
    assert len(sink.wait_for(1)) == 1


@pytest.mark.req("SMTP-28")
def test_who_says_nothing_for_too_long_is_sent_away(gateway: Gateway, tight: Gateway) -> None:
    """Where two seconds are set all of them are; where nothing is set, and five minutes are the rule, none is."""
    with ExitStack() as open_ones:
        patient = open_ones.enter_context(connect(gateway))
        after_ehlo = open_ones.enter_context(connect(tight, source="127.0.5.1"))
        silent, half_a_line = (open_ones.enter_context(RawSmtp(tight.submission, source="127.0.5.1")) for _ in range(2))
        half_a_line.send(b"EHLO tool")
        for client in (half_a_line, silent, after_ehlo):
            assert refused_in_one_sentence(client.reply(), 421, "4.4.2")
            assert client.is_closed()
        assert patient.say("NOOP").code == 250
    reference = (ROOT / "docs" / "configuration.md").read_text()
    assert re.search(r"`timeout` \|.*\| `\"5m\"` \|", reference)


# mail loops


def hops(count: int, by: str = "mx.example.net") -> bytes:
    """Return the trace of a message that has passed so many hosts."""
    field = "Received: from a.example.net ([192.0.2.1])\r\n\tby {} with ESMTP id {:013};\r\n\t{}\r\n"
    return "".join(field.format(by, n, "Sun, 22 Nov 2026 10:00:00 +0000") for n in range(count)).encode()


@pytest.mark.req("SMTP-17", "SMTP-16")
def test_a_message_with_more_than_fifty_received_fields_goes_in_circles(gateway: Gateway, sink: Sink) -> None:
    with connect(gateway, "shop") as client:
        said = client.transact(hops(51) + invoice(), ["loop@example.org"], BILLING)
        assert refused_in_one_sentence(said, 554, "5.4.6")
        assert client.transact(hops(50) + invoice(), ["loop@example.org"], BILLING).code == 250
    (message,) = sink.wait_for(1)
    assert hops(50) in message.content, "the trace that was there is as it was"
    assert len(field_of(message.content, "Received")) == 51


@pytest.mark.req("SMTP-17", "SMTP-16")
@pytest.mark.parametrize(
    ("trace", "why"),
    [
        (hops(51), "the message has 51 Received fields, and 50 are borne with"),
        (hops(3, "relay.example.com"), "the message has been here 3 times already"),
    ],
)
def test_a_loop_names_its_decision_and_explain_says_why(gateway: Gateway, trace: bytes, why: str) -> None:
    with connect(gateway, "shop") as client:
        said = client.transact(trace + invoice(), ["loop@example.org"], BILLING)
    decision = re.fullmatch(rf"5\.4\.6 mail-loop: {why} \(decision (\w{{26}}), see \S+\)", said.text)
    assert said.code == 554 and decision, said
    (line,) = gateway.json("explain", decision[1])
    assert (line["kind"], line["action"], line["reason"], line["sentence"]) == ("door", "refuse", "mail-loop", why)


@pytest.mark.req("SMTP-17")
def test_what_has_been_here_three_times_is_known_again(gateway: Gateway, sink: Sink) -> None:
    ours, others = "relay.example.com", "xrelay.example.com.example.net"
    with connect(gateway, "shop") as client:
        for trace, code in (
            (hops(3, ours), 554),
            (hops(2, ours), 250),
            (hops(20, others), 250),
            (hops(5, others) + hops(3, ours), 554),
        ):
            assert client.transact(trace + invoice(), ["loop@example.org"], BILLING).code == code
    assert len(sink.wait_for(2)) == 2


@pytest.mark.req("SMTP-17")
def test_a_gateway_whose_smarthost_is_itself_stops_and_leaves_nothing_behind(make_gateway: MakeGateway) -> None:
    house = make_gateway()
    own = f'[smarthosts.default]\nurls = ["smtp://127.0.0.1:{house.submission}"]\nretry = ["1s"]\n'
    house.write_config(smarthosts=own)
    house.add_login("loop", "billing", "--network", "127.0.0.0/8")
    house.start()
    with connect(house, "shop") as client:
        assert client.transact(invoice("round@example.org"), ["round@example.org"], BILLING).code == 250
    eventually(lambda: counter(house, 'assent_attempts_total{outcome="failed"}') == 2)
    assert house.json("queue", "list") == [], "the message and the one report about it, which nobody reports on"
    assert counter(house, "assent_messages_accepted_total") == 3


def counter(house: Gateway, series: str) -> int:
    """Return what the console's metrics say, 0 for what has not happened."""
    text = fetch(f"http://127.0.0.1:{house.console}/metrics").text
    return next((int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{series} ")), 0)
