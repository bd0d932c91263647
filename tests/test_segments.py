"""Segments: what was sealed cannot be changed unseen, and no crash loses or doubles a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pysqlite3 import dbapi2 as sqlite

from gateway.consent import EventType, NewEvent, fold
from gateway.errors import StoreUnavailable
from gateway.ledger import SegmentHead, seal
from gateway.store.anchor import ANCHOR, Anchor
from gateway.store.history import event_of, row_of
from gateway.store.keys import LEDGER_KEY, read_ledger_key
from gateway.store.migrate import migrate
from gateway.store.schema import DECISIONS
from gateway.store.segments import CHAINS, DECISION_LOG, LEDGER, Sealer, signed_heads
from gateway.store.writer import connect
from tests.store_under_test import ALICE, BOB, START, Rig, opt_in, unsubscribe

pytestmark = pytest.mark.req("CON-06")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


def anchor(rig: Rig) -> Path:
    return rig.folder.root / ANCHOR


def findings(rig: Rig, *, with_anchor: bool = False) -> list[str]:
    return rig.folder.verify(anchor(rig) if with_anchor else None)


def change(path: Path, *statements: str) -> None:
    with closing(connect(path)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement


def month(rig: Rig) -> Path:
    (path,) = rig.folder.decisions.glob("*.db")
    return path


def all_lines(rig: Rig) -> list[bytes]:
    lines: list[bytes] = []
    for path in sorted(rig.folder.decisions.glob("*.db")):
        with closing(connect(path, read_only=True)) as connection:
            lines += [bytes(row[0]) for row in connection.execute("SELECT line FROM decisions ORDER BY seq")]
    return lines


async def note(rig: Rig, count: int = 3) -> list[bytes]:
    lines = [rig.line(who=f"who{n}") for n in range(count)]
    async with rig.spool() as spool:
        spool.note(lines)
    return lines


async def sealed(rig: Rig) -> int:
    sealer = rig.folder.sealer(rig.clock.now)
    assert sealer.elected()
    try:
        return await sealer.seal()
    finally:
        await sealer.close()


async def fill(rig: Rig) -> list[bytes]:
    """Make two segments of three events and of three decision lines, and leave one more of each unsealed."""
    lines: list[bytes] = []
    for person in (ALICE, BOB):
        async with rig.people() as people:
            await people.record([opt_in(person), opt_in(person, "offers"), unsubscribe(person)])
        lines += await note(rig)
        assert await sealed(rig) == 6
    async with rig.people() as people:
        await people.record([opt_in(BOB, "software")])
    return lines + await note(rig, 1)


async def test_what_nobody_touched_is_found_whole(rig: Rig) -> None:
    assert findings(rig, with_anchor=True) == []
    lines = await fill(rig)
    assert findings(rig, with_anchor=True) == []
    assert await sealed(rig) == 2
    assert await sealed(rig) == 0
    assert findings(rig, with_anchor=True) == []
    assert all_lines(rig) == lines
    heads = [head for head, _ in Anchor(anchor(rig)).heads()]
    assert [(one.chain, one.number, one.first, one.last, one.count) for one in heads if one.chain == LEDGER] == [
        *((LEDGER, 1, 1, 3, 3), (LEDGER, 2, 4, 6, 3), (LEDGER, 3, 7, 7, 1)),
    ]


_COLUMNS = ("type", "address_id", "at", "recorded_at", "topic", "scope", "facts", "commitment", "hash")


@pytest.mark.parametrize("column", _COLUMNS)
@pytest.mark.parametrize("row", [2, 6, 7])
async def test_one_flipped_bit_in_an_event_is_found_in_its_place(rig: Rig, column: str, row: int) -> None:
    await fill(rig)
    with closing(connect(rig.folder.people)) as connection:
        (old,) = connection.execute(f"SELECT {column} FROM events WHERE seq = ?", (row,)).fetchone()
        octets = bytearray(old.encode() if isinstance(old, str) else old or b"A")
        for at in range(len(octets)):
            for bit in (0, 7):
                octets[at] ^= 1 << bit
                new = "CAST(? AS TEXT)" if isinstance(old, str) or old is None else "?"
                connection.execute(f"UPDATE events SET {column} = {new} WHERE seq = ?", (bytes(octets), row))
                octets[at] ^= 1 << bit
                if at in (0, len(octets) // 2, len(octets) - 1):
                    found = findings(rig)
                    assert any(f"line {row}" in one for one in found), (at, bit, found)


@pytest.mark.parametrize(
    "edit",
    [
        """facts = '{"notice": 1}'""",
        """facts = '{"notice":2,"notice":1}'""",
        "at = '2026-11-22T12:00:00+00:00'",
        "recorded_at = '2026-11-22T13:00:00.000000+01:00'",
    ],
)
async def test_another_spelling_of_the_same_event_is_an_edit_too(rig: Rig, edit: str) -> None:
    await fill(rig)
    change(rig.folder.people, f"UPDATE events SET {edit} WHERE seq = 2")
    assert findings(rig) == ["ledger line 2: it is not what was recorded"]


async def test_an_edit_that_brings_its_own_hash_is_found_by_the_segment(rig: Rig) -> None:
    await fill(rig)
    with closing(connect(rig.folder.people)) as connection:
        _rewrite_event(connection, 3, lambda event: replace(event, topic="nothing"))
    found = findings(rig)
    assert "ledger segment 1: a line of 1 to 3 has been changed or moved" in found
    assert not any("segment 2" in one for one in found)


def _rewrite_event(connection: Any, seq: int, edit: Callable[[Any], Any]) -> None:
    query = (
        "SELECT seq, type, address_id, at, recorded_at, topic, scope, facts, NULL, commitment FROM events WHERE seq = ?"
    )
    *columns, committed = connection.execute(query, (seq,)).fetchone()
    event = edit(event_of(columns))
    connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
    row = row_of(event, committed)
    connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
async def test_a_dropped_row_is_found_and_names_only_its_own_segment(rig: Rig, seq: int) -> None:
    await fill(rig)
    change(rig.folder.people, f"DELETE FROM events WHERE seq = {seq}")
    segment, first = (1, 1) if seq < 4 else (2, 4)
    assert [one for one in findings(rig) if one.startswith("ledger")] == [
        f"ledger segment {segment}: a line of {first} to {first + 2} is missing"
    ]


async def test_an_added_row_is_found(rig: Rig) -> None:
    await fill(rig)
    change(rig.folder.people, "DELETE FROM events WHERE seq = 7", "UPDATE events SET seq = 7 WHERE seq = 6")
    assert any("segment 2: a line of 4 to 6 is missing" in one for one in findings(rig))


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 5)])
async def test_two_swapped_rows_are_found(rig: Rig, one: int, other: int) -> None:
    await fill(rig)
    with closing(connect(rig.folder.people)) as connection:
        _rewrite_event(connection, one, lambda event: replace(event, seq=99))
        _rewrite_event(connection, other, lambda event: replace(event, seq=one))
        _rewrite_event(connection, 99, lambda event: replace(event, seq=other))
    found = findings(rig)
    assert "ledger segment 1: a line of 1 to 3 has been changed or moved" in found
    assert any("segment 2" in line for line in found) is (other > 3)


async def test_a_cut_off_tail_is_found_with_the_anchor(rig: Rig) -> None:
    await fill(rig)
    change(
        rig.folder.people,
        "DELETE FROM segments WHERE number = 2 AND chain = 'ledger'",
        "DELETE FROM event_personal WHERE seq > 3",
        "DELETE FROM events WHERE seq > 3",
        "DELETE FROM address_keys WHERE address_id = (SELECT address_id FROM people WHERE address = 'bob@example.org')",
        "DELETE FROM people WHERE address = 'bob@example.org'",
    )
    assert findings(rig) == []
    assert findings(rig, with_anchor=True) == ["ledger segment 2 was anchored and is gone"]


async def test_a_tail_cut_off_under_its_heads_is_found_without_the_anchor(rig: Rig) -> None:
    await fill(rig)
    change(rig.folder.people, "DELETE FROM events WHERE seq > 4")
    assert "ledger segment 2: a line of 4 to 6 is missing" in findings(rig)


async def test_a_history_written_anew_with_the_databases_own_keys_is_found_with_the_anchor(rig: Rig) -> None:
    await fill(rig)
    key = read_ledger_key(rig.folder.keys / LEDGER_KEY)
    with closing(connect(rig.folder.people)) as connection:
        _rewrite_event(connection, 2, lambda event: replace(event, topic="news"))
        leaves = [bytes(row[0]) for row in connection.execute("SELECT hash FROM events ORDER BY seq")]
        connection.execute("DELETE FROM segments WHERE chain = 'ledger'")
        head: SegmentHead | None = None
        for first in (1, 4):
            head = seal(LEDGER, leaves[first - 1 : first + 2], first, first + 2, head, START)
            row = (*asdict(head).values(), key.sign(head.signed_bytes()), 0)
            connection.execute(f"INSERT INTO segments VALUES ({', '.join('?' * 10)})", row)
        _make_standings_true(connection)
    assert findings(rig) == []
    assert findings(rig, with_anchor=True) == [
        "ledger segment 1 is not the one that was anchored",
        "ledger segment 2 is not the one that was anchored",
    ]


def _make_standings_true(connection: Any) -> None:
    for (who,) in connection.execute("SELECT address_id FROM people").fetchall():
        query = "SELECT seq, type, address_id, at, recorded_at, topic, scope, facts, NULL FROM events"
        rows = connection.execute(f"{query} WHERE address_id = ? ORDER BY seq", (who,)).fetchall()
        standing = json.dumps(fold(map(event_of, rows)).to_json())
        connection.execute("UPDATE people SET standing = ? WHERE address_id = ?", (standing, who))


@pytest.mark.parametrize("column", ["number", "first", "last", "count", "root", "previous", "sealed_at", "signature"])
@pytest.mark.parametrize("chain", [LEDGER, DECISION_LOG])
async def test_an_edited_head_is_found(rig: Rig, chain: str, column: str) -> None:
    await fill(rig)
    new = {"number": "9", "root": f"'{'0' * 64}'", "previous": f"'{'1' * 64}'", "sealed_at": "'2020'"}
    new["signature"] = "zeroblob(64)"
    change(
        rig.folder.people,
        f"UPDATE segments SET {column} = {new.get(column, f'{column} + 1')} WHERE chain = '{chain}' AND number = 2",
    )
    assert any(chain in one and "2" in one for one in findings(rig))
    assert any(chain in one and "2" in one for one in findings(rig, with_anchor=True))


async def test_heads_of_another_key_are_found(rig: Rig) -> None:
    await fill(rig)
    stranger = Ed25519PrivateKey.generate()
    with closing(connect(rig.folder.people)) as connection:
        for head, _ in signed_heads(connection, LEDGER):
            connection.execute(
                "UPDATE segments SET signature = ? WHERE chain = 'ledger' AND number = ?",
                (stranger.sign(head.signed_bytes()), head.number),
            )
    assert findings(rig) == [f"ledger segment {number}: the signature is not ours" for number in (1, 2)]


@pytest.mark.parametrize(
    "edit", ["""'{"permissions":{},"suppressions":[]}'""", "'not json'", "'[]'", """'{"permissions":{}}'""", "x'ff'"]
)
async def test_an_edited_standing_is_found(rig: Rig, edit: str) -> None:
    await fill(rig)
    change(
        rig.folder.people,
        "DROP INDEX people_suppressed",  # which would itself refuse what is not JSON, as the next would
        "DROP INDEX people_mailboxes",
        f"UPDATE people SET standing = {edit} WHERE address = 'alice@example.org'",
    )
    (found,) = findings(rig)
    assert "the standing is not what the ledger amounts to" in found


async def test_a_person_who_was_removed_beside_the_ledger_is_found(rig: Rig) -> None:
    await fill(rig)
    change(rig.folder.people, "DELETE FROM people WHERE address = 'alice@example.org'")
    (found,) = findings(rig)
    assert found.endswith("is in the ledger and nowhere else")


async def test_a_person_whose_keys_were_removed_is_found(rig: Rig) -> None:
    await fill(rig)
    change(rig.folder.people, "DELETE FROM address_keys")
    assert [one.partition(" cannot ")[2] for one in findings(rig)] == ["be found by their address"] * 2


@pytest.mark.parametrize(
    "edit", ["""fields = '{"ip":"192.0.2.1"}'""", "fields = '{}'", "salt = zeroblob(16)", "fields = '{'"]
)
async def test_edited_personal_fields_are_found(rig: Rig, edit: str) -> None:
    await fill(rig)
    change(rig.folder.people, f"UPDATE event_personal SET {edit} WHERE seq = 5")
    assert findings(rig)[0].startswith("ledger line 5: ")


@pytest.mark.req("CON-07")
async def test_erasing_personal_fields_leaves_everything_verified_and_nothing_readable(rig: Rig) -> None:
    await fill(rig)
    change(
        rig.folder.people,
        "DELETE FROM event_personal",
        "UPDATE people SET address = NULL",
    )
    assert findings(rig, with_anchor=True) == []
    sealer = rig.folder.sealer(rig.clock.now)
    await sealer.checkpoint()
    await sealer.close()
    octets = b"".join(path.read_bytes() for path in rig.folder.root.glob("assent.db*"))
    assert b"192.0.2.9" not in octets
    assert b"alice" not in octets


# the decision log


async def test_an_edited_decision_line_is_found(rig: Rig) -> None:
    await fill(rig)
    change(month(rig), "UPDATE decisions SET line = CAST(replace(line, 'send', 'Send') AS BLOB) WHERE seq = 2")
    assert findings(rig) == ["decisions segment 1: a line of 1 to 3 has been changed or moved"]


async def test_a_dropped_decision_line_is_found(rig: Rig) -> None:
    await fill(rig)
    change(month(rig), "DELETE FROM decisions WHERE seq = 4")
    assert findings(rig) == ["decisions segment 2: a line of 4 to 6 is missing"]


async def test_swapped_decision_lines_are_found(rig: Rig) -> None:
    await fill(rig)
    change(
        month(rig), *(f"UPDATE decisions SET seq = {new} WHERE seq = {old}" for old, new in ((2, 9), (3, 2), (9, 3)))
    )
    assert findings(rig) == ["decisions segment 1: a line of 1 to 3 has been changed or moved"]


async def test_a_lost_month_is_found(rig: Rig) -> None:
    await fill(rig)
    month(rig).unlink()
    assert len([one for one in findings(rig) if "is missing" in one]) == 2


async def test_lines_go_on_in_the_next_months_file(rig: Rig) -> None:
    lines = await note(rig)
    await sealed(rig)
    rig.clock.move(timedelta(days=30))
    lines += await note(rig)
    await sealed(rig)
    assert [path.name for path in sorted(rig.folder.decisions.iterdir())] == ["2026-11.db", "2026-12.db"]
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []
    assert rig.folder.decision_lines("id", json.loads(lines[4])["id"]) == [lines[4]]


# the sealer, killed after each of its steps


class Killed(BaseException):
    """The process ends here."""


def _die(*_: object, **__: object) -> None:
    raise Killed


async def _die_later(*_: object, **__: object) -> None:
    raise Killed


_STEPS: dict[str, tuple[str, Any]] = {
    "before the month's file": ("_keep", _die),
    "before the segment is closed": ("_close_segment", _die_later),
    "before the anchor": ("anchor", _die),
    "before the outbox is emptied": ("outbox", _die),
}


@pytest.fixture(params=_STEPS)
def killed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sealer], None]]:
    name, death = _STEPS[request.param]

    def prepare(sealer: Sealer) -> None:
        if name == "anchor":
            monkeypatch.setattr(Anchor, "append", death)
        elif name == "outbox":
            monkeypatch.setattr(sealer._spool, "do", _die_later)
        else:
            monkeypatch.setattr(sealer, name, death)

    yield prepare


@pytest.mark.parametrize("days", [0, 30])
async def test_a_sealer_killed_between_two_steps_loses_and_doubles_nothing(
    rig: Rig, killed: Callable[[Sealer], None], monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Also where the month is another one by the time that the next sealer starts."""
    lines = await note(rig)
    await sealed(rig)
    lines += await note(rig)
    sealer = rig.folder.sealer(rig.clock.now)
    assert await sealer.seal() == 3
    await sealer.close()
    lines += await note(rig)
    sealer = rig.folder.sealer(rig.clock.now)
    killed(sealer)
    with pytest.raises(Killed):
        await sealer.seal()
    monkeypatch.undo()
    await sealer.close()
    assert findings(rig) == []
    rig.clock.move(timedelta(days=days))
    lines += await note(rig)
    while await sealed(rig):
        pass
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []
    assert [one.last for one, _ in Anchor(anchor(rig)).heads() if one.chain == DECISION_LOG][-1] == len(lines)


