"""Asks DNS, by dnspython: TXT records, addresses, and the names of addresses.

The rule: a name that is not there and a server that does not answer are two answers, `()` and `None`. Nothing waits
longer than `PATIENCE`, and nothing on the path of a message asks at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from dns.asyncresolver import Resolver as AsyncResolver
from dns.exception import DNSException
from dns.name import from_text
from dns.nameserver import Do53Nameserver
from dns.resolver import NXDOMAIN, NoAnswer
from dns.reversename import from_address

from gateway.published import Texts

PATIENCE: Final = 4.0
"""Seconds for one question, however many servers are asked."""

IP = IPv4Address | IPv6Address


class Resolver:
    """Asks these servers, given as address and port; those of /etc/resolv.conf where there are none."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._servers = [Do53Nameserver(address, port) for address, port in servers]

    async def texts(self, name: str) -> Texts:
        """Return the TXT records at a name, each joined from its strings."""
        found = await self._ask(name, "TXT")
        return None if found is None else tuple(b"".join(one.strings).decode("utf-8", "replace") for one in found)

    async def addresses(self, host: str) -> Sequence[IP] | None:
        """Return the addresses of a host, of both families."""
        of_4, of_6 = await self._ask(host, "A"), await self._ask(host, "AAAA")
        if of_4 is None or of_6 is None:
            return None
        return [ip_address(one.address) for one in (*of_4, *of_6)]

    async def names(self, address: IP) -> Sequence[str] | None:
        """Return the names that an address is published under (PTR), without the dot at their end."""
        found = await self._ask(str(from_address(str(address))), "PTR")
        return None if found is None else [str(one.target).rstrip(".").lower() for one in found]

    async def _ask(self, name: str, kind: str) -> Sequence[Any] | None:
        try:
            resolver = AsyncResolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = self._servers
            return tuple(await resolver.resolve(from_text(f"{name.rstrip('.')}."), kind, lifetime=PATIENCE))
        except (NXDOMAIN, NoAnswer):
            return ()
        except (DNSException, OSError):
            return None
