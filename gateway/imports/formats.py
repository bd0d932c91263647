"""The vendors' own files, each told by its content: which columns or members it has, and what a row of it says.

The rule that must not be broken: a file that fits no format is refused whole, never guessed at. A soft bounce is no
suppression, and a confirmation without an opt-in before it is none (CON-13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.consent import EventType
from gateway.errors import Malformed
from gateway.imports.rows import Fields, Row, moment

OPT_OUT, COMPLAINT, BOUNCE = EventType.UNSUBSCRIBE, EventType.COMPLAINT, EventType.HARD_BOUNCE
OPT_IN, CONFIRMED = EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file with a header: the columns that tell it, and what a row says."""

    name: str
    columns: frozenset[str]
    read: Callable[[int, Fields], Row]

    def fits(self, header: frozenset[str]) -> bool:
        return self.columns <= header


@dataclass(frozen=True, slots=True)
class Listing:
    """A JSON document: the member that holds the list ("" where it is the document), and what an item says."""

    name: str
    member: str
    keys: frozenset[str]
    read: Callable[[int, Mapping[str, Any]], Row]


_WORDS = {
    OPT_OUT: (
        "unsub",
        "manual",
        "listunsub",
        "list unsub",
        "link",
        "compliance",
        "adminblocked",
        "blocklist",
        "manually",
    ),
    COMPLAINT: ("complaint", "spam"),
    BOUNCE: ("bounce", "invalid"),
}


def reason(text: str) -> EventType:
    """Return what a vendor's word for a reason amounts to; raises `Malformed` for one that nobody knows."""
    word = text.replace("_", " ").lower()
    if "soft" in word:
        raise Malformed("a soft bounce is no suppression")
    for kind in (COMPLAINT, BOUNCE, OPT_OUT):
        if any(one in word for one in _WORDS[kind]):
            return kind
    raise Malformed(f"unknown reason: {text[:40]}")


def _sendgrid(line: int, row: Mapping[str, Any]) -> Row:
    status = str(row.get("status") or "")
    if status.startswith("4"):
        raise Malformed("a soft bounce is no suppression")
    text = str(row.get("reason") or "").lower()
    kind = BOUNCE if status else COMPLAINT if "spam" in text else OPT_OUT
    return Row(line, row["email"], kind, moment(str(row.get("created") or "")))


def _mailgun_bounce(line: int, row: Fields) -> Row:
    if not row["code"].startswith("5") and row["code"] not in ("605",):
        raise Malformed("a soft bounce is no suppression")
    return Row(line, row["address"], BOUNCE, moment(row["created_at"]))


def _sparkpost(line: int, row: Mapping[str, Any]) -> Row:
    source = str(row.get("source") or row.get("description") or "")
    try:
        kind = reason(source)
    except Malformed:
        kind = OPT_OUT
    return Row(line, row["recipient"], kind, moment(str(row.get("created") or "")))


def _mailchimp(line: int, row: Fields) -> Row:
    address = row["email address"]
    for column, kind in (("unsub_time", OPT_OUT), ("clean_time", BOUNCE)):
        if column in row:
            return Row(line, address, kind, moment(row[column]))
    opted, confirmed = moment(row["optin_time"]), moment(row["confirm_time"])
    if opted and confirmed and confirmed > opted:
        return Row(line, address, CONFIRMED, confirmed)
    return Row(line, address, OPT_IN, opted)


def _ses_contact(line: int, row: Fields) -> Row:
    topics = [value for column, value in row.items() if column.startswith("topicpreferences.")]
    is_out = row["unsubscribeall"].lower() == "true" or (bool(topics) and "OPT_IN" not in topics)
    return Row(line, row["emailaddress"], OPT_OUT if is_out else OPT_IN)


def _listmonk(line: int, row: Fields) -> Row:
    is_out = row.get("status", "").lower() in ("blocklisted", "blocklist", "unsubscribed")
    return Row(line, row["email"], OPT_OUT if is_out else OPT_IN, moment(row.get("created_at", "")))


def _brevo(line: int, row: Mapping[str, Any]) -> Row:
    return Row(line, row["email"], reason(row["reason"]["code"]), moment(row.get("blockedAt") or ""))


def _named(subject: str, why: str, when: str) -> Callable[[int, Mapping[str, Any]], Row]:
    """Return a reader of items that have an address, a word for the reason and a time, called so."""
    return lambda line, row: Row(line, row[subject], reason(row[why]), moment(str(row.get(when) or "")))


def _set(*names: str) -> frozenset[str]:
    return frozenset(names)


TABLES = (
    Table("mailchimp", _set("email address", "optin_time", "confirm_time"), _mailchimp),
    Table("ses", _set("emailaddress", "unsubscribeall"), _ses_contact),
    Table(
        "postmark", _set("emailaddress", "suppressionreason"), _named("emailaddress", "suppressionreason", "createdat")
    ),
    Table("mailgun", _set("address", "code", "created_at"), _mailgun_bounce),
    Table(
        "mailgun",
        _set("address", "tag", "created_at"),
        lambda n, r: Row(n, r["address"], OPT_OUT, moment(r["created_at"])),
    ),
    Table(
        "mailgun",
        _set("address", "tags", "created_at"),
        lambda n, r: Row(n, r["address"], OPT_OUT, moment(r["created_at"])),
    ),
    Table(
        "mailgun", _set("address", "created_at"), lambda n, r: Row(n, r["address"], COMPLAINT, moment(r["created_at"]))
    ),
    Table("sparkpost", _set("recipient", "type"), _sparkpost),
    Table("listmonk", _set("email", "name", "attributes"), _listmonk),
    Table("sendgrid", _set("email", "created"), _sendgrid),
)
"""The first that fits is taken, so those with more columns stand before those with fewer."""

LISTINGS = (
    Listing(
        "ses",
        "SuppressedDestinationSummaries",
        _set("EmailAddress", "Reason"),
        _named("EmailAddress", "Reason", "LastUpdateTime"),
    ),
    Listing(
        "postmark",
        "Suppressions",
        _set("EmailAddress", "SuppressionReason"),
        _named("EmailAddress", "SuppressionReason", "CreatedAt"),
    ),
    Listing("brevo", "contacts", _set("email", "reason"), _brevo),
    Listing("resend", "data", _set("email", "origin"), _named("email", "origin", "created_at")),
    Listing("sparkpost", "results", _set("recipient", "type"), _sparkpost),
    Listing("sparkpost", "", _set("recipient", "type"), _sparkpost),
    Listing("sendgrid", "", _set("created", "email"), _sendgrid),
    Listing("ses", "", _set("emailAddress", "reason"), _named("emailAddress", "reason", "")),
)

NAMES = ("plain", "md5", "sha256", *dict.fromkeys(one.name for one in (*TABLES, *LISTINGS)))
"""What `--format` takes."""