@pytest.mark.parametrize("days", [0, 30])
async def test_a_sealer_that_could_not_write_goes_on_where_it_stopped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    lines = await note(rig)
    sealer = rig.folder.sealer(rig.clock.now)

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("assent.db: disk I/O error")

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(sealer, "_close_segment", away)
        await sealer.seal()
    rig.clock.move(timedelta(days=days))
    lines += await note(rig)
    assert await sealer.seal() == len(lines)
    await sealer.close()
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []


async def test_a_month_that_a_crash_left_unfinished_is_made_anew(rig: Rig) -> None:
    lines = await note(rig)
    rig.folder.decisions.mkdir()
    half = rig.folder.decisions / "2026-11.new"
    half.touch()
    assert findings(rig) == []
    assert await sealed(rig) == len(lines)
    migrate(half, DECISIONS)
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []


async def test_an_anchor_line_that_a_crash_tore_is_mended(rig: Rig) -> None:
    await fill(rig)
    whole = anchor(rig).read_bytes()
    for length in (len(whole) - 1, len(whole) - 40, 10, 0):
        anchor(rig).write_bytes(whole[:length])
        assert findings(rig, with_anchor=True) == ([] if length > 10 else [f"{ANCHOR}: no segment head stands there"])
        await sealed(rig)
        assert set(whole.splitlines()) <= set(anchor(rig).read_bytes().splitlines())
        assert findings(rig, with_anchor=True) == []


