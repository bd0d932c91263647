"""A newsletter as marketing tools make them: how much slower it is than plain text of a few kilobytes.

The one rule: both are relayed in turns by the same running program, with the same readers and the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.load import measure_named_rate, measure_rate
from bench.parts import Options
from bench.parts.peers import WARM_UP, worth_a_pass
from bench.peers import running
from bench.peers.assent import Assent
from bench.process import free_port, say
from bench.results import Bar, Part, Table
from bench.sink import CountingSink
from bench.workload import PAGE_SIZE, prepare_page, prepare_workload

SESSIONS: Final = 20
READERS: Final = 10_000


def measure(folder: Path, options: Options) -> Part:
    """Measure Assent alone, a pass of each message a round."""
    plain = prepare_workload(folder, free_port(), READERS)
    page = prepare_page(plain, folder)
    assent = Assent(plain)
    (folder / "assent").mkdir()
    assent.prepare(folder / "assent")
    passes = {
        "plain": partial(measure_rate, plain),
        "page": partial(measure_rate, page),
        "named": partial(measure_named_rate, replace(page, is_named=True)),
    }
    rates: dict[str, list[float]] = {name: [] for name in passes}
    with CountingSink(plain.sink_port) as sink, running(assent):
        warm = measure_rate(plain, assent.port, sink, sessions=SESSIONS, messages=WARM_UP)
        messages = options.messages or worth_a_pass(warm)
        for number in range(1, options.rounds + 1):
            for name, run in passes.items():
                rates[name].append(run(assent.port, sink, sessions=SESSIONS, messages=messages))
            told = ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items())
            say(f"round {number} of {options.rounds}: {told}")
    return _part({name: median(found) for name, found in rates.items()}, options)


def _part(rates: Mapping[str, float], options: Options) -> Part:
    kilobytes, plain = PAGE_SIZE // 1000, rates["plain"]
    rows = [("plain text", "plain"), ("HTML, the same text", "page"), ("HTML, a name of each one's own", "named")]
    what = f"relay rate of HTML of {kilobytes} kB with footer and placeholders"
    return Part(
        name="newsletter",
        title="A newsletter in HTML",
        about=(
            f"HTML of {kilobytes} kB in quoted-printable, one message a reader, with two placeholders for the way out "
            "and without the company's address: it is searched for trackers and for addresses in foreign links, its "
            "placeholders are filled, and it gets a footer. Once with the same text in each message, once with the "
            "reader's own name in two places of it. Beside it the plain text of 4 kB, in turns. "
            f"{SESSIONS} sessions; medians of {options.rounds} rounds."
        ),
        tables=[Table(("", "messages relayed/s"), [(shown, round(rates[name])) for shown, name in rows])],
        bars=[
            Bar(what, 0.6, rates["page"] / plain, "× plain"),
            Bar(f"{what}, named", 0.6, rates["named"] / plain, "× plain", is_goal=True),
        ],
    )
