"""The relay rate with very many people in the store, against few (SUP-15), and what one look-up costs.

The one rule: both stores are real ones, whole and sealed, and get the same load in turn; in the larger one each
pass goes to people whom no other pass has asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import sample
from statistics import median
from typing import Final

from bench.load import measure_rate
from bench.parts import Options
from bench.parts.peers import WARM_UP, worth_a_pass
from bench.peers import running
from bench.peers.assent import Assent
from bench.process import free_port, say
from bench.results import Bar, Part, Table
from bench.sink import CountingSink
from bench.stores import people_store
from bench.workload import Workload, prepare_workload
from gateway.address import Address
from gateway.installation import Clock
from gateway.store.condition import Condition
from gateway.store.people import SqlitePeople
from gateway.store.sqlite import DataFolder

FEW: Final = 10_000
SESSIONS: Final = 20
WANTED: Final = 0.9
LOOK_UPS: Final = 2_000
MOST: Final = 1.1


def measure(folder: Path, options: Options) -> Part:
    """Fill the stores, unless an earlier run has, and relay from each in turn."""
    workload = prepare_workload(folder, free_port(), FEW)
    sizes = (FEW, max(options.people, 10 * FEW))
    gateways = [Assent(workload, people_store(size)) for size in sizes]
    for size, gateway in zip(sizes, gateways, strict=True):
        (folder / str(size)).mkdir()
        gateway.prepare(folder / str(size))
    rates: list[list[float]] = [[], []]
    for number in range(1, options.rounds + 1):
        for size, gateway, found in zip(sizes, gateways, rates, strict=True):
            first, then = (_share_of_the_people(workload, size, 2 * number + turn) for turn in (0, 1))
            found.append(_rate(first, then, gateway, options))
            say(f"round {number} of {options.rounds}: {size:,} people: {found[-1]:,.0f}/s")
    look_ups = _look_ups(workload, sizes, options.rounds)
    return _part(sizes, rates, look_ups, options)


def _look_ups(workload: Workload, sizes: tuple[int, int], rounds: int) -> list[list[float]]:
    """Return the median seconds of a look-up in each store, round by round, each of somebody not asked for before."""
    people = [_opened(people_store(size)) for size in sizes]
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for size, store, seconds in zip(sizes, people, found, strict=True):
            asked = [Address.parse(workload.reader(one)) for one in sample(range(1, size + 1), LOOK_UPS)]
            seconds.append(asyncio.run(_median_look_up(store, asked)))
    for store in people:
        asyncio.run(store.close())
    say("a look-up: " + ", ".join(f"{median(one) * 1e6:.1f} µs" for one in found))
    return found


def _opened(data: Path) -> SqlitePeople:
    folder = DataFolder(data, data / "assent.db")
    return folder.open_people(Condition(folder.condition), Clock().now)


async def _median_look_up(people: SqlitePeople, asked: Sequence[Address]) -> float:
    took = list[float]()
    for one in asked:
        began = time.perf_counter()
        await people.facts([one])
        took.append(time.perf_counter() - began)
    return median(took)


def _share_of_the_people(workload: Workload, size: int, number: int) -> Workload:
    """Let smtp-source, which counts from 1, count by a step that leads through all people; each share has others."""
    places = len(str(size // FEW)) - 1
    if not places:
        return workload
    return replace(workload, reader_pattern=f"{number % 10**places:0{places}}{workload.reader_pattern}")


def _rate(first: Workload, then: Workload, gateway: Assent, options: Options) -> float:
    with CountingSink(first.sink_port) as sink, running(gateway):
        warm = measure_rate(first, gateway.port, sink, sessions=SESSIONS, messages=WARM_UP)
        messages = min(FEW - 1, options.messages or worth_a_pass(warm))
        return measure_rate(then, gateway.port, sink, sessions=SESSIONS, messages=messages)


def _part(sizes: tuple[int, int], rates: list[list[float]], look_ups: list[list[float]], options: Options) -> Part:
    few, many = map(median, rates)
    quick, slow = map(median, look_ups)
    return Part(
        name="people",
        title="Many people in the store",
        about=(
            f"Single messages of 4 kB at {SESSIONS} sessions, each to another person. Medians of {options.rounds} "
            "rounds in turn; in the larger store each round asks for other people. A look-up is one of a person drawn "
            f"by lot, in one process: the median of {LOOK_UPS:,} in each round."
        ),
        tables=[
            Table(
                ("people in the store", "messages/s", "lowest", "highest", "a look-up, µs"),
                [
                    (size, round(median(found)), round(min(found)), round(max(found)), median(seconds) * 1e6)
                    for size, found, seconds in zip(sizes, rates, look_ups, strict=True)
                ],
            )
        ],
        bars=[
            Bar(f"relay rate with {sizes[1]:,} people", WANTED, many / few, f"× that with {sizes[0]:,}"),
            Bar(
                f"a look-up among {sizes[1]:,} people",
                *(MOST, slow / quick, f"× one among {sizes[0]:,}"),
                at_most=True,
                is_goal=True,
            ),
        ],
    )
