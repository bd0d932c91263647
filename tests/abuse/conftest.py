"""What tests of abuse share: one gateway with a single worker, so that whoever is abused is also who is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.abuse.footprint import MIB, Footprint
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

READERS = [f"abuse-reader{n}@example.org" for n in range(4)]
"""People who have opted in to the newsletter."""

STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    return_paths = ["*@bounces.news.example.com"]
    brake = "none"
    [streams.offers]
    class = "promotional"
    topics = ["special-offers"]
    from = ["*@news.example.com"]
    brake = "none"
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    [streams.receipts]
    class = "account"
    from = ["*@news.example.com"]
    """
"""Three streams of one From domain, so that a message's labels choose; who abuses must not pause a stream by it."""

MAX_SIZE = 25 * MIB
"""As configured where nobody configures it; large enough for a copy too many to show."""


@pytest.fixture(scope="package")
def abused(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("abused") / "house", shared_sink.url).prepare()
    running.write_config(
        submission=f"""
            [submission]
            listen = ["127.0.0.1:{running.submission}"]
            listen_tls = ["127.0.0.1:{running.submission_tls}"]
            tls_certificate = "server.pem"
            tls_key = "server.key"
            max_message_size = "{MAX_SIZE}B"
            """,
        streams=STREAMS,
    )
    running.add_login("receipts", "receipts")
    running.add_login("office", "newsletter,offers,receipts")
    running.opt_in(*READERS)
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="package")
def spent(abused: Gateway, shared_sink: Sink) -> Footprint:
    """What `abused` spends within a `with` block."""
    warm_up(abused, shared_sink)
    return Footprint(abused)


def connect(gateway: Gateway, login: str = "", source: str = "") -> RawSmtp:
    """Connect to the submission port and say EHLO; log in where a login is named."""
    client = RawSmtp(gateway.submission, source=source)
    client.ehlo()
    if login:
        assert client.login(login, gateway.passwords[login]).code == 235
    return client


def warm_up(gateway: Gateway, sink: Sink) -> None:
    """Let everything happen often enough that caches are full, so that they are not held against whoever comes next."""
    crowd = [f"crowd{n}@example.org" for n in range(1000)]
    for _ in range(3):
        gateway.submit(newsletter(READERS[3]), [READERS[3]])
        gateway.submit(invoice(), crowd, login="shop", sender="billing@example.com")
    sink.wait_for(6)
    eventually(lambda: gateway.json("queue", "list") == [])
    sink.clear()
