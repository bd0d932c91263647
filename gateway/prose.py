"""What a reader sees of a message in words: its subject and the text of the parts that are shown, decoded.

The rules: nothing here raises, nothing here goes back into a message, and nothing takes longer than in proportion to
what it reads, so a charset that is not understood costs letters, not mail. What the words amount to is for whoever
asks.
"""

from __future__ import annotations

import binascii
import codecs
import html
import quopri
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.headers import Field, HeaderBlock, unencoded
from gateway.mime import AMP, WATCH, Part, is_mislabelled, parse, shown

READ: Final = 512 * 1024
"""Octets of a message's parts that are read where only its drift is asked for."""

_LONGEST_FIELD: Final = 2000
"""Octets of a header field that are read."""

_TAGS = re.compile(r"<(/?[a-zA-Z!?][^<>]*)>")
_NAME = re.compile(r"/?([a-zA-Z][a-zA-Z0-9]*)")
_ALTERNATIVE_TEXT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_HIDES = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|\shidden(?:=|\s*$)", re.IGNORECASE)
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{8,}")
_NOT_CONTENT: Final = frozenset({"head", "script", "style", "title", "template"})
_VOID: Final = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})
_WITHIN_A_WORD: Final = frozenset(
    {
        *("a", "b", "i", "u", "q", "s", "em", "strong", "span", "font", "small", "big", "sup", "sub"),
        *("mark", "abbr", "code", "wbr", "del", "ins"),
    }
)
_QUOTED_LINE = re.compile(r"^[ \t]*>")
_QUOTES_BELOW = re.compile(
    r"^[ \t]*(?:-{2,} ?(?:original message|forwarded message|ursprüngliche nachricht|message d'origine|mensaje original"
    r"|messaggio originale|oorspronkelijk bericht)"
    r"|(?:on|am|le|el|il|op)\b.{0,200}\b(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef)\b.{0,100}:?[ \t]*$)",
    re.IGNORECASE,
)
# To decode these takes longer than in proportion, or depends on the machine; no mail is written in them.
_NOT_FOR_MAIL: Final = frozenset(
    {"punycode", "idna", "unicode_escape", "raw_unicode_escape", "mbcs", "oem", "undefined"}
)


def subject_of(block: HeaderBlock) -> str:
    """Return the subject as it is shown (RFC 2047)."""
    field = block.first("subject")
    return decoded(field) if field else ""


def decoded(field: Field) -> str:
    """Return what the beginning of a field's value says, with its encoded words read."""
    return unencoded(field.value[:_LONGEST_FIELD]).decode("utf-8", "replace")


class Source(NamedTuple):
    """A part that is shown, decoded, with the marks of HTML."""

    is_html: bool
    text: str


def sources_of(message: bytes, block: HeaderBlock) -> list[Source]:
    """Return each part that is shown, in order."""
    return [
        Source(part.is_html, _decoded(part, message[part.start : part.end])) for part in shown(parse(message, block))
    ]


def is_reply(block: HeaderBlock) -> bool:
    """True for a message that says what it answers (RFC 5322 §3.6.4): some of it is what others have written."""
    return block.first("in-reply-to") is not None or block.first("references") is not None


def texts_of(message: bytes, block: HeaderBlock) -> list[str]:
    """Return the text of each part that is shown, in order, without the marks of HTML."""
    return [_tidy(_text(part, message[part.start : part.end])) for part in shown(parse(message, block))]


def bodies_of(message: bytes, block: HeaderBlock) -> list[str]:
    """Return the body as each of its readers sees it: who is shown plain text, and who is shown which kind of HTML.

    Hidden elements and what a reply quotes are left out, and nothing is read past `READ` octets.
    """
    quotes = is_reply(block)
    bodies: dict[str, list[str]] = {"text/plain": [], "text/html": [], AMP: [], WATCH: []}
    left = READ
    for part in shown(parse(message, block)):
        octets = message[part.start : min(part.end, part.start + left)]
        left -= len(octets)
        text = _text(part, octets, without_quotes=quotes)
        bodies[part.content_type].append(_tidy(_unquoted(text) if quotes else text))
    return ["\n".join(texts) for texts in bodies.values() if texts]


