"""Consents as others read them: records shaped by ISO/IEC TS 27560:2023, receipts by Kantara CR v1.1.

The rule that must not be broken: a record says what the ledger says and no more. A consent is what one person gave for
one topic to one controller; what happened to it stands in the record, the "no" included. A receipt is made only of a
consent that stands. Who signs it, and for whom it is written, is left to whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.consent import NOTHING_KNOWN, Event, EventType, Source, Standing, fold
from gateway.model import Period
from gateway.proof import Archive, utc_text

RECORD_VERSION: Final = "ISO/IEC TS 27560:2023"
RECEIPT_VERSION: Final = "KI-CR-v1.1.0"

GIVEN, REFUSED, WITHDRAWN = "consent_given", "consent_refused", "consent_withdrawn"
RENEWED, REINSTATED, INVALIDATED = "consent_renewed", "consent_reinstated", "consent_invalidated"

GIVING: Final = frozenset({EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED})
_ENDING: Final = {
    EventType.UNSUBSCRIBE: WITHDRAWN,
    EventType.OBJECTION: WITHDRAWN,
    EventType.COMPLAINT: WITHDRAWN,
    EventType.ERASURE: WITHDRAWN,
    EventType.MINOR_FLAG: INVALIDATED,
}
_VOIDING: Final = frozenset({EventType.RRVS_REJECT, EventType.ACCOUNT_CLOSED})


@dataclass(frozen=True, slots=True)
class Handling:
    """What is the same for every consent: where it is kept and for how long, who gets the address, how to withdraw."""

    storage_locations: tuple[str, ...]
    retention: str
    recipients: tuple[str, ...]
    withdrawal: str


class Slot(NamedTuple):
    """What one consent is for: the topic, and whose it is ("" for the company's own)."""

    topic: str
    controller: str


class Step(NamedTuple):
    """One thing that happened to a consent."""

    event: Event
    state: str


def consents_of(history: Sequence[Event], archive: Archive) -> dict[Slot, list[Step]]:
    """Return every consent of one person with what happened to it, in the order in which it was recorded."""
    found: dict[Slot, list[Step]] = {}
    standing = NOTHING_KNOWN
    for event in history:
        before, standing = standing, standing.after(event)
        if event.type in GIVING and event.facts.get("provenance") != "unproven" and not _is_over(before, event):
            found.setdefault(Slot(event.topic, event.facts.get("controller", "")), []).append(Step(event, GIVEN))
        elif event.type is EventType.CONSENT_REFUSED:
            for slot in [one for one in found if one.topic == event.topic] or [Slot(event.topic, "")]:
                found.setdefault(slot, []).append(Step(event, REFUSED))
        else:
            for slot, steps in found.items():
                steps += _touched(slot, steps, event, before, standing, archive)
    return found


def _is_over(before: Standing, given: Event) -> bool:
    return before.is_over(given.topic, given.at)


def _touched(
    slot: Slot, steps: Sequence[Step], event: Event, before: Standing, after: Standing, archive: Archive
) -> Iterator[Step]:
    """Yield what an event that gives and refuses nothing does to a consent."""
    known = archive.topics.get(slot.topic)
    partner = known is not None and known.partner
    if event.type in _ENDING:
        said = [one for one in after.suppressions if one.event == event.seq]
        if any(one.covers(slot.topic, partner=partner, controller=slot.controller) for one in said):
            yield Step(event, _ENDING[event.type])
    elif event.type is EventType.SUPPRESSION_LIFTED:
        stopped = before.suppression(slot.topic, partner=partner, controller=slot.controller)
        if stopped and not after.suppression(slot.topic, partner=partner, controller=slot.controller):
            yield Step(event, REINSTATED)
    elif event.type is EventType.RECONSENT:
        yield Step(event, RENEWED)
    elif event.type in _VOIDING or (event.type is EventType.IMPORT_UNDONE and _came_with(steps, event)):
        yield Step(event, INVALIDATED)


def _came_with(steps: Sequence[Step], undone: Event) -> bool:
    given = [one.event for one in steps if one.state == GIVEN]
    return bool(given) and given[-1].facts.get("import") == undone.facts["import"]


def consent_records(history: Sequence[Event], archive: Archive, handling: Handling) -> Iterator[dict[str, Any]]:
    """Yield a record of each consent of one person (ISO/IEC TS 27560:2023 §6.3)."""
    for slot, steps in consents_of(history, archive).items():
        yield _record(slot, steps, archive, handling)


def _record(slot: Slot, steps: Sequence[Step], archive: Archive, handling: Handling) -> dict[str, Any]:
    decisive = _decisive(steps)
    controllers = archive.controllers_of(decisive)
    return {
        "schema_version": RECORD_VERSION,
        "record_id": _record_id(slot, decisive),
        "pii_principal_id": decisive.address_id.hex(),
        "pii_processing": [_processing(slot, decisive, controllers, archive, handling)],
        "party_identification": [_party(one, archive) for one in controllers],
        "event": [_happened(one, archive) for one in steps],
    }


def _decisive(steps: Sequence[Step]) -> Event:
    """Return the event that gave the consent last; the first one where it was never given."""
    given = [one.event for one in steps if one.state == GIVEN]
    return given[-1] if given else steps[0].event


def _record_id(slot: Slot, event: Event) -> str:
    return ":".join(one for one in ("urn:assent", event.address_id.hex(), *slot) if one)


def _processing(
    slot: Slot, event: Event, controllers: Sequence[str], archive: Archive, handling: Handling
) -> dict[str, Any]:
    company, notice = archive.company, archive.notice_of(event)
    return {
        "privacy_notice": company.privacy_policy,
        "privacy_notice_version": archive.policy_of(event),
        "language": notice.language if notice else "und",
        "notice": {
            "name": notice.name if notice else "",
            "version": notice.version if notice else "",
            "sha256": str(event.facts.get("notice_sha256", "")),
            "text": notice.text if notice else "",
        },
        "purposes": [
            {
                "purpose": archive.name_of(slot.topic),
                "purpose_type": "direct marketing by e-mail",
                "lawful_basis": "consent",
                "pii_information": [{"pii_type": "e-mail address", "pii_optional": False, "sensitive_pii": False}],
                "pii_controllers": list(controllers),
                "collection_method": archive.method_of(event),
                "processing_method": "sending mail to the address through the named recipients",
                "storage_locations": list(handling.storage_locations),
                "retention_period": handling.retention,
                "recipient_third_parties": list(handling.recipients),
                "withdrawal_method": handling.withdrawal,
                "jurisdiction": company.region,
            }
        ],
    }


def _party(name: str, archive: Archive) -> dict[str, Any]:
    company = archive.company
    if name != company.name:
        return {"party_id": name, "party_name": name, "party_role": "PII controller"}
    return {
        "party_id": name,
        "party_name": name,
        "party_role": "PII controller",
        "party_address": company.postal_address,
        "party_email": company.contact,
        "party_url": company.privacy_policy,
    }


def _happened(step: Step, archive: Archive) -> dict[str, Any]:
    event = step.event
    topic = archive.topics.get(event.topic)
    age = topic.max_age if topic and step.state == GIVEN else None
    return {
        "event_time": utc_text(event.at),
        "event_recorded_time": utc_text(event.recorded_at),
        "event_type": event.type.value,
        "event_state": step.state,
        "entity_id": event.address_id.hex(),
        "ledger_event": event.seq,
        **({"validity_duration": _duration(age)} if age else {}),
    }


def _duration(period: Period) -> str:
    """Return a period as ISO 8601 writes it."""
    parts = [f"{count}{unit}" for count, unit in ((period.months, "M"), (period.days, "D")) if count]
    return f"P{''.join(parts) or '0D'}"


def receipts(history: Sequence[Event], archive: Archive, handling: Handling, key: str) -> Iterator[dict[str, Any]]:
    """Yield a receipt of each consent of one person that stands (Kantara CR v1.1 §5); `key` names who signs it."""
    standing = fold(history)
    held = {one.event for one in standing.permissions}
    for slot, steps in consents_of(history, archive).items():
        topic = archive.topics.get(slot.topic)
        event = _decisive(steps)
        is_partners = topic is not None and topic.partner
        stopped = standing.suppression(slot.topic, partner=is_partners, controller=slot.controller)
        if event.seq in held and not stopped:
            yield _receipt(slot, event, standing, archive, handling, key)


def _receipt(
    slot: Slot, event: Event, standing: Standing, archive: Archive, handling: Handling, key: str
) -> dict[str, Any]:
    declared = [one.country for one in standing.places if one.source is Source.DECLARED]
    notice = archive.notice_of(event)
    return {
        "version": RECEIPT_VERSION,
        "jurisdiction": (declared or [archive.company.region])[0],
        "consentTimestamp": int(event.at.timestamp()),
        "collectionMethod": archive.method_of(event),
        "consentReceiptID": f"{event.address_id.hex()}-{event.seq}",
        "publicKey": key,
        "language": notice.language if notice else "und",
        "piiPrincipalId": (event.personal or {}).get("address") or event.address_id.hex(),
        "piiControllers": [_controller(one, archive) for one in archive.controllers_of(event)],
        "policyUrl": archive.company.privacy_policy,
        "services": [{"service": "e-mail", "purposes": [_purpose(slot, archive, handling)]}],
        "sensitive": False,
        "spiCat": [],
    }


def _purpose(slot: Slot, archive: Archive, handling: Handling) -> dict[str, Any]:
    """Return what the consent is for; the company sends the mail itself, so no other party is given the address."""
    topic = archive.topics.get(slot.topic)
    is_own = not slot.controller and not (topic and topic.partner)
    return {
        "purpose": archive.name_of(slot.topic),
        "purposeCategory": ["6 - Marketing" if is_own else "7 - Marketing Third Parties"],
        "consentType": "EXPLICIT",
        "piiCategory": ["2 - Contact"],
        "primaryPurpose": True,
        "termination": f"until it is withdrawn: {handling.withdrawal}",
        "thirdPartyDisclosure": False,
        "thirdPartyName": "",
    }


def _controller(name: str, archive: Archive) -> Mapping[str, Any]:
    company = archive.company
    is_own = name == company.name
    return {
        "piiController": name,
        "onBehalf": not is_own,
        "contact": company.name,
        "address": {"streetAddress": company.postal_address, "addressCountry": company.region},
        "email": company.contact,
        "phone": company.phone,
        "piiControllerUrl": company.privacy_policy if is_own else "",
    }
