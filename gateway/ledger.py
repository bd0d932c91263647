"""The ledger's arithmetic: commitments, leaf hashes, Merkle roots and signed segment heads.

What it promises: an edited, missing or reordered line changes a root, and a root cannot change without the head
that names it. Personal fields are hashed through a salted commitment only, so that erasing them
leaves every hash as it was. The formats are for ever (docs/decisions/0004-ledger-and-segments.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.consent import Event

NO_SEGMENT = "0" * 64
"""What the first segment of a chain names as its predecessor."""


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What a sealed run of lines amounts to. `chain` is "ledger" or "decisions"; hashes are lower-case hex."""

    chain: str
    number: int
    first: int
    last: int
    count: int
    root: str
    previous: str
    sealed_at: str

    def digest(self) -> str:
        return hashlib.sha256(self.signed_bytes()).hexdigest()

    def signed_bytes(self) -> bytes:
        """The octets that the Ed25519 signature covers."""
        return b"assent.segment.v1\0" + canonical_json(asdict(self))


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a value that is hashed: sorted keys, no white space, UTF-8.

    Half of a surrogate pair, which UTF-8 has no octets for, is written as JSON's escape, so that nothing that somebody
    sends can keep their "no" from being recorded.
    """
    if _is_plain(value):
        with suppress(TypeError):  # half of a surrogate pair, or a whole number beyond 64 bits
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def _is_plain(value: Any) -> bool:
    """True for what orjson is certain to spell as the standard library does, sooner: all but fractions."""
    if isinstance(value, dict):
        return all(map(_is_plain, [one for one in value.values() if type(one) not in _FLAT]))
    return isinstance(value, str | int | None) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))


_FLAT = frozenset({str, int, bool, type(None)})


def commitment(salt: bytes, personal: Mapping[str, Any]) -> bytes:
    """Return the salted digest that stands for the personal fields of an event."""
    return commitment_to(salt, canonical_json(personal))


def commitment_to(salt: bytes, spelled: bytes) -> bytes:
    """Return the salted digest that stands for personal fields in their one spelling."""
    return hashlib.sha256(b"assent.commitment.v1\0" + salt + spelled).digest()


def redacted_bytes(seq: int, personal: Mapping[str, Any]) -> bytes:
    """Return the octets that are signed in a commitment's stead where some of the fields that it covers have lapsed."""
    return b"assent.redaction.v1\0" + canonical_json({"seq": seq, "fields": dict(personal)})


def columns_of(event: Event) -> tuple[Any, ...]:
    """Return the public fields of an event, each in its one spelling, in the order in which they are kept."""
    times = (timestamp(event.at), timestamp(event.recorded_at))
    facts = canonical_json(event.facts).decode("utf-8")
    return (event.seq, event.type, event.address_id, *times, event.topic, event.scope, facts)


def leaf_of(columns: Sequence[Any], committed: bytes) -> bytes:
    """Return the hash of an event whose public fields are spelled already: it is over their canonical JSON."""
    seq, kind, who, at, recorded_at, topic, scope, facts = columns
    line = (
        f'{{"at":"{at}","commitment":"{committed.hex()}","facts":{facts},"recorded_at":"{recorded_at}",'
        f'"scope":{_spelled(scope)},"seq":{seq},"topic":{_spelled(topic)},"type":"{kind}","v":1,"who":"{who.hex()}"}}'
    )
    return leaf(line.encode("utf-8"))


@lru_cache(maxsize=256)
def _spelled(text: str | None) -> str:
    return canonical_json({"": text})[4:-1].decode("utf-8")


@lru_cache(maxsize=256)
def timestamp(moment: datetime) -> str:
    """Return a time as it is hashed and stored: RFC 3339 in UTC with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def leaf(line: bytes) -> bytes:
    """Return a line's leaf hash (RFC 9162 §2.1.1: leaves and nodes cannot be taken for each other)."""
    return hashlib.sha256(b"\0" + line).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of RFC 9162 §2.1.1's tree over the leaves, in their order; at least one leaf."""
    level = list(leaves)
    while len(level) > 1:
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def seal(
    chain: str, leaves: Sequence[bytes], first: int, last: int, predecessor: SegmentHead | None, now: datetime
) -> SegmentHead:
    """Make the head of the next segment of a chain, over the leaves of the lines `first` to `last`."""
    return SegmentHead(
        chain=chain,
        number=predecessor.number + 1 if predecessor else 1,
        first=first,
        last=last,
        count=len(leaves),
        root=merkle_root(leaves).hex(),
        previous=predecessor.digest() if predecessor else NO_SEGMENT,
        sealed_at=timestamp(now),
    )


def is_signed(octets: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """True where the signature over these octets is one that the key's other half made (RFC 8032)."""
    try:
        key.verify(signature, octets)
    except InvalidSignature:
        return False
    return True


def break_in_chain(heads: Iterable[SegmentHead]) -> str | None:
    """Return where a chain of heads, in order and from its first, does not hold together; None if it does."""
    previous, number, last = NO_SEGMENT, 0, 0
    for head in heads:
        if head.number != number + 1:
            return f"{head.chain} segment {number + 1} is missing"
        if head.previous != previous:
            return f"{head.chain} segment {head.number} does not follow segment {number}"
        if head.first != last + 1:
            return f"{head.chain} segment {head.number} begins at line {head.first}, not at {last + 1}"
        previous, number, last = head.digest(), head.number, head.last
    return None
