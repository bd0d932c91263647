"""The disk is full, or fails to sync: nothing is acknowledged that is not kept, nothing is refused for good.

The data folder lies on a file system of some megabytes that only the program under test sees; or the kernel refuses to
let its files grow; or an injected fault fails its syncs. The judge stands outside: replies and a strict sink.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter, token_of
from tests.sink import Sink

ROOM_OCTETS = 24 * 1024 * 1024
LARGEST = 1024 * 1024
RESUMES = 10.0
FULL = "452 4.3.1"
SUBMISSION = """
    [submission]
    listen = ["127.0.0.1:{0}"]
    listen_tls = ["127.0.0.1:{1}"]
    tls_certificate = "server.pem"
    tls_key = "server.key"
    max_message_size = "1MiB"
    """
ON_A_SMALL_DISK = """
set -e
mkdir small
mount -t tmpfs -o size=$1,mode=700 tmpfs small
cp -a var/. small/
mount --bind small var
shift
exec "$@"
"""
_ATTEMPTS = 5

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


class SmallDisk:
    """The file system that the data folder lies on, as seen from outside the program's mount namespace."""

    def __init__(self, gateway: Gateway) -> None:
        assert gateway.process is not None
        self._filler = Path(f"/proc/{gateway.process.pid}/root{gateway.folder}/var/filler")

    def fill(self, leave: int = 0) -> None:
        """Take all room, less so many octets; the program may be taking the last of it at the same time."""
        with self._filler.open("ab") as file:
            for _ in range(_ATTEMPTS):
                room = self._room() - leave
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), max(1, room))

    def _room(self) -> int:
        disk = os.statvfs(self._filler.parent)
        return disk.f_bavail * disk.f_frsize

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def house(make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway with a data folder on a small disk."""
    gateway = make_gateway()
    gateway.write_config(submission=SUBMISSION.format(gateway.submission, gateway.submission_tls))
    gateway.wrapper = ["unshare", "-m", "sh", "-c", ON_A_SMALL_DISK, "sh", str(ROOM_OCTETS)]
    yield gateway
    gateway.close()


class Ledger:
    """What a stream of invoices was answered, and which of them were acknowledged."""

    def __init__(self, gateway: Gateway, octets: int) -> None:
        self._gateway = gateway
        self._text = b"A line of an invoice that is padded to seventy-two octets, like others.\r\n" * (octets // 73)
        self.replies: list[str] = []
        self.acknowledged: set[str] = set()

    def submit(self) -> str:
        """Submit one invoice and return the reply that ended it."""
        message = invoice() + self._text
        sent = self._gateway.submit(message, ["reader@example.org"], login="shop", sender="billing@example.com")
        code, text = next(iter(sent.values()))
        self.replies.append(f"{code} {text.decode() if isinstance(text, bytes) else text}")
        if code == 250:
            self.acknowledged.add(message_id_of(message))
        return self.replies[-1]

    def submit_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.submit()

    def nothing_is_lost(self, sink: Sink) -> bool:
        return self.acknowledged <= {message_id_of(one.content) for one in list(sink.messages)}


def message_id_of(message: bytes) -> str:
    found = re.search(rb"(?m)^Message-ID: (\S+)", message)
    assert found
    return found[1].decode()


@contextmanager
def submitting(*ledgers: Ledger) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=one.submit_until, args=(stop,)) for one in ledgers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


@as_root
@pytest.mark.req("OUT-01", "UNS-22")
def test_a_full_disk_is_answered_452_and_forgotten_once_there_is_room(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    leaving = someone()
    house.opt_in(leaving)
    disk = SmallDisk(house.start())
    token = token_for(house, sink, leaving)
    small, large = Ledger(house, 2_000), Ledger(house, 400_000)
    with submitting(small, large):
        eventually(lambda: len(large.acknowledged) >= 3)
        disk.fill(leave=LARGEST)
        eventually(lambda: small.replies[-1].startswith(FULL) and large.replies[-1].startswith(FULL))
        disk.fill()
        time.sleep(2)
        status = house.one_click(token).status
        disk.free()
        freed = time.monotonic()
        eventually(lambda: small.replies[-1].startswith("250") and large.replies[-1].startswith("250"))
        assert time.monotonic() - freed < RESUMES
    assert {reply[:9] for reply in small.replies + large.replies} == {"250 2.0.0", FULL}
    eventually(lambda: small.nothing_is_lost(sink) and large.nothing_is_lost(sink), 60)
    assert status in (200, 503)
    answered = {200: (550, "5.7.1"), 503: (250, "2.0.0")}[status]
    eventually(lambda: reply_to_promotion(house, leaving) == answered)


def token_for(gateway: Gateway, sink: Sink, reader: str) -> str:
    assert reply_to_promotion(gateway, reader)[0] == 250
    (message,) = eventually(lambda: [one for one in sink.messages if one.recipients == (reader,)])
    return token_of(message.content)


def reply_to_promotion(gateway: Gateway, reader: str) -> tuple[int, str]:
    replies = gateway.submit(newsletter(reader), [reader])
    code, text = next(iter(replies.values()))
    return code, (text.decode() if isinstance(text, bytes) else text).split()[0]


@as_root
@pytest.mark.req("OUT-01", "UNS-23")
def test_files_that_may_not_grow_refuse_for_now_and_a_click_is_never_answered_200_in_vain(
    make_gateway: MakeGateway, sink: Sink, someone: Callable[[], str]
) -> None:
    gateway = make_gateway()
    readers = [someone() for _ in range(2)]
    gateway.opt_in(*readers)
    gateway.start()
    tokens = [token_for(gateway, sink, reader) for reader in readers]
    ledger = Ledger(gateway, 2_000)
    large = Ledger(gateway, 400_000)
    assert ledger.submit().startswith("250")
    with no_file_may_grow(gateway):
        assert ledger.submit().startswith(FULL)
        assert large.submit().startswith(FULL)
        assert [gateway.one_click(token).status for token in tokens] == [503, 503]
        assert reply_to_promotion(gateway, readers[0])[0] in (451, 452)
    eventually(lambda: ledger.submit().startswith("250"), RESUMES)
    eventually(lambda: large.submit().startswith("250"), RESUMES)
    assert [gateway.one_click(token).status for token in tokens] == [200, 200]
    assert reply_to_promotion(gateway, readers[0]) == (550, "5.7.1")
    eventually(lambda: ledger.nothing_is_lost(sink) and large.nothing_is_lost(sink))


@contextmanager
def no_file_may_grow(gateway: Gateway) -> Iterator[None]:
    """Lower the limit on the size of files (RLIMIT_FSIZE) of every process of the gateway to one octet."""
    for pid in gateway.children():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in gateway.children():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.skipif(not shutil.which("fiu-ctrl"), reason="fiu-utils is not installed (apt install fiu-utils)")
@pytest.mark.req("OUT-01", "UNS-22")
def test_a_sync_that_fails_acknowledges_nothing_and_the_next_that_works_does(
    make_gateway: MakeGateway, sink: Sink, someone: Callable[[], str]
) -> None:
    gateway = make_gateway()
    leaving = someone()
    gateway.opt_in(leaving)
    gateway.wrapper = ["fiu-run", "-x", "-f", str(gateway.folder)]
    gateway.start()
    token = token_for(gateway, sink, leaving)
    ledger = Ledger(gateway, 2_000)
    large = Ledger(gateway, 400_000)
    with failing_syncs(gateway):
        assert [one.submit()[:4] for one in (ledger, large)] == ["451 ", "451 "]
        assert gateway.one_click(token).status == 503
    eventually(lambda: ledger.submit().startswith("250"), RESUMES)
    eventually(lambda: large.submit().startswith("250"), RESUMES)
    eventually(lambda: gateway.one_click(token).status == 200, RESUMES)
    gateway.kill()
    gateway.start()
    assert reply_to_promotion(gateway, leaving) == (550, "5.7.1")
    eventually(lambda: ledger.nothing_is_lost(sink) and large.nothing_is_lost(sink))


@contextmanager
def failing_syncs(gateway: Gateway) -> Iterator[None]:
    """Make each fsync and fdatasync of the gateway fail with EIO."""
    pids = gateway.children()
    for name in ("fsync", "fdatasync"):
        _control(gateway, pids, f"enable name=posix/io/sync/{name},failinfo=5")
    try:
        yield
    finally:
        for name in ("fsync", "fdatasync"):
            _control(gateway, pids, f"disable name=posix/io/sync/{name}")


def _control(gateway: Gateway, pids: list[int], command: str) -> None:
    told = ["fiu-ctrl", "-f", str(gateway.folder), "-c", command, *map(str, pids)]
    subprocess.run(told, check=True, capture_output=True, timeout=30)
