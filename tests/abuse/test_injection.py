"""Text of strangers in the header that we write: however it is made, the header has the fields that were foreseen.

Every character that some reader takes for the end of a line is tried, wherever a stranger's or the operator's text
could reach a field: HELO, reverse path, recipient, display names, subject, control fields, names in the configuration.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.abuse import size
from tests.abuse.conftest import READERS
from tests.gateway_under_test import Gateway
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

LINE_ENDS = ["\r", "\n", "\r\n", "\0", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u2028", "\u2029"]
"""What str.splitlines, HTML and mail programs end a line at."""

EVIL = st.lists(
    st.sampled_from([*LINE_ENDS, "Bcc: x@example.org", "X-Evil: 1", "a", " ", ".", ":", "\t", "ü"]), max_size=4
)
FIELD = re.compile(r"([!-9;-~]+)[ \t]*:")
TEXTS = EVIL.map("".join)
LISTED = {"promotional": ["list-unsubscribe", "list-unsubscribe-post", "list-id"], "account": list[str]()}


@pytest.mark.req("HDR-01", "DKIM-10")
@settings(
    max_examples=size(300, 100_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from(["promotional", "account"]))
def test_the_header_has_the_fields_that_were_foreseen_and_no_other(
    abused: Gateway, sink: Sink, helo: str, local: str, name: str, subject: str, kind: str
) -> None:
    sink.clear()
    login = {"promotional": "news", "account": "receipts"}[kind]
    recipient = READERS[0] if kind == "promotional" else f'"a{local}"@example.org'
    header = [
        f"From: {name} <letters@news.example.com>\r\n",
        f"To: {name} <{READERS[0]}>\r\n",
        f"Subject: {subject}\r\n",
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n",
        "Message-ID: <a@tool.example.net>\r\n",
    ]
    with RawSmtp(abused.submission) as client:
        client.ehlo()
        assert client.login(login, abused.passwords[login]).code == 235
        say_and_forget(client, f"EHLO a{helo}")
        say_and_forget(client, f"MAIL FROM:<a{local}@news.example.com> SMTPUTF8")
        client.send(
            f"MAIL FROM:<letters@news.example.com> SMTPUTF8\r\nRCPT TO:<{recipient}>\r\nNOOP\r\nDATA\r\n".encode()
        )
        while not (said := client.reply()).text.startswith("2.0.0 ok"):
            pass
        if client.reply().code != 354:
            return
        stuffed = "".join(header).replace("\r\n.", "\r\n..")
        client.send(f"{stuffed}\r\nHello\r\n.\r\n".encode())
        said = client.reply()
    for message in sink.wait_for(1) if said.code == 250 else []:
        kept = [one for one in fields("".join(header)) if one != "bcc"]
        added = [one for one in ("message-id", "date") if one not in kept]
        content = message.content.decode()
        assert fields(content) == ["dkim-signature", "received", *LISTED[kind], *added, *kept]
        ours = content.partition("\r\nFrom:")[0]
        assert ours.splitlines() == ours.split("\r\n"), "no other line end in the lines that are ours"
    assert sink.faults == []


def say_and_forget(client: RawSmtp, line: str) -> None:
    """Say something that may be several lines to the gateway, and undo whatever it began."""
    client.send(f"{line}\r\nRSET\r\n".encode())
    while not client.reply().text.startswith("2.0.0 ok"):
        pass


def fields(content: str) -> list[str]:
    """Return the names of the header fields as RFC 5322 counts them; what is none ends the header (decision 23)."""
    lines = [line for line in content.split("\r\n") if line[:1] not in (" ", "\t")]
    return [match[1].lower() for match in takewhile(bool, map(FIELD.match, lines)) if match]


@pytest.mark.req("OPS-05")
def test_a_name_that_would_end_a_line_cannot_be_configured(tmp_path: Path) -> None:
    house = Gateway(tmp_path, "smtp://127.0.0.1:1")
    escaped = ["".join(f"\\u{ord(one):04x}" for one in end) for end in LINE_ENDS]
    topics = "".join(f'[topics.topic-{n}]\nname = "News{end}X-Evil: 1"\n' for n, end in enumerate(escaped))
    house.write_config(topics=topics)
    done = house.run("migrate", check=False)
    assert done.returncode == 78
    assert set(re.findall(r"topics\.(topic-\d+)\.name: .* is not a line of text", done.stderr)) == {
        f"topic-{n}" for n in range(len(LINE_ENDS))
    }
