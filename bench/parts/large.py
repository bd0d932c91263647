"""Messages of a megabyte: how many of them are taken in, and relayed, in a second.

The one rule: taken in means answered 250 to the final dot. Peers run beside as in `peers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from bench.load import Intake, measure_intake
from bench.parts import Options
from bench.peers import OURS, Entrant, running
from bench.peers.assent import Assent
from bench.peers.ceiling import Ceiling
from bench.peers.postfix import Postfix, PostfixOpenDKIMUnix
from bench.process import free_port, say
from bench.results import Bar, Cell, Part, Table
from bench.sink import CountingSink
from bench.workload import Workload, prepare_workload

PEERS: Final = (Assent, PostfixOpenDKIMUnix, Postfix, Ceiling)
MEGABYTE: Final = 1_000_000
SESSIONS: Final = 20
MESSAGES: Final = 300
WARM_UP: Final = 20
READERS: Final = 1_000
WANTED: Final = 60.0


@dataclass(slots=True)
class Record(Entrant):
    """What each round found of one peer."""

    intakes: list[Intake] = field(default_factory=list)


def measure(folder: Path, options: Options) -> Part:
    """Run every peer in turn, round after round."""
    workload = prepare_workload(folder, free_port(), READERS, attached=MEGABYTE)
    records = [Record(peer(workload)) for peer in PEERS if peer.name in options.peers]
    for record in records:
        own = folder / record.peer.name
        own.mkdir()
        with record.at_risk(own):
            record.peer.prepare(own)
    for number in range(1, options.rounds + 1):
        for record in (one for one in records if not one.trouble):
            with record.at_risk(folder / record.peer.name):
                _take_turn(record, workload, options.messages or MESSAGES)
                say(f"round {number} of {options.rounds}: {record.peer.title}: {record.intakes[-1].accepted:.0f}/s")
    return _part(records, len(workload.message()) / MEGABYTE, options)


def _take_turn(record: Record, workload: Workload, messages: int) -> None:
    with CountingSink(workload.sink_port) as sink, running(record.peer):
        measure_intake(workload, record.peer.port, sink, sessions=SESSIONS, messages=WARM_UP)
        record.intakes.append(measure_intake(workload, record.peer.port, sink, sessions=SESSIONS, messages=messages))


def _part(records: list[Record], megabytes: float, options: Options) -> Part:
    ours = next((_median(one, megabytes)[0] for one in records if one.peer.name == OURS), None)
    return Part(
        name="large",
        title="Messages of a megabyte",
        about=(
            f"The newsletter with an attachment, {megabytes:.2f} MB, {options.messages or MESSAGES:,} a pass at "
            f"{SESSIONS} sessions. Taken in: from the first connection to the last 250. Medians of "
            f"{options.rounds} rounds in turn."
        ),
        tables=[
            Table(("", "MB/s taken in", "MB/s relayed", "its 250 means"), [_row(one, megabytes) for one in records])
        ],
        bars=[Bar("messages of 1 MB taken in", WANTED, ours, "MB/s")],
    )


def _row(record: Record, megabytes: float) -> list[Cell]:
    if record.trouble:
        return [f"{record.peer.title}: {record.trouble}", None, None, None]
    return [record.peer.title, *_median(record, megabytes), record.peer.keeps]


def _median(record: Record, megabytes: float) -> tuple[float, float]:
    accepted, relayed = (median(getattr(one, name) for one in record.intakes) for name in ("accepted", "relayed"))
    return accepted * megabytes, relayed * megabytes
