"""Commands about programs that are told what happens: who is behind and why, try again, try out, make a secret."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.announcements import Announcement, Happening, Shape, Webhook
from gateway.announcements.signatures import public_part
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT
from gateway.overview import webhook_rows
from gateway.store import Store
from gateway.webhooks.caller import Answer
from gateway.webhooks.endpoint import Endpoint

_NOBODY = "nobody@example.invalid"
_COLUMNS = ("name", "state", "waiting", "oldest", "attempts", "last_answer", "url", "format", "events", "public_key")


@assent.group()
def webhooks() -> None:
    """Programs that are told what happens, as [webhooks.NAME] says."""


@webhooks.command("list")
@pass_desk
def webhooks_list(desk: Desk) -> None:
    """List the endpoints, what waits for each and how it last answered; tools that are told of a "no" too."""
    config = desk.config()

    async def read(store: Store) -> list[dict[str, Any]]:
        return webhook_rows(config, store, desk.now())

    rows = [_row(one, config.webhooks) for one in desk.with_store(read)]
    desk.list(rows, _COLUMNS, "there is no endpoint; add [webhooks.NAME]")


def _row(backlog: Mapping[str, Any], known: Mapping[str, Webhook]) -> dict[str, Any]:
    webhook = known.get(backlog["name"])
    told = {"url": "", "format": "", "events": (), "public_key": ()}
    if webhook:
        told = {
            "url": webhook.url,
            "format": webhook.shape.value,
            "events": sorted(webhook.happenings),
            "public_key": public_part(webhook),
        }
    return {**backlog, **told}


@webhooks.command("retry")
@click.argument("name")
@pass_desk
def webhooks_retry(desk: Desk, name: str) -> None:
    """Tell an endpoint now whatever waits for it, also where it was disabled by its 410."""
    config = desk.config()

    async def retry(store: Store) -> int | None:
        known = {*config.webhooks, *(one["name"] for one in webhook_rows(config, store, desk.now()))}
        return await store.calls.try_again(name) if name in known else None

    retried = desk.with_store(retry)
    if retried is None:
        desk.no(f"there is no webhook {name}; see assent webhooks list", name=name)
    desk.say(f"{name} is told of {retried} events now", name=name, retried=retried)


@webhooks.command("test")
@click.argument("name")
@click.option(
    "--event",
    type=click.Choice([one.value for one in Happening]),
    default=None,
    help="What to tell; the first of its events.",
)
@pass_desk
def webhooks_test(desk: Desk, name: str, event: str | None) -> None:
    """Tell an endpoint of something that has not happened, to nobody@example.invalid, and say how it answered."""
    config = desk.config()
    webhook = config.webhooks.get(name)
    if webhook is None:
        desk.no(f"there is no webhook {name}; add [webhooks.{name}]", name=name)
    what = Happening(event or min(webhook.happenings))
    told = Announcement(
        *(f"test_{Ids(OPERATOR_SLOT, desk.now).decision()}", what, desk.now(), "test"),
        _NOBODY if what is not Happening.PAUSED else "",
        _invented(what),
    )

    async def call(_: Store) -> Answer | None:
        endpoint = Endpoint(webhook, config.topics, desk.now)
        try:
            return await endpoint.call(told.to_json())
        finally:
            await endpoint.close()

    answer = desk.with_store(call)
    if answer is None:
        desk.no(f"the format {webhook.shape} has no word for {what}", name=name, event=what)
    if not answer.is_taken:
        desk.no(f"{name}: {answer.words}", name=name, event=what, status=answer.status, answer=answer.words)
    desk.say(f"{name} {answer.words}", name=name, event=what, status=answer.status, answer=answer.words)


def _invented(what: Happening) -> dict[str, Any]:
    common = {"test": True, "reason": "test", "sentence": "this is a test"}
    if what.is_of_recipient:
        return {**common, "person": "0" * 32, "topic": None, "scope": "all-marketing", "channel": "operator"}
    return {**common, "message": "TEST", "login": "test", "stream": "test", "reply": "this is a test", "why": "a test"}


@webhooks.command("secret")
@click.option(
    "--format", "shape", type=click.Choice([one.value for one in Shape]), default="standard", show_default=True
)
@pass_desk
def webhooks_secret(desk: Desk, shape: str) -> None:
    """Print a new secret for the file that secret_file names; what may be made public, assent webhooks list shows."""
    made = _made(Shape(shape))
    desk.say(made, secret=made, format=shape)


def _made(shape: Shape) -> str:
    if shape is Shape.STANDARD:
        return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode('ascii')}"
    if shape is Shape.SENDGRID:
        key = generate_private_key(SECP256R1())
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii").strip()
    return secrets.token_hex(32) if shape is Shape.MAILGUN else f"assent:{secrets.token_urlsafe(32)}"
