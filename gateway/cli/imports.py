"""Commands that take in other systems' files: what they would do, doing it, and undoing it.

The rule that must not be broken: the whole file has been read, and its preview told, before the first of its rows is
applied; then opt-outs go first. What a file means is for `gateway.imports`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
from rich.progress import Progress

from gateway.address import Address
from gateway.cli.output import Desk, pass_desk, table_line
from gateway.cli.people import consent, known_topic, operator, registered_notice
from gateway.cli.suppressions import SCOPE, covered, suppressions
from gateway.consent import Place
from gateway.errors import Malformed
from gateway.evidence import Notice
from gateway.imports.ahead import ahead
from gateway.imports.formats import CONFIRMED, NAMES, OPT_IN
from gateway.imports.plan import PREVIEW, Effect, Judged, Run, Terms, judge
from gateway.imports.readers import read
from gateway.imports.rows import BadRow, Found, Row, WrongFile
from gateway.imports.stage import Stage, stage
from gateway.law import Law
from gateway.model import Scope
from gateway.store import Store, disk
from gateway.store.drafts import Draft, Told
from gateway.store.imports import APPLYING, UNDONE, Import, NotAtWork, SqliteImports
from gateway.store.sqlite import DataFolder

T = TypeVar("T")
_Place = Callable[[str], bytes]
_Advance = Callable[[int], None]

_READ_AT_ONCE = 2000
_PREVIEW_AT_ONCE = 512
_DRAFT_AT_ONCE = 512
_RECORD_AT_ONCE = 2048
"""More than a transaction takes, so that none is short."""

_TOO_MANY = 100_000
_OTHERS = 2
"""Processes that work out what will be written, which takes twice as long as writing it."""

_NAMED = 20
"""How many people the preview names whose confirmed opt-in an older opt-out overrides."""

_OPT_INS = (OPT_IN, CONFIRMED)
_OF_ROWS = _ROWS, _UNUSABLE, _PASSED_OVER, _BYSTANDERS = (
    "rows",
    "rows that cannot be used",
    "opt-ins passed over",
    "people who never subscribed passed over",
)
"""What is counted besides the effects."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FORMAT = click.Choice(NAMES)


@dataclass
class Tally:
    """What has been found so far."""

    format: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    overridden: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    leans_on: set[int] = field(default_factory=set)

    def add(self, found: Judged, address: str) -> None:
        self.counts[found.effect] += 1
        if found.effect is Effect.OVERRIDES and len(self.overridden) < _NAMED:
            self.overridden.append(address)
        if found.leans_on:
            self.leans_on.add(found.leans_on)
        if "*" in address and (entry := Address.parse(address)).is_whole_domain:
            self.domains.append(entry.key)


class _Prepared(NamedTuple):
    """Some rows, ready to be applied: digests to keep, drafts to record, and what each of these does if it holds.

    Both are plain tuples, which go through a pipe sooner than what they are made of.
    """

    digests: list[bytes]
    drafts: list[tuple[Any, ...]]
    judged: list[tuple[Any, ...]]


@suppressions.command("import")
@click.argument("file", type=FILE)
@click.option("--scope", type=SCOPE, required=True, help="What the opt-outs cover; a dead address is one for all.")
@click.option("--topic", default="", help="Needed with --scope topic.")
@click.option("--format", "form", type=FORMAT, default=None, help="Refuse the file if it is in another one.")
@click.option("--dry-run", is_flag=True, help="Count what it would do, and change nothing.")
@pass_desk
def suppressions_import(desk: Desk, file: Path, scope: str, topic: str, form: str | None, dry_run: bool) -> None:
    """Take in a file of people who must not be sent to."""
    _import(desk, file, form or "", Terms(covered(desk, scope, topic), topic, desk.now()), dry_run)


