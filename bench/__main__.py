"""`python -m bench`: every peer in turn, round after round, then the table.

The one rule: in a round each peer has its turn alone, with nothing of the others running, and gets the same
message, key and readers. A peer that cannot run, or fails a pass, stands in the table with the reason.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import measure_latency, measure_rate
from bench.machine import describe_machine
from bench.peers import Peer
from bench.peers.assent import Assent
from bench.peers.ceiling import Ceiling
from bench.peers.haraka import Haraka, HarakaNoDelay
from bench.peers.postfix import Postfix, PostfixOpenDKIM, PostfixOpenDKIMUnix
from bench.process import PassFailed, Unavailable, free_port
from bench.proof import observe
from bench.sink import CountingSink, KeepingSink
from bench.table import OURS, Record, Sample, check_bars, render
from bench.workload import Workload, prepare_workload

PEERS = (Assent, PostfixOpenDKIM, PostfixOpenDKIMUnix, Postfix, Haraka, HarakaNoDelay, Ceiling)
RESULTS = Path(__file__).with_name("RESULTS.md")
READERS = 10_000
WARM_UP = 500
PASS_SECONDS = 4.0
LATENCY_MESSAGES = 1_500


def main() -> int:
    """Run the bench; 0 where every bar that could be checked is met."""
    options = _read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what runs is stopped on the way out
    with tempfile.TemporaryDirectory(prefix="bench.", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # Postfix's own users must reach their queue
        facts = describe_machine(folder)
        records = _run(folder, options)
        report = render(records, facts, options.rounds)
    print(report)
    if options.write:
        RESULTS.write_text(report)
    ours_failed = any(record.trouble for record in records if record.peer.name == OURS)
    return int(ours_failed or any(check.ratio is not None and not check.is_met for check in check_bars(records)))


def _read_options() -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Assent's speed beside real peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=lambda text: [int(one) for one in text.split(",")], default=[20, 50])
    parser.add_argument("--messages", type=int, help=f"a pass (default: {PASS_SECONDS:g} seconds' worth for each peer)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=",".join(names))
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md")
    options = parser.parse_args()
    if unknown := set(options.only) - set(names):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    return options


def _run(folder: Path, options: argparse.Namespace) -> list[Record]:
    workload = prepare_workload(folder, free_port(), READERS)
    records = [Record(peer(workload)) for peer in PEERS if peer.name in options.only]
    for record in records:
        with _troubles_of(record, folder / record.peer.name):
            _prepare(record, workload, folder / record.peer.name)
    for number in range(1, options.rounds + 1):
        for record in (one for one in records if not one.trouble):
            _say(f"round {number} of {options.rounds}: {record.peer.title}")
            with _troubles_of(record, folder / record.peer.name):
                _take_turn(record, workload, options)
    return records


def _prepare(record: Record, workload: Workload, folder: Path) -> None:
    """Prepare a peer and look at what it does with one message."""
    _say(f"preparing {record.peer.title}")
    folder.mkdir()
    record.peer.prepare(folder)
    if record.peer.port != workload.sink_port:
        with KeepingSink(workload.sink_port, folder / "seen") as sink, _running(record.peer):
            record.proof = observe(workload, record.peer.port, sink)


def _take_turn(record: Record, workload: Workload, options: argparse.Namespace) -> None:
    """One peer's turn in one round: a warm-up, then for each number of sessions a rate and a latency."""
    port = record.peer.port
    with CountingSink(workload.sink_port) as sink, _running(record.peer):
        warm = measure_rate(workload, port, sink, sessions=max(options.sessions), messages=WARM_UP)
        for sessions in options.sessions:
            messages = record.messages.setdefault(sessions, options.messages or _worth_a_pass(warm))
            rate = measure_rate(workload, port, sink, sessions=sessions, messages=messages)
            latency = measure_latency(workload, port, sink, sessions=sessions, messages=min(messages, LATENCY_MESSAGES))
            record.samples.setdefault(sessions, []).append(Sample(rate, latency))
            _say(f"    {sessions} sessions: {rate:,.0f}/s, p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms")


def _worth_a_pass(rate: float) -> int:
    return max(WARM_UP, min(READERS, round(rate * PASS_SECONDS / 100) * 100))


@contextmanager
def _running(peer: Peer) -> Iterator[None]:
    peer.start()
    try:
        yield
    finally:
        peer.stop()


@contextmanager
def _troubles_of(record: Record, folder: Path) -> Iterator[None]:
    """A peer that fails is out of the run; the table says why, and its logs' last words are printed."""
    try:
        yield
    except (Unavailable, PassFailed, OSError) as error:
        record.trouble = " ".join(str(error).split())
        _say(f"    {record.peer.title}: {record.trouble}")
        for log in folder.glob("*.log"):
            _say(f"{log.name} ends:\n{log.read_text(errors='replace')[-3000:]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
