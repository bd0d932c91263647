"""What a domain publishes about its mail, read from TXT records: DKIM keys (RFC 6376 §3.6), DMARC (RFC 9989), SPF.

The rule: what DNS did not say is not taken for a no. `Texts` is what it said of one name: the records, none where there
are none, and `None` where nobody answered. Who asks, and whom, is left to `resolver`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.findings import Finding, State
from gateway.sign import SigningKey, dns_record, public_octets

Texts = tuple[str, ...] | None

SILENCE: Final = "DNS does not answer; ask again when it does"


def tags_of(text: str) -> dict[str, str]:
    """Return the tags of a list as DKIM and DMARC write it (RFC 6376 §3.2); of one that stands twice, the first."""
    found = dict[str, str]()
    for tag in text.split(";"):
        name, equals, value = tag.partition("=")
        if equals:
            found.setdefault(name.strip(), value.strip())
    return found


# keys


class Publication(Enum):
    """How a private key stands to what DNS publishes under its selector."""

    RIGHT = "published"
    DOUBTFUL = "doubtful"
    MISSING = "missing"
    WRONG = "contradicted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """A key's publication, and the sentence that says so."""

    publication: Publication
    told: str


def key_standing(key: SigningKey, texts: Texts) -> KeyStanding:
    """Compare a private key with the records at its name: would a verifier accept what it signs?

    A record without p= is not about keys (a wildcard, for one), and counts as none. Several records of keys are
    undefined (RFC 6376 §3.6.2.2): doubtful where one of them is ours.
    """
    name, _ = dns_record(key)
    if texts is None:
        return KeyStanding(Publication.UNKNOWN, f"whether {name} publishes our key cannot be seen: {SILENCE}")
    records = [tags for tags in map(tags_of, texts) if "p" in tags]
    if not records:
        return KeyStanding(Publication.MISSING, f"{name} publishes no key; publish what assent dkim dns prints")
    faults = [_fault(key, tags) for tags in records]
    if all(faults):
        return KeyStanding(Publication.WRONG, f"{name} {faults[0]}; publish what assent dkim dns prints")
    if len(records) > 1:
        told = f"{name} publishes {len(records)} keys, and which one is read is anybody's guess; leave ours alone there"
        return KeyStanding(Publication.DOUBTFUL, told)
    if "y" in _listed(records[0].get("t", "")):
        told = f"{name} says t=y, by which signatures may count for nothing; remove that"
        return KeyStanding(Publication.DOUBTFUL, told)
    return KeyStanding(Publication.RIGHT, f"{name} publishes our key")


def _fault(key: SigningKey, tags: Mapping[str, str]) -> str:
    """Return why what the key signs would not verify by this record; "" where it would."""
    algorithm, _, digest = key.algorithm.partition("-")
    if tags.get("v", "DKIM1") != "DKIM1":
        return f"is no DKIM1 record (v={tags['v']})"
    if not tags["p"]:
        return "says that the key is revoked"
    if tags.get("k", "rsa") != algorithm:
        return f"is for {tags.get('k', 'rsa')} keys, and ours is of {algorithm}"
    if "h" in tags and digest not in _listed(tags["h"]):
        return f"does not allow {digest}"
    if not {"*", "email"} & _listed(tags.get("s", "*")):
        return "is not for mail"
    return "" if _is_public_half(key, tags["p"]) else "publishes another key than ours"


def _listed(value: str) -> set[str]:
    return {one.strip() for one in value.split(":")}


def _is_public_half(key: SigningKey, text: str) -> bool:
    """RSA may be written with or without its algorithm's name (RFC 6376 §3.6.1, erratum 3017): the numbers decide."""
    try:
        published = base64.b64decode(re.sub(r"\s", "", text), validate=True)
    except binascii.Error:
        return False
    if published == public_octets(key):
        return True
    try:
        return load_der_public_key(published) == key.private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


# DMARC

_MOST_QUERIES: Final = 8
_REMOVED: Final = ("pct", "rf", "ri")
_REQUESTS: Final = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's DMARC record."""

    domain: str
    tags: Mapping[str, str]

    @property
    def is_strict(self) -> bool:
        """True where d= must be the From domain itself, and not only of the same organisation."""
        return self.tags.get("adkim", "r").lower() == "s"

    @property
    def psd(self) -> str:
        return self.tags.get("psd", "u").lower()

    @property
    def ends_the_walk(self) -> bool:
        return self.psd in ("y", "n")


def policy_of(domain: str, texts: Sequence[str]) -> Policy | None:
    """Return the policy among the records at `_dmarc.DOMAIN`; of several, none is heeded (RFC 9989)."""
    found = dmarc_records(texts)
    return Policy(domain, found[0]) if len(found) == 1 else None


