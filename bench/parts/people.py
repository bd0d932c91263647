"""The relay rate with very many people in the store, against few (SUP-15).

The one rule: both stores are real ones, whole and sealed, and get the same load in turn; in the larger one each
pass goes to people whom no other pass has asked for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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

FEW: Final = 10_000
SESSIONS: Final = 20
WANTED: Final = 0.9


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
    return _part(sizes, rates, options)


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


def _part(sizes: tuple[int, int], rates: list[list[float]], options: Options) -> Part:
    few, many = map(median, rates)
    return Part(
        name="people",
        title="Many people in the store",
        about=(
            f"Single messages of 4 kB at {SESSIONS} sessions, each to another person. Medians of {options.rounds} "
            "rounds in turn; in the larger store each round asks for other people."
        ),
        tables=[
            Table(
                ("people in the store", "messages/s", "lowest", "highest"),
                [
                    (size, round(median(found)), round(min(found)), round(max(found)))
                    for size, found in zip(sizes, rates, strict=True)
                ],
            )
        ],
        bars=[Bar(f"relay rate with {sizes[1]:,} people", WANTED, many / few, f"× that with {sizes[0]:,}")],
    )
