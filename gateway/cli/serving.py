"""Commands that run the gateway or a part of it."""

from __future__ import annotations

import logging

import click

from gateway import service
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.config import Config
from gateway.errors import ConfigError


class _CannotStart(click.ClickException):
    """Something of the machine is not to be had, an address for one; perhaps only for now."""

    exit_code = 75


@assent.command()
@pass_desk
def serve(desk: Desk) -> None:
    """Run everything: submission, delivery, the public site and the console."""
    _run(desk, ("relay", "site", "console"))


@assent.command()
@pass_desk
def relay(desk: Desk) -> None:
    """Run submission, feedback and delivery alone."""
    _run(desk, ("relay",))


@assent.command()
@pass_desk
def site(desk: Desk) -> None:
    """Run the public site alone."""
    _run(desk, ("site",))


@assent.command()
@pass_desk
def console(desk: Desk) -> None:
    """Run the operators' listener alone."""
    _run(desk, ("console",))


def _run(desk: Desk, parts: tuple[str, ...]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = desk.config()
    addresses = _addresses(config, parts)
    if not addresses:
        raise ConfigError([f"{config.path.name}: there is nothing to listen on; add [{parts[0]}], with listen"])

    def tell() -> None:
        lines = "\n".join(f"{what:22} {address}" for what, address in addresses)
        desk.say(lines, listening=[{"listener": what, "address": address} for what, address in addresses])

    try:
        status = service.serve(config, parts, tell)
    except OSError as error:
        raise _CannotStart(error.strerror or str(error)) from error
    raise SystemExit(status)


def _addresses(config: Config, parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return each address to listen on, and which listener it is of."""
    relay = "relay" in parts
    listening = [
        ("submission (STARTTLS)", config.submission.listen if relay else ()),
        ("submission (TLS)", config.submission.listen_tls if relay else ()),
        ("feedback", config.feedback.listen if relay and config.feedback else ()),
        ("unsubscribe site", config.site.listen if "site" in parts and config.site else ()),
        ("console", config.console.listen if "console" in parts and config.console else ()),
    ]
    return [(what, str(address)) for what, addresses in listening for address in addresses]
