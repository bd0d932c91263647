"""Where the relayed mail ends: Postfix's `smtp-sink`, and when the last message reached it.

The one rule: a pass ends when the sink has counted its last message, not when the load generator was
answered. The counter (`-c`) comes down a pipe that is read every two milliseconds.
"""

from __future__ import annotations

import os
import re
import threading
import time
from functools import partial
from pathlib import Path
from subprocess import PIPE
from types import TracebackType

from bench.process import Daemon, PassFailed, greets, program

READ_EVERY = 0.002
PASS_LIMIT = 120.0
_COUNT = re.compile(rb"mesg=(\d+)")


class CountingSink:
    """A running `smtp-sink -c`; `count` only grows."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.first_at = self.changed_at = time.monotonic()
        self._changed = threading.Condition()
        self._daemon = Daemon(_smtp_sink(port, "-c"), PIPE)
        self._reader = threading.Thread(target=self._read_counter, daemon=True)
        self._reader.start()
        self._daemon.wait_until(partial(greets, port), "smtp-sink")

    def arrival_of(self, total: int) -> float:
        """The monotonic time at which the `total`-th message was counted; waits for it.

        Raises `PassFailed` when it has not come within `PASS_LIMIT` seconds, or when more came than were sent.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.count >= total, PASS_LIMIT)
            if self.count != total:
                raise PassFailed(f"the sink counted {self.count} messages where {total} were expected")
            return self.changed_at

    def first_arrival(self) -> float:
        """The monotonic time at which any message was first seen to have been counted; waits for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count > 0, PASS_LIMIT):
                raise PassFailed("no message reached the sink")
            return self.first_at

    def _read_counter(self) -> None:
        while text := os.read(self._daemon.printed.fileno(), 1 << 16):
            if counts := _COUNT.findall(text):
                self._note(int(counts[-1]))
            time.sleep(READ_EVERY)

    def _note(self, count: int) -> None:
        with self._changed:
            if count > self.count:
                now = time.monotonic()
                self.first_at = self.first_at if self.count else now
                self.count, self.changed_at = count, now
                self._changed.notify_all()

    def __enter__(self) -> CountingSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._daemon.stop()
        self._reader.join()


class KeepingSink:
    """A running `smtp-sink` that keeps each message as a file, so that what a peer made can be looked at."""

    def __init__(self, port: int, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        self._daemon = Daemon(_smtp_sink(port, "-d", f"{folder}/message."), folder.with_suffix(".log"))
        self._daemon.wait_until(partial(greets, port), "smtp-sink")

    def first_message(self) -> bytes:
        """The first message that arrived, as it was on the wire; raises `PassFailed` if none comes in 20 seconds."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for file in self._folder.glob("message.*"):
                time.sleep(0.3)  # the file appears before its last line does
                return _as_sent(file.read_bytes())
            time.sleep(0.1)
        raise PassFailed("no message reached the sink")

    def __enter__(self) -> KeepingSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._daemon.stop()


_SINK_TRACE = re.compile(rb"\A(?:X-[^\n]*\n)+Received: from [^\n]*\n(?:\t[^\n]*\n)*")


def _as_sent(dump: bytes) -> bytes:
    """Undo what smtp-sink adds to a kept message: its trace at the top, LF line ends, one empty line at the end."""
    return _SINK_TRACE.sub(b"", dump, count=1)[:-1].replace(b"\n", b"\r\n")


def _smtp_sink(port: int, *options: str) -> list[str]:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [program("smtp-sink"), *user, *options, f"127.0.0.1:{port}", "1024"]
