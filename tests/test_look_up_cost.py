"""What a decision asks of the people store costs the same however many people there are (SUP-15).

Counted in steps of SQLite's own machine, not in time: as many among a hundred people as among ten thousand, and in the
plan nothing that walks through a table. What that comes to at ten million, in microseconds, is for the bench to say.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from gateway.address import Address
from gateway.consent import EventType, NewEvent
from gateway.model import Scope
from gateway.providers import PROVIDERS
from gateway.store.domains import LAST_SAID
from gateway.store.mailboxes import SPELLED_SO
from gateway.store.people import LOOK_UP
from gateway.store.schema import PEOPLE
from tests.store_under_test import START, Rig, opt_in, unsubscribe

FEW, MANY = 100, 10_000
ASKED = [
    Address.parse(one) for one in ("person.7@gmail.com", "person8@example.org", "nobody@example.org", "jörg@b.test")
]


def person(n: int) -> Address:
    return Address.parse(f"person{n}@{'gmail.com' if n % 2 else 'example.org'}")


async def steps_of_a_look_up(root: Path, people: int) -> list[int]:
    """Return what each address costs in a store of so many people, half of whom are suppressed."""
    rig, spent = Rig(root), [0]
    rig.folder.block_related = frozenset(PROVIDERS)

    def step() -> int:
        spent[0] += 1
        return 0

    async with rig.people() as store:
        entry = NewEvent(EventType.OBJECTION, Address.parse("*@objects.example"), START, scope=Scope.ALL_MARKETING)
        events = [opt_in(person(n)) for n in range(people)] + [unsubscribe(person(n)) for n in range(0, people, 2)]
        events += [unsubscribe(person(n)) for n in range(1, people, 4)]
        await store.record([*events, entry])
        await store.facts([Address.parse("first@example.net")])
        store._reader.connection().set_progress_handler(step, 1)
        costs = []
        for one in ASKED:
            before = spent[0]
            await store.facts([one])
            costs.append(spent[0] - before)
        return costs


@pytest.mark.req("SUP-15")
async def test_a_look_up_takes_as_many_steps_among_ten_thousand_as_among_a_hundred(tmp_path: Path) -> None:
    few, many = [await steps_of_a_look_up(tmp_path / str(size), size) for size in (FEW, MANY)]
    assert few == many
    assert 0 < max(many) < FEW, "or what is counted would be no steps"


@pytest.mark.req("SUP-15", "SUP-04")
@pytest.mark.parametrize(("statement", "values"), [(LOOK_UP, (1, b"", b"")), (SPELLED_SO, ("",)), (LAST_SAID, (b"",))])
def test_no_statement_of_a_look_up_walks_through_a_table(statement: str, values: tuple[object, ...]) -> None:
    database = sqlite.connect(":memory:")
    for one in PEOPLE:
        database.executescript(one)
    steps = [detail for *_, detail in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert not [one for one in steps if "SCAN" in one]
    searches = [one for one in steps if one.startswith("SEARCH")]
    assert searches and all(" USING " in one for one in searches), "a search without an index is a walk, too"
    database.close()


@pytest.mark.req("SUP-04")
def test_the_index_of_mailboxes_has_every_provider() -> None:
    (index,) = [one for one in PEOPLE if "people_mailboxes" in one]
    assert set(re.findall(r"'([a-z]+\.[a-z]+)'", index)) == set(PROVIDERS)
