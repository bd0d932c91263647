"""A folder in the place of a smarthost: each recipient's copy becomes one file of a Maildir.

The one rule: 250 means that the file, its name and its folder are on disk. The bytes are those that would go on the
wire before dot-stuffing, below `Return-Path` and `Delivered-To`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from gateway.errors import RelayUnavailable
from gateway.model import Alphabet, Copy, Recipient, Reply, Segment
from gateway.smarthost.conversation import command

_numbers = itertools.count()


class Maildir:
    """Takes copies as a connection does, but is never busy, stale or spent."""

    extensions = frozenset({"8BITMIME", "SMTPUTF8"})
    alphabet = Alphabet.UTF8
    is_open = True
    is_kept_open = False

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing. Raises `RelayUnavailable` where that fails."""
        self._folder = folder
        try:
            self._make_folders()
        except OSError as error:
            raise RelayUnavailable(str(error)) from error

    async def relay(self, copy: Copy) -> tuple[Reply, ...]:
        """Keep the copy once for each recipient, off the event loop; a full or broken disk is that one's 452."""
        return await asyncio.to_thread(self._keep_all, copy)

    def rest(self) -> None:
        """Nothing is held between two copies."""

    def quit(self) -> None:
        """There is nobody to take leave of."""

    async def wait_closed(self) -> None:
        """Nothing is left open."""

    def _make_folders(self) -> None:
        for part in ("tmp", "new", "cur"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)

    def _keep_all(self, copy: Copy) -> tuple[Reply, ...]:
        return tuple(self._keep(copy, recipient) for recipient in copy.recipients)

    def _keep(self, copy: Copy, recipient: Recipient) -> Reply:
        name = _unique_name()
        trace = (command(f"Return-Path: <{copy.reverse_path}>"), command(f"Delivered-To: {recipient.address.text}"))
        try:
            self._make_folders()  # somebody may have cleared them away since
            _write_durably(self._folder / "tmp" / name, (*trace, *copy.segments))
            (self._folder / "tmp" / name).rename(self._folder / "new" / name)
            _sync_folder(self._folder / "new")
        except OSError as error:
            with suppress(OSError):
                (self._folder / "tmp" / name).unlink()
            return Reply(452, "4.3.1", f"the maildir could not keep it: {error.strerror}")
        return Reply(250, "2.0.0", f"kept as {name}")


def _unique_name() -> str:
    host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
    return f"{time.time():.6f}.P{os.getpid()}Q{next(_numbers)}.{host}"


def _write_durably(path: Path, pieces: tuple[Segment, ...]) -> None:
    with path.open("xb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
