"""Large mail from outside: what it costs in memory, what it costs others in time, and that its copies are right.

Memory is what the kernel counted of the program's processes, time the replies that another session got meanwhile. More
recipients by ASSENT_LARGE_RECIPIENTS.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sink import CountingSink
from tests.copies_under_test import dkimpy_accepts, mailauth_judges
from tests.gateway_under_test import Gateway, free_port, newsletter
from tests.raw_smtp import ENDING, RawSmtp
from tests.sink import Sink

RECIPIENTS = int(os.environ.get("ASSENT_LARGE_RECIPIENTS", "60"))
SIZE = 5 * 1024 * 1024
GROWTH = 100 * 1024 * 1024
"""What a worker may grow by: far less than the copies amount to, far more than one message."""

ATTACHED = b"Content-Disposition: attachment"
READERS = [f"large{n}@example.org" for n in range(RECIPIENTS)]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("large") / "house", shared_sink.url).prepare()
    running.opt_in(*READERS[:3])
    yield running.start()
    running.close()


def with_attachment(size: int) -> bytes:
    """Return a newsletter with an attachment that makes it so large."""
    content = base64.encodebytes(random.Random(size).randbytes(size * 3 // 4)).replace(b"\n", b"\r\n")
    return multipart(b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64", content)


def multipart(header: bytes, attachment: bytes) -> bytes:
    top = (
        b"From: letters@news.example.com\r\nTo: readers@news.example.com\r\nSubject: Our catalogue\r\n"
        b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="cut"\r\n\r\n--cut\r\n\r\nHello, the catalogue is here.\r\n--cut\r\n'
    )
    return b"%b%b\r\n%b\r\n\r\n%b--cut--\r\n" % (top, header, ATTACHED, attachment)


def attachment_digest(message: bytes) -> str:
    return hashlib.sha256(message.partition(ATTACHED)[2]).hexdigest()


def forget_peaks(house: Gateway) -> int:
    """Count peaks from now on (proc(5), clear_refs), and return what the largest process holds."""
    for pid in _processes(house):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory(house)


def peak_memory(house: Gateway) -> int:
    """Return the most octets that the largest of the program's processes has held at once."""
    return max(map(_peak_of, _processes(house)))


def _processes(house: Gateway) -> list[int]:
    assert house.process is not None
    return [house.process.pid, *_descendants(house.process.pid)]


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _descendants(child)


