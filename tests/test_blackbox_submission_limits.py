"""What the submission port bears with, and where it says enough: loops, sizes, parameters, time, connections, rates.

The program is a separate process; clients are raw sockets, the judge is a strict sink.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, fetch, field_of, invoice
from tests.sink import Sink
from tests.test_blackbox_smtp import connect, refused_in_one_sentence

BILLING = "billing@example.com"


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
