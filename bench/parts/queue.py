"""A very long queue: how soon after a start the first copy leaves, and what the queue costs in memory.

The one rule: the queue is what the spool's own verbs have kept, one message for each recipient, all of it due; the
same program with the same people and no queue is what it is compared with.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.parts import Options
from bench.peers import running
from bench.peers.assent import Assent
from bench.process import free_port, say
from bench.results import Bar, Part, Table
from bench.sink import CountingSink
from bench.stores import people_store, queue_store
from bench.workload import Workload, prepare_workload

WATCHED_SECONDS: Final = 10.0
SAMPLE_SECONDS: Final = 0.2
MEGABYTE: Final = 1_000_000


def measure(folder: Path, options: Options) -> Part:
    """Start with an empty queue and with a full one in turn; the full one is filled up before each start."""
    workload = prepare_workload(folder, free_port(), 1)
    people = people_store(options.queued)
    empty, full = list[Watched](), list[Watched]()
    for number in range(1, options.rounds + 1):
        for name, found in (("empty", empty), ("full", full)):
            queue = queue_store(options.queued, workload) if name == "full" else people
            (folder / f"{name}{number}").mkdir()
            found.append(_watch(workload, Assent(workload, queue), folder / f"{name}{number}", waits=name == "full"))
        say(f"round {number} of {options.rounds}: first copy after {full[-1].first:.2f} s")
    return _part(empty, full, options)


@dataclass(frozen=True, slots=True)
class Watched:
    """The most memory that was seen, in octets, and seconds from the start to the first copy."""

    peak: int
    first: float


def _watch(workload: Workload, gateway: Assent, folder: Path, *, waits: bool) -> Watched:
    """Start a gateway and look at it for a while; where something waits, see when the first of it arrives."""
    gateway.prepare(folder)
    with CountingSink(workload.sink_port) as sink:
        started = time.monotonic()
        with running(gateway):
            peak = 0
            while time.monotonic() < started + WATCHED_SECONDS:
                peak = max(peak, gateway.memory())
                time.sleep(SAMPLE_SECONDS)
            return Watched(peak, sink.first_arrival() - started if waits else 0.0)


def _part(empty: list[Watched], full: list[Watched], options: Options) -> Part:
    first = median(one.first for one in full)
    least, most = (median(one.peak for one in found) / MEGABYTE for found in (empty, full))
    return Part(
        name="queue",
        title="A long queue",
        about=(
            f"{options.queued:,} recipients wait, a 4 kB message each, when the program starts. Memory is the sum over "
            f"its processes, what they share counted once, and the highest of the first {WATCHED_SECONDS:g} seconds, "
            f"in which it relays as fast as it can. Medians of {options.rounds} rounds."
        ),
        tables=[
            Table(
                ("queued recipients", "first copy after, s", "memory, MB"),
                [(0, None, least), (options.queued, first, most)],
            )
        ],
        bars=[
            Bar(f"first delivery after a start with {options.queued:,} queued", 10.0, first, "s", at_most=True),
            Bar(f"memory with {options.queued:,} queued", 50.0, most - least, "MB more than empty", at_most=True),
        ],
    )
