"""`assent explain`: why a message was or was not sent, on which proof, and whether the same comes out again.

The rule that must not be broken: what was decided is told as it was written down then; what is worked out anew stands
beside it under a name of its own. The people store may be away: then the lines are told alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from gateway.address import Address
from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import ADDRESS, TIME
from gateway.config import Config
from gateway.consent import Event
from gateway.decisions import message_id_digest
from gateway.errors import StoreUnavailable
from gateway.hindsight import (
    Completed,
    Hindsight,
    History,
    decide_again,
    is_same,
    known_at,
    lapses,
    look_back,
    was_decided,
)
from gateway.ids import ulid_milliseconds
from gateway.installation import archive_of
from gateway.law import Law
from gateway.model import MessageClass, Outcome, Purpose, Reason, Topic, Verdict
from gateway.proof import Archive, proof_of, utc_text
from gateway.store import PublishedPolicy, Store

NOTED_WITHIN = timedelta(seconds=2)
"""A refusal is written down with the next commit; whoever asks sooner waits for it."""

_COLUMNS = ["at", "kind", "who", "stream", "topic", "action", "reason", "outcome", "reply"]


@assent.command()
@click.argument("what")
@click.argument("address", type=ADDRESS, required=False)
@click.option("--topic", default="", help="Explain what would happen to promotion on this topic.")
@click.option("--at", type=TIME, default=None, help="… with what was known then, UTC.")
@pass_desk
def explain(desk: Desk, what: str, address: Address | None, topic: str, at: datetime | None) -> None:
    """Say why a message was or was not sent, on which proof, and whether it would be decided so again.

    WHAT is a decision's id, or a Message-ID followed by the recipient's ADDRESS, or an address with --topic.
    """
    if topic:
        _explain_address(desk, ADDRESS.convert(what, None, None), topic, at or desk.now())
    elif address:
        _explain_message(desk, what, address)
    else:
        _explain_decision(desk, what)


def _explain_decision(desk: Desk, decision: str) -> None:
    try:
        made = datetime.fromtimestamp(ulid_milliseconds(decision) / 1000, UTC)
    except ValueError as error:
        if "@" in decision:
            raise click.UsageError(
                f"{decision}: an address is explained with --topic, a Message-ID with the recipient's address behind it"
            ) from error
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
    _tell(desk, lines + [one for one in attempts if one.get("door") == decision])


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
    _tell(desk, about + [one for one in attempts if one.get("door") in doors])


async def _names(store: Store, address: Address) -> set[str]:
    """Return how decision lines call an address: by its person, or as nobody's, if nobody could be asked then."""
    (facts,) = await store.people.facts([address])
    return {facts.who, store.people.unread(address).who}


def _explain_address(desk: Desk, address: Address, topic: str, at: datetime) -> None:
    config = desk.config()
    wanted = config.topic(topic)
    if wanted is None:
        raise click.UsageError(f"no such topic: {topic}; there are {', '.join(config.topics)}")

    async def seen(store: Store) -> tuple[Hindsight, list[dict[str, Any]], str, list[str]]:
        witness = await Witness.open(config, store)
        known = await store.people.facts([address, address.whole_domain])
        related = await store.people.related(address)
        facts, domain = known
        wider = [person for person, other, _ in related if config.blocks_related(other)]
        wider += await store.people.look_alikes(address)
        own, others = [await _histories(store, one) for one in ([facts.address_id], [domain.address_id, *wider])]
        listed = [one for one in facts.standing.suppressions if not one.event]
        history = History(own, others, listed)
        purpose, law = Purpose(MessageClass.PROMOTIONAL, wanted), witness.law(at)
        found = look_back(purpose, history, law, at, witness.completed)
        ends = lapses(wanted, known_at(history, at, witness.completed), law)
        proofs = [one | _age(one, ends, at) for one in await witness.proofs(found.then.evidence)]
        return found, proofs, facts.who, [other.text for _, other, _ in related]

    found, proofs, who, related = desk.with_store(seen)
    told = {
        "address": address.text,
        "topic": topic,
        "at": at.isoformat(),
        **_verdict(found.then),
        "proof": proofs,
        **({"related": related} if related else {}),
        **({} if is_same(found.then, found.now) else {"known_since": _verdict(found.now)}),
    }
    if found.told_late:
        told["violation"] = _violation(found.told_late) | {
            "relayed": _relayed_against(desk, who, topic, found.told_late)
        }
    _show(desk, told)
    if not found.then.may_send:
        raise SystemExit(1)


async def _histories(store: Store, people: Sequence[bytes | None]) -> list[Event]:
    return [event for one in people if one for event in await store.people.history(one)]


def _age(proof: Mapping[str, Any], ends: Mapping[int, datetime], at: datetime) -> dict[str, Any]:
    """Return how old a proof is, and when it lapses if it does (CON-15)."""
    end = ends.get(proof["event"])
    old = at - datetime.fromisoformat(proof["at"])
    return {"age_days": old.days, "lapses_at": utc_text(end) if end else None}


def _relayed_against(desk: Desk, who: str, topic: str, said: Event) -> list[str]:
    """Return the attempts that relayed mail on a topic after a "no" was said, and before it reached us."""
    lines = [json.loads(line) for line in desk.folder().decision_lines("who", who)]
    return [
        one["id"]
        for one in lines
        if one.get("outcome") == Outcome.RELAYED and one["topic"] == topic and one["class"] == MessageClass.PROMOTIONAL
        if said.at <= datetime.fromisoformat(one["at"]) <= said.recorded_at
    ]


