"""The HTTP API from outside: what programs may tell and ask, with which token, and how it says no."""

from __future__ import annotations

import hashlib
import json
import re
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.gateway_under_test import (
    TOPIC,
    Answer,
    Gateway,
    Program,
    eventually,
    fetch,
    field_of,
    newsletter,
    outcome_of,
    token_of,
)
from tests.sink import Sink

Someone = Callable[[], str]
NOTICE = "newsletter-box"
COUSINS = f"""
    [streams.cousins]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@cousins.example.com"]
    controller = "Cousins GmbH"
    """


ESSENTIALS = """
    [streams.updates]
    class = "product"
    from = ["updates@example.com"]
    [streams.notices]
    class = "policy-notice"
    from = ["notices@example.com"]
    """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("api") / "house"
    sections = {"essentials": ESSENTIALS, "cousins": COUSINS}
    running = Gateway(folder, shared_sink.url, workers=2, sections=sections).prepare()
    running.add_login("cousins", "cousins")
    (running.folder / "words.txt").write_text("Yes, send me news about your products.")
    running.run(
        *("notices", "add", NOTICE, "--topic", TOPIC, "--text", str(running.folder / "words.txt")),
        *("--url", "https://example.com/join", "--control", "unticked", "--from", "2020-01-01"),
    )
    yield running.start()
    running.close()


def made(house: Gateway, name: str, scopes: str, *more: str) -> Program:
    return Program(house, house.json("tokens", "add", name, "--scopes", scopes, *more)["token"])


@pytest.fixture(scope="module")
def program(house: Gateway) -> Program:
    return made(house, "crm", "read,record,lift")


def now(**shift: int) -> str:
    return (datetime.now(UTC) + timedelta(**shift)).isoformat(timespec="seconds")


def consent(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "notice": NOTICE, "at": now(hours=-1), **more}


def fields_of(answer: Answer) -> set[str]:
    assert answer.status == 422, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    return {one["field"] for one in json.loads(answer.text)["errors"]}


@pytest.mark.req("CON-01", "CON-02")
def test_a_consent_opens_the_door_and_a_withdrawal_shuts_it(house: Gateway, program: Program, someone: Someone) -> None:
    reader = someone()
    assert house.outcome(reader) == "no-consent"
    answer = program.post("/consents", consent(reader, ip="192.0.2.7", user_agent="Browser/1"))
    assert answer.status == 201
    (event,) = json.loads(answer.text)["events"]
    assert house.outcome(reader) == "sent"
    (entry,) = house.json("consent", "show", reader)
    assert (entry["seq"], entry["facts"]["notice"], entry["facts"]["token"]) == (event, NOTICE, "crm")
    assert entry["personal"]["ip"] == "192.0.2.7"
    assert program.post("/withdrawals", {"address": reader, "channel": "phone", "words": "Stop!"}).status == 201
    assert house.outcome(reader) == "unsubscribed"


@pytest.mark.req("UNS-24", "SUP-06")
def test_a_no_that_is_said_again_outlives_a_confirmation_from_between(
    house: Gateway, program: Program, someone: Someone
) -> None:
    reader = someone()
    for at in (now(minutes=-30), now(minutes=-10), now(minutes=-10)):
        assert program.post("/withdrawals", {"address": reader, "at": at}).status == 201
    told = [one["type"] for one in house.json("consent", "show", reader)]
    assert told == ["UNSUBSCRIBE", "UNSUBSCRIBE"], "what comes twice at once is one"
    assert program.post("/consents", consent(reader, basis="confirmed", at=now(minutes=-20))).status == 201
    assert house.outcome(reader) == "unsubscribed"
    assert program.post("/consents", consent(reader, basis="confirmed", at=now())).status == 201
    assert house.outcome(reader) == "sent"


@pytest.mark.req("CON-02")
def test_each_missing_field_is_named(program: Program, someone: Someone) -> None:
    assert fields_of(program.post("/consents", {})) == {"address", "notice", "at"}
    assert fields_of(program.post("/consents", consent(someone(), favourite="blue"))) == {"favourite"}
    assert fields_of(program.post("/consents", consent("no address"))) == {"address"}
    assert fields_of(program.post("/consents", {**consent(someone()), "notice": "never registered"})) == {"notice"}
    assert fields_of(program.post("/consents", consent(someone(), topics=["special-offers"]))) == {"topics"}
    assert fields_of(program.post("/consents", {**consent(someone()), "at": "2026-11-22T10:00:00"})) == {"at"}


