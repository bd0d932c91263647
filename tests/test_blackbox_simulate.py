"""`assent simulate` beside the real thing: the same list sent over SMTP comes to the same counts.

ASSENT_SIMULATED is how many addresses there are for each reason. They are recorded through the store's own verbs,
because a command for each would take hours at the full size.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.address import Address
from gateway.config import load
from gateway.consent import EventType, NewEvent
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT, open_store
from gateway.model import Scope
from tests.gateway_under_test import TOPIC, Gateway, Program, invoice, newsletter
from tests.sink import Sink

EACH = int(os.environ.get("ASSENT_SIMULATED", "20"))
TOGETHER = 500

TOPICS = f"""
    [topics.{TOPIC}]
    name = "Product announcements"
    max_age = "12mo"
    """
STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    brake = "none"
    [streams.billing]
    class = "product"
    product = "editor"
    from = ["billing@example.com"]
    brake = "none"
    """
NOW = datetime.now(UTC)
OPT_IN = (EventType.EXPRESS_OPT_IN, TOPIC, NOW, {})
HISTORIES: dict[str, Sequence[tuple[EventType, str, datetime, dict[str, str]]]] = {
    "sent": [OPT_IN],
    "no-consent": [],
    "unproven": [(EventType.EXPRESS_OPT_IN, TOPIC, NOW, {"provenance": "unproven"})],
    "expired": [(EventType.EXPRESS_OPT_IN, TOPIC, NOW - timedelta(days=400), {})],
    "unsubscribed": [OPT_IN, (EventType.UNSUBSCRIBE, TOPIC, NOW, {})],
    "objected": [OPT_IN, (EventType.OBJECTION, "", NOW, {})],
    "complained": [OPT_IN, (EventType.COMPLAINT, "", NOW, {})],
    "bounced": [OPT_IN, (EventType.HARD_BOUNCE, "", NOW, {})],
    "erased": [OPT_IN, (EventType.ERASURE, "", NOW, {})],
    "minor": [OPT_IN, (EventType.MINOR_FLAG, "", NOW, {})],
}
OWNERS: dict[str, Sequence[tuple[EventType, str, datetime, dict[str, str]]]] = {
    "sent": [(EventType.PRODUCT_OWNED, "", NOW, {"product": "editor"})],
    "not-customer": [],
}


def people(prefix: str, reasons: Sequence[str]) -> dict[str, list[str]]:
    return {reason: [f"{prefix}-{reason}-{n}@example.org" for n in range(EACH)] for reason in reasons}


def events(address: str, history: Sequence[tuple[EventType, str, datetime, dict[str, str]]]) -> Iterator[NewEvent]:
    for kind, topic, at, facts in history:
        scope = Scope.ADDRESS if kind is EventType.HARD_BOUNCE else None
        yield NewEvent(kind, Address.parse(address), at, topic, scope, facts, {"address": address})


def record(house: Gateway, found: Sequence[NewEvent]) -> None:
    async def all_of_it() -> None:
        store = open_store(load(house.config), "test", Ids(OPERATOR_SLOT, lambda: NOW), lambda: datetime.now(UTC))
        for first in range(0, len(found), TOGETHER):
            await store.people.record(found[first : first + TOGETHER])
        await store.close()

    asyncio.run(all_of_it())


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("simulate") / "house"
    running = Gateway(folder, shared_sink.url, sections={"topics": TOPICS, "streams": STREAMS}, workers=2).prepare()
    record(
        running,
        [one for r, who in people("news", [*HISTORIES]).items() for w in who for one in events(w, HISTORIES[r])],
    )
    record(running, [one for r, who in people("shop", [*OWNERS]).items() for w in who for one in events(w, OWNERS[r])])
    yield running.start()
    running.close()


def really_sent(house: Gateway, login: str, recipients: Sequence[str]) -> Counter[str]:
    """Submit to each recipient, and count the replies by their slug."""
    sender = "letters@news.example.com" if login == "news" else "billing@example.com"
    message = newsletter(sender=sender) if login == "news" else invoice()
    counts: Counter[str] = Counter()
    with house.smtp(login) as client:
        for recipient in recipients:
            client.mail(sender)
            code, text = client.rcpt(recipient)
            if code == 250:
                code, text = client.data(message)
            counts["sent" if code == 250 else text.decode().split()[1].rstrip(":")] += 1
            client.rset()
    return counts


def simulated(house: Gateway, stream: str, listed: Path, *more: str) -> Counter[str]:
    told = house.json("simulate", "--stream", stream, str(listed), *more)
    assert told["not_usable"] == told["named_twice"] == 0
    assert told["recipients"] == told["would_get_it"] + sum(told["refused"].values())
    return Counter({"sent": told["would_get_it"], **told["refused"]})