@dataclass
class Witness:
    """Who examines the lines of the decision log: by the proof that they name, and by deciding again."""

    config: Config
    store: Store
    archive: Archive
    published: Sequence[PublishedPolicy]
    completed: Completed
    histories: dict[str, list[Event]] = field(default_factory=dict)

    @classmethod
    async def open(cls, config: Config, store: Store) -> Witness:
        archive, published = await archive_of(config, store), await store.people.policies()
        return cls(config, store, archive, published, await store.people.imports_completed())

    def law(self, at: datetime) -> Law:
        """Return the law as it stood at a moment, by the policy versions that had been published then."""
        return self.config.law.under(tuple(one.version for one in self.published if one.published_at <= at))

    async def proofs(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return the record that proves each event."""
        events = await self.store.people.events(numbers)
        addresses = [await self.store.people.address_of(one.address_id) for one in events]
        digests = [self.store.people.unread(one).who if one else "" for one in addresses]
        return [proof_of(event, self.archive, digest) for event, digest in zip(events, digests, strict=True)]

    async def examined(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return a line of the decision log with its proof and, for promotion, what deciding again comes to."""
        proofs = await self.proofs(line.get("evidence", ()))
        purpose = self._purpose(line)
        further = {"proof": proofs} if proofs else {}
        return line | further | (await self._again(line, purpose) if purpose else {})

    def _purpose(self, line: Mapping[str, Any]) -> Purpose | None:
        """Return what a line was about; None where that cannot be told, or needs no consent.

        It cannot of a list of digests that named somebody unknown: the line has no address to look for in the list.
        """
        topic = self.config.topic(line.get("topic", ""))
        is_decided = line.get("action") in ("send", "refuse") and line["kind"] in ("door", "attempt")
        if topic is None or not is_decided or line.get("class") != MessageClass.PROMOTIONAL or "people" in line:
            return None
        if line["reason"] == Reason.UNSUBSCRIBED and not line["evidence"]:
            return None
        return self._promotion(line["stream"], topic)

    def _promotion(self, stream: str, topic: Topic) -> Purpose:
        known = self.config.streams.get(stream)
        return known.promotes(topic) if known else Purpose(MessageClass.PROMOTIONAL, topic)

    async def _again(self, line: Mapping[str, Any], purpose: Purpose) -> dict[str, Any]:
        at = datetime.fromisoformat(line["at"])
        history = await self._history(line["who"], line["evidence"])
        was = was_decided(line["action"], line["reason"], line["evidence"], line["rules"])
        verdict, moment = decide_again(purpose, history, self.law(at), was, at, "test" in line, self.completed)
        told = {"again": {"at": utc_text(moment), **_verdict(verdict), "is_the_same": is_same(verdict, was)}}
        late = look_back(purpose, history, self.law(at), moment, self.completed).told_late
        if late and line.get("outcome") == Outcome.RELAYED:
            told["violation"] = _violation(late)
        return told

    async def _history(self, who: str, evidence: Sequence[int]) -> History:
        """Return a person's events, and those of others that the line names: look-alikes, domains (SUP-02)."""
        if who not in self.histories:
            known = ":" not in who and who != ""
            self.histories[who] = await self.store.people.history(bytes.fromhex(who)) if known else []
        own = self.histories[who]
        others = [one for one in await self.store.people.events(evidence) if one not in own]
        return History(own, others)


def _violation(late: Event) -> dict[str, Any]:
    """Say which "no" mail went against, that reached us only afterwards."""
    return {
        "event": late.seq,
        "type": late.type.value,
        "said_at": utc_text(late.at),
        "recorded_at": utc_text(late.recorded_at),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "action": verdict.action.value,
        "reason": verdict.reason,
        "sentence": verdict.sentence,
        "evidence": verdict.evidence,
        "rules": verdict.rules,
    }


def _tell(desk: Desk, lines: list[dict[str, Any]]) -> None:
    async def examine(store: Store) -> list[dict[str, Any]]:
        witness = await Witness.open(desk.config(), store)
        return [await witness.examined(one) for one in lines]

    try:
        told = desk.with_store(examine)
    except StoreUnavailable as error:
        click.echo(f"the proof cannot be read now: {error}", err=True)
        told = lines
    if desk.as_json:
        desk.list(told, _COLUMNS, "")
        return
    for line in told:
        _show(desk, line)
        click.echo()


def _show(desk: Desk, told: Mapping[str, Any]) -> None:
    """Print facts; in print, each proof has a block of its own, with the full text that the person met."""
    if desk.as_json:
        desk.tell(told)
        return
    desk.tell({name: value for name, value in _flat(told).items() if value not in ("", None, [], ())})
    for proof in told.get("proof", ()):
        click.echo(f"\nproof: event {proof['event']}")
        desk.tell({name: value for name, value in _flat(proof).items() if value not in ("", None, [], ())})


def _flat(told: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested facts as one level, each under the names that lead to it; proofs are left out."""
    flat: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name} ")
        elif name != "proof":
            flat[f"{before}{name}"] = [one["name"] for one in value] if name == "purposes" else value
    return flat
