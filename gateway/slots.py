"""Where links go in the parts of a message that are shown, whatever their encoding: the holes that copies fill.

The one rule: the author's text stays as it was; a part is encoded anew only where its encoding (base64) leaves no other
way. What differs from copy to copy is the link alone, so everything else is made once a message (`Slot`). What the
footer says is `footer`'s part, which placeholders there are that of `placeholders`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, NamedTuple

from gateway.footer import Lacking, codec, is_ascii_compatible, is_html, lacking, wording
from gateway.mend import base64_lines, quoted_printable
from gateway.mime import Part, is_inline_pgp
from gateway.model import Company
from gateway.placeholders import Found, Hole, find

_BASE64_STEP: Final = 57
"""Octets that make one line of 76 base64 characters."""

_WHITE = b" \t\r\n\v\f"
_STEP: Final = 256 * 1024
"""Octets that are decoded or searched in one go; a multiple of four."""

_LONGEST_MARK: Final = 8 * 1024
"""Octets of a mark with a soft line break, and the line's worth of white space that one may have, at each place."""

_LONGEST_LINK: Final = 300
_SOFT_BREAK = rb"(?:=[ \t]*\r\n)?"


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes of a body with holes for a copy's link, and how the whole is encoded then; a text stands around each."""

    texts: tuple[bytes, ...]
    holes: tuple[Hole, ...]
    encode: Callable[[bytes], bytes]

    def fill(self, url: str, mailto: str) -> bytes:
        """Return the bytes with this link in them, which is ASCII."""
        filled = [hole.fill(url, mailto) + text for hole, text in zip(self.holes, self.texts[1:], strict=True)]
        return self.encode(b"".join([self.texts[0], *filled]))


class Placement(NamedTuple):
    """What of the message `kept` and a slot stand in for: `start:end`, empty where they are only put in between.

    `kept` is encoded anew, but the same in all copies.
    """

    start: int
    end: int
    kept: bytes
    slot: Slot


class Unfillable(Exception):
    """A part asks for something that is no link of ours: the placeholder, for the submitter."""


class _Insertion(NamedTuple):
    """What stands in for `start:end` of a part's content, as it is once decoded."""

    start: int
    end: int
    texts: tuple[bytes, ...]
    holes: tuple[Hole, ...]


def place(message: bytes, part: Part, company: Company) -> list[Placement]:
    """Say where in a shown part links go, and in which words: where the author wants them, and in a footer.

    The footer has whatever the part lacks of the link, the sender's name, postal address and contact (BODY-01). Returns
    nothing where the part cannot carry one: OpenPGP armour, base64 that does not decode, or a charset in which
    ASCII is not ASCII. Raises `Unfillable`.
    """
    body = message[part.start : part.end]
    content = _decoded_base64(body) if part.encoding == "base64" else body
    if content is None or not is_ascii_compatible(codec(part)) or (not is_html(part) and is_inline_pgp(content)):
        return []
    text = binascii.a2b_qp(content) if part.encoding == "quoted-printable" else content
    found = find(text, is_html=is_html(part))
    _refuse_unfillable(text, found)
    if part.encoding == "quoted-printable":
        wanted = _in_source(content, text, found)
    else:
        wanted = [_Insertion(one.start, one.end, (b"", b""), (one.hole,)) for one in found if one.hole]
    lacks = lacking(part, text, company, has_link=_has_visible_link(part, text, found))
    if any(lacks):
        wanted = [*wanted, _footer(part, content, company, lacks)]
        wanted.sort()
    return _within_base64(part, content, wanted) if part.encoding == "base64" else _in_place(part, wanted)


def stand_in(message: bytes, part: Part, placeholder: bytes) -> list[Placement]:
    """Say where a link goes in a shown part: wherever this placeholder stands, and nowhere else."""
    body = message[part.start : part.end]
    content = _decoded_base64(body) if part.encoding == "base64" else body
    spelled = _spell_in_quoted_printable if part.encoding == "quoted-printable" else re.escape
    wanted = [
        _Insertion(*match.span(), (b"", b""), (Hole(escapes=is_html(part)),))
        for match in re.finditer(spelled(placeholder), content or b"")
    ]
    return _within_base64(part, content or b"", wanted) if part.encoding == "base64" else _in_place(part, wanted)


def _has_visible_link(part: Part, text: bytes, found: Sequence[Found]) -> bool:
    """True where the author's own place for the link can be seen: in HTML in a link, and outside of comments."""
    links = [one for one in found if one.hole and not one.hole.is_mail]
    return any(not is_html(part) or (one.is_clickable and not _is_commented_out(text, one.start)) for one in links)


def _is_commented_out(text: bytes, at: int) -> bool:
    return text.rfind(b"<!--", 0, at) > text.rfind(b"-->", 0, at)