@pytest.mark.req("DSR-04", "POL-04")
def test_a_channel_names_nobody_and_a_product_something(program: Program, someone: Someone) -> None:
    reader = someone()
    for path, field, document in (
        ("/withdrawals", "channel", {"channel": f"a letter of {reader}"}),
        ("/customers", "products.1", {"products": ["editor", " "]}),
    ):
        answer = program.post(path, {"address": reader, **document})
        assert (answer.status, [one["field"] for one in json.loads(answer.text)["errors"]]) == (422, [field])


@pytest.mark.req("CON-03", "CON-04", "CON-05", "CON-09", "LAW-CA-05")
def test_what_is_no_consent_is_not_recorded_as_one(house: Gateway, program: Program, someone: Someone) -> None:
    reader = someone()
    for field, said in (
        ("control_state", {"control_state": "ticked"}),
        ("with_terms", {"with_terms": True}),
        ("controllers", {"controllers": ["our partners"]}),
        ("at", {"at": now(days=2)}),
        ("at", {"at": "1970-01-01T00:00:00Z"}),
        ("at", {"at": "2019-12-31T00:00:00Z"}),
    ):
        assert fields_of(program.post("/consents", consent(reader, **said))) == {field}
    assert house.run("consent", "show", reader, check=False).returncode == 1, "nothing is known of them"
    terms = consent(reader, basis="policy-accepted", with_terms=True)
    assert program.post("/consents", terms).status == 201
    assert [one["type"] for one in house.json("consent", "show", reader)] == ["POLICY_ACCEPTED"]
    assert house.outcome(reader) == "no-consent"


@pytest.mark.req("POL-31", "SUP-06")
@pytest.mark.parametrize("extent", [{}, {"scope": "topic", "topic": TOPIC}])
def test_a_confirmation_ends_a_no_for_the_controller_that_it_names_alone(
    house: Gateway, program: Program, someone: Someone, extent: dict[str, str]
) -> None:
    reader, author = someone(), "letters@cousins.example.com"

    def of_cousins() -> str:
        (reply,) = house.submit(newsletter(reader, sender=author), [reader], login="cousins", sender=author).values()
        return outcome_of(*reply)

    theirs = {"controllers": ["Cousins GmbH"]}
    assert program.post("/consents", consent(reader, at=now(hours=-3))).status == 201
    assert program.post("/withdrawals", {"address": reader, "at": now(hours=-2), **extent}).status == 201
    assert program.post("/consents", consent(reader, basis="confirmed", **theirs)).status == 201
    assert (house.outcome(reader), of_cousins()) == ("unsubscribed", "sent")
    assert program.post("/withdrawals", {"address": reader, "at": now(minutes=-2), **extent}).status == 201
    assert program.post("/consents", consent(reader, basis="confirmed", at=now())).status == 201
    assert (house.outcome(reader), of_cousins()) == ("sent", "unsubscribed")


@pytest.mark.req("CON-12")
def test_a_refusal_at_the_question_is_an_event_of_its_own(house: Gateway, program: Program, someone: Someone) -> None:
    reader = someone()
    assert program.post("/consents", consent(reader)).status == 201
    assert program.post("/consents", consent(reader, answer="no")).status == 201
    assert [one["type"] for one in house.json("consent", "show", reader)] == ["EXPRESS_OPT_IN", "CONSENT_REFUSED"]
    assert house.outcome(reader) == "no-consent"
    assert program.post("/consents", consent(reader, at=now())).status == 201
    assert program.post("/consents", consent(reader, answer="no", at=now(minutes=-30))).status == 201
    assert house.outcome(reader) == "sent", "what is told late ends nothing that came after it"


