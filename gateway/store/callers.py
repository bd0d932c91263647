"""Programs that call the API, as rows of `assent.db`: their tokens, and which of their requests have been carried out.

The rule that must not be broken: a key is remembered in the transaction that carries its request out, so that the
same request twice, at once or after a crash, has one effect.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from gateway.errors import KeyReused
from gateway.ledger import timestamp
from gateway.store import ApiToken, Once
from gateway.store.writer import Connection

REMEMBERED = timedelta(days=7)
"""How long a request that comes again is known."""


def read_tokens(connection: Connection) -> list[ApiToken]:
    rows = connection.execute(
        "SELECT name, digest, scopes, created_at, expires_at, revoked FROM api_tokens ORDER BY name"
    ).fetchall()
    return [
        ApiToken(
            name,
            bytes(digest),
            tuple(json.loads(scopes)),
            datetime.fromisoformat(created_at),
            datetime.fromisoformat(expires_at) if expires_at else None,
            bool(revoked),
        )
        for name, digest, scopes, created_at, expires_at, revoked in rows
    ]


def put_token(connection: Connection, token: ApiToken) -> None:
    expires_at = timestamp(token.expires_at) if token.expires_at else None
    connection.execute(
        "INSERT OR REPLACE INTO api_tokens VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(token.name, token.digest, json.dumps(token.scopes)),
            *(timestamp(token.created_at), expires_at, token.revoked),
        ),
    )


def find_done(connection: Connection, once: Once) -> list[int] | None:
    """Return the events of a request that has been carried out; None for a new one; raises `KeyReused`."""
    row = connection.execute(
        "SELECT request, events FROM idempotency_keys WHERE holder = ? AND key = ?", (once.holder, once.key)
    ).fetchone()
    if row is None:
        return None
    if bytes(row[0]) != once.request:
        raise KeyReused
    return list(json.loads(row[1]))


def remember_done(connection: Connection, once: Once, events: list[int], now: datetime) -> None:
    """Remember a request, and forget those of a week ago."""
    connection.execute("DELETE FROM idempotency_keys WHERE at < ?", (timestamp(now - REMEMBERED),))
    connection.execute(
        "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
        (once.holder, once.key, once.request, json.dumps(events), timestamp(now)),
    )