@consent.command("import")
@click.argument("file", type=FILE)
@click.option("--topic", required=True)
@click.option("--notice", default="", help="The registered notice under which they opted in; without it, unproven.")
@click.option("--attested-by", "attested_by", default="", help="Who answers for that; without it, unproven.")
@click.option("--format", "form", type=FORMAT, default=None, help="Refuse the file if it is in another one.")
@click.option("--dry-run", is_flag=True, help="Count what it would do, and change nothing.")
@pass_desk
def consent_import(
    desk: Desk, file: Path, topic: str, notice: str, attested_by: str, form: str | None, dry_run: bool
) -> None:
    """Take in a file of opt-ins; whoever opted out in it is suppressed for the topic."""
    known_topic(desk, topic)
    registered = registered_notice(desk, notice, topic) if notice else None
    attested = {**registered.facts, "attested_by": attested_by} if registered and attested_by else {}
    is_proof = partial(_is_proof, registered, desk.config().law) if registered and attested_by else None
    _import(desk, file, form or "", Terms(Scope.TOPIC, topic, desk.now(), True, attested, is_proof), dry_run)


def _is_proof(notice: Notice, law: Law, at: datetime, places: Sequence[Place]) -> bool:
    """True where a notice was shown then, and says what the law wants said to people who may be in these places."""
    return notice.was_shown(at) and (not places or set(law.request_states(places)) <= {*notice.states})


@suppressions.command("imports")
@pass_desk
def suppressions_imports(desk: Desk) -> None:
    """List what has been imported, consents too."""
    rows = [
        {"import": one.number, "file": one.file, "format": one.format, "by": one.by, "at": one.at, "state": one.state}
        for one in _with_imports(desk, _all)
    ]
    desk.list(rows, ["import", "file", "format", "by", "at", "state"], "nothing has been imported")


@suppressions.command("undo")
@click.argument("number", type=int, metavar="IMPORT")
@pass_desk
def suppressions_undo(desk: Desk, number: int) -> None:
    """Take back an import, of suppressions or of consents, as if it had never been."""
    known = {one.number: one for one in _with_imports(desk, _all)}
    if number not in known or known[number].state == UNDONE:
        desk.no(f"there is no import {number} to undo; see assent suppressions imports", undone=0)
    above = [one.number for one in known.values() if one.state != UNDONE and _may_lean(one, known[number])]
    if above:
        names = ", ".join(map(str, above))
        desk.no(f"import {names} said some of the same and did not repeat it; undo that first", undone=0, first=above)

    async def undo(imports: SqliteImports) -> int:
        people = 0
        while (portion := await imports.undo(number, operator())) is not None:
            people += portion
        return people

    people = _with_imports(desk, undo)
    desk.say(f"import {number} is undone: {people} people", undone=number, people=people)


def _may_lean(other: Import, this: Import) -> bool:
    """True where an import did not repeat what this one said, or stopped before it could tell.

    One that began while this one was at work, as it still is, repeated all of it.
    """
    if other.number == this.number or other.state != APPLYING:
        return this.number in other.leans_on
    return other.number < this.number or this.state != APPLYING


async def _all(imports: SqliteImports) -> list[Import]:
    return imports.all()


def _with_imports(desk: Desk, work: Callable[[SqliteImports], Awaitable[T]]) -> T:
    async def run() -> T:
        imports = desk.folder().open_imports(desk.now)
        try:
            return await work(imports)
        finally:
            await imports.close()

    return asyncio.run(run())


def _import(desk: Desk, file: Path, form: str, terms: Terms, dry_run: bool) -> None:
    """Read all of a file, then apply what stands in it, or only count that."""
    tally = Tally()
    folder = desk.folder()
    number = 0
    _collect_seldom()
    with stage(folder.root) as staged:
        try:
            errors = _read(file, form, terms, staged, tally, folder.order_of_people())
        except (WrongFile, OSError) as error:
            _refuse(desk, str(error))
        if dry_run:
            _preview(desk, staged, terms, tally)
        else:
            number = _apply(desk, file, staged, terms, tally)
    _report(desk, number, tally, errors)


@contextmanager
def _progress(what: str, rows: int) -> Iterator[_Advance]:
    with Progress(disable=not sys.stderr.isatty(), transient=True) as bar:
        yield partial(bar.advance, bar.add_task(what, total=rows))


