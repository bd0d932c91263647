"""DKIM signatures (RFC 6376), relaxed/relaxed, made by OpenSSL.

The rule that must not be broken: what is signed is what goes on the wire, octet for octet, so signing is the last
thing that happens to a copy. Which headers are signed is written down here and nowhere left to a library (DKIM-02).
Where keys are kept is left to whoever loads them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from gateway.address import domain_key
from gateway.errors import Malformed
from gateway.headers import Field
from gateway.model import Segment

OVERSIGNED: Final = (
    *("from", "to", "cc", "subject", "date", "reply-to", "sender", "message-id", "mime-version", "content-type"),
    *("content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post"),
)
"""Listed once more often than they are there, so that nobody can add another (DKIM-03, RFC 6376 §8.15)."""

NEVER_SIGNED: Final = frozenset(
    {"return-path", "received", "bcc", "resent-bcc", "comments", "keywords", "dkim-signature", ""}
)
_RECURRING: Final = frozenset(OVERSIGNED) - {"to", "cc", "date", "message-id", "list-unsubscribe"}
_REMEMBERED_LENGTH: Final = 512

REFUSED_BELOW: Final = 1024
WEAK_BELOW: Final = 2048
"""Bits of an RSA key (RFC 8301 §3.2)."""

STEP: Final = 256 * 1024
"""Octets that are canonicalised at a time, so that a large body costs no second one in memory and no long wait."""

_NAMES_WIDTH: Final = 72
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SPACE = b" \t\r\n"
_PKCS1 = PKCS1v15()
_SHA256 = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the domain (an A-label) and the selector under which its other half is published."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey

    @classmethod
    def load(cls, domain: str, selector: str, pem: bytes) -> SigningKey:
        """Load a key from PEM without a passphrase.

        Raises `ValueError` with one sentence: not a key, neither RSA nor Ed25519, RSA below 1024 bits (RFC 8301
        §3.2), or a domain or selector that cannot stand in DNS.
        """
        if not _SELECTOR.fullmatch(selector):
            raise ValueError(f"{selector!r} cannot be a selector")
        private = _private_key(pem)
        if isinstance(private, RSAPrivateKey) and private.key_size < REFUSED_BELOW:
            raise ValueError(f"an RSA key of {private.key_size} bits is too short: {WEAK_BELOW} are needed")
        return cls(domain_key(domain), selector, private)

    @property
    def is_weak(self) -> bool:
        """True for RSA below 2048 bits, of which the operator is warned."""
        return isinstance(self.private, RSAPrivateKey) and self.private.key_size < WEAK_BELOW

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def mark(self) -> int:
        """A number of 64 bits, not 0, that stands for this key under this name, for whoever keeps a list of such."""
        name, text = dns_record(self)
        return int.from_bytes(hashlib.sha256(f"{name} {text}".encode("ascii")).digest()[:8], "big") or 1

    def sign(self, data: bytes) -> bytes:
        """Return the raw signature of canonicalised headers (RFC 6376 §3.3.1, RFC 8463 §3)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, _PKCS1, _SHA256)
        return self.private.sign(hashlib.sha256(data).digest())