@pytest.mark.req("OPS-03")
@pytest.mark.parametrize(("login", "stream", "kinds"), [("news", "newsletter", HISTORIES), ("shop", "billing", OWNERS)])
def test_a_simulation_and_the_real_run_come_to_the_same(
    house: Gateway, sink: Sink, login: str, stream: str, kinds: dict[str, object]
) -> None:
    recipients = [one for each in people(login, [*kinds]).values() for one in each]
    listed = house.folder / f"{stream}.txt"
    listed.write_text("\n".join(recipients) + "\n")
    expected = Counter(dict.fromkeys(kinds, EACH))
    assert simulated(house, stream, listed) == expected
    assert not sink.messages, "nothing was sent"
    assert really_sent(house, login, recipients) == expected
    sink.wait_for(EACH, 60)


@pytest.mark.req("OPS-03")
def test_a_product_is_named_as_at_the_door(house: Gateway) -> None:
    listed = house.folder / "owner.txt"
    listed.write_text("shop-sent-0@example.org\n")
    assert simulated(house, "billing", listed, "--product", "Editor") == {"sent": 1}
    other = house.run("simulate", "--stream", "billing", "--product", "viewer", str(listed), check=False)
    assert (other.returncode, "--product: stream billing is about editor" in other.stderr) == (2, True)


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


@pytest.mark.req("OPS-03", "OPS-02")
def test_who_would_and_who_would_not_are_written_to_two_files(house: Gateway) -> None:
    yes, no = "news-sent-0@example.org", "news-unsubscribed-0@example.org"
    listed = house.folder / "list.txt"
    listed.write_text(f"{yes}\n{no}\nnobody at all\n{yes.upper()}\n")
    told = house.json("simulate", "--stream", "newsletter", "--topic", TOPIC, str(listed), "--write", "yes.csv,no.csv")
    assert (told["would_get_it"], told["refused"], told["named_twice"]) == (1, {"unsubscribed": 1}, 1)
    assert [one["line"] for one in csv.DictReader(lines(Path(told["errors"])))] == ["3"]
    assert list(csv.reader(lines(house.folder / "yes.csv")))[1:] == [[yes, ""]]
    assert list(csv.reader(lines(house.folder / "no.csv")))[1:] == [[no, "unsubscribed"]]


def test_people_get_a_picture(house: Gateway) -> None:
    listed = house.folder / "picture.txt"
    listed.write_text("news-sent-0@example.org\nnews-minor-0@example.org\n")
    told = house.run("simulate", "--stream", "newsletter", str(listed)).stdout.splitlines()
    assert [line.split() for line in told[:2]] == [["would", "get", "it", "1", "█" * 20], ["minor", "1", "█" * 20]]


@pytest.mark.req("OPS-03")
def test_that_a_stream_is_paused_is_told_beside_who_would_get_it_afterwards(house: Gateway) -> None:
    listed = house.folder / "paused.txt"
    listed.write_text("news-sent-0@example.org\n")
    program = Program(house, house.json("tokens", "add", "crm", "--scopes", "read")["token"])
    asked = {"stream": "newsletter", "addresses": ["news-sent-0@example.org"]}
    for is_paused, order in ((False, ("pause", "newsletter", "--why", "a look")), (True, ("release", "newsletter"))):
        told = house.json("simulate", "--stream", "newsletter", str(listed))
        assert (told["paused"], told["would_get_it"]) == (is_paused, 1)
        checked = json.loads(program.post("/check", asked).text)
        assert (checked["paused"], checked["verdicts"][0]["action"]) == (is_paused, "send")
        house.run("streams", *order)


@pytest.mark.req("OPS-02")
def test_what_cannot_be_simulated_is_told(house: Gateway) -> None:
    picture = house.folder / "not-a-list.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    done = house.run("--json", "simulate", "--stream", "newsletter", str(picture), check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]
    for arguments in (("--stream", "nothing"), ("--stream", "newsletter", "--topic", "nothing")):
        assert house.run("simulate", *arguments, str(picture), check=False).returncode == 2


@pytest.mark.req("OPS-03")
def test_a_list_is_never_overwritten_by_what_comes_of_it(house: Gateway) -> None:
    listed = house.folder / "precious.txt"
    listed.write_text("news-sent-0@example.org\n")
    for written in (f"{listed},no.csv", f"yes.csv,./{listed.name}", "same.csv,./same.csv"):
        done = house.run("simulate", "--stream", "newsletter", str(listed), "--write", written, check=False)
        assert done.returncode == 2 and "besides the list" in done.stderr
    assert listed.read_text() == "news-sent-0@example.org\n"