def dmarc_records(texts: Iterable[str]) -> list[dict[str, str]]:
    """Return the tags of each record whose first one is v=DMARC1."""
    return [tags_of(text) for text in texts if re.match(r"\s*v\s*=\s*DMARC1\s*(;|$)", text)]


def walk(domain: str) -> Iterator[str]:
    """Yield the domains whose policies are asked for in turn: at most eight, from the domain up to its last label."""
    labels = domain.split(".")
    yield domain
    for at in range(max(1, len(labels) - _MOST_QUERIES + 1), len(labels)):
        yield ".".join(labels[at:])


def organisation(domain: str, policies: Sequence[Policy]) -> str:
    """Return the organisational domain, by the policies that a walk from the domain has met."""
    for policy in policies:
        if policy.psd == "n":
            return policy.domain
        if policy.psd == "y" and policy.domain != domain:
            return ".".join(domain.split(".")[-policy.domain.count(".") - 2 :])
    return min((policy.domain for policy in policies), key=lambda name: name.count("."), default=domain)


def applied(domain: str, policies: Sequence[Policy]) -> Policy | None:
    """Return the policy for mail from the domain: its own, else the organisation's, else the public suffix's."""
    by_domain = {policy.domain: policy for policy in policies}
    above = policies[-1] if policies and policies[-1].psd == "y" else None
    return by_domain.get(domain) or by_domain.get(organisation(domain, policies)) or above


def policy_findings(domain: str, policy: Policy) -> Iterator[Finding]:
    """Say what a policy asks for, and what large providers or RFC 9989 would hold against it."""
    what, tags = f"DMARC of {domain}", policy.tags
    where = f"_dmarc.{policy.domain}"
    tag = "sp" if policy.domain != domain and "sp" in tags else "p"
    request = tags.get(tag, "").lower()
    if request in _REQUESTS:
        test = ", in test mode (t=y)" if tags.get("t", "n").lower() == "y" else ""
        yield Finding(what, State.OK, f"{where} says {tag}={request}{test}")
    else:
        said = f"{tag}={request}, which is no request" if request else f"no {tag}="
        yield Finding(
            what, State.WARNING, f"{where} says {said}: it counts as none; write p=none, quarantine or reject"
        )
    if not re.search(r"\w+:\S", tags.get("rua", "")):
        told = f"{where} has no rua=, so that nobody tells how its mail fares; add rua=mailto:… for daily reports"
        yield Finding(what, State.WARNING, told)
    removed = [name for name in _REMOVED if name in tags]
    if removed:
        told = f"{where} has {', '.join(f'{name}=' for name in removed)}, which RFC 9989 has removed; take it out"
        yield Finding(what, State.WARNING, told)


# SPF

_MOST_LOOK_UPS: Final = 10
_LOOKS_UP = re.compile(r"[+?~-]?(?:include:|a(?:[:/]|$)|mx(?:[:/]|$)|ptr(?::|$)|exists:)|redirect=", re.IGNORECASE)
_WEAK_END = re.compile(r"[+?]?all", re.IGNORECASE)
_END = re.compile(r"[+?~-]?all|redirect=.*", re.IGNORECASE)


def spf_finding(domain: str, texts: Texts) -> Finding:
    """Say how a domain's SPF record looks (RFC 7208); whom it lets send is not worked out."""
    what = f"SPF of {domain}"
    if texts is None:
        return Finding(what, State.WARNING, SILENCE)
    records = [text for text in texts if re.match(r"v=spf1( |$)", text, re.IGNORECASE)]
    if not records:
        told = f"{domain} has no SPF record, which large providers ask for; publish v=spf1 … -all, naming who sends"
        return Finding(what, State.WARNING, told)
    if len(records) > 1:
        return Finding(what, State.PROBLEM, f"{domain} has {len(records)} SPF records, which is an error; leave one")
    terms = records[0].split()[1:]
    looked_up = sum(bool(_LOOKS_UP.match(term)) for term in terms)
    if looked_up > _MOST_LOOK_UPS:
        told = f"{domain}: its SPF record needs {looked_up} look-ups, and more than {_MOST_LOOK_UPS} are an error"
        return Finding(what, State.PROBLEM, f"{told} (RFC 7208 §4.6.4)")
    if any(map(_WEAK_END.fullmatch, terms)) or not any(map(_END.fullmatch, terms)):
        return Finding(what, State.WARNING, f"{records[0]} lets anybody send; end it with -all or ~all")
    return Finding(what, State.OK, records[0])
