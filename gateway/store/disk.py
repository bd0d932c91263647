"""Files and folders that are there after a power loss, or were never there: none is found half made.

The rule that must not be broken: content is on disk before its name is, and a name counts as made once the folder in
which it stands has been synced; an fsync of the file alone promises nothing about its name. What an operator makes as
root belongs to the owner of the folder that it stands in, as SQLite does with its own files: the service must be able
to open it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can read, unless it is there, and see its name on disk before returning."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in reversed(new):
        _give_folder(one)
    for one in reversed(new or [path]):
        sync_folder(one.parent)


@contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """Make a folder inside another for the time of a piece of work; what is left in it afterwards goes with it."""
    with TemporaryDirectory(prefix=prefix, dir=folder) as name:
        _give_folder(Path(name))
        yield Path(name)


def open_private(name: str | Path, flags: int) -> int:
    """Open a file by the flags of open(2), and return its descriptor; one that is made only its owner can read.

    It is an `opener` for `open`, too.
    """
    if not flags & os.O_CREAT:
        return os.open(name, flags | os.O_CLOEXEC)
    try:
        descriptor = os.open(name, flags | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return os.open(name, flags | os.O_CLOEXEC, 0o600)
    _give(descriptor, Path(name).parent)
    return descriptor


def write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all; raises `FileExistsError`, never overwrites."""
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written bit by bit; it gets its name once it is whole. Raises `FileExistsError`."""
    unnamed = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unnamed, "xb", opener=open_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(unnamed, path)
    finally:
        unnamed.unlink(missing_ok=True)
    sync_folder(path.parent)


def rename(old: Path, new: Path) -> None:
    """Give a file that is on disk another name in its folder, and see that on disk before returning."""
    old.rename(new)
    sync_folder(new.parent)


def sync_folder(path: Path) -> None:
    """See on disk which names stand in a folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(folder, path.parent)
    finally:
        os.close(folder)


def _give(descriptor: int, folder: Path) -> None:
    """Let what root has just made belong to the owner of its folder."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
