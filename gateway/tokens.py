"""Sign and verify what we hand out: unsubscribe links, in web addresses and in mail addresses.

Links are for ever, so the format is too (docs/decisions/0003-links-are-for-ever.md). A token has one spelling: what
does not re-sign to the very same characters is not ours, so no second spelling of a link exists (itsdangerous accepts
several). Nothing here reads a store: a valid token says who and what without one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from itsdangerous import Signer
from itsdangerous.signer import HMACAlgorithm

from gateway.errors import InvalidToken
from gateway.model import KeyRing, Scope

ALL_MARKETING: Final = 0
PARTNER: Final = 1
FIRST_TOPIC: Final = 16
"""Numbers below this one are scopes; the store numbers topics from here on and never reuses one."""

NOBODY: Final = b"\xff" * 16
"""Whom the links of samples name: no person has this id, and whatever is said for it is not recorded."""

MAIL_PREFIX: Final = "u-"

_PAYLOAD = struct.Struct(">BH16s")
_Sign = Callable[[bytes], str]
_URL_LENGTH = 49
_MAIL_LENGTH = 47


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """What an unsubscribe link says: from what (a topic's number or a scope's), and who (16 octets)."""

    number: int
    address_id: bytes

    @property
    def scope(self) -> Scope:
        return {ALL_MARKETING: Scope.ALL_MARKETING, PARTNER: Scope.PARTNER}.get(self.number, Scope.TOPIC)


class _Truncated(HMACAlgorithm):
    """HMAC-SHA-256 cut to its first octets (RFC 2104 §5)."""

    def __init__(self, octets: int) -> None:
        super().__init__(hashlib.sha256)
        self._octets = octets

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")[: self._octets]


class UnsubscribeTokens:
    """Make and read the two spellings of an unsubscribe token.

    For URLs: 49 characters, 128-bit MAC. For local-parts, where case is lost and 64 octets are the limit
    (RFC 5321 §4.5.3.1.1): lower-case base32, 80-bit MAC, prefix `u-`, 49 characters. Every key of the ring
    verifies, the one in force signs. `reconsents` are the tokens of another kind that the same ring signs.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._in_force = ring.in_force
        self.reconsents = ReconsentTokens(ring)
        self._url = {kid: _signer(key, b"assent.unsubscribe.url", 16) for kid, key in ring.keys.items()}
        self._mail = {kid: _signer(key, b"assent.unsubscribe.mail", 10) for kid, key in ring.keys.items()}

    def for_url(self, what: Unsubscribe) -> str:
        return self._sign_url(_PAYLOAD.pack(self._in_force, what.number, what.address_id))

    def for_local_part(self, what: Unsubscribe) -> str:
        return self._sign_mail(_PAYLOAD.pack(self._in_force, what.number, what.address_id))

    def read_url(self, token: str) -> Unsubscribe:
        """Return what a link's token says; raises `InvalidToken`."""
        if len(token) != _URL_LENGTH or not token.isascii():
            raise InvalidToken
        return self._checked(token, _decoded(base64.urlsafe_b64decode, token[:26] + "=="), self._sign_url)

    def read_local_part(self, local: str) -> Unsubscribe:
        """Return what a mail address's token says, in any case of its letters; raises `InvalidToken`."""
        folded = local.lower()
        if len(folded) != len(MAIL_PREFIX) + _MAIL_LENGTH or not local.isascii():
            raise InvalidToken
        payload = _decoded(base64.b32decode, folded[len(MAIL_PREFIX) :].upper() + "=")[: _PAYLOAD.size]
        return self._checked(folded, payload, self._sign_mail)

    def _checked(self, token: str, payload: bytes, sign: _Sign) -> Unsubscribe:
        if len(payload) != _PAYLOAD.size or payload[0] not in self._url:
            raise InvalidToken
        if not hmac.compare_digest(sign(payload), token):
            raise InvalidToken
        _, number, address_id = _PAYLOAD.unpack(payload)
        return Unsubscribe(number, address_id)

    def _sign_url(self, payload: bytes) -> str:
        return self._url[payload[0]].sign(base64.urlsafe_b64encode(payload).rstrip(b"=")).decode("ascii")

    def _sign_mail(self, payload: bytes) -> str:
        signer = self._mail[payload[0]]
        mac = signer.algorithm.get_signature(signer.derive_key(), payload)
        return MAIL_PREFIX + base64.b32encode(payload + mac).decode("ascii").rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Reconsent:
    """What a link of a policy notice says: under which version somebody consents anew, and who (16 octets)."""

    version: str
    address_id: bytes


class ReconsentTokens:
    """Make and read the tokens of links to consent anew: base64 of key, person and version, and a 128-bit MAC."""

    def __init__(self, ring: KeyRing) -> None:
        self._in_force = ring.in_force
        self._signers = {kid: _signer(key, b"assent.reconsent.url", 16) for kid, key in ring.keys.items()}

    def for_url(self, what: Reconsent) -> str:
        return self._sign(bytes([self._in_force]) + what.address_id + what.version.encode("utf-8"))

    def read_url(self, token: str) -> Reconsent:
        """Return what a link's token says; raises `InvalidToken`."""
        text = token.partition(".")[0]
        if not token.isascii() or len(token) > _LONGEST_RECONSENT:
            raise InvalidToken
        payload = _decoded(base64.urlsafe_b64decode, text + "=" * (-len(text) % 4))
        if len(payload) < _LEAST_RECONSENT or payload[0] not in self._signers:
            raise InvalidToken
        if not hmac.compare_digest(self._sign(payload), token):
            raise InvalidToken
        return Reconsent(payload[_LEAST_RECONSENT - 1 :].decode("utf-8"), payload[1 : _LEAST_RECONSENT - 1])

    def _sign(self, payload: bytes) -> str:
        return self._signers[payload[0]].sign(base64.urlsafe_b64encode(payload).rstrip(b"=")).decode("ascii")


_LEAST_RECONSENT = 1 + 16 + 1
_LONGEST_RECONSENT = 512


def _signer(key: bytes, salt: bytes, octets: int) -> Signer:
    """Return the signer for one purpose; its key is derived here, once, and not at each signature."""
    derived = Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256).derive_key()
    return Signer(derived, salt=salt, sep=".", key_derivation="none", algorithm=_Truncated(octets))


def _decoded(decode: Callable[[str], bytes], text: str) -> bytes:
    try:
        return decode(text)
    except (binascii.Error, ValueError) as error:
        raise InvalidToken from error
