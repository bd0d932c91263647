"""Who of a list would get a stream's next message: the same facts and the same policy as at the door, and no mail."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.progress import Progress

from gateway.classify import Unsaid, purposes_asked
from gateway.cli import assent
from gateway.cli.imports import FILE, FORMAT, write_beside
from gateway.cli.output import Desk, pass_desk, table_line
from gateway.consent import Standing
from gateway.errors import Malformed
from gateway.imports.formats import OPT_OUT
from gateway.imports.readers import read
from gateway.imports.rows import BadRow, Row, WrongFile
from gateway.imports.stage import Stage, stage
from gateway.law import Law
from gateway.model import Purpose, Verdict
from gateway.policy import refused_by_all, strictest
from gateway.store import Now, Store, disk

_AT_ONCE = 1000


@dataclass
class Outcome:
    """What has been found so far; `lists` are for those who would get it, and for the others."""

    lists: tuple[BinaryIO, BinaryIO] | None
    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    allowed: int = 0
    in_shadow: int = 0
    is_paused: bool = False
    related: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, address: str, verdict: Verdict) -> None:
        self.allowed += verdict.may_send
        self.in_shadow += bool(verdict.leave)
        if not verdict.may_send:
            self.refused[str(verdict.reason)] += 1
        if self.lists:
            self.lists[not verdict.may_send].write(table_line([address, str(verdict.reason or "")]))


@dataclass(frozen=True, slots=True)
class Trial:
    """A message that is not sent, and the law under which it would be."""

    purposes: Sequence[Purpose]
    law: Law
    now: Now

    def verdict(self, standing: Standing) -> Verdict:
        """Decide as the door does: at RCPT, then at DATA."""
        now = self.now()
        refused = refused_by_all(self.purposes, standing, self.law, now)
        return refused or strictest(self.purposes, standing, self.law, now)


@assent.command()
@click.argument("file", type=FILE)
@click.option("--stream", required=True, help="The stream that the message would be of.")
@click.option("--topic", default="", help="Its topic; without it, every topic of the stream must allow a recipient.")
@click.option("--product", default="", help="What a product message would be about.")
@click.option("--policy-version", "version", default="", help="What a policy notice would be about.")
@click.option("--format", "form", type=FORMAT, default=None, help="Refuse the file if it is in another one.")
@click.option("--write", default="", metavar="ALLOWED,REFUSED", help="Two files (CSV) for who would get it, who not.")
@pass_desk
def simulate(
    desk: Desk, file: Path, stream: str, topic: str, product: str, version: str, form: str | None, write: str
) -> None:
    """Count who of a list would get a stream's next message, and why the others would not; nothing is sent.

    FILE is what the imports read: an address a line, or a vendor's own file. What that says of somebody's status does
    not count here, only what the store knows. Of a stream that is paused it is told that, and who would get mail of it
    once it is released.
    """
    config, published = desk.config(), desk.with_store(_published)
    purposes = purposes_asked(
        desk.stream(stream), config.topics, published, topic=topic, product=product, policy_version=version
    )
    if isinstance(purposes, Unsaid):
        raise click.UsageError(f"--{purposes.field.replace('_', '-')}: {purposes.sentence}")
    trial = Trial(purposes, config.law, desk.now)
    with ExitStack() as files:
        outcome = Outcome(_lists(write, file, files))
        staged = files.enter_context(stage(desk.folder().root))
        bar = files.enter_context(Progress(disable=not sys.stderr.isatty(), transient=True))
        try:
            _read(file, form or "", staged, outcome)
        except WrongFile as error:
            desk.no(f"{error}. Nobody was looked at.", error=str(error))
        step = bar.add_task("deciding", total=len(staged))
        rows = (row for _, row in staged.rows())

        async def try_out(store: Store) -> None:
            outcome.is_paused = store.people.orders().is_paused(stream)
            await _decide(store, trial, rows, outcome, partial(bar.advance, step))

        desk.with_store(try_out)
    _tell(desk, stream, file, outcome)


async def _published(store: Store) -> list[str]:
    return [one.version for one in store.people.orders().policies]


def _lists(write: str, source: Path, files: ExitStack) -> tuple[BinaryIO, BinaryIO] | None:
    if not write:
        return None
    names = write.split(",")
    if len(names) != 2 or not all(names):
        raise click.UsageError("--write takes two names with a comma between them")
    targets = [Path(one) for one in names]
    if len({one.resolve() for one in (*targets, source)}) != 3:
        raise click.UsageError("--write names two files besides the list itself, which would be overwritten")
    allowed, refused = (files.enter_context(disk.file_anew(one)) for one in targets)
    allowed.write(table_line(["address", "only in shadow mode for"]))
    refused.write(table_line(["address", "reason"]))
    return allowed, refused


def _read(file: Path, form: str, staged: Stage, outcome: Outcome) -> None:
    """Stage each address once; a digest names nobody who could be sent to."""
    found = read(file, form)
    while portion := [one for _, one in islice(found, _AT_ONCE)]:
        outcome.rows += len(portion)
        outcome.bad += [one for one in portion if isinstance(one, BadRow)]
        staged.add(_named((one for one in portion if isinstance(one, Row)), outcome))


def _named(rows: Iterator[Row], outcome: Outcome) -> Iterator[tuple[bytes, Row]]:
    for row in rows:
        try:
            if row.algorithm:
                raise Malformed("a digest is no address")
            yield row.address.key.encode(), replace(row, type=OPT_OUT, at=None)
        except Malformed as error:
            outcome.bad.append(BadRow(row.line, row.subject[:200], str(error)))


async def _decide(
    store: Store, trial: Trial, rows: Iterator[Row], outcome: Outcome, advance: Callable[[int], None]
) -> None:
    trial = replace(trial, law=trial.law.under(store.people.orders().policies))
    while portion := [one.address for one in islice(rows, _AT_ONCE)]:
        for address, facts in zip(portion, await store.people.facts(portion), strict=True):
            verdict = trial.verdict(facts.standing)
            outcome.add(address.text, verdict)
            outcome.related += verdict.may_send and bool(await store.people.related(address))
        advance(len(portion))


def _tell(desk: Desk, stream: str, file: Path, outcome: Outcome) -> None:
    looked_at = outcome.allowed + outcome.refused.total()
    facts: dict[str, Any] = {
        "stream": stream,
        "paused": outcome.is_paused,
        "recipients": looked_at,
        "would_get_it": outcome.allowed,
        "only_in_shadow_mode": outcome.in_shadow,
        "suppressed_under_another_spelling": outcome.related,
        "refused": dict(outcome.refused.most_common()),
        "named_twice": outcome.rows - len(outcome.bad) - looked_at,
        "not_usable": len(outcome.bad),
        "errors": str(write_beside(file, outcome.bad)) if outcome.bad else None,
    }
    if desk.as_json:
        desk.tell(facts)
        return
    desk.bars({"would get it": outcome.allowed, **dict(outcome.refused.most_common())}, looked_at)
    desk.tell({name: value for name, value in facts.items() if name not in ("would_get_it", "refused") and value})
