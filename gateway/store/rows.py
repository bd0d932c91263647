"""How a message and its recipients stand in the rows of `spool.db`.

The one rule: what was written is read back as it was, by later versions too; so a field that came later has a default.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from gateway.address import Address
from gateway.model import (
    Fate,
    MessageClass,
    Outcome,
    Peer,
    PolicyNotice,
    Recipient,
    SpooledMessage,
    SpooledRecipient,
)

HELD = 0
"""The `due` of a recipient that waits for an operator."""


def envelope_json(message: SpooledMessage) -> str:
    """Return everything about a message but its octets, as its row keeps it."""
    peer = message.peer
    ends = {"ends": message.ends.isoformat()} if message.ends else {}
    envelope = orjson.dumps(
        {
            "login": message.login,
            "stream": message.stream,
            "class": message.message_class,
            "topics": message.topics,
            "campaign": message.campaign,
            "product": message.product,
            "notice": message.notice and [message.notice.version, message.notice.asks],
            **ends,
            "reverse_path": message.reverse_path,
            "options": message.options,
            "peer": [peer.helo, peer.ip, peer.protocol, peer.tls],
            "received_at": message.received_at.isoformat(),
            "recipients": [[one.address.text, *one.options] for one in message.recipients],
        }
    )
    return envelope.decode("utf-8")


def message_of(message_id: int, envelope: str, body: bytes) -> SpooledMessage:
    """Return the message of a row and its body."""
    raw = orjson.loads(envelope)
    notice = raw.get("notice")
    return SpooledMessage(
        id=message_id,
        login=raw["login"],
        stream=raw["stream"],
        message_class=MessageClass(raw["class"]),
        topics=tuple(raw["topics"]),
        reverse_path=raw["reverse_path"],
        options=tuple(raw["options"]),
        peer=Peer(*raw["peer"]),
        received_at=datetime.fromisoformat(raw["received_at"]),
        recipients=tuple(Recipient(Address.parse(text), tuple(options)) for text, *options in raw["recipients"]),
        message=body,
        campaign=raw.get("campaign", ""),
        product=raw.get("product", ""),
        notice=PolicyNotice(*notice) if notice else None,
        ends=datetime.fromisoformat(raw["ends"]) if "ends" in raw else None,
    )


def addressee_of(row: Sequence[Any]) -> SpooledRecipient:
    """Return the recipient of a row's n, address, options, who, decision and attempts."""
    n, address, options, who, decision, attempts = row
    return SpooledRecipient(n, _recipient(address, options), who, decision, attempts)


def fate_of(row: Sequence[Any]) -> Fate:
    """Return what a row's address, options, outcome, reply, decision and server say to the submitter."""
    address, options, outcome, reply, decision, server = row
    return Fate(_recipient(address, options), Outcome(outcome), reply, decision, server)


def _recipient(address: str, options: str) -> Recipient:
    return Recipient(Address.parse(address), tuple(options.split()))


def epoch(moment: datetime) -> int:
    """Return a time as milliseconds since 1970, which is how `due` is kept and compared."""
    return int(moment.timestamp() * 1000)
