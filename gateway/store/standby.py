"""What a machine keeps for itself, so that it can go on while the people store is away.

The journal takes opt-outs; the snapshot says who may log in and what the numbers in links mean; the condition says that
something is wrong. The rule: nothing is decided on the snapshot that could be read from the people store instead, and
nothing about people is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.law import PolicyVersion
from gateway.model import Login
from gateway.store import LoginRecord, Orders, StreamState, disk
from gateway.store.condition import Condition
from gateway.store.journal import Journal


@dataclass(frozen=True, slots=True)
class Known:
    """What the last snapshot says."""

    orders: Orders
    topics: Mapping[int, str]


class Snapshot:
    """A file that is replaced by one rename; only its owner can read it, since it has password hashes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, known: Known) -> None:
        """Put a new snapshot in the old one's place. Raises `StoreUnavailable`. Blocks."""
        told = asdict(known)
        unnamed = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            with open(unnamed, "w", encoding="utf-8", opener=disk.open_private) as file:
                json.dump(told, file, default=datetime.isoformat)
                file.flush()
                os.fsync(file.fileno())
            disk.rename(unnamed, self._path)
        except OSError as error:
            unnamed.unlink(missing_ok=True)
            raise StoreUnavailable(f"{self._path.name} cannot be written: {error}") from error

    def read(self) -> Known:
        """Return what was known last; raises `StoreUnavailable` where there is no snapshot."""
        try:
            return _known(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(f"{self._path.name} cannot be read: {error}") from error


def _known(told: Mapping[str, Any]) -> Known:
    orders = told["orders"]
    logins = {name: _record(one) for name, one in orders["logins"].items()}
    streams = {name: _state(one) for name, one in orders["streams"].items()}
    policies = tuple(map(_policy, orders.get("policies", ())))
    return Known(Orders(logins, streams, policies), {int(number): slug for number, slug in told["topics"].items()})


def _record(told: Mapping[str, Any]) -> LoginRecord:
    login: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told["login"].items()
    }
    return LoginRecord(Login(**login), told["secret"], told["disabled"])


def _state(told: Mapping[str, Any]) -> StreamState:
    return StreamState(**{**told, "at": datetime.fromisoformat(told["at"])})


def _policy(told: Mapping[str, Any]) -> PolicyVersion:
    return PolicyVersion(told["version"], datetime.fromisoformat(told["effective"]), tuple(told["reconsent"]))


@dataclass(frozen=True, slots=True)
class Standby:
    """What the people store's verbs fall back on."""

    condition: Condition
    journal: Journal
    snapshot: Snapshot
