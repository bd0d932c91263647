"""Write the visible unsubscribe link into a part that is shown, whatever its encoding and charset.

The one rule: the author's text stays as it was; a part is re-encoded only where its encoding (base64) leaves no other
way. What differs from copy to copy is the link alone, so everything else is made once a message (`Slot`).
"""

from __future__ import annotations

import binascii
import codecs
import html
import re
import textwrap
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from encodings.aliases import aliases
from functools import lru_cache, partial
from typing import Final, NamedTuple

from gateway.mend import base64_lines, quoted_printable
from gateway.mime import Part, is_inline_pgp
from gateway.model import Company

_WIDTH: Final = 72
_BASE64_STEP: Final = 57
"""Octets that make one line of 76 base64 characters."""

_PRINTABLE = "".join(map(chr, range(32, 127)))
_WHITE = b" \t\r\n\v\f"
_STEP: Final = 256 * 1024
"""Octets that are decoded or searched in one go; a multiple of four."""

_LONGEST_MARK: Final = 8 * 1024
"""Octets of a mark with a soft line break, and the line's worth of white space that one may have, at each place."""

_SOFT_END = re.compile(rb"=[ \t]*(\r\n)?\Z")
_SOFT_BREAK = rb"(?:=[ \t]*\r\n)?"


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes of a body into which a copy's link is filled, and how the whole is encoded then."""

    before: bytes
    after: bytes
    encode: Callable[[bytes], bytes]
    escapes: bool

    def fill(self, url: str) -> bytes:
        """Return the bytes with this link in them; `url` is ASCII."""
        link = html.escape(url) if self.escapes else url
        return self.encode(self.before + link.encode("ascii") + self.after)


class Placement(NamedTuple):
    """What of the message `kept` and a slot stand in for: `start:end`, empty where they are only put in between.

    `kept` is encoded anew, but the same in all copies.
    """

    start: int
    end: int
    kept: bytes
    slot: Slot


class _Wording(NamedTuple):
    before: bytes
    after: bytes


def place(message: bytes, part: Part, company: Company) -> Placement | None:
    """Say where in a shown part the link goes, and in which words.

    None where the part cannot carry one: OpenPGP armour, base64 that does not decode, or a charset in which ASCII
    is not ASCII.
    """
    body = message[part.start : part.end]
    content = _decoded_base64(body) if part.encoding == "base64" else body
    if content is None or not _is_ascii_compatible(_codec(part)) or (not _is_html(part) and is_inline_pgp(content)):
        return None
    if part.encoding == "base64":
        return _within_base64(part, content, company)
    at = part.start + _insertion_point(part, content)
    words = _wording(part, content, company)
    encode = quoted_printable if part.encoding == "quoted-printable" else bytes
    return Placement(at, at, b"", Slot(words.before, words.after, encode, _is_html(part)))


def _within_base64(part: Part, content: bytes, company: Company) -> Placement:
    """Keep the lines before the link as they would be encoded anyway; only what follows differs between copies."""
    at = _insertion_point(part, content)
    kept = at - at % _BASE64_STEP
    words = _wording(part, content, company)
    slot = Slot(content[kept:at] + words.before, words.after + content[at:], base64_lines, _is_html(part))
    return Placement(part.start, part.end, base64_lines(content[:kept]), slot)


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


def _is_html(part: Part) -> bool:
    return part.content_type == "text/html"


def _insertion_point(part: Part, content: bytes) -> int:
    """Return where the link goes: at the end, in HTML before the last `</body>`, but never within a comment."""
    if not _is_html(part):
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


def _wording(part: Part, content: bytes, company: Company) -> _Wording:
    if _is_html(part):
        return _html_wording(company)
    is_flowed = part.parameters.get("format") == "flowed"
    words = _text_wording(company, _codec(part), is_flowed=is_flowed, is_seven_bit=part.encoding == "7bit")
    return words._replace(before=_line_end_before(part, content) + words.before)


