"""Commands about who must not be sent to: looking, adding, and lifting with a written reason.

The rule that must not be broken: an entry is never deleted; lifting one is an event of its own, with who and why.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import OUTPUT, Desk, pass_desk, table_line, written_to
from gateway.cli.people import ENTRY, WHY, known_topic, operator
from gateway.cli.rooms import Rooms
from gateway.cli.since import SinceType, moment
from gateway.consent import Event, EventType, NewEvent, Standing
from gateway.decisions import export_line
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT
from gateway.model import Reason, Scope
from gateway.store import Store

SUPPRESSING = {
    "unsubscribed": EventType.UNSUBSCRIBE,
    "objected": EventType.OBJECTION,
    "complained": EventType.COMPLAINT,
    "bounced": EventType.HARD_BOUNCE,
    "minor": EventType.MINOR_FLAG,
}

# By their values: of an enumeration click would take the members' names.
SCOPE = click.Choice([one.value for one in Scope])
REASON = click.Choice([*SUPPRESSING, Reason.ERASED.value])


FORMS: dict[str, Callable[[Address], str]] = {
    "csv": lambda address: address.text,
    "plain": lambda address: address.text,
    "md5": lambda address: hashlib.md5(address.key.lower().encode(), usedforsecurity=False).hexdigest(),
    "sha256": lambda address: hashlib.sha256(address.key.lower().encode()).hexdigest(),
}
"""How an address is written in each format of an export."""

_AT_ONCE = 1000


@assent.group(cls=Rooms, rooms={"imports": "import imports undo"})
def suppressions() -> None:
    """Who must not be sent to."""


@suppressions.command("list")
@click.option("--scope", type=SCOPE, default=None)
@click.option("--reason", type=REASON, default=None)
@click.option("--since", type=SinceType(), default=None, help="Only those said since: fri, 36h, 7d, 2026-11-20 …")
@click.option("--search", default="", help="A part of the address.")
@pass_desk
def suppressions_list(desk: Desk, scope: str | None, reason: str | None, since: str | None, search: str) -> None:
    """List the suppressions; an erased address is shown as such."""
    oldest = moment(since, desk.now()).isoformat(timespec="seconds") if since else ""
    rows = [
        row
        for address, standing in desk.with_store(lambda store: store.people.suppressed())
        if search.lower() in (address.key if address else "")
        for row in _suppressions(address, standing)
        if row["scope"] == (scope or row["scope"]) and row["reason"] == (reason or row["reason"])
        if row["at"] >= oldest
    ]
    desk.list(rows, ["address", "scope", "topic", "reason", "at", "event"], "no suppressions")


@suppressions.command("check")
@click.argument("address", type=ENTRY)
@pass_desk
def suppressions_check(desk: Desk, address: Address) -> None:
    """Say whether an address is suppressed: exit 0 if it is, 1 if it is not.

    Other spellings of the same mailbox that are suppressed are named too, at providers whose spellings are known.
    """

    async def seen(store: Store) -> tuple[Standing, list[str]]:
        (facts,) = await store.people.facts([address])
        return facts.standing, [other.text for _, other, _ in await store.people.related(address)]

    standing, related = desk.with_store(seen)
    rows = [{**row, "related": related} for row in _suppressions(address, standing)]
    if not rows:
        known = f"; the same mailbox is, as {', '.join(related)}" if related else ""
        desk.no(f"{address} is not suppressed{known}", address=address.text, suppressions=[], related=related)
    desk.list(rows, ["address", "scope", "topic", "reason", "at", "event", "entry"], "")


@suppressions.command("export")
@click.option("--purpose", type=WHY, required=True, help="What the list is for; it is recorded, with who took it.")
@click.option("--format", "form", type=click.Choice(list(FORMS)), default="csv", show_default=True)
@click.option("--scope", type=SCOPE, default=None, help="Only what covers this much.")
@OUTPUT
@pass_desk
def suppressions_export(desk: Desk, purpose: str, form: str, scope: str | None, output: Path | None) -> None:
    """Write the suppressions out: as a table, as a list of addresses, or as one of digests (SUP-11).

    Whoever has been erased is known by a keyed digest alone, and is in none of them.
    """
    desk.must_be_new(output)
    number = Ids(OPERATOR_SLOT, desk.now).decision()

    async def take(store: Store) -> list[list[str]]:
        rows = [row async for row in _taken(store, form, scope)]
        store.spool.note([export_line(number, desk.now(), purpose, form, len(rows), operator())])
        return rows

    rows = desk.with_store(take)
    head = ["address", "scope", "topic", "reason", "at"] if form == "csv" else ["address" if form == "plain" else form]
    if output is None and desk.as_json:
        desk.list([dict(zip(head, row, strict=True)) for row in rows], head, "")
    else:
        with written_to(output) as file:
            file.writelines(map(table_line, [head, *rows] if form == "csv" else rows))
    desk.exported(len(rows), number, output)


async def _taken(store: Store, form: str, scope: str | None) -> AsyncIterator[list[str]]:
    """Yield each line once: a suppression for a table, an address or its digest for a list."""
    after = b""
    while people := await store.people.suppressed_after(after, _AT_ONCE):
        after = people[-1][0]
        for _, address, standing in people:
            found = [one for one in standing.suppressions if one.scope == (scope or one.scope)]
            if address is None or not found:
                continue
            if form != "csv":
                yield [FORMS[form](address)]
                continue
            for one in found:
                yield [address.text, one.scope, one.topic, str(one.reason), one.at.isoformat(timespec="seconds")]


@suppressions.command("add")
@click.argument("address", type=ENTRY)
@click.option("--scope", type=SCOPE, required=True)
@click.option("--topic", default="", help="Needed with --scope topic.")
@click.option("--reason", type=click.Choice(list(SUPPRESSING)), required=True)
@click.option("--why", type=WHY, default="", help="How we learnt of it.")
@pass_desk
def suppressions_add(desk: Desk, address: Address, scope: str, topic: str, reason: str, why: str) -> None:
    """Record somebody's "no", however it reached us; that of all who have an address of a domain as *@DOMAIN."""
    if address.is_whole_domain and reason == "minor":
        raise click.UsageError("a minor is one person, and no domain")
    extent = covered(desk, scope, topic)
    facts = {"channel": "operator", "operator": operator(), "why": why}
    event = NewEvent(SUPPRESSING[reason], address, desk.now(), topic, extent, facts, {"address": address.text})
    (recorded,) = desk.with_store(lambda store: store.people.record([event]))
    desk.say(f"{address} is suppressed (event {recorded.seq})", address=address.text, event=recorded.seq)


