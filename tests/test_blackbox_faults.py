"""Smarthosts that refuse, stall, break off, babble or lie: nothing is lost, nothing comes twice that need not, nobody
else waits (reliability R4).

All faults happen at once, each to a smarthost of its own, while healthy mail flows beside them; then they end, and each
is judged from what its strict sink received.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_under_test import Gateway, eventually
from tests.sink import DROP, ENDLESS, RESET, SILENCE, Ending, Received, Sink, make_certificate

SECONDS = float(os.environ.get("ASSENT_FAULT_SECONDS", "4"))
MESSAGES = int(os.environ.get("ASSENT_FAULT_MESSAGES", "2"))
HEALTHY_SECONDS = 5.0
"""How long healthy mail may take while everything else is ill: on a busy machine it takes a fraction of one."""

KERNEL_BUFFERS = 12 * 1024 * 1024
"""What the system itself takes of an endless answer, beyond the 64 KiB that the gateway reads."""

GROWTH_MIB = 40
"""What a worker may grow by in all of this: connections and mail in flight, but no answers."""

ONE = "-0@"
"""The recipient whom some smarthosts cannot bear."""

OPENING = ("CONNECT", "EHLO")
ENVELOPE = ("MAIL", "RCPT", "DATA")
CONTENT_OCTETS = 3000


class End(Enum):
    """What is to become of a message that met the fault."""

    ONCE = "relayed once"
    MAYBE_TWICE = "relayed, and once more for each lost answer"
    REPORTED = "refused once, and reported"


@dataclass
class Fault:
    """What a smarthost does wrong (`begin`), and what is to become of its mail once that has ended."""

    name: str
    begin: Callable[[Sink], None]
    end: End = End.ONCE
    sink: Sink = field(default_factory=Sink)

    @property
    def slug(self) -> str:
        return "".join(one if one.isalnum() else "-" for one in self.name.lower()).strip("-")

    @property
    def sender(self) -> str:
        return f"{self.slug}@example.com"

    @property
    def readers(self) -> list[str]:
        return [f"{self.slug}-{n}@example.org" for n in range(MESSAGES)]

    def heal(self) -> None:
        self.sink.normal()
        self.sink.stop()
        self.sink.start()

    def received(self) -> list[Received]:
        return [one for one in self.sink.messages if one.envelope_from]

    def copies(self) -> Counter[str]:
        return Counter(reader for one in self.received() for reader in one.recipients)


def _word(reply: str | Ending) -> str:
    return reply.name.lower() if isinstance(reply, Ending) else reply.split()[0]


def says(verb: str, reply: str | Ending, end: End = End.ONCE, **how: Any) -> Fault:
    return Fault(f"{_word(reply)} at {verb}", lambda sink: sink.on(verb, reply, **how), end)


def _faults() -> Iterator[Fault]:
    yield Fault("refused", Sink.stop)
    yield from (says(verb, "451 4.3.0 later") for verb in ("EHLO", *ENVELOPE, "DOT"))
    yield from (says(verb, "421 4.3.2 busy") for verb in (*OPENING, *ENVELOPE, "DOT"))
    for verb, mark in {
        "MAIL": "@example.com",
        "RCPT": "@example.org",
        "DATA": "@example.org",
        "DOT": "promised",
    }.items():
        yield says(verb, "550 5.7.0 never", End.REPORTED, containing=mark)
    yield from (says(verb, "554 5.3.2 not here") for verb in OPENING)
    for end in (DROP, RESET):
        yield from (says(verb, end) for verb in (*OPENING, *ENVELOPE))
        yield says("CONTENT", end, after_bytes=random.randint(1, CONTENT_OCTETS))
        yield says("DOT", end, End.MAYBE_TWICE, times=MESSAGES)
    yield from (says(verb, SILENCE) for verb in (*OPENING, *ENVELOPE, "CONTENT"))
    yield says("DOT", SILENCE, End.MAYBE_TWICE)
    yield from (says(verb, ENDLESS) for verb in (*OPENING, *ENVELOPE))
    yield says("DOT", ENDLESS, End.MAYBE_TWICE, times=MESSAGES)
    yield Fault("late banner", lambda sink: sink.on("CONNECT", delay=SECONDS / 2))
    yield Fault("tarpit", _tarpit, End.MAYBE_TWICE)
    for reply in ("451 4.3.0 later", "421 4.7.28 slow down", DROP, RESET, SILENCE):
        yield replace(says("RCPT", reply, containing=ONE), name=f"{_word(reply)} at RCPT of one")
    yield Fault("not SMTP", lambda sink: sink.on("CONNECT", "SSH-2.0-OpenSSH_9.2"))


def _tarpit(sink: Sink) -> None:
    for verb in (*OPENING, *ENVELOPE, "DOT"):
        sink.on(verb, pace=0.01)


FAULTS = list(_faults())
SECURE = [says("STARTTLS", reply) for reply in ("454 4.7.0 not now", DROP, SILENCE)]
EVERY = [*FAULTS, *SECURE]
ENDLESS_ONES = [fault for fault in FAULTS if "endless" in fault.name]
AT_ONE = [fault for fault in FAULTS if fault.name.endswith("of one")]
every_fault = pytest.mark.parametrize("fault", EVERY, ids=lambda fault: fault.name)


@dataclass
class Storm:
    """What there was to see while all faults happened at once."""

    gateway: Gateway
    healthy: Sink
    waits: list[float] = field(default_factory=list)
    """Seconds that each healthy message took."""
    calm_at: float = 0.0
    """When the faults ended."""
    growth: int = 0
    """MiB by which the gateway's processes have grown together."""


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    folder = tmp_path_factory.mktemp("faults")
    certificate = make_certificate(folder, "localhost", "127.0.0.1")
    for fault in SECURE:
        fault.sink.tls = certificate
    with ExitStack() as stack:
        healthy = stack.enter_context(Sink())
        for fault in EVERY:
            fault.sink.start()
            stack.callback(fault.sink.stop)
        gateway = Gateway(folder / "house", "", sections=_sections(healthy, certificate.certificate), workers=2)
        stack.callback(gateway.close)
        gateway.prepare()
        gateway.add_login("all", ",".join(["healthy", *(fault.slug for fault in EVERY)]))
        seen = Storm(gateway.start(), healthy)
        _rage(seen)
        yield seen


