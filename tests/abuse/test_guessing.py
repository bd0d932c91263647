"""Passwords guessed from many addresses at once: most guesses go unheard, and whoever has a right one gets in (S13).

The guessers are a process of their own, so that they do not slow whoever measures beside them. Honest mail goes over a
connection that stays, honest logins come from addresses that have been in and from ones that nobody has seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from statistics import quantiles

import pytest

from tests.abuse import IS_TORTURE, guessers, size
from tests.abuse.conftest import connect
from tests.gateway_under_test import Gateway, invoice
from tests.raw_smtp import RawSmtp
from tests.sink import Sink
from tests.torture import Finding, enter

ADDRESSES = size(8, 100)
GUESSES_A_SECOND = size(200, 1000)
SECONDS = size(3, 60)
HEARD_OF_AN_ADDRESS = 10 + 6
"""Its patience, what fades meanwhile, and what was already in line."""

GENEROUS = 5.0
"""Seconds within which an honest client is served even here; the bar, twice the usual, is for a machine of its own."""


@pytest.fixture(scope="module")
def guarded(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("guarded") / "house", shared_sink.url, workers=2).prepare().start()
    yield running
    running.close()


def invoiced(client: RawSmtp, seconds: float) -> list[float]:
    """Submit invoices one after the other for so long; return how long each took."""
    took, until = [], time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        assert client.transact(invoice(), ["guessing@example.org"], "billing@example.com").code == 250
        took.append(time.monotonic() - began)
        time.sleep(0.005)
    return took


def logged_in(gateway: Gateway, source: str) -> float:
    """Log in from an address; return how long it took."""
    began = time.monotonic()
    with connect(gateway, "shop", source=source):
        return time.monotonic() - began


def test_honest_clients_get_in_and_are_served_while_a_crowd_guesses(guarded: Gateway, sink: Sink) -> None:
    figures = [guarded.submission, ADDRESSES, GUESSES_A_SECOND, SECONDS]
    command = [sys.executable, guessers.__file__, *map(str, figures)]
    with connect(guarded, "shop", source="127.2.0.1") as client:
        calm = invoiced(client, SECONDS / 2)
        crowd = subprocess.Popen(command, stdout=subprocess.PIPE)
        stormy, known, new = [], [], []
        for round_number in range(8):
            stormy += invoiced(client, SECONDS / 8)
            known.append(logged_in(guarded, "127.2.0.1"))
            new.append(logged_in(guarded, f"127.2.1.{round_number + 1}"))
        told, _ = crowd.communicate(timeout=120)
    sink.wait_for(len(calm) + len(stormy), 60)
    codes = Counter({int(code): times for code, times in json.loads(told).items()})
    before, during = quantiles(calm, n=100)[98], quantiles(stormy, n=100)[98]
    if IS_TORTURE:
        usual = f"p99 of honest mail {before * 1000:.1f} ms before, {during * 1000:.1f} ms meanwhile"
        logins = f"logins {max(known):.2f} s at most from a known address, {max(new):.2f} s from a new one"
        heard = f"{codes[535]} of {codes.total()} guesses were heard"
        enter(
            Finding("guessed passwords", f"{GUESSES_A_SECOND}/s for {SECONDS} s", besides=f"{usual}; {logins}; {heard}")
        )
    assert codes[235] == 0
    assert 0 < codes[535] <= HEARD_OF_AN_ADDRESS * ADDRESSES
    assert codes[454] > 0
    assert max(during, *known) < GENEROUS
    assert max(new) < GENEROUS + 5, "a new address is answered at most five seconds later"
