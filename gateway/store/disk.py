"""Files and folders that are there after a power loss, or were never there: none is found half made.

The rule that must not be broken: content is on disk before its name is, and a name counts as made once the folder in
which it stands has been synced; an fsync of the file alone promises nothing about its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can read, unless it is there, and see its name on disk before returning."""
    new = [one for one in path.parents if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in (*reversed(new), path):
        sync_folder(one.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all; raises `FileExistsError`, never overwrites."""
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written bit by bit; it gets its name once it is whole. Raises `FileExistsError`."""
    unnamed = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unnamed, "xb", opener=_for_its_owner) as file:
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


def _for_its_owner(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)
