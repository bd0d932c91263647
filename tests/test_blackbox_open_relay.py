"""Nobody relays through us who has not logged in: fifty ways to spell it, at both ports that take mail (S14).

The syntaxes are those of the relay testers that there have been: source routes, percent and bang paths, quoted
addresses, brackets that do not match, our domains around foreign addresses, and reverse paths that look like our own.
"""

from __future__ import annotations

import pytest

from tests.gateway_under_test import Gateway
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

HOST, OURS, FEEDBACK = "relay.example.com", "news.example.com", "bounce.example.com"
VICTIM = "victim@example.org"
REVERSE_PATHS = ["", "spam@example.net", f"letters@{OURS}", f"postmaster@{HOST}", f"unsubscribe@{FEEDBACK}", "spam"]
FORWARD_PATHS = [
    *(f"<{VICTIM}>", VICTIM, f" <{VICTIM}>", f"<{VICTIM.upper()}>", f"<{VICTIM}.>", f'<"{VICTIM}">', f'"<{VICTIM}>"'),
    *(f"<{VICTIM}>>", f"<<{VICTIM}>>", f"<{VICTIM}", f"{VICTIM}>", f"<{VICTIM}>,<x@{FEEDBACK}>", f"<{VICTIM} >"),
    *(f"<(x){VICTIM}>", f"<{VICTIM}(x)>", f"Victim <{VICTIM}>", "<victim@[127.0.0.1]>", "<victim@localhost>"),
    *("<victim>", "<victim@>", "<@example.org>", "<>", "<victim@@example.org>", "<victim@example.org@>"),
    *(f"<{VICTIM}@{host}>" for host in (HOST, OURS, FEEDBACK, "[127.0.0.1]", "localhost")),
    *(f'<"{VICTIM}"@{host}>' for host in (HOST, OURS, FEEDBACK, "[127.0.0.1]")),
    *(f"<victim%example.org@{host}>" for host in (HOST, OURS, FEEDBACK, "[127.0.0.1]")),
    *(f'<"victim%example.org"@{host}>' for host in (OURS, FEEDBACK)),
    *(f"<@{host}:{VICTIM}>" for host in (HOST, OURS, FEEDBACK, "[127.0.0.1]", "localhost")),
    *(f"<@{FEEDBACK},@{HOST}:{VICTIM}>", f"<{FEEDBACK}:{VICTIM}>", f"<@{FEEDBACK}:victim%example.org@{FEEDBACK}>"),
    *("<example.org!victim>", f"<example.org!victim@{HOST}>", f"<example.org!victim@{FEEDBACK}>"),
    *(
        f"<{FEEDBACK}!example.org!victim>",
        f"<unsubscribe%example.org@{FEEDBACK}>",
        f"<unsubscribe@{FEEDBACK}.example.org>",
    ),
    *(f"<unsubscribe@{FEEDBACK}@example.org>", f"<unsubscribe@x{FEEDBACK}>", f"<unsubscribe+{VICTIM}@{FEEDBACK}>"),
]


def submits(port: int, reverse_path: str, forward_path: str) -> list[int]:
    """Try to send one mail, pipelined and heedless of replies; return the codes that came back."""
    lines = ["EHLO relay.example.net", f"MAIL FROM:<{reverse_path}>", f"RCPT TO:{forward_path}", "DATA"]
    text = f"From: spam@example.net\r\nTo: {VICTIM}\r\nSubject: relayed\r\n\r\nrelayed\r\n.\r\nQUIT\r\n"
    with RawSmtp(port) as client:
        client.send(("\r\n".join(lines) + "\r\n" + text).encode())
        codes = [int(line[:3]) for line in client.rest()[1:] if line[3] == " "]
    return codes[1:-1]


@pytest.mark.req("SMTP-26")
def test_without_a_login_no_spelling_of_an_address_is_relayed(gateway: Gateway, sink: Sink) -> None:
    assert len(FORWARD_PATHS) >= 50 and len(set(FORWARD_PATHS)) == len(FORWARD_PATHS)
    for forward_path in FORWARD_PATHS:
        for port, mail in ((gateway.submission, 530), (gateway.feedback, 250)):
            codes = submits(port, "spam@example.net", forward_path)
            assert codes[0] == mail
            assert min(codes[1:]) >= 500, (forward_path, codes)
    assert gateway.json("queue", "list") == [] and sink.messages == [] and sink.refused == []


@pytest.mark.req("SMTP-26")
def test_without_a_login_no_reverse_path_opens_the_relay(gateway: Gateway, sink: Sink) -> None:
    for reverse_path in REVERSE_PATHS:
        for port in (gateway.submission, gateway.feedback):
            codes = submits(port, reverse_path, f"<{VICTIM}>")
            assert min(codes[1:]) >= 500, (reverse_path, codes)
    assert gateway.json("queue", "list") == [] and sink.messages == []