def _collect_seldom() -> None:
    """Let the collector pass over what is loaded, and look seldom: a million rows leave no cycles behind."""
    gc.freeze()
    gc.set_threshold(100_000)


def _refuse(desk: Desk, sentence: str) -> NoReturn:
    desk.no(f"{sentence}. Nothing was imported.", error=sentence)


def _read(file: Path, form: str, terms: Terms, staged: Stage, tally: Tally, place: _Place) -> Path | None:
    """Fill the stage; return the file beside that tells the lines which cannot be used, if there are any."""
    bad: list[BadRow] = []
    found = _usable(read(file, form), terms, tally, place)
    while portion := list(islice(found, _READ_AT_ONCE)):
        staged.add(one for one in portion if not isinstance(one, BadRow))
        bad += [one for one in portion if isinstance(one, BadRow)]
        if len(bad) > _TOO_MANY:
            raise WrongFile(
                f"{file.name} has more than {_TOO_MANY} lines that cannot be used; the first, line"
                f" {bad[0].line}: {bad[0].why}"
            )
    tally.counts[_UNUSABLE] += len(bad)
    return write_beside(file, bad) if bad else None


def write_beside(file: Path, bad: Sequence[BadRow]) -> Path:
    """Tell the lines of a file that cannot be used in another one beside it."""
    beside = file.with_name(f"{file.name}.errors.csv")
    with disk.file_anew(beside) as told:
        told.writelines(map(table_line, [("line", "text", "why"), *((one.line, one.text, one.why) for one in bad)]))
    return beside


def _usable(
    rows: Iterator[tuple[str, Found]], terms: Terms, tally: Tally, place: _Place
) -> Iterator[tuple[bytes, Row] | BadRow]:
    """Yield what says something of somebody who can be named, with their place, in which it counts once."""
    for tally.format, row in rows:
        tally.counts[_ROWS] += 1
        if isinstance(row, BadRow):
            yield row
        elif row.is_bystander:
            tally.counts[_BYSTANDERS] += 1
        elif not terms.takes_consents and row.type in _OPT_INS:
            tally.counts[_PASSED_OVER] += 1
        else:
            yield _placed(row if row.type else replace(row, type=terms.said(row)), terms, place)


def _placed(row: Row, terms: Terms, place: _Place) -> tuple[bytes, Row] | BadRow:
    if row.algorithm and terms.takes_consents:
        return BadRow(row.line, row.subject, "a digest is no proof of an opt-in")
    if row.algorithm:
        return bytes.fromhex(row.subject), row
    if row.until and row.until <= terms.now:
        return BadRow(row.line, row.subject[:200], "the entry has lapsed")
    if row.at and row.at > terms.now and row.type in _OPT_INS:
        return BadRow(row.line, row.subject[:200], "the opt-in lies in the future")
    try:
        address = row.address
    except Malformed as error:
        return BadRow(row.line, row.subject[:200], str(error))
    if address.is_whole_domain and row.type in _OPT_INS:
        return BadRow(row.line, row.subject[:200], "nobody opts in for a whole domain")
    return place(address.key), row


def _preview(desk: Desk, staged: Stage, terms: Terms, tally: Tally) -> None:
    async def look(store: Store) -> None:
        rows = staged.rows()
        with _progress("would apply", len(staged)) as advance:
            while portion := list(islice(rows, _PREVIEW_AT_ONCE)):
                people = [(one, one.address) for _, one in portion if not one.algorithm]
                known = await store.people.facts([address for _, address in people])
                for (row, address), facts in zip(people, known, strict=True):
                    event = terms.event(row, address, PREVIEW, facts.standing)
                    tally.add(judge(facts.standing, event), address.text)
                tally.counts[Effect.DIGEST] += len(portion) - len(people)
                advance(len(portion))

    desk.with_store(look)


