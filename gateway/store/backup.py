"""Backups: a consistent copy of a store that is at work, and bringing one back without forgetting anybody's "no".

The rules that must not be broken: before a restored store is put in place it has every "no" that the store which it
replaces has recorded since (POL-23), and everything in its spool is held, since nobody knows what has left meanwhile.
A backup has no keys: they are kept apart from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO, Final

from gateway.address import Address
from gateway.consent import NOTHING_KNOWN, Event, EventType, NewEvent
from gateway.ids import spool_text
from gateway.ledger import timestamp
from gateway.store import disk
from gateway.store.anchor import ANCHOR
from gateway.store.history import append_event, event_of, events_since, id_of, stand_anew
from gateway.store.migrate import migrate
from gateway.store.orders import change_stream
from gateway.store.rows import HELD
from gateway.store.schema import PEOPLE, SPOOL
from gateway.store.spool import remove_orphans
from gateway.store.writer import Connection, connect, reading

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PEOPLE_FILE, SPOOL_FILE = "assent.db", "spool.db"
BODIES, DECISIONS = "bodies", "decisions"

_PAGES = 1024
_BLOCK = 1024 * 1024
_TO_BE_KEPT: Final = frozenset(
    {
        EventType.UNSUBSCRIBE,
        EventType.OBJECTION,
        EventType.COMPLAINT,
        EventType.HARD_BOUNCE,
        EventType.ERASURE,
        EventType.MINOR_FLAG,
        EventType.CONSENT_REFUSED,
        EventType.RRVS_REJECT,
        EventType.ACCOUNT_CLOSED,
        EventType.PRODUCT_ENDED,
        EventType.ADDRESS_CHANGED,
        EventType.IMPORT_UNDONE,
        EventType.HOLD_PLACED,
        EventType.HOLD_RELEASED,
        EventType.RIGHT_REQUESTED,
        EventType.RIGHT_EXTENDED,
        EventType.RIGHT_ANSWERED,
    }
)
"""What a restored store must not have forgotten; what allows mail has to be brought in anew."""

_ALSO_LATER: Final = (
    *("address_keys", "broad_keys", "imports", "digest_entries", "backups", "breaches"),
    *("topics", "notices", "policies"),
)
"""Tables whose newer rows are brought in whole: how people are found, the lists of digests that say "no", and what a
link's number, a refusal's wording and the end of older consent refer to.
"""

_AS_NOW: Final = ("logins", "api_tokens")
"""Tables that stay as they are: a password that was changed, and who was shut out, must not come back."""

Progress = Callable[[float], None]
"""Is told which part of the work is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of one installation lie."""

    root: Path
    people: Path
    spool: Path
    bodies: Path
    decisions: Path
    anchor: Path


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself: when it was made, the last event in it, and the SHA-256 of each of its files."""

    made_at: datetime
    last_event: int
    files: Mapping[str, str]

    def to_json(self) -> bytes:
        told = {
            "assent_backup": FORMAT,
            "made_at": timestamp(self.made_at),
            "last_event": self.last_event,
            "files": self.files,
        }
        return json.dumps(told, indent=2).encode("utf-8")

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        told = json.loads(raw)
        if told["assent_backup"] != FORMAT:
            raise ValueError("made by a newer version of Assent")
        return cls(datetime.fromisoformat(told["made_at"]), int(told["last_event"]), dict(told["files"]))


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it.

    The backup's time, how many later "no"s were brought in, how many recipients are dropped, being erased since, and
    how many held, and where the old store is.
    """

    made_at: datetime
    later: int
    dropped: int
    held: int
    aside: Path | None


class NotABackup(Exception):
    """The file is none, or not whole: one sentence for the operator."""


# making


def write_backup(places: Places, target: Path, now: datetime, progress: Progress) -> Manifest:
    """Copy everything but keys into one file, while the program is at work; see that it can be read before returning.

    Raises `FileExistsError`, and `StoreUnavailable` where the store cannot be read.
    """
    with disk.scratch(places.root, "backup") as copy:
        manifest = Manifest(now, *_copied(places, copy, lambda part: progress(part / 2)))
        with disk.new_file(target) as file:
            _pack(copy, manifest, file, lambda part: progress(0.5 + part / 2))
            file.flush()
            _check(Path(file.name))
    return manifest


def _copied(places: Places, copy: Path, progress: Progress) -> tuple[int, dict[str, str]]:
    """Fill a folder with copies; return the last event in them, and each file's digest."""
    (copy / BODIES).mkdir()
    (copy / DECISIONS).mkdir()
    months = sorted(places.decisions.glob("*.db"))
    _link_bodies(places.bodies, copy / BODIES)
    _copy_database(places.spool, copy / SPOOL_FILE, lambda part: progress(part * 0.4))
    _link_bodies(places.bodies, copy / BODIES)
    _drop_settled(copy / SPOOL_FILE, copy / BODIES)
    if places.anchor.exists():  # before the segments whose heads stand in it
        shutil.copyfile(places.anchor, copy / ANCHOR)
    _copy_database(places.people, copy / PEOPLE_FILE, lambda part: progress(0.4 + part * 0.4))
    for n, month in enumerate(months, 1):
        _copy_database(month, copy / DECISIONS / month.name, lambda _: None)
        progress(0.8 + 0.2 * n / len(months))
    with closing(connect(copy / PEOPLE_FILE, read_only=True)) as connection:
        (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    return last, {str(path.relative_to(copy)): _digest(path) for path in files}


def _copy_database(source: Path, target: Path, progress: Progress) -> None:
    """Copy what is committed at one moment; SQLite begins anew by itself where others write meanwhile."""
    with reading(source), closing(connect(source, read_only=True)) as reader:
        disk.write_new(target, b"")
        with closing(connect(target)) as writer:
            reader.backup(writer, pages=_PAGES, progress=lambda _, left, all_: progress(1 - left / max(all_, 1)))
            writer.execute("PRAGMA journal_mode=DELETE")


def _link_bodies(bodies: Path, copy: Path) -> None:
    """Give each body another name, which costs nothing and keeps it when its message is settled meanwhile."""
    for body in bodies.glob("*"):
        if not (copy / body.name).exists():
            try:
                (copy / body.name).hardlink_to(body)
            except FileNotFoundError:
                continue


def _drop_settled(spool: Path, bodies: Path) -> None:
    """Forget messages whose body went while the copy was made: they had been settled."""
    with closing(connect(spool)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM messages WHERE body IS NULL")]
        gone = [(one,) for one in ids if not (bodies / spool_text(one)).exists()]
        connection.executemany("DELETE FROM recipients WHERE message_id = ?", gone)
        connection.executemany("DELETE FROM messages WHERE id = ?", gone)


def _pack(copy: Path, manifest: Manifest, target: BinaryIO, progress: Progress) -> None:
    whole = sum((copy / name).stat().st_size for name in manifest.files) or 1
    done = 0
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        told = manifest.to_json()
        header = tarfile.TarInfo(MANIFEST)
        header.size = len(told)
        archive.addfile(header, io.BytesIO(told))
        for name in manifest.files:
            archive.add(copy / name, name, recursive=False)
            done += (copy / name).stat().st_size
            progress(done / whole)


# bringing back


def restore_backup(
    backup: Path,
    places: Places,
    later: Path | None,
    ring: Sequence[tuple[int, bytes]],
    now: datetime,
    pause: Sequence[str],
    progress: Progress,
) -> Restored:
    """Put a backup in place of the store, which must not be at work; all of it is checked before anything is moved.

    `later` is the people store whose newer "no"s are brought in: that which is replaced, or a copy of it. `pause` are
    the streams that take no mail afterwards, because there is none. Raises `NotABackup`, `StoreUnavailable`.
    """
    with disk.scratch(places.root, "restore") as copy:
        manifest = _unpack(backup, copy, lambda part: progress(part / 2))
        for name, tables in ((PEOPLE_FILE, PEOPLE), (SPOOL_FILE, SPOOL)):
            earlier = migrate(copy / name, tables)
            if earlier:
                earlier.unlink()
        brought = _bring_in(copy / PEOPLE_FILE, later, manifest.last_event, ring, now) if later else []
        dropped = _drop_mail(copy, ring, {one.address_id for one in brought if one.type is EventType.ERASURE})
        _pause(copy / PEOPLE_FILE, pause, manifest, now)
        held = _hold(copy / SPOOL_FILE)
        progress(0.9)
        aside = _swap(copy, places, now)
    progress(1.0)
    return Restored(manifest.made_at, len(brought), dropped, held, aside)


def read_manifest(backup: Path) -> Manifest:
    """Return what a backup says of itself; raises `NotABackup`."""
    with _opened(backup) as archive:
        return _manifest(archive, backup)


def _check(backup: Path) -> None:
    """Read a backup to its end, and compare."""
    with _opened(backup) as archive:
        manifest = _manifest(archive, backup)
        for name, digest in manifest.files.items():
            member = archive.extractfile(name)
            if member is None or _digest_of(member) != digest:
                raise NotABackup(f"{backup.name}: {name} is not as it was written")


def _unpack(backup: Path, copy: Path, progress: Progress) -> Manifest:
    """Unpack exactly the files that the manifest names, each as it was, into a folder; see that databases are whole."""
    with _opened(backup) as archive:
        manifest = _manifest(archive, backup)
        for n, (name, digest) in enumerate(manifest.files.items(), 1):
            _unpack_one(archive, name, digest, copy, backup)
            progress(n / len(manifest.files))
    for needed in (PEOPLE_FILE, SPOOL_FILE):
        if not (copy / needed).exists():
            raise NotABackup(f"{backup.name} has no {needed}")
    for path in copy.rglob("*.db"):
        with reading(path), closing(connect(path, read_only=True)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        if found != "ok":
            raise NotABackup(f"{backup.name}: {path.name} is damaged: {found}")
    return manifest


def _unpack_one(archive: tarfile.TarFile, name: str, digest: str, copy: Path, backup: Path) -> None:
    target = (copy / name).resolve()
    if not target.is_relative_to(copy.resolve()):
        raise NotABackup(f"{backup.name} names a file outside of it")
    try:
        member = archive.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise NotABackup(f"{backup.name} has not {name}")
    disk.make_folder(target.parent)
    disk.write_new(target, b"")
    with target.open("wb") as file:
        shutil.copyfileobj(member, file, _BLOCK)
    if _digest(target) != digest:
        raise NotABackup(f"{backup.name}: {name} is not as it was written")


def _bring_in(people: Path, later: Path, last: int, ring: Sequence[tuple[int, bytes]], now: datetime) -> list[Event]:
    """Bring in whoever has become known since, and every "no" that was recorded since; return these."""
    with reading(later), closing(connect(later, read_only=True)) as source, closing(connect(people)) as target:
        target.execute("BEGIN IMMEDIATE")
        _know(source, target, now)
        brought = []
        for event in (event_of(row) for row in events_since(source, last)):
            if event.type in _TO_BE_KEPT:
                facts = {**event.facts, "restored": event.seq}
                new = NewEvent(
                    *(event.type, event.address_id, event.at, event.topic, event.scope),
                    facts=facts,
                    personal=event.personal or {},
                )
                brought.append(append_event(target, ring, new, now))
                if event.type is EventType.IMPORT_UNDONE:
                    stand_anew(target, event.address_id)
        target.execute("COMMIT")
    return brought


def _know(source: Connection, target: Connection, now: datetime) -> None:
    """Make people of those who have become known since, under the same ids, which their links carry; no consent."""
    nothing, known_at = json.dumps(NOTHING_KNOWN.to_json()), timestamp(now)
    people = source.execute("SELECT address_id, address FROM people")
    rows = ((person, address, nothing, known_at) for person, address in people)
    target.executemany("INSERT OR IGNORE INTO people VALUES (?, ?, ?, ?)", rows)
    for tables, verb in ((_ALSO_LATER, "INSERT OR IGNORE"), (_AS_NOW, "INSERT OR REPLACE")):
        for table in tables:
            found = source.execute(f"SELECT * FROM {table}")
            places = ", ".join("?" * len(found.description))
            target.executemany(f"{verb} INTO {table} VALUES ({places})", found)


def _drop_mail(copy: Path, ring: Sequence[tuple[int, bytes]], erased: Collection[bytes]) -> int:
    """Drop what waits for people who have been erased since; the submitters were told so then. Return how many."""
    if not erased:
        return 0
    with (
        closing(connect(copy / PEOPLE_FILE, read_only=True)) as people,
        closing(connect(copy / SPOOL_FILE)) as spool,
    ):
        waiting = spool.execute("SELECT message_id, n, address FROM recipients").fetchall()
        due = [(one, n) for one, n, text in waiting if id_of(people, ring, Address.parse(text)) in erased]
        spool.execute("BEGIN IMMEDIATE")
        spool.executemany("DELETE FROM recipients WHERE message_id = ? AND n = ?", due)
        spool.execute("DELETE FROM messages WHERE id NOT IN (SELECT message_id FROM recipients)")
        spool.execute("COMMIT")
    remove_orphans(copy / SPOOL_FILE, copy / BODIES)
    return len(due)


def _pause(people: Path, streams: Sequence[str], manifest: Manifest, now: datetime) -> None:
    why = f"restored from a backup of {manifest.made_at:%Y-%m-%d %H:%M}: what people said since is missing"
    with closing(connect(people)) as connection:
        for one in streams:
            change_stream(connection, one, True, why, "restore", now)


def _hold(spool: Path) -> int:
    """Let nothing of the restored spool leave by itself."""
    with closing(connect(spool)) as connection:
        held = connection.execute(
            "UPDATE recipients SET due = ?, owner = NULL WHERE due > 0 OR owner IS NOT NULL", (HELD,)
        )
        return int(held.rowcount)


def _swap(copy: Path, places: Places, now: datetime) -> Path | None:
    """Move the old store aside and the restored one into its place; returns where the old one is, if there was one.

    The people store goes first and comes last, and meanwhile there is always a spool: with one alone nothing starts,
    so that after a kill in between nobody begins anew.
    """
    rest = [
        (copy / BODIES, places.bodies),
        (copy / DECISIONS, places.decisions),
        (copy / ANCHOR, places.anchor),
    ]
    aside = _aside(places.root, now)
    databases = (path for place in (places.people, places.spool) for path in _with_log(place))
    old = [path for path in (*databases, *(place for _, place in rest)) if path.exists()]
    if old:
        disk.make_folder(aside)
    if places.spool.exists():
        (aside / places.spool.name).hardlink_to(places.spool)
    for path in old:
        if path != places.spool:
            path.rename(aside / path.name)
            disk.sync_folder(path.parent)
    for restored, place in ((copy / SPOOL_FILE, places.spool), *rest, (copy / PEOPLE_FILE, places.people)):
        if restored.exists():
            disk.make_folder(place.parent)
            disk.rename(restored, place)
    return aside if old else None


def _aside(root: Path, now: datetime) -> Path:
    """Return a folder that is not there yet: two restores may fall into one second."""
    name = f"before-restore-{now:%Y%m%dT%H%M%SZ}"
    names = chain([name], (f"{name}-{n}" for n in count(2)))
    return next(path for one in names if not (path := root / one).exists())


def _with_log(path: Path) -> list[Path]:
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


@contextmanager
def _opened(backup: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(backup, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NotABackup(f"{backup.name} cannot be read as a backup: {error}") from error


def _manifest(archive: tarfile.TarFile, backup: Path) -> Manifest:
    try:
        member = archive.extractfile(MANIFEST)
        assert member is not None
        return Manifest.from_json(member.read())
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise NotABackup(f"{backup.name} is no backup of Assent: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return _digest_of(file)


def _digest_of(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
