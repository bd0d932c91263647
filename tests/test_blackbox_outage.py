"""What people and tools are told while the people store is away, and that nothing they were told is taken back.

The store is away in two ways: somebody else holds it (it can be read, not written), and its file has gone (neither).
The judge stands outside: replies, pages, what a strict sink received, and what `assent explain` says afterwards.
"""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, field_of, invoice, newsletter, token_of
from tests.sink import Received, Sink

WAITING = "451 4.3.0"
STOPPED = "550 5.7.1 unsubscribed:"
LOOK_SECONDS = 1
"""How often at most a worker looks whether the file is still there."""

CLICK_SECONDS = 2 + 3
"""How long a click waits for the store, and some seconds for a slow machine."""

STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    return_paths = ["*@bounces.news.example.com"]
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    [streams.updates]
    class = "product"
    from = ["updates@example.com"]
    [streams.answers]
    class = "requested"
    from = ["answers@example.com"]
    [streams.policy]
    class = "policy-notice"
    from = ["policy@example.com"]
    [streams.breach]
    class = "breach-notice"
    from = ["breach@example.com"]
    """
ESSENTIAL = ["billing", "answers", "policy", "breach"]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose store these tests may take away, with a login for each class."""
    folder = tmp_path_factory.mktemp("outage") / "house"
    running = Gateway(folder, shared_sink.url, sections={"streams": STREAMS}, workers=2).prepare()
    for stream in ("updates", "answers", "policy", "breach"):
        running.add_login(stream, stream)
    running.publish_policy("2026-1")
    yield running.start()
    running.close()


def database(gateway: Gateway) -> Path:
    return gateway.folder / "var" / "assent.db"


def journal(gateway: Gateway) -> Path:
    return gateway.folder / "var" / "journal.jsonl"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a database as another process would that has begun to write and does not end."""
    with closing(sqlite.connect(str(path), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def gone(path: Path) -> Iterator[None]:
    """Take the database's name away, as an unmounted volume would, until every worker's next look finds it gone."""
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Put a folder where the file is: even root cannot write to it."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        aside.rename(path)


def answer(gateway: Gateway, message: bytes, reader: str, *, login: str = "news", sender: str = "") -> str:
    """Submit to one reader and return whichever reply ended it."""
    sender = sender or {"news": "letters@news.example.com"}.get(login, "bounces@example.com")
    replies = gateway.submit(message, [reader], login=login, sender=sender)
    (code, text) = replies.get(reader) or replies.get("MAIL") or replies[""]
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


def promotion(gateway: Gateway, reader: str) -> str:
    return answer(gateway, newsletter(reader), reader)


def token_for(gateway: Gateway, sink: Sink, reader: str) -> str:
    """Opt a reader in and return the token of a newsletter that was really relayed; the sink forgets it."""
    gateway.opt_in(reader)
    assert promotion(gateway, reader).startswith("250")
    (message,) = received_by(sink, reader)
    sink.clear()
    return token_of(message.content)


def received_by(sink: Sink, *readers: str, seconds: float = 30) -> list[Received]:
    """Return the messages that these readers got, once there is one; other tests' late copies are not looked at."""
    return eventually(lambda: [one for one in sink.messages if set(one.recipients) & set(readers)], seconds)


def wait_until_promotion_moves(gateway: Gateway, reader: str) -> None:
    eventually(lambda: promotion(gateway, reader).startswith("250"), 30)


