"""See whether the ledger and the decision log are still what was sealed.

Every hash is made anew from the fields, never believed. A chain may have millions of segments, so heads and lines are
read side by side, and what is in memory is one segment's lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain as chained
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.consent import Standing, fold
from gateway.ledger import (
    SegmentHead,
    break_in_chain,
    columns_of,
    commitment,
    is_signed,
    leaf,
    leaf_of,
    merkle_root,
    redacted_bytes,
)
from gateway.store.anchor import Anchor, SignedHead
from gateway.store.history import event_of
from gateway.store.segments import DECISION_LOG, LEDGER, PURGES, last_head, signed_heads
from gateway.store.writer import Connection, connect

_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)

_Line = tuple[int, bytes, str]
"""A line's number, its leaf hash made anew, and what is wrong with the line itself ("" if nothing)."""


def verify(people: Path, folder: Path, key: Ed25519PublicKey, anchor: Path | None) -> Iterator[str]:
    """Check ledger and decision log line by line; yield each place where they are not what was sealed.

    With `anchor`, a file kept outside the database, a cut-off tail and a history written anew with the database's own
    keys are found too.
    """
    with closing(connect(people, read_only=True)) as connection:
        connection.text_factory = _lenient_text
        yield from _verify_chain(connection, LEDGER, _event_leaves(connection, key), key)
        purged = last_head(connection, PURGES)
        gone = purged.last if purged else 0
        yield from _verify_chain(connection, DECISION_LOG, _line_leaves(folder, gone), key, gone)
        yield from _verify_purges(connection, key)
        yield from _verify_standing(connection)
        yield from _verify_people(connection)
        yield from _verify_notices(connection)
        if anchor:
            yield from _verify_anchor(connection, Anchor(anchor), key)


def _verify_chain(
    connection: Connection, chain: str, lines: Iterable[_Line], key: Ed25519PublicKey, gone: int = 0
) -> Iterator[str]:
    """Compare a chain's lines with its heads; the lines up to `gone` were let go, and are not asked for."""
    yield from _verify_order(connection, chain)
    for signed, taken in _runs(lines, signed_heads(connection, chain)):
        if signed:
            yield from _verify_segment(*signed, list(taken), key, gone)
        else:
            yield from (f"line {number} (not sealed yet): {wrong}" for number, _, wrong in taken if wrong)


def _verify_order(connection: Connection, chain: str) -> Iterator[str]:
    broken = break_in_chain(head for head, _ in signed_heads(connection, chain))
    if broken:
        yield broken


def _verify_segment(
    head: SegmentHead, signature: bytes, taken: Sequence[_Line], key: Ed25519PublicKey, gone: int
) -> Iterator[str]:
    if not _is_signed(head, signature, key):
        yield f"{head.chain} segment {head.number}: the signature is not ours"
    if head.last <= gone:
        return
    yield from (f"{head.chain} line {number}: {wrong}" for number, _, wrong in taken if wrong)
    if [number for number, _, _ in taken] != list(range(head.first, head.last + 1)):
        yield f"{head.chain} segment {head.number}: a line of {head.first} to {head.last} is missing"
    elif merkle_root([one for _, one, _ in taken]).hex() != head.root:
        yield f"{head.chain} segment {head.number}: a line of {head.first} to {head.last} has been changed or moved"


def _verify_purges(connection: Connection, key: Ed25519PublicKey) -> Iterator[str]:
    """See that what was let go is what was announced: the heads that are left are those of then."""
    yield from _verify_order(connection, PURGES)
    kept = ((head.last, leaf(head.signed_bytes()), "") for head, _ in signed_heads(connection, DECISION_LOG))
    for signed, taken in _runs(kept, signed_heads(connection, PURGES)):
        if signed is None:
            return
        head, signature = signed
        if not _is_signed(head, signature, key):
            yield f"{head.chain} segment {head.number}: the signature is not ours"
        leaves = [one for _, one, _ in taken]
        if not leaves or merkle_root(leaves).hex() != head.root:
            yield f"{head.chain} segment {head.number}: a head of what was let go has been changed or is missing"


def _runs(lines: Iterable[_Line], heads: Iterable[SignedHead]) -> Iterator[tuple[SignedHead | None, Iterable[_Line]]]:
    """Yield each head with the lines up to its last, then None with the rest: a line that is missing moves no other."""
    following = iter(lines)
    ahead = next(following, None)
    for signed in heads:
        run: list[_Line] = []
        while ahead and ahead[0] <= signed[0].last:
            run.append(ahead)
            ahead = next(following, None)
        yield signed, run
    if ahead:
        yield None, chained([ahead], following)


def _event_leaves(connection: Connection, key: Ed25519PublicKey) -> Iterator[_Line]:
    rows = connection.execute(
        "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, p.fields,"
        " e.commitment, e.hash, p.salt, r.signature FROM events e LEFT JOIN event_personal p USING (seq)"
        " LEFT JOIN redactions r USING (seq) ORDER BY e.seq"
    )
    for row in rows:
        try:
            yield _event_leaf(key, *row)
        except _UNREADABLE:
            yield row[0], b"", "it cannot be read"