def _line_end_before(part: Part, content: bytes) -> bytes:
    """Return what ends the author's last line, where it has no end yet."""
    if part.encoding == "quoted-printable":
        soft = _SOFT_END.search(content, max(0, len(content) - _WIDTH))
        if soft:
            return b"\r\n" if soft[1] else b"\r\n\r\n"
    return b"" if content.endswith(b"\n") or not content else b"\r\n"


@lru_cache(maxsize=256)
def _text_wording(company: Company, codec: str, *, is_flowed: bool, is_seven_bit: bool) -> _Wording:
    """Return the words for plain text; a part that promises seven bits gets no eighth."""
    lines = _sender_lines(company)
    if is_flowed:
        lines = [_stuffed(line) for line in lines]
    text = "\r\n".join(["", "-- ", *lines, "Unsubscribe: "])
    encoded = text.encode(codec, _TRANSLITERATE)
    if is_seven_bit and not encoded.isascii():
        encoded = text.encode("ascii", _TRANSLITERATE)
    return _Wording(encoded, b"\r\n")


def _sender_lines(company: Company) -> list[str]:
    return [line for text in (company.name, company.postal_address) for line in textwrap.wrap(one_line(text), _WIDTH)]


def _stuffed(line: str) -> str:
    """RFC 3676 §4.4: these beginnings would mean something in format=flowed."""
    return f" {line}" if line.startswith((">", "From ")) else line


@lru_cache(maxsize=16)
def _html_wording(company: Company) -> _Wording:
    """Dark grey and blue on white, 12:1 and 6:1; every character beyond ASCII is an entity, so no charset matters."""
    sender = "<br>\r\n".join(map(html.escape, _sender_lines(company)))
    before = (
        '\r\n<div style="display:block;clear:both;margin:24px 0 0;padding:12px 16px;border-top:1px solid #767676;'
        "background-color:#ffffff;color:#333333;font-family:Arial,Helvetica,sans-serif;font-size:14px;"
        f'line-height:20px;text-align:left">\r\n{sender}<br>\r\n<a href="'
    )
    after = '" style="color:#0b57d0;text-decoration:underline">Unsubscribe</a>\r\n</div>\r\n'
    return _Wording(before.encode("ascii", "xmlcharrefreplace"), after.encode("ascii"))


def one_line(text: str) -> str:
    """Return a text on one line: every run of white space or control characters (NEL, U+2028, NUL, …) is one space."""
    return " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in text).split())


def _codec(part: Part) -> str:
    """Return the codec of a part's charset; "ascii" where none is named, or none of that name is known."""
    return _codec_of(part.parameters.get("charset", "us-ascii")[:_CHARSET_LIMIT])


@lru_cache(maxsize=256)
def _codec_of(charset: str) -> str:
    """Only names that Python lists are looked up: it remembers every name it was ever asked for."""
    name = re.sub(r"[^a-z0-9]+", "_", charset)
    if name in aliases or name in _CODECS:
        return name
    return "utf_16" if _WIDE.match(name) else "ascii"


_CHARSET_LIMIT: Final = 40
"""Characters of the longest name that the registry of charsets has (RFC 2978 §2.3)."""

_CODECS = frozenset(aliases.values())
_WIDE = re.compile(r"utf_?(?:16|32)|ucs|iso_10646_ucs")


@lru_cache(maxsize=256)
def _is_ascii_compatible(codec: str) -> bool:
    """False for UTF-16, UTF-7, EBCDIC and the like, into which ASCII cannot be written as it is."""
    try:
        return _PRINTABLE.encode(codec) == _PRINTABLE.encode("ascii")
    except (LookupError, UnicodeError):
        return False


_TRANSLITERATE: Final = "assent.transliterate"
_SPELLINGS = {
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"},
    **{"Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "–": "-", "—": "-", "‘": "'", "’": "'"},
    **{"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "•": "*", "·": "*", "€": "EUR", "£": "GBP", "©": "(c)"},
}


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(map(_plain_spelling, characters)), error.end


def _plain_spelling(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return _SPELLINGS.get(character) or decomposed or "?"


codecs.register_error(_TRANSLITERATE, _transliterate)
