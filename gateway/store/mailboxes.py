"""Whoever has said "no" under another spelling of a mailbox, at the providers whose spellings are known (SUP-04).

The rule that must not be broken: only addresses that stand in the store in full are found. Who has been erased is known
by a keyed digest, from which no other spelling can be told.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from gateway.address import Address
from gateway.consent import Standing, Suppression
from gateway.providers import PROVIDERS, index_keys, mailbox_of
from gateway.store.history import standing_of
from gateway.store.writer import Connection

_AT_A_PROVIDER: Final = ", ".join(f"'{domain}'" for domain in PROVIDERS)
SPELLED_SO: Final = f"""
    SELECT address_id, address, standing FROM people
    WHERE json_array_length(standing, '$.suppressions') > 0
        AND substr(lower(address), instr(address, '@') + 1) IN ({_AT_A_PROVIDER})
        AND replace(replace(replace(
            substr(lower(address), 1, min(instr(address, '@'), instr(address || '+', '+')) - 1),
        '.', ''), '-', ''), '_', '') || substr(lower(address), instr(address, '@')) = ?
"""
"""As the index `people_mailboxes` has it, which finds a few too many: some providers ignore less."""


def other_spellings(connection: Connection, address: Address) -> list[tuple[bytes, Address, Standing]]:
    """Return who is suppressed and has another spelling of this mailbox; nobody where its provider is not known."""
    mailbox = mailbox_of(address)
    if not mailbox:
        return []
    rows = [row for key in index_keys(address) for row in connection.execute(SPELLED_SO, (key,)).fetchall()]
    found = [(person, Address.parse(text), standing_of(standing)) for person, text, standing in rows]
    return [one for one in found if one[1].key != address.key and mailbox_of(one[1]) == mailbox]


def said_elsewhere(connection: Connection, address: Address, blocked: Collection[str]) -> tuple[Suppression, ...]:
    """Return the "no" of the mailbox's other spellings, where an operator has said that it counts for this one."""
    if not blocked or address.key.rpartition("@")[2] not in blocked:
        return ()
    return tuple(
        replace(suppression, entry=other.key)
        for _, other, standing in other_spellings(connection, address)
        for suppression in standing.suppressions
        if not suppression.entry
    )
