"""What the tests of the queue have in common: an impatient gateway with all kinds of mail, and how they talk to it."""

from __future__ import annotations

from pathlib import Path

from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice
from tests.reports import Report, is_report, read_report
from tests.sink import Sink

LETTERS = "letters@news.example.com"
BILLING = "billing@example.com"
STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    [streams.alarm]
    class = "breach-notice"
    from = ["security@example.com"]
    [streams.robot]
    class = "system"
    from = ["robot@example.com"]
"""


def impatient(folder: Path, sink: Sink, *more: str) -> Gateway:
    """Return a gateway of one worker that tries again after seconds, prepared, with a login for each kind of mail.

    `more` are lines of its smarthost's configuration.
    """
    lines = [f'urls = ["{sink.url}"]', 'retry = ["1s", "1s", "2s"]', 'warn_after = "2s"', *more]
    smarthosts = "\n".join(["[smarthosts.default]", *lines])
    made = Gateway(folder, sink.url, sections={"smarthosts": smarthosts, "streams": STREAMS}).prepare()
    for name, streams in {"alarm": "alarm", "robot": "robot", "both": "newsletter,billing"}.items():
        made.add_login(name, streams)
    return made


def at(domain: str, count: int) -> list[str]:
    return [f"reader{n}@{domain}" for n in range(count)]


def readers() -> list[str]:
    return at("example.org", 100)


def settled(gateway: Gateway, seconds: float = 60) -> None:
    """Wait until nothing waits any more."""
    eventually(lambda: gateway.json("queue", "list") == [], seconds)


def tell(
    gateway: Gateway,
    recipients: dict[str, str],
    *,
    message: bytes = b"",
    options: str = "",
    login: str = "shop",
    sender: str = "billing@example.com",
) -> str:
    """Submit one message with DSN parameters for each recipient; return the id under which it was queued."""
    with gateway.smtp(login) as client:
        client.command_encoding = "utf-8"
        assert client.docmd(f"MAIL FROM:<{sender}> {options}".strip())[0] == 250
        for recipient, asked in recipients.items():
            code, text = client.docmd(f"RCPT TO:<{recipient}> {asked}".strip())
            assert code == 250, text
        code, text = client.data(message or invoice(next(iter(recipients))))
        assert code == 250, text
        return text.decode().split()[-1]


def reports(sink: Sink) -> list[Report]:
    """Return every report that was taken; each came from the null sender, for one recipient."""
    found = [one for one in sink.messages if is_report(one.content)]
    assert all(one.envelope_from == "" and len(one.recipients) == 1 for one in found)
    return [read_report(one.content) for one in found]


def the_report(gateway: Gateway, sink: Sink, *, to: str = "billing@example.com") -> Report:
    """Return the one report, once nothing waits any more."""
    settled(gateway)
    (found,) = [one for one in sink.messages if is_report(one.content)]
    assert found.recipients == (to,)
    return reports(sink)[0]
