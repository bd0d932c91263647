"""config.toml, from text to frozen values: `load` gives a `Config`, or every problem of the file at once.

The rule: a mistake is told at start, with its line and a remedy, and never met when mail is sent (OPS-05); and no key
is taken silently that does nothing. `schema` is the table of keys; `lines` finds them in the text, `kinds`, `names` and
`files` read values, `reader` all of them, `checks` compares them, `reference` writes docs/configuration.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.config.assembly import assembled
from gateway.config.checks import check
from gateway.config.kinds import MOST_WORKERS
from gateway.config.lines import Lines, syntax_error
from gateway.config.notes import Notes
from gateway.config.reader import Reader
from gateway.config.reference import reference
from gateway.config.values import (
    Config,
    ConsoleConfig,
    DkimDomain,
    DkimKey,
    DkimSelector,
    DnsConfig,
    FeedbackConfig,
    ListenAddress,
    Network,
    SiteConfig,
    SubmissionConfig,
    TlsFiles,
)
from gateway.errors import ConfigError

__all__ = [
    "MOST_WORKERS",
    "Config",
    "ConsoleConfig",
    "DkimDomain",
    "DkimKey",
    "DkimSelector",
    "DnsConfig",
    "FeedbackConfig",
    "ListenAddress",
    "Network",
    "SiteConfig",
    "SubmissionConfig",
    "TlsFiles",
    "load",
    "reference",
]


def load(path: Path, *, keys_may_be_missing: bool = False) -> Config:
    """Read a configuration and every secret that it names by file. Raises `ConfigError` with all of its problems.

    With `keys_may_be_missing` a DKIM key or TLS file that is not there yet is no problem, for commands that are about
    to make it; a `DkimKey` has its path and no `private` then.
    """
    path = path.absolute()
    text = _text(path)
    raw = _parsed(path, text)
    notes = Notes(path.name, Lines(text))
    config = assembled(path, Reader(path.parent, notes, keys_may_be_missing=keys_may_be_missing).read(raw))
    check(config, notes, datetime.now(UTC).date())
    if notes.problems:
        raise ConfigError(notes.problems)
    return replace(config, warnings=tuple(notes.warnings))


_REMEDIES = {FileNotFoundError: "`assent init` writes one", IsADirectoryError: "name the file in it"}


def _text(path: Path) -> str:
    try:
        octets = path.read_bytes()
    except OSError as error:
        remedy = _REMEDIES.get(type(error), "make it readable to this user")
        raise ConfigError([f"{path}: {error.strerror}; {remedy}"]) from error
    try:
        return octets.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path.name}:{line}: not UTF-8; save the file in that encoding"]) from error


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, sentence = syntax_error(error, text)
        raise ConfigError([f"{path.name}:{line}: not TOML: {sentence}; mend this line first"]) from error
