"""People and spool on SQLite: what is on disk when a verb returns, who owns a copy, and what a crash leaves."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from gateway.address import Address
from gateway.consent import EventType
from gateway.errors import ConfigError, StoreUnavailable
from gateway.evidence import Notice
from gateway.ids import spool_text
from gateway.lanes import MEMORY_BUDGET as BUDGET
from gateway.model import Login, MessageClass, Outcome, Priority
from gateway.store import LoginRecord, Selection, Waiting, open_path
from gateway.store import people as people_module
from gateway.store import queue as queue_module
from gateway.store import spool as spool_module
from gateway.store import writer as writer_module
from gateway.store.keys import ADDRESS_RING, LEDGER_KEY, TOKEN_RING, make_keys, read_ledger_key, read_ring
from gateway.store.leases import Leases
from gateway.store.migrate import is_up_to_date, migrate
from gateway.store.people import SqlitePeople
from gateway.store.schema import PEOPLE
from gateway.store.spool import LARGE_BODY, NOTE_SECONDS
from gateway.store.writer import Connection, Writer, connect
from gateway.tokens import FIRST_TOPIC
from tests.store_under_test import ALICE, BOB, START, Rig, opt_in, unsubscribe

EVERYBODY = 1000
"""More than any message here has recipients."""

LARGE = b"Subject: large\r\n\r\n" + b"x" * LARGE_BODY
LATER = timedelta(minutes=5)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


def rows(path: Path, query: str) -> list[Any]:
    with closing(connect(path, read_only=True)) as connection:
        return list(connection.execute(query).fetchall())


def bodies(rig: Rig) -> list[Path]:
    return sorted(rig.folder.bodies.glob("*"))


# the writer


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "test.db"
    migrate(path, ("CREATE TABLE lines (text TEXT UNIQUE)",))
    return path


def insert(text: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute("INSERT INTO lines VALUES (?)", (text,))
        return text

    return work


def lines_in(path: Path) -> set[str]:
    return {row[0] for row in rows(path, "SELECT text FROM lines")}


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the database as a program would that knows nothing of our lock."""
    with closing(connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


class Broken:
    """A connection on which one statement fails as it does when the disk does."""

    def __init__(self, connection: Connection, statement: str) -> None:
        self.connection, self.statement, self.closed = connection, statement, False

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == self.statement:
            raise sqlite.OperationalError("disk I/O error")
        return self.connection.execute(statement, *parameters)

    def close(self) -> None:
        self.closed = True
        self.connection.close()


async def test_callers_who_wait_together_are_committed_together(database: Path) -> None:
    writer = Writer(database)
    commits = []
    writer._connection.set_trace_callback(lambda statement: commits.append(statement == "COMMIT"))
    texts = [f"line {number}" for number in range(50)]
    assert await asyncio.gather(*(writer.do(insert(text)) for text in texts)) == texts
    assert sum(commits) <= 2
    assert lines_in(database) == set(texts)
    await writer.close()


async def test_one_failing_caller_does_not_harm_the_others(database: Path) -> None:
    writer = Writer(database)
    await writer.do(insert("there"))
    works = [insert("a"), insert("there"), insert("b"), insert("there"), insert("c")]
    results = await asyncio.gather(*map(writer.do, works), return_exceptions=True)
    assert [one if isinstance(one, str) else type(one) for one in results] == [
        *("a", sqlite.IntegrityError, "b", sqlite.IntegrityError, "c"),
    ]
    assert lines_in(database) == {"there", "a", "b", "c"}
    await writer.close()


async def test_a_caller_who_has_gone_leaves_the_others_and_the_lock_as_they_should_be(database: Path) -> None:
    writer = Writer(database)
    going = [asyncio.create_task(writer.do(insert(text))) for text in ("a", "gone", "there", "b", "there")]
    await asyncio.sleep(0)
    going[1].cancel()
    going[4].cancel()
    await asyncio.wait(going)
    assert not going[0].cancelled() and await going[3] == "b"
    assert {"a", "b"} <= lines_in(database)
    other = Writer(database)
    assert await asyncio.wait_for(other.do(insert("another writer")), 5) == "another writer"
    await writer.close()
    await other.close()


async def test_a_caller_who_goes_while_another_fails_does_not_stop_the_group(database: Path) -> None:
    """The lone retry of a cancelled caller must not trip over its future."""
    writer = Writer(database)
    await writer.do(insert("there"))
    tasks: list[asyncio.Task[Any]] = []

    def fails_and_loses_its_caller(connection: Connection) -> None:
        tasks[1].cancel()
        connection.execute("INSERT INTO lines VALUES ('there')")

    works = [insert("a"), fails_and_loses_its_caller, insert("b")]
    tasks += [asyncio.create_task(writer.do(work)) for work in works]
    await asyncio.wait_for(asyncio.wait(tasks), 10)
    assert (await tasks[0], await tasks[2]) == ("a", "b")
    assert await writer.do(insert("c")) == "c"
    await writer.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"])
async def test_a_connection_that_failed_is_not_trusted_again(database: Path, statement: str) -> None:
    writer = Writer(database)
    await writer.do(insert("there"))
    broken = writer._connection = Broken(writer._connection, statement)
    works = [insert("a"), insert("there") if statement == "ROLLBACK" else insert("b")]
    results = await asyncio.wait_for(asyncio.gather(*map(writer.do, works), return_exceptions=True), 10)
    assert [type(one) for one in results] == [StoreUnavailable, StoreUnavailable]
    assert lines_in(database) == {"there"}
    assert await asyncio.wait_for(writer.do(insert("c")), 10) == "c"
    assert broken.closed
    assert lines_in(database) == {"there", "c"}
    other = Writer(database)
    await asyncio.wait_for(other.do(insert("the lock is free")), 10)
    await writer.close()
    await other.close()


async def test_a_full_disk_refuses_everybody_and_is_survived(database: Path) -> None:
    writer = Writer(database)
    writer._connection.execute("PRAGMA max_page_count=10")
    results = await asyncio.gather(*(writer.do(insert("x" * 9000 + str(n))) for n in range(9)), return_exceptions=True)
    assert any(isinstance(one, StoreUnavailable) for one in results)
    kept = [one for one in results if isinstance(one, str)]
    assert lines_in(database) == set(kept)
    assert await writer.do(insert("after")) == "after"
    await writer.close()


async def test_whoever_waits_too_long_hears_so_and_the_next_is_served(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BUSY_SECONDS", 0.2)
    writer = Writer(database)
    with held(database), pytest.raises(StoreUnavailable, match=r"test\.db"):
        await asyncio.wait_for(writer.do(insert("too early")), 10)
    assert await writer.do(insert("in time")) == "in time"
    assert lines_in(database) == {"in time"}
    await writer.close()


async def test_the_loop_goes_on_while_another_process_has_its_turn(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_SECONDS", 0.2)
    writer = Writer(database)
    turn = os.open(f"{database}.lock", os.O_RDWR)
    fcntl.flock(turn, fcntl.LOCK_EX)
    first = asyncio.create_task(writer.do(insert("impatient")))
    with pytest.raises(StoreUnavailable, match="another process"):
        await asyncio.wait_for(first, 10)
    second = asyncio.create_task(writer.do(insert("patient")))
    await asyncio.sleep(0)
    os.close(turn)
    assert await asyncio.wait_for(second, 10) == "patient"
    assert lines_in(database) == {"patient"}
    await writer.close()


_OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from gateway.store.writer import Writer

async def main(path, name):
    writer = Writer(path)
    for number in range(40):
        await asyncio.gather(*(
            writer.do(lambda c, t=f"{name} {number} {one}": c.execute("INSERT INTO lines VALUES (?)", (t,)))
            for one in range(3)
        ))
    await writer.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_two_processes_write_at_once_and_lose_nothing(database: Path) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    processes = [
        subprocess.Popen([sys.executable, "-c", _OTHER_PROCESS, str(database), name], cwd=root) for name in "ab"
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert lines_in(database) == {f"{name} {n} {one}" for name in "ab" for n in range(40) for one in range(3)}
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]


def test_an_old_sqlite_is_refused(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(ConfigError, match=r"3\.51\.3"):
        connect(database)


def test_opening_does_not_create(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"nowhere\.db"):
        connect(tmp_path / "nowhere.db")
    assert not list(tmp_path.iterdir())


def test_every_promise_is_set_on_a_connection(database: Path) -> None:
    with closing(connect(database)) as connection:
        told = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "secure_delete")}
        assert told == {"synchronous": 2, "secure_delete": 1}
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_reader_cannot_write(database: Path) -> None:
    with closing(connect(database, read_only=True)) as connection, pytest.raises(sqlite.OperationalError):
        connection.execute("INSERT INTO lines VALUES ('a')")


# files, keys, migrations


def test_only_a_sqlite_url_is_a_store() -> None:
    assert open_path("sqlite:/var/lib/assent/assent.db") == Path("/var/lib/assent/assent.db")
    for url in ("postgresql://localhost/assent", "sqlite:", "assent.db"):
        with pytest.raises(ConfigError):
            open_path(url)


def test_preparing_again_changes_nothing(rig: Rig) -> None:
    secrets = {path.name: path.read_bytes() for path in rig.folder.keys.iterdir()}
    rig.folder.prepare()
    assert {path.name: path.read_bytes() for path in rig.folder.keys.iterdir()} == secrets
    assert set(secrets) == {ADDRESS_RING, TOKEN_RING, LEDGER_KEY}
    assert is_up_to_date(rig.folder.people, PEOPLE)


LINES = "CREATE TABLE lines (text TEXT UNIQUE)"


def test_a_file_of_a_newer_version_is_not_touched(database: Path) -> None:
    migrate(database, (LINES, "CREATE TABLE more (a)"))
    with pytest.raises(ConfigError, match="newer version"):
        migrate(database, (LINES,))
    assert rows(database, "PRAGMA user_version") == [(2,)]


def test_the_migrations_that_are_due_happen_all_or_not_at_all(database: Path) -> None:
    with pytest.raises(StoreUnavailable):
        migrate(database, (LINES, "CREATE TABLE one (a)", "CREATE TABLE two (a); CREATE TABLE one (a)"))
    assert rows(database, "SELECT name FROM sqlite_schema WHERE type = 'table'") == [("lines",)]
    assert rows(database, "PRAGMA user_version") == [(1,)]


def test_what_is_migrated_is_copied_before_and_the_copy_stays(database: Path) -> None:
    with closing(connect(database)) as connection:
        connection.execute("INSERT INTO lines VALUES ('kept')")
    trigger = "CREATE TRIGGER once AFTER INSERT ON lines BEGIN SELECT 1; SELECT 2; END"
    copy = migrate(database, (LINES, f"ALTER TABLE lines ADD COLUMN more; {trigger}"))
    assert copy == database.with_name("test.db.schema-1")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert migrate(database, (LINES, f"ALTER TABLE lines ADD COLUMN more; {trigger}")) is None
    assert rows(database, "SELECT * FROM lines") == [("kept", None)]
    assert (rows(copy, "SELECT * FROM lines"), rows(copy, "PRAGMA integrity_check")) == ([("kept",)], [("ok",)])


def test_nothing_is_migrated_while_another_version_is_at_work(rig: Rig) -> None:
    with closing(connect(rig.folder.people)) as connection:
        connection.execute("PRAGMA user_version = 1")
    lease = Leases(rig.folder.leases, "worker")
    with pytest.raises(StoreUnavailable, match="at work"):
        rig.folder.prepare()
    lease.close()
    assert rows(rig.folder.people, "PRAGMA user_version") == [(1,)]


@pytest.mark.parametrize("name", [ADDRESS_RING, TOKEN_RING])
def test_a_loose_key_file_is_refused_with_its_remedy(rig: Rig, name: str) -> None:
    path = rig.folder.keys / name
    assert path.stat().st_mode & 0o777 == 0o600
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            read_ring(path)


def test_a_ledger_key_that_is_loose_missing_or_another_kind_is_refused(rig: Rig) -> None:
    path = rig.folder.keys / LEDGER_KEY
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_ledger_key(path)
    path.chmod(0o600)
    path.write_bytes(b"not a key\n")
    with pytest.raises(ConfigError, match="PEM"):
        read_ledger_key(path)
    path.unlink()
    with pytest.raises(ConfigError, match="put back your copy"):
        read_ledger_key(path)


def test_a_key_that_is_there_and_another_users_is_not_to_be_put_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(ConfigError, match="Permission denied; make it readable to this user"):
        read_ledger_key(rig.folder.keys / LEDGER_KEY)


@pytest.mark.parametrize("content", ["", "1 zz\n", "1\n", "0 00\n", "256 00\n", "one 00\n", "1 00 00\n"])
def test_a_key_ring_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    make_keys(tmp_path)
    (tmp_path / TOKEN_RING).write_text(content)
    with pytest.raises(ConfigError, match="not a key ring"):
        read_ring(tmp_path / TOKEN_RING)


# people


async def test_an_address_that_is_nobodys_is_called_by_a_digest(rig: Rig) -> None:
    async with rig.people() as people:
        (facts,) = await people.facts([ALICE])
    assert facts.address_id is None
    assert facts.who.startswith("1:") and len(facts.who) == 34
    assert not facts.standing.permissions
    with pytest.raises(LookupError):
        _ = facts.person


async def test_what_is_recorded_stands_at_once_and_for_another_process_too(rig: Rig) -> None:
    async with rig.people() as people, rig.people() as other:
        (event,) = await people.record([opt_in()])
        (facts,) = await other.facts([ALICE])
        assert [one.event for one in facts.standing.permissions] == [event.seq]
        assert facts.who == event.address_id.hex() and facts.person == event.address_id
        assert await other.address_of(event.address_id) == ALICE
        assert await other.history(event.address_id) == [event]


async def test_events_are_recorded_all_or_none(rig: Rig) -> None:
    async with rig.people() as people:
        unwritable = replace(opt_in(BOB), facts={"what": object()})
        with pytest.raises(TypeError):
            await people.record([opt_in(ALICE), unwritable])
        assert [one.address_id for one in await people.facts([ALICE, BOB])] == [None, None]


@pytest.mark.req("UNS-24")
async def test_the_same_no_is_recorded_once(rig: Rig) -> None:
    async with rig.people() as people:
        (event,) = await people.record([opt_in()])
        told = [await people.record([unsubscribe(event.address_id)]) for _ in range(5)]
        together = await people.record([unsubscribe(event.address_id)] * 3 + [unsubscribe(ALICE)])
        assert {one.seq for (one,) in told} == {one.seq for one in together} == {2}
        assert [one.type for one in await people.history(event.address_id)] == [
            *(EventType.EXPRESS_OPT_IN, EventType.UNSUBSCRIBE),
        ]


@pytest.mark.req("UNS-26")
async def test_a_no_from_a_link_is_kept_though_the_person_has_been_forgotten(rig: Rig) -> None:
    stranger = bytes(range(16))
    async with rig.people() as people:
        (event,) = await people.record([unsubscribe(stranger)])
        assert event.address_id == stranger
        assert await people.address_of(stranger) is None
        assert len(await people.history(stranger)) == 1


@pytest.mark.req("SUP-01", "SUP-03")
async def test_consent_matches_narrowly(rig: Rig) -> None:
    async with rig.people() as people:
        await people.record([opt_in(ALICE)])
        texts = ['"alice"@EXAMPLE.org.', "Alice@example.org", "alice+x@example.org", "a.lice@example.org"]
        known = [bool(one.standing.permissions) for one in await people.facts([Address.parse(one) for one in texts])]
    assert known == [True, True, False, False]


@pytest.mark.req("SUP-02")
@pytest.mark.parametrize(
    ("one", "other"),
    [("\u212aate@ex.com", "kate@ex.com"), ("kate@ex.com", "\u212aate@ex.com"), ("Ü@ex.com", "ü@ex.com")],
)
async def test_suppression_matches_broadly_and_consent_does_not(rig: Rig, one: str, other: str) -> None:
    told, asked = Address.parse(one), Address.parse(other)
    async with rig.people() as people:
        await people.record([opt_in(told), unsubscribe(told)])
        (facts,) = await people.facts([asked])
        assert [one.topic for one in facts.standing.suppressions] == ["news"]
        assert not facts.standing.permissions
        await people.record([opt_in(asked)])
        (facts,) = await people.facts([asked])
        assert facts.standing.permissions and facts.standing.suppressions


@pytest.mark.req("SUP-10")
async def test_a_suppression_is_found_after_two_new_keys(rig: Rig) -> None:
    async with rig.people() as people:
        await people.record([opt_in(), unsubscribe()])
    ring = rig.folder.keys / ADDRESS_RING
    ring.write_text(ring.read_text() + "2 " + "22" * 32 + "\n3 " + "33" * 32 + "\n")
    rig.folder.prepare()
    async with rig.people() as people:
        (facts,) = await people.facts([ALICE])
        assert [one.topic for one in facts.standing.suppressions] == ["news"]
        await people.record([opt_in(BOB)])
    assert [row[0] for row in rows(rig.folder.people, "SELECT kid FROM address_keys ORDER BY kid")] == [1, 3]


@pytest.mark.req("SUP-09")
async def test_a_stolen_database_answers_no_dictionary(rig: Rig) -> None:
    async with rig.people() as people:
        await people.record([opt_in()])
    guessed = replace(rig.folder.address_ring(), keys={1: b"guess" * 7})
    stranger = SqlitePeople(rig.folder.people, guessed, rig.clock.now, rig.standby())
    (facts,) = await stranger.facts([ALICE])
    assert facts.address_id is None
    await stranger.close()


async def test_everyone_with_a_suppression_is_listed(rig: Rig) -> None:
    async with rig.people() as people:
        await people.record([opt_in(ALICE), opt_in(BOB), unsubscribe(BOB), unsubscribe(bytes(16))])
        listed = {address: standing.suppressions[0].topic for address, standing in await people.suppressed()}
    assert listed == {BOB: "news", None: "news"}


async def test_events_of_some_types_are_found_without_reading_all_others_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_module, "_LOOKED_THROUGH", 3)
    wanted = [EventType.UNSUBSCRIBE]
    async with rig.people() as store:
        assert await store.events_of(wanted, 0, 1) == ([], 0)
        opted_in = await store.record([opt_in(Address.parse(f"person{n}@example.org")) for n in range(5)])
        (no,) = await store.record([unsubscribe(ALICE)])
        assert await store.events_of(wanted, 0, 9) == ([], 3)
        assert await store.events_of(wanted, 3, 9) == ([no], no.seq)
        assert await store.events_of(wanted, no.seq, 9) == ([], no.seq)
        assert await store.events_of([EventType.EXPRESS_OPT_IN], 0, 2) == (opted_in[:2], opted_in[1].seq)


async def test_a_topics_number_is_never_another_topics(rig: Rig) -> None:
    async with rig.people() as people, rig.people() as other:
        await people.number_topics(["news", "offers"])
        await other.number_topics(["offers", "news", "software"])
        await people.number_topics(["news"])
        numbers = [other.topic_number(one) for one in ("news", "offers", "software")]
        assert numbers[:2] == [people.topic_number(one) for one in ("news", "offers")] == [FIRST_TOPIC, FIRST_TOPIC + 1]
        assert numbers[2] > numbers[1]
        assert people.topic_slug(numbers[2]) == "software"
        assert people.topic_slug(numbers[2] + 1) is None


async def test_two_processes_that_number_topics_at_once_agree(rig: Rig) -> None:
    async with rig.people() as one, rig.people() as other:
        await asyncio.gather(one.number_topics(["a", "b"]), other.number_topics(["b", "c"]))
    numbers = dict(rows(rig.folder.people, "SELECT slug, number FROM topics"))
    assert set(numbers) == {"a", "b", "c"} and len(set(numbers.values())) == 3


async def test_a_login_is_added_and_changed(rig: Rig) -> None:
    shop = LoginRecord(Login("shop", ("newsletter",), "it@example.com", ("10.0.0.0/8",)), "secret")
    async with rig.people() as people:
        assert await people.login("shop") is None
        await people.put_login(shop)
        await people.put_login(LoginRecord(Login("crm", ("billing",)), ""))
        assert await people.login("shop") == shop
        await people.put_login(replace(shop, disabled=True))
        assert await people.logins() == [LoginRecord(Login("crm", ("billing",)), ""), replace(shop, disabled=True)]


async def test_a_notice_is_registered_once_and_never_changes(rig: Rig) -> None:
    notice = Notice("signup-1", "news", "Yes, send me news", "https://example.com/join", "box, unticked", START, None)
    async with rig.people() as people:
        await people.add_notice(notice)
        with pytest.raises(sqlite.IntegrityError):
            await people.add_notice(replace(notice, text="Something else"))
        await people.add_notice(replace(notice, name="signup-2", valid_until=START + LATER))
        assert await people.notices() == [
            replace(notice, number=1),
            replace(notice, name="signup-2", valid_until=START + LATER, number=2),
        ]


async def test_a_people_file_that_cannot_be_read_is_an_unavailable_store(rig: Rig) -> None:
    async with rig.people() as people:
        people._reader.connection().execute("PRAGMA query_only=OFF")
        people._reader.connection().execute("DROP TABLE address_keys")
        with pytest.raises(StoreUnavailable):
            await people.facts([ALICE])


# spool


async def test_what_was_kept_is_claimed_as_it_was(rig: Rig) -> None:
    message, addressees = rig.message(), rig.addressees(ALICE, Address.parse('"a b"@bücher.example'))
    async with rig.spool() as spool:
        await spool.keep(message, addressees, [rig.line()], claimed=0)
    async with rig.spool() as spool:
        claims = await rig.claim(spool, 10)
        assert [one.addressee for one in claims] == addressees
        assert {id(one.message) for one in claims} == {id(claims[0].message)}
        assert claims[0].message == message
        assert await rig.claim(spool, 10) == []


async def test_what_was_kept_as_claimed_is_nobody_elses(rig: Rig) -> None:
    async with rig.spool("one") as spool, rig.spool("two") as other:
        await spool.keep(rig.message(), rig.addressees(ALICE), [rig.line()], claimed=EVERYBODY)
        assert await other.take_over() == 0
        assert await rig.claim(other, 10) == [] == await rig.claim(spool, 10)


async def test_what_is_left_of_a_message_is_anybodys(rig: Rig) -> None:
    refused = replace(rig.addressees(BOB)[0], outcome=Outcome.FAILED, reply="550 5.7.1 no-consent: no")
    asked = [refused, *(replace(rig.addressees(ALICE)[0], n=n) for n in range(1, 5))]
    async with rig.spool("one") as spool, rig.spool("two") as other:
        await spool.keep(rig.message(), asked, [rig.line()], claimed=2)
        assert [one.addressee.n for one in await rig.claim(other, 10)] == [3, 4]


async def test_breach_notices_go_first_and_promotion_last(rig: Rig) -> None:
    classes = [
        *(MessageClass.PROMOTIONAL, MessageClass.ACCOUNT, MessageClass.BREACH_NOTICE, MessageClass.PRODUCT),
        MessageClass.POLICY_NOTICE,
    ]
    async with rig.spool() as spool:
        for one in classes:
            await spool.keep(rig.message(message_class=one), rig.addressees(ALICE), [], claimed=0)
            rig.clock.move(timedelta(seconds=1))
        claimed = [one.message.message_class for n in (1, 2, 9) for one in await rig.claim(spool, n)]
    assert claimed[0] is MessageClass.BREACH_NOTICE
    assert set(claimed[1:3]) == {MessageClass.ACCOUNT, MessageClass.POLICY_NOTICE}
    assert set(claimed[3:]) == {MessageClass.PROMOTIONAL, MessageClass.PRODUCT}


async def test_a_claim_brings_no_more_bodies_than_fit_but_always_one(rig: Rig) -> None:
    async with rig.spool() as spool:
        for _ in range(3):
            await spool.keep(rig.message(bytes(1000)), rig.addressees(ALICE, ALICE), [], claimed=0)
            rig.clock.move(timedelta(seconds=1))
        assert [one.addressee.n for one in await rig.claim(spool, 9, 1999)] == [0, 1]
        assert len(await rig.claim(spool, 9, 1)) == 1
        assert len(await rig.claim(spool, 9, 10_000)) == 3


async def test_what_is_due_is_told_by_kind_and_claimed_by_kind(rig: Rig) -> None:
    async with rig.spool() as spool:
        for stream in ("offers", "newsletter"):
            await spool.keep(replace(rig.message(), stream=stream), rig.addressees(ALICE, BOB), [], claimed=0)
        await spool.keep(rig.message(message_class=MessageClass.ACCOUNT), rig.addressees(ALICE), [], claimed=0)
        later = rig.message(message_class=MessageClass.BREACH_NOTICE)
        await spool.keep(later, rig.addressees(ALICE), [], claimed=EVERYBODY)
        await spool.settle([rig.settlement(later, 0, Outcome.DEFERRED, rig.clock.now() + LATER)])
        promotion = [Waiting(Priority.PROMOTION, "newsletter"), Waiting(Priority.PROMOTION, "offers")]
        assert spool.due() == [Waiting(Priority.ESSENTIAL, "newsletter"), *promotion]
        assert [one.message.stream for one in await spool.claim(promotion[1:], 9, BUDGET)] == ["offers"] * 2
        assert spool.due() == [Waiting(Priority.ESSENTIAL, "newsletter"), promotion[0]]
        rig.clock.move(LATER)
        assert spool.due()[0] == Waiting(Priority.BREACH, "newsletter")


async def test_a_long_queue_of_one_stream_does_not_hide_another(rig: Rig) -> None:
    async with rig.spool() as spool:
        for _ in range(30):
            await spool.keep(replace(rig.message(), stream="aaa"), rig.addressees(ALICE), [], claimed=0)
        rig.clock.move(LATER)
        await spool.keep(replace(rig.message(), stream="bbb"), rig.addressees(ALICE), [], claimed=0)
        claimed = await rig.claim(spool, 10)
        assert sorted({one.message.stream for one in claimed}) == ["aaa", "bbb"]


async def test_what_is_put_back_is_due_then_and_has_not_been_tried(rig: Rig) -> None:
    message = rig.message()
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE, BOB), [], claimed=EVERYBODY)
        await spool.put_back([(message.id, 1)], rig.clock.now() + LATER)
        assert await rig.claim(spool, 9) == []
        rig.clock.move(LATER)
        assert [(one.addressee.n, one.addressee.attempts) for one in await rig.claim(spool, 9)] == [(1, 0)]


