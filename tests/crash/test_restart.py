"""Stop, start and reload under load, as an upgrade does: nothing is lost, nothing comes twice, and it takes no longer
than the service manager waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.conftest import MakeGateway
from tests.crash.load import Clients, Load, drain, prepare
from tests.gateway_under_test import Gateway, eventually
from tests.raw_smtp import RawSmtp
from tests.sink import Sink
from tests.torture import Finding, enter

RESTARTS = int(os.environ.get("ASSENT_RESTARTS", "5"))
"""How often it is stopped and started, and how often it is reloaded."""

PROMISES_BETWEEN = 40
EXIT_SECONDS = 30


class Operator:
    """Someone who restarts and reloads, and notes how long it took."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.slowest = 0.0
        self._reloads = 0

    def restart(self) -> None:
        began = time.monotonic()
        assert self.gateway.stop() == 0, "somebody had to be killed"
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.gateway.start()

    def reload(self) -> None:
        """Have the program take another name, and wait until whoever comes is greeted with it."""
        self._reloads += 1
        name = f"relay{self._reloads}.example.com"
        self.gateway.config.write_text(self.gateway.config.read_text().replace(self._name(), f'hostname = "{name}"', 1))
        assert self.gateway.process
        self.gateway.process.send_signal(signal.SIGHUP)
        eventually(lambda: self._greets_as(name), EXIT_SECONDS)

    def _greets_as(self, name: str) -> bool:
        with RawSmtp(self.gateway.submission) as client:
            return name in client.greeting.text

    def _name(self) -> str:
        return next(line for line in self.gateway.config.read_text().splitlines() if line.startswith("hostname"))


@pytest.mark.req("OPS-07")
def test_restarts_and_reloads_under_load_lose_nothing_and_double_nothing(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway(workers=2)
    prepare(gateway)
    load, operator = Load(gateway, sink), Operator(gateway.start())
    asyncio.run(_rolling(load, operator))
    drain(load)
    enter(
        Finding(
            "SIGTERM and SIGHUP under load",
            f"{RESTARTS} restarts, {RESTARTS} reloads",
            load.things_promised,
            len(load.missing),
            load.duplicates,
            f"stopped within {operator.slowest:.1f} s",
        )
    )
    assert not load.missing
    assert not load.altered
    assert load.duplicates == 0
    assert operator.slowest <= EXIT_SECONDS


async def _rolling(load: Load, operator: Operator) -> None:
    clients = Clients(load, "rolling", {})
    for act in [operator.restart, operator.reload] * RESTARTS:
        await clients.until(len(load.promises) + PROMISES_BETWEEN, 0)
        await asyncio.to_thread(act)
    await clients.until(len(load.promises) + PROMISES_BETWEEN, 0)
    await clients.finish()