@pytest.mark.parametrize("line", ["not json", "größer", "[]", "{}", '{"chain": "ledger"}'])
async def test_an_anchor_that_is_none_is_named(rig: Rig, line: str) -> None:
    await fill(rig)
    with anchor(rig).open("a") as file:
        file.write(f"{line}\n")
    assert findings(rig, with_anchor=True) == [f"{ANCHOR}: not a segment head: {line!r}"]


async def test_an_anchor_that_is_none_keeps_nothing_from_being_sealed(rig: Rig) -> None:
    await fill(rig)
    with anchor(rig).open("a") as file:
        file.write("somebody's note\n")
    assert await sealed(rig) == 2
    with closing(connect(rig.folder.people, read_only=True)) as connection:
        heads = {(one.chain, one.number) for chain in CHAINS for one, _ in signed_heads(connection, chain)}
    told = [json.loads(line) for line in anchor(rig).read_text().splitlines() if line.startswith("{")]
    assert {(one["chain"], one["number"]) for one in told} == heads
    assert len(told) == len(heads), "and none twice"


async def test_what_an_anchor_lacks_at_its_end_is_found_however_long_it_is(rig: Rig) -> None:
    """Each chain's newest head is looked for from the end; here the ledger's is the whole file away."""
    await fill(rig)
    first, *others = list(Anchor(anchor(rig)).heads())
    anchor(rig).unlink()
    (many,) = [one for one in others if one[0].chain == DECISION_LOG and one[0].number == 2]
    Anchor(anchor(rig)).append([first, *[many] * 2000])
    assert Anchor(anchor(rig)).newest(CHAINS) == {LEDGER: 1, DECISION_LOG: 2}
    with anchor(rig).open("a") as file:
        file.write('{"chain": "led')
    await sealed(rig)
    heads = [(one.chain, one.number) for one, _ in Anchor(anchor(rig)).heads()]
    assert sorted(heads[2001:]) == [(DECISION_LOG, 3), (LEDGER, 2), (LEDGER, 3)]


