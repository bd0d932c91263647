"""Registered notices as rows: the wordings that evidence points at.

The rule that must not be broken: a notice never changes, since the digest of its text stands in the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.evidence import Notice
from gateway.ledger import timestamp
from gateway.store.writer import Connection

_COLUMNS = (
    "name, topic, text, url, control, valid_from, valid_until,"
    " version, language, kind, method, controllers, policy_version, states"
)


def read_wordings(connection: Connection) -> list[Notice]:
    """Return every notice, the oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS}, number FROM notices ORDER BY number").fetchall()
    return [_notice_of(row) for row in rows]


def put_wording(connection: Connection, notice: Notice) -> None:
    """Register a notice; it gets the next number."""
    values = (
        *(notice.name, notice.topic, notice.text, notice.url, notice.control, timestamp(notice.valid_from)),
        timestamp(notice.valid_until) if notice.valid_until else None,
        *(notice.version, notice.language, notice.kind, notice.method, json.dumps(notice.controllers)),
        *(notice.policy_version, json.dumps(notice.states)),
    )
    connection.execute(f"INSERT INTO notices ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)


def _notice_of(row: Sequence[Any]) -> Notice:
    name, topic, text, url, control, valid_from, valid_until, *told, number = row
    version, language, kind, method, controllers, policy_version, states = told
    return Notice(
        *(name, topic, text, url, control, datetime.fromisoformat(valid_from)),
        datetime.fromisoformat(valid_until) if valid_until else None,
        *(number, version, language, kind, method),
        controllers=tuple(json.loads(controllers)),
        policy_version=policy_version,
        states=tuple(json.loads(states)),
    )