def _event_leaf(key: Ed25519PublicKey, *row: Any) -> _Line:
    *columns, committed, stored, salt, redaction = row
    event = event_of(columns)
    spelled = columns_of(event)
    recomputed = leaf_of(spelled, committed)
    if recomputed != stored or spelled != tuple(columns[:-1]):
        return event.seq, recomputed, "it is not what was recorded"
    if event.personal is None or commitment(salt, event.personal) == committed:
        return event.seq, recomputed, ""
    if redaction is None or not is_signed(redacted_bytes(event.seq, event.personal), redaction, key):
        return event.seq, recomputed, "its personal fields are not what was recorded"
    return event.seq, recomputed, ""


def _line_leaves(folder: Path, after: int) -> Iterator[_Line]:
    for path in sorted(folder.glob("*.db")):
        with closing(connect(path, read_only=True)) as connection:
            for seq, line in connection.execute("SELECT seq, line FROM decisions WHERE seq > ? ORDER BY seq", (after,)):
                yield seq, leaf(bytes(line)), ""


def _verify_standing(connection: Connection) -> Iterator[str]:
    for address_id, standing in connection.execute("SELECT address_id, standing FROM people"):
        rows = connection.execute(
            "SELECT e.seq, e.type, e.address_id, e.at, e.recorded_at, e.topic, e.scope, e.facts, NULL"
            " FROM events e WHERE e.address_id = ? ORDER BY e.seq",
            (address_id,),
        )
        if not _amounts_to(rows, standing):
            yield f"person {address_id.hex()}: the standing is not what the ledger amounts to"


def _amounts_to(rows: Iterable[Sequence[Any]], standing: str) -> bool:
    try:
        return fold(map(event_of, rows)) == Standing.from_json(json.loads(standing))
    except _UNREADABLE:
        return False


def _verify_people(connection: Connection) -> Iterator[str]:
    """A person who is gone, or whom no key leads to, would be asked and sent to as if they had never said anything."""
    rows = connection.execute(
        "SELECT DISTINCT e.address_id FROM events e LEFT JOIN people p USING (address_id) WHERE p.address_id IS NULL"
    )
    yield from (f"person {address_id.hex()} is in the ledger and nowhere else" for (address_id,) in rows)
    rows = connection.execute(
        "SELECT address_id FROM people WHERE address IS NOT NULL"
        " AND address_id NOT IN (SELECT address_id FROM address_keys)"
    )
    yield from (f"person {address_id.hex()} cannot be found by their address" for (address_id,) in rows)


_NOTICES_SHOWN = """
    SELECT DISTINCT facts ->> '$.notice', facts ->> '$.notice_sha256'
    FROM (SELECT CASE WHEN json_valid(facts) THEN facts ELSE '{}' END AS facts FROM events)
    WHERE facts ->> '$.notice_sha256' IS NOT NULL
"""


def _verify_notices(connection: Connection) -> Iterator[str]:
    """What people said yes to is only proved by the words that they met: those of the digest in the ledger."""
    texts = dict(connection.execute("SELECT name, text FROM notices"))
    for name, digest in connection.execute(_NOTICES_SHOWN):
        text = texts.get(name)
        if text is None:
            yield f"notice {name}: its text is missing"
        elif hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() != digest:
            yield f"notice {name}: the text is not the one that people met"


def _verify_anchor(connection: Connection, anchor: Anchor, key: Ed25519PublicKey) -> Iterator[str]:
    is_empty = True
    try:
        for head, signature in anchor.heads():
            is_empty = False
            yield from _verify_anchored(connection, head, signature, key)
    except ValueError as error:
        yield f"{anchor.path.name}: {error}"
        return
    if is_empty and last_head(connection, LEDGER):
        yield f"{anchor.path.name}: no segment head stands there"


def _verify_anchored(
    connection: Connection, head: SegmentHead, signature: bytes, key: Ed25519PublicKey
) -> Iterator[str]:
    stored = next(signed_heads(connection, head.chain, head.number - 1), None)
    if not _is_signed(head, signature, key):
        yield f"anchor, {head.chain} segment {head.number}: the signature is not ours"
    elif stored is None or stored[0].number != head.number:
        yield f"{head.chain} segment {head.number} was anchored and is gone"
    elif stored[0] != head:
        yield f"{head.chain} segment {head.number} is not the one that was anchored"


def _is_signed(head: SegmentHead, signature: bytes, key: Ed25519PublicKey) -> bool:
    return is_signed(head.signed_bytes(), signature, key)


def _lenient_text(octets: bytes) -> str:
    """Read text that may have been tampered with: what is no UTF-8 is found wrong by its hash, not by an exception."""
    return octets.decode("utf-8", "surrogateescape")
