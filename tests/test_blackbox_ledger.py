"""A record that cannot be changed unseen, and mail that survives a power switch.

The program makes a history and seals it; then somebody who has the database, and even its keys, tampers with a copy of
it; then `assent ledger verify` is asked. Of the program's files only the anchor is read, which is made to be kept
elsewhere.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.sink import Sink

PEOPLE = [f"ledger-{n}@example.org" for n in range(6)]
REFUSED = [f"refused-{n}@example.org" for n in range(4)]


@dataclass(frozen=True)
class History:
    """An installation that has been stopped, its state on an earlier day, and its anchor, kept away from it."""

    house: Gateway
    earlier: Path
    anchor: Path

    def copy(self, folder: Path) -> Gateway:
        """Return another installation with the same history, to be tampered with."""
        shutil.copytree(self.house.folder, folder)
        return Gateway(folder, self.house.smarthost)


def sealed_lines(house: Gateway) -> dict[str, int]:
    """Return the last line of each chain that the anchor answers for."""
    anchor = house.folder / "var" / "anchor.jsonl"
    lines = anchor.read_text().splitlines() if anchor.exists() else []
    return {head["chain"]: head["last"] for head in map(json.loads, lines)}


def record(house: Gateway, people: list[str], refused: list[str]) -> None:
    """Let the program record opt-ins and refusals, seal them, and stop."""
    before = sealed_lines(house)
    house.opt_in(*people)
    house.start()
    assert house.submit(newsletter(), refused).keys() == set(refused)
    expected = {"ledger": before.get("ledger", 0) + len(people), "decisions": before.get("decisions", 0) + len(refused)}
    eventually(lambda: sealed_lines(house) == expected)
    assert house.stop() == 0


@pytest.fixture(scope="module")
def history(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("history")
    house = Gateway(folder / "house", shared_sink.url).prepare()
    try:
        record(house, PEOPLE[:3], REFUSED[:2])
        shutil.copytree(house.folder / "var", folder / "earlier")
        record(house, PEOPLE[3:], REFUSED[2:])
    finally:
        house.close()
    yield History(
        house, folder / "earlier", Path(shutil.copy(house.folder / "var" / "anchor.jsonl", folder / "kept-away"))
    )


def problems(house: Gateway, *options: str) -> list[str]:
    """Return what `ledger verify` names; its exit status must fit."""
    done = house.run("--json", "ledger", "verify", *options, check=False)
    found: list[str] = json.loads(done.stdout)["problems"]
    assert done.returncode == (1 if found else 0), done.stderr
    return found


def change(house: Gateway, database: str, *statements: str) -> None:
    (path,) = (house.folder / "var").glob(database)
    with closing(sqlite.connect(str(path))) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement
        connection.commit()


@pytest.mark.req("CON-06")
def test_an_untouched_history_verifies_with_and_without_its_anchor(history: History) -> None:
    assert problems(history.house) == []
    assert problems(history.house, "--anchor", str(history.anchor)) == []
    assert "whole" in history.house.run("ledger", "verify", "--anchor", str(history.anchor)).stdout


def flipped(value: Any) -> Any:
    """Return a stored value with one bit of one octet flipped, of the same type and readable as before."""
    if isinstance(value, int):
        return value ^ 1
    octets = bytearray(value.encode() if isinstance(value, str) else value)
    place = (
        max(n for n, octet in enumerate(octets) if chr(octet).isalnum()) if isinstance(value, str) else len(octets) // 2
    )
    octets[place] ^= 1
    return octets.decode() if isinstance(value, str) else bytes(octets)


EVENT, HEAD = "seq = 4", "chain = 'ledger' AND number = 2"
PERSON = "address_id = (SELECT address_id FROM events WHERE seq = 4)"
MOVED = r"decisions segment \d: a line of \d to \d has been changed or moved"
FLIPS = [
    *(("assent.db", "events", column, EVENT, "ledger line 4: ") for column in ("address_id", "recorded_at", "facts")),
    *(("assent.db", "events", column, EVENT, "ledger line 4: ") for column in ("commitment", "hash")),
    ("assent.db", "event_personal", "fields", EVENT, "ledger line 4: its personal fields"),
    ("assent.db", "people", "standing", PERSON, "person [0-9a-f]{32}: the standing is not what the ledger amounts to"),
    *(("assent.db", "segments", column, HEAD, "ledger segment 2") for column in ("root", "signature")),
    ("decisions/*.db", "decisions", "line", "seq = 2", MOVED),
]


@pytest.mark.req("CON-06")
@pytest.mark.parametrize(
    ("database", "table", "column", "row", "place"), FLIPS, ids=[f"{one[1]}.{one[2]}" for one in FLIPS]
)
def test_one_flipped_bit_is_found_and_its_place_named(
    history: History, tmp_path: Path, database: str, table: str, column: str, row: str, place: str
) -> None:
    house = history.copy(tmp_path / "house")
    (path,) = (house.folder / "var").glob(database)
    with closing(sqlite.connect(str(path))) as connection:
        ((value,),) = connection.execute(f"SELECT {column} FROM {table} WHERE {row}").fetchall()
        assert flipped(value) != value
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {row}", (flipped(value),))
        connection.commit()
    found = problems(house)
    assert any(re.match(place, one) for one in found), found


EVENT_COLUMNS = "type, address_id, at, recorded_at, topic, scope, facts, commitment, hash"
TAMPERED: dict[str, tuple[str, list[str], str]] = {
    "an event in the middle is dropped": (
        "assent.db",
        ["DELETE FROM event_personal WHERE seq = 5", "DELETE FROM events WHERE seq = 5"],
        "ledger segment 2: a line of 4 to 6 is missing",
    ),
    "the last event is dropped": (
        "assent.db",
        ["DELETE FROM event_personal WHERE seq = 6", "DELETE FROM events WHERE seq = 6"],
        "ledger segment 2: a line of 4 to 6 is missing",
    ),
    "two events change their places": (
        "assent.db",
        [
            f"UPDATE {table} SET seq = {new} WHERE seq = {old}"
            for old, new in ((4, -4), (5, 4), (-4, 5))
            for table in ("events", "event_personal")
        ],
        "ledger line 4: ",
    ),
    "the contents of two events change their places": (
        "assent.db",
        [
            f"UPDATE events SET ({EVENT_COLUMNS}) = (SELECT {EVENT_COLUMNS} FROM events AS other"
            " WHERE other.seq = 9 - events.seq) WHERE seq IN (4, 5)"
        ],
        "ledger line 4: ",
    ),
    "a segment's head is dropped": (
        "assent.db",
        ["DELETE FROM segments WHERE chain = 'ledger' AND number = 1"],
        "ledger segment 1 is missing",
    ),
    "a person is dropped": (
        "assent.db",
        [f"DELETE FROM address_keys WHERE {PERSON}", f"DELETE FROM people WHERE {PERSON}"],
        "person [0-9a-f]{32} is in the ledger and nowhere else",
    ),
    "a decision is dropped": (
        "decisions/*.db",
        ["DELETE FROM decisions WHERE seq = 3"],
        r"decisions segment \d: a line of \d to \d is missing",
    ),
    "two decisions change their places": (
        "decisions/*.db",
        [f"UPDATE decisions SET seq = {new} WHERE seq = {old}" for old, new in ((1, -1), (2, 1), (-1, 2))],
        MOVED,
    ),
}


@pytest.mark.req("CON-06")
@pytest.mark.parametrize(("database", "statements", "place"), TAMPERED.values(), ids=TAMPERED)
def test_a_dropped_or_moved_row_is_found_and_its_place_named(
    history: History, tmp_path: Path, database: str, statements: list[str], place: str
) -> None:
    house = history.copy(tmp_path / "house")
    change(house, database, *statements)
    found = problems(house)
    assert any(re.match(place, one) for one in found), found


def cut_the_tail(history: History, house: Gateway) -> None:
    """Put the whole of an earlier day back in place: nothing within it contradicts itself."""
    shutil.rmtree(house.folder / "var")
    shutil.copytree(history.earlier, house.folder / "var")


def write_history_anew(history: History, house: Gateway) -> None:
    """Let the program itself make another history, with the keys of the first."""
    for path in (house.folder / "var").iterdir():
        if path.name not in ("keys", "dkim"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    house.write_config()
    house.run("migrate")
    house.add_login("news", "newsletter")
    try:
        record(house, ["other@example.org", *PEOPLE[1:3]], ["stranger@example.org", REFUSED[1]])
        record(house, PEOPLE[3:], REFUSED[2:])
    finally:
        house.close()


@pytest.mark.req("CON-06")
@pytest.mark.parametrize(
    ("tamper", "first", "place"),
    [
        (cut_the_tail, "ledger segment 2", r"(ledger|decisions) segment \d was anchored and is gone"),
        (write_history_anew, "ledger segment 1", r"(ledger|decisions) segment \d is not the one that was anchored"),
    ],
    ids=["the tail is cut off", "all is rewritten with the database's own keys"],
)
def test_a_history_that_is_whole_in_itself_is_held_against_the_anchor_that_was_kept_away(
    history: History, tmp_path: Path, tamper: Callable[[History, Gateway], None], first: str, place: str
) -> None:
    house = history.copy(tmp_path / "house")
    tamper(history, house)
    assert problems(house) == [], "only with the anchor it can be found"
    found = problems(house, "--anchor", str(history.anchor))
    assert found[0].startswith(first)
    assert {parsed[1] for one in found if (parsed := re.match(place, one))} == {"ledger", "decisions"}, found


@pytest.mark.req("CON-06")
def test_people_read_the_place_and_scripts_the_exit_status(history: History, tmp_path: Path) -> None:
    house = history.copy(tmp_path / "house")
    change(house, "assent.db", "UPDATE events SET topic = 'special-offers' WHERE seq = 2")
    done = house.run("ledger", "verify", check=False)
    assert done.returncode == 1
    assert re.search(r"(?m)^ledger line 2: it is not what was recorded$", done.stdout)
    forged = tmp_path / "forged"
    forged.write_text(history.anchor.read_text().replace('"signature": "', '"signature": "00', 1))
    assert any("anchor" in one for one in problems(history.house, "--anchor", str(forged)))


@pytest.mark.req("OUT-01")
def test_what_was_acknowledged_is_relayed_after_a_kill_and_a_new_start(make_gateway: MakeGateway, sink: Sink) -> None:
    """The smarthost took nothing before the kill, so what comes afterwards was on the disk at the 250."""
    house = make_gateway(workers=2)
    house.opt_in(*PEOPLE)
    house.start()
    sink.hold()
    large = newsletter(PEOPLE[0], subject="large") + b"".join(b"%060d\r\n" % n for n in range(5_000))
    acknowledged = [house.submit(large, PEOPLE[:1])[""]]
    acknowledged.append(house.submit(newsletter("list@news.example.com", subject="split"), PEOPLE)[""])
    acknowledged.append(house.submit(invoice(), REFUSED, login="shop", sender="billing@example.com")[""])
    house.kill()
    assert [code for code, _ in acknowledged] == [250, 250, 250]
    assert sink.messages == []
    sink.release()
    house.start()
    messages = sink.wait_for(8)
    eventually(lambda: house.json("queue", "list") == [])
    reached = sorted((message.recipients, b"Subject: large" in message.content) for message in messages)
    assert reached == sorted([((PEOPLE[0],), True), *(((one,), False) for one in PEOPLE), (tuple(REFUSED), False)])
    (kept,) = (message.content for message in messages if b"Subject: large" in message.content)
    assert large.endswith(kept[-250_000:]), "the large body is kept in a file of its own"
    assert len(sink.messages) == 8, "and none twice"


@pytest.mark.req("OUT-01")
def test_a_message_whose_250_was_just_read_is_never_lost(make_gateway: MakeGateway, sink: Sink) -> None:
    house = make_gateway()
    for n in range(2):
        house.start()
        with house.smtp("shop") as client:
            client.mail("billing@example.com")
            client.rcpt(f"kill{n}@example.org")
            code, _ = client.data(invoice())
            house.kill()
        assert code == 250
    house.start()
    expected = {("kill0@example.org",), ("kill1@example.org",)}
    eventually(lambda: {message.recipients for message in sink.messages} == expected)