def _peak_of(pid: int) -> int:
    (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def cold_house(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that is prepared and not started, and whose smarthost does not listen yet."""
    if not shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("smtp-sink is not installed (Debian's postfix)")
    made = Gateway(tmp_path / "house", f"smtp://127.0.0.1:{free_port()}").prepare()
    made.opt_in("first@example.org", *READERS)
    yield made
    made.close()


def smarthost_of(house: Gateway) -> CountingSink:
    return CountingSink(int(house.smarthost.rpartition(":")[2]))


def test_a_large_message_to_many_never_makes_all_of_its_copies_in_memory(cold_house: Gateway) -> None:
    assert RECIPIENTS * SIZE > 2 * GROWTH, "too few copies to tell"
    with smarthost_of(cold_house) as sink:
        cold_house.start().submit(newsletter(), ["first@example.org"])
        sink.arrival_of(1)
        before = forget_peaks(cold_house)
        assert cold_house.submit(with_attachment(SIZE), READERS)[""][0] == 250
        sink.arrival_of(1 + RECIPIENTS)
        assert peak_memory(cold_house) - before < GROWTH


def test_a_large_message_that_waits_in_the_spool_is_read_back_for_many_at_once(cold_house: Gateway) -> None:
    assert cold_house.start().submit(with_attachment(SIZE), READERS)[""][0] == 250
    cold_house.kill()
    before = forget_peaks(cold_house.start())
    with smarthost_of(cold_house) as sink:
        sink.arrival_of(RECIPIENTS)
        assert peak_memory(cold_house) - before < GROWTH


def test_others_are_answered_while_a_large_message_is_worked_on(house: Gateway, sink: Sink) -> None:
    """A program that stands still does so each time; that this machine did, once, is forgiven."""
    assert any(_longest_wait_of_another(house) < 0.5 for _ in range(3))
    sink.wait_for(1, 60)


def _longest_wait_of_another(house: Gateway) -> float:
    """Submit an endless line; return the longest wait of another session, as a part of the author's."""
    header = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    top = newsletter().partition(b"Content-Type")[0]
    with RawSmtp(house.submission) as author, RawSmtp(house.submission) as other:
        for client in (author, other):
            client.ehlo()
            assert client.login("news", house.passwords["news"]).code == 235
        recipient = f"RCPT TO:<{READERS[0]}>"
        assert author.say("MAIL FROM:<letters@news.example.com>", recipient, "DATA").code == 354
        author.send(top + header + b"abcdefghi=3D" * 2_000_000)
        with Asking(other) as asking:
            began = time.monotonic()
            author.send(ENDING)
            assert author.reply().code == 250
            waited = time.monotonic() - began
    return asking.longest / waited


class Asking(threading.Thread):
    """A session that begins transactions and thinks better of it; notes the longest time for which it had no answer."""

    def __init__(self, client: RawSmtp) -> None:
        super().__init__()
        self._client = client
        self._enough = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self._enough.is_set():
            began = time.monotonic()
            self._client.say("MAIL FROM:<letters@news.example.com>")
            assert self._client.say("RSET").code == 250
            self.longest = max(self.longest, time.monotonic() - began)

    def __enter__(self) -> Asking:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()


@pytest.mark.req("DKIM-08", "DKIM-10", "UNS-31")
@pytest.mark.parametrize(
    "line",
    [b"word  \t\r\n", b"\r\n", b"a line\r\n.\r\n", b" \t" * 400 + b"x\r\n"],
    ids=["gaps", "empty", "dots", "runs"],
)
def test_each_copy_of_a_large_message_is_signed_as_it_arrives(
    house: Gateway, sink: Sink, tmp_path: Path, line: bytes
) -> None:
    attachment = line * (700_000 // len(line)) + b"the end\r\n"
    message = multipart(b"Content-Type: text/plain", attachment)
    assert house.submit(message, READERS[:3])[""][0] == 250
    copies = sink.wait_for(3, 60)
    known = {one["name"]: one["record"] for one in house.json("dkim", "dns", "example.com")}
    files = [tmp_path / f"{n}.eml" for n in range(3)]
    for file, copy in zip(files, copies, strict=True):
        file.write_bytes(copy.content)
        assert attachment_digest(copy.content) == attachment_digest(message)
        assert dkimpy_accepts(copy.content, known)
    judged = mailauth_judges(files, known, tmp_path)
    assert [one["result"] for told in judged for one in told if one["domain"] == "example.com"] == ["pass"] * 3


@pytest.mark.req("OUT-19")
def test_one_submission_to_many_is_relayed_by_all_workers(sink: Sink, tmp_path: Path) -> None:
    one_a_worker = f'[smarthosts.default]\nurls = ["{sink.url}"]\nconnections = 2'
    crowd = [f"crowd{n}@example.org" for n in range(100)]
    gateway = Gateway(tmp_path / "house", "", sections={"smarthosts": one_a_worker}, workers=2).prepare()
    gateway.opt_in(*crowd)
    try:
        sink.on("MAIL", delay=0.02)
        gateway.start().submit(newsletter("readers@news.example.com"), crowd)
        copies = sink.wait_for(len(crowd), 60)
    finally:
        sink.normal()
        gateway.close()
    assert sorted(one.recipients for one in copies) == sorted((reader,) for reader in crowd)
    assert len({one.connection for one in copies}) == 2