@pytest.mark.req("POL-14")
def test_where_an_address_was_seen_adds_rules_and_loosens_none(
    house: Gateway, program: Program, someone: Someone
) -> None:
    seen, german = someone(), someone()
    for reader, places in ((seen, {"seen_in": "DE"}), (german, {"country": "DE", "seen_in": "US"})):
        assert program.post("/consents", consent(reader, **places)).status == 201
        assert house.outcome(reader) == "no-consent", "an opt-in that nobody has confirmed is none in Germany"
    told = house.json("person", "export", seen)["countries"]
    assert [(one["country"], one["source"]) for one in told] == [("DE", "ip")]
    house.run("consent", "record", reader := someone(), "--topic", TOPIC, "--basis", "express", "--seen-in", "DE")
    assert house.outcome(reader) == "no-consent"


@pytest.mark.req("POL-14")
@pytest.mark.parametrize("field", ["country", "seen_in"])
def test_where_somebody_was_once_is_no_news_because_it_is_told_late(
    house: Gateway, program: Program, someone: Someone, field: str
) -> None:
    reader = someone()
    for at, country in ((now(hours=-1), "DE"), (now(days=-900), "US")):
        assert program.post("/consents", consent(reader, at=at, **{field: country})).status == 201
        assert house.outcome(reader) == "no-consent", "an opt-in that nobody has confirmed is none in Germany"
    assert program.post("/consents", consent(reader, at=now(), **{field: "US"})).status == 201
    assert house.outcome(reader) == "sent"


@pytest.mark.req("POL-14")
@pytest.mark.parametrize("code", ["UK", "EL", "EU", "ZZ", "de"])
def test_a_code_that_is_no_countrys_puts_nobody_under_no_rules(program: Program, someone: Someone, code: str) -> None:
    for field in ("country", "seen_in"):
        assert fields_of(program.post("/consents", consent(someone(), **{field: code}))) == {field}


@pytest.mark.req("CON-12", "POL-30")
def test_an_older_yes_that_is_told_late_does_not_end_a_newer_no(
    house: Gateway, program: Program, someone: Someone
) -> None:
    refused, closed = people = (someone(), someone())
    assert program.post("/consents", consent(refused, answer="no", at=now(minutes=-30))).status == 201
    house.run("customers", "add", closed, "--product", "editor")
    house.run("customers", "remove", closed, "--account-closed")
    for late in (now(hours=-1), now(minutes=-30, days=-3)):
        for reader in people:
            assert program.post("/consents", consent(reader, at=late)).status == 201
            assert house.outcome(reader) == "no-consent"
    asked = json.loads(program.post("/people/lookup", {"address": refused}).text)
    assert [*asked["do_not_ask"]] == [TOPIC]
    for reader in people:
        later = now(seconds=1)  # whole seconds: this one may have been that of the closing
        assert program.post("/consents", consent(reader, at=later)).status == 201
        assert house.outcome(reader) == "sent", "who has thought better of it since is heard"
    assert house.run("ledger", "verify").returncode == 0


def test_the_same_request_twice_has_one_effect(house: Gateway, program: Program, someone: Someone) -> None:
    reader, told = someone(), {"Idempotency-Key": f"key of {someone()}"}
    document = consent(reader)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: program.post("/consents", document, **told), range(8)))
    assert {one.status for one in answers} == {201}
    assert len({one.text for one in answers}) == 1
    assert len(house.json("consent", "show", reader)) == 1
    assert program.post("/consents", consent(someone()), **told).status == 422, "the key with another request"
    assert len(house.json("consent", "show", reader)) == 1


@pytest.mark.req("DSR-04", "SUP-09")
def test_a_key_that_holds_an_address_is_forgotten_with_it(house: Gateway, program: Program, someone: Someone) -> None:
    reader = f"keyed-{someone()}"
    told = {"Idempotency-Key": f"unsubscribe {reader}"}
    first, again = (program.post("/withdrawals", {"address": reader}, **told) for _ in range(2))
    assert (first.status, first.text) == (again.status, again.text) == (201, first.text)
    house.run("person", "erase", reader)
    stored = b"".join(one.read_bytes() for one in (house.folder / "var").rglob("*") if one.is_file())
    asked = json.dumps({"address": reader}).encode()
    assert reader.encode() not in stored
    assert hashlib.sha256(b"/api/v1/withdrawals\n" + asked).digest() not in stored, "whoever guesses finds it"


