"""Commands that make a backup, and bring one back without forgetting what people have said since."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk, progress_bar
from gateway.installation import data_folder
from gateway.store import disk
from gateway.store.backup import NotABackup, read_manifest, restore_backup

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@assent.command()
@click.argument("file", type=FILE)
@pass_desk
def backup(desk: Desk, file: Path) -> None:
    """Write a backup while the program is at work: everything but the keys, which belong elsewhere.

    It is read again before the command says that it is there.
    """
    if file.exists():
        desk.no(f"{file} exists; a backup is never overwritten", file=str(file))
    if not file.absolute().parent.is_dir():
        desk.no(f"{file.absolute().parent} is no folder; make it, or name another file", file=str(file))
    with progress_bar("backing up") as progress:
        manifest = desk.folder().back_up(file.absolute(), desk.now(), progress)
    desk.say(
        f"{file}: {len(manifest.files)} files, up to event {manifest.last_event}; keep keys/ apart from it",
        file=str(file),
        files=len(manifest.files),
        last_event=manifest.last_event,
        octets=file.stat().st_size,
    )


@assent.command()
@click.argument("file", type=EXISTING)
@click.option("--replace", is_flag=True, help="Put it in the place of the store that is there, which is moved aside.")
@click.option("--later", type=EXISTING, default=None, help="A newer assent.db, if the one in place is lost.")
@click.option(
    "--nothing-later", is_flag=True, help="There is none: promotional streams are paused until you release them."
)
@pass_desk
def restore(desk: Desk, file: Path, replace: bool, later: Path | None, nothing_later: bool) -> None:
    """Bring a backup back, with every "no" that has been recorded since; what waits in it is held.

    The program must not be running. Keys are not in a backup: put keys/ in place first.
    """
    config = desk.config()
    folder = data_folder(config)
    if folder.people.exists() and not replace:
        desk.no(f"there is a store in {folder.root}; say --replace to move it aside", data_dir=str(folder.root))
    if folder.is_at_work:
        desk.no(f"Assent is at work in {folder.root}; stop it first", data_dir=str(folder.root))
    if later is None and folder.people.exists() and not nothing_later:
        later = folder.people
    if later is None and not nothing_later:
        raise click.UsageError(
            "what people have said since the backup would be forgotten: name a newer assent.db with --later, or say"
            " --nothing-later, and promotional streams stay paused until you release them"
        )
    pause = [one.name for one in config.promotional_streams] if later is None else []
    disk.make_folder(folder.root)
    try:
        read_manifest(file)
        ring = folder.address_ring().in_force_first()
        with progress_bar("restoring") as progress:
            done = restore_backup(file, folder.places, later, ring, desk.now(), pause, progress)
    except NotABackup as error:
        desk.no(f"{error}. Nothing was changed.", error=str(error))
    sentences = [
        f"the store is as it was at {done.made_at:%Y-%m-%d %H:%M} UTC, with {done.later} later opt-outs and erasures",
        *([f"{done.dropped} recipients who have been erased since are dropped"] if done.dropped else []),
        f"{done.held} recipients that waited are held: assent queue list, then release or drop",
        *([f"paused: {', '.join(pause)}; assent streams release NAME"] if pause else []),
        *([f"the store that was there is in {done.aside}; delete it once you need it no more"] if done.aside else []),
    ]
    desk.say(
        "\n".join(sentences),
        made_at=done.made_at,
        later=done.later,
        dropped=done.dropped,
        held=done.held,
        paused=pause,
        aside=str(done.aside) if done.aside else None,
    )
