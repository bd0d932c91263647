"""What the footer says: whatever a promotional message lacks of its way out, its sender's name, address and contact.

The one rule: nothing is said twice, and nothing that the law asks for is left out (15 USC 7704(a)(5), CASL 6(2)).
The words fit every charset: what it lacks is spelled without, in HTML it is an entity. Where they go is `slots`' part.
"""

from __future__ import annotations

import codecs
import html
import re
import textwrap
import unicodedata
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.mime import Part
from gateway.model import Company

_WIDTH: Final = 72
_PRINTABLE = "".join(map(chr, range(32, 127)))
_SOFT_END = re.compile(rb"=[ \t]*(\r\n)?\Z")


class Lacking(NamedTuple):
    """What a part does not say: True for each thing that the footer has to."""

    link: bool
    name: bool
    address: bool
    contact: bool


_ALL: Final = Lacking(link=True, name=True, address=True, contact=True)


class Wording(NamedTuple):
    """The footer: what stands before the link and after it; all of it in `before` where it has none."""

    before: bytes
    after: bytes


def is_html(part: Part) -> bool:
    return part.content_type == "text/html"


def lacking(part: Part, text: bytes, company: Company, *, has_link: bool) -> Lacking:
    """Return what a part, whose decoded text this is, does not say; whether it `has_link` is for the caller to know.

    One with neither link nor postal address gets the whole footer: few are worth a search for the rest.
    """
    facts = _facts(company)
    if not has_link and facts[1].hint not in text:
        return _ALL
    told = [fact.hint in text and fact.letters in _letters_of(part, text) for fact in facts]
    return Lacking(not has_link, *(not one for one in told))


class _Fact(NamedTuple):
    """Something that must be said: its letters and digits, and a word of it, without which it is hardly there."""

    letters: str
    hint: bytes


@lru_cache(maxsize=16)
def _facts(company: Company) -> tuple[_Fact, ...]:
    return tuple(map(_fact, (company.name, company.postal_address, company.contact)))


def _fact(text: str) -> _Fact:
    """Words may be spelled with entities or in another charset, but hardly the longest of plain letters."""
    longest = max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="")
    return _Fact(_letters(text), longest.encode("ascii"))


def _letters_of(part: Part, text: bytes) -> str:
    decoded = text.decode(codec(part), "replace")
    return _letters(html.unescape(_TAG.sub(" ", decoded)) if is_html(part) else decoded)


def _letters(text: str) -> str:
    """Return what of a text is left whatever its line breaks, punctuation and case."""
    return "".join(filter(str.isalnum, text.casefold()))


_TAG = re.compile(r"<!--.*?-->|<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def wording(part: Part, content: bytes, company: Company, lacks: Lacking) -> Wording:
    """Return the words for the end of a part, whose content this is as it is encoded, if only in quoted-printable."""
    if is_html(part):
        return _html_wording(company, lacks)
    is_flowed = part.parameters.get("format") == "flowed"
    words = _text_wording(company, lacks, codec(part), is_flowed=is_flowed, is_seven_bit=part.encoding == "7bit")
    return words._replace(before=_line_end_before(part, content) + words.before)


def _line_end_before(part: Part, content: bytes) -> bytes:
    """Return what ends the author's last line, where it has no end yet."""
    if part.encoding == "quoted-printable":
        soft = _SOFT_END.search(content, max(0, len(content) - _WIDTH))
        if soft:
            return b"\r\n" if soft[1] else b"\r\n\r\n"
    return b"" if content.endswith(b"\n") or not content else b"\r\n"


@lru_cache(maxsize=256)
def _text_wording(company: Company, lacks: Lacking, charset: str, *, is_flowed: bool, is_seven_bit: bool) -> Wording:
    """Return the words for plain text; a part that promises seven bits gets no eighth."""
    lines = [line for text in _said(company, lacks) for line in textwrap.wrap(text, _WIDTH)]
    if is_flowed:
        lines = [_stuffed(line) for line in lines]
    text = "\r\n".join(["", "-- ", *lines, "Unsubscribe: " if lacks.link else ""])
    encoded = text.encode(charset, _TRANSLITERATE)
    if is_seven_bit and not encoded.isascii():
        encoded = text.encode("ascii", _TRANSLITERATE)
    return Wording(encoded, b"\r\n" if lacks.link else b"")


def _said(company: Company, lacks: Lacking) -> list[str]:
    facts = (
        (lacks.name, company.name),
        (lacks.address, company.postal_address),
        (lacks.contact and company.contact, f"Contact: {company.contact}"),
    )
    return [one_line(text) for is_lacking, text in facts if is_lacking]


def _stuffed(line: str) -> str:
    """RFC 3676 §4.4: these beginnings would mean something in format=flowed."""
    return f" {line}" if line.startswith((">", "From ")) else line


@lru_cache(maxsize=64)
def _html_wording(company: Company, lacks: Lacking) -> Wording:
    """Dark grey and blue on white, 12:1 and 6:1; every character beyond ASCII is an entity, so no charset matters."""
    sender = [line for text in _said(company, lacks._replace(contact=False)) for line in textwrap.wrap(text, _WIDTH)]
    lines = [html.escape(line) for line in sender]
    if lacks.contact and company.contact:
        contact = html.escape(company.contact)
        lines.append(f'Contact: <a href="{_href(contact)}" {_LINK_STYLE}>{contact}</a>')
    before, after = f"\r\n<div {_BOX_STYLE}>\r\n" + "<br>\r\n".join(lines), "\r\n</div>\r\n"
    if lacks.link:
        before += ("<br>\r\n" if lines else "") + '<a href="'
        after = f'" {_LINK_STYLE}>Unsubscribe</a>{after}'
    else:
        before, after = before + after, ""
    return Wording(before.encode("ascii", "xmlcharrefreplace"), after.encode("ascii"))


def _href(contact: str) -> str:
    return contact if contact.startswith(("https://", "http://", "mailto:")) else f"mailto:{contact}"


_BOX_STYLE: Final = (
    'style="display:block;clear:both;margin:24px 0 0;padding:12px 16px;border-top:1px solid #767676;'
    "background-color:#ffffff;color:#333333;font-family:Arial,Helvetica,sans-serif;font-size:14px;"
    'line-height:20px;text-align:left"'
)
_LINK_STYLE: Final = 'style="color:#0b57d0;text-decoration:underline"'


def one_line(text: str) -> str:
    """Return a text on one line: every run of white space or control characters (NEL, U+2028, NUL, …) is one space."""
    return " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in text).split())


def codec(part: Part) -> str:
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
def is_ascii_compatible(codec: str) -> bool:
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
