"""Tell the tool that sent a message of its recipient's "no": the one-click POST of RFC 8058 to its own URL (UNS-36).

The rule that must not be broken: nothing is posted but to a host that the operator has listed for the login, and there
to no address inside the company's network or this machine unless that address is listed too. Whatever a message's
author writes, and whatever DNS says, nothing else is reached; and the URL, which may name its person, is in no log.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Collection
from datetime import timedelta
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from gateway.store import People
from gateway.store.outgoing import TOOL, NewCall, ToolLink
from gateway.webhooks.caller import Answer, Caller, Post

_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}
_ONE_CLICK = b"List-Unsubscribe=One-Click"
_RETRY = tuple(timedelta(seconds=one) for one in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400))

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def call_of(who: str, link: ToolLink) -> NewCall:
    """Return the call that tells a tool of a person's "no"."""
    host = urlsplit(link.url).hostname or ""
    return NewCall(f"{TOOL}{host}", f"{TOOL}{who}", json.dumps([link.login, link.url]))


class Tool:
    """One host of marketing tools."""

    retry = _RETRY
    ends_when_gone = True

    def __init__(self, host: str, people: People) -> None:
        self._host = host
        self._people = people
        self._listed: frozenset[str] = frozenset()
        self._caller = Caller(resolver=_Guarded(self))

    async def call(self, content: str) -> Answer | None:
        """Post to the URL of one message; None where the login may not have it called any more."""
        login, url = json.loads(content)
        record = await self._people.login(login)
        self._listed = frozenset(record.login.tool_hosts if record else ())
        literal = _address(self._host)
        if self._host not in self._listed or (literal and not self.may_reach(literal)):
            return None
        return await self._caller.post(Post(url, _ONE_CLICK, _HEADERS))

    def may_reach(self, address: Address) -> bool:
        return may_reach(address, self._listed)

    async def close(self) -> None:
        await self._caller.close()


def may_reach(address: Address, listed: Collection[str]) -> bool:
    """True for an address of the internet; one of another network, or this machine, has to be listed as such."""
    meant = _embedded(address) or address
    if str(meant) in listed or (meant.is_loopback and "localhost" in listed):
        return True
    return meant.is_global and not meant.is_multicast


def _embedded(address: Address) -> Address | None:
    """Return the IPv4 address that an IPv6 one leads to: mapped, by 6to4, or by NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class _Guarded(AbstractResolver):
    """Asks the system for a host's addresses, and tells only those that may be reached; what is told is used."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._system = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        reachable = [one for one in found if self._tool.may_reach(ipaddress.ip_address(one["host"]))]
        if not reachable:
            raise OSError(None, "its address is inside a network, and not listed among the login's tool hosts")
        return reachable

    async def close(self) -> None:
        await self._system.close()
