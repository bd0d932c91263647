"""Entries for all of a domain, `*@example.org`: kept like a person's, and read into memory all at once.

The rule that must not be broken: whoever has an address of the domain is told its "no" with their own, and its "yes"
never. In the ledger, in lists and when it is lifted an entry is what any address is; only its id lies below those of
all people, so that all entries are found without looking for them.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.address import Address
from gateway.consent import Suppression
from gateway.store.history import FIRST_PERSON, standing_of
from gateway.store.writer import Connection


class Domains:
    """What stands for whole domains, as it stood when `refresh` was last called."""

    def __init__(self) -> None:
        self._read: tuple[Connection, int | None] = (None, None)
        self._by_domain: dict[str, tuple[Suppression, ...]] = {}

    def refresh(self, connection: Connection) -> None:
        """Read the entries again if something has been recorded of one since."""
        (last,) = connection.execute(LAST_SAID, (FIRST_PERSON,)).fetchone()
        if self._read != (connection, last):
            rows = connection.execute("SELECT address, standing FROM people WHERE address_id < ?", (FIRST_PERSON,))
            found = [(Address.parse(text), standing_of(standing)) for text, standing in rows.fetchall()]
            self._by_domain = {
                _domain(entry): tuple(replace(one, entry=entry.key) for one in standing.suppressions)
                for entry, standing in found
            }
            self._read = connection, last

    def over(self, address: Address) -> tuple[Suppression, ...]:
        """Return what stands for the domain of an address, and so for it too."""
        if not self._by_domain or address.is_whole_domain:
            return ()
        return self._by_domain.get(_domain(address), ())


# Without the sign SQLite would look for the highest number first, through all events of all people.
LAST_SAID = "SELECT max(+seq) FROM events WHERE address_id < ?"


def _domain(address: Address) -> str:
    return address.key.rpartition("@")[2]
