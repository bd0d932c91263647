"""What the footer says: whatever a promotional message lacks of its way out, its sender's name, address and contact.

The one rule: nothing is said twice, and nothing that the law asks for is left out (15 USC 7704(a)(5), CASL 6(2)).
Its own words are in the reader's language (`words`) and fit every charset (`charsets`); in HTML what is not ASCII is an
entity. Where the footer goes is `slots`' part.
"""

from __future__ import annotations

import html
import re
import textwrap
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.footer.charsets import codec, spelled
from gateway.footer.words import ENGLISH, Words, primary, words_in
from gateway.mime import AMP, Part
from gateway.model import Company, FooterTemplate, Manner

_WIDTH: Final = 72
_SOFT_END = re.compile(rb"=[ \t]*(\r\n)?\Z")

LINK: Final = "{{unsubscribe_url}}"
"""What an operator's own footer has where the link goes."""


class Lacking(NamedTuple):
    """What a part does not say: True for each thing that the footer has to."""

    link: bool
    name: bool
    address: bool
    contact: bool


_ALL: Final = Lacking(link=True, name=True, address=True, contact=True)
NOTHING_LACKS: Final = Lacking(link=False, name=False, address=False, contact=False)


class Imprint(NamedTuple):
    """Whose footer it is, and the operator's own words for it, if there are any."""

    company: Company
    template: FooterTemplate | None = None


class Wording(NamedTuple):
    """The footer: what stands before the link and after it; all of it in `before` where it has none."""

    before: bytes
    after: bytes


Seen = Callable[[int], bool]
"""Whether what stands at an offset of a decoded text is shown to its reader, or can be read where it is."""


def lacking(part: Part, text: bytes, company: Company, *, has_link: bool, is_seen: Seen, is_legible: Seen) -> Lacking:
    """Return what a part, whose decoded text this is, does not say; whether it `has_link` is for the caller to know.

    One with neither link nor postal address gets the whole footer: few are worth a search for the rest.
    """
    facts = _facts(company)
    if not has_link and facts[1].hint not in text:
        return _ALL
    return Lacking(not has_link, *(not _says(part, text, one, is_seen, is_legible) for one in facts))


class _Fact(NamedTuple):
    """Something that must be said: its letters and digits, and words of it, without which it is hardly there."""

    letters: str
    hint: bytes
    others: tuple[bytes, ...]


@lru_cache(maxsize=16)
def _facts(company: Company) -> tuple[_Fact, ...]:
    return tuple(map(_fact, (company.name, company.postal_address, company.contact)))


def _fact(text: str) -> _Fact:
    """Words may be spelled with entities or in another charset, but hardly the longest of plain letters."""
    words = sorted((one.encode("ascii") for one in re.findall(r"[A-Za-z0-9]+", text)), key=len, reverse=True)
    return _Fact(_letters(text), words[0] if words else b"", tuple(one for one in words[1:] if len(one) > _SHORT))


_SHORT: Final = 2
"""Letters of a word that may well be spelled with an entity's help."""

_SURROUNDINGS: Final = 2000
"""Octets on either side of a word in which the rest of what it belongs to is looked for."""

_MOST_PLACES: Final = 40


def _says(part: Part, text: bytes, fact: _Fact, is_seen: Seen, is_legible: Seen) -> bool:
    """True where a fact can be read, whatever marks and line breaks stand between its letters."""
    if not fact.letters:
        return True
    if not fact.hint:
        return fact.letters in _letters_of(part, text)
    at = text.find(fact.hint)
    if at < 0 or not all(one in text for one in fact.others):
        return False
    for _ in range(_MOST_PLACES):
        if at < 0:
            return False
        surroundings = text[max(0, at - _SURROUNDINGS) : at + _SURROUNDINGS]
        if is_seen(at) and fact.letters in _letters_of(part, surroundings) and is_legible(at):
            return True
        at = text.find(fact.hint, at + 1)
    return False


def _letters_of(part: Part, text: bytes) -> str:
    decoded = text.decode(codec(part), "replace")
    return _letters(html.unescape(_TAG.sub(" ", decoded)) if part.is_html else decoded)


def _letters(text: str) -> str:
    """Return what of a text is left whatever its line breaks, punctuation and case."""
    return _NO_LETTER.sub("", text.casefold())