def _sections(healthy: Sink, authority: Path) -> dict[str, str]:
    hosts = [f'[smarthosts.default]\nurls = ["{healthy.url}"]\nretry = ["1s"]']
    streams = ['[streams.healthy]\nclass = "account"\nfrom = ["healthy@example.com"]']
    for fault in EVERY:
        trust = f'tls_authorities = "{authority}"' if fault.sink.tls else ""
        hosts.append(
            f'[smarthosts.{fault.slug}]\nurls = ["{fault.sink.url}"]\nretry = ["1s"]\nconnections = 4\n{trust}'
        )
        streams.append(
            f'[streams.{fault.slug}]\nclass = "account"\nfrom = ["{fault.sender}"]\nsmarthost = "{fault.slug}"'
        )
    return {"smarthosts": "\n".join(hosts), "accounts": "\n".join(streams)}


def _rage(storm: Storm) -> None:
    """Let every fault begin, and healthy mail flow beside them; end them, and wait until all is settled."""
    before = _resident(storm.gateway)
    for fault in EVERY:
        fault.begin(fault.sink)
    calm = threading.Event()
    watcher = threading.Thread(target=_watch_healthy_mail, args=(storm, calm))
    watcher.start()
    with storm.gateway.smtp("all") as client:
        for fault in EVERY:
            for reader in fault.readers:
                client.sendmail(fault.sender, [reader], _message(fault.sender, reader))
    time.sleep(SECONDS)
    storm.growth = _resident(storm.gateway) - before
    storm.calm_at = time.time()
    calm.set()
    watcher.join()
    for fault in EVERY:
        fault.heal()
    eventually(lambda: storm.gateway.json("queue", "list") == [], 90)


