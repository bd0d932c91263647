"""The vendors' own files, each told by its content: which columns or members it has, and what a row of it says.

The rule that must not be broken: a file that fits no format is refused whole, never guessed at. A soft bounce is no
suppression, and a confirmation without an opt-in before it is none (CON-13).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.consent import EventType
from gateway.errors import Malformed
from gateway.imports.rows import Fields, Row, moment

OPT_OUT, COMPLAINT, BOUNCE = EventType.UNSUBSCRIBE, EventType.COMPLAINT, EventType.HARD_BOUNCE
OPT_IN, CONFIRMED = EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file with a header: the columns that tell it, and what a row says.

    `loose` is a column whose values may have commas without quotes around them. Where the columns might be anybody's,
    `beside` are the only ones that may stand there with them, unless the operator has named the format.
    """

    name: str
    columns: frozenset[str]
    read: Callable[[int, Fields], Row]
    loose: str = ""
    beside: frozenset[str] | None = None

    def fits(self, header: frozenset[str], *, is_named: bool) -> bool:
        return _fits(self.columns, None if is_named else self.beside, header - {""})


@dataclass(frozen=True, slots=True)
class Listing:
    """A JSON document: the member that holds the list ("" where it is the document), and what an item says.

    `beside` is as in a table.
    """

    name: str
    member: str
    keys: frozenset[str]
    read: Callable[[int, Mapping[str, Any]], Row]
    beside: frozenset[str] | None = None

    def fits(self, item: Collection[str], *, is_named: bool) -> bool:
        return _fits(self.keys, None if is_named else self.beside, frozenset(item))


def _fits(told_by: frozenset[str], beside: frozenset[str] | None, found: frozenset[str]) -> bool:
    return told_by <= found and (beside is None or found <= told_by | beside)


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
    if status.startswith("5.7"):
        raise Malformed("a message that was refused for what it was does not make an address a dead one")
    text = str(row.get("reason") or "").lower()
    is_complaint = "spam" in text or "ip" in row  # only a report of spam has the address that it was sent from
    kind = BOUNCE if status else COMPLAINT if is_complaint else OPT_OUT
    return Row(line, row["email"], kind, moment(str(row.get("created") or "")))


def _mailgun_bounce(line: int, row: Fields) -> Row:
    if row["code"] and not row["code"].startswith("5") and row["code"] not in ("605",):
        raise Malformed("a soft bounce is no suppression")
    return Row(line, row["address"], BOUNCE, moment(row["created_at"]))


def _sparkpost(line: int, row: Mapping[str, Any]) -> Row:
    source = str(row.get("source") or row.get("description") or "")
    try:
        kind = reason(source)
    except Malformed:
        kind = OPT_OUT
    return Row(line, row["recipient"], kind, moment(str(row.get("created") or "")))


def _old_sparkpost(line: int, row: Fields) -> Row:
    if "true" not in (row["transactional"].lower(), row["non_transactional"].lower()):
        raise Malformed("nothing is suppressed")
    return _sparkpost(line, row)


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
    topics = [value for column, value in row.items() if column.startswith("topicpreferences.") and value]
    return Row(line, row["emailaddress"], _preferred(row["unsubscribeall"].lower() == "true", topics))


def _ses_contact_item(line: int, row: Mapping[str, Any]) -> Row:
    topics = [str(one["subscriptionStatus"]) for one in row.get("topicPreferences") or ()]
    return Row(line, row["emailAddress"], _preferred(row.get("unsubscribeAll") is True, topics))


def _preferred(is_out_of_all: bool, topics: Sequence[str]) -> EventType:
    """Return what somebody wants who has a status in each of another system's topics, which are not ours."""
    wanted = {one.upper() for one in topics}
    if is_out_of_all or wanted == {"OPT_OUT"}:
        return OPT_OUT
    if "OPT_OUT" in wanted:
        raise Malformed("is in for one topic and out of another; leave the column of one topic in the file")
    return OPT_IN


def _listmonk(line: int, row: Fields) -> Row:
    """Without a status, listmonk's own import is told whether its file is of subscribers or a blocklist."""
    status = row.get("status", "").lower()
    is_out = status in ("blocklisted", "blocklist", "unsubscribed", "disabled")
    return Row(line, row["email"], OPT_OUT if is_out else OPT_IN if status else None, moment(row.get("created_at", "")))


def _brevo(line: int, row: Mapping[str, Any]) -> Row:
    return Row(line, row["email"], reason(row["reason"]["code"]), moment(row.get("blockedAt") or ""))


def _named(subject: str, why: str, when: str) -> Callable[[int, Mapping[str, Any]], Row]:
    """Return a reader of items that have an address, a word for the reason and a time, called so."""
    return lambda line, row: Row(line, row[subject], reason(row[why]), moment(str(row.get(when) or "")))


def _set(*names: str) -> frozenset[str]:
    return frozenset(names)


_BESIDE_SENDGRID = _set("status", "reason", "ip")
_BESIDE_SPARKPOST = _set(
    *("description", "transactional", "non_transactional"),
    *("source", "list_id", "created", "updated", "subaccount_id"),
)

TABLES = (
    Table("mailchimp", _set("email address", "optin_time", "confirm_time"), _mailchimp),
    Table("ses", _set("emailaddress", "unsubscribeall"), _ses_contact, loose="attributesdata"),
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
        "mailgun",
        _set("address", "created_at"),
        lambda n, r: Row(n, r["address"], COMPLAINT, moment(r["created_at"])),
        beside=_set(),
    ),
    Table("sparkpost", _set("recipient", "type"), _sparkpost, beside=_BESIDE_SPARKPOST),
    Table("sparkpost", _set("recipient", "transactional", "non_transactional"), _old_sparkpost),
    Table("listmonk", _set("email", "name", "attributes"), _listmonk),
    Table("sendgrid", _set("email", "created"), _sendgrid, beside=_BESIDE_SENDGRID),
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
    Listing("sparkpost", "results", _set("recipient", "type"), _sparkpost, beside=_BESIDE_SPARKPOST),
    Listing("sparkpost", "", _set("recipient", "type"), _sparkpost, beside=_BESIDE_SPARKPOST),
    Listing("sendgrid", "", _set("created", "email"), _sendgrid, beside=_BESIDE_SENDGRID),
    Listing("ses", "", _set("emailAddress", "reason"), _named("emailAddress", "reason", "")),
    Listing("ses", "", _set("emailAddress", "unsubscribeAll"), _ses_contact_item),
    Listing("ses", "", _set("emailAddress", "topicPreferences"), _ses_contact_item),
)

CLOUDFLARE = "cloudflare"
"""A list without a header: an address a line, perhaps with the time until which it stands, and a scope."""

NAMES = ("plain", "md5", "sha256", CLOUDFLARE, *dict.fromkeys(one.name for one in (*TABLES, *LISTINGS)))
"""What `--format` takes."""
