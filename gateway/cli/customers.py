"""Commands about customers: which products a person owns, so that mail about them goes to nobody else (POL-04)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, operator
from gateway.consent import Event, EventType, NewEvent
from gateway.errors import Malformed
from gateway.store import Store


@assent.group()
def customers() -> None:
    """What people own; mail of class `product` goes to owners only."""


@customers.command("add")
@click.argument("address", type=ADDRESS)
@click.option("--product", "products", multiple=True, required=True, help="May be given more than once.")
@pass_desk
def customers_add(desk: Desk, address: Address, products: tuple[str, ...]) -> None:
    """Record what a person owns from now on."""
    events = [_event(desk, EventType.PRODUCT_OWNED, address, product=_product(one)) for one in products]
    recorded = desk.with_store(lambda store: store.people.record(events))
    named = ", ".join(products)
    desk.say(f"{address} owns {named} (event {recorded[-1].seq})", address=address.text, events=_numbers(recorded))


@customers.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_desk
def customers_import(desk: Desk, file: Path) -> None:
    """Record owners from a CSV file whose first line is `address,product`; all of them, or none."""
    events = [_event(desk, EventType.PRODUCT_OWNED, one, product=product) for one, product in _rows(file)]
    recorded = desk.with_store(lambda store: store.people.record(events))
    desk.say(f"{len(recorded)} owners are recorded", owners=len(recorded))


@customers.command("remove")
@click.argument("address", type=ADDRESS)
@click.option("--product", "products", multiple=True, help="What is owned no more; everything unless told.")
@click.option("--account-closed", is_flag=True, help="The account is closed: the consent that came with it lapses too.")
@pass_desk
def customers_remove(desk: Desk, address: Address, products: tuple[str, ...], account_closed: bool) -> None:
    """Record that a person owns something no more, or is a customer no more (POL-30)."""

    async def remove(store: Store) -> list[Event]:
        (facts,) = await store.people.facts([address])
        owned = [one for one in facts.standing.products if not products or one in map(_product, products)]
        events = [_event(desk, EventType.PRODUCT_ENDED, address, product=one) for one in owned]
        closing = [_event(desk, EventType.ACCOUNT_CLOSED, address)] if account_closed else []
        return await store.people.record([*events, *closing])

    recorded = desk.with_store(remove)
    if not recorded:
        desk.no(f"{address} owns nothing of that", address=address.text, events=[])
    desk.say(f"recorded as event {recorded[-1].seq}", address=address.text, events=_numbers(recorded))


def _event(desk: Desk, kind: EventType, address: Address, **facts: Any) -> NewEvent:
    told = {**facts, "channel": "operator", "operator": operator()}
    return NewEvent(kind, address, desk.now(), facts=told, personal={"address": address.text})


def _product(name: str) -> str:
    """Products are named in a header, where case is lost."""
    product = name.strip().lower()
    if not product or not product.isprintable():
        raise click.UsageError(f"{name!r} cannot name a product")
    return product


def _rows(file: Path) -> Iterator[tuple[Address, str]]:
    """Yield the owners that a file names; a line that cannot be read is told by its number."""
    with file.open(encoding="utf-8-sig", newline="") as lines, _refused_whole(file):
        reader = csv.DictReader(lines)
        reader.fieldnames = [one.strip().lower() for one in reader.fieldnames or ()]
        if not {"address", "product"} <= {*reader.fieldnames}:
            raise click.UsageError(f"{file}: the first line must be address,product")
        for row in reader:
            try:
                yield Address.parse((row["address"] or "").strip()), _product(row["product"] or "")
            except (Malformed, click.UsageError) as error:
                raise click.UsageError(f"{file}:{reader.line_num}: {error}") from error


@contextmanager
def _refused_whole(file: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is not UTF-8 text; save it as UTF-8 and try again") from error
    except csv.Error as error:
        raise click.UsageError(f"{file} is no table: {error}") from error


def _numbers(events: Sequence[Event]) -> list[int]:
    return [event.seq for event in events]
