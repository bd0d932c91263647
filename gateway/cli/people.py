"""Commands about people: the wordings they met, who has opted in, who must not be sent to."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli.output import Desk, pass_desk
from gateway.consent import Event, EventType, NewEvent, Standing
from gateway.errors import Malformed
from gateway.model import Reason, Scope
from gateway.store import Notice, Store

BASES = {
    "express": EventType.EXPRESS_OPT_IN,
    "confirmed": EventType.OPT_IN_CONFIRMED,
    "policy-accepted": EventType.POLICY_ACCEPTED,
}
"""The bases that this version records; the other ones of the contract come with the regimes.

That somebody accepted a policy is kept as what it is, and permits nothing where an opt-in is required (POL-01).
"""

SUPPRESSING = {
    "unsubscribed": EventType.UNSUBSCRIBE,
    "objected": EventType.OBJECTION,
    "complained": EventType.COMPLAINT,
    "bounced": EventType.HARD_BOUNCE,
    "minor": EventType.MINOR_FLAG,
}


class AddressType(click.ParamType[Address]):
    """A mail address, parsed as strictly as the listener does."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(value)
        except Malformed as error:
            self.fail(f"{value}: {error}", param, ctx)


ADDRESS = AddressType()
# By their values: of an enumeration click would take the members' names.
SCOPE = click.Choice([one.value for one in Scope])
REASON = click.Choice([one.value for one in Reason])
DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def operator() -> str:
    """Return who is at the keyboard, for the ledger: the account's name."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


# notices


@click.group()
def notices() -> None:
    """The wordings under which people opt in."""


@notices.command("add")
@click.argument("name")
@click.option("--topic", required=True)
@click.option("--text", "text", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--url", required=True, help="Where the question stood.")
@click.option("--control", type=click.Choice(["unticked"]), required=True, help="The control as people met it.")
@click.option("--from", "valid_from", type=DATE, required=True)
@click.option("--until", "valid_until", type=DATE, default=None)
@pass_desk
def notices_add(
    desk: Desk,
    name: str,
    topic: str,
    text: Path,
    url: str,
    control: str,
    valid_from: datetime,
    valid_until: datetime | None,
) -> None:
    """Register a notice. It never changes afterwards: a new wording is a new notice."""
    _known_topic(desk, topic)
    until = utc(valid_until) if valid_until else None
    notice = Notice(name, topic, text.read_text("utf-8"), url, control, utc(valid_from), until)

    async def add(store: Store) -> bool:
        if any(one.name == name for one in await store.people.notices()):
            return False
        await store.people.add_notice(notice)
        return True

    if not desk.with_store(add):
        desk.no(f"there is a notice {name} already, and a notice never changes", name=name)
    desk.say(f"notice {name} is registered", name=name, topic=topic)


@notices.command("list")
@pass_desk
def notices_list(desk: Desk) -> None:
    """List the registered notices."""
    rows = [
        {
            "name": one.name,
            "topic": one.topic,
            "url": one.url,
            "control": one.control,
            "from": one.valid_from.date(),
            "until": one.valid_until.date() if one.valid_until else None,
            "text": one.text,
        }
        for one in desk.with_store(lambda store: store.people.notices())
    ]
    desk.list(rows, ["name", "topic", "url", "control", "from", "until"], "no notices; see assent notices add")


# consent


@click.group()
def consent() -> None:
    """Who has opted in to what, and the proof."""


@consent.command("record")
@click.argument("addresses", type=ADDRESS, nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--topic", required=True)
@click.option("--basis", type=click.Choice(list(BASES)), required=True)
@click.option("--notice", default="", help="The registered notice under which it was given.")
@click.option("--at", type=DATE, default=None, help="When it was given, UTC; now unless told.")
@pass_desk
def consent_record(
    desk: Desk, addresses: tuple[Address, ...], topic: str, basis: str, notice: str, at: datetime | None
) -> None:
    """Record the opt-ins of one or more people, all or none."""
    _known_topic(desk, topic)
    given = utc(at) if at else desk.now()
    if given > desk.now():
        raise click.UsageError("the opt-in lies in the future")
    facts = {"channel": "operator", "operator": operator(), "notice": notice, "basis": basis}
    events = [
        NewEvent(BASES[basis], address, given, topic, facts=facts, personal={"address": address.text})
        for address in addresses
    ]

    async def record(store: Store) -> list[Event]:
        if notice and all((one.name, one.topic) != (notice, topic) for one in await store.people.notices()):
            return []
        return await store.people.record(events)

    recorded = desk.with_store(record)
    if not recorded:
        desk.no(f"there is no notice {notice} for {topic}", notice=notice, topic=topic)
    numbers = [event.seq for event in recorded]
    told = ", ".join(map(str, numbers)) if len(numbers) < 10 else f"{numbers[0]} to {numbers[-1]}"
    desk.say(f"recorded as event {told}", events=numbers, topic=topic, basis=basis)


@consent.command("show")
@click.argument("address", type=ADDRESS)
@pass_desk
def consent_show(desk: Desk, address: Address) -> None:
    """Show a person's whole history, the oldest event first."""

    async def history(store: Store) -> list[Event]:
        (facts,) = await store.people.facts([address])
        return await store.people.history(facts.address_id) if facts.address_id else []

    events = desk.with_store(history)
    rows = [_told(event) for event in events]
    if not rows:
        desk.no(f"nothing is known of {address}", address=address.text, events=[])
    desk.list(rows, ["seq", "type", "topic", "scope", "at", "recorded_at", "facts"], "")


