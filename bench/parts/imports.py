"""Files of a million rows taken in: rows a second, the memory that takes, and how long a click waits meanwhile.

The one rule: a file is taken in by `assent consent import` or `assent suppressions import` as anybody would, from the
start of the command to its end, into a real store that is verified afterwards.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.parts import Options
from bench.peers.assent import Assent
from bench.process import PassFailed, free_port, say
from bench.results import Bar, Part, Table
from bench.workload import prepare_workload
from gateway.store.writer import Writer

WANTED: Final = 20_000
MOST_MS: Final = 50.0
MOST_MEMORY: Final = 1.25
FEW: Final = 10
"""The small file has as many rows as the large one, divided by this."""

_EVERY: Final = 0.05
_HEADER: Final = "Email Address,First Name,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,LAST_CHANGED"
_FIRST: Final = datetime(2026, 1, 1, 10, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one file: its rows, seconds, most memory in octets, and the seconds of each wait of a writer."""

    what: str
    rows: int
    seconds: float
    memory: int
    waits: Sequence[float]

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def wait_ms(self) -> float:
        """The wait in milliseconds that one writer in a hundred exceeds."""
        return quantiles(self.waits, n=100)[98] * 1000 if len(self.waits) > 1 else 0.0


def measure(folder: Path, options: Options) -> Part:
    """Take in opt-ins, a few and many, of people who are not known, then opt-outs of the same people."""
    workload = prepare_workload(folder, free_port(), 1)
    assent = Assent(workload, folder / "var")
    assent.prepare(folder)
    join = ("consent", "import", "--topic", "product-announcements", "--notice", "news", "--attested-by", "Ann Example")
    stop = ("suppressions", "import", "--scope", "all-marketing")
    few = max(options.imported // FEW, 1)
    small = _written(folder / "few.csv", _opt_ins("few", few))
    large = _written(folder / "many.csv", _opt_ins("many", options.imported))
    listed = _written(folder / "many.txt", map("many{}@customer{}.example.com".format, *_numbers(options.imported)))
    taken = [
        _take_in(assent, folder, "opt-ins of strangers", few, (*join, small)),
        _take_in(assent, folder, "opt-ins of strangers", options.imported, (*join, large)),
        _take_in(assent, folder, "opt-outs of people who are known", options.imported, (*stop, listed)),
    ]
    verified = subprocess.run(assent.command("ledger", "verify"), capture_output=True, text=True)
    if verified.returncode:
        raise PassFailed(f"the ledger is not whole: {verified.stdout[:800]}")
    return _part(taken)


def _numbers(rows: int) -> tuple[Iterator[int], Iterator[int]]:
    return iter(range(rows)), (n % 997 for n in range(rows))


def _opt_ins(name: str, rows: int) -> Iterator[str]:
    """Yield a table as Mailchimp exports it, a minute between one opt-in and the next."""
    yield _HEADER
    for n in range(rows):
        at = f"{_FIRST + timedelta(seconds=n * 20 % 20_000_000):%Y-%m-%d %H:%M:%S}"
        yield f"{name}{n}@customer{n % 997}.example.com,Ann,{at},192.0.2.1,,,{at}"


def _written(path: Path, lines: Iterator[str]) -> str:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    return str(path)


def _take_in(assent: Assent, folder: Path, what: str, rows: int, arguments: Sequence[str]) -> Taken:
    began = time.monotonic()
    with (folder / "import.log").open("wb") as log:
        importing = subprocess.Popen(assent.command(*arguments), cwd=folder, stdout=log, stderr=log)
        waits = asyncio.run(_waits(folder / "var" / "assent.db", lambda: _has_ended(importing.pid)))
        _, status, used = os.wait4(importing.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise PassFailed(f"the import ended with {status}: {(folder / 'import.log').read_text()[-800:]}")
    taken = Taken(what, rows, seconds, used.ru_maxrss * 1024, waits)
    say(f"{rows:,} {what}: {taken.rate:,.0f} rows/s, {taken.memory / 2**20:.0f} MiB, {taken.wait_ms:.0f} ms")
    return taken


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


async def _waits(people: Path, is_over: Callable[[], bool]) -> list[float]:
    """Commit nothing again and again, as a click would something, and return how long each time that took."""
    writer, waits = Writer(people), list[float]()
    try:
        while not is_over():
            began = time.monotonic()
            await writer.do(lambda _: None)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(_EVERY)
    finally:
        await writer.close()
    return waits


def _part(taken: Sequence[Taken]) -> Part:
    few, many, _ = taken
    rows = f"{many.rows:,} rows"
    return Part(
        name="imports",
        title="Files of a million rows",
        about=(
            "`assent consent import` of a Mailchimp table under a notice, then `assent suppressions import` of a plain "
            "list of the same addresses, each from the start of the command to its end; once each. Meanwhile another "
            f"process commits every {_EVERY * 1000:.0f} ms, as clicks do."
        ),
        tables=[
            Table(
                ("file", "rows", "rows/s", "most memory, MiB", "a writer waits, ms: median", "99th percentile"),
                [
                    (one.what, one.rows, round(one.rate), one.memory / 2**20, median(one.waits) * 1000, one.wait_ms)
                    for one in taken
                ],
            )
        ],
        bars=[
            *(Bar(f"{one.what}, {rows}", WANTED, one.rate, "rows/s") for one in taken[1:]),
            Bar(f"memory for {rows}", MOST_MEMORY, many.memory / few.memory, f"× that for {few.rows:,}", at_most=True),
            Bar("a writer beside an import waits", MOST_MS, max(one.wait_ms for one in taken[1:]), "ms", at_most=True),
        ],
    )
