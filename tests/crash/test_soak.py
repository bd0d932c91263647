"""Hours of ordinary mail: what the program holds (memory, descriptors, threads) does not grow with what it has done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from tests.conftest import MakeGateway
from tests.crash.load import Clients, Load, drain, prepare
from tests.gateway_under_test import Gateway
from tests.sink import Sink
from tests.torture import Finding, enter

SECONDS = float(os.environ.get("ASSENT_SOAK_SECONDS", "12"))
GROWTH = float(os.environ.get("ASSENT_SOAK_GROWTH", "1.25"))
"""The most that what is held may grow after the first half, of which the second quarter counts; torture asks 1.05."""

LOOKS = 48
PAUSE = 0.4
"""Seconds between two messages of one of the sessions, so that mail leaves as fast as it comes."""


class Held(NamedTuple):
    """What all processes hold together; memory in octets, what they share counted once.

    Pages of files are left out: how many of them count here depends on who else on the machine runs this Python.
    """

    memory: float
    descriptors: float
    threads: float


def held_by(gateway: Gateway) -> Held:
    assert gateway.process
    processes = [gateway.process.pid, *gateway.children()]
    return Held(
        sum(map(_proportional, processes)),
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        sum(len(os.listdir(f"/proc/{pid}/task")) for pid in processes),
    )


def _proportional(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith(kinds))


def typical(looks: Sequence[Held]) -> Held:
    return Held(*(median(column) for column in zip(*looks, strict=True)))


@pytest.mark.req("OPS-07")
def test_what_is_held_does_not_grow_with_what_was_done(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway(workers=2)
    prepare(gateway)
    load = Load(gateway.start(), sink)
    looks = asyncio.run(_at_work(load))
    drain(load)
    before, after = typical(looks[LOOKS // 4 : LOOKS // 2]), typical(looks[-LOOKS // 4 :])
    growth = [late / early for early, late in zip(before, after, strict=True)]
    besides = "memory, descriptors and threads against the second quarter: " + ", ".join(
        f"{one:.2f} ×" for one in growth
    )
    what, done = f"{SECONDS:.0f} s at {len(load.promises) / SECONDS:.0f}/s", load.things_promised
    enter(Finding("ordinary mail for hours", what, done, len(load.missing), load.duplicates, besides))
    assert not load.missing and not load.altered and not load.duplicates
    assert max(growth) <= GROWTH, besides


async def _at_work(load: Load) -> list[Held]:
    """Look at what is held again and again while mail comes and goes."""
    clients = Clients(load, "soak", {}, PAUSE)
    looks = []
    for _ in range(LOOKS):
        await asyncio.sleep(SECONDS / LOOKS)
        load.collect()
        looks.append(await asyncio.to_thread(held_by, load.gateway))
    await clients.finish()
    return looks
