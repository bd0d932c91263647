"""Write the letter that tells what was found out about a draft: in plain text and in HTML, the copy beside it.

The rule that must not be broken: nothing of the draft becomes a part of the letter's own form: in text it cannot break
its line, in HTML it is escaped, and nothing in it is fetched or can be clicked.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Final, NamedTuple

from gateway.mend import base64_lines, quoted_printable
from gateway.preflight import Count, Findings, Link

MOST_SHOWN: Final = 200
"""Links and trackers that are listed; those beyond are counted."""

LONGEST_TEXT: Final = 20_000
"""Characters of a copy's text that are shown in the letter itself."""

LARGEST_COPY: Final = 2 * 1024 * 1024
"""Octets of a copy from which on it is not attached."""

_LONGEST_LINE: Final = 1000
_STYLE: Final = "font-family:Arial,Helvetica,sans-serif;font-size:14px;line-height:20px;color:#222222"


class _Section(NamedTuple):
    heading: str
    lines: tuple[str, ...]


def letter(hostname: str, help_url: str, to: str, findings: Findings, letter_id: str, now: datetime) -> bytes:
    """Return the whole letter as CRLF lines."""
    sections = [one for one in _sections(findings, help_url) if one.lines]
    boundary = f"preflight-{letter_id}"
    alternatives = [
        _part("text/plain", _as_text(sections)),
        _part("text/html", _as_html(sections)),
    ]
    parts = [
        b'Content-Type: multipart/alternative; boundary="a-%b"\r\n\r\n%b'
        % (boundary.encode(), _together(f"a-{boundary}", alternatives))
    ]
    if findings.copy and len(findings.copy) < LARGEST_COPY:
        parts.append(_attached(findings.copy))
    header = (
        f"From: Mail gateway <postmaster@{hostname}>",
        f"To: <{to}>",
        f"Subject: Preflight: {'it would be refused' if findings.refusal else 'as it would be sent'}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{letter_id}@{hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
    )
    return "".join(f"{line}\r\n" for line in (*header, "")).encode("utf-8") + _together(boundary, parts)


def _attached(copy: bytes) -> bytes:
    """Return the copy as a part: as the message that it is where it is 7 bits wide, else so that no octet is lost."""
    where = b'Content-Disposition: attachment; filename="copy.eml"\r\n'
    if copy.isascii():
        return b"Content-Type: message/rfc822\r\n%b\r\n%b" % (where, copy)
    head = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    return b"%b%b\r\n%b" % (head, where, base64_lines(copy))


def _part(kind: str, text: str) -> bytes:
    head = f"Content-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head.encode("ascii") + quoted_printable(text.encode("utf-8", "replace"))


def _together(boundary: str, parts: Sequence[bytes]) -> bytes:
    mark = boundary.encode("ascii")
    return b"".join(b"--%b\r\n%b\r\n" % (mark, part) for part in parts) + b"--%b--\r\n" % mark


# what is told


def _sections(found: Findings, help_url: str) -> Iterator[_Section]:
    yield _Section("The draft", (f"Subject: {_line(found.subject)}", f"Login: {found.login}", *_answer(found)))
    yield _Section("What it is", tuple(_what(found)))
    yield _Section("Who would get it", tuple(_who(found.count)) if found.count else ())
    yield _Section("Links", tuple(_listed([_link(one) for one in found.links])) if found.copy else ())
    yield _Section("Trackers", tuple(_listed(found.trackers)) if found.copy else ())
    yield _Section("Put into the copy", tuple(found.added) or (("nothing",) if found.copy else ()))
    yield _Section(
        "Looked at as its receiver does", tuple(f"{_word(one.is_well)}: {one.name}: {one.told}" for one in found.checks)
    )
    yield _Section("What its reader sees", tuple(_shown(found.text)))
    yield _Section("More", (f"See {help_url}",) if help_url else ())


def _answer(found: Findings) -> Iterator[str]:
    answer = "put off" if found.refusal.startswith("4") else "refused"
    yield f"It would be {answer}: {_line(found.refusal)}" if found.refusal else "It would be taken."
    yield "Nothing has been sent to anybody, and nothing is recorded as sent."
    yield from map(_line, found.remarks)


def _what(found: Findings) -> Iterator[str]:
    if found.message_class:
        yield f"Class: {found.message_class}"
        yield f"Stream: {found.stream}"
        yield f"Topic: {', '.join(found.topics) or 'none'}"
    for reason in found.why:
        yield f"Because {_line(reason)}."


def _who(count: Count) -> Iterator[str]:
    of = (
        f"of the {count.people:,} people on record"
        if count.is_whole
        else f"of the first {count.people:,} people on record"
    )
    yield f"{count.allowed:,} {of}"
    if count.leaves:
        yield f"{count.leaves:,} of them only because the stream is in shadow mode"
    for reason, refused in sorted(count.refused.items(), key=lambda one: (-one[1], one[0])):
        yield f"not {refused:,}: {reason}"
    if not count.is_whole:
        yield "To look at everybody takes longer than a letter may; assent simulate does it for a list."


def _link(link: Link) -> str:
    whose = "ours" if link.is_ours else "foreign"
    return f"{link.kind}, {whose}, {link.host}{', not encrypted' if link.is_in_the_clear else ''}: {link.url}"


def _listed(lines: Sequence[str]) -> Iterator[str]:
    yield from map(_line, lines[:MOST_SHOWN])
    if len(lines) > MOST_SHOWN:
        yield f"and {len(lines) - MOST_SHOWN} more"
    if not lines:
        yield "none"


def _shown(text: str) -> Iterator[str]:
    yield from map(_line, re.sub(r"\n{3,}", "\n\n", text[:LONGEST_TEXT]).splitlines())
    if len(text) > LONGEST_TEXT:
        yield "…"


def _word(is_well: bool | None) -> str:
    return {True: "well", False: "not well", None: "not tried"}[is_well]


def _line(text: str) -> str:
    """Return a text without what could break out of its line."""
    shown = text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"
    return "".join(letter if letter.isprintable() else " " for letter in shown)


# the two forms


def _as_text(sections: Sequence[_Section]) -> str:
    return "\r\n".join(line for heading, lines in sections for line in (heading, "-" * len(heading), *lines, ""))


def _as_html(sections: Sequence[_Section]) -> str:
    body = "\r\n".join(
        f'<h2 style="font-size:16px;margin:20px 0 6px">{html.escape(heading)}</h2>\r\n'
        + "<br>\r\n".join(map(html.escape, lines))
        for heading, lines in sections
    )
    return f'<!doctype html>\r\n<html lang="en"><body style="{_STYLE}">\r\n{body}\r\n</body></html>\r\n'
