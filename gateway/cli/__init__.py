"""The command line: what operators type, and what scripts read.

Every command that prints facts prints them as JSON with `--json`. The exit status is the answer: 0 done, 1 the answer
is no, 2 usage, 75 try again, 78 the configuration is wrong. What the commands do is the service's and the store's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from gateway.cli.rooms import Rooms, room
from gateway.errors import ConfigError, Malformed, StoreUnavailable

EX_TEMPFAIL = 75
EX_CONFIG = 78


_ROOMS: Final = {
    "serving": "serve relay site console",
    "migrating": "migrate",
    "overview": "status report",
    "setup": "init check",
    "dkim_keys": "dkim",
    "demo": "demo",
    "logins": "logins streams",
    "tokens": "tokens",
    "notices": "notices",
    "people": "consent",
    "suppressions": "suppressions",
    "ledger": "ledger",
    "person": "person",
    "policies": "policy",
    "customers": "customers",
    "explain": "explain",
    "simulate": "simulate",
    "queue": "queue",
    "backup": "backup restore",
    "retention": "purge",
    "duties": "requests breach",
    "processing": "processing",
    "webhooks": "webhooks",
}


@click.group(
    cls=Rooms,
    rooms=_ROOMS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=Path("config.toml"),
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
@click.version_option(package_name="assent")
@click.pass_context
def assent(context: click.Context, path: Path, as_json: bool) -> None:
    """Email marketing compliance gateway: mail that would break a promise cannot leave."""
    context.obj = room("output").Desk(path.absolute(), as_json)


def main() -> None:
    """Run a command; what went wrong is told in a sentence, and in the exit status (sysexits)."""
    os.umask(0o077)
    _open_standard_streams()
    if not all(map(_is_text, sys.argv)):
        _leave(2, "a word of the command line is not in UTF-8; nothing was done")
    try:
        assent.main(standalone_mode=True)
    except ConfigError as error:
        _leave(EX_CONFIG, str(error))
    except StoreUnavailable as error:
        _leave(EX_TEMPFAIL, f"the store is unavailable, try again: {error}")
    except Malformed as error:
        _leave(2, str(error))
    except OSError as error:
        said = error.strerror or str(error)
        _leave(1, f"{error.filename}: {said}" if error.filename else said)


def _open_standard_streams() -> None:
    """Let a standard stream that the caller has closed lead nowhere: not every cron opens all three."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _is_text(word: str) -> bool:
    """False for octets that are no text, which Python hands on as halves of surrogate pairs."""
    return not any("\ud800" <= one <= "\udfff" for one in word)


def _leave(status: int, sentence: str) -> None:
    click.echo(sentence, err=True)
    sys.exit(status)
