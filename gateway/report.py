"""Write the report that tells a submitter which recipients failed (RFC 3464, RFC 6522).

One report a message, from the null sender, to the envelope's reverse path; never about a report. It returns the
header of the original only (RET=HDRS), since its submitter has the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from gateway.headers import split
from gateway.model import Failure, Outcome, SpooledMessage

_ENHANCED_UNKNOWN = "5.0.0"
_LONGEST_REPLY = 900


def failure_report(
    hostname: str, about: SpooledMessage, failures: Sequence[Failure], report_id: str, now: datetime
) -> bytes:
    """Return the whole report about a message as CRLF lines, for its reverse path."""
    boundary = f"report-{report_id}"
    parts = (
        ("text/plain; charset=utf-8", _sentences(hostname, failures)),
        ("message/delivery-status", _delivery_status(hostname, _envelope_id(about), failures)),
        ("text/rfc822-headers", _header_of(about.message)),
    )
    body = b"".join(
        b"--%b\r\nContent-Type: %b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b\r\n"
        % (boundary.encode(), kind.encode(), part)
        for kind, part in parts
    )
    return _header(hostname, about.reverse_path, report_id, boundary, now) + body + b"--%b--\r\n" % boundary.encode()


def _header(hostname: str, reverse_path: str, report_id: str, boundary: str, now: datetime) -> bytes:
    lines = (
        f"From: Mail gateway <postmaster@{hostname}>",
        f"To: <{reverse_path}>",
        "Subject: Your message did not reach everybody",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{report_id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
    )
    return _lines(lines) + b"\r\n"


def _sentences(hostname: str, failures: Sequence[Failure]) -> bytes:
    told = [f"  <{one.recipient.address}>: {one.reply[:_LONGEST_REPLY]} (decision {one.decision})" for one in failures]
    return _lines((f"{hostname} could not pass your message on to:", "", *told))


def _delivery_status(hostname: str, envelope_id: str, failures: Sequence[Failure]) -> bytes:
    about = [f"Original-Envelope-Id: {envelope_id}"] if envelope_id else []
    groups = [_recipient_fields(one) for one in failures]
    return b"\r\n".join([_lines([*about, f"Reporting-MTA: dns; {hostname}"]), *groups])


def _recipient_fields(failure: Failure) -> bytes:
    address = failure.recipient.address
    kind = "utf-8" if address.needs_smtputf8 else "rfc822"
    told = [one[6:] for one in failure.recipient.options if one.upper().startswith("ORCPT=")]
    original = [_from_xtext(one).replace(";", "; ", 1) for one in told]
    return _lines(
        [
            *(f"Original-Recipient: {one}" for one in original),
            f"Final-Recipient: {kind}; {address}",
            "Action: failed",
            f"Status: {_status(failure)}",
            f"Diagnostic-Code: smtp; {failure.reply[:_LONGEST_REPLY]}",
        ]
    )


def _envelope_id(about: SpooledMessage) -> str:
    """Return the submitter's ENVID (RFC 3461 §4.4), "" for none."""
    return next((_from_xtext(one[6:]) for one in about.options if one.upper().startswith("ENVID=")), "")


def _from_xtext(encoded: str) -> str:
    """Decode xtext (RFC 3461 §4); what would break out of its field stays as it came."""
    decoded = re.sub(r"\+([0-9A-F]{2})", lambda octet: chr(int(octet[1], 16)), encoded)
    return decoded if decoded.isascii() and decoded.isprintable() else encoded


def _status(failure: Failure) -> str:
    """Return the RFC 3463 status: the one in the reply where it is permanent, 4.4.7 where time ran out."""
    if failure.outcome is Outcome.EXPIRED:
        return "4.4.7"
    words = failure.reply.split()
    return words[1] if len(words) > 1 and words[1].startswith("5.") else _ENHANCED_UNKNOWN


def _header_of(original: bytes) -> bytes:
    return original[: split(original).body]


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
