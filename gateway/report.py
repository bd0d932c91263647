"""Write the report that tells a submitter what became of a message (RFC 3461, RFC 3464, RFC 6522, RFC 6533).

The one rule: a report says of each recipient what RFC 3461 lets the submitter ask for, and nothing that a peer said
breaks out of its field. It comes from the null sender and goes to the envelope's reverse path; whether there is anybody
to send it to is left to whoever keeps it. Everything in it is 7 bits wide, but for a whole message that is given back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import NamedTuple

from gateway.downgrade import Inexpressible, written_in
from gateway.headers import split
from gateway.mend import has_long_line, quoted_printable
from gateway.model import Alphabet, Fate, Outcome, Recipient, SpooledMessage

RETURNED_OCTETS = 100 * 1024
"""A message beyond this size is not given back whole, even to those who ask for it (RET=FULL)."""

_ENHANCED_UNKNOWN = "0.0"
_LONGEST_REPLY = 900


class _Told(NamedTuple):
    """How an outcome is told: NOTIFY's word for it, RFC 3464's action, a subject, and a sentence before the list."""

    notify: str
    action: str
    subject: str
    sentence: str


_FAILED = _Told(
    "FAILURE", "failed", "Your message did not reach everybody", "could not pass your message on to these recipients:"
)
_DELAYED = _Told(
    "DELAY",
    "delayed",
    "Your message is delayed",
    "has not been able to pass your message on to these recipients yet, and goes on trying until {until}:",
)
_RELAYED = _Told(
    "SUCCESS",
    "relayed",
    "Your message was passed on",
    "passed your message on for these recipients, to a server that does not say whether it arrives:",
)
_BY_OUTCOME = {
    Outcome.FAILED: _FAILED,
    Outcome.EXPIRED: _FAILED,
    Outcome.SUPPRESSED: _FAILED,
    Outcome.DEFERRED: _DELAYED,
    Outcome.RELAYED: _RELAYED,
}


def is_told(recipient: Recipient, outcome: Outcome) -> bool:
    """True where the submitter is to hear of this outcome; without NOTIFY, of failures (RFC 3461 §4.1)."""
    asked = _parameter(recipient.options, "NOTIFY").upper() or _FAILED.notify
    return _BY_OUTCOME[outcome].notify in asked.split(",")


def delivery_report(
    hostname: str, about: SpooledMessage, fates: Sequence[Fate], report_id: str, now: datetime, until: datetime
) -> bytes:
    """Return the whole report about a message as CRLF lines, for its reverse path.

    `until` is when those who wait are given up.
    """
    boundary = f"report-{report_id}"
    takes_utf8 = "SMTPUTF8" in about.options or not about.reverse_path.isascii()
    parts = (
        _part("text/plain; charset=utf-8", _sentences(hostname, fates, until)),
        _delivery_status(hostname, about, fates, until, takes_utf8),
        _returned(about, fates, takes_utf8),
    )
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
    subject = _in_order(fates)[0].subject
    return _header(hostname, about, subject, report_id, boundary, now) + body + b"--%b--\r\n" % boundary.encode()


def _header(hostname: str, about: SpooledMessage, subject: str, report_id: str, boundary: str, now: datetime) -> bytes:
    lines = (
        f"From: Mail gateway <postmaster@{hostname}>",
        f"To: <{about.reverse_path}>",
        f"Subject: {subject}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{report_id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
    )
    return _lines(lines) + b"\r\n"


def _part(kind: str, content: bytes) -> bytes:
    if content.isascii() and not has_long_line(content):
        return b"Content-Type: %b\r\n\r\n%b" % (kind.encode(), content)
    head = b"Content-Type: %b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % kind.encode()
    return head + quoted_printable(content)


# for people


def _sentences(hostname: str, fates: Sequence[Fate], until: datetime) -> bytes:
    end = format_datetime(until)
    paragraphs = [
        [
            f"{hostname} {told.sentence.format(until=end)}",
            "",
            *(_line(one) for one in fates if _BY_OUTCOME[one.outcome] is told),
            "",
        ]
        for told in _in_order(fates)
    ]
    return _lines([line for paragraph in paragraphs for line in paragraph])


def _in_order(fates: Sequence[Fate]) -> list[_Told]:
    """Return what there is to tell, the worst first."""
    told = {_BY_OUTCOME[one.outcome] for one in fates}
    return [one for one in (_FAILED, _DELAYED, _RELAYED) if one in told]


def _line(fate: Fate) -> str:
    why = "tried until its time was over, last answered " if fate.outcome is Outcome.EXPIRED else ""
    reply = fate.reply[:_LONGEST_REPLY]
    decision = "" if fate.decision in reply else f" (decision {fate.decision})"
    return f"  <{fate.recipient.address}>: {why}{reply}{decision}"


# for programs


def _delivery_status(
    hostname: str, about: SpooledMessage, fates: Sequence[Fate], until: datetime, takes_utf8: bool
) -> bytes:
    envelope_id = _from_xtext(_parameter(about.options, "ENVID"))
    first = [
        *([f"Original-Envelope-Id: {envelope_id}"] if envelope_id else []),
        f"Reporting-MTA: dns; {hostname}",
        f"Arrival-Date: {format_datetime(about.received_at)}",
    ]
    content = b"\r\n".join([_lines(first), *(_lines(_recipient_fields(one, until, takes_utf8)) for one in fates)])
    return _part(f"message/{'delivery-status' if content.isascii() else 'global-delivery-status'}", content)


def _recipient_fields(fate: Fate, until: datetime, takes_utf8: bool) -> list[str]:
    kind, _, original = _parameter(fate.recipient.options, "ORCPT").partition(";")
    address = fate.recipient.address
    final = f"utf-8; {_spelled(address.text, takes_utf8)}" if address.needs_smtputf8 else f"rfc822; {address}"
    reply = fate.reply[:_LONGEST_REPLY]
    return [
        *([f"Original-Recipient: {kind}; {_original(kind, original, takes_utf8)}"] if original else []),
        f"Final-Recipient: {final}",
        f"Action: {_BY_OUTCOME[fate.outcome].action}",
        f"Status: {_status(fate)}",
        *([f"Remote-MTA: dns; {fate.server}"] if fate.server else []),
        f"Diagnostic-Code: smtp; {reply if takes_utf8 else reply.encode('ascii', 'replace').decode()}",
        *([f"Will-Retry-Until: {format_datetime(until)}"] if fate.outcome is Outcome.DEFERRED else []),
    ]


def _status(fate: Fate) -> str:
    """Return the RFC 3463 status: the reply's where it agrees with what happened, 4.4.7 where time ran out."""
    if fate.outcome is Outcome.EXPIRED:
        return "4.4.7"
    digit = {_FAILED: "5", _DELAYED: "4", _RELAYED: "2"}[_BY_OUTCOME[fate.outcome]]
    _, _, text = fate.reply.partition(" ")
    given = re.match(rf"{digit}\.\d{{1,3}}\.\d{{1,3}}\b", text)
    return given[0] if given else f"{digit}.{_ENHANCED_UNKNOWN}"


