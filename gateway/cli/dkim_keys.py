"""`assent dkim`: make a signing key, say what DNS must publish, and whether it does.

The one rule: a private key is written once, readable by its owner only, and never over another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.rooms import Rooms
from gateway.config import Config, DkimSelector, load
from gateway.config.names import DOMAIN, SELECTOR
from gateway.installation import published_keys
from gateway.sign import SigningKey, dns_record, generate_rsa_key
from gateway.store import disk

STRING_LIMIT: Final = 255
"""Octets of one character-string of a TXT record (RFC 1035 §3.3)."""


@assent.group(cls=Rooms, rooms={"online": "check"})
def dkim() -> None:
    """The keys that sign, and the records that publish them."""


@dkim.command("new")
@click.argument("domain")
@click.option("--selector", default="", help="The record's first label; one for this month unless told.")
@click.option("--ed25519", is_flag=True, help="A second, shorter key, beside one of RSA (RFC 8463).")
@pass_desk
def dkim_new(desk: Desk, domain: str, selector: str, ed25519: bool) -> None:
    """Make a key for DOMAIN, and print the record to publish and the line for the configuration."""
    domain = _spelled(DOMAIN.read, domain)
    config = load(desk.path, keys_may_be_missing=True)
    missing = _missing(config, domain)
    selector = _spelled(SELECTOR.read, selector or next(iter(missing), f"s{desk.now():%Y%m}"))
    path = missing.get(selector, config.data_dir / "dkim" / f"{domain}.{selector}.pem")
    if path.exists() or selector in _named(config, domain).keys() - missing.keys():
        desk.no(f"there is a key {selector} for {domain} already; choose another --selector", path=path, made=False)
    key = SigningKey.load(domain, selector, make_key(path, ed25519=ed25519))
    told = "" if selector in missing else _section(config, domain, key, path)
    desk.say(_what_to_do(path, key, told), **_facts(key), path=path, config=told)


@dkim.command("dns")
@click.argument("domain", required=False)
@pass_desk
def dkim_dns(desk: Desk, domain: str | None) -> None:
    """Print the TXT records of the configured keys, also of those that sign no more, in the form of a zone file."""
    keys = keys_of(desk, desk.config(), domain)
    if desk.as_json:
        desk.list([_facts(key) for key in keys], (), "")
        return
    for key in keys:
        click.echo(zone_line(*dns_record(key)))


def keys_of(desk: Desk, config: Config, domain: str | None) -> list[SigningKey]:
    """Return the configured keys, of one domain if it is named; ends with a no where there are none."""
    wanted = _spelled(DOMAIN.read, domain) if domain else None
    keys = [key for key in published_keys(config) if wanted in (None, key.domain)]
    if not keys:
        desk.no(f"no key is configured{f' for {wanted}' if wanted else ''}; see assent dkim new", records=[])
    return keys


def make_key(path: Path, *, ed25519: bool = False) -> bytes:
    """Write a new private key, RSA-2048 unless told, and return it as PEM; raises `FileExistsError`."""
    disk.make_folder(path.parent)
    pem = _new_ed25519_key() if ed25519 else generate_rsa_key()
    disk.write_new(path, pem)
    return pem


def zone_line(name: str, text: str) -> str:
    """Return a TXT record as a zone file has it, cut into character-strings (RFC 1035 §5.1, RFC 6376 §3.6.2.2)."""
    strings = [f'"{text[at : at + STRING_LIMIT]}"' for at in range(0, len(text), STRING_LIMIT)]
    return f"{name}. IN TXT ( {' '.join(strings)} )"


def _new_ed25519_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _spelled(read: Any, text: str) -> str:
    try:
        return str(read(text, Path()))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _named(config: Config, domain: str) -> dict[str, DkimSelector]:
    """Return the selectors that the configuration names for a domain."""
    selectors = config.dkim[domain].selectors if domain in config.dkim else ()
    return {one.name: one for one in selectors}


def _missing(config: Config, domain: str) -> dict[str, Path]:
    return {name: one.key.path for name, one in _named(config, domain).items() if not one.key.path.exists()}


def _section(config: Config, domain: str, key: SigningKey, path: Path) -> str:
    """Return what config.toml must say for a key to be used: first, and those of its kind that it follows retired."""
    tables = [_table(config, key.selector, path)]
    for name, one in _named(config, domain).items():
        follows = one.signs and bool(one.key.rsa_bits) is (key.algorithm == "rsa-sha256")
        tables.append(_table(config, name, one.key.path, signs=one.signs and not follows))
    return f'[dkim."{domain}"]\nselectors = [{", ".join(tables)}]'


def _table(config: Config, name: str, path: Path, *, signs: bool = True) -> str:
    return f'{{ name = "{name}", key = "{_within(config, path)}"{"" if signs else ", signs = false"} }}'


def _within(config: Config, path: Path) -> Path:
    folder = config.path.parent
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _what_to_do(path: Path, key: SigningKey, section: str) -> str:
    told = [f"{path} is made. Publish this record:", zone_line(*dns_record(key))]
    if section:
        told += ["Once DNS shows it, let the configuration say, and reload:", section]
        if "signs = false" in section:
            told += [
                "Take the old key out after a week, with its record: mail that it signed is on its way until then."
            ]
    return "\n\n".join(told)


def _facts(key: SigningKey) -> dict[str, Any]:
    name, text = dns_record(key)
    told = {"domain": key.domain, "selector": key.selector, "algorithm": key.algorithm}
    return told | {"name": name, "record": text, "zone": zone_line(name, text)}
