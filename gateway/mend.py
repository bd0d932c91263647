"""Lines that are too long for SMTP, and headers that are none, and how a message that has some is mended (SMTP-08).

The rule: a reader sees what the author wrote. A part's long lines are hidden in its transfer encoding, a header's are
folded where it has white space; no text is wrapped. A header is made to end where every mail server would end it, so
that all read the message that was judged and signed. What is sealed is not touched, and what cannot be mended is
refused by `stamp`, which asks here. Of a large message there is never more in memory than as it was, as it becomes, and
one step of the way.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from gateway.errors import Malformed
from gateway.headers import Field, make, split
from gateway.mime import IDENTITY, Part, leaves, parse
from gateway.model import Segment
from gateway.steps import STEP, joined, steps

LINE_LIMIT: Final = 998
"""Octets of a line, without its CRLF (RFC 5322 §2.1.1)."""

_QP_LINE = 76
_WHITE = b" \t\r\n\v\f"

_HIGH = bytes(range(128, 256))
_READABLE: Final = 6
"""Quoted-printable costs two octets more for each that it hides, base64 a third: beyond one in six it is the longer."""

_LARGE: Final = 1024 * 1024
"""Octets of a part from which room is worth more than that people can read its source."""

_UNENCODABLE = ("multipart/", "message/")
_VALUE = rb":[^\n]*+(?:\n|\Z)(?:[ \t][^\n]*+(?:\n|\Z))*+"
_REGULAR_HEADER = re.compile(rb"(?:[!-9;-~]++%b)*+(?:\r\n|\Z)" % _VALUE)
_FIELD = re.compile(rb"[!-9;-~]++(?P<gap>[ \t]*+)%b" % _VALUE)
_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MAILBOX_LINE = re.compile(rb">?From \S++ ++[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-3][0-9] [0-9:]{5,8} [^\n]*+\n")
_LAST_GAP = re.compile(rb"(?:[ \t]+|[!-9;-~]+[ \t]*:[ \t]*)?+[^ \t].*(?=[ \t])", re.DOTALL)


class Edit(NamedTuple):
    """The octets `start:end` of a message are to become a text, of which there are `pieces`."""

    start: int
    end: int
    pieces: Iterable[Segment]


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


def with_regular_header(message: bytes) -> bytes:
    """Return a message whose header is fields and nothing else (RFC 5322 §2.2); one that is so is returned as it is.

    A line that is no field begins the body: the blank line that is missing before it is supplied. White space between a
    field's name and its colon goes (§4.5), and so does the line that divides the messages of a mailbox file (RFC 4155).
    Raises `Malformed` where a Bcc would stand in the body then, for all to read.
    """
    return message if _REGULAR_HEADER.match(message) else applied(message, list(_regularised(message)))


def _regularised(message: bytes) -> Iterator[Edit]:
    position = 0
    while found := _FIELD.match(message, position) or _MAILBOX_LINE.match(message, position):
        if found.re is _MAILBOX_LINE:
            yield Edit(*found.span(), ())
        elif found["gap"]:
            yield Edit(*found.span("gap"), ())
        position = found.end()
    if position < len(message) and not message.startswith(b"\r\n", position):
        blank = message.find(b"\r\n\r\n", position)
        if _BCC.search(message, position, blank if blank >= 0 else len(message)):
            raise Malformed("a line of its header is no field and ends it, and a Bcc stands below that line")
        yield Edit(position, position, (b"\r\n",))


def mend(message: bytes, is_removed: Callable[[Field], bool] = lambda field: False) -> bytes:
    """Return a message without long lines that reads as this one does; raises `Malformed` where there is none.

    A field that `is_removed` before anything leaves may be as long as it likes.
    """
    root = parse(message, split(message))
    mended = applied(message, [*_folded_headers(message, root), *_recoded_parts(message, root)])
    block = split(mended)
    if has_long_line(mended, block.body) or any(
        has_long_line(field.raw) and not is_removed(field) for field in block.fields
    ):
        raise Malformed(f"a line is longer than {LINE_LIMIT} octets and cannot be folded or re-encoded")
    return mended


def in_quoted_printable(message: bytes, parts: Iterable[Part]) -> bytes:
    """Return a message in which these parts, in which nothing is encoded, are hidden in quoted-printable."""
    return applied(message, [edit for part in parts for edit in _hidden_in_quoted_printable(message, part)])


def _hidden_in_quoted_printable(message: bytes, part: Part) -> Iterator[Edit]:
    fields = split(message, part.head, part.end).fields
    return hidden(part, fields, memoryview(message)[part.start : part.end], in_base64=False)


def quoted_printable(data: Segment) -> bytes:
    """Encode data, in which CRLF is a line break, by RFC 2045 §6.7; no line is longer than 76 octets."""
    return joined(quoted_printable_in_steps(data))


def quoted_printable_in_steps(data: Segment) -> Iterator[bytes]:
    """Yield the same a step at a time."""
    rest = b""
    for at in range(0, len(data), STEP):
        encoded = _quoted_printable(rest + data[at : at + STEP])
        end = encoded.rfind(b"\n") + 1 if at + STEP < len(data) else len(encoded)
        yield encoded[:end]
        rest = binascii.a2b_qp(encoded[end:])


def _quoted_printable(data: bytes) -> bytes:
    """Encode at once. Without a line end in the data the soft breaks would be LFs, and its last line too long."""
    return binascii.b2a_qp(data + b"\r\n", istext=True)[:-2]


def base64_lines(data: Segment) -> bytes:
    """Encode data by RFC 2045 §6.8 in lines of 76 characters, the last one too with its CRLF."""
    return joined(base64_in_steps(data))


def base64_in_steps(data: Segment) -> Iterator[bytes]:
    """Yield the same a step at a time."""
    for step in steps(data):
        yield _lines_of_76(binascii.b2a_base64(step, newline=False))


def _lines_of_76(text: bytes) -> bytes:
    return b"".join([text[at : at + 76] + b"\r\n" for at in range(0, len(text), 76)])


def applied(message: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the message after edits that do not overlap."""
    return joined(_edited(memoryview(message), sorted(edits, key=lambda edit: edit[:2]))) if edits else message


