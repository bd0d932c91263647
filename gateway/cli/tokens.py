"""Commands about programs that may use the API: their tokens, each with what it is good for.

The rule that must not be broken: a token is shown once, when it is made.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import NAME, TIME
from gateway.console.access import SCOPES, digest_of, new_token
from gateway.store import ApiToken, Store


@assent.group()
def tokens() -> None:
    """Programs that may use the HTTP API of the console."""


@tokens.command("add")
@click.argument("name", type=NAME)
@click.option("--scopes", required=True, help=f"Separated by commas: {', '.join(SCOPES)}.")
@click.option("--expires", type=TIME, default=None, help="When it ends, UTC; never unless told.")
@pass_desk
def tokens_add(desk: Desk, name: str, scopes: str, expires: datetime | None) -> None:
    """Make a token and print it, once."""
    wanted = tuple(dict.fromkeys(one.strip() for one in scopes.split(",")))
    unknown = [one for one in wanted if one not in SCOPES]
    if unknown:
        raise click.UsageError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    token = new_token()
    record = ApiToken(name, digest_of(token), wanted, desk.now(), expires)

    async def add(store: Store) -> bool:
        if any(one.name == name for one in await store.people.api_tokens()):
            return False
        await store.people.put_api_token(record)
        return True

    if not desk.with_store(add):
        desk.no(f"there is a token {name} already; revoke it, and choose another name", name=name)
    desk.say(f"{name}: {token}", name=name, token=token, scopes=wanted, expires_at=record.expires_at)


@tokens.command("list")
@pass_desk
def tokens_list(desk: Desk) -> None:
    """List the tokens, never what they are."""
    rows = [
        {
            "name": one.name,
            "scopes": one.scopes,
            "created_at": one.created_at.isoformat(timespec="seconds"),
            "expires_at": one.expires_at.isoformat(timespec="seconds") if one.expires_at else None,
            "revoked": one.revoked,
        }
        for one in desk.with_store(lambda store: store.people.api_tokens())
    ]
    desk.list(rows, ["name", "scopes", "created_at", "expires_at", "revoked"], "no tokens; see assent tokens add")


@tokens.command("revoke")
@click.argument("name")
@pass_desk
def tokens_revoke(desk: Desk, name: str) -> None:
    """End a token at once; what it recorded stays."""

    async def revoke(store: Store) -> bool:
        found = [one for one in await store.people.api_tokens() if one.name == name]
        for one in found:
            await store.people.put_api_token(replace(one, revoked=True))
        return bool(found)

    if not desk.with_store(revoke):
        desk.no(f"there is no token {name}", name=name)
    desk.say(f"{name} is revoked", name=name)