@pytest.mark.parametrize(
    "query",
    ["_NEXT_STREAM", "_NEXT_PRIORITY", "_IS_DUE", "_DUE", "_NEXT_OWNER", "_RECALLED", "_PUT_BACK", "_SETTLE"],
)
def test_no_hot_query_reads_what_it_does_not_need(rig: Rig, query: str) -> None:
    """A million queued recipients cost what one does (R9): each query goes by an index, and none sorts."""
    text = getattr(spool_module, query)
    plan = rows(rig.folder.spool, f"EXPLAIN QUERY PLAN {text}".replace("?", "1"))
    steps = [row[3] for row in plan]
    assert all(step.startswith("SEARCH") for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


async def test_to_see_what_is_due_takes_no_longer_where_more_waits(rig: Rig) -> None:
    """What a plan calls a search may still read every row of one kind: here SQLite's own steps are counted."""
    async with rig.spool() as spool:
        steps, counts = list[None](), list[int]()
        spool._reader.set_progress_handler(lambda: steps.append(None), 1)
        for recipients in (1, 400):
            await spool.keep(rig.message(), rig.addressees(*[ALICE] * recipients), [], claimed=0)
            steps.clear()
            assert len(spool.due()) == 1
            counts.append(len(steps))
    assert counts[1] < 2 * counts[0]


@pytest.mark.parametrize("octets", [0, 1, LARGE_BODY, LARGE_BODY + 1])
async def test_a_body_comes_back_octet_for_octet_and_a_large_one_is_a_file(rig: Rig, octets: int) -> None:
    message = rig.message(bytes(range(256)) * (octets // 256) + bytes(octets % 256))
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=0)
        assert [path.name for path in bodies(rig)] == ([spool_text(message.id)] if octets > LARGE_BODY else [])
        (claimed,) = await rig.claim(spool, 1)
        assert claimed.message.message == message.message
        await spool.settle([rig.settlement(message, 0, Outcome.RELAYED)])
        assert not bodies(rig)
    assert rows(rig.folder.spool, "SELECT * FROM messages") == rows(rig.folder.spool, "SELECT * FROM recipients") == []


async def test_a_message_stays_until_its_last_recipient_is_settled(rig: Rig) -> None:
    message = rig.message(LARGE)
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE, BOB, ALICE), [], claimed=EVERYBODY)
        await spool.settle([rig.settlement(message, 1, Outcome.RELAYED)])
        await spool.settle([rig.settlement(message, 0, Outcome.SUPPRESSED)])
        assert await spool.queue.depth() == (1, message.received_at)
        assert bodies(rig)
        await spool.settle([rig.settlement(message, 2, Outcome.RELAYED)])
        assert await spool.queue.depth() == (0, None)
        assert not bodies(rig)
    assert not rig.reported


