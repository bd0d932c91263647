"""Relay rate and wait of every peer, in the same rounds, under the same load.

The one rule: in a round each peer has its turn alone, with nothing of the others running, and gets the same
message, key and readers. A peer that cannot run, or fails a pass, stands in the table with the reason.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load import Latency, measure_latency, measure_rate
from bench.parts import Options
from bench.peers import OURS, Entrant, running
from bench.peers.assent import Assent
from bench.peers.ceiling import Ceiling
from bench.peers.exim import Exim, EximUnprivileged
from bench.peers.haraka import Haraka, HarakaNoDelay
from bench.peers.postfix import Postfix, PostfixOpenDKIM, PostfixOpenDKIMUnix
from bench.process import free_port, say
from bench.proof import Proof, observe
from bench.results import Bar, Cell, Part, Table
from bench.sink import CountingSink, KeepingSink
from bench.workload import Workload, prepare_workload

PEERS: Final = (
    *(Assent, PostfixOpenDKIM, PostfixOpenDKIMUnix, Postfix, Haraka, HarakaNoDelay, Exim, EximUnprivileged),
    Ceiling,
)
WARM_UP: Final = 500
PASS_SECONDS: Final = 4.0
LATENCY_MESSAGES: Final = 1_500
READERS: Final = 10_000

STEADY: Final = 3.0
"""Most that the 99th percentile of the final reply may be of its median, at `STEADY_SESSIONS`."""

STEADY_SESSIONS: Final = 20

_BARS: Final = (
    ("postfix-opendkim", 4.0, False),
    ("postfix-opendkim", 5.5, False),
    ("postfix-opendkim", 8.0, True),
    ("haraka", 1.8, False),
    ("haraka", 2.2, False),
    ("haraka", 4.0, True),
    ("postfix", 2.0, False),
    ("exim", 12.0, False),
)
"""Peer, how many times its rate ours must be, and whether that is a goal only; at every number of sessions."""

_HEAD: Final = (
    *("", "messages/s", "lowest", "highest", "Assent is, ×", "p50 ms", "p99 ms"),
    *("refuses strangers", "signs", "stamps", "its 250 means"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer's figures of one round at one number of sessions."""

    rate: float
    latency: Latency


@dataclass(slots=True)
class Record(Entrant):
    """All that a run learned about one peer."""

    proof: Proof | None = None
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)

    def rate(self, sessions: int) -> float | None:
        """The median rate, or None where there is none."""
        return self._median(sample.rate for sample in self.samples.get(sessions, ()))

    def p50(self, sessions: int) -> float | None:
        return self._median(sample.latency.p50 for sample in self.samples.get(sessions, ()))

    def p99(self, sessions: int) -> float | None:
        return self._median(sample.latency.p99 for sample in self.samples.get(sessions, ()))

    def _median(self, figures: Iterable[float]) -> float | None:
        found = list(figures)
        return statistics.median(found) if found and not self.trouble else None


def measure(folder: Path, options: Options) -> Part:
    """Run every peer in turn, round after round."""
    workload = prepare_workload(folder, free_port(), READERS)
    records = [Record(peer(workload)) for peer in PEERS if peer.name in options.peers]
    for record in records:
        with record.at_risk(folder / record.peer.name):
            _prepare(record, workload, folder / record.peer.name)
    for number in range(1, options.rounds + 1):
        for record in (one for one in records if not one.trouble):
            say(f"round {number} of {options.rounds}: {record.peer.title}")
            with record.at_risk(folder / record.peer.name):
                _take_turn(record, workload, options)
    return _part(records, options)


def _prepare(record: Record, workload: Workload, folder: Path) -> None:
    """Prepare a peer and look at what it does with one message."""
    say(f"preparing {record.peer.title}")
    folder.mkdir()
    record.peer.prepare(folder)
    if record.peer.port != workload.sink_port:
        with KeepingSink(workload.sink_port, folder / "seen") as sink, running(record.peer):
            record.proof = observe(workload, record.peer.port, sink)