def _told(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "type": event.type,
        "topic": event.topic,
        "scope": event.scope,
        "at": event.at.isoformat(timespec="seconds"),
        "recorded_at": event.recorded_at.isoformat(timespec="seconds"),
        "facts": event.facts,
        "personal": event.personal,
    }


# suppressions


@click.group()
def suppressions() -> None:
    """Who must not be sent to."""


@suppressions.command("list")
@click.option("--scope", type=SCOPE, default=None)
@click.option("--reason", type=REASON, default=None)
@click.option("--search", default="", help="A part of the address.")
@pass_desk
def suppressions_list(desk: Desk, scope: str | None, reason: str | None, search: str) -> None:
    """List the suppressions; an erased address is shown as such."""
    rows = [
        row
        for address, standing in desk.with_store(lambda store: store.people.suppressed())
        if search.lower() in (address.key if address else "")
        for row in _suppressions(address, standing)
        if row["scope"] == (scope or row["scope"]) and row["reason"] == (reason or row["reason"])
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
    covered = _covered(desk, scope, topic)
    facts = {"channel": "operator", "operator": operator(), "why": why}
    event = NewEvent(SUPPRESSING[reason], address, desk.now(), topic, covered, facts, {"address": address.text})
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
    covered = _covered(desk, scope, topic)

    async def lift(store: Store) -> Event | None:
        (facts,) = await store.people.facts([address])
        if all((one.scope, one.topic) != (covered, topic) for one in facts.standing.suppressions):
            return None
        told = {"channel": "operator", "operator": operator(), "why": why}
        event = NewEvent(EventType.SUPPRESSION_LIFTED, facts.person, desk.now(), topic, covered, told)
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
            "at": one.at.isoformat(timespec="seconds"),
            "event": one.event,
        }
        for one in standing.suppressions
    ]


def _covered(desk: Desk, scope: str, topic: str) -> Scope:
    covered = Scope(scope)
    if (covered is Scope.TOPIC) != bool(topic):
        raise click.UsageError("--topic goes with --scope topic, and only with it")
    if topic:
        _known_topic(desk, topic)
    return covered


def _known_topic(desk: Desk, topic: str) -> None:
    topics = desk.config().topics
    if topic not in topics:
        raise click.UsageError(f"no such topic: {topic}; there are {', '.join(topics)}")


COMMANDS = (notices, consent, suppressions)
