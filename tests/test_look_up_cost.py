"""What a decision asks of the people store costs the same however many people there are (SUP-15).

Counted, not timed. From outside: how often a command that decides reads in the file. From inside: steps of SQLite's own
machine, as many among a hundred people as among ten thousand, and in the plan nothing that walks through a table. What
that comes to at ten million, in microseconds, is for the bench to say.
"""

from __future__ import annotations

import re
import subprocess
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
from tests.crash.recording import can_record
from tests.gateway_under_test import TOPIC, Gateway
from tests.store_under_test import START, Rig, opt_in, unsubscribe

FEW, MANY = 100, 10_000
DEEPER = 12
"""Pages that a look-up may read more where there are more people: its trees have become a level deeper."""

PAGE = 4096
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


def reads_of(gateway: Gateway, trace: Path, *command: str) -> int:
    """Return how often a command reads in the file of the people store."""
    calls = ["strace", "-f", "-qq", "-y", "-e", "trace=read,pread64", "-o", str(trace)]
    subprocess.run([*calls, *gateway.command(*command)], cwd=gateway.folder, capture_output=True, timeout=60)
    return len(re.findall(r"/assent\.db(?:-wal)?>", trace.read_text()))


@pytest.mark.req("SUP-15")
@pytest.mark.skipif(not can_record(), reason="strace is not installed, or may not trace (apt install strace)")
def test_a_decision_reads_hardly_more_of_the_file_among_thousands_of_people(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "house", "maildir:outbox")
    gateway.prepare_files()
    gateway.run("migrate")
    asked = [("suppressions", "check", "person7@example.org"), ("explain", "person8@example.org", "--topic", TOPIC)]
    counts: list[list[int]] = []
    for people in (range(FEW), range(FEW, 3000)):
        leavers = tmp_path / "leavers.csv"
        leavers.write_text("".join(["email\n", *(f"person{n}@example.org\n" for n in people)]))
        gateway.run("suppressions", "import", str(leavers), "--scope", "all-marketing")
        counts.append([reads_of(gateway, tmp_path / "reads", *one) for one in asked])
    few, many = counts
    assert min(few) > 0
    assert all(after <= before + DEEPER for before, after in zip(few, many, strict=True)), (few, many)
    assert (gateway.folder / "var" / "assent.db").stat().st_size > 10 * PAGE * max(many), "there is more to read"


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