def _apply(desk: Desk, file: Path, staged: Stage, terms: Terms, tally: Tally) -> int:
    """Apply what has been read, opt-outs first; return the number of the import.

    What can be worked out before it is written is, by other processes, which are forked while no database is open.
    """
    number, unfinished = _with_imports(desk, lambda imports: imports.begin(str(file), operator()))
    prepare = partial(_prepared, desk.folder(), terms, Run(number, unfinished))
    try:
        for what, pile in (("opt-outs", staged.opt_outs), ("consents", staged.consents)):
            shares = [partial(prepare, partial(pile.rows, n, _OTHERS)) for n in range(_OTHERS)]
            with ahead(*shares) as portions, _progress(f"applying {what}", len(pile)) as advance:
                record = partial(_record_all, number=number, portions=portions, terms=terms, tally=tally)
                _with_imports(desk, partial(record, advance=advance))
        _with_imports(desk, partial(_finish, number=number, tally=tally))
    except NotAtWork as error:
        desk.no(f"{error}: nothing of it is left", error=str(error))
    return number


def _prepared(
    folder: DataFolder, terms: Terms, run: Run, read_rows: Callable[[], Iterator[tuple[bytes, Row]]]
) -> Iterator[_Prepared]:
    """Yield rows ready to be applied."""
    rows = read_rows()
    with folder.open_drafter() as drafter:
        while portion := list(islice(rows, _DRAFT_AT_ONCE)):
            told = [_told(place, row, terms, run) for place, row in portion if not row.algorithm]
            drafts = drafter.draft(told)
            yield _Prepared(
                [place for place, row in portion if row.algorithm],
                [tuple(draft) for draft, _ in drafts],
                [tuple(judge(before, one.event(before))) for one, (_, before) in zip(told, drafts, strict=True)],
            )


def _told(place: bytes, row: Row, terms: Terms, run: Run) -> Told:
    return Told(place, row.address, partial(terms.event, row, row.address, run))


async def _record_all(
    imports: SqliteImports, number: int, portions: Iterator[_Prepared], terms: Terms, tally: Tally, advance: _Advance
) -> None:
    waiting: list[tuple[Draft, Judged]] = []
    for portion in portions:
        await imports.add_digests(number, portion.digests, terms.scope, terms.topic)
        tally.counts[Effect.DIGEST] += len(portion.digests)
        advance(len(portion.digests))
        waiting += zip(map(Draft._make, portion.drafts), map(Judged._make, portion.judged), strict=True)
        while len(waiting) >= _RECORD_AT_ONCE:
            waiting = await _record(imports, number, waiting, tally, advance)
    while waiting:
        waiting = await _record(imports, number, waiting, tally, advance)


async def _record(
    imports: SqliteImports, number: int, waiting: list[tuple[Draft, Judged]], tally: Tally, advance: _Advance
) -> list[tuple[Draft, Judged]]:
    """Record the first of these; return the others."""
    before = await imports.apply(number, [draft for draft, _ in waiting])
    for stood, (draft, judged) in zip(before, waiting, strict=False):
        tally.add(judged if stood is None else judge(stood, draft.event), draft.address)
    advance(len(before))
    return waiting[len(before) :]


async def _finish(imports: SqliteImports, number: int, tally: Tally) -> None:
    if tally.counts[Effect.DIGEST]:
        await _match(imports)
    await imports.finish(number, tally.format, tally.counts, sorted(tally.leans_on))


async def _match(imports: SqliteImports) -> None:
    """Look for known people among the digests."""
    after: bytes | None = b""
    while after is not None:
        after = await imports.match_digests(after)


def _report(desk: Desk, number: int, tally: Tally, errors: Path | None) -> None:
    counts = {str(name): tally.counts[name] for name in (*_OF_ROWS, *Effect) if tally.counts[name]}
    told: dict[str, Any] = {"format": tally.format, "counts": counts, "import": number or None}
    if tally.overridden:
        told["confirmed_later"] = sorted(tally.overridden)
    if tally.domains:
        told["whole_domains"] = sorted(tally.domains)
    if errors:
        told["errors"] = str(errors)
    desk.tell(told if desk.as_json else {name: one for name, one in {**told, **counts}.items() if name != "counts"})


"""The two groups are complete once this module has added what it knows."""
