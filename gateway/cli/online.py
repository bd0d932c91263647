"""What is asked of DNS: by `assent dkim check` for the keys that sign, by `assent check --online` for all of our mail.

That is DKIM keys, DMARC and alignment, SPF, the names of the sending addresses.

The rule: what large providers refuse mail for is a problem, and where DNS does not answer there is a warning, for
that says nothing. What a record means is `published`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import click

from gateway.cli.dkim_keys import dkim, keys_of
from gateway.cli.output import Desk, pass_desk
from gateway.config import Config
from gateway.findings import Finding, State
from gateway.installation import published_keys
from gateway.keywatch import standings
from gateway.published import (
    SILENCE,
    KeyStanding,
    Policy,
    Publication,
    applied,
    dmarc_records,
    organisation,
    policy_findings,
    policy_of,
    spf_finding,
    walk,
)
from gateway.resolver import IP, Resolver
from gateway.sign import SigningKey

_TO_PUBLISH = "publish v=DMARC1; p=none; rua=mailto:… there, or at the organisation's domain"


class _Silent(Exception):
    """DNS did not answer."""


@dkim.command("check")
@click.argument("domain", required=False)
@pass_desk
def dkim_check(desk: Desk, domain: str | None) -> None:
    """Ask DNS for the record of each configured key, and compare; exit 1 where one is missing or another's.

    Where DNS does not answer there is a warning, and no answer.
    """
    config = desk.config()
    keys = keys_of(desk, config, domain)
    found = asyncio.run(_publications(config, keys))
    rows = [
        {"state": state.value, "domain": key.domain, "selector": key.selector, "told": standing.told}
        | {"published": standing.publication.value}
        for key, standing, state in found
    ]
    desk.list(rows, ("state", "domain", "selector", "told"), "")
    if any(state is State.PROBLEM for _, _, state in found):
        raise SystemExit(1)


def examine_online(config: Config) -> list[Finding]:
    """Ask DNS about everything that others will ask it about our mail."""
    return asyncio.run(_everything(config, Resolver(config.dns.addresses)))


async def _everything(config: Config, dns: Resolver) -> list[Finding]:
    authors = _domains(sender for stream in config.streams.values() for sender in stream.senders)
    returns = _domains(path for stream in config.streams.values() for path in stream.return_paths)
    groups = await asyncio.gather(
        _keys(config),
        *(_policy(config, dns, domain) for domain in authors),
        *(_spf(dns, domain) for domain in dict.fromkeys((*authors, *returns))),
        _names(config, dns),
    )
    return [finding for group in groups for finding in group]


async def _keys(config: Config) -> list[Finding]:
    return [
        Finding(f"DNS of DKIM key {key.selector} of {key.domain}", state, standing.told)
        for key, standing, state in await _publications(config, published_keys(config))
    ]


async def _publications(config: Config, keys: Sequence[SigningKey]) -> list[tuple[SigningKey, KeyStanding, State]]:
    """Ask DNS about keys; what is wrong with one that signs is a problem, with one that did only a warning."""
    signing = {key.mark for key in published_keys(config, is_signing=True)}
    found = await standings(keys, Resolver(config.dns.addresses))
    return [(key, one, _state(one, key.mark in signing)) for key, one in zip(keys, found, strict=True)]


def _state(standing: KeyStanding, is_signing: bool) -> State:
    if standing.publication is Publication.RIGHT:
        return State.OK
    is_seen = standing.publication in (Publication.WRONG, Publication.MISSING)
    return State.PROBLEM if is_seen and is_signing else State.WARNING


def _domains(patterns: Iterable[str]) -> list[str]:
    """Return the domains of addresses and wildcards, each once; for all domains below one, that one."""
    return list(dict.fromkeys(pattern.rpartition("@")[2].removeprefix("*.") for pattern in patterns))


async def _policy(config: Config, dns: Resolver, domain: str) -> list[Finding]:
    what = f"DMARC of {domain}"
    try:
        policies, doubled = await _walked(dns, domain)
        found = [Finding(what, State.PROBLEM, f"_dmarc.{one} has several records, and none counts") for one in doubled]
        policy = applied(domain, policies)
        if policy is None:
            told = f"_dmarc.{domain} has no record, and large providers refuse promotion without one; {_TO_PUBLISH}"
            return found or [Finding(what, State.PROBLEM, told)]
        return [*found, *policy_findings(domain, policy), await _alignment(config, dns, domain, policies, policy)]
    except _Silent:
        return [Finding(what, State.WARNING, SILENCE)]


async def _walked(dns: Resolver, domain: str) -> tuple[list[Policy], list[str]]:
    """Walk up from a domain (RFC 9989); return the policies that were met, and the domains that have several."""
    policies, doubled = list[Policy](), list[str]()
    for name in walk(domain):
        texts = await dns.texts(f"_dmarc.{name}")
        if texts is None:
            raise _Silent
        if len(dmarc_records(texts)) > 1:
            doubled.append(name)
        if policy := policy_of(name, texts):
            policies.append(policy)
            if policy.ends_the_walk:
                break
    return policies, doubled


async def _alignment(config: Config, dns: Resolver, domain: str, policies: list[Policy], policy: Policy) -> Finding:
    """Say whether the d= that signs the domain's mail is aligned with it (DMARC-01); SPF is never relied on."""
    what, signing = f"DMARC of {domain}", config.dkim_domain_for(domain)
    if signing is None:
        told = f"no key signs mail from {domain}, so that DMARC hangs on SPF alone"
        return Finding(what, State.WARNING, f'{told}; add [dkim."{domain}"]')
    if policy.is_strict and signing != domain:
        told = f"_dmarc.{policy.domain} asks for strict alignment (adkim=s), and d={signing} signs"
        return Finding(what, State.PROBLEM, f'{told}; add [dkim."{domain}"], or take adkim=s out')
    signers, _ = await _walked(dns, signing)
    ours, theirs = organisation(signing, signers), organisation(domain, policies)
    if ours != theirs:
        told = f"d={signing} signs, which is of {ours}, and {domain} of {theirs}: not aligned"
        return Finding(what, State.PROBLEM, f'{told}; add [dkim."{domain}"]')
    return Finding(what, State.OK, f"aligned by DKIM: d={signing} signs")


