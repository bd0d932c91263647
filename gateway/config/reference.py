"""docs/configuration.md, written from the schema, so that it cannot say anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.config.schema import NOT_YET_IN_FORCE, SECTIONS, Key, Presence, Section, Tables

_OPENING = """# Configuration

Written by `python -m gateway.config` from the table of keys that also reads the file. A file to start from:
[config.example.toml](../config.example.toml).

One TOML file; `assent check` tells every problem of it at once, each with its line and a remedy, and so does every
other command before it does anything (exit 78). A key that is not here is an error. Paths are relative to the file's
folder. Secrets stand in files of their own, which only their owner may read (mode 0600). `SIGHUP` reloads; a bad file
leaves the running one in force. Keys marked *not yet in force* are understood and checked, but this version does
something else, which it says in a warning at each start.
"""
_HEAD = "| key | value | default | meaning |\n|---|---|---|---|"


def reference() -> str:
    """Return docs/configuration.md."""
    return "\n".join([_OPENING, *(_section(section) for section in SECTIONS)])


def _section(section: Section) -> str:
    title = f"`[{section.title}]`" if section.name else "Before the first section"
    meaning = section.meaning + (" Not written, it is off." if section.absent is Presence.OFF else "")
    rows = "\n".join(row for key in section.keys for row in _rows(section.name, key))
    return f"## {title}\n\n{meaning}\n\n{_HEAD}\n{rows}\n"


def _rows(section: str, key: Key | Tables, prefix: str = "") -> Iterator[str]:
    if isinstance(key, Tables):
        yield f"| `{key.name}` | an array of tables | required | {key.meaning} |"
        for inner in key.section.keys:
            yield from _rows(section, inner, f"{key.name}[].")
    else:
        meaning = key.meaning + _not_yet(f"{section}.{key.name}")
        cells = (f"`{prefix}{key.name}`", f"{key.kind.name}: {_form(key.kind.form)}", _default(key.default), meaning)
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _form(form: str) -> str:
    """Set what is to be typed as code: a whole array, or each string."""
    return f"`{form}`" if form.startswith("[") else re.sub(r'"[^"]*"', r"`\g<0>`", form)


def _default(default: Any) -> str:
    return default.value if isinstance(default, Presence) else f"`{json.dumps(default)}`"


def _not_yet(name: str) -> str:
    found = NOT_YET_IN_FORCE.get(name)
    return f" *Not yet in force: {found.instead}.*" if found else ""
