"""Kill the whole process group under load, start it again, and count: nothing that was acknowledged may be missing.

What was promised and what arrived is `load`'s book; of the program's own files only a copy is looked into, between two
starts, to know which copies had been written down as relayed: those may not come again.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.store.sqlite import DataFolder
from tests.conftest import MakeGateway
from tests.crash.load import Clients, Load, Pair, Shape, assert_they_stay_away, drain, links_of, prepare
from tests.crash.remains import damage, waiting
from tests.gateway_under_test import Gateway, eventually
from tests.sink import Sink
from tests.torture import Finding, enter

KILLS = int(os.environ.get("ASSENT_KILLS", "20"))
PROMISES_A_KILL = 80
OPT_OUTS_A_KILL = 3
UNDER_WAY = 20 * 4
"""Transactions between a smarthost's reply and our own record of it: the default connections, four copies each."""

DELIVERING_AGAIN_SECONDS = 10
FIVE_MEGABYTES = 68_000
"""Lines of the largest message of each run."""


class Kills:
    """The book of what each kill left: who may get a second copy because of it, and how long it was until the next."""

    def __init__(self, load: Load, scratch: Path) -> None:
        self.load = load
        self.excused: Counter[Pair] = Counter()
        self.recoveries: list[float] = []
        self._scratch = scratch

    def kill(self, run: str, leaving: Mapping[str, str]) -> None:
        """Start, load, kill at a random instant, and write down which copies were under way."""
        self._start()
        asyncio.run(self._until_killed(run, leaving))
        eventually(lambda: self.load.sink.is_idle)
        self.load.collect()
        twice = self._waiting() & self.load.received.keys()
        assert len({load_id for load_id, _ in twice}) <= UNDER_WAY, "more than was under way had not been written down"
        self.excused.update(twice)

    def _start(self) -> None:
        """Start, and see how soon something is relayed, if anything waits."""
        waits, started = bool(self.load.missing), time.monotonic()
        self.load.gateway.start()
        if waits:
            self.load.sink.wait_for(1, 60)
            self.recoveries.append(time.monotonic() - started)

    async def _until_killed(self, run: str, leaving: Mapping[str, str]) -> None:
        opted_out = len(self.load.opted_out) + 1
        clients = Clients(self.load, run, leaving)
        await clients.until(len(self.load.promises) + PROMISES_A_KILL, opted_out)
        await asyncio.sleep(random.uniform(0, 0.3))
        self.load.gateway.kill()
        await clients.finish()

    def _waiting(self) -> set[Pair]:
        """Return what had not been written down as relayed; from a copy: the next start finds the crash as it is."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.copytree(self.load.gateway.folder / "var", self._scratch)
        house = DataFolder(self._scratch, self._scratch / "assent.db")
        assert damage(house) == []
        return set(waiting(house))


@pytest.mark.req("OUT-01", "UNS-22")
def test_nothing_acknowledged_is_lost_when_the_process_group_is_killed(
    make_gateway: MakeGateway, sink: Sink, tmp_path: Path
) -> None:
    gateway = make_gateway(workers=2)
    leaving = [f"leaving{n}@example.org" for n in range(OPT_OUTS_A_KILL * KILLS)]
    links = _links(gateway, sink, leaving)
    load = Load(gateway, sink, Shape(largest=FIVE_MEGABYTES))
    kills = Kills(load, tmp_path / "copy")
    for kill in range(KILLS):
        going = leaving[kill * OPT_OUTS_A_KILL :][:OPT_OUTS_A_KILL]
        kills.kill(f"k{kill}", {address: links[address] for address in going})
    gateway.start()
    drain(load)
    slowest = max(kills.recoveries)
    enter(
        Finding(
            "`kill -9` under load",
            f"{KILLS} kills",
            load.things_promised,
            len(load.missing),
            load.duplicates,
            f"each was under way at a kill; delivering again {slowest:.1f} s after the start at the latest",
        )
    )
    assert not load.missing
    assert not load.altered
    unexcused = {pair: n for pair, n in load.received.items() if n > 1 + kills.excused[pair]}
    assert not unexcused, "what had been written down as relayed came again"
    assert slowest <= DELIVERING_AGAIN_SECONDS
    assert_they_stay_away(gateway, load.opted_out)
    assert gateway.run("ledger", "verify", "--anchor", "var/anchor.jsonl").returncode == 0


def _links(gateway: Gateway, sink: Sink, leaving: list[str]) -> dict[str, str]:
    prepare(gateway, leaving)
    gateway.start()
    links = links_of(gateway, sink, leaving)
    gateway.stop()
    return links
