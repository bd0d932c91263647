"""Commands about the record: why a message was or was not sent, and whether the record is whole."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from gateway.address import Address
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import DATE, utc
from gateway.consent import fold
from gateway.decisions import message_id_digest
from gateway.ids import ulid_milliseconds
from gateway.model import MessageClass, Purpose
from gateway.policy import decide
from gateway.store import Facts, PublishedPolicy, Store

NOTED_WITHIN = timedelta(seconds=2)
"""A refusal is written down with the next commit; whoever asks sooner waits for it."""

_COLUMNS = ["at", "kind", "who", "stream", "topic", "action", "reason", "outcome", "reply"]


@click.command()
@click.argument("what")
@click.argument("address", required=False)
@click.option("--topic", default="", help="Explain what would happen to promotion on this topic.")
@click.option("--at", type=DATE, default=None, help="… with what was known then, UTC.")
@pass_desk
def explain(desk: Desk, what: str, address: str | None, topic: str, at: datetime | None) -> None:
    """Say why a message was or was not sent.

    WHAT is a decision's id, or a Message-ID followed by the recipient's ADDRESS, or an address with --topic.
    """
    if topic:
        _explain_address(desk, Address.parse(what), topic, utc(at) if at else desk.now())
    elif address:
        _explain_message(desk, what, Address.parse(address))
    else:
        _explain_decision(desk, what)


def _explain_decision(desk: Desk, decision: str) -> None:
    try:
        made = datetime.fromtimestamp(ulid_milliseconds(decision) / 1000, UTC)
    except ValueError as error:
        raise click.UsageError(f"{decision} is not a decision's id: {error}") from error
    folder = desk.folder()
    while not (lines := [json.loads(line) for line in folder.decision_lines("id", decision)]):
        if desk.now() - made > NOTED_WITHIN:
            break
        time.sleep(0.1)
    if not lines:
        desk.no(f"no decision {decision} is on record", decision=decision)
    message = lines[0]["message"]
    attempts = [json.loads(line) for line in folder.decision_lines("message", message)] if message else []
    _print(desk, lines + [one for one in attempts if one.get("door") == decision])


def _explain_message(desk: Desk, message_id: str, address: Address) -> None:
    bare = message_id.strip()
    spelled = bare if bare.startswith("<") else f"<{bare}>"
    names = desk.with_store(lambda store: _names(store, address))
    lines = [json.loads(line) for line in desk.folder().decision_lines("message_id", message_id_digest(spelled))]
    about = [one for one in lines if one["who"] in names]
    if not about:
        desk.no(f"no decision about {spelled} to {address} is on record", message_id=spelled, address=address.text)
    doors = {one["id"] for one in about}
    messages = {one["message"] for one in about if one["message"]}
    attempts = [json.loads(line) for one in messages for line in desk.folder().decision_lines("message", one)]
    _print(desk, about + [one for one in attempts if one.get("door") in doors])


async def _names(store: Store, address: Address) -> set[str]:
    """Return how decision lines call an address: by its person, or as nobody's, if nobody could be asked then."""
    (facts,) = await store.people.facts([address])
    return {facts.who, store.people.unread(address).who}


def _explain_address(desk: Desk, address: Address, topic: str, at: datetime) -> None:
    config = desk.config()
    wanted = config.topic(topic)
    if wanted is None:
        raise click.UsageError(f"no such topic: {topic}; there are {', '.join(config.topics)}")

    async def known_then(store: Store) -> tuple[Facts, list[PublishedPolicy]]:
        (facts,) = await store.people.facts([address])
        events = await store.people.history(facts.address_id) if facts.address_id else []
        then = replace(facts, standing=fold(one for one in events if one.recorded_at <= at))
        return then, await store.people.policies()

    facts, published = desk.with_store(known_then)
    law = config.law.under(tuple(one.version for one in published if one.published_at <= at))
    verdict = decide(Purpose(MessageClass.PROMOTIONAL, wanted), facts.standing, law, at)
    told = {
        "address": address.text,
        "topic": topic,
        "at": at.isoformat(timespec="seconds"),
        "action": verdict.action.value,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        "evidence": verdict.evidence,
        "rules": verdict.rules,
    }
    desk.tell(told)
    if not verdict.may_send:
        raise SystemExit(1)


def _print(desk: Desk, lines: list[dict[str, Any]]) -> None:
    if desk.as_json:
        desk.list(lines, _COLUMNS, "")
        return
    for line in lines:
        desk.tell({name: value for name, value in line.items() if value not in ("", None, [])})
        click.echo()


@click.group()
def ledger() -> None:
    """The record of consent and of every decision."""


@ledger.command("verify")
@click.option("--anchor", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None)
@pass_desk
def ledger_verify(desk: Desk, anchor: Path | None) -> None:
    """Check every line against the sealed segments; exit 1 and name each place that is not as it was sealed.

    Give --anchor a copy of anchor.jsonl that was kept elsewhere: only with it a cut-off tail and a history written
    anew are found.
    """
    problems = desk.folder().verify(anchor)
    if problems:
        desk.no("\n".join(problems), problems=problems)
    desk.say("the ledger and the decision log are whole", problems=[])


COMMANDS = (explain, ledger)