def _tidy(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def _unquoted(text: str) -> str:
    """Return what the writer of a reply says: not what is quoted, nor anything below the line that introduces it."""
    said = list[str]()
    for line in text.splitlines():
        if _QUOTES_BELOW.match(line):
            break
        if not _QUOTED_LINE.match(line):
            said.append(line)
    return "\n".join(said)


def _text(part: Part, body: bytes, *, without_quotes: bool = False) -> str:
    text = _decoded(part, body)
    return "".join(_seen(text, without_quotes)) if part.is_html else text


def _seen(markup: str, without_quotes: bool) -> Iterator[str]:
    """Yield the text of HTML that is shown, an image's alternative text too; an element's end breaks the line.

    An element that hides what is in it and is never closed hides nothing.
    """
    pieces = _TAGS.split(_uncommented(markup))
    hidden, depth, passed_over = "", 0, list[str]()
    for text, tag in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        match = _NAME.match(tag)
        name = match[1].lower() if match else ""
        if hidden:
            passed_over.append(text)
            depth += (name == hidden) * (-1 if tag.startswith("/") else 1)
            if depth == 0:
                hidden, passed_over = "", []
            continue
        yield _unescaped(text)
        if not tag.startswith("/") and name not in _VOID and _is_hidden(name, tag, without_quotes):
            hidden, depth = name, 1
        yield _as_text(name, tag)
    if hidden not in _NOT_CONTENT:
        yield _unescaped("\n".join(passed_over))


def _is_hidden(name: str, tag: str, without_quotes: bool) -> bool:
    if name in _NOT_CONTENT or (without_quotes and (name == "blockquote" or "gmail_quote" in tag)):
        return True
    return len(tag) > len(name) and bool(_HIDES.search(tag)) and not tag.endswith("/")


def _as_text(name: str, tag: str) -> str:
    if name == "img":
        alternative = _ALTERNATIVE_TEXT.search(tag)
        return _unescaped(f" {alternative[1] or alternative[2] or ''} ") if alternative else " "
    return "" if name in _WITHIN_A_WORD else "\n" if name else ""


def _uncommented(markup: str) -> str:
    """Return HTML without its comments; one that never ends hides the rest."""
    pieces, end = list[str](), 0
    while (at := markup.find("<!--", end)) >= 0:
        pieces.append(markup[end:at])
        closed = markup.find("-->", at + 2)
        if closed < 0:
            return "".join(pieces)
        end = closed + 3
    return "".join([*pieces, markup[end:]])


def _unescaped(text: str) -> str:
    """Return text with its character references read; a number that no character has is none."""
    return html.unescape(_ENDLESS_NUMBER.sub("\ufffd", text)) if "&" in text else text


def _decoded(part: Part, body: bytes) -> str:
    if part.encoding == "quoted-printable":
        body = quopri.decodestring(body)
    elif part.encoding == "base64":
        body = _from_base64(body)
    charset = "utf-8" if is_mislabelled(part, body) else part.parameters.get("charset", "utf-8")
    return body.decode(_charset(charset), "replace")


def _from_base64(body: bytes) -> bytes:
    """Decode what there is of it: what is not of the alphabet is passed over (RFC 2045 §6.8), an end may be missing."""
    letters = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
    return binascii.a2b_base64(letters[: len(letters) // 4 * 4] + _last_letters(letters))


def _last_letters(letters: bytes) -> bytes:
    rest = letters[len(letters) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""


def _charset(name: str) -> str:
    """Return the codec of a charset; UTF-8 for what is none that mail is written in."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        return "utf-8"
    return "utf-8" if found.name in _NOT_FOR_MAIL else name
