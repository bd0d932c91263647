"""Who may use the API for what: bearer tokens with scopes, of which only digests are kept.

The rule that must not be broken: a token is shown once, when it is made, and no answer, log line or row tells it again.
A token is 256 random bits, so that its digest needs no salt and no cost (RFC 6750 §5.2).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gateway.store import ApiToken

SCOPES: Final = {
    "read": "look people, suppressions, events and decisions up",
    "record": "record consents, withdrawals, suppressions and customers",
    "lift": "lift suppressions, with a reason",
}
_PREFIX: Final = "assent_"


def new_token() -> str:
    """Return a token that nobody can guess; its beginning lets scanners of leaked secrets know it."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def holder_of(authorization: str, tokens: Iterable[ApiToken], now: datetime) -> ApiToken | None:
    """Return whose token an Authorization header brings (RFC 6750 §2.1); None for nobody's, old or revoked ones."""
    scheme, token = _split(authorization)
    if scheme != "bearer":
        return None
    digest = digest_of(token)
    found = [one for one in tokens if hmac.compare_digest(one.digest, digest)]
    return next((one for one in found if not one.revoked and (one.expires_at is None or now < one.expires_at)), None)


def veiled(authorization: str, told: bytes) -> bytes:
    """Return what stands for something that a token's holder told: without the token nobody can try guesses at it."""
    _, token = _split(authorization)
    return hmac.digest(token.encode("utf-8", "surrogateescape"), told, "sha256")


def _split(authorization: str) -> tuple[str, str]:
    scheme, _, token = authorization.partition(" ")
    return scheme.lower(), token.strip()