async def test_failures_are_reported_once_and_together(rig: Rig) -> None:
    message = rig.message(LARGE)
    refused = replace(rig.addressees(BOB)[0], n=1, outcome=Outcome.FAILED, reply="550 5.7.1 no-consent: no")
    async with rig.spool() as spool:
        await spool.keep(message, [rig.addressees(ALICE)[0], refused], [], claimed=EVERYBODY)
        await spool.settle([rig.settlement(message, 0, Outcome.FAILED, reply="550 5.1.1 unknown")])
        ((about, failures),) = rig.reported
        assert about == message
        assert [(str(one.recipient.address), one.reply) for one in failures] == [
            ("alice@example.org", "550 5.1.1 unknown"),
            ("bob@example.org", "550 5.7.1 no-consent: no"),
        ]
        (report,) = await rig.claim(spool, 10)
        assert str(report.addressee.recipient.address) == message.reverse_path
        assert (report.message.reverse_path, report.message.message_class) == ("", MessageClass.SYSTEM)
        await spool.settle([rig.settlement(report.message, 0, Outcome.FAILED, reply="550 5.1.1 unknown")])
        assert await spool.queue.depth() == (0, None)


async def test_a_success_or_an_opt_out_that_is_to_be_told_waits_for_the_one_report(rig: Rig) -> None:
    message = rig.message()
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE, BOB, ALICE, BOB), [], claimed=EVERYBODY)
        outcomes = [Outcome.RELAYED, Outcome.SUPPRESSED, Outcome.RELAYED]
        settlements = [rig.settlement(message, n, outcome) for n, outcome in enumerate(outcomes)]
        await spool.settle([replace(one, is_told=one.n < 2) for one in settlements])
        assert not rig.reported
        await spool.settle([rig.settlement(message, 3, Outcome.FAILED)])
        ((_, fates),) = rig.reported
        assert [one.outcome for one in fates] == [Outcome.RELAYED, Outcome.SUPPRESSED, Outcome.FAILED]
        assert [one.message.message_class for one in await rig.claim(spool, 9)] == [MessageClass.SYSTEM]


