"""What is drawn for people, by rich: tables of facts, and a bar while long work is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

_UNBOUNDED: Final = 10_000
"""Columns of what is no terminal: a program that reads a table finds each row on one line."""


def facts_table(facts: Mapping[str, Any]) -> None:
    """Print one set of facts, a line each; what is longer than the terminal goes on below, whole."""
    _console().print(_told(facts))


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print these columns of the rows; one row below the other where the terminal would cut words."""
    table = Table(*(name.replace("_", " ") for name in columns))
    for row in rows:
        table.add_row(*(_shown(row[name]) for name in columns))
    console = _console()
    if console.measure(table, options=console.options.update(width=_UNBOUNDED)).minimum <= console.width:
        console.print(table)
        return
    for row in rows:
        console.print(_told({name: row[name] for name in columns}), "")


@contextmanager
def bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on the terminal's standard error until the work is done; yields what is to be told how far it is."""
    with Progress(console=Console(stderr=True), transient=True) as shown:
        step = shown.add_task(what, total=1.0)
        yield lambda part: shown.update(step, completed=part)


def _told(facts: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    return table


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, Mapping):
        value = [f"{name}: {one}" for name, one in value.items()]
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value))) or "-"
    return escape(str(value))