@suppressions.command("remove")
@click.argument("address", type=ENTRY)
@click.option("--scope", type=SCOPE, required=True)
@click.option("--topic", default="", help="Needed with --scope topic.")
@click.option("--why", type=WHY, required=True, help="The reason, for the record.")
@pass_desk
def suppressions_remove(desk: Desk, address: Address, scope: str, topic: str, why: str) -> None:
    """Lift a suppression that should not stand; the ledger keeps both, and the reason."""
    extent = covered(desk, scope, topic)

    async def lift(store: Store) -> Event | str:
        (facts,) = await store.people.facts([address])
        standing = [one for one in facts.standing.suppressions if (one.scope, one.topic) == (extent, topic)]
        if all(one.entry for one in standing):
            return standing[0].entry if standing else ""
        told = {"channel": "operator", "operator": operator(), "why": why}
        event = NewEvent(EventType.SUPPRESSION_LIFTED, facts.person, desk.now(), topic, extent, told)
        (recorded,) = await store.people.record([event])
        return recorded

    event = desk.with_store(lift)
    if isinstance(event, str):
        sentence = f"is suppressed by {event}; remove that one" if event else "has no such suppression"
        desk.no(f"{address} {sentence}", address=address.text, scope=scope, topic=topic, entry=event)
    desk.say(f"lifted (event {event.seq})", address=address.text, event=event.seq)


def _suppressions(address: Address | None, standing: Standing) -> list[dict[str, Any]]:
    return [
        {
            "address": address.text if address else "(erased)",
            "scope": one.scope,
            "topic": one.topic,
            "reason": one.reason,
            "at": one.at.astimezone(UTC).isoformat(timespec="seconds"),
            "event": one.event,
            "entry": one.entry,
        }
        for one in standing.suppressions
    ]


def covered(desk: Desk, scope: str, topic: str) -> Scope:
    """Return the scope that the options name; raises `UsageError` for a topic too many, too few or unknown."""
    extent = Scope(scope)
    if (extent is Scope.TOPIC) != bool(topic):
        raise click.UsageError("--topic goes with --scope topic, and only with it")
    if topic:
        known_topic(desk, topic)
    return extent