def _edited(message: memoryview, edits: Sequence[Edit]) -> Iterator[Segment]:
    position = 0
    for start, end, pieces in edits:
        yield message[position:start]
        yield from pieces
        position = end
    yield message[position:]


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
    return Edit(part.head, end, [fold(field).raw for field in new])


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
    body = memoryview(message)[part.start : part.end]
    fields = split(message, part.head, part.end).fields
    if part.encoding == "base64":
        yield header_edit(part, fields, fields)
        yield Edit(part.start, part.end, _broken_at_76(body))
    elif part.encoding == "quoted-printable":
        yield header_edit(part, fields, fields)
        yield Edit(part.start, part.end, _softly_broken(message, part.start, part.end))
    elif part.encoding in IDENTITY and not part.content_type.startswith(_UNENCODABLE):
        yield from hidden(part, fields, body, in_base64=len(body) > _LARGE and is_dense(body))
    else:
        raise Malformed(f"a part of type {part.content_type} has a line that is too long, and cannot be re-encoded")


def is_dense(body: Segment) -> bool:
    """True where a body has so many octets beyond ASCII that base64 takes less room than quoted-printable."""
    high = sum(len(step) - len(step.translate(None, _HIGH)) for step in steps(body))
    return high * _READABLE > len(body)


def hidden(part: Part, fields: tuple[Field, ...], body: Segment, *, in_base64: bool) -> Iterator[Edit]:
    """Yield the edits that hide a part's body in a transfer encoding, and say so in its header."""
    encoding, encode = ("base64", base64_in_steps) if in_base64 else ("quoted-printable", quoted_printable_in_steps)
    yield header_edit(part, fields, declared(part, fields, encoding))
    yield Edit(part.start, part.end, encode(body))


def declared(part: Part, fields: tuple[Field, ...], encoding: str) -> tuple[Field, ...]:
    """Return a part's fields with this transfer encoding, and with the MIME-Version that a message needs for it."""
    field = make("Content-Transfer-Encoding", encoding.encode("ascii"))
    if any(one.name == field.name for one in fields):
        return tuple(field if one.name == field.name else one for one in fields)
    has_version = part.head > 0 or any(one.name == "mime-version" for one in fields)
    version = () if has_version else (make("MIME-Version", b"1.0"),)
    return (*version, field, *fields)


def _broken_at_76(body: memoryview) -> Iterator[bytes]:
    """Yield base64 in lines of 76 characters, whatever its lines have been."""
    rest = b""
    for step in steps(body):
        letters = rest + step.translate(None, _WHITE)
        whole = len(letters) - len(letters) % 76
        yield _lines_of_76(letters[:whole])
        rest = letters[whole:]
    yield _lines_of_76(rest)


_LONG_LINE = re.compile(rb"(?<=\n)[^\r\n]{%d,}+" % (LINE_LIMIT + 1))
_QP_RUN = re.compile(rb"(?:=[0-9A-Fa-f]{2}|[^=]|=(?![0-9A-Fa-f]{2})){1,%d}" % ((_QP_LINE - 1) // 3))


def _softly_broken(message: bytes, start: int, end: int) -> Iterator[Segment]:
    """Break the lines of quoted-printable that are too long by soft line breaks, never within an escape."""
    view, position = memoryview(message), start
    for line in _LONG_LINE.finditer(message, start, end):
        yield view[position : line.start()]
        yield from _runs(message, *line.span())
        position = line.end()
    yield view[position:end]


def _runs(message: bytes, position: int, end: int) -> Iterator[bytes]:
    """Yield a long line, a step at a time, with a soft line break wherever one is due."""
    soft_break = b""
    while position < end:
        stop = _outside_escape(message, min(position + STEP, end), end)
        yield soft_break + b"=\r\n".join(_QP_RUN.findall(message, position, stop))
        soft_break, position = b"=\r\n", stop


def _outside_escape(message: bytes, at: int, end: int) -> int:
    """Return this place, or that of the escape sign just before it."""
    escape = message.find(b"=", at - 2, at)
    return escape if escape >= 0 and at < end else at
