"""Mail addresses: parsed strictly, matched two ways, never rewritten.

The one rule: the text that was checked is the text that goes on the wire (`Address.text`). Keys are made
for matching only. Consent matches narrowly (`key`), suppression broadly (`broad_key`), requirements §1.7.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import idna

from gateway.errors import Malformed

LOCAL_PART_LIMIT = 64
DOMAIN_LIMIT = 255
PATH_LIMIT = 254

_NON_ASCII = r"\u00a0-\u2027\u202f-\ud7ff\ue000-\U0010ffff"
"""RFC 6531's letters without what ends a line or turns its direction somewhere, and without half characters."""
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_NON_ASCII}]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(rf'"((?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*)"')
_LDH_DOMAIN = re.compile(
    r"(?=.{1,255}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)
_ASCII_TWINS = re.compile("([\u037e\u1fef\u212a])")
"""What NFC would turn into ASCII. KELVIN SIGN is not the letter K to whoever owns either mailbox (SUP-02)."""
_LITERAL = re.compile(r"\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9A-Fa-f:.]{2,45})\]")


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox. `text` is what was given, octet for octet; the keys are for look-ups only."""

    text: str
    local: str
    domain: str
    key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse a mailbox as RFC 5321 §4.1.2 and RFC 6531 §3.3 spell it, without brackets, routes or comments.

        Raises `Malformed` with one sentence that may be shown to the peer.
        """
        return _parse(text)

    @property
    def broad_key(self) -> str:
        """The key that suppression also looks under: Unicode case-folded (SUP-02)."""
        if self.key.isascii():
            return self.key
        local, _, domain = self.key.rpartition("@")
        return f"{unicodedata.normalize('NFC', local.casefold())}@{domain}"

    @property
    def is_whole_domain(self) -> bool:
        """True for `*@example.org`, which is no mailbox but stands for all of a domain in a suppression (SUP-16)."""
        return self.key.startswith("*@")

    @property
    def whole_domain(self) -> Address:
        """The entry that covers this address with all of its domain."""
        return _parse(f"*@{self.domain}")

    @property
    def needs_smtputf8(self) -> bool:
        """True where the envelope needs RFC 6531, because the local-part or the domain is not ASCII."""
        return not self.text.isascii()

    @property
    def ascii_text(self) -> str:
        """The same mailbox without RFC 6531: its domain as A-labels; "" where the local-part is not ASCII."""
        if self.text.isascii():
            return self.text
        return f"{self.local}@{domain_key(self.domain)}" if self.local.isascii() else ""

    @property
    def list_digests(self) -> tuple[bytes, ...]:
        """The digests under which lists of the trade may name this mailbox: MD5 and SHA-256 (SUP-11, SUP-12).

        What is hashed is lower-case UTF-8 in NFC; of an internationalised domain both spellings are tried.
        """
        local, _, domain = self.key.rpartition("@")
        lower = unicodedata.normalize("NFC", local.lower())
        domains = {domain, unicodedata.normalize("NFC", self.domain.lower()), _unicode_domain(domain)}
        texts = [f"{lower}@{one}".encode() for one in sorted(domains)]
        return tuple(make(one).digest() for one in texts for make in (_md5, hashlib.sha256))

    def __str__(self) -> str:
        return self.text


def domain_key(domain: str) -> str:
    """Return a domain as lower-case A-labels (IDNA 2008, UTS 46 non-transitional), without a trailing dot.

    The `idna` codec of the standard library is not used: it maps `straße.de` to another domain (I18N-05).
    """
    bare = domain.removesuffix(".")
    if bare.isascii():
        return bare.lower()
    try:
        return idna.encode(bare, uts46=True, transitional=False).decode("ascii").lower()
    except idna.IDNAError as error:
        raise Malformed("the domain is not a valid internationalised name") from error


def _md5(octets: bytes) -> Any:
    return hashlib.md5(octets, usedforsecurity=False)


def _unicode_domain(domain: str) -> str:
    """Return a domain of A-labels as people write it; what cannot be read stays as it is."""
    if "xn--" not in domain:
        return domain
    try:
        return unicodedata.normalize("NFC", idna.decode(domain))
    except idna.IDNAError:
        return domain


@lru_cache(maxsize=8192)
def _parse(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    if not local or not domain:
        raise Malformed("an address needs a local-part, an @ and a domain")
    return Address(text, local, domain, f"{_local_key(local)}@{_checked_domain(domain)}")


def _local_key(local: str) -> str:
    plain = _unquoted(local)
    if len(local.encode("utf-8", "surrogatepass")) > LOCAL_PART_LIMIT:
        raise Malformed(f"the local-part is longer than {LOCAL_PART_LIMIT} octets")
    return plain.lower() if plain.isascii() else _composed(plain).translate(_LOWER)


def _composed(local: str) -> str:
    """Return the local-part in NFC, which here never makes another, ASCII address of it."""
    pieces = _ASCII_TWINS.split(local)
    return "".join(one if _ASCII_TWINS.fullmatch(one) else unicodedata.normalize("NFC", one) for one in pieces)


def _unquoted(local: str) -> str:
    if _DOT_STRING.fullmatch(local):
        return local
    quoted = _QUOTED.fullmatch(local)
    if not quoted:
        raise Malformed("the local-part has a character that RFC 5321 does not allow there")
    return re.sub(r"\\(.)", r"\1", quoted.group(1))


@lru_cache(maxsize=8192)
def _checked_domain(domain: str) -> str:
    if _LITERAL.fullmatch(domain):
        return domain.lower()
    key = domain_key(domain)
    if len(domain.encode("utf-8", "surrogatepass")) > DOMAIN_LIMIT or not _LDH_DOMAIN.fullmatch(key):
        raise Malformed("the domain is not a valid host name with at least one dot")
    return key


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
