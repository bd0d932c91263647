"""How commands reach the store, and how they print: a table for people, JSON for programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

import click

from gateway.cli.rooms import room
from gateway.config import Config, load
from gateway.errors import ConfigError
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT, Clock, data_folder, open_store
from gateway.model import Stream
from gateway.store import Store, disk
from gateway.store.sqlite import DataFolder

T = TypeVar("T")

OUTPUT = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Instead of the terminal."
)
_BAR_WIDTH: Final = 40
_LEVELS: Final = "▁▂▃▄▅▆▇█"


class Desk:
    """What every command works with: the configuration file, and the form in which facts are wanted."""

    def __init__(self, path: Path, as_json: bool) -> None:
        self.path = path
        self.as_json = as_json
        self.now = Clock().now
        self._config: Config | None = None

    def config(self) -> Config:
        """Return the configuration, as it was when it was first asked for; raises `ConfigError` with its problems."""
        if self._config is None:
            self._config = load(self.path)
        return self._config

    def folder(self) -> DataFolder:
        """Return the data folder, which `migrate` or `serve` has made; raises `ConfigError` where there is none."""
        folder = data_folder(self.config())
        if not folder.spool.exists():
            raise ConfigError([f"there is no store in {folder.root} yet; run assent migrate, or name another data_dir"])
        return folder

    def stream(self, name: str) -> Stream:
        """Return a stream of the configuration; raises `UsageError` where there is none of that name."""
        streams = self.config().streams
        if name not in streams:
            raise click.UsageError(f"no such stream: {name}; there are {', '.join(streams)}")
        return streams[name]

    def with_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Open the store, do one piece of work, close it."""
        self.folder()

        async def run() -> T:
            store = open_store(self.config(), "operator", Ids(OPERATOR_SLOT, self.now), self.now)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Print one set of facts."""
        if self.as_json:
            click.echo(_as_json(facts, indent=2))
            return
        room("drawing").facts_table(facts)

    def list(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
        """Print a list of facts, or the sentence `empty`; one below the other where the terminal would cut words."""
        if self.as_json:
            click.echo(_as_json(list(rows), indent=2))
            return
        if not rows:
            click.echo(empty)
            return
        room("drawing").rows_table(rows, columns)

    def bars(self, counts: Mapping[str, int], whole: int) -> None:
        """Print counts with a bar each, of which the longest possible stands for the whole."""
        for name, count in counts.items():
            bar = "█" * round(_BAR_WIDTH * count / max(whole, 1))
            click.echo(f"{name:>14} {count:>10,} {bar}")

    def say(self, sentence: str, **facts: Any) -> None:
        """Print what has been done: the sentence for people, the facts for programs."""
        click.echo(_as_json(facts) if self.as_json else sentence)

    def must_be_new(self, output: Path | None) -> None:
        """Print that a file is there already, and exit 1, where an export would be written over it."""
        if output is not None and output.exists():
            self.no(f"{output} exists; an export is never overwritten", output=str(output))

    def exported(self, count: int, number: str, output: Path | None) -> None:
        """Say what an export came to: beside what it wrote, or as facts where that went to a file."""
        if self.as_json and output:
            click.echo(_as_json({"lines": count, "recorded": number, "output": str(output)}))
        else:
            click.echo(f"{count} lines, recorded as {number}", err=True)

    def no(self, sentence: str, **facts: Any) -> NoReturn:
        """Print why the answer is no, which is `why` among the facts for programs, and exit 1."""
        click.echo(_as_json({"why": sentence, **facts}) if self.as_json else sentence)
        sys.exit(1)


def pass_desk(command: Callable[..., None]) -> Callable[..., None]:
    """Hand a command the desk as its first argument, and let it take `--json` after its own name, too."""
    option = click.option("--json", is_flag=True, expose_value=False, callback=_wants_json, help="Print facts as JSON.")
    return option(click.make_pass_decorator(Desk)(command))


def _wants_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    desk = context.find_object(Desk)
    if desk is not None and value:
        desk.as_json = True


@contextmanager
def written_to(output: Path | None) -> Iterator[BinaryIO]:
    """Open what an export is written to: a file that is not there until it is whole, or the terminal."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with disk.new_file(output.absolute()) as file:
        yield file


def table_line(cells: Sequence[object]) -> bytes:
    """Return a line of a CSV file."""
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerow(cells)
    return sheet.getvalue().encode("utf-8", "backslashreplace")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show how far long work is, on a terminal; yields what is to be told that, from 0 to 1."""
    if not sys.stderr.isatty():
        yield lambda part: None
        return
    with room("drawing").bar(what) as step:
        yield step


def sparkline(counts: Sequence[int]) -> str:
    """Draw counts one after the other as a line of small bars; a gap where there was nothing."""
    most = max(counts, default=0)
    return "".join(_LEVELS[-(-count * len(_LEVELS) // most) - 1] if count else " " for count in counts)


def _as_json(facts: object, indent: int | None = None) -> str:
    """Return facts as JSON, times in it as everywhere (RFC 3339)."""
    return json.dumps(facts, indent=indent, default=_plain, ensure_ascii=False)


def _plain(value: object) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
