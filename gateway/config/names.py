"""Names, hosts, addresses, networks and urls, as the file writes them.

Domains become lower-case A-labels (`Address.key`), so that what is compared later is compared in one form. Nothing
here asks DNS.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from gateway.address import Address
from gateway.announcements import Happening
from gateway.config.kinds import choice, line, many, shown, word, written
from gateway.config.values import ListenAddress, Network
from gateway.errors import Malformed
from gateway.model import MessageClass
from gateway.providers import PROVIDERS


def _slug(text: str) -> str | None:
    return text if re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text) else None


SLUG = word("a name", '"special-offers": lower-case letters, digits and hyphens, at most 63', _slug)


def _host_name(text: str) -> str | None:
    """Return a host name as A-labels. An address literal is none."""
    try:
        found = Address.parse(f"postmaster@{text}")
    except Malformed:
        return None
    return None if found.domain != text or text.startswith("[") else found.key.partition("@")[2]


HOST_NAME = word("a full host name", '"mail.example.com"', _host_name)
DOMAIN = word("a domain", '"example.com"', _host_name)


def _tool_host(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text if text == "localhost" else _host_name(text)


TOOL_HOST = word("a host name or an IP address", '"mautic.example.com" or "10.0.0.5"', _tool_host)


def _host_pattern(text: str) -> str | None:
    found = _host_name(text.removeprefix("*."))
    return f"*.{found}" if found and text.startswith("*.") else found


HOST_PATTERNS = many(
    word("a host name or a wildcard", '"example.com" or "*.example.com"', _host_pattern),
    "an array of host names",
    '["example.com", "*.example.com"]',
)


def _address(text: str) -> str | None:
    try:
        return Address.parse(text).text
    except Malformed as error:
        raise ValueError(f'{shown(text)}: {error}; write "privacy@example.com"') from error


ADDRESS = word("a mail address", '"privacy@example.com"', _address)


def _address_pattern(text: str) -> str | None:
    """Return a pattern in the form of `Address.key`. Only the star is special: `?` and brackets would be misread."""
    local, at, domain = text.rpartition("@")
    host = _host_pattern(domain)
    if not at or not host or re.search(r'[?\[\]"]', local):
        return None
    try:
        Address.parse(f"{local.replace('*', 'x')}@example.com")
    except Malformed:
        return None
    return f"{unicodedata.normalize('NFC', local).lower()}@{host}"


_ADDRESS_PATTERN = word("an address or a wildcard", '"billing@example.com" or "*@news.example.com"', _address_pattern)
RETURN_PATHS = many(_ADDRESS_PATTERN, "an array of addresses", '["*@bounces.news.example.com"]')
SENDERS = many(_ADDRESS_PATTERN, "an array of addresses", '["*@news.example.com"]', at_least=1)
SLUGS = many(SLUG, "an array of topics", '["product-announcements"]')


def _identity(text: str) -> str | None:
    local, at, domain = text.rpartition("@")
    host = _host_name(domain)
    return f"{local}@{host}" if at and host and re.fullmatch(r"[A-Za-z0-9.+_-]*", local) else None


IDENTITY = word("a signing identity", '"@news.example.com"', _identity)


def _selector(text: str) -> str | None:
    label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return text if re.fullmatch(rf"{label}(?:\.{label})*", text) else None


SELECTOR = word("a selector", '"s1"', _selector)


def _signed_name(text: str) -> str | None:
    """RFC 6376 §5.4.1: what changes on the way, or was there for those on the way only, is not signed."""
    if text.lower() in {"return-path", "received", "bcc", "resent-bcc", "comments", "keywords", "dkim-signature"}:
        raise ValueError(f"{shown(text)} must not be signed (RFC 6376 §5.4.1); remove it")
    return text.lower() if re.fullmatch(r"[!-9;-~]+", text) else None


SIGNED_NAMES = many(word("a header field's name", '"X-Campaign"', _signed_name), "an array of names", '["X-Campaign"]')

MESSAGE_CLASS = word(
    "a class",
    ", ".join(f'"{one}"' for one in MessageClass),
    lambda text: MessageClass(text) if text in set(MessageClass) else None,
    MessageClass.SYSTEM,
)

# ISO 3166-1 alpha-2 as assigned in 2026: the first letter, and the second letters that it has. Laid out by hand.
# fmt: off
_COUNTRIES = {
    "A": "DEFGILMOQRSTUWXZ", "B": "ABDEFGHIJLMNOQRSTVWYZ", "C": "ACDFGHIKLMNORUVWXYZ", "D": "EJKMOZ",
    "E": "CEGHRST", "F": "IJKMOR", "G": "ABDEFGHILMNPQRSTUWY", "H": "KMNRTU", "I": "DELMNOQRST", "J": "EMOP",
    "K": "EGHIMNPRWYZ", "L": "ABCIKRSTUVY", "M": "ACDEFGHKLMNOPQRSTUVWXYZ", "N": "ACEFGILOPRUZ", "O": "M",
    "P": "AEFGHKLMNRSTWY", "Q": "A", "R": "EOSUW", "S": "ABCDEGHIJKLMNORSTVXYZ", "T": "CDFGHJKLMNORTVWZ",
    "U": "AGMSYZ", "V": "ACEGINU", "W": "FS", "Y": "ET", "Z": "AMW",
}
# fmt: on
_OFTEN_MEANT = {"UK": "GB", "EL": "GR"}


def _is_country(text: str) -> bool:
    return len(text) == 2 and text[1] in _COUNTRIES.get(text[0], "")


def _country(text: str) -> str | None:
    meant = _OFTEN_MEANT.get(text.upper(), text.upper())
    if meant != text and _is_country(meant):
        raise ValueError(f'{shown(text)} is not a country code of ISO 3166; write "{meant}"')
    if text == "EU":
        raise ValueError('"EU" is not a country; list its members where you mail, such as "DE", "FR"')
    return text if _is_country(text) else None


COUNTRY = word("a country code of ISO 3166", '"US"', _country)
COUNTRIES = many(COUNTRY, "an array of country codes", '["US", "DE"]')
PROVIDER_DOMAINS = many(choice(*PROVIDERS), "an array of mailbox providers' domains", '["gmail.com"]')


def _listen_address(text: str) -> ListenAddress | None:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    if not found or int(found[3]) > 65535:
        return None
    try:
        return ListenAddress(ipaddress.ip_address(found[1] or found[2]), int(found[3]))
    except ValueError:
        return None


_LISTEN_ADDRESS = word("an IP address and a port", '"127.0.0.1:2525" or "[::1]:2525"', _listen_address)
MAY_LISTEN = many(_LISTEN_ADDRESS, "an array of addresses", '["127.0.0.1:4650"]')
LISTEN = many(_LISTEN_ADDRESS, "an array of addresses", '["127.0.0.1:2525"]', at_least=1)


def _name_server(text: str) -> ListenAddress | None:
    address = _ip_address(text)
    return ListenAddress(address, _DNS_PORT) if address else _listen_address(text)


def _ip_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


_DNS_PORT = 53
_NAME_SERVER = word("a name server", '"192.0.2.53", "127.0.0.1:5353" or "[::1]:5353"', _name_server)
NAME_SERVERS = many(_NAME_SERVER, "an array of name servers", '["192.0.2.53"]')
_IP_ADDRESS = word("an IP address", '"192.0.2.25" or "2001:db8::25"', _ip_address)
IP_ADDRESSES = many(_IP_ADDRESS, "an array of IP addresses", '["192.0.2.25"]')


def _network(text: str) -> Network | None:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    if ipaddress.ip_interface(text).ip != meant.network_address:
        raise ValueError(f'{shown(text)} names an address inside a network; write "{meant}"')
    return meant


NETWORKS = many(word("a network", '"127.0.0.0/8" or "::1"', _network), "an array of networks", '["127.0.0.0/8", "::1"]')


def _split(text: str) -> SplitResult | None:
    """Take a url apart; None where no part of it can be right. Spaces and controls would reach headers."""
    if not text.isascii() or not text.isprintable() or set(text) & set(' <>"\\'):
        return None
    try:
        parts = urlsplit(text)
        return parts if (parts.port is None or parts.port > 0) else None
    except ValueError:
        return None


def _web_url(text: str) -> str | None:
    parts = _split(text)
    right = parts and parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    return text if right else None


WEB_URL = word("a web address", '"https://example.com/privacy"', _web_url)


def _list_link(text: str) -> str | None:
    """Return where a list header points: a page, or for a mail address its `mailto:` (RFC 2369 §2)."""
    return _web_url(text) if "://" in text else f"mailto:{_address(text)}" if text.isascii() else None


LIST_LINK = word("a web or mail address", '"https://example.com/help" or "help@example.com"', _list_link)


def _language(text: str) -> str | None:
    return text if re.fullmatch(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3}", text) else None


LANGUAGE = word("a language tag of BCP 47", '"en", "pt-BR"', _language)


def _public_url(text: str) -> str | None:
    parts = _split(text)
    if not _web_url(text) or not parts or parts.query or parts.fragment:
        return None
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{shown(text)} is not https, which one-click needs (RFC 8058 §3.1); write https://…")
    return text.rstrip("/")


PUBLIC_URL = word("a web address without query", '"https://mail.example.com"', _public_url)


def _endpoint_url(text: str) -> str | None:
    parts = _split(text)
    if not _web_url(text) or not parts or parts.fragment:
        return None
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{shown(text)} is not https, and people's addresses are sent there; write https://…")
    return text


ENDPOINT_URL = word("an endpoint's address", '"https://crm.example.com/hooks/assent"', _endpoint_url)


def _happening(text: str) -> Happening | None:
    return Happening(text) if text in {*Happening} else None


HAPPENINGS = many(
    word("an event", ", ".join(f'"{one}"' for one in Happening), _happening, Happening.UNSUBSCRIBED),
    "an array of events",
    '["recipient.unsubscribed", "message.failed"]',
    at_least=1,
)
LOGINS = many(word("a login's name", '"shop"', line), "an array of logins", '["shop"]')


def is_loopback(host: str) -> bool:
    """By what is written, never by what DNS says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _smarthost_url(text: str, folder: Path) -> str | None:
    scheme, _, path = text.partition(":")
    if scheme == "maildir":
        return f"maildir:{folder / path}" if path and path.isprintable() and not path.startswith("//") else None
    if "@" in text:
        raise ValueError("the url holds a user name or a password; use the keys username and password_file")
    parts = _split(text)
    if not parts or parts.scheme not in ("smtp", "smtps", "lmtp") or not parts.hostname:
        return None
    return None if parts.path.strip("/") or parts.query or parts.fragment else text


SMARTHOST_URLS = many(
    written(
        "a smarthost's url",
        '"smtp://mta.example.com:587", "smtps://…", "lmtp://…" or "maildir:var/outbox"',
        _smarthost_url,
    ),
    "an array of urls",
    '["smtp://mta.example.com:587"]',
    at_least=1,
)
