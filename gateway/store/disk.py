"""Files and folders that are there after a power loss, or were never there: none is found half made.

The rule that must not be broken: content is on disk before its name is, and a name counts as made once the folder in
which it stands has been synced; an fsync of the file alone promises nothing about its name. What is not whole yet is
called `.NAME.XXXXXXXX.unfinished` and locked by its maker, so that of one that was killed it can be swept up. What an
operator makes as root belongs to the owner of the folder that it stands in, as SQLite does with its own files: the
service must be able to open it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_UNFINISHED: Final = ".*.????????.unfinished"


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can read, unless it is there, and see its name on disk before returning."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in reversed(new):
        with _opened(one, os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
            _give(folder, one.parent)
    for one in reversed(new or [path]):
        sync_folder(one.parent)


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Make a folder inside another for the time of a piece of work; what is left in it afterwards goes with it."""
    new = _name_beside(folder / name)
    new.mkdir(mode=0o700)
    with _opened(new, os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor:
        _give(descriptor, folder)
        unfinished = _begin(new, descriptor)
        try:
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove from a folder what processes that were killed have left unfinished in it."""
    for path in folder.glob(_UNFINISHED):
        with suppress(OSError), _opened(path, os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


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
    with _unfinished(path) as file:
        yield file
        _see_on_disk(file)
        os.link(file.name, path)
    sync_folder(path.parent)


@contextmanager
def file_anew(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written bit by bit; it takes the place of the one that is there once it is whole.

    What is no file, a pipe or a device, is written to as it is.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    with _unfinished(path) as file:
        yield file
        _see_on_disk(file)
        rename(Path(file.name), path)


@contextmanager
def _unfinished(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside where it belongs; it goes again unless it has got another name."""
    new = _name_beside(path)
    descriptor = open_private(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        unfinished = _begin(new, descriptor)
        try:
            with unfinished.open("r+b") as file:
                yield file
        finally:
            unfinished.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _name_beside(path: Path) -> Path:
    sweep(path.parent)
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _begin(new: Path, descriptor: int) -> Path:
    """Lock what was made under a name that nobody sweeps up, then give it the one that tells that it is unfinished."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return new.rename(f"{new}.unfinished")


def _see_on_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Give a file that is on disk another name in its folder, and see that on disk before returning."""
    old.rename(new)
    sync_folder(new.parent)


def sync_folder(path: Path) -> None:
    """See on disk which names stand in a folder."""
    with _opened(path, os.O_DIRECTORY) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give(descriptor: int, folder: Path) -> None:
    """Let what root has just made belong to the owner of its folder."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
