"""Commands for what the law gives a time for: requests that people make by right, and breaches of personal data."""

from __future__ import annotations

import codecs
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk, table_line, written_to
from gateway.cli.people import ADDRESS, NAME, TIME, WHY, operator
from gateway.consent import EventType, NewEvent
from gateway.decisions import export_line
from gateway.errors import Malformed
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT
from gateway.rights import Answer, Breach, Request, Right
from gateway.store import Store

_AT_ONCE = 500
_BETWEEN = re.compile(r'[\s,;:<>()\[\]"]+')
_HOST = re.compile(r"[\w.-]*\w")
_JOINT = re.compile(r"[!#$%&'*/=?^`{|}~\\]")
"""What may stand in a local part (RFC 5322 §3.2.3), and just as well between two fields or before a value."""

_LONGEST_LOCAL_PART = 64
"""Octets (RFC 5321 §4.5.3.1.1)."""


@assent.group()
def requests() -> None:
    """What people ask for by right, and by when it must be answered (GDPR 12)."""


@requests.command("add")
@click.argument("address", type=ADDRESS)
@click.option("--right", type=click.Choice([one.value for one in Right]), required=True)
@click.option("--received", type=TIME, default=None, help="When it came in, UTC; now unless told.")
@pass_desk
def requests_add(desk: Desk, address: Address, right: str, received: datetime | None) -> None:
    """Record a request; its month begins when it came in."""
    at = received or desk.now()
    if at > desk.now():
        raise click.UsageError("--received lies in the future")
    number = secrets.token_hex(4)
    facts = {"request": number, "right": right, "channel": "operator", "operator": operator()}
    personal = {"address": address.text}
    event = NewEvent(EventType.RIGHT_REQUESTED, address, at, facts=facts, personal=personal)
    desk.with_store(lambda store: store.people.record([event]))
    found = _find(desk, number)
    desk.say(f"request {number}, to be answered by {found.due:%Y-%m-%d}", request=number, due=found.due)


@requests.command("list")
@click.option("--all", "every", is_flag=True, help="Those that have been answered, too.")
@pass_desk
def requests_list(desk: Desk, every: bool) -> None:
    """List the requests that are open, and when each is due."""

    async def gather(store: Store) -> list[dict[str, Any]]:
        found = [one for one in await store.people.requests() if every or one.answer is None]
        return [_row(one, await store.people.address_of(one.person)) for one in found]

    rows = sorted(desk.with_store(gather), key=lambda row: str(row["due"]))
    columns = ["request", "address", "right", "received", "due", "answer", "reason", "article"]
    desk.list(rows, columns, "no requests" if every else "no open requests")


@requests.command("extend")
@click.argument("number")
@click.option("--why", type=WHY, required=True, help="As the person was told within the first month.")
@pass_desk
def requests_extend(desk: Desk, number: str, why: str) -> None:
    """Take two more months, for what is complex or many (GDPR 12(3)); the person must have been told why."""
    found = _open(desk, number)
    if found.is_extended or desk.now() > found.due:
        desk.no(f"request {number} cannot be extended any more; it is due by {found.due:%Y-%m-%d}", request=number)
    _record(desk, found, EventType.RIGHT_EXTENDED, {"why": why})
    due = _find(desk, number).due
    desk.say(f"request {number} is to be answered by {due:%Y-%m-%d}", request=number, due=due)


@requests.command("answer")
@click.argument("number")
@click.argument("answer", type=click.Choice([one.value for one in Answer]))
@click.option("--reason", type=WHY, default="", help="Why not, or not all of it; needed unless it is accepted.")
@click.option("--article", default="", help='What that rests on, "GDPR 17(3)(e)"; needed unless it is accepted.')
@pass_desk
def requests_answer(desk: Desk, number: str, answer: str, reason: str, article: str) -> None:
    """Record how a request was answered, case by case; what was asked for is done by its own command."""
    if answer != Answer.ACCEPTED and not (reason.strip() and article.strip()):
        raise click.UsageError("a request is refused, even in part, with --reason and --article (GDPR 12(4))")
    found = _open(desk, number)
    _record(desk, found, EventType.RIGHT_ANSWERED, {"answer": answer, "reason": reason, "article": article})
    _answered_so(desk, number, answer)
    desk.say(f"request {number} is answered: {answer}", request=number, answer=answer)


