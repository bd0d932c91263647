"""Commands about who may submit: logins, and the streams that they may use.

The rule that must not be broken: a password is shown once, when it is made, and kept as its hash only. What an
operator orders here counts for the next recipient, without a restart.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, NAME, WHY, operator
from gateway.config.names import TOOL_HOST
from gateway.errors import Malformed
from gateway.model import Login
from gateway.passwords import hash_password, new_password
from gateway.store import LoginRecord, Orders, Store

MOST_TEST_RECIPIENTS = 25
"""Tests go to colleagues; whoever lists more than these would be mailing without opt-ins (OUT-21)."""


@assent.group()
def logins() -> None:
    """Marketing tools and applications that may submit."""


@logins.command("add")
@click.argument("name", type=NAME)
@click.option("--streams", required=True, help="Names of streams, separated by commas.")
@click.option("--contact", type=ADDRESS, default=None, help="The address that is told about this login's mail.")
@click.option(
    "--tool-hosts", default="", help="Hosts of its own unsubscribe pages, which hear of each opt-out; with commas."
)
@click.option("--network", "networks", multiple=True, help="A network (CIDR) that is this login without a password.")
@click.option(
    "--test-recipients",
    default="",
    help=f"Colleagues who get its tests without an opt-in, separated by commas; at most {MOST_TEST_RECIPIENTS}.",
)
@pass_desk
def logins_add(
    desk: Desk,
    name: str,
    streams: str,
    contact: Address | None,
    tool_hosts: str,
    networks: tuple[str, ...],
    test_recipients: str,
) -> None:
    """Add a login and print its password, once. A login for a network alone has none."""
    login = Login(
        name,
        _streams(desk, streams),
        contact.text if contact else "",
        tuple(map(_network, networks)),
        tuple(map(_host, _listed(tool_hosts))),
        _test_recipients(test_recipients),
    )
    password = "" if networks else new_password()
    record = LoginRecord(login, hash_password(password) if password else "")

    async def add(store: Store) -> bool:
        if await store.people.login(name):
            return False
        await store.people.put_login(record)
        return True

    if not desk.with_store(add):
        desk.no(f"there is a login {name} already; see assent logins passwd", name=name)
    told = f"password of {name}: {password}" if password else f"{name} may submit from {', '.join(login.networks)}"
    desk.say(told, name=name, password=password, streams=login.streams, networks=login.networks)


@logins.command("list")
@pass_desk
def logins_list(desk: Desk) -> None:
    """List the logins."""
    rows = [
        {
            "name": one.login.name,
            "streams": one.login.streams,
            "contact": one.login.contact,
            "tool_hosts": one.login.tool_hosts,
            "networks": one.login.networks,
            "test_recipients": one.login.test_recipients,
            "disabled": one.disabled,
        }
        for one in desk.with_store(lambda store: store.people.logins())
    ]
    columns = ["name", "streams", "contact", "tool_hosts", "networks", "test_recipients", "disabled"]
    desk.list(rows, columns, "no logins; see assent logins add")


@logins.command("passwd")
@click.argument("name")
@pass_desk
def logins_passwd(desk: Desk, name: str) -> None:
    """Give a login a new password and print it, once; the old one counts no more at once."""
    password = new_password()
    _change_login(desk, name, secret=hash_password(password))
    desk.say(f"password of {name}: {password}", name=name, password=password)


@logins.command("disable")
@click.argument("name")
@pass_desk
def logins_disable(desk: Desk, name: str) -> None:
    """Let a login submit no more; its history stays."""
    _change_login(desk, name, disabled=True)
    desk.say(f"{name} is disabled", name=name, disabled=True)


def _change_login(desk: Desk, name: str, *, secret: str | None = None, disabled: bool = False) -> None:
    async def change(store: Store) -> bool:
        record = await store.people.login(name)
        if record is None:
            return False
        kept = record.secret if secret is None else secret
        await store.people.put_login(replace(record, secret=kept, disabled=record.disabled or disabled))
        return True

    if not desk.with_store(change):
        desk.no(f"there is no login {name}", name=name)


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _streams(desk: Desk, text: str) -> tuple[str, ...]:
    known, named = desk.config().streams, _listed(text)
    unknown = [one for one in named if one not in known]
    if unknown or not named:
        raise click.UsageError(f"no such stream: {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(named)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise click.UsageError(f"{text} is not a network in CIDR form: {error}") from error


def _host(text: str) -> str:
    try:
        return str(TOOL_HOST.read(text, Path()))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _test_recipients(text: str) -> tuple[str, ...]:
    named = _listed(text)
    if len(named) > MOST_TEST_RECIPIENTS:
        raise click.UsageError(f"{len(named)} test recipients; list at most {MOST_TEST_RECIPIENTS} of your own people")
    return tuple(_test_recipient(one) for one in named)


def _test_recipient(text: str) -> str:
    try:
        return Address.parse(text).text
    except Malformed as error:
        raise click.UsageError(f"--test-recipients: {text}: {error}") from error


# streams


@assent.group()
def streams() -> None:
    """The configured kinds of mail, and whether they take any now."""


@streams.command("list")
@pass_desk
def streams_list(desk: Desk) -> None:
    """List the streams; a paused one with when it was, by whom, and why."""

    async def ordered(store: Store) -> Orders:
        await store.people.facts([])
        return store.people.orders()

    states = desk.with_store(ordered).streams
    rows = []
    for one in desk.config().streams.values():
        state = states.get(one.name)
        paused = state if state and state.is_paused else None
        rows.append(
            {
                "name": one.name,
                "class": one.message_class,
                "topics": one.topics,
                "from": one.senders,
                "smarthost": one.smarthost,
                "paused_at": paused.at.isoformat(timespec="seconds") if paused else None,
                "paused_by": paused.by if paused else "",
                "why": paused.why if paused else "",
            }
        )
    columns = ["name", "class", "topics", "from", "smarthost", "paused_at", "paused_by", "why"]
    desk.list(rows, columns, "no streams are configured")


@streams.command("pause")
@click.argument("name")
@click.option("--why", type=WHY, required=True, help="The reason, for whoever finds it paused.")
@pass_desk
def streams_pause(desk: Desk, name: str, why: str) -> None:
    """Let a stream take no mail until it is released: it answers 451. What was accepted before still goes."""
    desk.stream(name)
    if not desk.with_store(lambda store: store.people.pause_stream(name, why, operator())):
        desk.no(f"{name} is paused already; see assent streams list", name=name)
    desk.say(f"{name} is paused; assent streams release {name} lets it go on", name=name, why=why)


@streams.command("release")
@click.argument("name")
@pass_desk
def streams_release(desk: Desk, name: str) -> None:
    """Let a paused stream take mail again; its brake begins to count anew."""
    if not desk.with_store(lambda store: store.people.release_stream(name, operator())):
        desk.stream(name)
        desk.no(f"{name} is not paused", name=name)
    desk.say(f"{name} takes mail again", name=name)
