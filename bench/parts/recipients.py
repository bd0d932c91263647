"""One submission to many: how long its sender waits, and how fast the copies leave.

The one rule: the rate is compared with that of single messages in the same turn, on the same store.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Final

from bench.load import Crowd, measure_crowd, measure_rate
from bench.parts import Options
from bench.parts.peers import WARM_UP, worth_a_pass
from bench.peers import running
from bench.peers.assent import Assent
from bench.process import free_port, say
from bench.results import Bar, Part, Table
from bench.sink import CountingSink
from bench.workload import prepare_workload

SESSIONS: Final = 20
SUBMISSIONS: Final = 3
"""To so many, one after the other, in each round."""

READERS: Final = 10_000


def measure(folder: Path, options: Options) -> Part:
    """Measure Assent alone: others would relay one copy to all."""
    workload = prepare_workload(folder, free_port(), max(READERS, options.recipients))
    assent = Assent(workload)
    (folder / "assent").mkdir()
    assent.prepare(folder / "assent")
    singles, crowds = list[float](), list[Crowd]()
    for number in range(1, options.rounds + 1):
        with CountingSink(workload.sink_port) as sink, running(assent):
            warm = measure_rate(workload, assent.port, sink, sessions=SESSIONS, messages=WARM_UP)
            messages = options.messages or worth_a_pass(warm)
            singles.append(measure_rate(workload, assent.port, sink, sessions=SESSIONS, messages=messages))
            for _ in range(SUBMISSIONS):
                crowds.append(measure_crowd(workload, assent.port, sink, recipients=options.recipients))
        say(f"round {number} of {options.rounds}: {crowds[-1].submitted:.3f} s, {crowds[-1].rate:,.0f} copies/s")
    return _part(singles, crowds, options)


def _part(singles: list[float], crowds: list[Crowd], options: Options) -> Part:
    submitted, replied = (median(getattr(one, name) for one in crowds) for name in ("submitted", "replied"))
    rate, single = median(one.rate for one in crowds), median(singles)
    many = f"one submission to {options.recipients:,} recipients"
    return Part(
        name="recipients",
        title="One submission to many recipients",
        about=(
            f"A promotional message of 4 kB to {options.recipients:,} opted-in readers, each of whom gets a copy with "
            "links and a signature of its own; MAIL, RCPT and DATA are pipelined. Medians of "
            f"{len(crowds)} submissions in {options.rounds} rounds, beside {SESSIONS} sessions of single messages."
        ),
        tables=[
            Table(
                ("", "MAIL to final reply, s", "final dot to reply, s", "copies relayed/s"),
                [(many, submitted, replied, round(rate)), ("single messages", None, None, round(single))],
            )
        ],
        bars=[
            Bar(f"{many} acknowledged", 0.5, submitted, "s", at_most=True),
            Bar(f"relay rate of {many}", 1.0, rate / single, "× that of single messages"),
        ],
    )
