"""Forget what has been kept for long enough: decision lines, proof that nothing rests on any more, old backups.

The rule that must not be broken: verification still finds whatever else is missing. Decision lines go by whole segments
whose heads stay, and only once a head of the chain `purges`, signed and anchored like any other, says which; fields are
taken out of an event's proof under a signature over what is left, since the commitment no longer matches.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.ledger import canonical_json, leaf, redacted_bytes, seal, timestamp
from gateway.retention import Retention, ends_of_use, in_use
from gateway.store import disk
from gateway.store.anchor import Anchor
from gateway.store.backup import NotABackup, Places, Progress, read_manifest
from gateway.store.history import OF_PERSON, event_of, standing_of
from gateway.store.segments import DECISION_LOG, LEDGER, PURGES, close_segment, heads_until, last_head
from gateway.store.traces import empty_log
from gateway.store.turn import Turn
from gateway.store.writer import Connection, connect, reading

_PORTION = 2000
"""Lines or people that one transaction is about, so that nobody waits for its turn."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What was forgotten, or would be: decision lines, events without their proof or their IP address, files by name.

    `missing` are backups that were due and are not where they were made: they are the operator's to find.
    """

    decisions: int = 0
    proofs: int = 0
    ip_addresses: int = 0
    backups: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.decisions, self.proofs, self.ip_addresses, self.backups, self.missing))


def purge(
    places: Places, key: Ed25519PrivateKey, keep: Retention, now: datetime, progress: Progress, *, dry_run: bool = False
) -> Purged:
    """Forget what is due; with `dry_run` only count it. Raises `StoreUnavailable`; what was not done is done next time.

    It may run beside the program, and beside itself.
    """
    with reading(places.people):
        decisions = _purge_decisions(places, key, now - keep.decisions, now, dry_run)
        progress(0.3)
        proofs, ip_addresses = _purge_proof(
            places.people, key, keep, now, lambda part: progress(0.3 + part / 2), dry_run
        )
        progress(0.8)
        if not dry_run:
            _sweep(places)
        backups, missing = _purge_backups(places, now - keep.backups, dry_run)
        progress(1.0)
    return Purged(decisions, proofs, ip_addresses, tuple(backups), tuple(missing))


def note_backup(people: Path, backup: Path, made_at: datetime) -> None:
    """Remember where a backup was made, so that it is deleted in time."""
    with _writing(people) as connection:
        connection.execute("INSERT OR REPLACE INTO backups VALUES (?, ?)", (str(backup), timestamp(made_at)))


# the decision log


def _purge_decisions(places: Places, key: Ed25519PrivateKey, before: datetime, now: datetime, dry_run: bool) -> int:
    """Announce which segments go, then delete their lines, and those that a crash has left of earlier ones."""
    with closing(connect(places.people, read_only=True)) as connection:
        done = last_head(connection, PURGES)
        gone = last = done.last if done else 0
        leaves = []
        for due in heads_until(connection, DECISION_LOG, gone, timestamp(before)):
            leaves.append(leaf(due.signed_bytes()))
            last = due.last
    if leaves and not dry_run:
        head = seal(PURGES, leaves, gone + 1, last, done, now)
        signature = key.sign(head.signed_bytes())
        with _writing(places.people) as connection:
            close_segment(connection, head, signature, source=0)
        Anchor(places.anchor).append([(head, signature)])
        done = head
    if done and not dry_run:
        for path in sorted(places.decisions.glob("*.db")):
            _cut(path, done.last, is_current=path.stem == f"{now:%Y-%m}")
    return last - gone


def _cut(path: Path, last: int, *, is_current: bool) -> None:
    """Delete the lines of one month up to one; the file itself where nothing would be left and nobody writes to it."""
    with closing(connect(path, read_only=True)) as connection:
        lowest, highest = connection.execute("SELECT min(seq), max(seq) FROM decisions").fetchone()
    if not is_current and (highest is None or highest <= last):
        for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            name.unlink(missing_ok=True)
        disk.sync_folder(path.parent)
    elif lowest is not None and lowest <= last:
        with closing(connect(path)) as connection:
            while connection.execute(
                "DELETE FROM decisions WHERE seq IN (SELECT seq FROM decisions WHERE seq <= ? LIMIT ?)",
                (last, _PORTION),
            ).rowcount:
                pass
        empty_log(path)


# proof


def _purge_proof(
    people: Path, key: Ed25519PrivateKey, keep: Retention, now: datetime, progress: Progress, dry_run: bool
) -> tuple[int, int]:
    """Take out personal fields that are no longer of use; return of how many events all, and only the IP address."""
    proofs = ip_addresses = 0
    with closing(connect(people, read_only=True)) as connection:
        for portion, part in _portions(connection, timestamp(now - min(keep.evidence, keep.evidence_ip))):
            whole, only_ip = _lapsed(connection, portion, keep, now)
            if (whole or only_ip) and not dry_run:
                with _writing(people) as writer:
                    _delete_proof(writer, whole)
                    _redact(writer, only_ip, key)
            proofs, ip_addresses = proofs + len(whole), ip_addresses + len(only_ip)
            progress(part)
    return proofs, ip_addresses


def _portions(connection: Connection, before: str) -> Iterator[tuple[list[tuple[int, bytes, bool, str]], float]]:
    """Yield events with proof that came in before, some at a time, and how far that is."""
    last, after = _last_before(connection, before), 0
    while after < last:
        rows = connection.execute(
            "SELECT e.seq, e.address_id, instr(q.fields, '\"ip\":') > 0, p.standing"
            " FROM event_personal q JOIN events e USING (seq) JOIN people p USING (address_id)"
            " WHERE q.seq > ? AND q.seq <= ? AND e.recorded_at < ? ORDER BY q.seq",
            (after, after + _PORTION, before),
        ).fetchall()
        after += _PORTION
        yield rows, min(after / last, 1)


def _last_before(connection: Connection, before: str) -> int:
    """Return the last event that can have come in before a time: in the segment after the newest sealed before it.

    The newest, so that a clock that was wrong for a while hides nothing for longer than that.
    """
    (number,) = connection.execute(
        "SELECT coalesce(max(number), 0) FROM segments WHERE chain = ? AND sealed_at < ?", (LEDGER, before)
    ).fetchone()
    following = connection.execute(
        "SELECT last FROM segments WHERE chain = ? AND number = ?", (LEDGER, number + 1)
    ).fetchone()
    (last,) = following or connection.execute("SELECT coalesce(max(seq), 0) FROM event_personal").fetchone()
    return int(last)


def _lapsed(
    connection: Connection, portion: Sequence[tuple[int, bytes, bool, str]], keep: Retention, now: datetime
) -> tuple[list[int], list[int]]:
    """Return which of these events' proof is due to go whole, and of which only the IP address."""
    whole, only_ip = [], []
    ends: dict[bytes, Mapping[int, datetime]] = {}
    for seq, person, has_ip, text in portion:
        standing = standing_of(text)
        if standing.is_held or seq in in_use(standing):
            continue
        if person not in ends:
            ends[person] = ends_of_use([event_of(row) for row in connection.execute(OF_PERSON, (person,))])
        unused = now - ends[person].get(seq, now)
        if unused >= keep.evidence:
            whole.append(seq)
        elif has_ip and unused >= keep.evidence_ip:
            only_ip.append(seq)
    return whole, only_ip