async def _spf(dns: Resolver, domain: str) -> list[Finding]:
    return [spf_finding(domain, await dns.texts(domain))]


async def _names(config: Config, dns: Resolver) -> list[Finding]:
    """Each address that mail leaves from has a name, which leads back to it; large providers refuse others."""
    addresses = config.dns.sending_ips or await _of_smarthosts(config, dns)
    if not addresses:
        told = "where mail leaves to the world cannot be seen from here; name it in [dns] sending_ips"
        return [Finding("sending addresses", State.WARNING, told)]
    return list(await asyncio.gather(*(_name(dns, one, is_sure=bool(config.dns.sending_ips)) for one in addresses)))


async def _of_smarthosts(config: Config, dns: Resolver) -> list[IP]:
    hosts = {urlsplit(url).hostname for one in config.smarthosts.values() for url in one.urls}
    found = await asyncio.gather(*(_addresses(dns, host) for host in sorted(filter(None, hosts))))
    return [address for group in found for address in group if address.is_global]


async def _addresses(dns: Resolver, host: str) -> Iterable[IP]:
    try:
        return [ip_address(host)]
    except ValueError:
        return await dns.addresses(host) or ()


async def _name(dns: Resolver, address: IP, *, is_sure: bool) -> Finding:
    """`is_sure` where an operator has said that mail leaves from there."""
    what = f"name of {address}"
    names = await dns.names(address)
    if names is None:
        return Finding(what, State.WARNING, SILENCE)
    for name in names:
        if address in (await dns.addresses(name) or ()):
            return Finding(what, State.OK, f"{name}, which leads back to it")
    told = f"{', '.join(names)} does not lead back to it" if names else "it has none (PTR)"
    return Finding(what, State.PROBLEM if is_sure else State.WARNING, f"{told}, and large providers refuse its mail")