async def test_an_anchor_that_is_missing_is_named(rig: Rig) -> None:
    await fill(rig)
    assert rig.folder.verify(rig.folder.root / "elsewhere.jsonl") == ["elsewhere.jsonl: no segment head stands there"]


async def test_a_forged_anchor_line_is_named(rig: Rig) -> None:
    await fill(rig)
    (head, _), *_ = Anchor(anchor(rig)).heads()
    Anchor(anchor(rig)).append([(replace(head, number=9), bytes(64))])
    assert findings(rig, with_anchor=True) == ["anchor, ledger segment 9: the signature is not ours"]


async def test_lines_of_a_restored_spool_are_not_sealed_twice(rig: Rig) -> None:
    lines = await note(rig)
    copy = rig.folder.root / "backup.db"
    shutil.copy(rig.folder.spool, copy)
    await sealed(rig)
    for path in rig.folder.root.glob("spool.db*"):
        path.unlink()
    shutil.copy(copy, rig.folder.spool)
    assert await sealed(rig) == 0
    lines += await note(rig)
    await sealed(rig)
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []


async def test_one_process_at_a_time_is_the_sealer(rig: Rig) -> None:
    one, other = rig.folder.sealer(rig.clock.now), rig.folder.sealer(rig.clock.now)
    assert one.elected() and one.elected()
    assert not other.elected()
    await one.close()
    assert other.elected()
    await other.close()