def _row(one: Request, address: Address | None) -> dict[str, Any]:
    return {
        "request": one.id,
        "address": address.text if address else "(erased)",
        "right": one.right,
        "received": one.received_at.isoformat(timespec="seconds"),
        "due": one.due.isoformat(timespec="seconds"),
        "answer": one.answer,
        "reason": one.reason,
        "article": one.article,
    }


def _find(desk: Desk, number: str) -> Request:
    found = [one for one in desk.with_store(lambda store: store.people.requests()) if one.id == number]
    return found[0] if found else desk.no(f"there is no request {number}", request=number)


def _open(desk: Desk, number: str) -> Request:
    return _answered_so(desk, number, None)


def _answered_so(desk: Desk, number: str, answer: str | None) -> Request:
    """Return a request; it is said to have been answered where it has been otherwise, by whoever was sooner."""
    found = _find(desk, number)
    if found.answer != answer:
        desk.no(f"request {number} has been answered: {found.answer}", request=number, answer=found.answer)
    return found


def _record(desk: Desk, about: Request, kind: EventType, told: dict[str, Any]) -> None:
    facts = {"request": about.id, "channel": "operator", "operator": operator(), **told}
    event = NewEvent(kind, about.person, desk.now(), facts=facts)
    desk.with_store(lambda store: store.people.record([event]))


@assent.group()
def breach() -> None:
    """When personal data has got out: the 72 hours, and whom to tell (GDPR 33, 34)."""


@breach.command("open")
@click.argument("name", type=NAME)
@click.option("--known", type=TIME, default=None, help="When it became known, UTC; now unless told.")
@click.option("--what", type=WHY, required=True, help="What has happened, as far as it is known.")
@pass_desk
def breach_open(desk: Desk, name: str, known: datetime | None, what: str) -> None:
    """Record a breach; 72 hours after it became known the authority must have been told."""
    at = known or desk.now()
    if at > desk.now():
        raise click.UsageError("--known lies in the future")
    opened = Breach(name, what, at)
    if not desk.with_store(lambda store: store.people.open_breach(opened, operator())):
        desk.no(f"there is a breach {name} already", breach=name)
    desk.say(
        f"breach {name}: the authority is to be told by {opened.due:%Y-%m-%d %H:%M} UTC", breach=name, due=opened.due
    )


@breach.command("reported")
@click.argument("name")
@click.option("--at", "told_at", type=TIME, default=None, help="When the authority was told, UTC; now unless told.")
@pass_desk
def breach_reported(desk: Desk, name: str, told_at: datetime | None) -> None:
    """Record that the authority has been told, which ends the alarm."""
    at = told_at or desk.now()
    found = [one for one in _breaches(desk) if one.name == name]
    if not found:
        desk.no(f"there is no breach {name}", breach=name)
    if not found[0].known_at <= at <= desk.now():
        raise click.UsageError(f"--at lies in the future, or before {found[0].known_at:%Y-%m-%d %H:%M} UTC")
    desk.with_store(lambda store: store.people.close_breach(name, at, operator()))
    desk.say(f"breach {name} was reported at {at:%Y-%m-%d %H:%M} UTC", breach=name, reported_at=at)


@breach.command("list")
@pass_desk
def breach_list(desk: Desk) -> None:
    """List the breaches, and by when the authority has to know of each."""
    rows = [
        {"breach": one.name, "what": one.what, "known": one.known_at, "due": one.due, "reported": one.reported_at}
        for one in _breaches(desk)
    ]
    desk.list(rows, ["breach", "what", "known", "due", "reported"], "no breaches")


