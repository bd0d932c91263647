"""A smarthost that is not there, or only in part: which copies go all the same, and what operators hear."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, invoice, transact
from tests.sink import Sink, make_certificate

NAME = "mta.example.net"
OWN_HOSTS_FILE = 'mount --bind "$0" /etc/hosts && exec "$@"'


@contextmanager
def nobody_accepts(host: str, port: int) -> Iterator[None]:
    """An address at which connections are neither accepted nor refused, as behind a filter that drops them."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((host, port))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


def hand_in(gateway: Gateway, recipient: str = "reader@example.org") -> None:
    sent = gateway.submit(invoice(), [recipient], login="shop", sender="billing@example.com")
    assert sent[""][0] == 250


def replies(gateway: Gateway) -> list[str]:
    """Return what is said of each recipient who waits after at least two attempts."""
    return [one["reply"] for one in gateway.json("queue", "list") if one["attempts"] > 1]


@pytest.mark.req("OUT-19")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root gets a hosts file of its own")
def test_a_dead_address_of_a_smarthost_does_not_stop_mail_that_another_takes(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, NAME)
    with Sink(host="127.0.0.3", tls=certificate) as sink, nobody_accepts("127.0.0.2", sink.port):
        gateway = make_gateway()
        trusted = f'urls = ["smtp://{NAME}:{sink.port}"]\ntls_authorities = "{certificate.certificate}"'
        gateway.write_config(smarthosts=f"[smarthosts.default]\n{trusted}")
        hosts = tmp_path / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n127.0.0.3 {NAME}\n")
        gateway.wrapper = ["unshare", "-m", "sh", "-c", OWN_HOSTS_FILE, str(hosts)]
        gateway.start()
        hand_in(gateway)
        assert len(sink.wait_for(1, 20)) == 1


def test_the_queue_and_the_log_say_what_is_wrong_with_a_smarthost_that_is_down(make_gateway: MakeGateway) -> None:
    with Sink() as sink:
        sink.stop()
        gateway = make_gateway(smarthost=sink.url).start()
        hand_in(gateway)
        (reply,) = eventually(lambda: replies(gateway))
        assert reply.startswith(f"451 4.4.1 {sink.url}: ")
        assert "refused" in reply.lower() or "connect call failed" in reply.lower()
        assert gateway.log.read_text().count(f"{sink.url} does not take more mail now") == 1
        sink.start()
        sink.wait_for(1, 30)
        eventually(lambda: gateway.log.read_text().count(f"{sink.url} takes mail again") == 1)


def test_a_smarthost_is_reached_and_named_by_its_ipv6_address(make_gateway: MakeGateway) -> None:
    with Sink(host="::1") as sink:
        url = f"smtp://[::1]:{sink.port}"
        gateway = make_gateway()
        gateway.write_config(smarthosts=f'[smarthosts.default]\nurls = ["{url}"]\nretry = ["1s"]')
        gateway.start()
        hand_in(gateway)
        assert len(sink.wait_for(1)) == 1
        sink.stop()
        hand_in(gateway)
        (reply,) = eventually(lambda: replies(gateway))
        assert reply.startswith(f"451 4.4.1 {url}: ")


@pytest.mark.req("OUT-19")
def test_mail_does_not_wait_for_a_retry_where_a_smarthost_only_bears_fewer_connections(
    make_gateway: MakeGateway,
) -> None:
    with Sink() as sink:
        sink.on("CONNECT", "421 4.7.0 too many connections from your address", skip=3)
        sink.on("DOT", delay=0.3)
        gateway = make_gateway()
        gateway.write_config(smarthosts=f'[smarthosts.default]\nurls = ["{sink.url}"]\nretry = ["1h"]')
        gateway.start()
        with gateway.smtp("shop") as client:
            for n in range(40):
                told = transact(client, invoice(), [f"reader{n}@example.org"], "billing@example.com")
                assert told[""][0] == 250
        assert len(sink.wait_for(40, 30)) == 40
        eventually(lambda: gateway.json("queue", "list") == [])