def _watch_healthy_mail(storm: Storm, calm: threading.Event) -> None:
    with storm.gateway.smtp("all") as client:
        while not calm.wait(0.2):
            began, due = time.monotonic(), len(storm.healthy.messages) + 1
            client.sendmail("healthy@example.com", ["well@example.org"], _message("healthy@example.com", "well"))
            storm.healthy.wait_for(due, 30)
            storm.waits.append(time.monotonic() - began)


def _message(sender: str, reader: str) -> bytes:
    header = (
        f"From: {sender}\r\nTo: {reader}\r\nSubject: for {reader}\r\nMessage-ID: <{time.monotonic_ns()}@x.example>\r\n"
    )
    return header.encode() + b"\r\n" + b"What was promised, line by line.\r\n" * (CONTENT_OCTETS // 34)


def _resident(gateway: Gateway) -> int:
    """Return the memory of the gateway's processes in MiB."""
    assert gateway.process
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.req("OUT-04", "OUT-05")
@every_fault
def test_mail_that_met_a_fault_is_relayed_or_reported_and_never_lost(storm: Storm, fault: Fault) -> None:
    copies = fault.copies()
    if fault.end is End.REPORTED:
        reports = [one.content for one in fault.sink.messages if one.recipients == (fault.sender,)]
        failed = [reader for one in reports for reader in re.findall(rb"(?m)^Final-Recipient: rfc822; *(\S+)", one)]
        assert copies == {}
        assert sorted(reader.decode() for reader in failed) == sorted(fault.readers)
    else:
        assert set(copies) == set(fault.readers)


@every_fault
def test_only_an_answer_that_was_lost_after_the_dot_makes_a_second_copy(storm: Storm, fault: Fault) -> None:
    answers_lost = MESSAGES if fault.end is End.MAYBE_TWICE else 0
    copies = fault.copies()
    assert copies.total() <= len(copies) + answers_lost, copies
    assert len({one.content.partition(b"Subject:")[2] for one in fault.received()}) == len(fault.copies())


@every_fault
def test_the_gateway_keeps_to_the_protocol_whatever_the_smarthost_does(storm: Storm, fault: Fault) -> None:
    assert fault.sink.faults == []
    if fault.sink.tls:
        assert all(one.tls for one in fault.received()), "nothing went in clear"


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.end is End.REPORTED], ids=lambda fault: fault.name
)
def test_what_is_refused_for_good_is_not_tried_again(storm: Storm, fault: Fault) -> None:
    tried = Counter(reader for _, reader in fault.sink.attempts if reader != fault.sender)
    assert tried == dict.fromkeys(fault.readers, 1)


@pytest.mark.parametrize("fault", ENDLESS_ONES, ids=lambda fault: fault.name)
def test_an_endless_answer_is_broken_off(storm: Storm, fault: Fault) -> None:
    assert fault.sink.said_without_end <= KERNEL_BUFFERS * fault.sink.connections


@pytest.mark.parametrize("fault", AT_ONE, ids=lambda fault: fault.name)
def test_a_recipient_whom_the_smarthost_cannot_bear_does_not_stop_its_other_mail(storm: Storm, fault: Fault) -> None:
    others = [reader for reader in fault.readers if ONE not in reader]
    meanwhile = [one.recipients[0] for one in fault.received() if one.at < storm.calm_at]
    assert sorted(meanwhile) == sorted(others)


def test_memory_does_not_grow_with_what_smarthosts_say(storm: Storm) -> None:
    assert storm.growth <= GROWTH_MIB


@pytest.mark.req("OUT-17")
def test_healthy_mail_does_not_wait_for_the_rest(storm: Storm) -> None:
    assert len(storm.waits) >= 2
    assert max(storm.waits) <= HEALTHY_SECONDS, storm.waits