def _footer(part: Part, content: bytes, company: Company, lacks: Lacking) -> _Insertion:
    at = _insertion_point(part, content)
    words = wording(part, content, company, lacks)
    if not lacks.link:
        return _Insertion(at, at, (words.before,), ())
    return _Insertion(at, at, (words.before, words.after), (Hole(escapes=is_html(part)),))


def _refuse_unfillable(text: bytes, found: Sequence[Found]) -> None:
    for one in found:
        if one.hole is None:
            raise Unfillable(text[one.start : one.end].decode("ascii", "replace"))


def _in_place(part: Part, wanted: Sequence[_Insertion]) -> list[Placement]:
    encoders = (quoted_printable, _within_line) if part.encoding == "quoted-printable" else (bytes, bytes)
    return [
        Placement(part.start + start, part.start + end, b"", Slot(texts, holes, encoders[end > start]))
        for start, end, texts, holes in wanted
    ]


def _within_line(text: bytes) -> bytes:
    """Encode what stands in the midst of a line, which soft line breaks keep as short as it was."""
    return b"=\r\n" + quoted_printable(text) + b"=\r\n"


def _in_source(source: bytes, text: bytes, found: Sequence[Found]) -> list[_Insertion]:
    """Find in quoted-printable what was found in the text that it encodes, in the same order."""
    wanted, position = list[_Insertion](), 0
    for one in found:
        match = _in_quoted_printable(text[one.start : one.end]).search(source, position)
        if match is None or one.hole is None:
            raise Unfillable(text[one.start : one.end].decode("ascii", "replace"))
        wanted.append(_Insertion(match.start(), match.end(), (b"", b""), (one.hole,)))
        position = match.end()
    return wanted


@lru_cache(maxsize=64)
def _in_quoted_printable(text: bytes) -> re.Pattern[bytes]:
    return re.compile(_spell_in_quoted_printable(text))


def _within_base64(part: Part, content: bytes, wanted: Sequence[_Insertion]) -> list[Placement]:
    """Keep the lines before the first link as they would be encoded anyway; what follows differs between copies."""
    if not wanted:
        return []
    kept = wanted[0].start - wanted[0].start % _BASE64_STEP
    texts, holes, position = [b""], list[Hole](), kept
    for start, end, around, inside in wanted:
        texts[-1] += content[position:start] + around[0]
        texts += around[1:]
        holes += inside
        position = end
    texts[-1] += content[position:]
    slot = Slot(tuple(texts), tuple(holes), base64_lines)
    return [Placement(part.start, part.end, base64_lines(content[:kept]), slot)]


def _decoded_base64(body: bytes) -> bytes | None:
    """Return what a base64 body says, decoded a step at a time so that other threads have their turn."""
    padded = body.translate(None, _WHITE)
    text = padded.rstrip(b"=")
    if len(padded) - len(text) > 2 or b"=" in text:
        return None
    text += b"=" * (-len(text) % 4)
    try:
        return b"".join([_strictly(text[at : at + _STEP]) for at in range(0, len(text), _STEP)])
    except binascii.Error:
        return None


_strictly = partial(binascii.a2b_base64, strict_mode=True)


def _insertion_point(part: Part, content: bytes) -> int:
    """Return where the link goes: at the end, in HTML before the last `</body>`, but never within a comment."""
    if not is_html(part):
        return len(content)
    marks = _QP_MARKS if part.encoding == "quoted-printable" else _MARKS
    at, position = len(content), 0
    while mark := _found(marks.opening, content, position):
        position = mark.end()
        if mark.lastgroup:
            at = mark.start()
        elif end := _found(marks.comment_end, content, position):
            position = end.end()
        else:
            return mark.start()
    return at


class _Marks(NamedTuple):
    """What begins a comment or ends the body (then it has a group), and what ends a comment."""

    opening: re.Pattern[bytes]
    comment_end: re.Pattern[bytes]


def _marks(spell: Callable[[bytes], bytes]) -> _Marks:
    opening, comment, end, body = map(spell, (b"<", b"!--", b"-->", b"/body"))
    return _Marks(re.compile(rb"%b(?:%b|(?P<body>(?i:%b)))" % (opening, comment, body)), re.compile(end))


def _found(pattern: re.Pattern[bytes], content: bytes, position: int) -> re.Match[bytes] | None:
    """Search a step at a time, so that other threads have their turn; a mark may reach into the next step."""
    for start in range(position, len(content), _STEP):
        match = pattern.search(content, start, start + _STEP + _LONGEST_MARK)
        if match:
            return match
    return None


def _spell_in_quoted_printable(text: bytes) -> bytes:
    """Match a text in which any character may be escaped, and soft line breaks may fall between any two."""
    return _SOFT_BREAK.join(rb"(?:%b|=%02X)" % (re.escape(bytes([octet])), octet) for octet in text)


_MARKS = _marks(re.escape)
_QP_MARKS = _marks(_spell_in_quoted_printable)
