"""What programs are told and in which words: django-anymail and the official library read what we write."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Official

from gateway.announcements import Announcement, Happening, Shape, Webhook, of_event, of_line, outcomes_of, word_for
from gateway.announcements.signatures import Request, fault_of, public_part, request_of
from gateway.consent import Event, EventType
from gateway.decisions import Subject, attempt_line, door_line
from gateway.model import Action, Login, MessageClass, Outcome, Reason, Scope, Stream, Topic, Verdict
from tests import anymail_judge

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
READER = "reader@example.org"
WHO = "ab" * 16
TOPICS = {"offers": Topic("offers", "Offers", also_called=("sendgrid:17", "postmark:broadcasts", "ses:offers"))}
STREAMS = {
    "letters": Stream("letters", MessageClass.PROMOTIONAL, ("news",)),
    "deals": Stream("deals", MessageClass.PROMOTIONAL, ("offers",)),
}


def pem(curve: Any = SECP256R1) -> str:
    return generate_private_key(curve()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


SECRETS = {
    Shape.STANDARD: f"whsec_{base64.b64encode(bytes(range(32))).decode()}",
    Shape.SENDGRID: pem(),
    Shape.MAILGUN: "0123456789abcdef",
    Shape.POSTMARK: "assent:correct horse",
    Shape.SES: "assent:correct horse",
}
VENDORS = [shape for shape in Shape if shape is not Shape.STANDARD]


def endpoint(shape: Shape = Shape.STANDARD, **more: Any) -> Webhook:
    return Webhook("crm", "https://crm.example.com/", SECRETS[shape], frozenset(Happening), shape=shape, **more)


def event(kind: EventType, topic: str = "", scope: Scope | None = None, **facts: Any) -> Event:
    return Event(7, kind, bytes.fromhex(WHO), NOW, NOW, topic, scope, facts)


def announced(kind: EventType, topic: str = "", scope: Scope | None = None) -> Announcement:
    what = word_for(event(kind, topic, scope))
    assert what
    return of_event(event(kind, topic, scope), what, READER)


SUBJECT = Subject("0ABC", "", "news", "letters", MessageClass.PROMOTIONAL, "offers", "spring")


def refused(reason: Reason = Reason.NO_CONSENT) -> Announcement:
    verdict = Verdict(Action.REFUSE, reason, "has not opted in")
    told = of_line(json.loads(door_line("01J", NOW, WHO, SUBJECT, verdict)), READER)
    assert told
    return told


def ended(outcome: Outcome, reply: str = "550 5.1.1 no such mailbox") -> Announcement:
    line = attempt_line("01K", "01J", NOW, WHO, SUBJECT, Verdict(Action.SEND), outcome, reply, 1, ())
    told = of_line(json.loads(line), READER)
    assert told
    return told


def request(shape: Shape, told: Announcement) -> Request:
    made = request_of(endpoint(shape), told, TOPICS, NOW)
    assert made
    return made


UNSUBSCRIBED = announced(EventType.UNSUBSCRIBE, "offers", Scope.TOPIC)
OBJECTED = announced(EventType.OBJECTION)
ERASED = announced(EventType.ERASURE)
SUBSCRIBED = announced(EventType.OPT_IN_CONFIRMED, "offers")
COMPLAINED = announced(EventType.COMPLAINT)
BOUNCED = announced(EventType.HARD_BOUNCE)
RELAYED, FAILED = ended(Outcome.RELAYED, "250 ok"), ended(Outcome.FAILED)
OPTED_OUT = refused(Reason.UNSUBSCRIBED)


# vendors' words


@pytest.mark.parametrize(
    ("told", "sendgrid", "mailgun", "postmark", "ses"),
    [
        (UNSUBSCRIBED, "unsubscribed", "unsubscribed", "unsubscribed", "unknown"),
        (OBJECTED, "unsubscribed", "unsubscribed", "unsubscribed", "unknown"),
        (ERASED, "unsubscribed", "unsubscribed", "unsubscribed", "unknown"),
        (SUBSCRIBED, "subscribed", "", "subscribed", "unknown"),
        (COMPLAINED, "complained", "complained", "complained", "complained"),
        (BOUNCED, "bounced", "bounced", "bounced", "bounced"),
        (RELAYED, "queued", "queued", "", "sent"),
        (FAILED, "rejected", "rejected", "failed", "rejected"),
        (refused(), "rejected", "rejected", "failed", "rejected"),
        (OPTED_OUT, "rejected", "bounced", "failed", "bounced"),
        (Announcement("p", Happening.PAUSED, NOW, "letters", "", {"stream": "letters"}), "", "", "", ""),
    ],
)
def test_a_tool_understands_each_vendors_shape_as_what_has_happened(
    told: Announcement, sendgrid: str, mailgun: str, postmark: str, ses: str
) -> None:
    for shape, expected in zip(VENDORS, (sendgrid, mailgun, postmark, ses), strict=True):
        made = request_of(endpoint(shape), told, TOPICS, NOW)
        assert (made is None) is (expected == ""), shape
        if made:
            (seen,) = anymail_judge.events_of(shape, SECRETS[shape], *made)
            assert (seen.event_type, seen.recipient) == (expected, READER), shape
            assert seen.timestamp == NOW


@pytest.mark.parametrize("shape", VENDORS)
def test_a_request_that_somebody_else_has_made_is_rejected(shape: Shape) -> None:
    other = pem() if shape is Shape.SENDGRID else "assent:wrong" if shape in (Shape.POSTMARK, Shape.SES) else "wrong"
    with pytest.raises(anymail_judge.Rejected):
        anymail_judge.events_of(shape, other, *request(shape, COMPLAINED))


def test_amazons_subscription_says_which_topic_or_all() -> None:
    def preferences(told: Announcement) -> Any:
        outer = json.loads(request(Shape.SES, told).body)
        assert request(Shape.SES, told).headers["x-amz-sns-message-id"] == outer["MessageId"]
        inner = json.loads(outer["Message"])
        assert inner["eventType"] == "Subscription" and inner["mail"]["destination"] == [READER]
        return inner["subscription"]["newTopicPreferences"]

    out = [{"topicName": "offers", "subscriptionStatus": "OptOut"}]
    assert preferences(UNSUBSCRIBED) == {"unsubscribeAll": False, "topicSubscriptionStatus": out}
    assert preferences(SUBSCRIBED)["topicSubscriptionStatus"][0]["subscriptionStatus"] == "OptIn"
    assert preferences(OBJECTED) == {"unsubscribeAll": True, "topicSubscriptionStatus": []}


def test_a_no_to_a_topic_that_the_vendor_has_no_name_for_is_told_as_one_to_everything() -> None:
    elsewhere = announced(EventType.UNSUBSCRIBE, "news", Scope.TOPIC)
    (plain,) = json.loads(request(Shape.SENDGRID, elsewhere).body)
    assert plain["event"] == "unsubscribe" and "asm_group_id" not in plain
    (grouped,) = json.loads(request(Shape.SENDGRID, UNSUBSCRIBED).body)
    assert (grouped["event"], grouped["asm_group_id"]) == ("group_unsubscribe", 17)
    assert json.loads(request(Shape.POSTMARK, UNSUBSCRIBED).body)["MessageStream"] == "broadcasts"
    assert request_of(endpoint(Shape.SENDGRID), announced(EventType.OPT_IN_CONFIRMED, "news"), TOPICS, NOW) is None


def test_a_failure_of_the_next_hop_is_no_vendors_hard_bounce() -> None:
    for shape in VENDORS:
        (seen,) = anymail_judge.events_of(shape, SECRETS[shape], *request(shape, FAILED))
        assert seen.event_type in ("rejected", "failed")


# the specification's


def test_the_official_library_takes_every_secret_of_the_file_so_that_they_can_be_changed() -> None:
    old, new = SECRETS[Shape.STANDARD], f"whsec_{base64.b64encode(os.urandom(24)).decode()}"
    webhook = replace(endpoint(), secret=f"{new}\n{old}")
    made = request_of(webhook, UNSUBSCRIBED, TOPICS, datetime.now(UTC))
    assert made
    for secret in (old, new):
        assert Official(secret).verify(made.body, dict(made.headers))["type"] == "recipient.unsubscribed"


def test_a_private_key_signs_so_that_the_public_one_verifies() -> None:
    private = f"whsk_{base64.b64encode(os.urandom(32)).decode()}"
    webhook = replace(endpoint(), secret=private)
    made = request_of(webhook, UNSUBSCRIBED, TOPICS, NOW)
    (public,) = public_part(webhook)
    assert made and public.startswith("whpk_")
    version, signature = made.headers["webhook-signature"].split(",")
    signed = f"{made.headers['webhook-id']}.{made.headers['webhook-timestamp']}.".encode() + made.body
    assert version == "v1a"
    Ed25519PublicKey.from_public_bytes(base64.b64decode(public[5:])).verify(base64.b64decode(signature), signed)


@pytest.mark.parametrize(
    ("shape", "secret"),
    [
        *((Shape.STANDARD, one) for one in ("", "x", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "whsk_c2hvcnQ=")),
        *((Shape.SENDGRID, one) for one in ("x", "whsec_x", pem(SECP384R1))),
        *((Shape.MAILGUN, one) for one in ("two words", "schlüssel")),
        *((shape, one) for shape in (Shape.POSTMARK, Shape.SES) for one in ("nocolon", ":x", "x:", "a:b\nc:d")),
    ],
)
def test_a_secret_that_cannot_be_one_is_told_with_what_to_write(shape: Shape, secret: str) -> None:
    assert fault_of(shape, secret)
    assert fault_of(shape, SECRETS[shape]) == ""


# who hears of what


def test_an_erasure_is_a_no_to_whoever_does_not_hear_of_erasures() -> None:
    lists = replace(endpoint(), happenings=frozenset({Happening.UNSUBSCRIBED}))
    assert lists.hears_of_erasures and lists.wants(ERASED, STREAMS, {})
    assert lists.worded(ERASED).what is Happening.UNSUBSCRIBED
    assert lists.worded(ERASED).facts["reason"] == "erased"
    assert not replace(endpoint(), happenings=frozenset({Happening.RELAYED})).hears_of_erasures
    assert endpoint().worded(ERASED) is ERASED


@pytest.mark.parametrize(
    ("told", "by_stream", "by_login"),
    [
        (UNSUBSCRIBED, True, True),
        (announced(EventType.UNSUBSCRIBE, "news", Scope.TOPIC), False, False),
        (OBJECTED, True, True),
        (ERASED, True, True),
        (refused(), False, False),
        (replace(refused(), facts={**refused().facts, "stream": "deals", "login": "shop"}), True, True),
        (Announcement("p", Happening.PAUSED, NOW, "deals", "", {"stream": "deals"}), True, True),
        (Announcement("p", Happening.PAUSED, NOW, "letters", "", {"stream": "letters"}), False, False),
    ],
)
def test_an_endpoint_of_one_sender_hears_what_concerns_that_sender(
    told: Announcement, by_stream: bool, by_login: bool
) -> None:
    logins = {"shop": Login("shop", ("deals",))}
    assert endpoint(streams=("deals",)).wants(told, STREAMS, logins) is by_stream
    assert endpoint(logins=("shop",)).wants(told, STREAMS, logins) is by_login
    assert endpoint().wants(told, STREAMS, logins)


def test_a_claim_without_proof_and_a_line_of_a_file_are_no_subscriptions() -> None:
    assert word_for(event(EventType.EXPRESS_OPT_IN, "offers")) is Happening.SUBSCRIBED
    assert word_for(event(EventType.EXPRESS_OPT_IN, "offers", provenance="unproven")) is None
    assert word_for(event(EventType.EXPRESS_OPT_IN, "offers", **{"import": 3})) is None
    assert word_for(event(EventType.UNSUBSCRIBE, "offers", **{"import": 3})) is Happening.UNSUBSCRIBED
    assert word_for(event(EventType.SALE)) is None


def test_only_what_somebody_wants_is_kept_on_the_path_of_a_message() -> None:
    assert outcomes_of([]) == set()
    assert outcomes_of([Happening.UNSUBSCRIBED, Happening.FAILED]) == {Outcome.FAILED, Outcome.EXPIRED}


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(list(Happening)))
def test_an_announcement_is_read_back_as_it_was(address: str, why: str, what: Happening) -> None:
    told = Announcement("x", what, NOW, "who", address, {"why": why, "topic": None})
    assert Announcement.from_json(told.to_json()) == told
