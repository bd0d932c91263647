"""Which spellings of an address lead to the same mailbox, at the few providers that say so of their own domains.

The rule that must not be broken: this is for finding a "no" that somebody has said under another spelling, as a hint
or because an operator asked for it. It never finds a "yes", and no envelope is ever changed by it (requirements §1.7):
what a local-part means is its own host's to say (RFC 5321 §2.3.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.address import Address


@dataclass(frozen=True, slots=True)
class Provider:
    """A mailbox provider: domains that are one to it, and what it ignores in a local-part beside a +tag."""

    domains: tuple[str, ...]
    ignores: str = ""

    def bare(self, local: str) -> str:
        """Return a local-part as the provider reads it."""
        untagged, _, _ = local.partition("+")
        return untagged.translate({ord(one): None for one in self.ignores})


_ALL: Final = (
    Provider(("gmail.com", "googlemail.com"), ignores="."),
    *(Provider((one,), ignores=".-_") for one in ("proton.me", "protonmail.com", "pm.me")),
    *(Provider((one,)) for one in ("outlook.com", "hotmail.com", "live.com", "msn.com")),
    *(Provider((one,)) for one in ("icloud.com", "me.com", "mac.com", "fastmail.com")),
)
PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({domain: one for one in _ALL for domain in one.domains})
"""Providers by domain. One that is added here needs its domains in the index `people_mailboxes` too."""

_IGNORED_BY_SOME: Final = {ord(one): None for one in ".-_"}


def mailbox_of(address: Address) -> str:
    """Return the one name of the mailbox that an address leads to; "" where its provider is none of these."""
    local, _, domain = address.key.rpartition("@")
    provider = PROVIDERS.get(domain)
    bare = provider.bare(local) if provider else ""
    return f"{bare}@{provider.domains[0]}" if provider and bare else ""


def index_keys(address: Address) -> tuple[str, ...]:
    """Return the keys of the index `people_mailboxes` under which other spellings of an address stand, among others."""
    local, _, domain = address.key.rpartition("@")
    untagged, _, _ = local.partition("+")
    return tuple(f"{untagged.translate(_IGNORED_BY_SOME)}@{one}" for one in PROVIDERS[domain].domains)
