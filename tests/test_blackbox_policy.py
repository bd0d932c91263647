"""Versions of the privacy policy from outside: published, shown, named in notices, and asking for consent anew."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import quopri
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice, outcome_of
from tests.sink import Received, Sink

Someone = Callable[[], str]

STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.billing]
    class = "policy-notice"
    from = ["billing@example.com"]
    """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    sections = {"streams": STREAMS, "consent": '[consent]\nmarkets = ["US"]\n'}
    running = Gateway(tmp_path_factory.mktemp("policy") / "house", shared_sink.url, sections=sections, workers=2)
    yield running.prepare().start()
    running.close()


@pytest.mark.req("POL-33")
def test_the_site_lists_every_version_with_its_date(house: Gateway) -> None:
    assert "No version has been published here" in house.get("/policy").text
    house.publish_policy("2025-1", effective="2025-05-01", text="We mail you <b>nothing</b> unasked.")
    house.publish_policy("2099-1", effective="2099-07-01", text="The one after.")
    page = house.get("/policy")
    assert page.status == 200 and "Set-Cookie" not in page.headers
    for told in (
        "Version 2025-1",
        "01 May 2025</time>, in force",
        "Version 2099-1",
        "01 July 2099</time></p>",
        "&lt;b&gt;",
    ):
        assert told in page.text
    assert page.text.index("2099-1") < page.text.index("2025-1"), "the newest first"
    assert [one["version"] for one in house.json("policy", "list")] == ["2099-1", "2025-1"]


def test_a_published_version_never_changes(house: Gateway) -> None:
    house.publish_policy("fixed", effective="2025-06-01")
    again = house.run("policy", "publish", "fixed", "--text", "policy.txt", "--effective", "2026-06-01", check=False)
    assert again.returncode == 1 and "never changes" in again.stdout


@pytest.mark.req("POL-11")
def test_a_notice_names_the_version_that_it_is_about(house: Gateway, sink: Sink, someone: Someone) -> None:
    house.publish_policy("2025-7", effective="2025-07-01")
    reader = someone()
    for named, code in (
        (b"", 550),
        (b"Assent-Policy-Version: 1999\r\n", 550),
        (b"Assent-Policy-Version: 2025-7\r\n", 250),
    ):
        replies = house.submit(named + invoice(reader), [reader], login="shop", sender="billing@example.com")
        assert replies[""][0] == code, replies
        assert code == 250 or replies[""][1].startswith("5.7.0 class-mismatch: ")
    (received,) = sink.wait_for(1)
    assert b"Assent-Policy-Version" not in received.content


