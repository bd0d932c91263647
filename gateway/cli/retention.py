"""The command that forgets what has been kept for long enough; the running program does the same once a day."""

from __future__ import annotations

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk, progress_bar


@assent.command()
@click.option("--dry-run", is_flag=True, help="Only count what is due.")
@pass_desk
def purge(desk: Desk, dry_run: bool) -> None:
    """Forget what `[retention]` no longer keeps: decision lines, proof and IP addresses in it, old backups."""
    with progress_bar("purging") as progress:
        done = desk.folder().purge(desk.config().retention, desk.now(), progress, dry_run=dry_run)
    sentences = [
        f"{done.decisions} decision lines, the proof of {done.proofs} events, the IP address of {done.ip_addresses}"
        f" and {len(done.backups)} backups or copies {'are due' if dry_run else 'have been deleted'}",
        *(f"not where it was made, see that it goes: {one}" for one in done.missing),
    ]
    desk.say(
        "\n".join(sentences),
        decisions=done.decisions,
        proofs=done.proofs,
        ip_addresses=done.ip_addresses,
        backups=done.backups,
        missing=done.missing,
    )
