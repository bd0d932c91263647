"""How long a client waits for the answer to its final dot (RFC 1047: the longer, the more mail comes twice).

The windows that are asserted are wide, because the machines of tests are slow and shared; torture writes down what was.
"""

from __future__ import annotations

import time

import pytest

from tests.abuse import size
from tests.abuse.conftest import connect
from tests.gateway_under_test import Gateway, eventually
from tests.sink import Sink
from tests.torture import Finding, enter

CASES = {"100 KiB to one": (1, size(30, 1000), 1.0), "a small message to a thousand": (1000, size(3, 100), 10.0)}
WIDER = 5
"""How many times the bar's window a slow machine may take."""


@pytest.mark.parametrize("case", CASES)
def test_the_answer_to_the_final_dot_comes_within_its_window(abused: Gateway, sink: Sink, case: str) -> None:
    recipients, count, window = CASES[case]
    named = [f"RCPT TO:<latency{n}@example.org>" for n in range(recipients)]
    content = b"From: billing@example.com\r\n\r\n" + b"x" * 62 + b"\r\n" + (b"y" * 62 + b"\r\n") * (1600 // recipients)
    waited: list[float] = []
    with connect(abused, "shop") as client:
        for _ in range(count):
            assert client.say("MAIL FROM:<billing@example.com>", *named, "DATA").code == 354
            client.send(content)
            began = time.monotonic()
            client.send(b".\r\n")
            assert client.reply().code == 250
            waited.append(time.monotonic() - began)
    eventually(lambda: len(sink.messages) == count, 120)
    waited.sort()
    middle, slowest = waited[count // 2], waited[int(count * 0.99)]
    told = f"from the final dot to 250: median {middle * 1000:.0f} ms, p99 {slowest * 1000:.0f} ms"
    enter(Finding(f"the answer to the dot: {case}", f"{count} times", count, count - len(sink.messages), besides=told))
    assert slowest <= WIDER * window, told