def _original(kind: str, given: str, takes_utf8: bool) -> str:
    """Return ORCPT's address: decoded from xtext, or in RFC 6533's spelling for the form of this report."""
    if kind.lower() != "utf-8":
        return _from_xtext(given)
    decoded = re.sub(r"\\x\{([0-9A-F]+)\}", lambda point: chr(int(point[1], 16)), given)
    return _spelled(decoded, takes_utf8) if decoded.isprintable() else given.encode("ascii", "replace").decode()


def _spelled(address: str, takes_utf8: bool) -> str:
    """Return an internationalised address as it is, or as utf-8-addr-xtext, which is ASCII (RFC 6533 §3)."""
    if takes_utf8:
        return address
    return re.sub(r"[^!-*,-<>-\[\]-~]", lambda character: f"\\x{{{ord(character[0]):02X}}}", address)


def _from_xtext(encoded: str) -> str:
    """Decode xtext (RFC 3461 §4); what would break out of its field stays as it came."""
    decoded = re.sub(r"\+([0-9A-F]{2})", lambda octet: chr(int(octet[1], 16)), encoded)
    return decoded if decoded.isascii() and decoded.isprintable() else encoded


def _parameter(options: Sequence[str], name: str) -> str:
    """Return the value of an ESMTP parameter, "" for none."""
    return next((one.partition("=")[2] for one in options if one.partition("=")[0].upper() == name), "")


# what is given back


def _returned(about: SpooledMessage, fates: Sequence[Fate], takes_utf8: bool) -> bytes:
    """Give back the header; the whole message where that was asked for and something failed (RFC 3461 §4.3)."""
    header = about.message[: split(about.message).body]
    is_global = takes_utf8 and not header.isascii()
    wants_all = _parameter(about.options, "RET").upper() == "FULL" and _FAILED in _in_order(fates)
    if not wants_all or len(about.message) > RETURNED_OCTETS or not (is_global or _can_be_enclosed(about.message)):
        return _part("message/global-headers" if is_global else "text/rfc822-headers", header)
    if is_global:
        return _part("message/global", about.message)
    width = b"7bit" if about.message.isascii() else b"8bit"
    return b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (width, about.message)


def _can_be_enclosed(message: bytes) -> bool:
    """True where any next hop can be sent it, if need be in 7 bits: a report that cannot leave tells nobody."""
    if has_long_line(message):
        return False
    try:
        written_in(Alphabet.ASCII, message, is_utf8=False)
    except Inexpressible:
        return False
    return True


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
