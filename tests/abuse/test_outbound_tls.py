"""A smarthost, or somebody in between, who would have our mail in the clear: whatever they say, none of it goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway_under_test import Gateway, eventually, invoice
from tests.sink import DROP, Sink, make_certificate

WITHOUT_TLS = {
    "the offer is stripped": ("EHLO", b"250-sink.example.com\r\n250 SIZE 26214400\r\n"),
    "replies are staged behind the 220": ("STARTTLS", b"220 2.0.0 go\r\n250-sink.example.com\r\n250 SIZE 26214400\r\n"),
    "half a reply is staged": ("STARTTLS", b"220 2.0.0 go\r\n250-sink"),
    "STARTTLS is refused for now": ("STARTTLS", b"454 4.7.0 not now\r\n"),
    "STARTTLS is refused for good": ("STARTTLS", b"502 5.5.1 what is that\r\n"),
    "the connection is dropped": ("STARTTLS", DROP),
}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Sink]]:
    """A gateway that trusts one authority for its smarthost, and so must speak TLS to it on loopback too."""
    folder = tmp_path_factory.mktemp("encrypted")
    certificate = make_certificate(folder, "127.0.0.1")
    with Sink(tls=certificate) as sink:
        smarthost = f"""
            [smarthosts.default]
            urls = ["{sink.url}"]
            tls_authorities = "{certificate.certificate}"
            retry = ["1s"]
            """
        house = Gateway(folder / "house", sink.url, sections={"smarthosts": smarthost}).prepare().start()
        yield house, sink
        house.close()


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize("attack", WITHOUT_TLS)
def test_mail_waits_for_tls_whatever_is_said_in_the_clear(encrypted: tuple[Gateway, Sink], attack: str) -> None:
    house, sink = encrypted
    verb, reply = WITHOUT_TLS[attack]
    sink.drop_connections()
    sink.clear()
    sink.on(verb, reply)
    assert house.submit(invoice(), ["tls@example.org"], login="shop", sender="billing@example.com")[""][0] == 250
    eventually(lambda: [row for row in house.json("queue", "list") if row["attempts"] >= 1])
    said = set(sink.commands)
    assert said <= {"EHLO relay.example.com", "STARTTLS", "QUIT"}, said
    assert sink.messages == [] and sink.refused == []
    sink.normal()
    (message,) = sink.wait_for(1, timeout=90)
    assert message.tls
