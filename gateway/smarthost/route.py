"""One address of a smarthost: how a connection to it is opened, and how long it is left alone when it is down.

The one rule: TLS with a verified certificate, or no connection; only a loopback address may be spoken to in clear.
An address that failed rests for a second, then twice as long each time up to a minute, with one caller at a time
finding out whether it is back. Which address is tried is left to `pool`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from gateway.errors import RelayUnavailable
from gateway.model import Alphabet, Copy, Reply, Smarthost
from gateway.smarthost.conversation import BrokenOff, Security, Timeouts, alphabet_of, opening, transaction
from gateway.smarthost.line import Line, dial
from gateway.smarthost.maildir import Maildir

log = logging.getLogger(__name__)

_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
_LONGEST_REST = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A smarthost's url, taken apart."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Take apart smtp://host[:port], smtps://…, lmtp://… or maildir:PATH. Raises `ValueError` for anything else."""
        parts = urlsplit(url)
        if parts.scheme == "maildir" and parts.path and not parts.netloc:
            return cls("maildir", path=parts.path)
        if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.path.strip("/"):
            raise ValueError(f"{url} is not smtp://host:port, smtps://host:port, lmtp://host:port or maildir:PATH")
        return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """By what is written, never by what DNS says."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def server(self) -> str:
        """The host as replies and reports name it, an address in brackets (RFC 5321 §4.1.3); "" for a folder."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host
        return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"

    @property
    def is_lmtp(self) -> bool:
        return self.scheme == "lmtp"

    def __str__(self) -> str:
        if self.scheme == "maildir":
            return f"maildir:{self.path}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Terms:
    """How we speak to every address of a smarthost: our name, our patience."""

    smarthost: Smarthost
    hostname: str
    timeouts: Timeouts

    @property
    def credentials(self) -> tuple[str, str] | None:
        return (self.smarthost.username, self.smarthost.password) if self.smarthost.username else None

    def security(self, endpoint: Endpoint) -> Security:
        """TLS, but for loopback; whoever names authorities wants it there as well."""
        if endpoint.scheme == "smtps":
            return Security.IMPLICIT
        return Security.CLEAR if endpoint.is_loopback and not self.smarthost.authorities else Security.STARTTLS


class Carrier(Protocol):
    """What takes copies: an SMTP or LMTP session, or a maildir."""

    @property
    def extensions(self) -> frozenset[str]: ...
    @property
    def alphabet(self) -> Alphabet: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_kept_open(self) -> bool: ...
    async def relay(self, copy: Copy) -> tuple[Reply, ...]: ...
    def rest(self) -> None: ...
    def quit(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Session:
    """A connection that was greeted and logged in, good for as many copies as the smarthost allows."""

    is_kept_open = False

    def __init__(self, line: Line, extensions: frozenset[str], endpoint: Endpoint, terms: Terms) -> None:
        self.extensions = extensions
        self.alphabet = alphabet_of(extensions)
        self._line = line
        self._lmtp = endpoint.is_lmtp
        self._left = terms.smarthost.messages_per_connection
        self._timeouts = terms.timeouts

    @property
    def is_open(self) -> bool:
        return self._left > 0 and self._line.is_open

    async def relay(self, copy: Copy) -> tuple[Reply, ...]:
        kept_open, self.is_kept_open = self.is_kept_open, True
        self._left -= 1
        return await self._line.converse(
            transaction(copy, self.extensions, lmtp=self._lmtp, kept_open=kept_open, timeouts=self._timeouts)
        )

    def rest(self) -> None:
        self.is_kept_open = True
        self._line.rest()

    def quit(self) -> None:
        self._line.quit()

    async def wait_closed(self) -> None:
        await self._line.closed


class Route:
    """An endpoint with its health."""

    def __init__(self, endpoint: Endpoint, terms: Terms, tls: ssl.SSLContext) -> None:
        self._endpoint = endpoint
        self._terms = terms
        self._tls = tls
        self.server = endpoint.server
        self.problem = ""
        """What was wrong when it was last tried, naming the address; "" while nothing speaks against it."""
        self._failures = 0
        self._rests_until = 0.0
        self._trial: Carrier | None = None

    @property
    def rest_left(self) -> float:
        """Seconds until it is worth trying again; 0 while nothing speaks against it."""
        return max(0.0, self._rests_until - _now()) if self._failures else 0.0

    async def open(self) -> Carrier:
        """Open a connection. Raises `RelayUnavailable` where that fails; `problem` says why."""
        is_trial = self._failures > 0
        if is_trial:
            # Whoever tries it out keeps the others away meanwhile.
            self._rest()
        try:
            async with asyncio.timeout(self._terms.timeouts.opening):
                carrier = await self._open()
        except (RelayUnavailable, TimeoutError) as error:
            self._failed(str(error) or "too slow")
            raise RelayUnavailable(self.problem) from error
        self._trial = carrier if is_trial else None
        return carrier

    async def relay(self, carrier: Carrier, copy: Copy) -> tuple[Reply, ...]:
        """Relay over a connection of this route, and learn from it whether the address works.

        It works once it has answered about a copy on a fresh connection; one that is lost before is one more failure.
        What a connection of old answers does not say that more of them are welcome, and one that is lost in the middle
        of a copy says nothing of the address: other copies go on.
        """
        is_fresh = not carrier.is_kept_open
        self._trial = None
        try:
            replies = await carrier.relay(copy)
        except BrokenOff:
            raise
        except RelayUnavailable as error:
            if is_fresh:
                self._failed(str(error))
            raise
        if is_fresh:
            self._recovered()
        return replies

    def spared(self, carrier: Carrier) -> None:
        """Learn that a connection was opened and no copy came: a trial that says nothing may be repeated at once."""
        if carrier is self._trial:
            self._trial = None
            self._failures -= 1
            self._rests_until = 0.0

    def _recovered(self) -> None:
        self._failures = 0
        if self.problem:
            log.info("%s takes mail again", self._endpoint)
            self.problem = ""

    def _failed(self, why: str) -> None:
        """Remember what is wrong; the log hears of it once, and of its end."""
        if not self.problem:
            log.warning("%s does not take more mail now: %s", self._endpoint, why)
        self.problem = f"{self._endpoint}: {why}"
        self._rest()

    def _rest(self) -> None:
        """Leave the address alone for a while; failures that come while it rests are the same failure."""
        if not self.rest_left:
            self._rests_until = _now() + min(2.0**self._failures, _LONGEST_REST)
            self._failures += 1

    async def _open(self) -> Carrier:
        endpoint, terms = self._endpoint, self._terms
        if endpoint.scheme == "maildir":
            return Maildir(Path(endpoint.path))
        line = await dial(endpoint.host, endpoint.port, self._tls, terms.timeouts)
        greeting = opening(
            terms.hostname,
            lmtp=endpoint.is_lmtp,
            security=terms.security(endpoint),
            credentials=terms.credentials,
            timeouts=terms.timeouts,
        )
        return Session(line, await line.converse(greeting), endpoint, terms)


def _now() -> float:
    return asyncio.get_running_loop().time()
