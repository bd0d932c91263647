"""The record of processing activities (GDPR 30), as the configuration and the store make it true at this moment.

The one rule: nothing stands in it that is not so here. What the company does beside this program it has to add itself.
"""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli import assent, dossier
from gateway.cli.output import Desk, pass_desk
from gateway.config import Config
from gateway.model import MessageClass, Stream

_PURPOSES = {
    MessageClass.PROMOTIONAL: ("direct marketing by mail", "consent, or what the country's rules allow in its stead"),
    MessageClass.CONFIRMATION: ("asking whether an opt-in was meant", "consent, at the person's own request"),
    MessageClass.PRODUCT: ("mail about products that the person owns", "the contract about the product"),
    MessageClass.ACCOUNT: ("mail about accounts, orders and payments", "the contract"),
    MessageClass.REQUESTED: ("answers that the person asked for", "steps at the person's request"),
    MessageClass.POLICY_NOTICE: ("telling of changes of the privacy policy", "legal obligation"),
    MessageClass.BREACH_NOTICE: ("telling of a breach of personal data", "legal obligation (GDPR 34)"),
    MessageClass.SYSTEM: ("reports of failed delivery", "legitimate interest in mail that works"),
}
_PEOPLE = ["recipients of mail, also those who have opted out", "people who act for the company (logins, operators)"]
_DATA = {
    "address": "the mail address; after an erasure a keyed digest of it",
    "consent": "what was agreed to or objected to, when, under which wording; the IP address where a form told it",
    "customers": "which products a person owns, the country that the person declared",
    "mail": "messages until they are delivered",
    "decisions": "about each message, under an id: the time, the reason and the smarthost's reply",
}
_MEASURES = [
    "TLS towards submitters that log in, and where the smarthost's URL says so",
    "one secret a file, readable by its owner alone; passwords and tokens are kept as digests",
    "the decision log and links name people by a random id, never by address",
    "an append-only ledger in signed segments, whose heads are kept outside the database",
    "erasure that deletes what names a person, with overwriting, and searches the data folder afterwards",
    "backups without keys, into which later objections and erasures are brought before mail flows",
]


@assent.command()
@click.option("--html", is_flag=True, help="A page that can be read and printed, instead of JSON.")
@pass_desk
def processing(desk: Desk, html: bool) -> None:
    """Print the record of processing activities (GDPR 30) that the configuration amounts to."""
    told = record(desk.config())
    page = dossier.page("Record of processing activities", told) if html else ""
    click.echo(page or json.dumps(told, indent=2, ensure_ascii=False))


def record(config: Config) -> dict[str, Any]:
    """Return what Article 30(1) asks for, as JSON can tell it."""
    return {
        "controller": dossier.controller(config),
        "purposes": [_purpose(name, stream) for name, stream in config.streams.items()],
        "topics": {slug: topic.name for slug, topic in config.topics.items()},
        "categories_of_people": _PEOPLE,
        "categories_of_data": _DATA,
        "recipients": dossier.processors(config),
        "region": config.company.region,
        "markets": list(config.law.markets),
        "country_rules": sorted(one.code for one in config.law.regimes),
        "retention": dossier.retention(config.retention),
        "measures": _MEASURES,
        "automated_decisions": "none with legal or similar effect (GDPR 22): whether mail is sent follows from what the"
        " person said, not from a profile",
    }


def _purpose(name: str, stream: Stream) -> dict[str, Any]:
    purpose, basis = _PURPOSES[stream.message_class]
    told = {"stream": name, "class": str(stream.message_class), "purpose": purpose, "legal_basis": basis}
    topics = {"topics": list(stream.topics)} if stream.topics else {}
    return {**told, **topics, **({"controller": stream.controller} if stream.controller else {})}
