"""A disk that keeps what was synced, and of the rest as much as a fault leaves.

The model is POSIX at its strictest. An fsync of a file makes its content safe and not its name; a name that was made,
changed or removed is safe once its folder has been synced. What is not safe may be gone, or be there in part: any
block of any write, whatever came before or after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

from tests.crash.recording import Created, Cut, Event, Linked, Removed, Renamed, Synced, Written

BLOCK = 4096


class Fault(Enum):
    """What becomes of everything that was not synced."""

    KILLED = "the program ends, the machine does not: everything is kept"
    DROPPED = "the power goes, and all of it is gone"
    TORN = "the power goes, and each block and name is kept or not, as it happens"


@dataclass(eq=False)
class File:
    """A file's safe content, and what was done to it since, each with its number among all events."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Written | Cut]] = field(default_factory=list)
    size: int = 0


Node = File | None
"""A file, or None for a folder."""

_Change = tuple[int, Mapping[str, Node], Sequence[str]]
"""A change of names under one folder: its number, the names that come, the names that go."""


class Disk:
    """The disk as events go by; `image` is what is found on it after a fault now."""

    def __init__(self, folder: Path) -> None:
        """Begin with what lies in a folder, safe."""
        self._names: dict[str, Node] = {}
        for path in sorted(folder.rglob("*")):
            self._names[str(path.relative_to(folder))] = None if path.is_dir() else _file(path.read_bytes())
        self._safe_names = dict(self._names)
        self._changes: dict[str, list[_Change]] = {}
        self._count = 0

    def apply(self, events: Iterable[Event]) -> None:
        for event in events:
            self._apply(event)
            self._count += 1

    def image(self, fault: Fault, dice: random.Random) -> dict[str, bytes | None]:
        """Return the content of each path, None for folders, after a fault at this moment."""

        def is_kept() -> bool:
            return fault is Fault.KILLED or (fault is Fault.TORN and dice.random() < 0.5)

        names = dict(self._safe_names)
        for changes in self._changes.values():
            for _, come, go in changes:
                if is_kept():
                    _change(names, come, go)
        found = {path: node for path, node in names.items() if all(str(one) in names for one in _folders(path))}
        return {path: None if node is None else _content(node, is_kept) for path, node in found.items()}

    def _apply(self, event: Event) -> None:
        match event:
            case Created(path, is_folder):
                self._rename({path: None if is_folder else File()}, [])
            case Renamed(old, new):
                self._rename({new: self._file(old)}, [old])
            case Linked(path, other):
                self._rename({other: self._file(path)}, [])
            case Removed(path):
                self._rename({}, [path])
            case Written(path, _, octets):
                file = self._file(path)
                offset = file.size if event.offset is None else event.offset
                file.pending += [(self._count, piece) for piece in _blocks(path, offset, octets)]
                file.size = max(file.size, offset + len(octets))
            case Cut(path, size):
                file = self._file(path)
                file.pending.append((self._count, event))
                file.size = size
            case Synced(path, began):
                self._sync(path, began)

    def _file(self, path: str) -> File:
        node = self._names[path]
        assert node is not None, f"{path} is a folder"
        return node

    def _rename(self, come: Mapping[str, Node], go: Sequence[str]) -> None:
        _change(self._names, come, go)
        (folder,) = {str(PurePosixPath(path).parent) for path in (*come, *go)}
        self._changes.setdefault(folder, []).append((self._count, come, go))

    def _sync(self, path: str, began: int) -> None:
        node = self._names.get(path)
        if node is not None:
            for _, event in (one for one in node.pending if one[0] < began):
                _write(node.safe, event)
            node.pending = [one for one in node.pending if one[0] >= began]
            return
        changes = self._changes.get(path, [])
        for _, come, go in (one for one in changes if one[0] < began):
            _change(self._safe_names, come, go)
        self._changes[path] = [one for one in changes if one[0] >= began]


def lay_out(image: Mapping[str, bytes | None], folder: Path) -> None:
    """Write an image to a folder, for its owner only, as it was."""
    folder.mkdir(mode=0o700)
    for path in sorted(image):
        content = image[path]
        if content is None:
            (folder / path).mkdir(mode=0o700)
        else:
            (folder / path).write_bytes(content)
            (folder / path).chmod(0o600)


def _file(content: bytes) -> File:
    return File(bytearray(content), size=len(content))


def _folders(path: str) -> list[PurePosixPath]:
    return list(PurePosixPath(path).parents)[:-1]


def _change(names: dict[str, Node], come: Mapping[str, Node], go: Sequence[str]) -> None:
    for path in go:
        names.pop(path, None)
    names.update(come)


def _blocks(path: str, offset: int, octets: bytes) -> Iterable[Written]:
    """Cut a write where the disk's blocks begin, because a disk may keep one without the next."""
    start = 0
    while start < len(octets):
        end = min(len(octets), start + BLOCK - (offset + start) % BLOCK)
        yield Written(path, offset + start, octets[start:end])
        start = end


def _content(file: File, is_kept: Callable[[], bool]) -> bytes:
    content = bytearray(file.safe)
    for _, event in file.pending:
        if is_kept():
            _write(content, event)
    return bytes(content)


def _write(content: bytearray, event: Written | Cut) -> None:
    if isinstance(event, Cut):
        del content[event.size :]
        content.extend(bytes(event.size - len(content)))
        return
    offset = event.offset or 0
    content.extend(bytes(max(0, offset + len(event.octets) - len(content))))
    content[offset : offset + len(event.octets)] = event.octets
