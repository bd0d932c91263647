"""Other systems' headers, whatever stands in them: claims or one sentence for a reply; and rows that mean one thing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.dialects import dialects, vendors
from gateway.dialects import NOTHING_ASKED, SILENT, Asked, Dialects, Meaning, Unsupported, vendor_of
from gateway.headers import split

DIALECTS = dialects()
NAMES = sorted(DIALECTS.read_headers)
PATHS = sorted({".".join(rule.path) for one in DIALECTS.read_headers.values() for rule in one.rules if rule.path})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def heard(*fields: bytes) -> Asked | Unsupported:
    return DIALECTS.read(split(b"".join(b"%b\r\n" % one for one in fields) + b"\r\n"))


def holds(found: Asked | Unsupported) -> bool:
    """True for a refusal that can stand in a reply, and for claims whose words break out of nothing."""
    if isinstance(found, Unsupported):
        return found.sentence.isascii() and found.sentence.isprintable() and len(found.sentence) < 300
    assert all(one.address for one in [*map(_Kept, found.recipients)])
    return not any(
        character < " " or character == "\x7f" for one in found.claims for character in one.value + one.where
    )


class _Kept:
    """An address that was parsed and can be parsed again."""

    def __init__(self, address: Any) -> None:
        self.address = type(address).parse(address.text) == address


def test_a_message_without_such_headers_asks_nothing() -> None:
    assert heard(b"From: a@example.org", b"Subject: x", b"X-Mailer: y") is NOTHING_ASKED
    assert SILENT.read(split(b"X-SMTPAPI: {\r\n\r\n")) is NOTHING_ASKED


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.binary(max_size=80))
def test_whatever_stands_in_a_header_is_read_or_refused(name: str, value: bytes) -> None:
    assert holds(heard(name.encode() + b": " + value.replace(b"\r", b" ").replace(b"\n", b" ")))


def nested(path: str, value: Any) -> Any:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(PATHS), st.text(max_size=10), VALUES)
def test_whatever_json_says_is_read_or_refused(name: str, path: str, wild: str, value: Any) -> None:
    document = json.dumps(nested(path.replace("*", wild), value))
    assert holds(heard(f"{name}: {document}".encode("utf-8", "surrogatepass")))


def test_what_json_says_breaks_out_of_nothing() -> None:
    found = heard(b'X-MSYS-API: {"campaign_id": "a\\r\\nBcc: b@example.org\\u0000"}')
    assert isinstance(found, Asked) and found.campaign == "a Bcc: b@example.org"


@pytest.mark.parametrize(
    "wrong",
    [
        {"means": ["unheard-of"]},
        {"means": ["class"]},
        {"means": ["nothing"], "classes": {"a": "essential"}},
        {"means": ["class"], "classes": {"a": "account"}},
        {"means": ["campaign"], "name": "X-A-*"},
        {"means": ["nothing"], "reads": "json"},
        {"means": ["nothing"], "unles": ["no"]},
        {"means": ["nothing"], "says": None},
        {"members": [{"path": "a", "means": ["nothing"], "says": "x", "is": "date"}]},
        {"members": [{"path": "a", "means": ["nothing"], "says": "x", "off": True}]},
        {},
    ],
)
def test_a_row_that_contradicts_itself_is_no_row(wrong: dict[str, Any]) -> None:
    row = {"name": "X-A", **({} if "members" in wrong else {"says": "x"}), **wrong}
    with pytest.raises(ValueError):
        vendor_of(
            "v", {"name": "V", "sources": [], "headers": [{key: row[key] for key in row if row[key] is not None}]}
        )


def test_two_vendors_cannot_mean_different_things_by_one_header() -> None:
    row = {"name": "X-A", "means": ["campaign"], "says": "x"}
    both = [vendor_of(key, {"name": key, "sources": [], "headers": [row]}) for key in ("a", "b")]
    with pytest.raises(ValueError, match="X-A is described by a and by b"):
        Dialects.of(both)


def test_no_row_means_nothing_and_something_at_once() -> None:
    rules = [rule for vendor in vendors() for header in vendor.headers for rule in header.rules]
    assert not [one for one in rules if Meaning.NOTHING in one.meanings and len(one.meanings) > 1]
