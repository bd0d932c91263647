"""What proves an event: who said what, to which words, where, when and how, in one record that can be shown (CON-02).

The rule that must not be broken: nothing is in it that was not kept. What the ledger says of the notice is compared
with the registered text, and a text that is not the one of then is said to be another. What the law makes of it is left
to `policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.address import Address
from gateway.consent import Event
from gateway.evidence import Notice
from gateway.law import PolicyVersion, in_force
from gateway.model import Company, Topic


@dataclass(frozen=True, slots=True)
class Archive:
    """What an event points at: who the company is, what topics are called, notices by name, policy versions."""

    company: Company
    topics: Mapping[str, Topic]
    notices: Mapping[str, Notice]
    policies: tuple[PolicyVersion, ...] = ()

    def notice_of(self, event: Event) -> Notice | None:
        return self.notices.get(str(event.facts.get("notice", "")))

    def policy_of(self, event: Event) -> str:
        """Return the version of the privacy policy that the person was pointed at, or that was in force then."""
        return str(event.facts.get("policy_version") or in_force(self.policies, event.at))

    def controllers_of(self, event: Event) -> list[str]:
        """Return by name who may rely on what the event gave: whom it names, or whom the notice named."""
        other = event.facts.get("controller")
        notice = self.notice_of(event)
        return [str(other)] if other else list(notice.controllers if notice else ()) or [self.company.name]

    def method_of(self, event: Event) -> str:
        notice = self.notice_of(event)
        return str(event.facts.get("method") or (notice.method if notice else "") or event.facts.get("channel", ""))

    def name_of(self, topic: str) -> str:
        known = self.topics.get(topic)
        return known.name if known else topic


def proof_of(event: Event, archive: Archive, digest: str = "") -> dict[str, Any]:
    """Return the record that proves an event; `digest` is the key's version and keyed digest of the address.

    What has been erased is None; times are RFC 3339 in UTC.
    """
    personal = event.personal or {}
    typed, notice = personal.get("address"), archive.notice_of(event)
    return {
        "event": event.seq,
        "type": event.type.value,
        "subject": event.address_id.hex(),
        "address": typed,
        "canonical_key": _canonical(typed, digest),
        "controllers": archive.controllers_of(event),
        "purposes": [{"topic": event.topic, "name": archive.name_of(event.topic)}] if event.topic else [],
        "notice": _notice(notice, event) if notice else None,
        "control": _control(event, notice),
        "collection_method": archive.method_of(event),
        "page": personal.get("page") or (notice.url if notice else None),
        "at": utc_text(event.at),
        "recorded_at": utc_text(event.recorded_at),
        "policy_version": archive.policy_of(event) or None,
        "facts": dict(event.facts),
        "personal": dict(event.personal) if event.personal is not None else None,
    }


def utc_text(moment: datetime) -> str:
    """Return a time as records tell it: RFC 3339, UTC, with its microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _canonical(typed: str | None, digest: str) -> dict[str, Any]:
    version, _, keyed = digest.partition(":")
    key = Address.parse(typed).key if typed else None
    return {"key": key, "digest": keyed or None, "version": int(version) if version else None}


def _notice(notice: Notice, event: Event) -> dict[str, Any]:
    told = event.facts.get("notice_sha256")
    return {
        "name": notice.name,
        "version": notice.version,
        "language": notice.language,
        "sha256": told or notice.sha256,
        "text": notice.text,
        "is_text_of_then": told in (None, notice.sha256),
        "states": list(notice.states),
    }


def _control(event: Event, notice: Notice | None) -> dict[str, Any]:
    state = event.facts.get("control_state") or (notice.control if notice else None)
    return {"kind": notice.kind if notice else None, "initial_state": state}
