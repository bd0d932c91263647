"""Look at a finished copy as its receiver does: does each signature verify, does the way out meet RFC 8058?

The rule that must not be broken: only what stands in the copy counts, and the keys as they are published. Nothing here
signs or stamps.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.errors import InvalidToken
from gateway.headers import Field, HeaderBlock
from gateway.sign import body_hash, canonical_field
from gateway.tokens import Unsubscribe, UnsubscribeTokens

_SIGNATURE_VALUE: Final = re.compile(rb"([;\s]b[ \t]*=)[^;]*")
_ONE_CLICK: Final = b"List-Unsubscribe=One-Click"
_WAY_OUT: Final = frozenset({"list-unsubscribe", "list-unsubscribe-post"})


class Check(NamedTuple):
    """One thing that was tried, and what came of it in one sentence; `is_well` is None where nothing could be tried."""

    name: str
    is_well: bool | None
    told: str


def signature_checks(copy: bytes, block: HeaderBlock, published: Mapping[str, str]) -> list[Check]:
    """Verify each DKIM signature of a copy (RFC 6376 §6.1) by the records: TXT by name."""
    signatures = block.all("dkim-signature")
    if not signatures:
        return [Check("DKIM", False, "the copy is not signed: there is no key for its From domain")]
    digest = base64.b64encode(body_hash([copy[block.body :]])).decode("ascii")
    return [_signature_check(one, block, digest, published) for one in signatures]


def _signature_check(field: Field, block: HeaderBlock, digest: str, published: Mapping[str, str]) -> Check:
    tags = _tags(field)
    name = f"{tags.get('s', '')}._domainkey.{tags.get('d', '')}"
    what = f"DKIM, {name}"
    record = published.get(name)
    if record is None:
        return Check(what, None, "it is signed by somebody else, whose key is not looked up here")
    if tags.get("bh") != digest:
        return Check(what, False, "the body is not the one that was signed")
    told = f"{tags.get('a', '')} over {len(_signed_names(tags))} fields"
    if not _verifies(field, block, tags, record):
        return Check(what, False, f"{told} does not verify by our key")
    return Check(what, True, f"{told} verifies by our key")


def _verifies(field: Field, block: HeaderBlock, tags: Mapping[str, str], record: str) -> bool:
    known = dict(one.strip().partition("=")[::2] for one in record.split(";"))
    emptied = _SIGNATURE_VALUE.sub(rb"\1", field.raw)
    data = b"".join(
        [*_selected(block, _signed_names(tags)), canonical_field("dkim-signature", emptied).removesuffix(b"\r\n")]
    )
    try:
        public, signature = base64.b64decode(known.get("p", "")), base64.b64decode(tags.get("b", ""))
        if known.get("k") == "ed25519":
            Ed25519PublicKey.from_public_bytes(public).verify(signature, hashlib.sha256(data).digest())
            return True
        key = load_der_public_key(public)
        if not isinstance(key, RSAPublicKey):
            return False
        key.verify(signature, data, PKCS1v15(), hashes.SHA256())
    except (binascii.Error, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _tags(field: Field) -> dict[str, str]:
    text = field.value.decode("utf-8", "replace")
    return {name.strip(): "".join(value.split()) for name, _, value in (one.partition("=") for one in text.split(";"))}


def _signed_names(tags: Mapping[str, str]) -> list[str]:
    return tags.get("h", "").lower().split(":")


def _selected(block: HeaderBlock, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the canonical fields that h= selects, from the lowest instance up (RFC 6376 §5.4.2)."""
    left = {name: block.all(name) for name in names}
    for name in names:
        if left[name]:
            yield canonical_field(name, left[name].pop().raw)


def unsubscribe_check(block: HeaderBlock, public_url: str, tokens: UnsubscribeTokens, meant: Unsubscribe) -> Check:
    """Read the way out that a promotional copy names as a mailbox provider would (RFC 8058 §4), and what it says."""
    name = "one-click unsubscribe"
    field, post = block.first("list-unsubscribe"), block.first("list-unsubscribe-post")
    if field is None or post is None or post.value != _ONE_CLICK:
        return Check(
            name, False, "the copy has no List-Unsubscribe with List-Unsubscribe-Post: List-Unsubscribe=One-Click"
        )
    signed = [_signed_names(_tags(one)) for one in block.all("dkim-signature")]
    if not any(set(names) >= _WAY_OUT for names in signed):
        return Check(name, False, "no signature covers the two fields")
    uris = [one.decode("ascii", "replace") for one in re.findall(rb"<([^<>]*)>", field.value)]
    token = next((one.removeprefix(f"{public_url}/u/") for one in uris if one.startswith(f"{public_url}/u/")), "")
    address = next((one.removeprefix("mailto:").partition("@")[0] for one in uris if one.startswith("mailto:")), "")
    try:
        read = [tokens.read_url(token), *([tokens.read_local_part(address)] if address else [])]
    except InvalidToken:
        return Check(name, False, "the link is not one that we would understand")
    if any(one != meant for one in read):
        return Check(name, False, "the link says something else than it should")
    return Check(
        name, True, f"both fields are there and signed, and {'both links are' if address else 'the link is'} understood"
    )
