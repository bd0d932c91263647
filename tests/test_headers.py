"""The header block: read at its edges, edited line by line, every other byte left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Malformed
from gateway.headers import (
    HEADER_LIMIT,
    SINGLETONS,
    Field,
    entries,
    is_too_long,
    mailboxes,
    make,
    repeated_singletons,
    split,
)

ODD = (
    b"X-Folded:\r\n\twith a tab\r\n  and two  spaces\t\r\nFROM :  News\t<n@example.com>\r\n"
    b"this is no field\r\n and neither is this\r\nX-Empty:\r\nX-Bytes: \xe4\xff\r\n\r\nbody: none\r\n"
)


def test_names_are_lower_case_and_bytes_are_kept() -> None:
    block = split(ODD)
    assert [field.name for field in block.fields] == ["x-folded", "from", "", "x-empty", "x-bytes"]
    assert block.fields[1].raw == b"FROM :  News\t<n@example.com>\r\n"
    assert ODD[block.body :] == b"body: none\r\n"


def test_a_value_is_unfolded_and_stripped() -> None:
    block = split(ODD)
    assert block.fields[0].value == b"with a tab  and two  spaces"
    assert block.fields[2].value == b""
    assert block.fields[3].value == b""


@pytest.mark.req("HDR-07")
@given(st.lists(st.binary(max_size=30), max_size=12), st.binary(max_size=20))
def test_no_byte_of_a_header_is_lost_or_changed(lines: list[bytes], body: bytes) -> None:
    message = b"\r\n".join(lines) + body
    block = split(message)
    header, rest = b"".join(field.raw for field in block.fields), message[block.body :]
    assert message in (header + rest, header + b"\r\n" + rest)
    assert all(field.raw for field in block.fields)


def test_a_block_within_a_message_counts_from_the_first_octet() -> None:
    message = b"--b\r\nA: 1\r\n\r\ntext\r\n--b\r\n\r\nplain"
    assert split(message, 5).body == 13
    assert split(message, 24) == split(message, 24, len(message))
    assert (split(message, 24).fields, split(message, 24).body) == ((), 26)


def test_a_message_without_an_empty_line_is_all_header() -> None:
    block = split(b"Subject: x\r\n y")
    assert block.fields == (Field("subject", b"Subject: x\r\n y"),)
    assert block.body == len(b"Subject: x\r\n y")


def test_a_message_that_begins_with_a_continuation_is_read() -> None:
    assert [field.name for field in split(b" lost\r\nSubject: x\r\n\r\n").fields] == ["", "subject"]


def test_first_is_the_topmost_and_all_are_in_order() -> None:
    block = split(b"A: 1\r\nB: 2\r\na: 3\r\n\r\n")
    first = block.first("a")
    assert first and first.value == b"1"
    assert [field.value for field in block.all("a")] == [b"1", b"3"]
    assert block.first("c") is None and block.all("c") == []


@pytest.mark.req("HDR-07")
def test_what_is_not_removed_keeps_its_bytes_and_order() -> None:
    kept = split(ODD).without(lambda field: field.name == "x-empty")
    assert (
        b"".join(field.raw for field in kept) == ODD.partition(b"\r\n\r\n")[0].replace(b"X-Empty:\r\n", b"") + b"\r\n"
    )


@pytest.mark.req("HDR-08")
@pytest.mark.parametrize("name", sorted(SINGLETONS))
def test_a_singleton_that_stands_twice_is_named(name: str) -> None:
    block = split(f"{name}: a\r\nReceived: x\r\nReceived: y\r\n{name.upper()} : b\r\n\r\n".encode())
    assert repeated_singletons(block) == [name]


@pytest.mark.req("HDR-08")
def test_fields_that_may_repeat_are_not_named() -> None:
    assert repeated_singletons(split(b"Received: a\r\nReceived: b\r\nX: a\r\nX: b\r\nFrom: c\r\n\r\n")) == []


def test_the_limit_is_postfix_s() -> None:
    assert HEADER_LIMIT == 102400


def test_a_header_is_too_long_from_one_octet_past_the_limit_wherever_it_begins() -> None:
    for octets, is_over in ((HEADER_LIMIT, False), (HEADER_LIMIT + 1, True)):
        header = b"X: " + b"x" * (octets - len("X: \r\n")) + b"\r\n"
        assert is_too_long(header + b"\r\nbody") is is_over
        assert is_too_long(b"preamble" + header + b"\r\nbody", len(b"preamble")) is is_over
        assert is_too_long(header) is is_over, "what has no empty line is all header"
    assert not is_too_long(b"\r\n" + b"x" * 2 * HEADER_LIMIT), "a message without any header is all body"


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"news@example.com", ["news@example.com"]),
        (b"<news@example.com>", ["news@example.com"]),
        (b'"Doe, Jane" <jane@example.com>, bob@example.com', ["jane@example.com", "bob@example.com"]),
        (b"=?utf-8?q?J=C3=BCrgen?= <j@example.com>", ["j@example.com"]),
        (b"J\xc3\xbcrgen <j@example.com>", ["j@example.com"]),
        (b"J\xfcrgen <j@example.com>", ["j@example.com"]),
        (b"boss@example.net <j@example.com>", ["j@example.com"]),
        (b"John Q. Public (a (nested) comment, with <x@y.z>) <j@example.com> (done)", ["j@example.com"]),
        (
            b"Friends: a@example.com, B <b@example.com>;, c@example.com",
            ["a@example.com", "b@example.com", "c@example.com"],
        ),
        (b"undisclosed-recipients:;", []),
        (b"", []),
        (b", a@example.com, ,", ["a@example.com"]),
        (b'"odd local"@example.com', ['"odd local"@example.com']),
        (b'<"a,b>c"@example.com>', ['"a,b>c"@example.com']),
        (b"a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        ("δοκιμή@παράδειγμα.example".encode(), ["δοκιμή@παράδειγμα.example"]),
        (b"J\\ane <j@example.com>", None),
        (b"Dear customer", None),
        (b"foo bar@example.com", None),
        (b"a @ example.com", None),
        (b"<a@example.com", None),
        (b"a@example.com>", None),
        (b"<>", None),
        (b"<@relay.example,@b.example:a@example.com>", None),
        (b"<a@example.com> <b@example.com>", None),
        (b"<a@example.com> b@example.com", None),
        (b"Doe, Jane <jane@example.com>", None),
        (b"Friends: a@example.com", None),
        (b"a@example.com; b@example.com", None),
        (b"A: B: a@example.com;", None),
        (b'"open <a@example.com>', None),
        (b"(open <a@example.com>", None),
        (b"a)b <a@example.com>", None),
        (b"\xfcber@example.com", None),
        (b"a@example.com\x00", None),
    ],
)
def test_addresses_are_read_where_it_is_certain_what_they_are(value: bytes, addresses: list[str] | None) -> None:
    if addresses is None:
        with pytest.raises(Malformed):
            mailboxes(value)
    else:
        assert [address.text for address in mailboxes(value)] == addresses


@given(st.binary(max_size=60) | st.text('a@.,;:<>()"\\ []\u0085é', max_size=40).map(str.encode))
def test_an_address_list_is_read_or_malformed_and_nothing_else(value: bytes) -> None:
    try:
        found = entries(value)
    except Malformed:
        return
    text = value.decode("utf-8", "surrogateescape")
    assert all(entry.address.text in entry.text and entry.text in text for entry in found)


@given(st.text("ab \r\n\0\t\x0b\x0c\x85\u2028", max_size=12))
def test_a_new_field_is_one_field_or_refused(value: str) -> None:
    try:
        field = make("X-New", value.encode())
    except ValueError:
        return
    block = split(b"A: 1\r\n" + field.raw + b"B: 2\r\n\r\n")
    assert [one.name for one in block.fields] == ["a", "x-new", "b"]
    assert field.raw.count(b"\n") == field.raw.count(b"\r") == field.raw.count(b"\r\n")