def test_who_may_do_what(house: Gateway, program: Program, someone: Someone) -> None:
    reader = made(house, "dashboard", "read")
    refused = reader.post("/withdrawals", {"address": someone()})
    assert refused.status == 403 and "record" in refused.headers["WWW-Authenticate"]
    for stranger in (Program(house, "assent_guessed"), Program(house, "")):
        answer = stranger.call("GET", "/events")
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Bearer")
    gone = made(house, "gone", "read")
    assert gone.get("/events")["events"]
    house.run("tokens", "revoke", "gone")
    assert gone.call("GET", "/events").status == 401
    assert made(house, "old", "read", "--expires", "2026-01-01").call("GET", "/events").status == 401
    listed = house.run("tokens", "list").stdout
    assert "dashboard" in listed and program.token not in listed
    stored = b"".join(one.read_bytes() for one in house.folder.rglob("*") if one.is_file())
    assert program.token.encode() not in stored


@pytest.mark.req("WEB-17", "WEB-18")
def test_the_public_site_knows_no_api_and_readiness_shows_no_counts(house: Gateway, program: Program) -> None:
    for path in ("/api/v1/events", "/api/v1/openapi.json", "/metrics", "/readyz"):
        assert house.get(path, Authorization=f"Bearer {program.token}").status == 404
    ready = fetch(f"http://127.0.0.1:{house.console}/readyz")
    assert (ready.status, ready.text) == (200, "ready\n")


def metrics(house: Gateway) -> str:
    return fetch(f"http://127.0.0.1:{house.console}/metrics").text


def opt_outs_counted(house: Gateway) -> int:
    return int(re.findall(r"(?m)^assent_unsubscribes_total (\d+)$", metrics(house))[0])


@pytest.mark.req("OPS-09")
def test_each_no_is_counted_however_it_comes_and_a_scrape_names_nobody(
    house: Gateway, shared_sink: Sink, program: Program, someone: Someone
) -> None:
    reader, before = someone(), opt_outs_counted(house)
    house.opt_in(reader)
    shared_sink.clear()
    assert house.outcome(reader) == "sent"
    copy = shared_sink.wait_for(1)[0].content
    (mailbox,) = re.findall(rb"<mailto:([^?>]+)", b"".join(field_of(copy, "List-Unsubscribe")))
    with smtplib.SMTP("127.0.0.1", house.feedback, timeout=20) as client:
        client.sendmail(reader, mailbox.decode(), f"From: {reader}\r\nSubject: unsubscribe\r\n\r\n")
    assert opt_outs_counted(house) == before + 1, "by mail"
    assert house.one_click(token_of(copy)).status == 200
    assert opt_outs_counted(house) == before + 2, "by one click"
    assert program.post("/withdrawals", {"address": reader}).status == 201
    assert opt_outs_counted(house) == before + 3, "by the API"
    assert house.outcome(reader) == "unsubscribed"
    scraped = metrics(house)
    for secret in (reader, reader.partition("@")[0], token_of(copy), mailbox.decode().partition("@")[0], program.token):
        assert secret not in scraped
    assert "@" not in scraped


def test_verdicts_are_those_of_the_door(house: Gateway, program: Program, someone: Someone) -> None:
    yes, no, stranger = someone(), someone(), someone()
    house.opt_in(yes, no)
    house.run("suppressions", "add", no, "--scope", "all-marketing", "--reason", "objected")
    for asked in ({"topic": TOPIC}, {"stream": "newsletter"}, {"stream": "newsletter", "topic": TOPIC}):
        answer = program.post("/check", {**asked, "addresses": [yes, no, stranger]})
        verdicts = json.loads(answer.text)["verdicts"]
        assert [one["reason"] or one["action"] for one in verdicts] == ["send", "objected", "no-consent"]
    assert (
        json.loads(program.post("/check", {"stream": "billing", "addresses": [no]}).text)["verdicts"][0]["action"]
        == "send"
    )
    house.run("customers", "add", yes, "--product", "Editor")
    house.publish_policy("2026-7")
    for asked in ({"stream": "updates", "product": "Editor"}, {"stream": "notices", "policy_version": "2026-7"}):
        answer = program.post("/check", {**asked, "addresses": [yes]})
        assert json.loads(answer.text)["verdicts"][0]["action"] == "send"
    assert fields_of(program.post("/check", {"stream": "updates", "addresses": [yes]})) == {"product"}
    for version in ("", "2026-8"):
        asked = {"stream": "notices", "policy_version": version, "addresses": [yes]}
        assert fields_of(program.post("/check", asked)) == {"policy_version"}
    assert fields_of(program.post("/check", {"topic": TOPIC, "addresses": [yes] * 1001})) == {"addresses"}
    assert fields_of(program.post("/check", {"addresses": [yes]})) == {"topic"}


