"""Commands about people: who has opted in to what, and what was said of them."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.rooms import Rooms
from gateway.config.names import COUNTRY, LANGUAGE
from gateway.consent import Event
from gateway.errors import Malformed
from gateway.evidence import (
    BASES,
    METHODS,
    PUBLISHED,
    Claim,
    Notice,
    events_of,
    problems_of,
)
from gateway.model import Topic
from gateway.store import Store


class AddressType(click.ParamType[Address]):
    """A mail address, parsed as strictly as the listener does; where `takes_domains`, all of a domain as well."""

    name = "address"

    def __init__(self, *, takes_domains: bool = False) -> None:
        self._takes_domains = takes_domains

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            found = value if isinstance(value, Address) else Address.parse(value)
        except Malformed as error:
            self.fail(f"{value}: {error}", param, ctx)
        if found.is_whole_domain and not self._takes_domains:
            self.fail(f"{value} is a whole domain and nobody's address; only suppressions take that", param, ctx)
        return found


class CountryType(click.ParamType[str]):
    """A country by its code of ISO 3166-1, as the configuration's markets are."""

    name = "country"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            country: str = COUNTRY.read(value, Path())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return country


class LanguageType(click.ParamType[str]):
    """A language by its tag of BCP 47, as the configuration's is."""

    name = "language"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            language: str = LANGUAGE.read(value, Path())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return language


class TimeType(click.ParamType[datetime]):
    """A day or a time, as this program and others print them (ISO 8601)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return instant(value)
        except ValueError:
            self.fail(f"{value} is no time: write 2026-11-22, 2026-11-22T10:00:00 or 2026-11-22T10:00:00Z", param, ctx)


class NameType(click.ParamType[str]):
    """A name that is given once and typed again later: it can be printed, nothing stands around it, and it is short."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.isprintable() or text != text.strip() or not 0 < len(text) <= LONGEST_NAME:
            self.fail(f"{text!r} is no name: write 1 to {LONGEST_NAME} characters, no space around them", param, ctx)
        return text


class WhyType(click.ParamType[str]):
    """A reason, which is part of the record for ever: it must not name who may ask to be forgotten."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "@" in value:
            self.fail("this stays on record for ever; it must not hold an address", param, ctx)
        if param and param.required and not value.strip():
            self.fail("say why, in words", param, ctx)
        return str(value)


ADDRESS = AddressType()
LANGUAGE_TAG = LanguageType()
ENTRY = AddressType(takes_domains=True)
COUNTRY_CODE = CountryType()
NAME = NameType()
WHY = WhyType()
TIME = TimeType()
LONGEST_NAME = 64
LONGEST_WORDING = 1024 * 1024


def instant(text: str) -> datetime:
    """Return the time that stands in a text (ISO 8601), in UTC, which is meant where no zone is told; raises
    `ValueError`.
    """
    found = datetime.fromisoformat(text)
    try:
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def wording(file: Path) -> str:
    """Return a text that people meet; raises `UsageError` for what is no text, or more than anybody reads."""
    if file.stat().st_size > LONGEST_WORDING:
        raise click.UsageError(f"{file} has more than {LONGEST_WORDING // 1024} KiB, and nobody reads that much")
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is not UTF-8 text; save it as UTF-8 and try again") from error


def operator() -> str:
    """Return who is at the keyboard, for the ledger: the account's name."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def known_topic(desk: Desk, topic: str) -> Topic:
    topics = desk.config().topics
    if topic not in topics:
        raise click.UsageError(f"no such topic: {topic}; there are {', '.join(topics)}")
    return topics[topic]


@assent.group(cls=Rooms, rooms={"imports": "import", "exports": "export"})
def consent() -> None:
    """Who has opted in to what, and the proof."""


@consent.command("record")
@click.argument("addresses", type=ADDRESS, nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--topic", required=True)
@click.option("--basis", type=click.Choice(list(BASES)), required=True)
@click.option("--notice", default="", help="The registered notice under which it was given.")
@click.option("--at", type=TIME, default=None, help="When it was given, UTC; now unless told.")
@click.option("--method", type=click.Choice((*METHODS, PUBLISHED)), default=None, help="If not as the notice says.")
@click.option("--family", default="", help="The product family of a sale; the topic's own unless told.")
@click.option("--free", is_flag=True, help="The sale was an account that cost nothing.")
@click.option("--country", type=COUNTRY_CODE, default=None, help="The country that the person declared (ISO 3166).")
@click.option("--seen-in", type=COUNTRY_CODE, default=None, help="Where their IP address is; it only adds rules.")
@click.option(
    "--language", type=LANGUAGE_TAG, default=None, help="What the person reads, if not as the notice (BCP 47)."
)
@pass_desk
def consent_record(
    desk: Desk,
    addresses: tuple[Address, ...],
    topic: str,
    basis: str,
    notice: str,
    at: datetime | None,
    method: str | None,
    family: str,
    free: bool,
    country: str | None,
    seen_in: str | None,
    language: str | None,
) -> None:
    """Record the opt-ins of one or more people, or the dealings that may stand in for them, all or none."""
    known_topic(desk, topic)
    config = desk.config()
    topics = config.topics
    known = desk.with_store(lambda store: store.people.facts(addresses))
    shown = registered_notice(desk, notice, topic) if notice else None
    read = {"language": language} if language else {}
    told = {"channel": "operator", "operator": operator(), **(shown.facts if shown else {"notice": ""}), **read}
    claims = [
        Claim(
            *(address, at or desk.now(), (topic,), basis),
            method=method or "",
            must_state=config.law.request_states(facts.standing.places, country or "", seen_in or ""),
            families=(family,) if family else (),
            free=free,
            country=country or "",
            seen_in=seen_in or "",
            facts=told,
        )
        for address, facts in zip(addresses, known, strict=True)
    ]
    if wrong := _wrong_with(claims, topics, shown, desk.now()):
        raise click.UsageError(wrong)
    events = [event for claim in claims for event in events_of(claim, topics)]
    recorded = desk.with_store(lambda store: store.people.record(events))
    numbers = [event.seq for event in recorded]
    listed = ", ".join(map(str, numbers)) if len(numbers) < 10 else f"{numbers[0]} to {numbers[-1]}"
    desk.say(f"recorded as event {listed}", events=numbers, topic=topic, basis=basis)


def _wrong_with(claims: Sequence[Claim], topics: Mapping[str, Topic], notice: Notice | None, now: datetime) -> str:
    """Say what is wrong with claims that differ in their people only, and with whose if not all; "" for nothing."""
    whose: dict[str, list[str]] = {}
    for claim in claims:
        for _, sentence in problems_of(claim, topics, notice, now):
            whose.setdefault(sentence, []).append(claim.address.text)
    return "; ".join(
        sentence if len(people) == len(claims) else f"{sentence} ({', '.join(people)})"
        for sentence, people in whose.items()
    )


def registered_notice(desk: Desk, name: str, topic: str) -> Notice:
    found = [one for one in desk.with_store(lambda store: store.people.notices()) if one.name == name]
    if not found or found[0].topic != topic:
        desk.no(f"there is no notice {name} for {topic}", notice=name, topic=topic)
    return found[0]


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
        "at": event.at.isoformat(),
        "recorded_at": event.recorded_at.isoformat(),
        "facts": event.facts,
        "personal": event.personal,
    }
