"""The PROXY header: both versions, in pieces of any size, and everything that is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialogue.proxy import LONGEST_HEADER, ProxyHeader, read_proxy_header
from gateway.errors import Malformed

START = b"\r\n\r\n\0\r\nQUIT\n"
V4 = ipaddress.ip_address("192.0.2.7").packed + ipaddress.ip_address("10.0.0.1").packed + b"\x1f\x90\x02\x4b"
V6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("::1").packed + b"\x1f\x90\x02\x4b"


def binary(command: int, family: int, rest: bytes) -> bytes:
    return START + bytes([command, family]) + len(rest).to_bytes(2) + rest


GOOD = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 587\r\n", ("192.0.2.7", 8080)),
    (b"PROXY TCP6 2001:DB8::7 ::1 0 65535\r\n", ("2001:db8::7", 0)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (binary(0x21, 0x11, V4), ("192.0.2.7", 8080)),
    (binary(0x21, 0x11, V4 + b"\x20\x00\x02ab"), ("192.0.2.7", 8080)),
    (binary(0x21, 0x21, V6), ("2001:db8::7", 8080)),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, V4), None),
    (binary(0x21, 0x00, b"whatever"), None),
]
BAD = [
    b"EHLO tool.example.net\r\n",
    b"proxy TCP4 192.0.2.7 10.0.0.1 8080 587\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n",
    b"PROXY TCP4  192.0.2.7 10.0.0.1 8080 587\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 08080 587\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 587\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 8080 587\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 8080 587\r\n",
    b"PROXY TCP4 192.0.2.007 10.0.0.1 8080 587\r\n",
    b"PROXY TCP4 192.0.2.7 nobody 8080 587\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 8080 587\r\n",
    b"PROXY UNKNOWNEHLO\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 587\nEHLO tool\r\n",
    b"PROXY TCP4 " + b"1" * 107,
    binary(0x11, 0x11, V4),
    binary(0x22, 0x11, V4),
    binary(0x21, 0x12, V4),
    binary(0x21, 0x31, bytes(216)),
    binary(0x21, 0x11, V4[:-1]),
    binary(0x21, 0x21, V4),
    binary(0x21, 0x11, bytes(LONGEST_HEADER)),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header_is_read_to_its_last_octet_and_no_further(header: bytes, client: tuple[str, int] | None) -> None:
    for follows in (b"", b"EHLO tool\r\n", START):
        assert read_proxy_header(header + follows) == ProxyHeader(len(header), client)
    for length in range(len(header)):
        assert read_proxy_header(header[:length]) is None, "the rest must be waited for"


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(Malformed):
        read_proxy_header(header)


@given(st.binary(max_size=200) | st.sampled_from([good for good, _ in GOOD]).flatmap(
    lambda good: st.tuples(st.just(good), st.integers(0, len(good) - 1), st.integers(0, 255)).map(
        lambda changed: changed[0][: changed[1]] + bytes([changed[2]]) + changed[0][changed[1] + 1 :]
    )
))  # fmt: skip
def test_whatever_comes_is_a_header_or_the_beginning_of_one_or_malformed(data: bytes) -> None:
    try:
        header = read_proxy_header(data)
    except Malformed:
        return
    assert header is None or header.length <= len(data)
    if header and header.client:
        assert ipaddress.ip_address(header.client[0]) and 0 <= header.client[1] <= 65535