def _take_turn(record: Record, workload: Workload, options: Options) -> None:
    """One peer's turn in one round: a warm-up, then for each number of sessions a rate and a latency."""
    port = record.peer.port
    with CountingSink(workload.sink_port) as sink, running(record.peer):
        warm = measure_rate(workload, port, sink, sessions=max(options.sessions), messages=WARM_UP)
        for sessions in options.sessions:
            messages = record.messages.setdefault(sessions, options.messages or worth_a_pass(warm))
            rate = measure_rate(workload, port, sink, sessions=sessions, messages=messages)
            latency = measure_latency(workload, port, sink, sessions=sessions, messages=min(messages, LATENCY_MESSAGES))
            record.samples.setdefault(sessions, []).append(Sample(rate, latency))
            say(f"    {sessions} sessions: {rate:,.0f}/s, p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms")


def worth_a_pass(rate: float) -> int:
    """How many messages make a pass of `PASS_SECONDS` at this rate."""
    return max(WARM_UP, min(READERS, round(rate * PASS_SECONDS / 100) * 100))


def _part(records: Sequence[Record], options: Options) -> Part:
    return Part(
        name="peers",
        title="Beside its peers",
        about=f"4 kB messages, each to one reader; medians of {options.rounds} rounds in turn.",
        tables=[_table(records, sessions) for sessions in options.sessions],
        bars=list(_bars(records, options.sessions)),
        notes=[_note(record) for record in records],
    )


def _table(records: Sequence[Record], sessions: int) -> Table:
    ours = _record_of(records, OURS)
    return Table(_HEAD, [_row(record, ours, sessions) for record in records], f"{sessions} sessions")


def _row(record: Record, ours: Record | None, sessions: int) -> list[Cell]:
    rate, samples = record.rate(sessions), record.samples.get(sessions, [])
    if rate is None:
        return [f"{record.peer.title}: {record.trouble}", *[None] * (len(_HEAD) - 1)]
    rates = [round(sample.rate) for sample in samples]
    figures = [round(rate), min(rates), max(rates), None if ours is record else _ratio(ours, record, sessions)]
    return [
        *(record.peer.title, *figures, record.p50(sessions), record.p99(sessions)),
        *(*_seen(record.proof), record.peer.keeps),
    ]


def _seen(proof: Proof | None) -> list[str]:
    if proof is None:
        return ["no"] * 3
    return ["yes" if seen else "no" for seen in (proof.gates, proof.signs, proof.stamps)]


def _bars(records: Sequence[Record], all_sessions: Sequence[int]) -> Iterator[Bar]:
    ours = _record_of(records, OURS)
    for name, wanted, is_goal in _BARS:
        for sessions in all_sessions:
            found = _ratio(ours, _record_of(records, name), sessions)
            yield Bar(f"rate beside {name} at {sessions} sessions", wanted, found, is_goal=is_goal)
    if ours and STEADY_SESSIONS in all_sessions:
        p50, p99 = ours.p50(STEADY_SESSIONS), ours.p99(STEADY_SESSIONS)
        found = p99 / p50 if p50 and p99 else None
        yield Bar(f"p99 of the final reply at {STEADY_SESSIONS} sessions", STEADY, found, "× its median", at_most=True)


def _record_of(records: Sequence[Record], name: str) -> Record | None:
    return next((record for record in records if record.peer.name == name), None)


def _ratio(ours: Record | None, other: Record | None, sessions: int) -> float | None:
    mine, theirs = ours and ours.rate(sessions), other and other.rate(sessions)
    return mine / theirs if mine and theirs else None


def _note(record: Record) -> str:
    counts = ", ".join(f"{count:,} at {sessions}" for sessions, count in sorted(record.messages.items()))
    version = f" ({record.peer.version()})" if not record.trouble and record.peer.version() else ""
    sent = f" Messages a pass: {counts}." if counts else ""
    return f"**{record.peer.title}**{version}: {record.peer.note}{sent}"