def _private_key(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("this is not a private key in PEM without a passphrase") from error
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("DKIM knows RSA and Ed25519 keys only")
    return private


class Signer:
    """Signs for one domain with its active keys, one signature each (RFC 8463 §3 allows two algorithms side by side).

    `also` names further headers to sign, each as often as it is listed, from the lowest instance up (RFC 6376
    §5.4.2); `identity` is the i= tag. Raises `ValueError` for keys of several domains, for a header that must not be
    signed, and for an identity outside the domain.
    """

    def __init__(self, keys: Sequence[SigningKey], also: Sequence[str] = (), identity: str = "") -> None:
        if len({key.domain for key in keys}) != 1:
            raise ValueError("a signer needs the keys of exactly one domain")
        self.domain: Final = keys[0].domain
        self._keys = tuple(keys)
        self._also = tuple(name.lower() for name in also)
        refused = NEVER_SIGNED.intersection(self._also)
        if refused:
            raise ValueError(f"must not be signed: {', '.join(sorted(refused))}")
        self._identity = f" i={_checked_identity(identity, self.domain)};" if identity else ""

        self.marks: Final = tuple(key.mark for key in keys)

    @property
    def selectors(self) -> tuple[str, ...]:
        return tuple(key.selector for key in self._keys)

    def sign(self, header: Sequence[Field], body_hash: bytes, now: datetime) -> bytes:
        """Return the DKIM-Signature fields to put on top of a copy; `body_hash` is that of its body."""
        names, signed = _selected(header, self._also)
        digest = base64.b64encode(body_hash).decode("ascii")
        tags = f" t={int(now.timestamp())};\r\n h={_folded_names(names)};\r\n bh={digest};\r\n b="
        return b"".join([self._signature(key, tags, signed) for key in self._keys])

    def _signature(self, key: SigningKey, tags: str, signed: bytes) -> bytes:
        value = (
            f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain}; s={key.selector};\r\n{self._identity}{tags}"
        ).encode("ascii")
        # The field is written so that unfolding is all that its relaxed form asks for.
        raw = key.sign(b"%bdkim-signature:%b" % (signed, value.replace(b"\r\n", b"")))
        text = base64.b64encode(raw)
        lines = b"\r\n ".join([text[at : at + 72] for at in range(0, len(text), 72)])
        return b"DKIM-Signature: %b%b\r\n" % (value, lines)


def _checked_identity(identity: str, domain: str) -> str:
    """RFC 6376 §3.5: the same domain or one below it, and a dot stands between."""
    local, at, host = identity.rpartition("@")
    try:
        key = domain_key(host)
    except Malformed as error:
        raise ValueError(f"{identity!r} cannot be an identity") from error
    if not at or not _IDENTITY_LOCAL.fullmatch(local) or not _SELECTOR.fullmatch(key) or not is_within(key, domain):
        raise ValueError(f"the identity {identity!r} is not within {domain}")
    return f"{local}@{key}"


_IDENTITY_LOCAL = re.compile(r"[A-Za-z0-9._+-]*")


def is_within(name: str, domain: str) -> bool:
    """True where a name is a domain or lies below it; `evilexample.com` is not within `example.com` (DKIM-14)."""
    return name == domain or name.endswith("." + domain)


def signer_for(author_domain: str, signers: Mapping[str, Signer]) -> Signer | None:
    """Return the signer whose domain is the From domain, or else the nearest above it; None where we have none.

    Raises `Malformed` if the domain is not one.
    """
    name = domain_key(author_domain)
    while name:
        if name in signers:
            return signers[name]
        name = name.partition(".")[2]
    return None


def _selected(header: Sequence[Field], also: Sequence[str]) -> tuple[tuple[str, ...], bytes]:
    """Return the names for h= and the canonical fields that they select, from the lowest instance up (§5.4.2)."""
    wanted = frozenset(OVERSIGNED).union(also)
    present: dict[str, list[bytes]] = {}
    for name, raw in reversed(header):
        if name in wanted:
            present.setdefault(name, []).append(raw)
    names, fields = list[str](), list[bytes]()
    for name, count in _times_listed(present, also):
        names += [name] * count
        fields += [_canonical(name, raw) for raw in present.get(name, ())[:count]]
    return tuple(names), b"".join(fields)


def _canonical(name: str, raw: bytes) -> bytes:
    """Return a field in relaxed form, from memory where a campaign's other messages are likely to have it too."""
    shared = name in _RECURRING and len(raw) <= _REMEMBERED_LENGTH
    return _remembered_field(name, raw) if shared else canonical_field(name, raw)