_NO_LETTER = re.compile(r"[\W_]+")
_TAG = re.compile(r"<!--.*?-->|<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def wording(part: Part, content: bytes, imprint: Imprint, lacks: Lacking, manner: Manner) -> Wording:
    """Return the words for the end of a part, whose content this is as it is encoded, if only in quoted-printable."""
    said = _Said(imprint, lacks, primary(manner.language), manner.is_advertising, manner.states_objection)
    if part.is_html:
        return _html_wording(said, _BARE if part.content_type == AMP else _STYLED)
    is_flowed = part.parameters.get("format") == "flowed"
    words = _text_wording(said, codec(part), is_flowed=is_flowed, is_seven_bit=part.encoding == "7bit")
    return words._replace(before=_line_end_before(part, content) + words.before)


class _Said(NamedTuple):
    """Everything that a footer's words depend on, whatever they are written in."""

    imprint: Imprint
    lacks: Lacking
    language: str
    is_advertising: bool
    states_objection: bool

    @property
    def words(self) -> Words:
        return words_in(self.language)

    def sender(self) -> list[str]:
        """Return the sender's name and postal address, as far as the part lacks them."""
        company, lacks = self.imprint.company, self.lacks
        told = ((lacks.name, company.name), (lacks.address, company.postal_address))
        return [one_line(text) for is_lacking, text in told if is_lacking]

    @property
    def contact(self) -> str:
        return one_line(self.imprint.company.contact) if self.lacks.contact else ""

    def template(self, by_language: str) -> tuple[str, str] | None:
        """Return the operator's own words before and after the link, where the part lacks one; None for none.

        `by_language` names which of the template's texts.
        """
        template = self.imprint.template
        texts = getattr(template, by_language) if template and self.lacks.link else {}
        text = texts.get(self.language) or texts.get("")
        if not text:
            return None
        before, _, after = text.partition(LINK)
        return before, after


def _line_end_before(part: Part, content: bytes) -> bytes:
    """Return what ends the author's last line, where it has no end yet."""
    if part.encoding == "quoted-printable":
        soft = _SOFT_END.search(content, max(0, len(content) - _WIDTH))
        if soft:
            return b"\r\n" if soft[1] else b"\r\n\r\n"
    return b"" if content.endswith(b"\n") or not content else b"\r\n"


@lru_cache(maxsize=256)
def _text_wording(said: _Said, charset: str, *, is_flowed: bool, is_seven_bit: bool) -> Wording:
    """Return the words for plain text; a part that promises seven bits gets no eighth.

    Where the charset cannot say the reader's words, they are English.
    """
    target = "ascii" if is_seven_bit and not _is_seven_bit(charset) else charset
    if "?" in "".join(spelled(one, target).decode(target, "replace") for one in said.words[1:]):
        said = said._replace(language=ENGLISH)
    before, after = _text_of(said)
    if is_flowed:
        before, after = (re.sub(r"(?<=\r\n)(?=>|From )", " ", text) for text in (before, after))
    return Wording(spelled(before, target), spelled(after, target))


def _is_seven_bit(charset: str) -> bool:
    """True for a charset whose letters beyond ASCII are written in seven bits too (RFC 1468)."""
    return charset.replace("_", "").startswith("iso2022")


def _text_of(said: _Said) -> tuple[str, str]:
    """Return what stands before the link and after it, in lines that end with CRLF."""
    words = said.words
    label = [words.advertising] if said.is_advertising else []
    own = said.template("text")
    if own:
        before, after = _block(label) + "\r\n" + own[0], own[1]
    else:
        facts = [*label, *said.sender(), *([f"{words.contact}: {said.contact}"] if said.contact else [])]
        begins = bool(facts) or said.lacks.link
        before = ("\r\n-- \r\n" if begins else "") + _lines(facts)
        before += f"{words.unsubscribe}: " if said.lacks.link else ""
        after = "\r\n" if said.lacks.link else ""
    objection = _block([words.objection]) if said.states_objection else ""
    return (before, after + objection) if said.lacks.link else (before + objection, "")


def _block(texts: list[str]) -> str:
    return f"\r\n{_lines(texts)}" if texts else ""


def _lines(texts: list[str]) -> str:
    return "".join(f"{line}\r\n" for text in texts for line in textwrap.wrap(text, _WIDTH))


class _Looks(NamedTuple):
    """The attributes that a footer's box and link have in HTML."""

    box: str
    link: str


@lru_cache(maxsize=64)
def _html_wording(said: _Said, looks: _Looks) -> Wording:
    words = said.words
    label = [words.advertising] if said.is_advertising else []
    own = said.template("html")
    if own:
        before, after = _box(label, words.language, looks) + "\r\n" + own[0], f"{own[1]}\r\n"
    else:
        before, after = _facts_box(said, label, looks)
    after += _box([words.objection], words.language, looks) if said.states_objection else ""
    encoded = tuple(text.encode("ascii", "xmlcharrefreplace") for text in (before, after))
    return Wording(*encoded) if said.lacks.link else Wording(encoded[0] + encoded[1], b"")


def _facts_box(said: _Said, label: list[str], looks: _Looks) -> tuple[str, str]:
    words = said.words
    lines = _escaped([*label, *said.sender()])
    if said.contact:
        contact = html.escape(said.contact)
        lines.append(f'{html.escape(words.contact)}: <a href="{_href(contact)}"{looks.link}>{contact}</a>')
    opening, closing = _box_marks(words.language, looks)
    if not said.lacks.link:
        return (opening + "<br>\r\n".join(lines) + closing if lines else ""), ""
    before = opening + "".join(f"{line}<br>\r\n" for line in lines) + '<a href="'
    return before, f'"{looks.link}>{html.escape(words.unsubscribe)}</a>{closing}'


def _box(texts: list[str], language: str, looks: _Looks) -> str:
    opening, closing = _box_marks(language, looks)
    return opening + "<br>\r\n".join(_escaped(texts)) + closing if texts else ""


def _box_marks(language: str, looks: _Looks) -> tuple[str, str]:
    return f'\r\n<div lang="{language}"{looks.box}>\r\n', "\r\n</div>\r\n"


def _escaped(texts: list[str]) -> list[str]:
    return [html.escape(line) for text in texts for line in textwrap.wrap(text, _WIDTH)]


def _href(contact: str) -> str:
    return contact if contact.startswith(("https://", "http://", "mailto:")) else f"mailto:{contact}"


_STYLED: Final = _Looks(
    box=(
        ' style="display:block;clear:both;margin:24px 0 0;padding:12px 16px;border-top:1px solid #767676;'
        "background-color:#ffffff;color:#333333;font-family:Arial,Helvetica,sans-serif;font-size:14px;"
        'line-height:20px;text-align:left"'
    ),
    link=' style="color:#0b57d0;text-decoration:underline"',
)
"""Dark grey and blue on white, 12:1 and 6:1, both said, so that no dark mode inverts one of them alone."""

_BARE: Final = _Looks(box="", link="")
"""For AMP, where a `style` attribute may make the part invalid, and programs show no invalid one."""


def one_line(text: str) -> str:
    """Return a text on one line: every run of white space or control characters (NEL, U+2028, NUL, …) is one space."""
    return " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in text).split())
