"""Lines that are too long for SMTP, and how a message that has some is mended (SMTP-08, RFC 5321 §4.5.3.1.6).

The rule: a reader sees what the author wrote. A part's long lines are hidden in its transfer encoding, a header's are
folded where it has white space; no text is wrapped. What is sealed is not touched, and what cannot be mended is
refused by `stamp`, which asks here.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.errors import Malformed
from gateway.headers import Field, make, split
from gateway.mime import IDENTITY, Part, leaves, parse

LINE_LIMIT: Final = 998
"""Octets of a line, without its CRLF (RFC 5322 §2.1.1)."""

_QP_LINE = 76
_STEP: Final = 256 * 1024
"""Octets that are encoded in one go, so that other threads have their turn."""

_UNENCODABLE = ("multipart/", "message/")
_LAST_GAP = re.compile(rb"(?:[ \t]+|[!-9;-~]+[ \t]*:[ \t]*)?+[^ \t].*(?=[ \t])", re.DOTALL)


class Edit(NamedTuple):
    """The octets `start:end` of a message are to become `text`."""

    start: int
    end: int
    text: bytes


def has_long_line(message: bytes, start: int = 0, end: int | None = None) -> bool:
    """True where a line is longer than `LINE_LIMIT`; looks at one line end in a thousand octets, so it costs little."""
    end = len(message) if end is None else end
    position = start
    while end - position > LINE_LIMIT:
        newline = message.rfind(b"\n", position, min(position + LINE_LIMIT + 2, end))
        if newline < 0:
            return True
        position = newline + 1
    return False


def mend(message: bytes) -> bytes:
    """Return a message without long lines that reads as this one does; raises `Malformed` where there is none."""
    root = parse(message, split(message))
    edits = sorted([*_folded_headers(message, root), *_recoded_parts(message, root)])
    mended = applied(message, edits)
    if has_long_line(mended):
        raise Malformed(f"a line is longer than {LINE_LIMIT} octets and cannot be folded or re-encoded")
    return mended


def quoted_printable(data: bytes) -> bytes:
    """Encode data, in which CRLF is a line break, by RFC 2045 §6.7; no line is longer than 76 octets."""
    lines, rest = list[bytes](), b""
    for at in range(0, len(data), _STEP):
        encoded = _quoted_printable(rest + data[at : at + _STEP])
        end = encoded.rfind(b"\n") + 1 if at + _STEP < len(data) else len(encoded)
        lines.append(encoded[:end])
        rest = binascii.a2b_qp(encoded[end:])
    return b"".join(lines)


def _quoted_printable(data: bytes) -> bytes:
    """Encode at once. Without a line end in the data the soft breaks would be LFs, and its last line too long."""
    return binascii.b2a_qp(data + b"\r\n", istext=True)[:-2]


def base64_lines(data: bytes) -> bytes:
    """Encode data by RFC 2045 §6.8 in lines of 76 characters, the last one too with its CRLF."""
    return _lines_of_76(binascii.b2a_base64(data, newline=False))


def _lines_of_76(text: bytes) -> bytes:
    return b"".join([text[at : at + 76] + b"\r\n" for at in range(0, len(text), 76)])


def applied(message: bytes, edits: list[Edit]) -> bytes:
    """Return the message after edits that are in order and do not overlap."""
    pieces, position = list[bytes](), 0
    for start, end, text in edits:
        pieces += (message[position:start], text)
        position = end
    return b"".join([*pieces, message[position:]])


def every_part(part: Part) -> Iterator[Part]:
    """Yield a part and all that lies in it, from the first octet to the last."""
    yield part
    for child in part.children:
        yield from every_part(child)


def _folded_headers(message: bytes, root: Part) -> Iterator[Edit]:
    for part in every_part(root):
        if has_long_line(message, part.head, part.start) and not _is_recoded(message, part):
            fields = split(message, part.head, part.end).fields
            yield header_edit(part, fields, fields)


def header_edit(part: Part, old: tuple[Field, ...], new: tuple[Field, ...]) -> Edit:
    """Return the edit that gives a part other header fields, folded where they are too long."""
    end = part.head + sum(len(field.raw) for field in old)
    return Edit(part.head, end, b"".join(fold(field).raw for field in new))


def fold(field: Field) -> Field:
    """Break the long lines of a field at their last white space before the limit, where they have any."""
    if len(field.raw) <= LINE_LIMIT + 2:
        return field
    return Field(field.name, b"".join(_folded_line(line) for line in field.raw.splitlines(keepends=True)))


def _folded_line(line: bytes) -> bytes:
    pieces = list[bytes]()
    line = line.rstrip() + b"\r\n"
    while len(line) > LINE_LIMIT + 2:
        gap = _LAST_GAP.match(line, 0, LINE_LIMIT)
        if gap is None:
            break
        pieces.append(line[: gap.end()])
        line = line[gap.end() :]
    return b"\r\n".join([*pieces, line])


def _is_recoded(message: bytes, part: Part) -> bool:
    is_leaf = part.is_sealed or not part.children
    return is_leaf and has_long_line(message, part.start, part.end)


def _recoded_parts(message: bytes, root: Part) -> Iterator[Edit]:
    for part in leaves(root):
        if _is_recoded(message, part):
            if part.is_sealed:
                raise Malformed("a signed or encrypted part has a line that is too long, and may not be changed")
            yield from _recoded(message, part)


def _recoded(message: bytes, part: Part) -> Iterator[Edit]:
    body = message[part.start : part.end]
    fields = split(message, part.head, part.end).fields
    if part.encoding == "base64":
        yield header_edit(part, fields, fields)
        yield Edit(part.start, part.end, _lines_of_76(b"".join(body.split())))
    elif part.encoding == "quoted-printable":
        yield header_edit(part, fields, fields)
        yield Edit(part.start, part.end, b"\r\n".join(_softly_broken(line) for line in body.split(b"\r\n")))
    elif part.encoding in IDENTITY and not part.content_type.startswith(_UNENCODABLE):
        yield header_edit(part, fields, declared(part, fields, "quoted-printable"))
        yield Edit(part.start, part.end, quoted_printable(body))
    else:
        raise Malformed(f"a part of type {part.content_type} has a line that is too long, and cannot be re-encoded")


def declared(part: Part, fields: tuple[Field, ...], encoding: str) -> tuple[Field, ...]:
    """Return a part's fields with this transfer encoding, and with the MIME-Version that a message needs for it."""
    field = make("Content-Transfer-Encoding", encoding.encode("ascii"))
    if any(one.name == field.name for one in fields):
        return tuple(field if one.name == field.name else one for one in fields)
    has_version = part.head > 0 or any(one.name == "mime-version" for one in fields)
    version = () if has_version else (make("MIME-Version", b"1.0"),)
    return (*version, field, *fields)


_QP_RUN = re.compile(rb"(?:=[0-9A-Fa-f]{2}|[^=]|=(?![0-9A-Fa-f]{2})){1,%d}" % ((_QP_LINE - 1) // 3))


def _softly_broken(line: bytes) -> bytes:
    """Break a quoted-printable line that is too long by soft line breaks, never within an escape."""
    if len(line) <= LINE_LIMIT:
        return line
    pieces, position = list[bytes](), 0
    while position < len(line):
        end = _outside_escape(line, position + _STEP)
        pieces += _QP_RUN.findall(line, position, end)
        position = end
    return b"=\r\n".join(pieces)


def _outside_escape(line: bytes, at: int) -> int:
    """Return this place, or that of the escape sign just before it."""
    escape = line.find(b"=", at - 2, at)
    return escape if escape >= 0 and at < len(line) else at