def _times_listed(present: Mapping[str, Sequence[bytes]], also: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in OVERSIGNED:
        yield name, len(present.get(name, ())) + 1
    for name in dict.fromkeys(also):
        if name not in OVERSIGNED and name in present:
            yield name, min(also.count(name), len(present[name]))


@lru_cache(maxsize=256)
def _folded_names(names: tuple[str, ...]) -> str:
    """Write the names for h= in lines of up to 78 characters, broken before a name."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > _NAMES_WIDTH:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n ".join(lines)[:-1]


def canonical_field(name: str, raw: bytes) -> bytes:
    """Return a field in relaxed form (RFC 6376 §3.4.2), with its CRLF; only spaces and tabs are white space there."""
    value = raw.partition(b":")[2].replace(b"\r\n", b"")
    words = value.replace(b"\t", b" ").split(b" ")
    return b"%b:%b\r\n" % (name.encode("ascii"), b" ".join([word for word in words if word]))


_remembered_field = lru_cache(maxsize=1024)(canonical_field)


def body_hash(body: Sequence[Segment]) -> bytes:
    """Return the SHA-256 of a body in relaxed form (RFC 6376 §3.4.4), given in segments; linear in its size.

    Copies that share a body share this too, so whoever makes many computes it once. A body over `STEP` takes long:
    `body_hash_in_steps` lets others have their turn.
    """
    if sum(map(len, body)) > STEP:
        return _to_the_end(body_hash_in_steps(body))
    text = b"".join(body).rstrip(_SPACE)
    return hashlib.sha256(_relaxed(text) + b"\r\n" if text else b"").digest()


def body_hash_in_steps(body: Iterable[Segment]) -> Generator[None, None, bytes]:
    """Work out the same a step at a time; the generator returns it.

    White space at the end of a step is only counted until text follows, for at the end of the body it is nothing.
    """
    digest = hashlib.sha256()
    is_empty, line_ends, gap = True, 0, b""
    for step in _steps(body):
        text = step.rstrip(_SPACE)
        if text:
            for held in _line_ends(line_ends):
                digest.update(held)
                yield
            digest.update(_relaxed(gap + text))
            is_empty, line_ends, gap = False, 0, b""
        rest = step[len(text) :]
        begun = rest[rest.rfind(b"\n") + 1 :]
        line_ends += rest.count(b"\n")
        gap = b" " if begun or (gap and rest == begun) else b""
        yield
    if not is_empty:
        digest.update(b"\r\n")
    return digest.digest()


def _to_the_end(steps: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


def _line_ends(count: int) -> Iterator[bytes]:
    """Yield so many line ends, in pieces of a step."""
    for at in range(0, count, STEP // 2):
        yield b"\r\n" * min(count - at, STEP // 2)


def _steps(body: Iterable[Segment]) -> Iterator[bytes]:
    """Cut segments to `STEP` octets, but never between CR and LF."""
    held = b""
    for segment in body:
        for at in range(0, len(segment), STEP):
            step = held + segment[at : at + STEP]
            held = b"\r" if step.endswith(b"\r") else b""
            yield step[:-1] if held else step
    yield held


def _relaxed(text: bytes) -> bytes:
    """Reduce white space within and at the end of lines; each pass halves the runs, so none is quadratic."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b" \r\n", b"\r\n") if b" \r\n" in text else text


def generate_rsa_key() -> bytes:
    """Return a new RSA-2048 private key as PEM (PKCS #8), for `dkim new`."""
    private = generate_private_key(public_exponent=65537, key_size=WEAK_BELOW)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def dns_record(key: SigningKey) -> tuple[str, str]:
    """Return the name and the text of the TXT record that publishes a key (RFC 6376 §3.6.1, RFC 8463 §4)."""
    return f"{key.selector}._domainkey.{key.domain}", f"v=DKIM1; k={_key_type(key)}; p={_public_text(key)}"


def _key_type(key: SigningKey) -> str:
    return "rsa" if isinstance(key.private, RSAPrivateKey) else "ed25519"


def _public_text(key: SigningKey) -> str:
    return base64.b64encode(public_octets(key)).decode("ascii")


def public_octets(key: SigningKey) -> bytes:
    """Return a key's other half as its record publishes it, before base64."""
    public = key.private.public_key()
    if isinstance(key.private, RSAPrivateKey):
        return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
