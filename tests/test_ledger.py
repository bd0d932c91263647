"""The ledger's arithmetic, against known answers: whoever changes one of these breaks every ledger that is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.consent import Event, EventType
from gateway.ledger import (
    NO_SEGMENT,
    SegmentHead,
    break_in_chain,
    canonical_json,
    columns_of,
    commitment,
    leaf,
    leaf_of,
    merkle_root,
    seal,
    timestamp,
)
from gateway.model import Scope

pytestmark = pytest.mark.req("CON-06")

AT = datetime(2026, 11, 22, 12, 0, 0, 5, UTC)
EVENT = Event(
    seq=7,
    type=EventType.UNSUBSCRIBE,
    address_id=bytes(range(16)),
    at=AT,
    recorded_at=AT + timedelta(seconds=1),
    topic="news",
    scope=Scope.TOPIC,
    facts={"channel": "one-click", "notice": 3},
    personal={"ip": "192.0.2.1"},
)
COMMITTED = commitment(b"s" * 16, {"ip": "192.0.2.1", "page": "Grüße"})

# The tree heads of Certificate Transparency's published test vectors (RFC 9162 §2.1), over these eight entries.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def event_leaf(event: Event, committed: bytes) -> bytes:
    return leaf_of(columns_of(event), committed)


@pytest.mark.parametrize("size", range(1, 9))
def test_merkle_roots_are_those_of_rfc_9162(size: int) -> None:
    assert merkle_root([leaf(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size - 1]


def _as_the_standard_says(entries: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, word for word: split at the largest power of two smaller than n."""
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _as_the_standard_says(entries[:k]) + _as_the_standard_says(entries[k:])).digest()


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=70))
def test_merkle_roots_agree_with_the_standards_definition(entries: list[bytes]) -> None:
    assert merkle_root([leaf(entry) for entry in entries]) == _as_the_standard_says(entries)


def test_the_hashes_are_for_ever() -> None:
    assert COMMITTED.hex() == "b41a89c67f38afa34c1e6ea35090f87e9d3c558efa7e7e1ae1723898b658f42a"
    assert event_leaf(EVENT, COMMITTED).hex() == "6ac6dc40d69f935d67f08eb02922886406088c12d8ebfd55ba8b9af62a4de5c1"
    head = seal("ledger", [event_leaf(EVENT, COMMITTED)], 7, 7, None, AT)
    assert head.digest() == "492af5958c252abdb5ed031f6295c2536f06059a62677ccfd687301b6cc644c0"


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": [1, None, True], "a": {"ü": "\n"}}) == '{"a":{"ü":"\\n"},"b":[1,null,true]}'.encode()


def test_canonical_json_spells_every_character_and_number_as_the_standard_library_does() -> None:
    texts = ["".join(map(chr, range(first, first + 0x400))) for first in range(0, 0x110000, 0x400)]
    numbers = [0, -1, 2**63, 2**64 - 1, -(2**63), 2**64, 10**30, 0.1, 1e16, 1e-7, 3.0, True]
    for value in (*texts, *numbers, texts[:2], {"b": 1e22, "a": [1e22]}, Scope.TOPIC, None):
        told = {"ü": value, "z": 1, "\U0001f600": 2, "\uffff": 3, texts[-1]: 4}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert canonical_json(told) == text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("topic", ["news", 'a"\\\n', "\ud800", ""])
def test_the_hash_of_an_event_is_that_of_its_canonical_json(topic: str) -> None:
    line = {
        **{"v": 1, "seq": 7, "type": "UNSUBSCRIBE", "who": bytes(range(16)).hex(), "topic": topic, "scope": "topic"},
        **{"at": timestamp(AT), "recorded_at": timestamp(AT + timedelta(seconds=1)), "commitment": COMMITTED.hex()},
        "facts": EVENT.facts,
    }
    assert event_leaf(replace(EVENT, topic=topic), COMMITTED) == leaf(canonical_json(line))
    assert event_leaf(replace(EVENT, scope=None), COMMITTED) == leaf(
        canonical_json({**line, "topic": EVENT.topic, "scope": None})
    )


def test_a_time_is_spelled_in_utc_wherever_it_was_told() -> None:
    told = datetime(2026, 11, 22, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(told) == timestamp(told.astimezone(UTC)) == "2026-11-22T12:00:00.000000+00:00"
    assert event_leaf(replace(EVENT, at=told), COMMITTED) == event_leaf(
        replace(EVENT, at=told.astimezone(UTC)), COMMITTED
    )


@pytest.mark.parametrize(
    "changed",
    [
        replace(EVENT, seq=8),
        replace(EVENT, type=EventType.OBJECTION),
        replace(EVENT, address_id=bytes(16)),
        replace(EVENT, at=AT + timedelta(microseconds=1)),
        replace(EVENT, recorded_at=AT),
        replace(EVENT, topic="news2"),
        replace(EVENT, scope=None),
        replace(EVENT, facts={"channel": "one-click", "notice": 4}),
        replace(EVENT, facts={}),
    ],
)
def test_every_public_field_is_in_an_events_hash(changed: Event) -> None:
    assert event_leaf(changed, COMMITTED) != event_leaf(EVENT, COMMITTED)


@pytest.mark.req("CON-07")
def test_personal_fields_are_in_it_through_their_commitment_only() -> None:
    assert event_leaf(replace(EVENT, personal=None), COMMITTED) == event_leaf(EVENT, COMMITTED)
    assert event_leaf(EVENT, commitment(b"s" * 16, {})) != event_leaf(EVENT, COMMITTED)
    assert commitment(b"t" * 16, {"ip": "192.0.2.1"}) != commitment(b"s" * 16, {"ip": "192.0.2.1"})


def chain(length: int) -> list[SegmentHead]:
    heads: list[SegmentHead] = []
    for number in range(length):
        first = number * 2 + 1
        heads.append(seal("ledger", [leaf(b"a"), leaf(b"b")], first, first + 1, heads[-1] if heads else None, AT))
    return heads


def test_a_chain_holds_together_and_its_first_names_nobody() -> None:
    assert break_in_chain([]) is None
    assert break_in_chain(chain(4)) is None
    assert chain(1)[0].previous == NO_SEGMENT


def test_a_break_in_a_chain_is_named() -> None:
    heads = chain(4)
    assert break_in_chain(heads[1:]) == "ledger segment 1 is missing"
    assert break_in_chain([*heads[:1], *heads[2:]]) == "ledger segment 2 is missing"
    assert break_in_chain([heads[1], heads[0]]) == "ledger segment 1 is missing"
    edited = [heads[0], replace(heads[1], root="0" * 64), *heads[2:]]
    assert break_in_chain(edited) == "ledger segment 3 does not follow segment 2"
    gap = seal("ledger", [leaf(b"a")], 10, 10, heads[-1], AT)
    assert break_in_chain([*heads, gap]) == "ledger segment 5 begins at line 10, not at 9"