def _delete_proof(connection: Connection, events: Sequence[int]) -> None:
    for table in ("event_personal", "redactions"):
        connection.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq in events])


def _redact(connection: Connection, events: Sequence[int], key: Ed25519PrivateKey) -> None:
    """Take the IP address out of proof; the signature over what is left stands in for the commitment."""
    for seq in events:
        row = connection.execute("SELECT fields FROM event_personal WHERE seq = ?", (seq,)).fetchone()
        if row is None:  # erased since
            continue
        fields: dict[str, Any] = orjson.loads(row[0])
        fields.pop("ip", None)
        text = canonical_json(fields).decode("utf-8")
        connection.execute("UPDATE event_personal SET fields = ? WHERE seq = ?", (text, seq))
        signature = key.sign(redacted_bytes(seq, fields))
        connection.execute("INSERT OR REPLACE INTO redactions VALUES (?, ?)", (seq, signature))


# backups


def _purge_backups(places: Places, before: datetime, dry_run: bool) -> tuple[list[str], list[str]]:
    """Delete backups that we made before, and copies beside the store; return those, and which are not to be found."""
    with closing(connect(places.people, read_only=True)) as connection:
        noted = connection.execute("SELECT path FROM backups WHERE made_at < ?", (timestamp(before),)).fetchall()
    due = [Path(path) for (path,) in noted]
    there = [path for path in due if _is_backup_from(path, before)]
    copies = [path for path in _copies_beside(places) if _modified_at(path) < before]
    if not dry_run:
        for path in (*there, *copies):
            _delete(path)
        with _writing(places.people) as connection:
            connection.executemany("DELETE FROM backups WHERE path = ?", [(str(path),) for path in due])
    missing = [path for path in due if path not in there]
    return [str(path) for path in (*there, *copies)], [str(path) for path in missing]


def _sweep(places: Places) -> None:
    """Remove what backups and restores that were killed have left: in the data folder, and where backups are made."""
    with closing(connect(places.people, read_only=True)) as connection:
        noted = [Path(path) for (path,) in connection.execute("SELECT path FROM backups")]
    for folder in {places.root, *(path.parent for path in noted)}:
        disk.sweep(folder)


def _is_backup_from(path: Path, before: datetime) -> bool:
    """True where a file is still the backup that was made there, not a newer one or something else."""
    try:
        return read_manifest(path).made_at < before
    except NotABackup:
        return False


def _copies_beside(places: Places) -> list[Path]:
    """Return what upgrades and restores have put aside."""
    migrated = [one for path in (places.people, places.spool) for one in path.parent.glob(f"{path.name}.schema-*")]
    return sorted({*migrated, *places.decisions.glob("*.db.schema-*"), *places.root.glob("before-restore-*")})


def _modified_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    disk.sync_folder(path.parent)


@contextmanager
def _writing(path: Path) -> Iterator[Connection]:
    """One transaction, when our turn has come."""
    turn = Turn(path)
    try:
        with closing(connect(path)) as connection:
            turn.take()
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    finally:
        turn.give()
        turn.close()
