"""Commands that write the ledger out: as it was sealed, as records and receipts of consent, or who has opted in.

The rule that must not be broken: what is written is read a page at a time, so that ten million people need no more
memory than one; and a file has its name only once it is whole. What a record looks like is for `proof` and `receipts`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm

from gateway.address import Address
from gateway.cli import dossier
from gateway.cli.ledger import ledger
from gateway.cli.output import OUTPUT, Desk, pass_desk, progress_bar, table_line, written_to
from gateway.cli.people import ADDRESS, consent, known_topic, operator
from gateway.config import Config
from gateway.consent import Event, fold
from gateway.decisions import export_line
from gateway.ids import Ids
from gateway.installation import OPERATOR_SLOT, archive_of
from gateway.ledger import canonical_json, timestamp
from gateway.policy import CONSENTS
from gateway.proof import Archive, proof_of, utc_text
from gateway.receipts import GIVING, Handling, consent_records, receipts
from gateway.store import LedgerLine, PersonHistory, Store

_AT_ONCE = 500
_COLUMNS = ("address", "topic", "basis", "at", "notice", "controller", "event")

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Scribe:
    """Who writes out what the store holds, for one person or for all."""

    store: Store
    archive: Archive
    handling: Handling
    key: Ed25519PrivateKey
    unfinished: frozenset[int]
    person: bytes | None
    progress: Progress

    async def ledger_lines(self) -> AsyncIterator[bytes]:
        """Yield every event with all that its hash is made of (docs/decisions/0004)."""
        last, seq = await self.store.people.last_event(), 0
        while page := [one for one in await self.store.people.lines_after(seq, _AT_ONCE) if one.event.seq <= last]:
            seq = page[-1].event.seq
            self.progress(seq / last)
            for one in page:
                if self.person in (None, one.event.address_id):
                    yield _line(_sealed(one))

    async def records(self) -> AsyncIterator[bytes]:
        """Yield the record of each consent (ISO/IEC TS 27560)."""
        async for one in self.histories():
            for record in consent_records(one.events, self.archive, self.handling):
                yield _line(record)

    async def signed_receipts(self) -> AsyncIterator[bytes]:
        """Yield a receipt of each consent that stands, and the same signed (Kantara CR v1.1 §7; RFC 7515)."""
        published = jwk(self.key.public_key())
        named = f"urn:ietf:params:oauth:jwk-thumbprint:sha-256:{published['kid']}"
        async for one in self.histories():
            for receipt in receipts(one.events, self.archive, self.handling, named):
                signed = jwt.encode(receipt, self.key, algorithm="EdDSA", headers={"kid": published["kid"]})
                yield _line({"receipt": receipt, "jws": signed})

    async def opt_ins(self, topic: str) -> AsyncIterator[tuple[PersonHistory, Event]]:
        """Yield the event of each opt-in that stands."""
        async for one in self.histories():
            standing = fold(one.events)
            held = {permission.event: permission for permission in standing.permissions}
            for event in one.events:
                permission = held.get(event.seq)
                if permission is None or permission.basis not in CONSENTS or topic not in ("", permission.topic):
                    continue
                known = self.archive.topics.get(permission.topic)
                is_partners = known is not None and known.partner
                if not standing.suppression(permission.topic, partner=is_partners, controller=permission.controller):
                    yield one, event

    async def histories(self) -> AsyncIterator[PersonHistory]:
        """Yield people with what counts of their events; ids are random, so that one tells how far this is."""
        async for one in self._people():
            yield one._replace(events=[event for event in one.events if not self._is_unfinished(event)])

    def _is_unfinished(self, event: Event) -> bool:
        """True for a consent of an import that has not been applied to its end."""
        return event.type in GIVING and event.facts.get("import") in self.unfinished

    async def _people(self) -> AsyncIterator[PersonHistory]:
        if self.person is not None:
            address = await self.store.people.address_of(self.person)
            called = self.store.people.unread(address).who if address else ""
            yield PersonHistory(self.person, called, await self.store.people.history(self.person))
            return
        after = b""
        while page := await self.store.people.histories_after(after, _AT_ONCE):
            after = page[-1].person
            self.progress(int.from_bytes(after[:4]) / 2**32)
            for one in page:
                yield one


FORMS: dict[str, Callable[[Scribe], AsyncIterator[bytes]]] = {
    "jsonl": Scribe.ledger_lines,
    "iso27560": Scribe.records,
    "kantara": Scribe.signed_receipts,
}


@ledger.command("export")
@click.option("--format", "form", type=click.Choice(list(FORMS)), default="jsonl", show_default=True)
@click.option("--person", type=ADDRESS, default=None, help="Only what concerns this address.")
@OUTPUT
@pass_desk
def ledger_export(desk: Desk, form: str, person: Address | None, output: Path | None) -> None:
    """Write the ledger out, one JSON object a line.

    jsonl: each event with all that its hash is made of. iso27560: a record of each consent, with what became of it
    (ISO/IEC TS 27560). kantara: a receipt of each consent that stands (Kantara CR v1.1), readable and signed; the key
    is that of assent ledger key.
    """
    _write(desk, f"ledger {form}", person, output, FORMS[form])


@ledger.command("key")
@click.option("--pem", is_flag=True, help="As PEM, instead of a JSON Web Key Set.")
@pass_desk
def ledger_key(desk: Desk, pem: bool) -> None:
    """Print the public key to publish: receipts and the heads of segments are signed with its other half."""
    public = desk.folder().ledger_key().public_key()
    if pem:
        click.echo(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii"), nl=False)
        return
    click.echo(json.dumps({"keys": [jwk(public)]}, indent=2))


@consent.command("export")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--topic", default="", help="Only opt-ins to this one.")
@OUTPUT
@pass_desk
def consent_export(desk: Desk, form: str, topic: str, output: Path | None) -> None:
    """Write out who has opted in and may be asked about it: a line for each opt-in that stands.

    csv: who, to what, since when. jsonl: the whole proof of each, with the text that the person met.
    """
    if topic:
        known_topic(desk, topic)

    async def rows(scribe: Scribe) -> AsyncIterator[bytes]:
        async for one, event in scribe.opt_ins(topic):
            proof = proof_of(event, scribe.archive, one.who)
            yield _line(proof) if form == "jsonl" else table_line(_told(proof, event))

    _write(desk, f"consent {form}", None, output, rows, head=table_line(_COLUMNS) if form == "csv" else b"")


def _write(
    desk: Desk,
    what: str,
    person: Address | None,
    output: Path | None,
    lines: Callable[[Scribe], AsyncIterator[bytes]],
    head: bytes = b"",
) -> None:
    """Write lines below a head to a file or to the terminal, and record how many somebody took."""
    desk.must_be_new(output)
    config, number = desk.config(), Ids(OPERATOR_SLOT, desk.now).decision()

    async def write(store: Store) -> int | None:
        one = await _known(store, person) if person else None
        if person and one is None:
            return None
        archive, key = await archive_of(config, store), desk.folder().ledger_key()
        completed = await store.people.imports_completed()
        unfinished = frozenset(one for one, at in completed.items() if at > desk.now())
        with progress_bar("exporting") as progress, _target(desk, output) as file:
            count = 0
            file.write(head)
            async for line in lines(Scribe(store, archive, handling(config), key, unfinished, one, progress)):
                file.write(line)
                count += 1
        store.spool.note([export_line(number, desk.now(), "proof", what, count, operator())])
        return count

    count = desk.with_store(write)
    if count is None:
        desk.no(f"nothing is known of {person}", address=str(person))
    desk.exported(count, number, output)


async def _known(store: Store, person: Address) -> bytes | None:
    (facts,) = await store.people.facts([person])
    return facts.address_id


@contextmanager
def _target(desk: Desk, output: Path | None) -> Iterator[BinaryIO]:
    """Open what lines are written to; a terminal that wants JSON gets the same as one list."""
    if output is None and desk.as_json:
        whole = io.BytesIO()
        yield whole
        desk.list(_rows_of(whole.getvalue().decode("utf-8")), (), "")
        return
    with written_to(output) as file:
        yield file


def _rows_of(text: str) -> list[dict[str, Any]]:
    """Read what was written: a JSON object a line, or a table with its head."""
    if text.startswith("{"):
        return [json.loads(line) for line in text.split("\n") if line]
    return list(csv.DictReader(io.StringIO(text)))


def handling(config: Config) -> Handling:
    """Return what is the same for every consent of this installation."""
    company = config.company
    way = f"the unsubscribe link in every message, or {company.contact}"
    return Handling(
        storage_locations=(company.region or config.hostname,),
        retention=dossier.retention(config.retention)["evidence"],
        recipients=tuple(one["name"] for one in dossier.processors(config)),
        withdrawal=way,
    )


def jwk(public: Ed25519PublicKey) -> dict[str, str]:
    """Return a public key as a JSON Web Key, named by its thumbprint (RFC 8037, RFC 7638)."""
    bare: dict[str, str] = json.loads(OKPAlgorithm.to_jwk(public))
    required = {name: bare[name] for name in ("crv", "kty", "x")}
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(canonical_json(required)).digest())
    return {**required, "kid": thumbprint.rstrip(b"=").decode("ascii"), "alg": "EdDSA", "use": "sig"}


def _sealed(line: LedgerLine) -> dict[str, Any]:
    event = line.event
    return {
        "v": 1,
        "seq": event.seq,
        "type": event.type.value,
        "who": event.address_id.hex(),
        "at": timestamp(event.at),
        "recorded_at": timestamp(event.recorded_at),
        "topic": event.topic,
        "scope": event.scope,
        "facts": dict(event.facts),
        "commitment": line.commitment.hex(),
        "hash": line.digest.hex(),
        "salt": line.salt.hex() if line.salt else None,
        "personal": dict(event.personal) if event.personal is not None else None,
        "redaction": line.redaction.hex() if line.redaction else None,
    }


def _told(proof: dict[str, Any], event: Event) -> tuple[object, ...]:
    notice = proof["notice"]["name"] if proof["notice"] else ""
    basis = "confirmed" if event.type == "OPT_IN_CONFIRMED" else "express"
    named = (proof["address"], event.topic, basis, utc_text(event.at), notice)
    return (*named, event.facts.get("controller", ""), event.seq)


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
