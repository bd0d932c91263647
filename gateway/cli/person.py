"""Commands for a person's rights: everything that is known, forgetting it, and keeping it where the law orders that.

The rule that must not be broken: an erasure is done when a search of the data folder finds nothing, and says so where
it does not; only the keyed "no" stays. What is shown is the part of `dossier`, what is kept the part of the store.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from gateway.address import Address
from gateway.cli import assent, dossier
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, WHY, operator
from gateway.cli.queue import drop
from gateway.consent import Event, EventType, NewEvent
from gateway.store import Selection, Store

TRACES_PATIENCE = 15.0
"""Seconds that reports about dropped mail, which name their recipient, have to leave."""


@assent.group()
def person() -> None:
    """A person's rights: to see what is known, and to be forgotten."""


@person.command("export")
@click.argument("address", type=ADDRESS)
@click.option("--html", is_flag=True, help="A page that can be read and printed, instead of JSON.")
@pass_desk
def person_export(desk: Desk, address: Address, html: bool) -> None:
    """Print everything that is known of a person, and who else has been told."""
    told = desk.with_store(lambda store: dossier.gather(desk.config(), desk.folder(), store, address, desk.now()))
    page = dossier.page("What is known of you", told) if html else ""
    click.echo(page or json.dumps(told, indent=2, default=str, ensure_ascii=False))


@person.command("erase")
@click.argument("address", type=ADDRESS)
@click.option("--why", type=WHY, default="", help="How the request reached us, without naming the person.")
@pass_desk
def person_erase(desk: Desk, address: Address, why: str) -> None:
    """Forget a person: only a keyed "no" stays, and proof without names. Mail that waits for them is dropped.

    What is known of the person's other addresses stays, and each is named: nothing leads to it afterwards.
    """

    async def erase(store: Store) -> tuple[Event | None, set[str], list[str], int, int]:
        (facts,) = await store.people.facts([address])
        others = await dossier.related(store, facts.standing)
        stored = await store.people.address_of(facts.address_id) if facts.address_id else None
        told = {"channel": "operator", "operator": operator(), "why": why}
        event = await store.people.erase(NewEvent(EventType.ERASURE, address, desk.now(), facts=told))
        copies = await store.queue.copies_to(address) if event else ()
        dropped, under_way = await drop(desk, store, Selection(copies=copies), "erased") if copies else (0, 0)
        return event, {address.text, address.key, stored.text if stored else address.text}, others, dropped, under_way

    event, spelled, others, dropped, under_way = desk.with_store(erase)
    if event is None:
        desk.no(
            "not erased: what is known of this person is held, as an authority ordered; see assent person export",
            erased=False,
            reason="held",
        )
    traces = _traces(desk, spelled)
    told = f"erased (event {event.seq}); {dropped} queued copies are dropped, the submitters get the usual report"
    told += f"; {', '.join(others)} is known as theirs too, and stays until it is erased as well" if others else ""
    names = [one.name for one in traces]
    desk.say(told, event=event.seq, dropped=dropped, under_way=under_way, traces=names, others=others)
    if traces:
        click.echo(
            f"still named in {', '.join(names)}: mail on its way, a webhook that has not heard of it yet"
            " (assent webhooks list), or a copy of a database; repeat this once it is gone",
            err=True,
        )
        sys.exit(os.EX_TEMPFAIL)


def _traces(desk: Desk, spelled: set[str]) -> list[Path]:
    """Search the data folder until nothing is found, for as long as reports about what was dropped may take."""
    deadline = time.monotonic() + TRACES_PATIENCE
    while (traces := desk.folder().traces_of(spelled)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return traces


@person.command("link")
@click.argument("old", type=ADDRESS)
@click.argument("new", type=ADDRESS)
@pass_desk
def person_link(desk: Desk, old: Address, new: Address) -> None:
    """Record that NEW is the newer address of whoever has OLD: their objections follow, their consents do not.

    Only once NEW has proved to be theirs: notices of the privacy policy go there from now on, and to OLD no more.
    """
    if old.key == new.key:
        raise click.UsageError("these are one address")
    facts = {"channel": "operator", "operator": operator()}
    recorded = desk.with_store(lambda store: store.people.link(old, new, facts))
    if not recorded:
        desk.no(f"{old} and {new} are known to be one person's", old=old.text, new=new.text, events=[])
    desk.say(f"{old} and {new} are one person's", old=old.text, new=new.text, events=[one.seq for one in recorded])


@person.command("hold")
@click.argument("address", type=ADDRESS)
@click.option("--why", type=WHY, required=True, help="The warrant or order, for the record.")
@pass_desk
def person_hold(desk: Desk, address: Address, why: str) -> None:
    """Let nothing of a person be erased until it is released: an authority has ordered it to be kept."""
    _turn_hold(desk, address, EventType.HOLD_PLACED, why)


@person.command("release")
@click.argument("address", type=ADDRESS)
@click.option("--why", type=WHY, required=True, help="The reason, for the record.")
@pass_desk
def person_release(desk: Desk, address: Address, why: str) -> None:
    """End a hold; what had to be erased meanwhile is erased now."""
    _turn_hold(desk, address, EventType.HOLD_RELEASED, why)


def _turn_hold(desk: Desk, address: Address, turn: EventType, why: str) -> None:
    holds = turn is EventType.HOLD_PLACED

    async def record(store: Store) -> Event | None:
        (facts,) = await store.people.facts([address])
        if facts.address_id is None or facts.standing.is_held is holds:
            return None
        told = {"channel": "operator", "operator": operator(), "why": why}
        (event,) = await store.people.record([NewEvent(turn, facts.person, desk.now(), facts=told)])
        return event

    event = desk.with_store(record)
    state = "held" if holds else "not held"
    if event is None:
        desk.no(f"{address} is {state} already, or nobody whom we know", address=address.text)
    desk.say(f"{address} is {state} (event {event.seq})", address=address.text, event=event.seq, held=holds)
