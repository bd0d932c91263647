"""Commands about the versions of the privacy policy: publishing, and who has agreed to one anew (POL-12).

The rule that must not be broken: a version that has been published never changes; a new wording is a new version.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, NAME, TIME, operator, wording
from gateway.config.names import COUNTRIES
from gateway.consent import EventType, NewEvent
from gateway.law import PolicyVersion
from gateway.store import Facts, NoticeRecord, PublishedPolicy, Store


@assent.group()
def policy() -> None:
    """Versions of the privacy policy, which the site shows under /policy."""


@policy.command("publish")
@click.argument("version", type=NAME)
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--effective", type=TIME, required=True, help="From when it is in force, UTC.")
@click.option("--reconsent", default="", help="Countries where consent from before it is over then, by commas.")
@pass_desk
def policy_publish(desk: Desk, version: str, text: Path, effective: datetime, reconsent: str) -> None:
    """Publish a version. It never changes afterwards."""
    try:
        countries = COUNTRIES.read([one.strip() for one in reconsent.split(",") if one.strip()], Path())
    except ValueError as error:
        raise click.UsageError(f"--reconsent: {error}") from error
    named = PolicyVersion(version, effective, tuple(countries))
    published = PublishedPolicy(named, wording(text), desk.now(), operator())
    if not desk.with_store(lambda store: store.people.publish_policy(published)):
        desk.no(f"version {version} has been published already, and never changes", version=version)
    desk.say(f"version {version} is published, effective {named.effective:%Y-%m-%d %H:%M} UTC", version=version)


@policy.command("list")
@pass_desk
def policy_list(desk: Desk) -> None:
    """List the published versions, the newest first."""
    rows = [
        {
            "version": one.version.version,
            "effective": one.version.effective.isoformat(timespec="seconds"),
            "reconsent": one.version.reconsent,
            "published_at": one.published_at.isoformat(timespec="seconds"),
            "by": one.by,
            "text": one.text,
        }
        for one in desk.with_store(lambda store: store.people.policies())
    ]
    desk.list(rows, ["version", "effective", "reconsent", "published_at", "by"], "nothing is published")


@policy.command("agreed")
@click.argument("version")
@click.argument("addresses", type=ADDRESS, nargs=-1, required=True, metavar="ADDRESS...")
@pass_desk
def policy_agreed(desk: Desk, version: str, addresses: tuple[Address, ...]) -> None:
    """Record that people have consented anew, under a version that asks for that."""
    if all(one.version.version != version for one in desk.with_store(lambda store: store.people.policies())):
        desk.no(f"there is no version {version}; see assent policy list", version=version)
    facts = {"channel": "operator", "operator": operator(), "policy_version": version}
    events = [
        NewEvent(EventType.RECONSENT, one, desk.now(), facts=facts, personal={"address": one.text}) for one in addresses
    ]

    async def record(store: Store) -> tuple[list[int], list[Facts]]:
        return [one.seq for one in await store.people.record(events)], await store.people.facts(addresses)

    numbers, known = desk.with_store(record)
    stands = [one.text for one, facts in zip(addresses, known, strict=True) if facts.standing.suppressions]
    empty = [one.text for one, facts in zip(addresses, known, strict=True) if not facts.standing.permissions]
    told = [f"recorded that {len(numbers)} have consented anew"]
    told += [f'the "no" of {", ".join(stands)} stands all the same'] * bool(stands)
    told += [f"{', '.join(empty)} had agreed to nothing that this could renew"] * bool(empty)
    desk.say("; ".join(told), version=version, events=numbers, suppressed=stands, nothing_to_renew=empty)


@policy.command("export")
@click.argument("version")
@pass_desk
def policy_export(desk: Desk, version: str) -> None:
    """Print the record of a version's notices: their text, who was sent one, when, and what the next hop replied."""
    (published, records) = desk.with_store(lambda store: _on_record(store, version))
    if published is None:
        desk.no(f"there is no version {version}; see assent policy list", version=version)
    facts = {
        "version": version,
        "effective": published.version.effective.isoformat(timespec="seconds"),
        "policy_text": published.text,
        "notice_texts": {one.text_digest: one.text for one in records},
        "recipients": [_told(one) for one in records],
    }
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))


async def _on_record(store: Store, version: str) -> tuple[PublishedPolicy | None, list[NoticeRecord]]:
    published = [one for one in await store.people.policies() if one.version.version == version]
    return next(iter(published), None), await store.people.notices_of_policy(version)


def _told(record: NoticeRecord) -> dict[str, str | None]:
    """Return a recipient's line; whoever has been erased is named by nothing but their id."""
    return {
        "address": record.address,
        "person": record.address_id.hex(),
        "begun_at": record.begun_at.isoformat(timespec="seconds"),
        "message": record.message,
        "notice_text": record.text_digest,
        "outcome": record.outcome,
        "ended_at": record.ended_at.isoformat(timespec="seconds") if record.ended_at else None,
        "reply": record.reply,
    }
