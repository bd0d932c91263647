"""What the configuration says, as frozen values: `Config` and the parts of it that are no nouns of the model.

Every value here has been read, checked and given its unit: paths are absolute, sizes are octets, durations are
`timedelta`, domains are lower-case A-labels. Secrets never show in a `repr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.address import Address
from gateway.announcements import Webhook
from gateway.law import Law
from gateway.model import Company, Pace, Period, Smarthost, Stream, Topic
from gateway.retention import Retention

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener is bound. Port 0 lets the system choose."""

    ip: IPv4Address | IPv6Address
    port: int

    @property
    def host(self) -> str:
        return str(self.ip)

    def collides_with(self, other: ListenAddress) -> bool:
        """True where the system would not bind both; every address of a family includes each one."""
        if not self.port or self.port != other.port or self.ip.version != other.ip.version:
            return False
        return self.ip == other.ip or self.ip.is_unspecified or other.ip.is_unspecified

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM; they belong together."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class SubmissionConfig:
    """Where logins submit; without TLS, only the networks of `plaintext_from` may log in (SMTP-03)."""

    listen: tuple[ListenAddress, ...]
    listen_tls: tuple[ListenAddress, ...]
    tls: TlsFiles | None
    plaintext_from: tuple[Network, ...]
    proxy_from: tuple[Network, ...]
    max_message_size: int
    max_recipients: int
    max_hops: int
    timeout: timedelta
    connections_per_address: int
    connection_rate: Pace | None
    message_rate: Pace | None


@dataclass(frozen=True, slots=True)
class FeedbackConfig:
    """Where the world's answers come in: anyone, for addresses at `domain` only."""

    listen: tuple[ListenAddress, ...]
    domain: str


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The site that recipients click. `public_url` has no slash at its end."""

    listen: tuple[ListenAddress, ...]
    public_url: str
    tls: TlsFiles | None
    trusted_proxies: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class ConsolePassword:
    """What opens the console's pages; the text is "" while its file has not been made."""

    path: Path
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """Where operators and programs look in; never on the public listener. Without a password there are no pages."""

    listen: tuple[ListenAddress, ...]
    password: ConsolePassword | None


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key that was read and found fit; None while there is no file."""

    path: Path
    private: RSAPrivateKey | Ed25519PrivateKey | None = field(default=None, repr=False)

    @property
    def rsa_bits(self) -> int:
        """The length of an RSA key; 0 for Ed25519 and while there is none."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 0


@dataclass(frozen=True, slots=True)
class DkimSelector:
    """One published key (RFC 6376 §3.1); one that no longer signs is still published."""

    name: str
    key: DkimKey
    signs: bool = True


@dataclass(frozen=True, slots=True)
class DkimDomain:
    """A domain that signs: `d=`, its keys in order, `i=` ("" leaves the tag out), and what it signs besides."""

    name: str
    selectors: tuple[DkimSelector, ...]
    identity: str = ""
    also_sign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Whom to ask what is published, the system's servers where there are none, and where mail leaves to the world."""

    servers: tuple[ListenAddress, ...]
    check_keys: timedelta
    sending_ips: tuple[IPv4Address | IPv6Address, ...]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The servers, each as address and port."""
        return [(one.host, one.port) for one in self.servers]


@dataclass(frozen=True, slots=True)
class Config:
    """One installation as its operator wants it; `load` is the only maker."""

    path: Path
    hostname: str
    workers: int
    data_dir: Path
    database: str
    company: Company
    submission: SubmissionConfig
    smarthosts: Mapping[str, Smarthost]
    feedback: FeedbackConfig | None
    site: SiteConfig | None
    console: ConsoleConfig | None
    dkim: Mapping[str, DkimDomain]
    dns: DnsConfig
    topics: Mapping[str, Topic]
    streams: Mapping[str, Stream]
    law: Law
    retention: Retention
    ask_again: Period
    block_related: frozenset[str]
    webhooks: Mapping[str, Webhook]
    warnings: tuple[str, ...] = ()

    def blocks_related(self, address: Address) -> bool:
        """True where a "no" of one spelling of this mailbox counts for the others (SUP-04)."""
        return address.key.rpartition("@")[2] in self.block_related

    def topic(self, slug: str) -> Topic | None:
        """Return a topic; None for a slug that the file does not (or no longer) name."""
        return self.topics.get(slug)

    def dkim_domain_for(self, domain: str) -> str | None:
        """Return the `d=` that is aligned with a From domain: itself or the nearest parent that has keys (DKIM-14)."""
        return next((name for name in _upwards(domain) if name in self.dkim), None)

    @property
    def promotional_streams(self) -> tuple[Stream, ...]:
        return tuple(stream for stream in self.streams.values() if stream.is_promotional)


def is_within(domain: str, parent: str) -> bool:
    """True for the domain itself and for one below it: a dot stands between."""
    return parent in _upwards(domain)


def _upwards(domain: str) -> Iterator[str]:
    while domain:
        yield domain
        domain = domain.partition(".")[2]
