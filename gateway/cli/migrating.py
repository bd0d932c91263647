"""The command that makes the store, or brings it up to date."""

from __future__ import annotations

import asyncio

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.installation import prepare


@assent.command()
@pass_desk
def migrate(desk: Desk) -> None:
    """Make the store, or bring it up to date; what is there already stays."""
    config = desk.config()
    copies = asyncio.run(prepare(config))
    told = [f"the store in {config.data_dir} is up to date", *(f"what it was is kept in {copy}" for copy in copies)]
    desk.say("\n".join(told), data_dir=config.data_dir, copies=copies)
