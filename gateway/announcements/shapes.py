"""How an announcement is written: by the Standard Webhooks specification, or as a vendor writes its own events.

The rule that must not be broken: what a vendor has no word for is not told in a wrong one. A "no" to a topic that the
vendor knows under no name is told as one to everything, never left out; a refusal by policy or a failure of the next
hop is never told as the bounce of an address, after which tools drop people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gateway.announcements import Announcement, Happening, Shape
from gateway.model import Reason, Scope, Topic

TOPIC_ARN: Final = "arn:aws:sns:us-east-1:000000000000:assent"
"""What notifications in Amazon's words name as their SNS topic."""

Words = Mapping[str, Any]
"""What JSON can say."""


def written(shape: Shape, told: Announcement, topics: Mapping[str, Topic]) -> Words | list[Words] | None:
    """Return the body of the request, as JSON can say it; None where this vendor has no word for it."""
    if shape is not Shape.STANDARD and (not told.address or told.address.startswith("*@")):
        return None
    return _WRITERS[shape](told, _name_there(shape, told, topics))


def _name_there(shape: Shape, told: Announcement, topics: Mapping[str, Topic]) -> str:
    """Return what the vendor calls the topic; "" where it is about no topic, or one without a name there."""
    topic = topics.get(told.facts.get("topic") or "")
    names = topic.also_called if topic else ()
    return next((name.partition(":")[2] for name in names if name.startswith(f"{shape}:")), "")


