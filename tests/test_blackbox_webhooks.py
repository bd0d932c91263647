"""What programs are told, from outside: a receiving HTTP server; the official library judges the signatures."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from standardwebhooks import Webhook, WebhookVerificationError

from tests import anymail_judge
from tests.conftest import MakeGateway
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, invoice, newsletter
from tests.receiver import Receiver, Told, receiving
from tests.sink import Certificate, Sink, make_certificate

Someone = Callable[[], str]
SECRET = f"whsec_{base64.b64encode(os.urandom(32)).decode()}"
ALL_EVENTS = [
    *("recipient.unsubscribed", "recipient.subscribed", "recipient.complained", "recipient.bounced"),
    *("recipient.erased", "message.refused", "message.relayed", "message.failed", "stream.paused"),
]
VENDORS = {
    "sendgrid": ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode(),
    "mailgun": "0123456789abcdef0123456789abcdef",
    "postmark": "assent:correct horse",
    "ses": "assent:correct horse",
}


def webhook(name: str, url: str, *more: str, events: list[str] | None = None) -> str:
    """Return the section of an endpoint, whose secret is in NAME.secret."""
    chosen = [f"events = {events}"] if events else []
    retry = [] if any(one.startswith("retry") for one in more) else ['retry = ["1s", "1s", "2s"]']
    lines = [f"[webhooks.{name}]", f'url = "{url}"', f'secret_file = "{name}.secret"', *chosen, *retry, *more]
    return "\n".join(lines).replace("'", '"')


def put_secret(house: Gateway, name: str, secret: str = SECRET) -> None:
    house.folder.mkdir(parents=True, exist_ok=True)
    path = house.folder / f"{name}.secret"
    path.write_text(secret)
    path.chmod(0o600)


@pytest.fixture(scope="module")
def crm() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("inside"), "localhost")


@pytest.fixture(scope="module")
def inside(certificate: Certificate) -> Iterator[Receiver]:
    """An endpoint whose certificate only its own authority vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with receiving(tls=context) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def house(
    crm: Receiver,
    inside: Receiver,
    certificate: Certificate,
    shared_sink: Sink,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """One gateway whose endpoints hear everything, each in another shape; one only of the stream `offers`."""
    texts = [
        webhook("crm", f"{crm.url}/crm", events=ALL_EVENTS),
        webhook("offers", f"{crm.url}/offers", 'streams = ["offers"]', events=ALL_EVENTS),
        *(webhook(one, f"{crm.url}/{one}", f'format = "{one}"', events=ALL_EVENTS) for one in VENDORS),
        webhook("inside", f"https://localhost:{inside.port}/", 'tls_authorities = "inside.pem"'),
    ]
    sections = {"webhooks": "\n".join(texts)}
    made = Gateway(tmp_path_factory.mktemp("webhooks") / "house", shared_sink.url, sections=sections)
    for name in ("crm", "offers", "inside"):
        put_secret(made, name)
    (made.folder / "inside.pem").write_bytes(certificate.certificate.read_bytes())
    for name, secret in VENDORS.items():
        put_secret(made, name, secret)
    made.prepare().add_login("deals", "offers")
    yield made.start()
    made.close()


@pytest.fixture
def told(crm: Receiver) -> Iterator[Receiver]:
    crm.normal()
    crm.told.clear()
    yield crm
    crm.normal()


def on(path: str, receiver: Receiver) -> Receiver:
    """Return what came in at one path."""
    return Receiver(receiver.port, told=[one for one in receiver.told if one.path == path])


def reached(sink: Sink, address: str) -> bool:
    return any(f"<{address}>" in one.recipients or address in one.recipients for one in sink.messages)


def withdraw(house: Gateway, address: str, scope: str = "all-marketing", *more: str) -> None:
    house.run("suppressions", "add", address, "--scope", scope, "--reason", "unsubscribed", *more)


def test_what_a_person_says_is_told_and_the_official_library_takes_the_signature(
    house: Gateway, told: Receiver, inside: Receiver, someone: Someone
) -> None:
    reader = someone()
    house.opt_in(reader)
    eventually(lambda: on("/crm", told).of("recipient.subscribed", reader))
    withdraw(house, reader)
    eventually(lambda: inside.of("recipient.unsubscribed", reader))
    (heard,) = eventually(lambda: on("/crm", told).of("recipient.unsubscribed", reader))
    assert heard["data"]["scope"] == "all-marketing" and heard["data"]["reason"] in ("unsubscribed", "objected")
    assert heard["timestamp"].endswith("Z")
    raw = next(one for one in told.told if one.json == heard)
    assert Webhook(SECRET).verify(raw.body, raw.headers) == heard
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(raw.body + b" ", raw.headers)
    assert raw.headers["user-agent"].startswith("Assent/") and raw.headers["content-type"] == "application/json"


def test_a_tool_hears_of_it_in_its_own_vendors_words(house: Gateway, told: Receiver, someone: Someone) -> None:
    reader, stranger = someone(), someone()
    house.run("suppressions", "add", reader, "--scope", "all-marketing", "--reason", "complained")
    assert house.submit(newsletter(stranger), [stranger])[stranger][0] == 550

    def seen(shape: str) -> set[tuple[str, str]]:
        events = [
            event
            for one in on(f"/{shape}", told).taken
            for event in anymail_judge.events_of(shape, VENDORS[shape], one.body, one.headers)
        ]
        return {(event.event_type, event.recipient) for event in events}

    for shape in VENDORS:
        dropped = "failed" if shape == "postmark" else "rejected"
        eventually(lambda shape=shape, dropped=dropped: seen(shape) >= {("complained", reader), (dropped, stranger)})


@pytest.mark.req("SMTP-32")
def test_what_becomes_of_messages_is_told_with_the_decision_that_explain_knows(
    house: Gateway, told: Receiver, sink: Sink, someone: Someone
) -> None:
    reader, stranger, customer, broken, misled = someone(), someone(), someone(), someone(), someone()
    house.opt_in(reader, misled)
    assert house.submit(newsletter(reader), [reader])[""][0] == 250
    assert house.submit(newsletter(stranger), [stranger])[stranger][0] == 550
    assert house.submit(newsletter(misled, subject="Re: your order"), [misled])[""][0] == 550
    assert house.submit(invoice(customer), [customer], login="shop", sender="billing@example.com")[""][0] == 250
    sink.on("RCPT", "550 5.1.1 no such mailbox", containing=broken)
    assert house.submit(invoice(broken), [broken], login="shop", sender="billing@example.com")[""][0] == 250
    here = lambda kind, address: on("/crm", told).of(kind, address)  # noqa: E731
    (relayed,) = eventually(lambda: here("message.relayed", reader))
    (refused,) = eventually(lambda: here("message.refused", stranger))
    (whole,) = eventually(lambda: here("message.refused", misled))
    eventually(lambda: here("message.relayed", customer))
    (failed,) = eventually(lambda: here("message.failed", broken))
    assert (relayed["data"]["login"], relayed["data"]["stream"], relayed["data"]["topic"]) == (
        *("news", "newsletter"),
        TOPIC,
    )
    assert (refused["data"]["reason"], whole["data"]["reason"]) == ("no-consent", "content")
    assert "no such mailbox" in failed["data"]["reply"] and failed["data"]["outcome"] == "failed"
    explained = house.json("explain", refused["data"]["decision"])
    assert stranger not in str(explained) and "no-consent" in str(explained)
    heard_there = [one.json["data"].get("address") for one in on("/offers", told).told]
    assert not {stranger, customer, broken} & {*heard_there}, "the other endpoint hears of no other stream"


def test_an_endpoint_for_one_sender_hears_of_that_ones_topics_only(
    house: Gateway, told: Receiver, sink: Sink, someone: Someone
) -> None:
    reader, other = someone(), someone()
    house.opt_in(reader, topic="special-offers")
    house.opt_in(other)
    sender = "deals@offers.example.com"
    submitted = house.submit(newsletter(reader, sender=sender), [reader], login="deals", sender=sender)
    assert submitted[""][0] == 250
    house.run("streams", "pause", "offers", "--why", "a mistake in the list")
    try:
        eventually(lambda: on("/offers", told).of("stream.paused"))
        eventually(lambda: on("/offers", told).of("message.relayed", reader))
        withdraw(house, other, "all-marketing")
        eventually(lambda: on("/offers", told).of("recipient.unsubscribed", other))
        about = [raw.json for raw in on("/offers", told).told]
        kinds = {one["type"] for one in about if one["data"].get("address") in (reader, other)}
        assert kinds == {"recipient.subscribed", "message.relayed", "recipient.unsubscribed"}
        assert on("/offers", told).of("recipient.subscribed", other) == [], "that is another stream's topic"
        assert eventually(lambda: on("/crm", told).of("stream.paused"))[0]["data"]["why"] == "a mistake in the list"
    finally:
        house.run("streams", "release", "offers")


@pytest.mark.req("DSR-06")
def test_processors_are_told_of_an_erasure_until_they_have_taken_it_and_then_nobody_is_named(
    house: Gateway, told: Receiver, someone: Someone
) -> None:
    reader = someone()
    house.opt_in(reader)
    eventually(lambda: on("/crm", told).of("recipient.subscribed", reader))
    refusals = count()
    told.answer = lambda path, body: 500 if b"recipient.erased" in body and next(refusals) < 3 else 204
    erased = house.run("person", "erase", reader, check=False)
    assert erased.returncode in (0, 75), erased.stderr
    (heard,) = eventually(lambda: on("/crm", told).of("recipient.erased", reader))
    assert heard["data"]["reason"] == "erased"
    tries = [one for one in told.told if b"recipient.erased" in one.body and one.path == "/crm"]
    assert 500 in {one.status for one in told.told}
    assert len({one.headers["webhook-id"] for one in tries}) == 1, "it is the same event each time"
    eventually(lambda: house.run("person", "erase", reader, check=False).returncode == 0, 90)


@pytest.mark.req("DSR-06")
def test_an_objection_is_told_until_it_is_taken_and_later_events_of_that_person_wait_for_it(
    house: Gateway, told: Receiver, someone: Someone
) -> None:
    reader, other = someone(), someone()
    refusals = count()
    told.answer = lambda path, body: 503 if reader.encode() in body and next(refusals) < 4 else 204
    withdraw(house, reader, "topic", "--topic", TOPIC)
    withdraw(house, reader, "all-marketing")
    withdraw(house, other, "all-marketing")
    eventually(lambda: len(on("/crm", told).of("recipient.unsubscribed", reader)) == 2)
    eventually(lambda: on("/crm", told).of("recipient.unsubscribed", other))
    scopes = [one["data"]["scope"] for one in on("/crm", told).of("recipient.unsubscribed", reader)]
    assert scopes == ["topic", "all-marketing"]


def test_an_operator_tries_an_endpoint_out_and_makes_secrets(house: Gateway, told: Receiver) -> None:
    assert house.json("webhooks", "test", "crm", "--event", "message.failed")["status"] == 204
    (tried,) = on("/crm", told).of("message.failed", "nobody@example.invalid")
    assert tried["data"]["test"] is True
    told.answer = lambda path, body: 503
    refused = house.run("--json", "webhooks", "test", "mailgun", check=False)
    assert refused.returncode == 1 and json.loads(refused.stdout)["answer"] == "answered 503"
    assert house.run("webhooks", "test", "nosuch", check=False).returncode == 1
    assert house.json("webhooks", "secret")["secret"].startswith("whsec_")
    assert "PRIVATE KEY" in house.json("webhooks", "secret", "--format", "sendgrid")["secret"]
    told.normal()


def test_a_secret_is_changed_without_a_gap(sink: Sink, tmp_path: Path, someone: Someone) -> None:
    following = f"whsec_{base64.b64encode(os.urandom(32)).decode()}"
    with receiving() as crm:
        house = Gateway(tmp_path / "house", sink.url, sections={"webhooks": webhook("crm", f"{crm.url}/")})
        put_secret(house, "crm")
        house.prepare().start()
        try:
            for secrets, signing in (((SECRET, following), (True, True)), ((following,), (False, True))):
                put_secret(house, "crm", "\n".join(secrets))
                reload(house)
                reader = someone()
                withdraw(house, reader)
                (raw,) = eventually(lambda who=reader: [one for one in crm.taken if who.encode() in one.body])
                assert (is_signed(raw, SECRET), is_signed(raw, following)) == signing
        finally:
            house.close()


def reload(house: Gateway) -> None:
    """Have the configuration read anew, and return when nobody is left who knew the old one."""
    assert house.process is not None
    before = set(house.children())
    house.process.send_signal(signal.SIGHUP)
    eventually(lambda: house.children() and not before & set(house.children()), 60)


def is_signed(raw: Told, secret: str) -> bool:
    try:
        return bool(Webhook(secret).verify(raw.body, raw.headers))
    except WebhookVerificationError:
        return False


def test_no_redirect_is_followed(house: Gateway, told: Receiver, someone: Someone) -> None:
    reader = someone()
    redirects = count()

    def answer(path: str, body: bytes) -> int:
        return 307 if reader.encode() in body and path == "/crm" and next(redirects) < 2 else 204

    told.headers = {"Location": f"{told.url}/elsewhere"}
    told.answer = answer
    withdraw(house, reader)
    eventually(lambda: on("/crm", told).of("recipient.unsubscribed", reader))
    assert [one for one in told.told if one.path == "/elsewhere"] == []
    assert 307 in {one.status for one in told.told}


@pytest.mark.parametrize(
    "asked", [lambda: "4", lambda: formatdate(time.time() + 5, usegmt=True)], ids=["seconds", "date"]
)
def test_nothing_is_told_again_sooner_than_the_endpoint_asks(
    house: Gateway, told: Receiver, someone: Someone, asked: Callable[[], str]
) -> None:
    reader = someone()
    refusals = count()

    def answer(path: str, body: bytes) -> int:
        is_refused = path == "/crm" and reader.encode() in body and next(refusals) == 0
        told.headers = {"Retry-After": asked()} if is_refused else {}
        return 503 if is_refused else 204

    told.answer = answer
    withdraw(house, reader)
    eventually(lambda: on("/crm", told).of("recipient.unsubscribed", reader))
    refused, taken = (one for one in on("/crm", told).told if reader.encode() in one.body)
    assert (refused.status, taken.status) == (503, 204) and taken.at - refused.at > 3.5


def test_a_dead_or_slow_endpoint_delays_neither_another_nor_mail_and_a_kill_loses_nothing(
    make_gateway: MakeGateway, sink: Sink, someone: Someone, tmp_path: Path
) -> None:
    released = threading.Event()
    with receiving() as slow, receiving() as well, receiving() as gone:
        slow.answer = lambda path, body: 204 if released.wait(60) else 500
        gone.answer = lambda path, body: 410
        urls = {"slow": slow.url, "well": well.url, "gone": gone.url, "dead": "http://127.0.0.1:1/"}
        for name in urls:
            put_secret(Gateway(tmp_path / "house0", sink.url), name)
        events = ["recipient.unsubscribed", "recipient.subscribed", "message.relayed"]
        sections = "\n".join(webhook(name, url, events=events) for name, url in urls.items())
        house = make_gateway({"webhooks": sections}).start()
        leaver, *joiners = (someone() for _ in range(5))
        withdraw(house, leaver)
        eventually(lambda: well.of("recipient.unsubscribed", leaver))
        eventually(lambda: "gone answered 410" in house.log.read_text())
        house.opt_in(*joiners)
        eventually(lambda: all(well.of("recipient.subscribed", one) for one in joiners))
        assert house.submit(invoice(leaver), [leaver], login="shop", sender="billing@example.com")[""][0] == 250
        eventually(lambda: reached(sink, leaver))
        eventually(lambda: well.of("message.relayed", leaver))
        assert slow.taken == []

        def listed() -> dict[str, Any]:
            return {one["name"]: one for one in house.json("webhooks", "list")}

        eventually(lambda: (listed()["well"]["waiting"], listed()["well"]["state"]) == (0, "up to date"))
        dead = eventually(lambda: one if (one := listed()["dead"])["last_answer"] else None)
        assert (dead["waiting"], dead["state"]) == (6, "behind") and "cannot be reached" in dead["last_answer"]
        assert listed()["gone"]["state"] == "disabled" and len(gone.told) == 1, "it is not asked again"
        told = house.json("status")
        assert {one["command"] for one in told["alarms"]} >= {"assent webhooks retry gone", "assent webhooks list"}
        assert 'assent_webhook_waiting{webhook="dead"} 6' in fetch(f"http://127.0.0.1:{house.console}/metrics").text

        house.kill()
        released.set()
        eventually(lambda: slow.told)
        slow.told.clear()
        put_secret(house, "newcomer")
        house.write_config(webhooks=sections + "\n" + webhook("newcomer", f"{well.url}/newcomer", events=events))
        house.start()
        eventually(lambda: slow.of("recipient.unsubscribed", leaver) and slow.of("message.relayed", leaver), 60)
        eventually(lambda: all(slow.of("recipient.subscribed", one) for one in joiners))
        assert len(gone.told) == 1, "it is disabled after a restart too"
        gone.normal()
        withdraw(house, joiners[0])
        eventually(lambda: on("/newcomer", well).of("recipient.unsubscribed", joiners[0]))
        assert len(on("/newcomer", well).told) == 1, "it hears of nothing from before it was configured"
        assert house.json("webhooks", "retry", "gone")["retried"] == 7
        eventually(lambda: gone.of("message.relayed", leaver))
