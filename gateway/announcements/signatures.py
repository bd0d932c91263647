"""How an endpoint knows that an announcement is ours: each shape's own proof, made with the secret of its file.

The rule that must not be broken: what is signed is the octets that go on the wire. Amazon's signature cannot be made by
anybody else, and Postmark makes none: both are known by HTTP's basic authentication.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.announcements import Announcement, Shape, Webhook
from gateway.announcements.shapes import TOPIC_ARN, uuid_of, written
from gateway.model import Topic

_SYMMETRIC, _PRIVATE = "whsec_", "whsk_"
_LEAST_SECRET, _MOST_SECRET = 24, 64
_JSON: Final = {"Content-Type": "application/json"}


class Request(NamedTuple):
    """What is posted: the octets, and the headers that prove them."""

    body: bytes
    headers: Mapping[str, str]


def request_of(webhook: Webhook, told: Announcement, topics: Mapping[str, Topic], now: datetime) -> Request | None:
    """Return the request that tells an endpoint of something; None where its shape has no word for that."""
    words = written(webhook.shape, told, topics)
    return None if words is None else _PROOFS[webhook.shape](webhook.secret, told, words, now)


def _octets(words: Any) -> bytes:
    return json.dumps(words, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def _standard(secret: str, told: Announcement, words: Any, now: datetime) -> Request:
    """https://www.standardwebhooks.com: a signature with each secret of the file, so that they can be changed."""
    body, at = _octets(words), str(int(now.timestamp()))
    signed = f"{told.id}.{at}.".encode() + body
    signatures = " ".join(_signature(one, signed) for one in secret.split())
    return Request(body, {**_JSON, "webhook-id": told.id, "webhook-timestamp": at, "webhook-signature": signatures})


def _signature(secret: str, signed: bytes) -> str:
    if secret.startswith(_PRIVATE):
        return f"v1a,{_base64(_ed25519(secret).sign(signed))}"
    return f"v1,{_base64(hmac.digest(_key(secret, _SYMMETRIC), signed, hashlib.sha256))}"


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _key(secret: str, prefix: str) -> bytes:
    return base64.b64decode(secret.removeprefix(prefix), validate=True)


def _ed25519(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_key(secret, _PRIVATE)[:32])


def _sendgrid(secret: str, told: Announcement, words: Any, now: datetime) -> Request:
    """The Event Webhook's: ECDSA with SHA-256 over the time and the body."""
    body, at = _octets(words), str(int(now.timestamp()))
    signature = _base64(_p256(secret).sign(at.encode() + body, ECDSA(SHA256())))
    proof = {
        "X-Twilio-Email-Event-Webhook-Signature": signature,
        "X-Twilio-Email-Event-Webhook-Timestamp": at,
    }
    return Request(body, _JSON | proof)


def _p256(secret: str) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(secret.encode(), None)
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("not a key of the curve P-256")
    return key


def _mailgun(secret: str, told: Announcement, words: Mapping[str, Any], now: datetime) -> Request:
    """HMAC with SHA-256 over the time and a token, which is the same each time: tools know repeated events by it."""
    at, token = str(int(now.timestamp())), hashlib.sha256(told.id.encode()).hexdigest()[:50]
    signature = hmac.digest(secret.encode(), f"{at}{token}".encode(), hashlib.sha256).hex()
    proof = {"timestamp": at, "token": token, "signature": signature}
    return Request(_octets({"signature": proof, **words}), _JSON)


def _postmark(secret: str, told: Announcement, words: Any, now: datetime) -> Request:
    return Request(_octets(words), _JSON | _basic(secret))


def _ses(secret: str, told: Announcement, words: Any, now: datetime) -> Request:
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": uuid_of(told),
        "x-amz-sns-topic-arn": TOPIC_ARN,
    }
    return Request(_octets(words), headers | _basic(secret))


def _basic(secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {_base64(secret.encode())}"}


_PROOFS: Final = {
    Shape.STANDARD: _standard,
    Shape.SENDGRID: _sendgrid,
    Shape.MAILGUN: _mailgun,
    Shape.POSTMARK: _postmark,
    Shape.SES: _ses,
}


def fault_of(shape: Shape, secret: str) -> str:
    """Return what the file of a secret has to hold where it does not; "" where it does."""
    try:
        is_fit = _FITNESS[shape](secret)
    except (ValueError, TypeError, binascii.Error):
        is_fit = False
    return "" if is_fit else _WANTED[shape]


def _is_standard(secret: str) -> bool:
    return bool(secret.split()) and all(map(_is_one_secret, secret.split()))


def _is_one_secret(secret: str) -> bool:
    if secret.startswith(_PRIVATE):
        return len(_key(secret, _PRIVATE)) in (32, 64)
    return secret.startswith(_SYMMETRIC) and _LEAST_SECRET <= len(_key(secret, _SYMMETRIC)) <= _MOST_SECRET


def _is_pair(secret: str) -> bool:
    name, colon, password = secret.partition(":")
    return bool(name and colon and password) and secret.isprintable()


_FITNESS: Final = {
    Shape.STANDARD: _is_standard,
    Shape.SENDGRID: lambda secret: _p256(secret) is not None,
    Shape.MAILGUN: lambda secret: len(secret.split()) == 1 and secret.isascii(),
    Shape.POSTMARK: _is_pair,
    Shape.SES: _is_pair,
}
_WANTED: Final = {
    Shape.STANDARD: "whsec_ and 24 to 64 octets in base64; `assent webhooks secret` makes one",
    Shape.SENDGRID: "a private key of the curve P-256, PEM; `assent webhooks secret --format sendgrid` makes one",
    Shape.MAILGUN: "the signing key on one line; `assent webhooks secret --format mailgun` makes one",
    Shape.POSTMARK: "name:password on one line, as the endpoint asks for (HTTP basic authentication)",
    Shape.SES: "name:password on one line, as the endpoint asks for (HTTP basic authentication)",
}


def public_part(webhook: Webhook) -> Sequence[str]:
    """Return the public keys by which an endpoint can verify; none for what is shared with it."""
    if webhook.shape is Shape.SENDGRID:
        return [
            _base64(_p256(webhook.secret).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        ]
    if webhook.shape is not Shape.STANDARD:
        return []
    private = [one for one in webhook.secret.split() if one.startswith(_PRIVATE)]
    return [f"whpk_{_base64(_ed25519(one).public_key().public_bytes_raw())}" for one in private]
