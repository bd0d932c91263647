"""From samples to the tables of RESULTS.md: medians over the rounds, their spread, the ratios, the bars.

The one rule: every figure comes from the samples; a peer that could not be measured says why instead.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.load import Latency
from bench.peers import Peer
from bench.proof import Proof

BARS = {"postfix-opendkim": 4.0, "haraka": 1.8}
OURS = "assent"
_HEAD = """\
| | messages/s | lowest to highest | Assent is | p50 ms | p99 ms | refuses strangers | signs | stamps | its 250 means |
|---|--:|--:|--:|--:|--:|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer's figures of one round at one number of sessions."""

    rate: float
    latency: Latency


@dataclass(slots=True)
class Record:
    """All that a run learned about one peer."""

    peer: Peer
    proof: Proof | None = None
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)
    trouble: str = ""

    def rate(self, sessions: int) -> float | None:
        """The median rate, or None where there is none."""
        samples = self.samples.get(sessions)
        return statistics.median(sample.rate for sample in samples) if samples and not self.trouble else None


def render(records: Sequence[Record], facts: Iterable[tuple[str, str]], rounds: int) -> str:
    """The whole of RESULTS.md."""
    parts = ["# Results\n\nWritten by `python -m bench --write`, never by hand. README.md says how to read it.\n"]
    parts += [_table(records, sessions, rounds) for sessions in _sessions_of(records)]
    parts += ["## Bars\n\n" + "".join(f"* {check}\n" for check in check_bars(records))]
    parts += ["## Peers\n\n" + "".join(map(_peer_line, records))]
    parts += ["## Machine\n\n| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts)]
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class BarCheck:
    """One bar at one number of sessions; `ratio` is None where either side was not measured."""

    peer: str
    bar: float
    sessions: int
    ratio: float | None

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and self.ratio >= self.bar

    def __str__(self) -> str:
        found = "not measured" if self.ratio is None else f"{self.ratio:.2f} ×, {'met' if self.is_met else 'missed'}"
        return f"at least {self.bar:g} × {self.peer} at {self.sessions} sessions: {found}"


def check_bars(records: Sequence[Record]) -> list[BarCheck]:
    """Every bar at every number of sessions that was run."""
    by_name = {record.peer.name: record for record in records}
    ours = by_name.get(OURS)
    return [
        BarCheck(name, bar, sessions, _ratio(ours, by_name.get(name), sessions))
        for name, bar in BARS.items()
        for sessions in _sessions_of(records)
    ]


def _table(records: Sequence[Record], sessions: int, rounds: int) -> str:
    ours = next((record for record in records if record.peer.name == OURS), None)
    head = f"## {sessions} sessions\n\nMedians of {rounds} rounds in turn.\n\n{_HEAD}"
    return head + "".join(_row(record, ours, sessions) for record in records)


def _row(record: Record, ours: Record | None, sessions: int) -> str:
    rate, samples = record.rate(sessions), record.samples.get(sessions, [])
    if rate is None:
        return f"| {record.peer.title} | not measured: {record.trouble} |\n"
    rates = [sample.rate for sample in samples]
    cells = [
        record.peer.title,
        f"{rate:,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        _times(_ratio(ours, record, sessions)) if ours is not record else "",
        f"{statistics.median(sample.latency.p50 for sample in samples):.1f}",
        f"{statistics.median(sample.latency.p99 for sample in samples):.1f}",
        *_seen(record.proof),
        record.peer.keeps,
    ]
    return f"| {' | '.join(cells)} |\n"


def _seen(proof: Proof | None) -> list[str]:
    if proof is None:
        return ["no"] * 3
    return ["yes" if seen else "no" for seen in (proof.gates, proof.signs, proof.stamps)]


def _sessions_of(records: Sequence[Record]) -> list[int]:
    return sorted({sessions for record in records for sessions in record.samples})


def _ratio(ours: Record | None, other: Record | None, sessions: int) -> float | None:
    mine, theirs = ours and ours.rate(sessions), other and other.rate(sessions)
    return mine / theirs if mine and theirs else None


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f} ×" if ratio else ""


def _peer_line(record: Record) -> str:
    counts = ", ".join(f"{count:,} at {sessions}" for sessions, count in sorted(record.messages.items()))
    version = f" ({record.peer.version()})" if not record.trouble and record.peer.version() else ""
    sent = f" Messages a pass: {counts}." if counts else ""
    return f"* **{record.peer.title}**{version}: {record.peer.note}{sent}\n"
