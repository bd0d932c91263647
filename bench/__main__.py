"""`python -m bench`: measure the parts that were asked for, print them, and keep them where that was asked too."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.machine import describe_machine
from bench.parts import Measure, Options, imports, large, newsletter, peers, people, queue, recipients
from bench.process import PassFailed, Unavailable, say
from bench.results import Part, bars_table, keep, kept_parts, render_part

PARTS: Final[Mapping[str, Measure]] = {
    "peers": peers.measure,
    "recipients": recipients.measure,
    "newsletter": newsletter.measure,
    "large": large.measure,
    "people": people.measure,
    "queue": queue.measure,
    "imports": imports.measure,
}


def main() -> int:
    """Run the bench; 0 where every part was measured and every bar that could be checked is met."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what runs is stopped on the way out
    asked = _read_arguments()
    if asked.render:
        keep(kept_parts())
        return 0
    options = Options(
        *(asked.rounds, asked.sessions, asked.messages, asked.only),
        *(asked.recipients, asked.people, asked.queued, asked.imported),
    )
    went_well = [_measure(name, options, write=asked.write) for name in asked.only_part]
    return int(not all(went_well))


def _measure(name: str, options: Options, *, write: bool) -> bool:
    """Measure one part, print it, keep it if that is wished; False where it failed or misses a bar."""
    say(f"== {name}")
    with tempfile.TemporaryDirectory(prefix="bench.", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # Postfix's own users must reach their queue
        facts = describe_machine(folder)
        try:
            part: Part = replace(PARTS[name](folder, options), facts=facts)
        except (PassFailed, Unavailable) as error:
            say(f"{name}: {error}")
            return False
    print(render_part(part), bars_table(part.bars), sep="\n", end="\n\n", flush=True)
    if write:
        keep([part])
    return not any(bar.is_missed for bar in part.bars)


def _read_arguments() -> argparse.Namespace:
    names = [peer.name for peer in peers.PEERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Assent's speed beside real peers.")
    parser.add_argument("--only-part", type=_words, default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=lambda text: [int(one) for one in text.split(",")], default=[20, 50])
    parser.add_argument("--messages", type=int, help="a pass (default: a few seconds' worth for each peer)")
    parser.add_argument("--only", type=_words, default=names, help=",".join(names))
    parser.add_argument("--recipients", type=int, default=1_000, help="of one submission")
    parser.add_argument("--people", type=int, default=10_000_000, help="in the larger store")
    parser.add_argument("--queued", type=int, default=1_000_000, help="recipients that wait")
    parser.add_argument("--imported", type=int, default=1_000_000, help="rows of a file")
    parser.add_argument("--write", action="store_true", help="keep the parts in results.json and write RESULTS.md")
    parser.add_argument("--render", action="store_true", help="measure nothing, write RESULTS.md from results.json")
    asked = parser.parse_args()
    _refuse_unknown(parser, "peer", asked.only, names)
    _refuse_unknown(parser, "part", asked.only_part, PARTS)
    return asked


def _words(text: str) -> list[str]:
    return text.split(",")


def _refuse_unknown(
    parser: argparse.ArgumentParser, what: str, asked: Sequence[str], known: Sequence[str] | Mapping[str, Measure]
) -> None:
    if unknown := set(asked) - set(known):
        parser.error(f"no such {what}: {', '.join(sorted(unknown))}")


if __name__ == "__main__":
    sys.exit(main())
