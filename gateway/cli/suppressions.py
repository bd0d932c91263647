"""Commands about who must not be sent to: looking, adding, and lifting with a written reason.

The rule that must not be broken: an entry is never deleted; lifting one is an event of its own, with who and why.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from gateway.address import Address
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, DATE, known_topic, operator, utc
from gateway.consent import Event, EventType, NewEvent, Standing
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
REASON = click.Choice([one.value for one in Reason])


@click.group()
def suppressions() -> None:
    """Who must not be sent to."""


@suppressions.command("list")
@click.option("--scope", type=SCOPE, default=None)
@click.option("--reason", type=REASON, default=None)
@click.option("--since", type=DATE, default=None, help="Only those said at or after this time, UTC.")
@click.option("--search", default="", help="A part of the address.")
@pass_desk
def suppressions_list(desk: Desk, scope: str | None, reason: str | None, since: datetime | None, search: str) -> None:
    """List the suppressions; an erased address is shown as such."""
    oldest = utc(since).isoformat(timespec="seconds") if since else ""
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
@click.argument("address", type=ADDRESS)
@pass_desk
def suppressions_check(desk: Desk, address: Address) -> None:
    """Say whether an address is suppressed: exit 0 if it is, 1 if it is not."""
    (facts,) = desk.with_store(lambda store: store.people.facts([address]))
    rows = _suppressions(address, facts.standing)
    if not rows:
        desk.no(f"{address} is not suppressed", address=address.text, suppressions=[])
    desk.list(rows, ["address", "scope", "topic", "reason", "at", "event"], "")


@suppressions.command("add")
@click.argument("address", type=ADDRESS)
@click.option("--scope", type=SCOPE, required=True)
@click.option("--topic", default="", help="Needed with --scope topic.")
@click.option("--reason", type=click.Choice(list(SUPPRESSING)), required=True)
@click.option("--why", default="", help="How we learnt of it.")
@pass_desk
def suppressions_add(desk: Desk, address: Address, scope: str, topic: str, reason: str, why: str) -> None:
    """Record somebody's "no", however it reached us."""
    extent = covered(desk, scope, topic)
    facts = {"channel": "operator", "operator": operator(), "why": why}
    event = NewEvent(SUPPRESSING[reason], address, desk.now(), topic, extent, facts, {"address": address.text})
    (recorded,) = desk.with_store(lambda store: store.people.record([event]))
    desk.say(f"{address} is suppressed (event {recorded.seq})", address=address.text, event=recorded.seq)


@suppressions.command("remove")
@click.argument("address", type=ADDRESS)
@click.option("--scope", type=SCOPE, required=True)
@click.option("--topic", default="", help="Needed with --scope topic.")
@click.option("--why", required=True, help="The reason, for the record.")
@pass_desk
def suppressions_remove(desk: Desk, address: Address, scope: str, topic: str, why: str) -> None:
    """Lift a suppression that should not stand; the ledger keeps both, and the reason."""
    extent = covered(desk, scope, topic)

    async def lift(store: Store) -> Event | None:
        (facts,) = await store.people.facts([address])
        if all((one.scope, one.topic) != (extent, topic) for one in facts.standing.suppressions):
            return None
        told = {"channel": "operator", "operator": operator(), "why": why}
        event = NewEvent(EventType.SUPPRESSION_LIFTED, facts.person, desk.now(), topic, extent, told)
        (recorded,) = await store.people.record([event])
        return recorded

    event = desk.with_store(lift)
    if event is None:
        desk.no(f"{address} has no such suppression", address=address.text, scope=scope, topic=topic)
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


COMMANDS = (suppressions,)