@pytest.mark.req("POL-12")
def test_a_version_that_asks_anew_ends_older_consent_in_its_countries_from_its_hour_on(
    house: Gateway, someone: Someone
) -> None:
    people = german, later, american, _ = [someone() for _ in range(4)]
    for person, country in zip(people, ("DE", "DE", "US", "BR"), strict=True):
        house.run("consent", "record", person, "--topic", TOPIC, "--basis", "confirmed", "--country", country)
    begins = datetime.now(UTC) + timedelta(seconds=6)
    house.publish_policy("asks", "--reconsent", "DE,BR", effective=f"{begins:%Y-%m-%dT%H:%M:%S}")
    assert [house.outcome(one) for one in people] == ["sent"] * 4, "it is not in force yet"
    eventually(lambda: datetime.now(UTC) > begins)
    assert [house.outcome(one) for one in people] == ["expired", "expired", "sent", "expired"]
    at = (begins - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert house.run("explain", german, "--topic", TOPIC, "--at", at, check=False).returncode == 0
    house.run("policy", "agreed", "asks", german)
    house.run("consent", "record", later, "--topic", TOPIC, "--basis", "confirmed")
    assert [house.outcome(one) for one in (german, later, american)] == ["sent"] * 3
    assert house.run("policy", "agreed", "no such version", german, check=False).returncode == 1


@pytest.mark.req("POL-12")
def test_who_agrees_to_a_version_has_agreed_to_what_those_before_it_asked(house: Gateway, someone: Someone) -> None:
    swede, gone, stranger = someone(), someone(), someone()
    given = ("--basis", "confirmed", "--country", "SE", "--at", "2025-12-01")
    house.run("consent", "record", swede, gone, "--topic", TOPIC, *given)
    house.run("suppressions", "add", gone, "--scope", "all-marketing", "--reason", "objected")
    for version, effective in (("first", "2026-02-01"), ("second", "2026-03-01T12:00")):
        house.publish_policy(version, "--reconsent", "SE", effective=effective)
    assert house.outcome(swede) == "expired"
    told = house.json("policy", "agreed", "second", swede, gone, stranger)
    assert (told["suppressed"], told["nothing_to_renew"]) == ([gone], [stranger])
    assert [house.outcome(one) for one in (swede, gone, stranger)] == ["sent", "objected", "no-consent"]
    assert f'the "no" of {gone} stands all the same' in house.run("policy", "agreed", "second", gone).stdout


SENDER = "billing@example.com"
ENCODINGS = ("8bit", "base64", "quoted-printable")


def notice(
    readers: Sequence[str], version: str, text: str = "Our privacy policy changes.", encoding: str = "8bit"
) -> bytes:
    """Return a notice in HTML about a version."""
    body = {
        "8bit": lambda raw: raw,
        "base64": base64.encodebytes,
        "quoted-printable": lambda raw: quopri.encodestring(raw).replace(b"{", b"=7B"),
    }[encoding](f"<html><body><p>{text}</p></body></html>\n".encode())
    header = (
        f"From: {SENDER}\nTo: {', '.join(readers)}\nSubject: Our privacy policy\nAssent-Policy-Version: {version}\n"
        f"Message-ID: <{time.monotonic_ns()}@shop.example.net>\nMIME-Version: 1.0\n"
        f"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    return re.sub(rb"\r?\n", b"\r\n", header.encode() + body)


def told(house: Gateway, message: bytes, readers: Sequence[str]) -> dict[str, str]:
    """Submit a notice; return "sent" or the slug of the refusal, by reader, or for all of them under ""."""
    replies = house.submit(message, readers, login="shop", sender=SENDER)
    return {who: outcome_of(*reply) for who, reply in replies.items()}


def received_by(sink: Sink, reader: str) -> list[Received]:
    """Return what came for a reader, once anything has."""
    return list(eventually(lambda: [one for one in sink.messages if reader in one.recipients]))


def recorded(house: Gateway, version: str, count: int = 1) -> list[dict[str, str | None]]:
    """Return the recipients of a version's record, once so many notices have ended."""

    def ended() -> list[dict[str, str | None]] | None:
        rows = json.loads(house.run("policy", "export", version).stdout)["recipients"]
        return rows if len([one for one in rows if one["outcome"]]) >= count else None

    return list(eventually(ended))


@pytest.mark.req("POL-10")
def test_a_notice_goes_to_the_newest_address_of_a_person_and_once(house: Gateway, sink: Sink, someone: Someone) -> None:
    old, new = someone(), someone()
    house.publish_policy("moved", effective="2025-07-01")
    house.run("consent", "record", old, "--topic", TOPIC, "--basis", "express")
    house.run("person", "link", old, new)
    assert told(house, notice([old, new], "moved"), [old, new]) == {old: "moved", "": "sent"}
    (received,) = received_by(sink, new)
    assert old not in received.recipients
    recorded(house, "moved")
    assert told(house, notice([old, new], "moved"), [old, new]) == {old: "moved", "": "repeated"}
    listed = house.folder / "readers.txt"
    listed.write_text("\n".join([old, new, someone()]))
    simulated = house.json("simulate", "--stream", "billing", "--policy-version", "moved", str(listed))
    assert (simulated["would_get_it"], simulated["refused"]) == (1, {"moved": 1, "repeated": 1})
    unheard_of = house.run("simulate", "--stream", "billing", "--policy-version", "movd", str(listed), check=False)
    assert (unheard_of.returncode, "--policy-version: " in unheard_of.stderr) == (2, True), "as the door has it"
    house.publish_policy("moved-2", effective="2025-07-02")
    assert told(house, notice([new], "moved-2"), [new]) == {"": "sent"}, "the next version is another notice"


@pytest.mark.req("POL-10")
@pytest.mark.parametrize("moves", [1, 2])
def test_who_comes_back_to_an_older_address_is_told_there(
    house: Gateway, sink: Sink, someone: Someone, moves: int
) -> None:
    first, *others, last = way = [someone() for _ in range(moves + 2)]
    house.publish_policy(version := f"back-{moves}", effective="2025-07-01")
    for old, new in pairwise([first, *others, first]):
        house.run("person", "link", old, new)
    readers = [*others, first]
    assert told(house, notice(readers, version), readers) == {**dict.fromkeys(others, "moved"), "": "sent"}
    recorded(house, version)
    house.run("person", "link", first, last)
    assert told(house, notice(way, version), way) == {**dict.fromkeys([first, *others], "moved"), "": "repeated"}, (
        "the person has had it at the old address"
    )


@pytest.mark.req("POL-10")
def test_notices_that_come_at_one_instant_reach_a_person_once(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    house.publish_policy("crowded", effective="2025-07-01")
    together = threading.Barrier(8)

    def submit(_: int) -> dict[str, str]:
        together.wait(30)
        return told(house, notice([reader], "crowded"), [reader])

    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(submit, range(8)))
    assert {"": "sent"} in answers
    eventually(lambda: house.json("status")["queued_recipients"] == 0)
    assert len(received_by(sink, reader)) == 1, "the others end in a report to who submitted them"
    assert [one["outcome"] for one in recorded(house, "crowded")] == ["relayed"]


@pytest.mark.req("POL-10")
def test_a_notice_that_could_not_be_relayed_may_be_sent_again(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    house.publish_policy("fails", effective="2025-07-01")
    sink.on("RCPT", "550 5.2.1 mailbox disabled")
    assert told(house, notice([reader], "fails"), [reader]) == {"": "sent"}
    assert recorded(house, "fails")[0]["outcome"] == "failed"
    sink.normal()
    assert told(house, notice([reader], "fails"), [reader]) == {"": "sent"}
    assert [one["outcome"] for one in recorded(house, "fails", 2)] == ["failed", "relayed"]


@pytest.mark.req("POL-21")
def test_the_record_of_a_notice_has_its_text_its_readers_the_times_and_the_replies(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    readers, forgotten = [someone(), someone()], someone()
    house.publish_policy("recorded", effective="2025-07-01", text="We keep less.")
    assert told(house, notice(readers, "recorded", "We keep <b>less</b>."), readers) == {"": "sent"}
    assert told(house, notice([forgotten], "recorded", "Dear Ann, we keep less."), [forgotten]) == {"": "sent"}
    rows = recorded(house, "recorded", 3)
    house.run("person", "erase", forgotten)
    record = json.loads(house.run("policy", "export", "recorded").stdout)
    assert record["policy_text"] == "We keep less."
    assert [one["address"] for one in record["recipients"]] == [*readers, None]
    for row, kept in zip(rows, record["recipients"], strict=True):
        assert (kept["outcome"], kept["reply"][:3]) == ("relayed", "250")
        assert datetime.fromisoformat(str(row["ended_at"])) <= datetime.now(UTC)
    texts = [record["notice_texts"][one["notice_text"]] for one in record["recipients"]]
    assert texts == ["Our privacy policy\n\nWe keep less."] * 2 + [None], "what only the forgotten one was sent is gone"
    assert house.run("policy", "export", "no such version", check=False).returncode == 1
    assert house.run("ledger", "verify").returncode == 0


@pytest.mark.req("POL-13")
def test_a_notice_with_marketing_in_it_is_refused(house: Gateway, someone: Someone) -> None:
    house.publish_policy("plain", effective="2025-07-01")
    policy = "We send special offers and discounts only to who has asked; 20% of our servers are in Austria."
    for encoding in ENCODINGS:
        reader = someone()
        for words in ("Get 20% off today", "Buy&nbsp;now and save", "Jetzt kaufen", "Utilisez le code promo ÉTÉ"):
            replies = house.submit(notice([reader], "plain", words, encoding), [reader], login="shop", sender=SENDER)
            code, text = replies[""]
            assert code == 550 and text.startswith("5.7.0 content: a policy notice holds no marketing")
        assert told(house, notice([reader], "plain", policy, encoding), [reader]) == {"": "sent"}


LINK = '<a href="{{assent_reconsent_url}}">Go on</a>'


def link_in(content: bytes) -> str:
    """Return the path of the one link that a notice's reader sees."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    (link,) = re.findall(r'href="https://mail\.example\.com(/a/[^"]+)"', message.get_content())
    return str(link)


@pytest.mark.req("POL-13")
def test_the_link_of_a_notice_asks_and_a_press_of_its_button_consents_anew(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    house.run("consent", "record", reader, "--topic", TOPIC, "--basis", "confirmed", "--country", "IT")
    begins = datetime.now(UTC) + timedelta(seconds=2)
    house.publish_policy("italy", "--reconsent", "IT", effective=f"{begins:%Y-%m-%dT%H:%M:%S}")
    assert told(house, notice([reader], "italy", LINK), [reader]) == {"": "sent"}
    path = link_in(received_by(sink, reader)[0].content)
    eventually(lambda: datetime.now(UTC) > begins)
    page = house.get(path)
    assert page.status == 200 and "italy" in page.text and reader not in page.text
    assert house.http("HEAD", path).status == 200
    for bare in (b"", b"List-Unsubscribe=One-Click"):
        assert house.post(path, bare).status == 400, "a robot's POST is no press"
    assert house.outcome(reader) == "expired", "a look changes nothing"
    done = house.post(path, b"agree=yes", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert done.status == 200 and "Set-Cookie" not in done.headers
    assert house.outcome(reader) == "sent"
    (anew,) = [one for one in house.json("consent", "show", reader) if one["type"] == "RECONSENT"]
    assert anew["facts"]["policy_version"] == "italy"


@pytest.mark.req("POL-13")
def test_the_link_stands_in_whatever_encoding_the_notice_has_and_is_its_readers_own(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    house.publish_policy("encoded", effective="2025-07-01")
    paths = set()
    for encoding in ENCODINGS:
        reader = someone()
        submitted = notice([reader], "encoded", f"It changes. {LINK}", encoding)
        assert told(house, submitted, [reader]) == {"": "sent"}
        (received,) = received_by(sink, reader)
        assert b"It changes." in email.message_from_bytes(received.content).get_payload(decode=True)
        paths.add(link_in(received.content))
    assert len(paths) == 3
    for path in paths:
        assert house.get(path).status == 200
        other = path[:-1] + ("A" if path[-1] != "A" else "B")
        for wrong in (other, path.replace("/a/", "/u/"), path.partition(".")[0], "/a/nonsense", "/a/" + "x" * 600):
            assert (house.get(wrong).status, house.post(wrong, b"").status) == (404, 404)


@pytest.mark.req("POL-13")
def test_who_has_objected_is_told_but_not_asked(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    house.publish_policy("tells", effective="2025-07-01")
    house.opt_in(reader)
    house.run("suppressions", "add", reader, "--scope", "all-marketing", "--reason", "objected")
    assert house.outcome(reader) == "objected", "a re-permission campaign is promotion like any other"
    assert told(house, notice([reader], "tells", LINK), [reader]) == {"": "objected"}
    assert told(house, notice([reader], "tells"), [reader]) == {"": "sent"}


@pytest.mark.req("POL-13")
def test_a_notice_has_one_link_and_then_one_reader(house: Gateway, someone: Someone) -> None:
    readers = [someone(), someone()]
    house.publish_policy("single", effective="2025-07-01")
    assert told(house, notice(readers, "single", LINK), readers) == {"": "content"}
    assert told(house, notice(readers[:1], "single", LINK * 2), readers[:1]) == {"": "content"}


@pytest.mark.req("POL-13")
def test_a_notice_that_asks_is_refused_where_there_is_no_site_to_answer_on(
    shared_sink: Sink, tmp_path: Path, someone: Someone
) -> None:
    streams = STREAMS[STREAMS.index("    [streams.billing]") :]
    house = Gateway(tmp_path / "house", shared_sink.url, sections={"site": "", "topics": "", "streams": streams})
    house.prepare_files()
    house.run("migrate")
    house.add_login("shop", "billing")
    house.publish_policy("2025-1", effective="2025-05-01")
    try:
        house.start(wait=False)
        eventually(lambda: _answers(house))
        reader = someone()
        assert told(house, notice([reader], "2025-1", LINK), [reader]) == {"": "content"}
        assert told(house, notice([reader], "2025-1"), [reader]) == {"": "sent"}
    finally:
        house.close()


def _answers(house: Gateway) -> bool:
    try:
        with house.smtp(None) as client:
            return bool(client.noop()[0] == 250)
    except OSError:
        return False
