"""Commands about people: the wordings they met, and who has opted in."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli.output import Desk, pass_desk
from gateway.config.names import COUNTRY
from gateway.consent import Event
from gateway.errors import Malformed
from gateway.evidence import BASES, Claim, Notice, events_of, problems_of
from gateway.model import Topic
from gateway.store import Store


class AddressType(click.ParamType[Address]):
    """A mail address, parsed as strictly as the listener does."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(value)
        except Malformed as error:
            self.fail(f"{value}: {error}", param, ctx)


class CountryType(click.ParamType[str]):
    """A country by its code of ISO 3166-1, as the configuration's markets are."""

    name = "country"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            country: str = COUNTRY.read(value, Path())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return country


ADDRESS = AddressType()
COUNTRY_CODE = CountryType()
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
    known_topic(desk, topic)
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
@click.option("--family", default="", help="The product family of a sale; the topic's own unless told.")
@click.option("--free", is_flag=True, help="The sale was an account that cost nothing.")
@click.option("--country", type=COUNTRY_CODE, default=None, help="The country that the person declared (ISO 3166).")
@pass_desk
def consent_record(
    desk: Desk,
    addresses: tuple[Address, ...],
    topic: str,
    basis: str,
    notice: str,
    at: datetime | None,
    family: str,
    free: bool,
    country: str | None,
) -> None:
    """Record the opt-ins of one or more people, or the dealings that may stand in for them, all or none."""
    known_topic(desk, topic)
    topics = desk.config().topics
    facts = {"channel": "operator", "operator": operator(), "notice": notice}
    claims = [
        Claim(
            *(address, utc(at) if at else desk.now(), (topic,), basis),
            families=(family,) if family else (),
            free=free,
            country=country or "",
            facts=facts,
        )
        for address in addresses
    ]
    _check_claim(desk, claims[0], notice)
    events = [event for claim in claims for event in events_of(claim, topics)]
    recorded = desk.with_store(lambda store: store.people.record(events))
    numbers = [event.seq for event in recorded]
    told = ", ".join(map(str, numbers)) if len(numbers) < 10 else f"{numbers[0]} to {numbers[-1]}"
    desk.say(f"recorded as event {told}", events=numbers, topic=topic, basis=basis)


def _check_claim(desk: Desk, claim: Claim, notice: str) -> None:
    """Refuse what cannot have happened; all claims of one command differ in the address only."""
    found = [one for one in desk.with_store(lambda store: store.people.notices()) if one.name == notice]
    if notice and (not found or found[0].topic not in claim.topics):
        desk.no(f"there is no notice {notice} for {claim.topics[0]}", notice=notice, topic=claim.topics[0])
    problems = problems_of(claim, desk.config().topics, found[0] if found else None, desk.now())
    if problems:
        raise click.UsageError("; ".join(sentence for _, sentence in problems))


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


def known_topic(desk: Desk, topic: str) -> Topic:
    topics = desk.config().topics
    if topic not in topics:
        raise click.UsageError(f"no such topic: {topic}; there are {', '.join(topics)}")
    return topics[topic]


COMMANDS = (notices, consent)
