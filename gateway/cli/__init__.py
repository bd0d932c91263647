"""The command line: what operators type, and what scripts read.

Every command that prints facts prints them as JSON with `--json`. The exit status is the answer: 0 done, 1 the answer
is no, 2 usage, 75 try again, 78 the configuration is wrong. What the commands do is the service's and the store's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gateway.cli import (
    backup,
    customers,
    demo,
    duties,
    explain,
    imports,
    ledger,
    logins,
    notices,
    overview,
    people,
    person,
    policies,
    processing,
    queue,
    retention,
    serving,
    setup,
    simulate,
    suppressions,
    tokens,
)
from gateway.cli.output import Desk
from gateway.errors import ConfigError, Malformed, StoreUnavailable

EX_TEMPFAIL = 75
EX_CONFIG = 78


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "path", type=click.Path(path_type=Path), default=Path("config.toml"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
@click.version_option(package_name="assent")
@click.pass_context
def assent(context: click.Context, path: Path, as_json: bool) -> None:
    """Email marketing compliance gateway: mail that would break a promise cannot leave."""
    context.obj = Desk(path.absolute(), as_json)


ROOMS = (
    *(serving, overview, setup, demo, logins, tokens, notices, people, person, suppressions, imports, policies),
    *(customers, explain, ledger, simulate, queue, backup, retention, duties, processing),
)

for commands in ROOMS:
    for command in commands.COMMANDS:
        assent.add_command(command)


def main() -> None:
    """Run a command; what went wrong is told in a sentence, and in the exit status (sysexits)."""
    os.umask(0o077)
    try:
        assent.main(standalone_mode=True)
    except ConfigError as error:
        _leave(EX_CONFIG, str(error))
    except StoreUnavailable as error:
        _leave(EX_TEMPFAIL, f"the store is unavailable, try again: {error}")
    except Malformed as error:
        _leave(2, str(error))
    except OSError as error:
        _leave(1, f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _leave(status: int, sentence: str) -> None:
    click.echo(sentence, err=True)
    sys.exit(status)
