"""Where a client comes from: its address as the socket says it, or as a load balancer does that must say it.

The rule that must not be broken: a PROXY header is believed from the configured addresses only, and from them nothing
else is heard first. What follows from an address is left to whoever asks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import lru_cache

from gateway.dialogue.proxy import LONGEST_HEADER, read_proxy_header

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Peer = tuple[str, int]
"""IP address and port."""


def peer_of(name: object) -> Peer:
    """Return the peer of a socket's name; an IPv4 address that came through an IPv6 socket is an IPv4 address."""
    if not isinstance(name, tuple):
        return "", 0
    return _plain(name[0]), name[1]


def _plain(ip: str) -> str:
    return ip.removeprefix("::ffff:") if "." in ip else ip


@lru_cache(maxsize=4096)
def is_within(ip: str, networks: tuple[Network, ...]) -> bool:
    return bool(ip) and any(ipaddress.ip_address(ip) in network for network in networks)


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """Return whom an address stands for: itself, or its /64, of which an IPv6 host has all addresses to choose from."""
    if ":" not in ip:
        return ip
    return str(ipaddress.ip_network((ip.partition("%")[0], 64), strict=False))


async def introduction(sock: socket.socket) -> Peer | None:
    """Take the PROXY header from a connection, and leave what follows it; None where the proxy speaks for itself.

    Raises `Malformed` where there is none, `OSError` where the connection ends before it.
    """
    taken = b""
    while True:
        await _readable(sock)
        seen = sock.recv(LONGEST_HEADER, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError("the proxy has gone")
        header = read_proxy_header(taken + seen)
        if header:
            sock.recv(header.length - len(taken))
            return (_plain(header.client[0]), header.client[1]) if header.client else None
        taken += sock.recv(len(seen))


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def look() -> None:
        loop.remove_reader(sock)
        ready.set_result(None)

    loop.add_reader(sock, look)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
