"""Many events in one transaction, as they were drafted before it: compared, numbered and written together.

The rule that must not be broken: what stands in the store afterwards is, row for row, what `history.append_event` makes
of the same events. Whatever concerns more than its own person (linked addresses, a whole domain, somebody who was
forgotten, a list of digests that names them), or builds on what stands no more, is handed to it. Transactions, and
how much goes into one, are for whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.address import Address
from gateway.consent import Standing
from gateway.ledger import leaf_of, timestamp
from gateway.store.drafts import UNNUMBERED, Draft, places
from gateway.store.history import append_event, has_digests, keyed_digest, last_event, person_of
from gateway.store.writer import Connection


class Portion:
    """The events of one transaction, added some hundreds at a time."""

    def __init__(self, connection: Connection, ring: Sequence[tuple[int, bytes]], now: datetime) -> None:
        self._connection = connection
        self._ring = ring
        self._now = now
        self._has_lists = has_digests(connection)

    def add(self, drafts: Sequence[Draft]) -> list[Standing | None]:
        """Record what was drafted.

        Return for each one None if it was as it had been drafted, else what stood before it.
        """
        as_drafted = self._as_drafted(drafts)
        self._write([one for one, is_so in zip(drafts, as_drafted, strict=True) if is_so and one.after])
        return [None if is_so else self._hand_over(one) for one, is_so in zip(drafts, as_drafted, strict=True)]

    def _hand_over(self, draft: Draft) -> Standing:
        event = draft.event
        _, before = person_of(self._connection, self._ring, event.person, self._now)
        append_event(self._connection, self._ring, event, self._now)
        return before

    # what is still as it was drafted

    def _as_drafted(self, drafts: Sequence[Draft]) -> list[bool]:
        """Say which of these find what they build on; the second of two about one person does not."""
        known = self._known([one.person for one in drafts if one.before])
        met = self._met([one for one in drafts if not one.before])
        found = list[bool]()
        for one in drafts:
            stands = bool(one.person) and known.get(one.person, "") == one.before
            found.append(stands and one.digest not in met)
            met.add(one.digest)
        return found

    def _known(self, people: Sequence[bytes]) -> dict[bytes, str]:
        if not people:
            return {}
        rows = f"SELECT address_id, standing FROM people WHERE address_id IN ({places(people)})"
        return dict(self._connection.execute(rows, people).fetchall())

    def _met(self, strangers: Sequence[Draft]) -> set[bytes]:
        """Return the digests of those who have become known, or whom an imported list of digests names."""
        if not strangers:
            return set()
        digests = [one.digest for one in strangers]
        keys = f"SELECT digest FROM address_keys WHERE kid = ? AND digest IN ({places(digests)})"
        known = {digest for (digest,) in self._connection.execute(keys, (self._ring[0][0], *digests))}
        return known | self._listed(strangers) if self._has_lists else known

    def _listed(self, strangers: Sequence[Draft]) -> set[bytes]:
        named = {digest: one.digest for one in strangers for digest in Address.parse(one.address).list_digests}
        listed = f"SELECT digest FROM digest_entries WHERE digest IN ({places(named)})"
        return {named[digest] for (digest,) in self._connection.execute(listed, tuple(named))}

    # writing it down

    def _write(self, drafts: Sequence[Draft]) -> None:
        known_at = timestamp(self._now)
        strangers, known, events, personal = list[_Row](), list[_Row](), list[_Row](), list[_Row]()
        for seq, one in enumerate(drafts, last_event(self._connection) + 1):
            after = one.after.replace(_OPEN, str(seq))
            known.append((after, one.person)) if one.before else strangers.append(
                (one.person, one.address, after, known_at)
            )
            columns = (seq, one.type, one.person, one.at, known_at, one.topic, one.scope, one.facts)
            events.append((*columns, one.committed, leaf_of(columns, one.committed)))
            personal.append((seq, one.salt, one.fields))
        self._insert("people", strangers)
        self._add_keys([one for one in drafts if not one.before])
        self._connection.executemany("UPDATE people SET standing = ? WHERE address_id = ?", known)
        self._insert("events", events)
        self._insert("event_personal", personal)

    def _add_keys(self, strangers: Sequence[Draft]) -> None:
        kid, key = self._ring[0]
        self._insert("address_keys", [(kid, one.digest, one.person) for one in strangers])
        named = [(one.person, Address.parse(one.address)) for one in strangers if not one.address.isascii()]
        broad = [(person, one.broad_key) for person, one in named if one.broad_key != one.key]
        self._insert("broad_keys", [(kid, keyed_digest(key, one), person) for person, one in broad])

    def _insert(self, table: str, rows: Sequence[_Row]) -> None:
        if rows:
            self._connection.executemany(f"INSERT INTO {table} VALUES ({places(rows[0])})", rows)


_OPEN = str(UNNUMBERED)
_Row = tuple[Any, ...]