@breach.command("affected")
@click.argument("name")
@click.option("--file", "leaked", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What got out.")
@click.option("--from", "since", type=TIME, default=None, help="The span of time, UTC, whose records got out.")
@click.option("--until", type=TIME, default=None, help="Its end.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A CSV file to be made.")
@pass_desk
def breach_affected(
    desk: Desk, name: str, leaked: Path | None, since: datetime | None, until: datetime | None, output: Path
) -> None:
    """Write down whom a breach concerns, for a mailing through a stream of class breach-notice.

    Of a leaked file, everybody in it whom we know; of a span of time, everybody of whom something was decided or
    recorded in it. That the list was taken is recorded.
    """
    if (leaked is None) == (since is None) or (since is None) != (until is None):
        raise click.UsageError("name what got out: a --file, or a span of time --from and --until")
    if since and until and until <= since:
        raise click.UsageError("--until is not after --from: nobody would be in it")
    if not any(one.name == name for one in _breaches(desk)):
        desk.no(f"there is no breach {name}; begin with assent breach open", breach=name)
    desk.must_be_new(output)
    number = Ids(OPERATOR_SLOT, desk.now).decision()

    async def take(store: Store) -> tuple[list[str], int]:
        if leaked:
            found, digests = [one async for one in _known_in(leaked, store)], 0
        else:
            assert since and until
            found, digests = await _named(store, desk.folder().concerned(since, until))
        store.spool.note([export_line(number, desk.now(), f"breach {name}", "csv", len(found), operator())])
        return found, digests

    found, digests = desk.with_store(take)
    with written_to(output) as file:
        file.writelines(map(table_line, [["address"], *([one] for one in found)]))
    desk.say(
        f"{len(found)} people, recorded as {number}; {digests} more are known by a digest alone",
        people=len(found),
        digests=digests,
        decision=number,
    )


def _breaches(desk: Desk) -> Sequence[Breach]:
    return desk.with_store(lambda store: store.people.breaches())


async def _known_in(leaked: Path, store: Store) -> AsyncIterator[str]:
    """Yield each address of a file, of whatever format, that is somebody's whom we know.

    Where `email=ann@example.org` may be two things, whoever is known under either is told: better one too many.
    """
    with leaked.open("rb") as file:
        mark = file.read(2)
    encoding = "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    with leaked.open(encoding=encoding, errors="replace") as file:
        named = {one.key: one for line in file for one in _addresses(_words(line))}
    people = list(named.values())
    for start in range(0, len(people), _AT_ONCE):
        portion = people[start : start + _AT_ONCE]
        for address, facts in zip(portion, await store.people.facts(portion), strict=True):
            if facts.address_id is not None:
                yield address.text


def _words(line: str) -> Iterable[str]:
    """Yield what may be an address in a line, as it stands there and as a URL means it (RFC 3986 §2.1)."""
    for text in {line, unquote(line)}:
        for word in _BETWEEN.split(text):
            for before, after in pairwise(word.split("@")):
                if host := _HOST.match(after):
                    yield from (f"{local}@{host[0]}" for local in _endings(before[-_LONGEST_LOCAL_PART:]))


def _endings(text: str) -> Iterable[str]:
    yield text.lstrip(".")
    yield from (text[joint.end() :].lstrip(".") for joint in _JOINT.finditer(text))


def _addresses(words: Iterable[str]) -> Iterable[Address]:
    for word in words:
        try:
            yield Address.parse(word)
        except Malformed:
            continue


async def _named(store: Store, people: Iterable[str]) -> tuple[list[str], int]:
    """Return the addresses of people as decision lines call them, and how many have none that is known."""
    found = [await store.people.address_of(bytes.fromhex(one)) for one in people if _is_id(one)]
    named = sorted(one.text for one in found if one)
    return named, len(set(people) - {""}) - len(named)


def _is_id(who: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", who) is not None
