"""A newsletter as marketing tools make them: how much slower it is than plain text of a few kilobytes.

The one rule: both are relayed in turns by the same running program, with the same readers and the same key.
"""

from __future__ import annotations

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
    rates: dict[str, list[float]] = {"plain": [], "page": []}
    with CountingSink(plain.sink_port) as sink, running(assent):
        warm = measure_rate(plain, assent.port, sink, sessions=SESSIONS, messages=WARM_UP)
        messages = options.messages or worth_a_pass(warm)
        for number in range(1, options.rounds + 1):
            for name, workload in (("plain", plain), ("page", page)):
                rate = measure_rate(workload, assent.port, sink, sessions=SESSIONS, messages=messages)
                rates[name].append(rate)
            say(f"round {number} of {options.rounds}: {rates['plain'][-1]:,.0f}/s and {rates['page'][-1]:,.0f}/s")
    return _part(median(rates["plain"]), median(rates["page"]), options)


def _part(plain: float, page: float, options: Options) -> Part:
    kilobytes = PAGE_SIZE // 1000
    return Part(
        name="newsletter",
        title="A newsletter in HTML",
        about=(
            f"HTML of {kilobytes} kB in quoted-printable, the same text in one message a reader, "
            "with two placeholders for the way out and without the "
            "company's address: it is searched for trackers and for addresses in foreign links, its placeholders "
            "are filled, and it gets a footer. Beside it the plain text of 4 kB, in turns. "
            f"{SESSIONS} sessions; medians of {options.rounds} rounds."
        ),
        tables=[Table(("", "messages relayed/s"), [("plain text", round(plain)), ("HTML", round(page))])],
        bars=[Bar(f"relay rate of HTML of {kilobytes} kB with footer and placeholders", 0.6, page / plain, "× plain")],
    )
