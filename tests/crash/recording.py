"""What a program did to its disk and said on its sockets, in order, as `strace` saw it.

The rule that must not be broken: nothing that changes a file of the watched folder goes unseen. A call that could and
is not understood here ends the reading with an error, and what `disk` makes of it can be compared with what is there.
A call stands where it ended; an fsync also knows where it began, since it answers only for what was written before.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.gateway_under_test import Gateway, eventually

_CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,"
    "sendto,sendmsg,sendmmsg,sendfile,copy_file_range,sync_file_range"
)
_OF_NAMES = ("mkdir", "rename", "unlink", "rmdir", "link", "symlink")
MAPPED = ("-shm", "/condition")
"""How the names of files end that are memory which processes share; nothing in them outlives the machine."""

LONGEST = 8_000_000
"""Octets of one call that are recorded; a longer one would be cut, which is an error."""


@dataclass(frozen=True, slots=True)
class Created:
    path: str
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Renamed:
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Linked:
    """A second name for a file."""

    path: str
    other: str


@dataclass(frozen=True, slots=True)
class Removed:
    path: str


@dataclass(frozen=True, slots=True)
class Written:
    """Octets written to a file; at its end where there is no offset: our own files are written from front to back."""

    path: str
    offset: int | None
    octets: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """An fsync that returned; it answers for what had happened before event number `began`."""

    path: str
    began: int


@dataclass(frozen=True, slots=True)
class Said:
    """Octets that were handed to the kernel for a peer; `line` names both ends of the connection."""

    line: str
    octets: bytes


Event = Created | Renamed | Linked | Removed | Written | Cut | Synced | Said


def can_record() -> bool:
    """True where `strace` is installed and may trace."""
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode == 0
    )


class RecordedGateway(Gateway):
    """A gateway all of whose commands run under `strace`, one after the other; its folder is what is watched."""

    def __init__(self, folder: Path, smarthost: str, *, workers: int = 1):
        super().__init__(folder, smarthost, sections={"dkim": _DKIM}, workers=workers)
        self._logs: list[Path] = []
        self.ends: list[int] = []
        """How many events there were when each command had ended; known once `events` has been asked."""
        self.log = folder.with_name(f"{folder.name}.log")

    def make_dkim_key(self, name: str = "example.com.s1", bits: int = 2048) -> Path:
        """Make it beside the data folder, so that the program itself makes all of that."""
        return super().make_dkim_key(name, bits).rename(self.folder / "dkim.pem")

    def command(self, *arguments: str) -> list[str]:
        log = self.folder.with_name(f"{self.folder.name}.strace.{len(self._logs):02}")
        log.touch()
        self._logs.append(log)
        options = ["-f", "-D", "-yy", "-xx", "-qq", "--seccomp-bpf", "-s", str(LONGEST), "-e", f"trace={_CALLS}"]
        return ["strace", *options, "-o", str(log), *super().command(*arguments)]

    @property
    def commands(self) -> int:
        """How many commands have been run."""
        return len(self._logs)

    def moved_to(self, folder: Path) -> Gateway:
        """Return the installation that lies in another folder now, not recorded, on ports of its own."""
        moved = Gateway(folder, self.smarthost, sections={"dkim": _DKIM}, workers=self.workers)
        moved.passwords = self.passwords
        moved.write_config()
        return moved

    def events(self) -> list[Event]:
        """Return what everything that has run did below the folder, and what it said."""
        reading = _Reading(self.folder)
        for log in self._logs:
            eventually(lambda log=log: _is_whole(log))
            for line in log.open(encoding="ascii"):
                reading.read(line)
            self.ends.append(len(reading.events))
        return reading.events


_DKIM = """
    [dkim."example.com"]
    selectors = [{ name = "s1", key = "dkim.pem" }]
    """


def _is_whole(log: Path) -> bool:
    """True once its recorder has ended; with `-D` that outlives what it records."""
    return not any(str(log).encode() in _command_line(process) for process in Path("/proc").glob("[0-9]*"))


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (\d+)(<.*>)?(?:\(deleted\))?\n")
_WITHOUT_EFFECT = re.compile(r"\d+ +(?:--- .* ---|\+\+\+ .* \+\+\+|\w+\(.*\) += (?:-1 .*|\?.*))\n")
_UNFINISHED = re.compile(r"((\d+) +\w+\(.*) <unfinished \.\.\.>\n")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*\n)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FILE = re.compile(r"(?:\d+|AT_FDCWD)?<((?:\\x[0-9a-f]{2})+)>(\(deleted\))?")
_SOCKET = re.compile(r"\d+<((?:TCP|TCPv6):\[[^\]]*\])>")


class _Reading:
    """Turns lines of a log into events, joining those that another thread's line has cut in two."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self._folder = f"{folder}/"
        self._begun: dict[str, tuple[str, int]] = {}
        self._known: set[str] = set()

    def read(self, line: str) -> None:
        began = len(self.events)
        if unfinished := _UNFINISHED.fullmatch(line):
            self._begun[unfinished[2]] = (unfinished[1], began)
            return
        if resumed := _RESUMED.fullmatch(line):
            start, began = self._begun.pop(resumed[1])
            line = start + resumed[2]
        call = _CALL.fullmatch(line)
        if call:
            self.events += self._understand(_Call(call[1], call[2], int(call[3]), call[4] or ""), began)
        else:
            assert _WITHOUT_EFFECT.fullmatch(line), f"not understood: {line[:500]}"

    def _understand(self, call: _Call, began: int) -> Iterator[Event]:
        if call.name in ("open", "openat", "creat"):
            yield from self._opened(call)
        elif call.name.startswith(_OF_NAMES):
            yield from self._named(call)
        elif call.socket:
            yield Said(call.socket, call.octets)
        elif path := self._ours(call.path):
            yield self._done(call, path, began)

    def _opened(self, call: _Call) -> Iterator[Event]:
        path = self._ours(call.opened)
        if path and "O_CREAT" in call.arguments and path not in self._known:
            self._known.add(path)
            yield Created(path)
        elif path and "O_TRUNC" in call.arguments:
            yield Cut(path, 0)

    def _named(self, call: _Call) -> Iterator[Event]:
        paths = [self._ours(path) for path in call.paths]
        if not all(paths):
            assert not any(paths), f"moved into the folder or out of it: {paths}"
            return
        match call.name.removesuffix("at2").removesuffix("at"):
            case "mkdir":
                yield Created(paths[0], is_folder=True)
            case "rename":
                self._known.discard(paths[0])
                self._known.add(paths[1])
                yield Renamed(paths[0], paths[1])
            case "link":
                self._known.add(paths[1])
                yield Linked(paths[0], paths[1])
            case "unlink" | "rmdir":
                self._known.discard(paths[0])
                yield Removed(paths[0])
            case _:
                raise AssertionError(f"{call.name} is not modelled")

    def _done(self, call: _Call, path: str, began: int) -> Event:
        match call.name:
            case "write" | "writev":
                return Written(path, None, call.octets)
            case "pwrite64":
                return Written(path, call.number, call.octets)
            case "ftruncate" | "truncate":
                return Cut(path, call.number)
            case "fsync" | "fdatasync":
                return Synced(path, began)
        raise AssertionError(f"{call.name} is not modelled")

    def _ours(self, path: str) -> str:
        """Return a path relative to the folder; "" for what is not in it, or is memory that processes share."""
        path = os.path.join(self._folder, path)
        inside = path.removeprefix(self._folder) if path != self._folder.rstrip("/") else "."
        return "" if inside == path or inside.endswith(MAPPED) else inside


