"""What operators have ordered: who may submit, which streams are paused, which policies are in force.

The rule that must not be broken: each change of a stream's state has a number of its own, so that whatever was counted
before a release is never counted again after it. Whose history it is, and what it amounts to, is `people`'s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.law import PolicyVersion
from gateway.ledger import timestamp
from gateway.model import Login
from gateway.store import LoginRecord, Orders, PublishedPolicy, StreamState
from gateway.store.outgoing import Pause
from gateway.store.writer import Connection

_LOGINS = "SELECT name, secret, streams, contact, networks, disabled, tool_hosts, test_recipients FROM logins"
_PUT_LOGIN = (
    "INSERT INTO logins (name, secret, streams, contact, networks, created_at, disabled, tool_hosts, test_recipients)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET secret = excluded.secret,"
    " streams = excluded.streams, contact = excluded.contact, networks = excluded.networks,"
    " disabled = excluded.disabled, tool_hosts = excluded.tool_hosts, test_recipients = excluded.test_recipients"
)
_STATES = "SELECT stream, changes, is_paused, why, by, at FROM stream_states"
_CHANGE = (
    "INSERT INTO stream_states (stream, changes, is_paused, why, by, at) SELECT ?1, 1, ?2, ?3, ?4, ?5"
    " WHERE ?2 OR EXISTS (SELECT 1 FROM stream_states WHERE stream = ?1)"
    " ON CONFLICT (stream) DO UPDATE SET changes = changes + 1, is_paused = excluded.is_paused,"
    " why = excluded.why, by = excluded.by, at = excluded.at WHERE is_paused <> excluded.is_paused"
)
_NOTE_PAUSE = "INSERT INTO stream_pauses (stream, why, by, at) VALUES (?, ?, ?, ?)"


def read_orders(reader: Connection) -> Orders:
    """Read everything that operators have ordered, as it stands now."""
    states = {row[0]: _state_of(row[1:]) for row in reader.execute(_STATES)}
    policies = tuple(one.version for one in read_policies(reader))
    return Orders({one.login.name: one for one in read_logins(reader)}, states, policies)


def read_policies(reader: Connection) -> list[PublishedPolicy]:
    """Read the versions of the privacy policy, the newest first."""
    rows = reader.execute(
        "SELECT version, effective, reconsent, text, published_at, by FROM policies"
        " ORDER BY effective DESC, version DESC"
    )
    return [
        PublishedPolicy(
            PolicyVersion(version, datetime.fromisoformat(effective), tuple(json.loads(reconsent))),
            *(text, datetime.fromisoformat(published_at), by),
        )
        for version, effective, reconsent, text, published_at, by in rows
    ]


def put_policy(connection: Connection, policy: PublishedPolicy) -> bool:
    """Add a version; False where there is one of that name, which never changes."""
    version = policy.version
    added = connection.execute(
        "INSERT OR IGNORE INTO policies (version, effective, reconsent, text, published_at, by)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(version.version, timestamp(version.effective), json.dumps(version.reconsent)),
            *(policy.text, timestamp(policy.published_at), policy.by),
        ),
    )
    return bool(added.rowcount)


def read_login(reader: Connection, name: str) -> LoginRecord | None:
    row = reader.execute(f"{_LOGINS} WHERE name = ?", (name,)).fetchone()
    return _login_of(row) if row else None


def read_logins(reader: Connection) -> list[LoginRecord]:
    return [_login_of(row) for row in reader.execute(f"{_LOGINS} ORDER BY name")]


def put_login(connection: Connection, record: LoginRecord, now: datetime) -> None:
    """Add a login or change the one of that name."""
    login = record.login
    lists = [json.dumps(one) for one in (login.streams, login.networks, login.tool_hosts, login.test_recipients)]
    streams, networks, tool_hosts, test_recipients = lists
    row = (login.name, record.secret, streams, login.contact, networks, timestamp(now), record.disabled)
    connection.execute(_PUT_LOGIN, (*row, tool_hosts, test_recipients))


def change_stream(connection: Connection, stream: str, is_paused: bool, why: str, by: str, now: datetime) -> bool:
    """Pause a stream or release it; False where it was so already."""
    changed = connection.execute(_CHANGE, (stream, is_paused, why, by, timestamp(now)))
    if changed.rowcount and is_paused:
        connection.execute(_NOTE_PAUSE, (stream, why, by, timestamp(now)))
    return bool(changed.rowcount)


def read_pauses(reader: Connection, number: int) -> list[Pause]:
    """Read every pause of a stream after one, in the order in which they came."""
    rows = reader.execute("SELECT number, stream, why, by, at FROM stream_pauses WHERE number > ?", (number,))
    return [Pause(number, stream, why, by, datetime.fromisoformat(at)) for number, stream, why, by, at in rows]


def _state_of(row: Sequence[Any]) -> StreamState:
    changes, is_paused, why, by, at = row
    return StreamState(changes, bool(is_paused), why, by, datetime.fromisoformat(at))


def _login_of(row: Sequence[Any]) -> LoginRecord:
    name, secret, streams, contact, networks, disabled, tool_hosts, test_recipients = row
    lists = (tuple(json.loads(one)) for one in (streams, networks, tool_hosts, test_recipients))
    named, bound, hosts, tests = lists
    return LoginRecord(Login(name, named, contact, bound, hosts, tests), secret, bool(disabled))
