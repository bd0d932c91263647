"""The books balance: every recipient that was accepted is relayed, reported or audited, whatever the smarthost does.

And a long queue costs no more than a short one. The judge stands outside: what was answered 250, what a strict sink
took, what the reports there say, and what the kernel counts.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.abuse.footprint import MIB, Footprint
from tests.delivery_under_test import BILLING, LETTERS, at, impatient, settled
from tests.gateway_under_test import Gateway, field_of, invoice, newsletter
from tests.raw_smtp import RawSmtp
from tests.reports import is_report, read_report
from tests.sink import DROP, Received, Sink
from tests.torture import Finding, enter

MAILS = int(os.environ.get("ASSENT_MAILS", "300"))
QUEUED = int(os.environ.get("ASSENT_QUEUED", "20000"))
TOOLS = 4
CONNECTIONS = 20
GROWTH = 30 * MIB
CROWD = 1000
FATES = ("fine", "gone", "late", "never", "quits", "leaver", "stranger")
POISON = b"Drink me"
"""What the smarthost takes offence at; it stands in no header, so that reports do not have it."""

NOTIFY = ("", "", "", "NOTIFY=FAILURE", "NOTIFY=FAILURE,DELAY", "NOTIFY=SUCCESS", "NOTIFY=NEVER")


def people(fate: str) -> list[str]:
    return [f"{fate}{n}@example.org" for n in range(8)]


@dataclass
class Books:
    """What was accepted, and under which NOTIFY; a message is known by its number."""

    gateway: Gateway
    accepted: dict[tuple[str, str], str] = field(default_factory=dict)
    message_ids: dict[str, str] = field(default_factory=dict)

    def submit(self, numbers: list[int]) -> None:
        """Submit random mail over one connection, as one of several tools that do so at once."""
        with RawSmtp(self.gateway.submission) as client:
            client.ehlo()
            assert client.login("both", self.gateway.passwords["both"]).code == 235
            for number in numbers:
                self._submit(client, f"m{number}")

    def _submit(self, client: RawSmtp, name: str) -> None:
        is_news, is_poison = random.random() < 0.5, random.random() < 0.05
        recipients = random.sample([one for fate in FATES for one in people(fate)], random.randint(1, 6))
        asked = {one: random.choice(NOTIFY) for one in recipients}
        content = newsletter(subject=name) if is_news else invoice().replace(b"Your invoice 4711", name.encode())
        if is_poison:
            content = content.replace(b"Hello, here", POISON).replace(b"Thank you", POISON)
        assert client.say(f"MAIL FROM:<{LETTERS if is_news else BILLING}> ENVID={name}").code == 250
        for one, notify in asked.items():
            assert client.say(f"RCPT TO:<{one}> {notify}".strip()).code == 250
        assert client.say("DATA").code == 354
        client.send(content + b".\r\n")
        said = client.reply()
        assert said.code == 250 or (is_news and said.text.startswith("5.7.1 no-consent"))
        if said.code == 250:
            self.accepted.update({(name, one): notify for one, notify in asked.items()})
            self.message_ids[name] = field_of(content, "Message-ID")[0].split()[1].decode()


@contextmanager
def bad_weather(sink: Sink) -> Iterator[None]:
    """Hold and drop what the gateway says to its smarthost, now and then."""
    over = threading.Event()

    def blow() -> None:
        while not over.wait(random.uniform(0.2, 1.0)):
            sink.hold() if random.random() < 0.5 else sink.drop_connections()
            over.wait(random.uniform(0.1, 0.4))
            sink.release()

    weather = threading.Thread(target=blow)
    weather.start()
    try:
        yield
    finally:
        over.set()
        weather.join()


def open_files(gateway: Gateway) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in gateway.children())


@pytest.mark.req("SMTP-23")
def test_every_recipient_that_was_accepted_is_relayed_reported_or_audited(tmp_path: Path, sink: Sink) -> None:
    gateway = impatient(tmp_path / "house", sink, 'give_up_after = "10s"')
    gateway.opt_in(*[one for fate in FATES if fate != "stranger" for one in people(fate)])
    gateway.start()
    try:
        for person in people("fine") * 3:
            assert gateway.submit(invoice(person), [person], login="shop", sender=BILLING)[""][0] == 250
        settled(gateway)
        files, footprint = open_files(gateway), Footprint(gateway)
        sink.clear()
        with footprint:
            books = submitted(gateway, sink)
        balance(books, sink)
        assert footprint.grown < GROWTH
        assert open_files(gateway) < files + CONNECTIONS
        assert not list((gateway.folder / "var" / "bodies").glob("*")), "what is settled leaves nothing behind"
    finally:
        gateway.close()


def submitted(gateway: Gateway, sink: Sink) -> Books:
    """Submit so much random mail at a smarthost with faults of all kinds; return the books once all is settled."""
    books = Books(gateway)
    few = MAILS // 8
    sink.on("RCPT", "550 5.1.1 unknown", containing="<gone")
    sink.on("RCPT", "451 4.2.1 later", containing="<late", times=2 * few)
    sink.on("RCPT", "451 4.2.1 never", containing="<never")
    sink.on("RCPT", "451 4.2.1 not yet", containing="<leaver")
    sink.on("RCPT", "421 4.3.2 closing", containing="<quits", times=few)
    sink.on("DOT", "554 5.6.0 poison", containing=POISON.decode())
    sink.on("DOT", DROP, containing="The amount is", times=few)
    tools = [threading.Thread(target=books.submit, args=([*range(first, MAILS, TOOLS)],)) for first in range(TOOLS)]
    with bad_weather(sink):
        for tool in tools:
            tool.start()
        for tool in tools:
            tool.join()
    for leaver in people("leaver")[:3]:
        gateway.run("suppressions", "add", leaver, "--scope", "all-marketing", "--reason", "objected")
    settled(gateway, 120 + MAILS / 10)
    return books


def balance(books: Books, sink: Sink) -> None:
    copies = [one for one in sink.messages if not is_report(one.content)]
    relayed, answered = taken(copies), taken([one for one in copies if one.is_answered])
    reports = [read_report(one.content) for one in sink.messages if is_report(one.content)]
    final = [one for one in reports if any(fields["Action"] == "failed" for fields in one.recipients)]
    failed = {(one.about["Original-Envelope-Id"], person) for one in final for person in one.named}
    quiet = {key for key, notify in books.accepted.items() if notify in ("NOTIFY=SUCCESS", "NOTIFY=NEVER")}
    silent = books.accepted.keys() - relayed - failed

    lost = silent - quiet
    came_twice = sum(len(one.recipients) for one in copies) - len(relayed)
    besides = f"{len(relayed)} relayed, {len(failed)} reported, {len(silent)} audited only"
    enter(Finding("all kinds of faults at once", f"{MAILS} mails", len(books.accepted), len(lost), came_twice, besides))
    assert relayed and failed and silent and len(books.accepted) > len(books.message_ids)
    assert relayed | failed <= books.accepted.keys(), "nobody got or heard of what was not accepted"
    assert not answered & failed, "nobody is told that a copy failed of which we know that it was taken"
    assert not failed & quiet, "nobody is told who did not ask"
    assert not lost, "nothing disappeared"
    assert came_twice <= sum(len(one.recipients) for one in copies if not one.is_answered), "or the answer was lost"
    assert len(final) == len({one.about["Original-Envelope-Id"] for one in final}), "one report a message"
    for number, person in random.sample(sorted(silent), min(4, len(silent))):
        last = books.gateway.json("explain", books.message_ids[number], person)[-1]
        assert last.get("outcome") in ("failed", "expired", "suppressed") or last["action"] == "refuse"


def taken(copies: list[Received]) -> set[tuple[str, str]]:
    return {(_number_of(one.content), recipient) for one in copies for recipient in one.recipients}


def _number_of(content: bytes) -> str:
    (field,) = field_of(content, "Subject")
    return field.split()[1].decode()


def peak(gateway: Gateway) -> int:
    """Return the most memory that the processes of the gateway have had so far, together, in octets."""
    told = [Path(f"/proc/{pid}/status").read_text() for pid in gateway.children()]
    return 1024 * sum(int(re.search(r"VmHWM:\s+(\d+) kB", one)[1]) for one in told)


@pytest.fixture
def own_sink() -> Iterator[Sink]:
    """A smarthost that a test may take away, and bring back at the same address."""
    with Sink() as running:
        yield running


def test_a_long_queue_is_delivered_from_at_once_and_takes_no_memory(tmp_path: Path, own_sink: Sink) -> None:
    """R9: the first copy leaves within 10 s of the start; 50 MB more than with nothing queued."""
    gateway = impatient(tmp_path / "house", own_sink)
    crowd = at("example.org", CROWD)
    gateway.opt_in(*crowd)
    try:
        gateway.start()
        assert gateway.submit(newsletter(crowd[0]), crowd[:1])[""][0] == 250
        own_sink.wait_for(1)
        empty = peak(gateway)
        own_sink.stop()
        with RawSmtp(gateway.submission) as client:
            client.ehlo()
            client.login("news", gateway.passwords["news"])
            for _ in range(QUEUED // CROWD):
                assert client.transact(newsletter("all@news.example.com"), crowd).code == 250
        gateway.kill()
        assert gateway.json("status")["queued_recipients"] == QUEUED // CROWD * CROWD
        own_sink.clear()
        own_sink.start()
        began = time.time()
        gateway.start(wait=False)
        first = own_sink.wait_for(1, 30)[0].at - began
        own_sink.wait_for(2000, 120)
        more = peak(gateway) - empty
        besides = f"first copy {first:.1f} s after the start, {more / MIB:.0f} MiB more than with nothing queued"
        enter(Finding("`kill -9` with a long queue", f"{QUEUED} recipients", besides=besides))
        assert first <= 10 and more <= 50 * MIB
    finally:
        gateway.close()
