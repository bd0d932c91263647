"""The header of the PROXY protocol, versions 1 and 2: for whom a load balancer has opened a connection.

The rule that must not be broken: it is read strictly and to its last octet, so that nothing of it is taken for SMTP,
and nothing of SMTP for it. Who may send one is the listener's to know; what else a header tells is not looked at. The
standard is haproxy's proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import Malformed

LONGEST_HEADER: Final = 4096
"""Octets that are read at most; addresses need 216 of them, the rest is for a balancer's own remarks."""

_V1_LIMIT: Final = 107
_V1_START: Final = b"PROXY "
_V1_LINE = re.compile(r"PROXY TCP([46]) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
_NO_ADDRESS: Final = 0x00
_ADDRESS_OCTETS: Final = {0x11: 4, 0x21: 16}
"""TCP over IPv4 and over IPv6: how long each of the two addresses is."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header: its octets, and the client's IP address and port; None where the proxy speaks for itself."""

    length: int
    client: tuple[str, int] | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header that `data` begins with; None as long as all of `data` belongs to it and more must come.

    Raises `Malformed` for what is no header, or one for anything but TCP.
    """
    if data.startswith(_V2_START):
        return _binary(data)
    if data.startswith(_V1_START):
        return _line(data)
    if _V2_START.startswith(data) or _V1_START.startswith(data):
        return None
    raise Malformed("a PROXY header should begin the connection")


def _line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_LIMIT) + 2
    if end < 2:
        if len(data) >= _V1_LIMIT:
            raise Malformed("the PROXY line does not end")
        return None
    text = data[: end - 2].decode("ascii", "replace")
    if text == "PROXY UNKNOWN" or text.startswith("PROXY UNKNOWN "):
        return ProxyHeader(end, None)
    parsed = _V1_LINE.fullmatch(text)
    if not parsed or max(int(parsed[4]), int(parsed[5])) > 65535:
        raise Malformed("the PROXY line is not one")
    client, _ = _address(parsed[2], parsed[1]), _address(parsed[3], parsed[1])
    return ProxyHeader(end, (client, int(parsed[4])))


def _address(text: str, version: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Malformed("the PROXY line has no IP address where one belongs") from error
    if address.version != int(version):
        raise Malformed("the PROXY line has an address of another family")
    return str(address)


def _binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED:
        return None
    command, family, length = data[12], data[13], _V2_FIXED + int.from_bytes(data[14:16])
    octets = _ADDRESS_OCTETS.get(family, 0)
    if command not in (_LOCAL, _PROXY) or length > LONGEST_HEADER:
        raise Malformed("the PROXY header is of no known version or command, or too long")
    if command == _PROXY and family != _NO_ADDRESS and (not octets or length < _V2_FIXED + 2 * octets + 4):
        raise Malformed("the PROXY header is not for TCP, or too short for its addresses")
    if len(data) < length:
        return None
    if command == _LOCAL or not octets:
        return ProxyHeader(length, None)
    ports = _V2_FIXED + 2 * octets
    client = ipaddress.ip_address(data[_V2_FIXED : _V2_FIXED + octets])
    return ProxyHeader(length, (str(client), int.from_bytes(data[ports : ports + 2])))
