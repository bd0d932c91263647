"""What proves a consent, from outside: what is kept of it, what is shown of it, and what it looked like then.

The program is a separate process. What it keeps is read from `assent explain`, from exports and from the API; what it
lets go from a strict sink. Digests, Merkle leaves and signatures are worked out here anew, with nothing of the program.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.gateway_under_test import TOPIC, Answer, Gateway, eventually, fetch, newsletter
from tests.sink import Sink

Someone = Callable[[], str]

WORDS = "Yes, mail me Product announcements. I can stop this at any time.\n"
CANADIAN = (
    "Yes, mail me product announcements. Example Software, Inc., 1 Main Street, Springfield IL 62701, USA,"
    " privacy@example.com. You can withdraw your consent at any time."
)
NOTICE, FOR_CANADA, PARTNERS = "news-box", "news-box-ca", "partner-box"

TOPICS = f"""
    [topics.{TOPIC}]
    name = "Product announcements"
    max_age = "24mo"
    [topics.special-offers]
    name = "Special offers"
    """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("evidence") / "house"
    running = Gateway(folder, shared_sink.url, sections={"topics": TOPICS}).prepare()
    running.publish_policy("2026-1", effective="2020-01-01")
    register(running, NOTICE, WORDS, "--version", "3", "--language", "en-GB")
    register(running, FOR_CANADA, CANADIAN)
    register(running, PARTNERS, WORDS, "--controller", "Example Software, Inc.", "--controller", "Acme Tools Ltd.")
    running.token = running.json("tokens", "add", "crm", "--scopes", "read,record")["token"]  # type: ignore[attr-defined]
    yield running.start()
    running.close()


def register(house: Gateway, name: str, words: str, *more: str) -> dict[str, Any]:
    (house.folder / "words.txt").write_text(words)
    told = ("--url", "https://example.com/join", "--control", "unticked", "--from", "2020-01-01")
    return house.json("notices", "add", name, "--topic", TOPIC, "--text", "words.txt", *told, *more)


def ago(**span: int) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="seconds")


def post(house: Gateway, path: str, document: dict[str, Any]) -> Answer:
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}  # type: ignore[attr-defined]
    return fetch(f"http://127.0.0.1:{house.console}/api/v1{path}", "POST", json.dumps(document).encode(), headers)


def opt_in(house: Gateway, address: str, **more: Any) -> list[int]:
    """Tell the program of an opt-in as a shop would; return its events."""
    answer = post(house, "/consents", {"address": address, "notice": NOTICE, "at": ago(hours=1), **more})
    assert answer.status == 201, answer.text
    return json.loads(answer.text)["events"]


def wrong_fields(answer: Answer) -> set[str]:
    assert answer.status == 422, answer.text
    return {one["field"] for one in json.loads(answer.text)["errors"]}


def lines_about(house: Gateway, message: bytes, address: str, outcome: str = "relayed") -> list[dict[str, Any]]:
    """Return what `explain` tells of a message, once its attempt has ended."""
    message_id = message.split(b"Message-ID: ")[1].split(b"\r\n")[0].decode()

    def told() -> list[dict[str, Any]]:
        done = house.run("--json", "explain", message_id, address, check=False)
        lines = json.loads(done.stdout) if done.returncode == 0 else []
        return lines if any(one.get("outcome") == outcome for one in lines) else []

    return eventually(told)


def relay(house: Gateway, address: str) -> list[dict[str, Any]]:
    message = newsletter(address)
    assert house.submit(message, [address])[""][0] == 250
    return lines_about(house, message, address)


def refused(house: Gateway, address: str) -> str:
    """Return the slug of a refusal, "" if there is none."""
    replies = house.submit(newsletter(address), [address])
    return replies[address][1].split()[1].rstrip(":") if address in replies else ""


def verdict(house: Gateway, address: str, at: datetime | None = None) -> dict[str, Any]:
    when = ("--at", at.strftime("%Y-%m-%dT%H:%M:%S")) if at else ()
    done = house.run("--json", "explain", address, "--topic", TOPIC, *when, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["action"] == "send" else 1), done.stderr
    return told


@pytest.mark.req("CON-01", "CON-02", "LAW-EU-07")
def test_a_relayed_copy_leads_to_the_whole_proof_that_authorised_it(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone().replace("reader", "Reader")
    at = ago(hours=2)
    (event,) = opt_in(house, reader, at=at, page="https://example.com/checkout", ip="192.0.2.7", user_agent="Browser/1")
    lines = relay(house, reader)
    assert [one["kind"] for one in lines] == ["door", "attempt"]
    for line in lines:
        assert line["evidence"] == [event]
        (proof,) = line["proof"]
        assert proof["event"] == event and proof["type"] == "EXPRESS_OPT_IN"
        assert proof["subject"] == line["who"]
        assert proof["address"] == reader, "as typed"
        key = proof["canonical_key"]
        assert key["key"].lower() == reader.lower() and key["version"] == 1 and len(key["digest"]) == 32
        assert proof["controllers"] == ["Example Software, Inc."]
        assert proof["purposes"] == [{"topic": TOPIC, "name": "Product announcements"}]
        notice = proof["notice"]
        assert (notice["name"], notice["version"], notice["language"]) == (NOTICE, "3", "en-GB")
        assert notice["text"] == WORDS and notice["is_text_of_then"] is True
        assert notice["sha256"] == hashlib.sha256(WORDS.encode()).hexdigest()
        assert proof["facts"]["notice_sha256"] == notice["sha256"], "the sealed event itself holds the digest"
        assert proof["control"] == {"kind": "checkbox", "initial_state": "unticked"}
        assert proof["collection_method"] == "web-form"
        assert proof["page"] == "https://example.com/checkout"
        assert datetime.fromisoformat(proof["at"]) == datetime.fromisoformat(at) and proof["at"].endswith("Z")
        assert proof["policy_version"] == "2026-1"
        assert proof["personal"]["ip"] == "192.0.2.7"
        assert line["again"]["is_the_same"] is True
        assert (line["again"]["action"], line["again"]["evidence"]) == ("send", [event])
    printed = house.run("explain", lines[0]["id"]).stdout
    assert all(one in printed for one in (WORDS.strip(), notice["sha256"], reader, "unticked", "2026-1"))


@pytest.mark.req("CON-01")
def test_what_came_later_does_not_change_what_was_decided(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader, stranger = someone(), someone()
    opt_in(house, reader)
    (door, *_) = relay(house, reader)
    no = house.submit(newsletter(stranger), [stranger])[stranger][1].split("decision ")[1][:26]
    opt_in(house, stranger)
    assert post(house, "/withdrawals", {"address": reader}).status == 201
    again = house.json("explain", door["id"])
    assert [(one["action"], one["again"]["is_the_same"]) for one in again] == [("send", True)] * 2
    assert "violation" not in again[1]
    (line,) = house.json("explain", no)
    assert (line["reason"], line["again"]["reason"], line["again"]["is_the_same"]) == ("no-consent", "no-consent", True)


@pytest.mark.req("CON-02")
def test_a_notice_that_is_altered_afterwards_is_found(house: Gateway, someone: Someone, tmp_path: Path) -> None:
    opt_in(house, someone())
    assert house.run("ledger", "verify").returncode == 0
    copy = Gateway(tmp_path / "copy", house.smarthost, sections={"topics": TOPICS})
    shutil.copytree(house.folder, copy.folder)
    with closing(sqlite.connect(str(copy.folder / "var" / "assent.db"))) as connection:
        connection.execute("UPDATE notices SET text = 'Yes to everything' WHERE name = ?", (NOTICE,))
        connection.commit()
    done = copy.run("ledger", "verify", check=False)
    assert done.returncode == 1 and f"notice {NOTICE}: the text is not the one that people met" in done.stdout


@pytest.mark.req("CON-08")
def test_a_no_that_is_told_late_leaves_what_was_known_and_flags_what_was_sent(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    (event,) = opt_in(house, reader, at=ago(days=30))
    (door, attempt) = relay(house, reader)
    then = datetime.now(UTC) + timedelta(seconds=1)
    eventually(lambda: datetime.now(UTC) > then)
    said = {"address": reader, "at": ago(days=1), "channel": "letter"}
    (no,) = json.loads(post(house, "/withdrawals", said).text)["events"]
    told = verdict(house, reader, then)
    assert (told["action"], told["evidence"], told["proof"][0]["event"]) == ("send", [event], event)
    assert (told["known_since"]["action"], told["known_since"]["reason"]) == ("refuse", "unsubscribed")
    assert told["violation"]["event"] == no
    assert told["violation"]["said_at"] < attempt["at"] < told["violation"]["recorded_at"]
    assert told["violation"]["relayed"] == [attempt["id"]]
    lines = house.json("explain", door["id"])
    assert lines[0]["again"]["is_the_same"] is True, "the decision was right by what was known"
    assert lines[1]["violation"]["event"] == no
    before = verdict(house, reader, datetime.now(UTC) - timedelta(days=2))
    assert before["action"] == "refuse", "nothing at all had been recorded two days ago"
    assert before["known_since"]["action"] == "send", "and yet the person had opted in by then"
    assert verdict(house, reader)["reason"] == "unsubscribed"


@pytest.mark.req("CON-08", "OPS-02")
def test_a_time_is_taken_with_its_zone(house: Gateway, someone: Someone) -> None:
    address = someone()
    noon_in_helsinki = "2026-11-22T12:00:00+02:00"
    house.run("consent", "record", address, "--topic", TOPIC, "--basis", "express", "--at", noon_in_helsinki)
    (told,) = house.json("consent", "show", address)
    assert datetime.fromisoformat(told["at"]) == datetime(2026, 11, 22, 10, tzinfo=UTC)
    explain = ("explain", address, "--topic", TOPIC, "--at")
    recorded = datetime.fromisoformat(told["recorded_at"]).astimezone(timezone(timedelta(hours=14)))
    assert house.json(*explain, recorded.isoformat())["action"] == "send", "to the very instant that is shown"
    just_before = recorded - timedelta(microseconds=1)
    assert house.run(*explain, just_before.isoformat(), check=False).returncode == 1
    since = house.json("status", "--since", "2026-11-22T12:00:00+02:00")["since"]
    assert datetime.fromisoformat(since) == datetime(2026, 11, 22, 10, tzinfo=UTC)
    wrong = house.run(*explain, "noon", check=False)
    assert (wrong.returncode, "noon is no time" in wrong.stderr) == (2, True)


@pytest.mark.req("CON-15")
def test_consent_grows_old_and_lapses_to_the_second(house: Gateway, sink: Sink, someone: Someone) -> None:
    now = datetime.now(UTC)
    young, old = someone(), someone()
    two_years_ago = now.replace(year=now.year - 2)
    opt_in(house, young, at=(two_years_ago + timedelta(hours=1)).isoformat())
    opt_in(house, old, at=(two_years_ago - timedelta(seconds=1)).isoformat())
    assert refused(house, young) == ""
    assert refused(house, old) == "expired"
    soon = (two_years_ago + timedelta(hours=2)).replace(microsecond=0)
    (event,) = opt_in(house, young, at=soon.isoformat())
    end = soon.replace(year=soon.year + 2)
    (permission,) = verdict(house, young)["proof"]
    assert permission["event"] == event and permission["age_days"] >= 729
    assert datetime.fromisoformat(permission["lapses_at"]) == end
    assert verdict(house, young, end)["action"] == "send"
    assert verdict(house, young, end + timedelta(seconds=1))["reason"] == "expired"


@pytest.mark.req("LAW-AU-03")
def test_that_an_address_is_published_is_no_consent(house: Gateway, someone: Someone) -> None:
    reader = someone()
    for basis in ("express", "inquiry", "sale"):
        document = {"address": reader, "notice": NOTICE, "at": ago(hours=1), "method": "published", "country": "AU"}
        assert wrong_fields(post(house, "/consents", {**document, "basis": basis})) == {"method"}
    done = house.run(
        *("consent", "record", reader, "--topic", TOPIC, "--basis", "inquiry", "--method", "published"), check=False
    )
    assert done.returncode == 2 and "published" in done.stderr
    assert house.run("consent", "show", reader, check=False).returncode == 1, "nothing was recorded"
    assert refused(house, reader) == "no-consent"


@pytest.mark.req("LAW-CA-05", "CON-02")
def test_a_request_for_consent_says_what_canada_wants_said(house: Gateway, sink: Sink, someone: Someone) -> None:
    listed = {one["name"]: one for one in house.json("notices", "list")}
    assert listed[FOR_CANADA]["states"] == ["purpose", "requester", "contact", "withdrawal"]
    assert listed[NOTICE]["states"] == ["purpose", "withdrawal"]
    reader = someone()
    document = {"address": reader, "at": ago(hours=1), "country": "CA"}
    answer = post(house, "/consents", {**document, "notice": NOTICE})
    assert wrong_fields(answer) == {"notice"} and "requester, contact" in answer.text
    assert refused(house, reader) == "no-consent"
    known = {**document, "notice": NOTICE, "basis": "inquiry"}
    assert post(house, "/consents", known).status == 201, "an inquiry asks for no consent"
    later = post(house, "/consents", {"address": reader, "at": ago(minutes=9), "notice": NOTICE})
    assert wrong_fields(later) == {"notice"}, "the country that was declared before counts"
    other, box = someone(), ("--topic", TOPIC, "--notice", NOTICE)
    by_hand = house.run("consent", "record", other, reader, *box, "--basis", "express", check=False)
    assert (by_hand.returncode, f"requester, contact ({reader})" in by_hand.stderr) == (2, True)
    (house.folder / "old.csv").write_text(
        "Email Address,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,LAST_CHANGED\n"
        f"{reader},{ago(days=9)},,,,{ago(days=9)}\n{other},{ago(days=9)},,,,{ago(days=9)}\n"
    )
    for more in (("--dry-run",), ()):
        imported = house.json("consent", "import", "old.csv", *box, "--attested-by", "somebody", *more)
        assert imported["counts"] == {"rows": 2, "express": 1, "unproven": 1}
    assert [verdict(house, one)["reason"] for one in (reader, other)] == ["unproven", None]
    travelling = {**document, "address": someone(), "country": "US", "seen_in": "CA", "notice": NOTICE}
    assert wrong_fields(post(house, "/consents", travelling)) == {"notice"}, (
        "where they are seen adds a country's rules"
    )
    assert post(house, "/consents", {**document, "notice": FOR_CANADA}).status == 201
    (line, *_) = relay(house, reader)
    assert line["proof"][0]["notice"]["states"] == listed[FOR_CANADA]["states"]
    assert line["proof"][0]["notice"]["text"] == CANADIAN
    printed = register(house, "spoken", "Shall we call you?", "--states", "requester", "--method", "phone")
    assert printed["unsaid"] == ["purpose", "contact", "withdrawal"]


@pytest.mark.req("CON-05", "CON-02")
def test_every_controller_that_a_notice_named_stands_in_the_proof(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    opt_in(house, reader, notice=PARTNERS)
    (line, *_) = relay(house, reader)
    assert line["proof"][0]["controllers"] == ["Example Software, Inc.", "Acme Tools Ltd."]
    (house.folder / "words.txt").write_text(WORDS)
    done = house.run(
        *("notices", "add", "vague", "--topic", TOPIC, "--text", "words.txt", "--url", "https://example.com/"),
        *("--control", "unticked", "--from", "2020-01-01", "--controller", "our partners"),
        check=False,
    )
    assert done.returncode == 2 and "category" in done.stderr


@pytest.mark.req("CON-13")
def test_a_notice_under_which_nobody_could_have_opted_in_is_none(house: Gateway) -> None:
    (house.folder / "words.txt").write_text("Yes, send me news.")
    command = ("notices", "add", "never", "--topic", TOPIC, "--text", "words.txt", "--url", "https://example.com/")
    period = ("--control", "unticked", "--from", "2026-01-02", "--until", "2026-01-01")
    assert house.run(*command, *period, check=False).returncode == 2
    assert "never" not in {one["name"] for one in house.json("notices", "list")}


@pytest.mark.req("CON-12")
def test_who_refused_when_asked_is_not_asked_again_for_a_year(house: Gateway, someone: Someone) -> None:
    reader = someone()
    asked = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    opt_in(house, reader, at=ago(days=10))
    opt_in(house, reader, at=asked.isoformat(), answer="no")
    assert refused(house, reader) == "no-consent"
    person = json.loads(post(house, "/people/lookup", {"address": reader}).text)
    ((topic, until),) = person["do_not_ask"].items()
    end = datetime.fromisoformat(until)
    assert (topic, end.year, end.timetuple()[1:6]) == (TOPIC, asked.year + 1, asked.timetuple()[1:6])
    opt_in(house, reader, at=ago(minutes=1))
    person = json.loads(post(house, "/people/lookup", {"address": reader}).text)
    assert person["do_not_ask"] == {}, "they came by themselves"