def _standard(told: Announcement, name: str) -> Words:
    address = {"address": told.address} if told.address else {}
    facts = {key: value for key, value in told.facts.items() if value is not None}
    return {"type": told.what, "timestamp": _iso(told.at), "data": {**address, **facts}}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def uuid_of(told: Announcement) -> str:
    """Return an id of the form that vendors give, the same each time: a UUID of our own making (RFC 9562 §5.8)."""
    digits = hashlib.sha256(told.id.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def _campaign(told: Announcement) -> list[str]:
    return [told.facts["campaign"]] if told.facts.get("campaign") else []


# SendGrid: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event


def _sendgrid(told: Announcement, name: str) -> list[Words] | None:
    words = _in_sendgrids_words(told, int(name) if name.isdecimal() else None)
    if words is None:
        return None
    message = {"sg_message_id": told.facts["message"]} if told.facts.get("message") else {}
    common = {"email": told.address, "timestamp": int(told.at.timestamp()), "sg_event_id": uuid_of(told)}
    return [{**common, **message, "category": _campaign(told), **words}]


def _in_sendgrids_words(told: Announcement, group: int | None) -> Words | None:
    match told.what:
        case Happening.UNSUBSCRIBED | Happening.ERASED:
            is_of_group = group is not None and told.facts["scope"] == Scope.TOPIC
            return {"event": "group_unsubscribe", "asm_group_id": group} if is_of_group else {"event": "unsubscribe"}
        case Happening.SUBSCRIBED:
            return {"event": "group_resubscribe", "asm_group_id": group} if group is not None else None
        case Happening.COMPLAINED:
            return {"event": "spamreport"}
        case Happening.BOUNCED:
            return {"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 unknown mailbox"}
        case Happening.RELAYED:
            return {"event": "processed"}
        case Happening.REFUSED | Happening.FAILED:
            return {"event": "dropped", "status": "5.0.0", "reason": _SENDGRIDS_REASONS.get(_reason(told), _why(told))}
        case _:
            return None


_SENDGRIDS_REASONS: Final = {
    Reason.UNSUBSCRIBED: "Unsubscribed Address",
    Reason.OBJECTED: "Unsubscribed Address",
    Reason.ERASED: "Unsubscribed Address",
    Reason.BOUNCED: "Bounced Address",
    Reason.COMPLAINED: "Spam Reporting Address",
}


def _reason(told: Announcement) -> Any:
    """Return the slug of a refusal; None for what the next hop did not take."""
    return told.facts.get("reason") if told.what is Happening.REFUSED else None


def _why(told: Announcement) -> str:
    if told.what is Happening.FAILED:
        return str(told.facts.get("reply") or told.facts.get("sentence") or "it could not be relayed")
    return f"{told.facts['reason']}: {told.facts['sentence']}"


# Mailgun: https://documentation.mailgun.com/docs/mailgun/user-manual/events/webhooks


def _mailgun(told: Announcement, name: str) -> Words | None:
    words = _in_mailguns_words(told)
    if words is None:
        return None
    tags = [name] if name and told.facts["scope"] == Scope.TOPIC else _campaign(told)
    message = {"message": {"headers": {"message-id": told.facts["message"]}}} if told.facts.get("message") else {}
    common = {"id": uuid_of(told), "timestamp": told.at.timestamp(), "recipient": told.address}
    return {"event-data": {**common, **message, "tags": tags, **words}}


def _in_mailguns_words(told: Announcement) -> Words | None:
    match told.what:
        case Happening.UNSUBSCRIBED | Happening.ERASED:
            return {"event": "unsubscribed"}
        case Happening.COMPLAINED:
            return {"event": "complained"}
        case Happening.BOUNCED:
            return _mailguns_failure("bounce", 550, "5.1.1 unknown mailbox")
        case Happening.RELAYED:
            return {"event": "accepted"}
        case Happening.REFUSED if _reason(told) in _MAILGUNS_REASONS:
            return _mailguns_failure(*_MAILGUNS_REASONS[_reason(told)])
        case Happening.REFUSED | Happening.FAILED:
            return {"event": "rejected", "reject": {"reason": _why(told), "description": ""}}
        case _:
            return None


def _mailguns_failure(reason: str, code: int, description: str) -> Words:
    status = {"code": code, "message": description, "description": description}
    return {"event": "failed", "severity": "permanent", "reason": reason, "delivery-status": status}


_OPTED_OUT = ("suppress-unsubscribe", 606, "Not delivering to unsubscribed address")
_MAILGUNS_REASONS: Final = {
    Reason.UNSUBSCRIBED: _OPTED_OUT,
    Reason.OBJECTED: _OPTED_OUT,
    Reason.ERASED: _OPTED_OUT,
    Reason.BOUNCED: ("suppress-bounce", 605, "Not delivering to previously bounced address"),
    Reason.COMPLAINED: ("suppress-complaint", 607, "Not delivering to a user who marked your messages as spam"),
}


# Postmark: https://postmarkapp.com/developer/webhooks/webhooks-overview


def _postmark(told: Announcement, name: str) -> Words | None:
    message = told.facts.get("message") or ""
    common = {"MessageStream": name or "broadcast", "MessageID": message and uuid_of(told), "Metadata": {}}
    at = _iso(told.at)
    match told.what:
        case Happening.UNSUBSCRIBED | Happening.ERASED | Happening.SUBSCRIBED:
            ends = told.what is not Happening.SUBSCRIBED
            why = "ManualSuppression" if ends else None
            changed = {"RecordType": "SubscriptionChange", "Recipient": told.address, "ChangedAt": at, "Tag": ""}
            return {**common, **changed, "Origin": "Recipient", "SuppressSending": ends, "SuppressionReason": why}
        case Happening.COMPLAINED:
            return {**common, **_postmarks_bounce(told, "SpamComplaint", 100001), "RecordType": "SpamComplaint"}
        case Happening.BOUNCED:
            return {**common, **_postmarks_bounce(told, "HardBounce", 1)}
        case Happening.REFUSED | Happening.FAILED:
            return {**common, **_postmarks_bounce(told, "SMTPApiError", 100007), "Details": _why(told)}
        case _:
            return None


def _postmarks_bounce(told: Announcement, kind: str, code: int) -> Words:
    return {
        "RecordType": "Bounce",
        "ID": int(uuid_of(told).replace("-", "")[:13], 16),
        "Type": kind,
        "TypeCode": code,
        "Name": kind,
        "Tag": "".join(_campaign(told)),
        "Description": told.what,
        "Details": "",
        "Email": told.address,
        "BouncedAt": _iso(told.at),
        "DumpAvailable": False,
        "Inactive": told.what.is_of_recipient,
        "CanActivate": False,
        "Subject": "",
    }


# Amazon SES, as SNS brings it: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html


def _ses(told: Announcement, name: str) -> Words | None:
    words = _in_amazons_words(told, name)
    if words is None:
        return None
    mail = {
        "timestamp": _iso(told.at),
        "messageId": told.facts.get("message") or uuid_of(told),
        "destination": [told.address],
        "headersTruncated": False,
        "headers": [],
        "tags": {"campaign": _campaign(told)} if _campaign(told) else {},
    }
    return {
        "Type": "Notification",
        "MessageId": uuid_of(told),
        "TopicArn": TOPIC_ARN,
        "Subject": "Amazon SES Email Event Notification",
        "Message": json.dumps({**words, "mail": mail}),
        "Timestamp": _iso(told.at),
    }


def _in_amazons_words(told: Announcement, name: str) -> Words | None:
    at = _iso(told.at)
    match told.what:
        case Happening.UNSUBSCRIBED | Happening.ERASED | Happening.SUBSCRIBED:
            return _subscription(told, name)
        case Happening.COMPLAINED:
            named = [{"emailAddress": told.address}]
            facts = {"complainedRecipients": named, "timestamp": at, "feedbackId": uuid_of(told)}
            return {"eventType": "Complaint", "complaint": {**facts, "complaintFeedbackType": "abuse"}}
        case Happening.BOUNCED:
            return _amazons_bounce(told, "General", "smtp; 550 5.1.1 unknown mailbox")
        case Happening.REFUSED if _reason(told) in _SENDGRIDS_REASONS:
            return _amazons_bounce(told, "OnAccountSuppressionList", _why(told))
        case Happening.REFUSED | Happening.FAILED:
            return {"eventType": "Reject", "reject": {"reason": _why(told)}}
        case Happening.RELAYED:
            return {"eventType": "Send", "send": {}}
        case _:
            return None


def _amazons_bounce(told: Announcement, kind: str, why: str) -> Words:
    named = [{"emailAddress": told.address, "action": "failed", "status": "5.1.1", "diagnosticCode": why}]
    facts = {"bounceType": "Permanent", "bounceSubType": kind, "bouncedRecipients": named}
    return {"eventType": "Bounce", "bounce": {**facts, "timestamp": _iso(told.at), "feedbackId": uuid_of(told)}}


def _subscription(told: Announcement, name: str) -> Words | None:
    """Return the change of a contact's preferences; without the topic's name there, only a "no" can be told."""
    ends = told.what is not Happening.SUBSCRIBED
    if not name and not ends:
        return None
    is_of_topic = bool(name) and told.facts["scope"] == Scope.TOPIC
    status = [{"topicName": name, "subscriptionStatus": "OptOut" if ends else "OptIn"}] if is_of_topic else []
    before = [{**one, "subscriptionStatus": "OptIn" if ends else "OptOut"} for one in status]
    change = {
        "contactList": "",
        "timestamp": _iso(told.at),
        "source": "UnsubscribeHeader",
        "newTopicPreferences": {"unsubscribeAll": ends and not is_of_topic, "topicSubscriptionStatus": status},
        "oldTopicPreferences": {"unsubscribeAll": False, "topicSubscriptionStatus": before},
    }
    return {"eventType": "Subscription", "subscription": change}


_WRITERS: Final[Mapping[Shape, Callable[[Announcement, str], Words | list[Words] | None]]] = {
    Shape.STANDARD: _standard,
    Shape.SENDGRID: _sendgrid,
    Shape.MAILGUN: _mailgun,
    Shape.POSTMARK: _postmark,
    Shape.SES: _ses,
}
