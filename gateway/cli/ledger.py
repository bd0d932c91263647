"""Commands about the ledger as a whole: whether it is whole, and what it says, for whoever must be shown.

The rule that must not be broken: an export is written as it is read, a page at a time, and a file of it is whole or not
there. What a record looks like is for `proof` and `receipts`.
"""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.rooms import Rooms


@assent.group(cls=Rooms, rooms={"exports": "export key"})
def ledger() -> None:
    """The record of consent and of every decision."""


@ledger.command("verify")
@click.option("--anchor", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None)
@pass_desk
def ledger_verify(desk: Desk, anchor: Path | None) -> None:
    """Check every line against the sealed segments; exit 1 and name each place that is not as it was sealed.

    Give --anchor a copy of anchor.jsonl that was kept elsewhere: only with it a cut-off tail and a history written
    anew are found.
    """
    problems = desk.folder().verify(anchor)
    if problems:
        desk.no("\n".join(problems), problems=problems)
    desk.say("the ledger and the decision log are whole", problems=[])