@pytest.mark.req("UNS-23")
def test_a_click_is_kept_while_the_store_is_held_and_stops_promotion_at_once(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    leaving, staying = someone(), someone()
    token = token_for(house, sink, leaving)
    house.opt_in(staying)
    with held(database(house)):
        began = time.monotonic()
        assert house.one_click(token).status == 200
        assert time.monotonic() - began < CLICK_SECONDS
        assert promotion(house, leaving).startswith(WAITING)
        assert promotion(house, staying).startswith(WAITING)
        assert answer(house, invoice(leaving), leaving, login="shop").startswith("250")
        assert received_by(sink, leaving)
    wait_until_promotion_moves(house, staying)
    assert promotion(house, leaving).startswith(STOPPED)
    assert journal(house).stat().st_size == 0


@pytest.mark.req("UNS-23")
def test_the_page_says_done_while_the_store_has_gone(house: Gateway, sink: Sink, someone: Callable[[], str]) -> None:
    leaving, staying = someone(), someone()
    token = token_for(house, sink, leaving)
    house.opt_in(staying)
    with gone(database(house)):
        page = house.post(f"/u/{token}", b"scope=topic")
        assert (page.status, "has not been recorded" in page.text) == (200, False)
        assert house.get(f"/u/{token}").status == 200
    wait_until_promotion_moves(house, staying)
    assert promotion(house, leaving).startswith(STOPPED)


@pytest.mark.req("UNS-23")
def test_a_click_that_can_be_kept_nowhere_is_answered_503(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    staying = someone()
    token = token_for(house, sink, staying)
    with gone(database(house)), unwritable(journal(house)):
        refused = house.one_click(token)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
    wait_until_promotion_moves(house, staying)


@pytest.mark.req("UNS-23", "OUT-02")
def test_promotion_that_is_queued_waits_until_the_store_knows_every_opt_out(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    leaving, staying, customer = someone(), someone(), someone()
    token = token_for(house, sink, leaving)
    house.opt_in(staying)
    sink.hold()
    for reader in (leaving, staying):
        assert promotion(house, reader).startswith("250")
        eventually(lambda reader=reader: reader in [recipient for _, recipient in sink.attempts])
    with held(database(house)):
        assert house.one_click(token).status == 200
        assert answer(house, invoice(customer), customer, login="shop", sender="billing@example.com").startswith("250")
        eventually(lambda: customer in [recipient for _, recipient in sink.attempts])
        sink.release()
        assert received_by(sink, customer), "which was put off later, and is claimed with what is due"
        got = [one for one in sink.messages if {leaving, staying} & set(one.recipients)]
        assert not got, "promotion left while an opt-out was known to the journal only"
    assert received_by(sink, staying)
    eventually(lambda: house.json("queue", "list") == [], 30)
    assert [one.recipients for one in received_by(sink, leaving, staying)] == [(staying,)]


@pytest.mark.req("UNS-23", "OUT-01")
def test_a_click_in_the_journal_outlives_a_kill_and_counts_before_anybody_is_served(
    make_gateway: MakeGateway, sink: Sink, someone: Callable[[], str]
) -> None:
    gateway = make_gateway().start()
    leaving = someone()
    token = token_for(gateway, sink, leaving)
    with held(database(gateway)):
        assert gateway.one_click(token).status == 200
        gateway.kill()
        gateway.start(wait=False)
        eventually(lambda: "no listener opens before the people store has" in gateway.log.read_text(), 30)
        with pytest.raises(OSError):
            gateway.smtp()
    eventually(gateway.is_ready, 30)
    assert promotion(gateway, leaving).startswith(STOPPED)
    assert [one["type"] for one in gateway.json("consent", "show", leaving)] == ["EXPRESS_OPT_IN", "UNSUBSCRIBE"]


@pytest.mark.req("SMTP-22")
def test_essential_mail_is_accepted_and_relayed_without_the_store_and_promotion_waits(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    reader = someone()
    house.opt_in(reader)
    with gone(database(house)):
        eventually(lambda: promotion(house, reader).startswith(WAITING))
        told = eventually(lambda: (status := house.json("status"))["troubles"] and status)
        assert (told["suppressed_people"], told["logins"]) == (None, 6)
        assert any("people store" in one for one in told["troubles"])
        assert house.run("consent", "show", reader, check=False).returncode == 75
        product = invoice(reader).replace(b"billing@", b"updates@")
        assert answer(house, product, reader, login="updates").startswith(WAITING)
        for login in ESSENTIAL:
            message = b"Assent-Policy-Version: 2026-1\r\n" + invoice(reader).replace(b"billing@", f"{login}@".encode())
            assert answer(house, message, reader, login="shop" if login == "billing" else login).startswith("250")
        expected = {f"From: Billing <{login}@example.com>\r\n".encode() for login in ESSENTIAL}
        eventually(lambda: expected <= {field_of(one.content, "From")[0] for one in received_by(sink, reader)})
        with pytest.raises(smtplib.SMTPAuthenticationError), smtplib.SMTP("127.0.0.1", house.submission) as client:
            client.login("shop", "not its password")
    wait_until_promotion_moves(house, reader)


@pytest.mark.req("SMTP-22")
def test_a_decision_without_the_store_says_so_and_is_completed_once(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    reader = someone()
    house.opt_in(reader)
    message = invoice(reader)
    with gone(database(house)):
        eventually(lambda: promotion(house, reader).startswith(WAITING))
        assert answer(house, message, reader, login="shop").startswith("250")
        assert received_by(sink, reader)
    told = eventually(lambda: completed(house, message_id_of(message), reader), 90)
    assert sorted(line["kind"] for line in told) == ["attempt", "door", "person"]
    by_kind = {line["kind"]: line for line in told}
    assert [by_kind[kind]["people"] for kind in ("attempt", "door")] == ["away", "away"]
    known = invoice(reader)
    assert answer(house, known, reader, login="shop").startswith("250")
    (usual,) = eventually(lambda: explained(house, message_id_of(known), reader))[:1]
    assert by_kind["person"]["who"] == usual["who"] != by_kind["door"]["who"]
    assert "people" not in usual
    assert explained(house, message_id_of(message), reader) == told, "something was written twice"
    assert house.run("ledger", "verify", "--anchor", "var/anchor.jsonl").returncode == 0


def message_id_of(message: bytes) -> str:
    found = re.search(rb"(?m)^Message-ID: (\S+)", message)
    assert found
    return found[1].decode()


def explained(gateway: Gateway, message_id: str, reader: str) -> list[dict[str, str]]:
    done = gateway.run("--json", "explain", message_id, reader, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else []


def completed(gateway: Gateway, message_id: str, reader: str) -> list[dict[str, str]]:
    lines = explained(gateway, message_id, reader)
    return lines if "person" in {line["kind"] for line in lines} else []


@pytest.mark.req("SMTP-22")
def test_a_worker_that_is_started_again_without_the_store_takes_essential_mail(
    make_gateway: MakeGateway, sink: Sink, someone: Callable[[], str]
) -> None:
    gateway = make_gateway().start()
    reader = someone()
    with gone(database(gateway)):
        for pid in gateway.children():
            os.kill(pid, signal.SIGKILL)
        eventually(gateway.is_ready, 30)
        assert answer(gateway, invoice(reader), reader, login="shop").startswith("250")
        assert received_by(sink, reader)
        assert promotion(gateway, reader).startswith(WAITING)
    eventually(lambda: promotion(gateway, reader).startswith("550 5.7.1 no-consent:"), 30)


@pytest.mark.req("UNS-23", "FBL-07")
def test_a_mail_to_the_unsubscribe_address_is_kept_too_or_refused_for_now(
    house: Gateway, sink: Sink, someone: Callable[[], str]
) -> None:
    leaving, staying = someone(), someone()
    token = token_for(house, sink, leaving)
    house.opt_in(staying)
    with gone(database(house)):
        with unwritable(journal(house)):
            assert unsubscribe_by_mail(house, token)[0] == 451
        assert unsubscribe_by_mail(house, token)[0] == 250
        assert journal(house).stat().st_size > 0
    wait_until_promotion_moves(house, staying)
    assert promotion(house, leaving).startswith(STOPPED)


def unsubscribe_by_mail(gateway: Gateway, token: str) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", gateway.feedback, timeout=30) as client:
        client.ehlo()
        client.mail("reader@example.org")
        client.rcpt("unsubscribe@bounce.example.com")
        return client.data(f"From: reader@example.org\r\nSubject: {token}\r\n\r\n".encode())
