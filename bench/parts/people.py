"""The relay rate with very many people in the store, against few (SUP-15), and what one look-up costs.

The one rule: both stores are real ones, whole and sealed, and get the same load in turn, from the system's memory as
after some hours of mail; in the larger one each pass goes to people whom no other pass has asked for. What a look-up
costs that has to go to the disk is measured apart.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
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
        _bring_to_memory(people_store(size))
    rates: list[list[float]] = [[], []]
    for number in range(1, options.rounds + 1):
        for size, gateway, found in zip(sizes, gateways, rates, strict=True):
            first, then = (_share_of_the_people(workload, size, 2 * number + turn) for turn in (0, 1))
            found.append(_rate(first, then, gateway, options))
            say(f"round {number} of {options.rounds}: {size:,} people: {found[-1]:,.0f}/s")
    look_ups = [_look_ups(workload, size, options.rounds, _bring_to_memory) for size in sizes]
    from_disk = [_look_ups(workload, size, options.rounds, _take_from_memory) for size in sizes]
    say("a look-up: " + ", ".join(f"{one * 1e6:.1f} µs" for one in (*look_ups, *from_disk)))
    return _part(sizes, rates, look_ups, from_disk, options)


def _bring_to_memory(data: Path) -> None:
    with open(data / "assent.db", "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def _take_from_memory(data: Path) -> None:
    with open(data / "assent.db", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _look_ups(workload: Workload, size: int, rounds: int, make_ready: Callable[[Path], None]) -> float:
    """Return the seconds of a look-up, the median of all rounds, of people drawn by lot."""
    return median(asyncio.run(_timed_look_ups(workload, size, make_ready)) for _ in range(rounds))


async def _timed_look_ups(workload: Workload, size: int, make_ready: Callable[[Path], None]) -> float:
    data = people_store(size)
    folder = DataFolder(data, data / "assent.db")
    people = folder.open_people(Condition(folder.condition), Clock().now)
    asked = [Address.parse(workload.reader(one)) for one in sample(range(1, size + 1), LOOK_UPS)]
    make_ready(data)
    try:
        return median([await _seconds(people, one) for one in asked])
    finally:
        await people.close()


async def _seconds(people: SqlitePeople, asked: Address) -> float:
    began = time.perf_counter()
    await people.facts([asked])
    return time.perf_counter() - began


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


def _part(
    sizes: tuple[int, int], rates: list[list[float]], look_ups: list[float], from_disk: list[float], options: Options
) -> Part:
    few, many = map(median, rates)
    quick, slow = look_ups
    return Part(
        name="people",
        title="Many people in the store",
        about=(
            f"Single messages of 4 kB at {SESSIONS} sessions, each to another person. Medians of {options.rounds} "
            "rounds in turn; in the larger store each round asks for other people. A look-up is one of a person drawn "
            f"by lot, in one process: the median of {LOOK_UPS:,} in each round, once with the store in the system's "
            "memory, as it was for the messages, and once with the memory emptied of it before each round."
        ),
        tables=[
            Table(
                ("people in the store", "messages/s", "lowest", "highest", "a look-up, µs", "from the disk, µs"),
                [
                    (size, round(median(found)), round(min(found)), round(max(found)), warm * 1e6, cold * 1e6)
                    for size, found, warm, cold in zip(sizes, rates, look_ups, from_disk, strict=True)
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