async def test_a_delay_is_told_once_a_message_and_of_those_who_wait(rig: Rig) -> None:
    message = rig.message()
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE, BOB, ALICE), [], claimed=EVERYBODY)
        await spool.settle([rig.settlement(message, 2, Outcome.FAILED)])
        late = [rig.settlement(message, n, Outcome.DEFERRED, rig.clock.now() + LATER) for n in (0, 1)]
        await spool.settle([replace(one, is_told=True) for one in late])
        await spool.settle([replace(late[0], is_told=True)])
        ((_, fates),) = rig.reported
        assert [one.outcome for one in fates] == [Outcome.DEFERRED] * 2
        assert await spool.queue.depth() == (4, message.received_at)


async def test_a_message_that_nobody_gets_is_reported_even_where_its_file_is_gone(rig: Rig) -> None:
    message = rig.message(LARGE)
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=EVERYBODY)
        bodies(rig)[0].unlink()
        await spool.settle([rig.settlement(message, 0, Outcome.EXPIRED)])
        assert [about.message for about, _ in rig.reported] == [b""]
        assert [one.message.message_class for one in await rig.claim(spool, 9)] == [MessageClass.SYSTEM]


async def test_a_refused_recipient_beside_others_is_never_claimed(rig: Rig) -> None:
    refused = replace(rig.addressees(BOB)[0], n=1, outcome=Outcome.FAILED, reply="550 5.7.1 no-consent: no")
    async with rig.spool() as spool:
        await spool.keep(rig.message(), [rig.addressees(ALICE)[0], refused], [], claimed=0)
        rig.clock.move(timedelta(days=30))
        assert [one.addressee.n for one in await rig.claim(spool, 9)] == [0]


