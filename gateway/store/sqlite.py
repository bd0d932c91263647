"""The default back end: two SQLite files, and the decision log's monthly ones, in one data folder.

Opening does not create: `prepare` does, once, in one process, before the workers open anything.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.consent import Event
from gateway.errors import ConfigError, StoreUnavailable
from gateway.model import KeyRing, Outcome
from gateway.retention import Retention
from gateway.rights import Deadline, deadlines
from gateway.store import Now, ReportMaker, Store, disk
from gateway.store.anchor import ANCHOR
from gateway.store.backup import Manifest, Places, Progress, write_backup
from gateway.store.condition import Condition
from gateway.store.drafts import Drafter, drafter
from gateway.store.duties import read_breaches, read_requests
from gateway.store.history import keyed_digest
from gateway.store.imports import SqliteImports
from gateway.store.journal import Journal
from gateway.store.keys import (
    ADDRESS_RING,
    LEDGER_KEY,
    TOKEN_RING,
    make_keys,
    put_newest_in_force,
    read_keys_in_force,
    read_ledger_key,
    read_ring,
)
from gateway.store.leases import Leases, anyone_lives
from gateway.store.migrate import is_up_to_date, migrate
from gateway.store.people import SqlitePeople
from gateway.store.purge import Purged, note_backup, purge
from gateway.store.schema import DECISIONS, PEOPLE, SPOOL
from gateway.store.segments import DECISION_LOG, LEDGER, Sealer, find_lines, find_shadowed, last_head
from gateway.store.spans import Line, events_between, lines_between
from gateway.store.spool import SqliteSpool, remove_orphans
from gateway.store.standby import Snapshot, Standby
from gateway.store.traces import empty_log, find_traces
from gateway.store.verification import verify
from gateway.store.writer import connect, reading, unavailable


class DataFolder:
    """Where everything of one installation lies: the databases, bodies, decision log, leases and keys.

    At the domains in `block_related` a "no" counts for every spelling of its mailbox (SUP-04).
    """

    def __init__(self, root: Path, people: Path, block_related: Collection[str] = ()) -> None:
        self.root = root
        self.people = people
        self.block_related = block_related
        self.spool = root / "spool.db"
        self.bodies = root / "bodies"
        self.decisions = root / "decisions"
        self.leases = root / "leases"
        self.keys = root / "keys"
        self.keys_in_force = root / "keys-in-force"
        self.condition = root / "condition"
        self.journal = root / "journal.jsonl"
        self.snapshot = root / "snapshot.json"

    def prepare(self) -> list[Path]:
        """Make the files and a new store's keys, or migrate what is there; return the copies of what that was.

        One process, before all others. Raises `StoreUnavailable` where the people store was and is not, since a new one
        would know no "no", or where files would have to be migrated under the hands of a version that is at work.
        Raises `ConfigError` for a folder that cannot be made, and for a key that is loose, broken or lost: an old store
        is never given a new one, under which no link of it would be known any more.
        """
        self._make_folders()
        if not self.people.exists():
            self._begin_anew()
        for read in (self.address_ring, self.token_ring, self.ledger_key):
            read()
        copies = self._migrate()
        Journal(self.journal, Condition(self.condition)).make()
        if not anyone_lives(self.leases):
            remove_orphans(self.spool, self.bodies)
            put_newest_in_force(self.keys_in_force, self.keys)
        return copies

    def _make_folders(self) -> None:
        try:
            for folder in (self.root, self.bodies):
                disk.make_folder(folder)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise unavailable(str(self.root), error) from error
            remedy = "let data_dir name a folder that this user can make and write"
            raise ConfigError([f"{self.root} cannot be the data folder: {error.strerror}; {remedy}"]) from error

    def _migrate(self) -> list[Path]:
        months = [(path, DECISIONS) for path in sorted(self.decisions.glob("*.db"))]
        files = [(self.people, PEOPLE), (self.spool, SPOOL), *months]
        due = [(path, tables) for path, tables in files if not is_up_to_date(path, tables)]
        if any(path.exists() for path, _ in due) and anyone_lives(self.leases):
            raise StoreUnavailable(f"another version of Assent is at work in {self.root}; stop it first")
        copies = [migrate(path, tables) for path, tables in due]
        return [copy for copy in copies if copy]

    def _begin_anew(self) -> None:
        if self.spool.exists():
            raise StoreUnavailable(f"{self.people} has gone; bring it back, or restore a backup of it")
        make_keys(self.keys)

    @property
    def has_journal(self) -> bool:
        """True where opt-outs wait that the people store must know before anybody is served."""
        return self.journal.exists() and self.journal.stat().st_size > 0

    def address_ring(self) -> KeyRing:
        return self._ring(ADDRESS_RING)

    def token_ring(self) -> KeyRing:
        return self._ring(TOKEN_RING)

    def keys_not_in_force(self) -> list[str]:
        """Say of each ring whose newest key makes no values yet which one does. Raises `ConfigError`."""
        rings = {name: self._ring(name) for name in (ADDRESS_RING, TOKEN_RING)}
        return [
            f"key {max(ring.keys)} of {name} is not in force, key {ring.in_force} is:"
            " restart while no other command is at work"
            for name, ring in rings.items()
            if ring.in_force != max(ring.keys)
        ]

    def _ring(self, name: str) -> KeyRing:
        return replace(read_ring(self.keys / name), named=read_keys_in_force(self.keys_in_force).get(name))

    def ledger_key(self) -> Ed25519PrivateKey:
        return read_ledger_key(self.keys / LEDGER_KEY)

    def sealer(self, now: Now) -> Sealer:
        return Sealer(self.people, self.spool, self.decisions, self.ledger_key(), now)

    def last_heads(self) -> dict[str, str]:
        """Return the digest of the newest segment head of each chain, which pins everything that came before."""
        with reading(self.people), closing(connect(self.people, read_only=True)) as connection:
            heads = {chain: last_head(connection, chain) for chain in (LEDGER, DECISION_LOG)}
        return {chain: head.digest() for chain, head in heads.items() if head}

    def verify(self, anchor: Path | None) -> list[str]:
        """Return every place where the ledger or the decision log is not what was sealed."""
        return list(verify(self.people, self.decisions, self.ledger_key().public_key(), anchor))

    def decision_lines(self, column: str, value: str) -> list[bytes]:
        """Return decision lines by `id`, `who`, `message` or `message_id`, those included that are not sealed yet."""
        unsealed = [line for line in self._unsealed() if json.loads(line).get(column) == value]
        return list(dict.fromkeys(find_lines(self.decisions, column, value) + unsealed))

    def shadowed(self, stream: str, since: date) -> set[tuple[str, str]]:
        """Return who has got promotion since that only a stream's shadow mode let go, and on which topic (OPS-04).

        It may be since a little longer, the beginning of that month.
        """
        unsealed = [json.loads(line) for line in self._unsealed()]
        lately = {(one["who"], one["topic"]) for one in unsealed if one.get("shadow") and one["stream"] == stream}
        with reading(self.decisions):
            return find_shadowed(self.decisions, stream, since) | lately

    def _unsealed(self) -> list[bytes]:
        with reading(self.spool), closing(connect(self.spool, read_only=True)) as connection:
            waiting = [bytes(row[0]) for row in connection.execute("SELECT lines FROM outbox ORDER BY id")]
        return [line for packed in waiting for line in packed.split(b"\n")]

    def traces_of(self, addresses: Collection[str]) -> list[Path]:
        """Empty the write-ahead logs, then return every file that holds one of the addresses in any usual spelling.

        What a process that was killed has left unfinished goes before.
        """
        disk.sweep(self.root)
        for path in (self.people, self.spool, *self.decisions.glob("*.db")):
            empty_log(path)
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return find_traces({self.people, *files}, addresses)

    @property
    def places(self) -> Places:
        return Places(self.root, self.people, self.spool, self.bodies, self.decisions, self.root / ANCHOR)

    def deadlines(self) -> list[Deadline]:
        """Return what the law gives a time for and is not done, the most urgent first. Raises `StoreUnavailable`."""
        with reading(self.people), closing(connect(self.people, read_only=True, patience=0)) as connection:
            return deadlines(read_requests(connection), read_breaches(connection))

    def concerned(self, since: datetime, until: datetime) -> set[str]:
        """Return, as decision lines call them, of whom something was decided or recorded in a span of time."""
        recorded = {event.address_id.hex() for event in self.events_between(since, until)}
        return recorded | {str(line["who"]) for line in self.lines_between(since, until)}

    def events_between(self, since: datetime, until: datetime) -> Iterator[Event]:
        """Yield the ledger's events that were recorded in a span of time. Raises `StoreUnavailable`."""
        with reading(self.people):
            yield from events_between(self.people, since, until)

    def lines_between(self, since: datetime, until: datetime) -> Iterator[Line]:
        """Yield the decision lines of a span of time, those included that are not sealed yet."""
        with reading(self.decisions):
            yield from lines_between(self.decisions, self._unsealed, since, until)

    def purge(self, keep: Retention, now: datetime, progress: Progress, *, dry_run: bool = False) -> Purged:
        """Forget what has been kept for long enough; with `dry_run` only count it. Raises `StoreUnavailable`."""
        return purge(self.places, self.ledger_key(), keep, now, progress, dry_run=dry_run)

    def back_up(self, target: Path, now: datetime, progress: Progress) -> Manifest:
        """Write a backup while the program is at work, and remember where. Raises `StoreUnavailable`."""
        manifest = write_backup(self.places, target, now, progress)
        note_backup(self.people, target, manifest.made_at)
        return manifest

    @property
    def is_at_work(self) -> bool:
        """True where some process has the store open now."""
        return anyone_lives(self.leases)

    def open(self, owner: str, report: ReportMaker, now: Now, announced: Collection[Outcome] = ()) -> Store:
        """Open the store for one worker, whose lease is called `owner` and something unique.

        How a recipient ended is kept for programs where it is `announced`.
        """
        condition = Condition(self.condition)
        leases = Leases(self.leases, owner)
        people = self.open_people(condition, now)
        spool = SqliteSpool(self.spool, self.bodies, leases, report, now, announced)
        return Store(people, spool, spool.queue, spool.calls, condition)

    def open_people(self, condition: Condition, now: Now) -> SqlitePeople:
        """Open the people store alone; where it is away, what this machine remembers of it must do."""
        return SqlitePeople(self.people, self.address_ring(), now, self.standby(condition), self.block_related)

    def order_of_people(self) -> Callable[[str], bytes]:
        """Return what makes the newest digest of an address of its key: many at once go quickest in its order."""
        _, key = self.address_ring().in_force_first()[0]
        return partial(keyed_digest, key)

    def open_imports(self, now: Now) -> SqliteImports:
        """Open what brings in many events at once, and takes them back."""
        return SqliteImports(self.people, self.address_ring(), now)

    def open_drafter(self) -> AbstractContextManager[Drafter]:
        """Open what works out, before an import writes, what it will. Raises `StoreUnavailable`."""
        return drafter(self.people, self.address_ring().in_force_first())

    def standby(self, condition: Condition) -> Standby:
        return Standby(condition, Journal(self.journal, condition), Snapshot(self.snapshot))
