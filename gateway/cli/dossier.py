"""Everything that is known of one person, for that person: as facts, and as a page.

The one rule: whatever we keep of the person is in it, and nothing of anybody else. It is written for whoever asks, so
it also says where it came from, who processes it, where, and for how long (GDPR 15, 20).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import urlsplit

from gateway.address import Address
from gateway.config import Config
from gateway.consent import Event, Standing
from gateway.ids import spool_text
from gateway.installation import archive_of
from gateway.proof import Archive, proof_of
from gateway.retention import Retention
from gateway.store import QueuedRecipient, Selection, Store
from gateway.store.sqlite import DataFolder


async def gather(config: Config, folder: DataFolder, store: Store, address: Address, now: datetime) -> dict[str, Any]:
    """Return everything that is known of a person, as JSON can tell it."""
    (facts,) = await store.people.facts([address])
    events = await store.people.history(facts.address_id) if facts.address_id else []
    stored = await store.people.address_of(facts.address_id) if facts.address_id else None
    names = dict.fromkeys((facts.who, store.people.unread(address).who))
    lines = [json.loads(line) for name in names for line in folder.decision_lines("who", name)]
    copies = await store.queue.copies_to(address)
    queued = [one for copy in copies for one in await store.queue.waiting(Selection(copies=(copy,)))]
    archive, called = await archive_of(config, store), store.people.unread(address).who
    notices = {event.facts.get("notice") for event in events}
    return {
        "address": address.text,
        "made_at": now.isoformat(timespec="seconds"),
        "controller": controller(config),
        "person": {"id": facts.who, "address_on_record": stored.text if stored else None},
        "related": await related(store, facts.standing),
        "evidence": [_evidence(one, archive, called) for one in events],
        **_standing(facts.standing),
        "sources": sorted({str(one.facts["channel"]) for one in events if "channel" in one.facts}),
        "notices": [
            {"name": one.name, "topic": one.topic, "text": one.text, "url": one.url}
            for one in archive.notices.values()
            if one.name in notices
        ],
        "decisions": [one for one in lines if one["kind"] != "attempt"],
        "deliveries": [one for one in lines if one["kind"] == "attempt"],
        "queued": [_queued(one) for one in queued],
        "processors": processors(config),
        "region": config.company.region,
        "retention": retention(config.retention),
    }


def retention(keep: Retention) -> dict[str, str]:
    """Return for how long what is kept, in words."""
    return {
        "messages": "until the last recipient of the message is settled",
        "decisions and deliveries": f"{keep.decisions.days} days; without your address",
        "evidence": f"while it is in use and {keep.evidence.days} days longer, for claims, or until it is erased",
        "IP addresses in evidence": f"while it is in use and {keep.evidence_ip.days} days longer, or until erased",
        "suppressions": 'for ever, so that a "no" is kept; after an erasure as a keyed digest only',
        "backups": f"{keep.backups.days} days",
    }


def processors(config: Config) -> list[dict[str, str]]:
    """Return who gets the mail to pass it on, and who is told what becomes of it."""
    relaying = [
        {"name": one.processor or name, "role": f"smarthost {name}: relays the mail"}
        for name, one in config.smarthosts.items()
    ]
    return relaying + [
        {
            "name": urlsplit(one.url).hostname or name,
            "role": f"webhook {name}: is told of {', '.join(sorted(one.happenings))}",
        }
        for name, one in config.webhooks.items()
    ]


async def related(store: Store, standing: Standing) -> list[str]:
    """Return the person's other addresses, but those that have been erased."""
    found = [await store.people.address_of(bytes.fromhex(one)) for one in standing.links]
    return sorted(one.text for one in found if one)


def page(title: str, told: Mapping[str, Any], picture: str = "") -> str:
    """Return facts as an HTML page that needs nothing else; a picture, if there is one, stands above them."""
    sections = "".join(f"<h2>{escape(_title(name))}</h2>{_html(value)}" for name, value in told.items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        "<style>body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}th,td{border:1px solid;padding:.2rem .5rem;text-align:left}</style></head>"
        f"<body><h1>{escape(title)}</h1>{picture}{sections}</body></html>"
    )


def controller(config: Config) -> dict[str, str]:
    """Return who answers for the mail, and how to reach them."""
    company = config.company
    return {
        "name": company.name,
        "postal_address": company.postal_address,
        "contact": company.contact,
        "privacy_policy": company.privacy_policy,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "permissions": [
            {"event": one.event, "basis": one.basis, "topic": one.topic, "at": one.at.isoformat(timespec="seconds")}
            for one in standing.permissions
        ],
        "suppressions": [
            {
                "event": one.event,
                "scope": one.scope,
                "topic": one.topic,
                "reason": one.reason,
                "at": one.at.isoformat(timespec="seconds"),
            }
            for one in standing.suppressions
        ],
        "countries": [{"country": one.country, "source": one.source} for one in standing.places],
        "products": list(standing.products),
        "policy_versions_agreed_to_again": list(standing.reconsents),
        "legal_hold": standing.is_held,
    }


def _evidence(event: Event, archive: Archive, called: str) -> dict[str, Any]:
    """Return what proves an event; the text of its notice stands apart, once."""
    proof = proof_of(event, archive, called)
    notice = {name: one for name, one in proof["notice"].items() if name != "text"} if proof["notice"] else None
    return {**proof, "topic": event.topic, "scope": event.scope, "notice": notice}


def _queued(one: QueuedRecipient) -> dict[str, Any]:
    return {
        "message": spool_text(one.message.id),
        "stream": one.message.stream,
        "received_at": one.message.received_at.isoformat(timespec="seconds"),
        "octets": one.size,
    }


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _is_table(value: Any) -> bool:
    """True for a list of several sets of plain facts that all have the same names."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, Mapping) for one in value):
        return False
    flat = not any(isinstance(fact, Mapping | list | tuple) for one in value for fact in one.values())
    return flat and all(list(one) == list(value[0]) for one in value)


def _html(value: Any) -> str:
    if isinstance(value, Mapping):
        rows = "".join(
            f"<tr><th>{escape(_title(str(key)))}</th><td>{_html(one)}</td></tr>" for key, one in value.items()
        )
        return f"<table>{rows}</table>" if rows else "–"
    if _is_table(value):
        head = "".join(f"<th>{escape(_title(str(name)))}</th>" for name in value[0])
        rows = "".join(f"<tr>{''.join(f'<td>{_html(one)}</td>' for one in row.values())}</tr>" for row in value)
        return f"<table><tr>{head}</tr>{rows}</table>"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"<ul>{''.join(f'<li>{_html(one)}</li>' for one in value)}</ul>" if value else "<p>nothing</p>"
    return escape("–" if value in (None, "") else str(value))