async def test_segments_have_a_bounded_number_of_lines(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.segments.EVENTS_A_SEGMENT", 2)
    async with rig.people() as people:
        await people.record([NewEvent(EventType.SALE, ALICE, START) for _ in range(5)])
    sealer = rig.folder.sealer(rig.clock.now)
    assert [await sealer.seal() for _ in range(4)] == [2, 2, 1, 0]
    await sealer.close()
    assert findings(rig, with_anchor=True) == []


async def test_what_has_piled_up_is_sealed_a_few_lines_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts after a crash, with hours of decisions behind, must not have all of them in memory."""
    lines = [line for _ in range(5) for line in await note(rig, 2)]
    monkeypatch.setattr("gateway.store.segments.OCTETS_A_SEGMENT", 3 * len(lines[0]))
    sealer = rig.folder.sealer(rig.clock.now)
    found = [(await sealer.seal(), sealer.is_behind) for _ in range(4)]
    await sealer.close()
    assert found == [(4, True), (4, True), (2, False), (0, False)]
    assert all_lines(rig) == lines
    assert findings(rig, with_anchor=True) == []


def test_a_month_has_each_line_once(tmp_path: Path) -> None:
    migrate(tmp_path / "m.db", DECISIONS)
    with closing(connect(tmp_path / "m.db")) as connection:
        insert = "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(insert, (1, "id", "who", "message", "message-id", b"{}"))
        with pytest.raises(sqlite.IntegrityError):
            connection.execute(insert, (2, "id", "who", "message", "message-id", b"{}"))