async def test_a_deferred_copy_is_due_again_in_time_and_at_once_when_an_operator_says_so(rig: Rig) -> None:
    message = rig.message()
    async with rig.spool("one") as spool, rig.spool("two") as other:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=EVERYBODY)
        deferred = rig.settlement(message, 0, Outcome.DEFERRED, rig.clock.now() + LATER, "451 4.7.1 later")
        await spool.settle([deferred])
        assert await rig.claim(other, 9) == []
        (waiting,) = await spool.queue.waiting(Selection())
        assert (waiting.outcome, waiting.attempts, waiting.due, waiting.reply) == (
            *(Outcome.DEFERRED, 1, START + LATER, "451 4.7.1 later"),
        )
        rig.clock.move(LATER)
        (again,) = await rig.claim(other, 9)
        assert again.addressee.attempts == 1
        await other.settle([rig.settlement(message, 0, Outcome.DEFERRED, rig.clock.now() + LATER)])
        assert await rig.claim(spool, 9) == []
        assert await spool.queue.retry(Selection((message.id + 1,))) == 0
        assert await spool.queue.retry(Selection((message.id,))) == 1
        assert [one.addressee.attempts for one in await rig.claim(spool, 9)] == [2]
        assert await spool.queue.retry(Selection((message.id,))) == 1 - 1