@dataclass(frozen=True, slots=True)
class _Call:
    """One call that succeeded."""

    name: str
    arguments: str
    result: int
    told: str

    @property
    def socket(self) -> str:
        found = _SOCKET.match(self.arguments)
        return found[1] if found else ""

    @property
    def path(self) -> str:
        """The file that the call is about; "" where that has no name any more."""
        found = _FILE.match(self.arguments)
        if found is None:
            return self.paths[0] if self.name == "truncate" else ""
        path = _plain(found[1]).decode()
        return path if path.startswith("/") and not found[2] else ""

    @property
    def opened(self) -> str:
        found = _FILE.match(self.told)
        return _plain(found[1]).decode() if found else ""

    @property
    def paths(self) -> list[str]:
        """The paths that the call names; those that are not absolute start in the program's working directory."""
        return [_plain(one).decode() for one, _ in _STRING.findall(self.arguments)]

    @property
    def octets(self) -> bytes:
        """What was written; of what was offered the kernel may have taken only the first part."""
        pieces = _STRING.findall(self.arguments)
        assert not any(cut for _, cut in pieces), "more octets than are recorded"
        return b"".join(_plain(piece) for piece, _ in pieces)[: self.result]

    @property
    def number(self) -> int:
        return int(self.arguments.rpartition(", ")[2])


def _plain(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))
