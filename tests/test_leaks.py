"""Who a message tells foreign hosts of: found in every spelling, once a message; and what is nobody's address."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import Address
from gateway.headers import split
from gateway.leaks import exposed
from gateway.mime import parse, texts

BOB = Address.parse("Bob@example.org")


def is_own(host: str) -> bool:
    return host == "example.com" or host.endswith(".example.com")


def told(url: str, address: Address = BOB, kind: str = "html") -> str:
    body = f'<a href="{url}">x</a>' if kind == "html" else f"See {url} now."
    message = f"Subject: x\r\nContent-Type: text/{kind}; charset=utf-8\r\n\r\n{body}\r\n".encode()
    block = split(message)
    return exposed(texts(message, parse(message, block)).values(), block.fields, is_own).tells_of(address)


@given(
    st.sampled_from(["bob", "b.o-b", "bob+tag", "x_1"]),
    st.sampled_from(["", "a=1&e=", "id/", "?q="]),
    st.sampled_from(["", "&z=9", "#top", "/end"]),
    st.integers(0, 2),
)
def test_an_address_is_found_whatever_stands_around_it(local: str, before: str, after: str, times: int) -> None:
    address, written = Address.parse(f"{local}@example.org"), f"{local}@example.org"
    for _ in range(times):
        written = quote(written, safe="")
    assert told(f"https://p.example/{before}{written}{after}", address) == "address"


@given(st.sampled_from(["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]), st.booleans(), st.booleans())
def test_a_digest_is_found_in_any_case(name: str, upper: bool, lowered: bool) -> None:
    text = BOB.text.lower() if lowered else BOB.text
    digest = hashlib.new(name, text.encode()).hexdigest()
    assert told(f"https://p.example/{digest.upper() if upper else digest}") == "digest"
    assert told(f"https://p.example/?h={quote(base64.b64encode(bytes.fromhex(digest)).decode())}") == "digest"


MARKS = [
    "</td>",
    "</b>",
    "<td>",
    '<a href="https://p.example/',
    '<a href="https://example.com/?',
    '"',
    "'",
    ">",
    " ",
    "&#47;",
]
pieces = st.sampled_from(
    [*MARKS, "<form", "//p.example/ ", "?u=", "%2F%2Fp.example", "bob@example.org", "mailto:", "Ann"]
)


@given(st.lists(pieces, max_size=30))
def test_what_was_read_before_hides_nothing(fragments: list[str]) -> None:
    """A page whose pieces are known leaks what the same page leaks to a reader who knows none."""
    page = "".join(fragments)
    known, unknown = told_by(page, is_own), told_by(page, lambda host: is_own(host))
    whole = told_by(f"<form>{page}", is_own)  # a form makes it read as a whole
    assert known == unknown == whole


def told_by(page: str, is_own: Callable[[str], bool]) -> str:
    message = f"Content-Type: text/html; charset=utf-8\r\n\r\n{page}\r\n".encode()
    block = split(message)
    contents = texts(message, parse(message, block)).values()
    return exposed(contents, (), is_own).tells_of(BOB)


@given(st.binary(min_size=16, max_size=64))
def test_a_token_that_means_nothing_is_nobody_s(token: bytes) -> None:
    assert told(f"https://p.example/{token.hex()}/{base64.urlsafe_b64encode(token).decode()}") == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://p.example/?e=rbob@example.org",
        "https://p.example/?e=bob@example.org.uk",
        "https://p.example/?e=alice@example.org",
        "https://www.example.com/?e=bob@example.org",
        "https://www.example.com/login?e=bob@example.org&next=https%3A%2F%2Fp.example%2F",
        "https://www.example.com/a?next=https://p.example/&e=bob@example.org",
        "mailto:bob@example.org",
    ],
)
def test_what_tells_nobody_of_this_reader(url: str) -> None:
    assert told(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.com/go?to=https%3A%2F%2Fp.example%2F%3Fe%3Dbob%2540example.org",
        "https://www.example.com/go?to=https://p.example/?e=bob@example.org",
        "https&#58;&#47;&#47;p.example/?e=bob&commat;example.org",
        "https://p.example/a b?e=bob@\nexample.org",
        "https://bob%40example.org@p.example/",
        "mailto:stop+bob=example.org@p.example",
        "//p.example/bob@example.org.png",
    ],
)
def test_a_foreign_host_is_found_behind_other_things(url: str) -> None:
    assert told(url) == "address"


def test_plain_text_and_what_is_said_beside_a_link() -> None:
    assert told("https://p.example/?e=bob@example.org", kind="plain") == "address"
    assert told("https://p.example/ bob@example.org", kind="plain") == "", "the reader's name is no link"
    message = b"Content-Type: text/html\r\n\r\nVisit https://p.example/ <b>bob@example.org</b>\r\n"
    block = split(message)
    assert exposed(texts(message, parse(message, block)).values(), block.fields, is_own).tells_of(BOB) == ""


@pytest.mark.parametrize(
    "piece", ["//", "https://p/%25", "&#47;&#47;a ", "mailto:a ", "http://www.example.com/?a=//x ", "<form "]
)
def test_no_text_is_too_odd(piece: str) -> None:
    assert told(piece * (60_000 // len(piece))) == ""
