"""Country rules as files: those that we bring along, and an operator's own beside them.

A file is a regime's facts with their sources, and examples that say what they mean; a test decides the examples.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gateway.law import Regime, regime_of

OURS = Path(__file__).resolve().parent.parent / "regimes"


def regimes_in(folder: Path) -> tuple[Regime, ...]:
    """Read every *.toml of a folder, by name; raises `ValueError` with the file's name for one that is none."""
    return tuple(_regime(path) for path in sorted(folder.glob("*.toml")))


def _regime(path: Path) -> Regime:
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        return regime_of(raw)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path.name} holds no country rules: {error}") from error