def test_a_person_is_looked_up_by_post(program: Program, someone: Someone) -> None:
    reader = someone()
    program.post("/consents", consent(reader, country="DE"))
    program.post("/customers", {"address": reader, "products": ["Editor", "Hosting"], "ended": ["hosting"]})
    person = json.loads(program.post("/people/lookup", {"address": reader.upper()}).text)
    assert person["countries"] == ["DE"] and person["products"] == ["editor"]
    assert [one["basis"] for one in person["permissions"]] == ["express"]
    assert [one["type"] for one in person["history"]][:2] == ["EXPRESS_OPT_IN", "PLACE_LEARNED"]
    unknown = json.loads(program.post("/people/lookup", {"address": someone()}).text)
    assert unknown["person"] is None and unknown["history"] == []


@pytest.mark.req("SUP-12")
def test_suppressions_come_page_by_page_and_are_lifted_with_a_reason(
    house: Gateway, program: Program, someone: Someone
) -> None:
    people = [someone() for _ in range(7)]
    for one in people:
        assert program.post("/suppressions", {"address": one, "reason": "objected"}).status == 201
    seen, cursor = list[str](), ""
    while cursor is not None:
        page = program.get("/suppressions", limit="3", **({"cursor": cursor} if cursor else {}))
        seen += [one["address"] for one in page["suppressions"] if one["address"] in people]
        cursor = page["next"]
    assert sorted(seen) == sorted(people)
    lift = {"address": people[0], "scope": "all-marketing", "why": "a slip of the pen"}
    key = {"Idempotency-Key": f"lift {someone()}"}
    assert program.post("/suppressions/remove", lift, **key).status == 201
    assert program.post("/suppressions/remove", lift, **key).status == 201, "the same request again"
    assert program.post("/suppressions/remove", lift).status == 404, "nothing to lift"
    assert fields_of(program.post("/suppressions/remove", {**lift, "why": "he@example.org asked"})) == {"why"}
    assert house.run("suppressions", "check", people[0], check=False).returncode == 1


def test_events_can_be_followed_from_where_one_was(program: Program, someone: Someone) -> None:
    last = program.get("/events", limit="1000")
    while len(last["events"]) == 1000:
        last = program.get("/events", limit="1000", cursor=last["next"])
    assert program.get("/events", cursor=last["next"]) == {"events": [], "next": last["next"]}
    program.post("/consents", consent(someone()))
    (entry,) = program.get("/events", cursor=last["next"])["events"]
    assert entry["type"] == "EXPRESS_OPT_IN"


def test_a_decision_is_explained(house: Gateway, program: Program, someone: Someone) -> None:
    with house.smtp("news") as client:
        client.mail("letters@news.example.com")
        _, text = client.rcpt(someone())
    decision = text.decode().split("(decision ")[1].split(",")[0]
    from tests.gateway_under_test import eventually

    answer = eventually(lambda: [one for one in [program.call("GET", f"/decisions/{decision}")] if one.status == 200])[
        0
    ]
    assert json.loads(answer.text)["lines"][0]["reason"] == "no-consent"
    assert program.call("GET", "/decisions/01ARZ3NDEKTSV4RRFFQ69G5FAV").status == 404
    assert program.call("GET", "/decisions/nonsense").status == 404