async def test_a_whole_stream_is_held_and_released_in_portions_while_others_write(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits, whoever keeps mail meanwhile waits for one portion; what comes meanwhile may go."""
    monkeypatch.setattr(queue_module, "BATCH", 3)
    async with rig.spool("operator") as operator, rig.spool("worker") as worker:
        messages = [rig.message() for _ in range(8)]
        for one in messages:
            await worker.keep(one, rig.addressees(ALICE, BOB), [], claimed=0)
        told, late = list[float](), list[asyncio.Task[None]]()

        def keep_meanwhile(part: float) -> None:
            told.append(part)
            if len(told) == 1:
                late.append(asyncio.ensure_future(worker.keep(rig.message(), rig.addressees(ALICE), [], claimed=0)))

        which = Selection(stream=messages[0].stream)
        assert await operator.queue.hold(which, keep_meanwhile) in (16, 17)
        await asyncio.gather(*late)
        assert told == sorted(told) and len(told) >= 4 and told[-1] == 1.0
        assert await operator.queue.depth() == (17, messages[0].received_at)
        held = [one for one in await operator.queue.waiting(which) if one.due is None]
        assert {one.message.id for one in held} >= {one.id for one in messages}
        assert await operator.queue.hold(Selection((messages[0].id,))) == 0
        assert await operator.queue.release(which) == len(held)
        assert await operator.queue.release(Selection(stream="another")) == 0
        assert len(await rig.claim(worker, 99)) == 17


async def test_settling_twice_is_settling_once(rig: Rig) -> None:
    message = rig.message()
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=EVERYBODY)
        await spool.settle([rig.settlement(message, 0, Outcome.RELAYED)])
        await spool.settle([rig.settlement(message, 0, Outcome.RELAYED)])
        assert await spool.queue.depth() == (0, None)


async def test_nothing_is_kept_where_keeping_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BUSY_SECONDS", 0.1)
    async with rig.spool() as spool:
        with held(rig.folder.spool), pytest.raises(StoreUnavailable):
            await spool.keep(rig.message(LARGE), rig.addressees(ALICE), [rig.line()], claimed=EVERYBODY)
        assert not bodies(rig)
        assert await spool.queue.depth() == (0, None)
        assert rows(rig.folder.spool, "SELECT * FROM outbox") == []


async def test_a_body_that_cannot_be_written_is_an_unavailable_store(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with rig.spool() as spool:
        monkeypatch.setattr("gateway.store.spool.os.fsync", full)
        with pytest.raises(StoreUnavailable, match="No space"):
            await spool.keep(rig.message(LARGE), rig.addressees(ALICE), [], claimed=EVERYBODY)
        monkeypatch.undo()
        assert not bodies(rig)


async def test_a_body_is_never_written_over(rig: Rig) -> None:
    message = rig.message(LARGE)
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=0)
        with pytest.raises(StoreUnavailable):
            await spool.keep(replace(message, message=LARGE + b"other"), rig.addressees(BOB), [], claimed=0)
        assert [one.message.message for one in await rig.claim(spool, 9)] == [LARGE]


async def test_a_cancelled_caller_leaves_a_whole_message_or_none(rig: Rig) -> None:
    """aiosmtpd cancels a handler whose client has hung up (R14)."""
    async with rig.spool() as spool:
        for pauses in range(12):
            keeping = asyncio.create_task(
                spool.keep(rig.message(), rig.addressees(ALICE, BOB), [rig.line()], claimed=0)
            )
            for _ in range(pauses):
                await asyncio.sleep(0)
            keeping.cancel()
            await asyncio.wait([keeping])
        await spool.keep(rig.message(), rig.addressees(ALICE, BOB), [rig.line()], claimed=0)
    counted = rows(rig.folder.spool, "SELECT count(*) FROM recipients GROUP BY message_id")
    assert set(counted) == {(2,)}
    assert len(counted) == len(rows(rig.folder.spool, "SELECT * FROM messages"))
    assert len(counted) == len(rows(rig.folder.spool, "SELECT * FROM outbox"))


async def test_a_message_without_its_file_waits_for_an_operator_and_stops_nobody(rig: Rig) -> None:
    lost, other = rig.message(LARGE), rig.message()
    async with rig.spool() as spool:
        await spool.keep(lost, rig.addressees(ALICE, BOB), [], claimed=0)
        await spool.keep(other, rig.addressees(ALICE), [], claimed=0)
        bodies(rig)[0].unlink()
        assert [one.message.id for one in await rig.claim(spool, 9)] == [other.id]
        assert await rig.claim(spool, 9) == []
        held = await spool.queue.waiting(Selection((lost.id,)))
        assert [(one.outcome, "missing" in one.reply) for one in held] == [(Outcome.DEFERRED, True)] * 2
        (rig.folder.bodies / spool_text(lost.id)).write_bytes(LARGE)
        assert await spool.queue.retry(Selection((lost.id,))) == 2
        assert [one.message.message for one in await rig.claim(spool, 9)] == [LARGE, LARGE]


async def test_what_was_claimed_and_cannot_be_read_is_nobodys_again(rig: Rig) -> None:
    async with rig.spool() as spool:
        await spool.keep(rig.message(LARGE), rig.addressees(ALICE), [], claimed=0)
        bodies(rig)[0].rename(rig.folder.bodies / "away")
        bodies(rig)[0].with_name(spool_text(rows(rig.folder.spool, "SELECT id FROM messages")[0][0])).mkdir()
        with pytest.raises(StoreUnavailable):
            await rig.claim(spool, 9)
        assert rows(rig.folder.spool, "SELECT owner FROM recipients") == [(None,)]


async def test_bodies_that_a_crash_left_go_when_nobody_keeps_anything(rig: Rig) -> None:
    message = rig.message(LARGE)
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [], claimed=0)
        orphan = rig.folder.bodies / spool_text(rig.ids.spool())
        orphan.write_bytes(b"never acknowledged")
        rig.folder.prepare()
        assert orphan.exists(), "a worker lives: its row may be on the way"
    rig.folder.prepare()
    assert [path.name for path in bodies(rig)] == [spool_text(message.id)]


# noted lines


async def test_noted_lines_are_written_within_a_second(rig: Rig) -> None:
    async with rig.spool() as spool:
        noted = [rig.line(who="a"), rig.line(who="b"), rig.line(who="c")]
        spool.note(noted[:2])
        spool.note(noted[2:])
        assert NOTE_SECONDS < 1
        await asyncio.sleep(NOTE_SECONDS)
        async with asyncio.timeout(10):
            while not (found := rows(rig.folder.spool, "SELECT lines FROM outbox")):
                await asyncio.sleep(0.02)
        assert [bytes(row[0]) for row in found] == [b"\n".join(noted)]


async def test_noted_lines_are_written_when_the_store_is_closed(rig: Rig) -> None:
    async with rig.spool() as spool:
        spool.note([rig.line(who="a")])
    assert len(rows(rig.folder.spool, "SELECT * FROM outbox")) == 1


async def test_noted_lines_wait_for_a_store_that_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BUSY_SECONDS", 0.1)
    async with rig.spool() as spool:
        with held(rig.folder.spool):
            spool.note([rig.line(who="a")])
            await asyncio.sleep(NOTE_SECONDS + 0.4)
        async with asyncio.timeout(10):
            while not rows(rig.folder.spool, "SELECT * FROM outbox"):
                await asyncio.sleep(0.05)


async def test_a_line_is_found_before_it_is_sealed_and_by_its_own_field_only(rig: Rig) -> None:
    message = rig.message()
    mine = rig.line(spool_text(message.id), who="ab")
    async with rig.spool() as spool:
        await spool.keep(message, rig.addressees(ALICE), [mine, rig.line(who="abc")], claimed=0)
    assert rig.folder.decision_lines("message", spool_text(message.id)) == [mine]
    assert rig.folder.decision_lines("who", "ab") == [mine]
    assert rig.folder.decision_lines("who", "a") == []


# leases


async def test_a_dead_workers_copies_are_taken_over_and_a_living_ones_never(rig: Rig) -> None:
    kept, dying = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(_keep_and_wait(rig, dying))
        finally:
            os._exit(1)
    os.close(dying)
    assert os.read(kept, 4) == b"kept"
    async with rig.spool("survivor") as spool:
        assert await spool.take_over() == 0
        assert await rig.claim(spool, 9) == []
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert await spool.take_over() == 2
        assert [one.addressee.n for one in await rig.claim(spool, 9)] == [0, 1]
        assert await spool.take_over() == 0
    os.close(kept)


async def _keep_and_wait(rig: Rig, pipe: int) -> None:
    spool = rig.open_spool("doomed")
    await spool.keep(rig.message(LARGE), rig.addressees(ALICE, BOB), [rig.line()], claimed=EVERYBODY)
    os.write(pipe, b"kept")
    await asyncio.sleep(600)


async def test_what_a_worker_still_had_when_it_ended_in_order_is_taken_over(rig: Rig) -> None:
    async with rig.spool("leaving") as spool:
        await spool.keep(rig.message(), rig.addressees(ALICE), [], claimed=EVERYBODY)
    async with rig.spool("next") as spool:
        assert await spool.take_over() == 1
        assert len(await rig.claim(spool, 9)) == 1


async def test_a_worker_of_the_same_name_does_not_inherit_copies_without_knowing(rig: Rig) -> None:
    async with rig.spool("worker-0-17") as first:
        await first.keep(rig.message(), rig.addressees(ALICE), [], claimed=EVERYBODY)
        async with rig.spool("worker-0-17") as second:
            assert await second.take_over() == 0
    async with rig.spool("worker-0-17") as third:
        assert await third.take_over() == 1


async def test_copies_whose_owners_leases_were_not_restored_are_taken_over(rig: Rig) -> None:
    async with rig.spool("lost") as spool:
        await spool.keep(rig.message(), rig.addressees(ALICE), [], claimed=EVERYBODY)
    for path in rig.folder.leases.iterdir():
        path.unlink()
    async with rig.spool() as spool:
        assert await spool.take_over() == 1


def test_a_lease_is_held_before_anyone_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    lock = fcntl.flock

    def look_first(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX | fcntl.LOCK_NB:
            seen.append([path.name for path in tmp_path.glob("*") if not path.name.startswith(".")])
        lock(descriptor, operation)

    monkeypatch.setattr("gateway.store.leases.fcntl.flock", look_first)
    one = Leases(tmp_path, "one")
    assert seen == [[]]
    monkeypatch.undo()
    two = Leases(tmp_path, "two")
    assert two.dead([one.owner]) == one.dead([two.owner, one.owner]) == []
    assert two.dead(["stranger"]) == ["stranger"]
    one.close()
    assert two.dead([one.owner]) == [one.owner]
    two.close()
