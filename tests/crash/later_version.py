"""A version that is to come: the program with one more migration of each file, and nothing else changed.

    python -m tests.crash.later_version --config FILE migrate

The migrations take a moment, so that a kill can come in the middle of one. "now" is printed when the work begins.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gateway.installation
import gateway.store.sqlite
from gateway.cli import main
from gateway.store.schema import PEOPLE, SPOOL
from gateway.store.sqlite import DataFolder

TABLE = "later"
_ROWS = f"""
    CREATE TABLE {TABLE} (n INTEGER PRIMARY KEY, text TEXT NOT NULL);
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %d)
        INSERT INTO {TABLE} SELECT n, hex(randomblob(40)) FROM numbers;
    """
MORE_PEOPLE = (
    *PEOPLE,
    f"{_ROWS % 120_000} ALTER TABLE people ADD COLUMN {TABLE} TEXT; UPDATE people SET {TABLE} = '';",
)
MORE_SPOOL = (*SPOOL, f"{_ROWS % 40_000} CREATE INDEX {TABLE}_text ON {TABLE} (text);")


class _Announced(DataFolder):
    def prepare(self) -> list[Path]:
        print("now", flush=True)
        return super().prepare()


def become_later() -> None:
    """Have the rest of this process be the later version."""
    gateway.store.sqlite.PEOPLE, gateway.store.sqlite.SPOOL = MORE_PEOPLE, MORE_SPOOL
    gateway.installation.DataFolder = _Announced


if __name__ == "__main__":
    become_later()
    sys.exit(main())