def test_a_program_that_goes_in_the_middle_of_a_body_is_no_surprise(house: Gateway, program: Program) -> None:
    head = f"POST /api/v1/customers HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {program.token}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    begin = len(house.log.read_text())
    with socket.create_connection(("127.0.0.1", house.console)) as connection:
        connection.sendall(head.encode())
    told = eventually(
        lambda: re.findall(r".*\bPOST /api/v1/customers [45].*|.* ERROR .*", house.log.read_text()[begin:])
    )
    assert len(told) == 1 and " 400 " in told[0]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/consents", b"{", {}, 400),
        ("POST", "/consents", b"\xff\xfe", {}, 400),
        ("POST", "/consents", b"[" * 100_000, {}, 400),
        ("POST", "/consents", '{"address": "a@example.org"}'.encode("utf-16"), {}, 400),
        ("POST", "/consents", b'{"address": "\\ud800"}', {}, 400),
        ("POST", "/consents", b"[]", {}, 422),
        ("POST", "/consents", b"{}", {"Content-Type": "text/plain"}, 415),
        ("POST", "/consents", b"{}", {"Content-Encoding": "gzip"}, 415),
        ("POST", "/consents", b" " * 2_000_000, {}, 413),
        ("DELETE", "/consents", None, {}, 405),
        ("GET", "/nothing", None, {}, 404),
        ("GET", "/suppressions?cursor=zz", None, {}, 422),
        ("GET", "/suppressions?cursor=17", None, {}, 422),  # that of a page of events
        ("GET", "/suppressions?scope=topic", None, {}, 422),
        ("GET", "/events?limit=0", None, {}, 422),
        ("GET", "/events?limit=00000000199999", None, {}, 422),
        ("GET", "/events?cursor=%D9%A1", None, {}, 422),
        ("POST", "/withdrawals", b'{"address": "a@example.org", "scope": "topic"}', {}, 422),
        ("POST", "/withdrawals", b"{}", {"Idempotency-Key": "x" * 300}, 400),
    ],
)
def test_every_failure_is_a_problem_document(
    program: Program, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    answer = program.call(method, path, body, **headers)
    assert answer.status == status
    problem = json.loads(answer.text)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert problem["status"] == status and problem["title"]


@pytest.mark.req("CON-09")
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "1989-12-31T23:59:59Z", "2099-01-01T00:00:00Z"])
def test_nobody_has_said_no_before_there_was_mail_or_in_the_future(program: Program, someone: Someone, at: str) -> None:
    """A default value of a programming language that was taken would be outlived by every opt-in."""
    for path in ("/withdrawals", "/suppressions"):
        assert fields_of(program.post(path, {"address": someone(), "at": at})) == {"at"}


@pytest.mark.req("WEB-07")
@pytest.mark.parametrize("path", ["/suppressions", "/events", "/openapi.json", "/nothing", "/people/lookup"])
def test_no_answer_may_be_kept_by_a_cache_or_tells_what_it_was_made_with(program: Program, path: str) -> None:
    answer = program.call("GET", path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "Assent"


def test_the_log_names_the_route_and_no_address(house: Gateway, program: Program, someone: Someone) -> None:
    reader = someone()
    program.post("/consents", consent(reader))
    program.post("/people/lookup", {"address": reader})
    program.call("GET", "/decisions/01J00000000000000000000000")
    log = house.log.read_text()
    assert reader not in log
    for told in ("POST /api/v1/consents 201 ", "POST /api/v1/people/lookup 200 ", "GET /api/v1/decisions/{id} 404 "):
        assert told in log


def test_the_program_answers_as_its_own_description_says(house: Gateway, program: Program) -> None:
    """Schemathesis makes requests from openapi.json, right and wrong ones, and holds the answers against it."""
    described = f"{program.base}/openapi.json"
    assert json.loads(fetch(described).text)["openapi"] == "3.1.0"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", described, "--no-color", "--max-examples", "15"),
            *("-H", f"Authorization: Bearer {program.token}", "--seed", "1", "--phases", "examples,coverage,fuzzing"),
            *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
            *("--checks", "response_schema_conformance,negative_data_rejection,ignored_auth,unsupported_method"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=house.folder,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
