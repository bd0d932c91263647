"""Read and edit a header block, and leave every other byte as it is.

The one rule: a field that is kept is kept octet for octet (`Field.raw`); nothing is parsed and written anew. Lines
that are no field are kept too, under the name "". What the fields mean is left to `classify`, `stamp` and `sign`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.address import Address
from gateway.errors import Malformed

HEADER_LIMIT: Final = 100 * 1024
"""Octets of a header block that the listener accepts; more is refused at the door."""

SINGLETONS: Final = frozenset(
    {
        *("from", "to", "cc", "subject", "date", "message-id", "reply-to", "sender", "in-reply-to", "references"),
        *("mime-version", "content-type"),
    }
)
"""Fields that a message has at most once (RFC 5322 §3.6, RFC 2045 §3)."""

_FIELD = re.compile(rb"((?:([!-9;-~]++)[ \t]*+:)?(?:[^\n]*+\n|[^\n]++\Z)(?:[ \t][^\n]*+(?:\n|\Z))*+)")
_REMEMBERED_LENGTH = 512
_MOST_ENCODED: Final = 16 * 1024
"""Octets of a value from which on no encoded words are read: some charsets take longer than in proportion."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_BREAKS_OUT = re.compile(rb"\r(?!\n[ \t])|(?<!\r)\n|\0")


class Field(NamedTuple):
    """One header field: its name in lower case ("" for a line that is no field), and its bytes with line ends."""

    name: str
    raw: bytes

    @property
    def value(self) -> bytes:
        """The unfolded value, without the white space around it (RFC 5322 §2.2.3)."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"").strip(b" \t\r\n")

    @property
    def text(self) -> str:
        """The value as it is shown, its encoded words read."""
        return unencoded(self.value).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    """The fields of a message from top to bottom, and the offset at which its body begins."""

    fields: tuple[Field, ...]
    body: int

    def first(self, name: str) -> Field | None:
        """Return the topmost field of that name (lower case), or None."""
        return next((field for field in self.fields if field.name == name), None)

    def all(self, name: str) -> list[Field]:
        return [field for field in self.fields if field.name == name]

    def without(self, unwanted: Callable[[Field], bool]) -> tuple[Field, ...]:
        """Return the fields that are not unwanted, in order, each with the bytes it had."""
        return tuple(field for field in self.fields if not unwanted(field))


def split(message: bytes, start: int = 0, end: int | None = None) -> HeaderBlock:
    """Read the header block that begins at `start`; the body's offset counts from the message's first octet.

    Never fails: a message without an empty line is all header, and what is no field is kept under the name "".
    """
    end = len(message) if end is None else end
    if message.startswith(b"\r\n", start, end):
        return HeaderBlock((), start + 2)
    blank = message.find(b"\r\n\r\n", start, end)
    stop, body = (end, end) if blank < 0 else (blank + 2, blank + 4)
    lines = _FIELD.findall(message, start, stop)
    return HeaderBlock(tuple([Field(name.lower().decode("ascii"), raw) for raw, name in lines]), body)


def is_too_long(message: bytes, start: int = 0, end: int | None = None) -> bool:
    """True where the header block that begins at `start` has more than `HEADER_LIMIT` octets; never looks further."""
    end = len(message) if end is None else end
    if end - start <= HEADER_LIMIT or message.startswith(b"\r\n", start):
        return False
    return message.find(b"\r\n\r\n", start, start + HEADER_LIMIT + 2) < 0


def make(name: str, value: bytes) -> Field:
    """Build a new field; a CR, LF or NUL in the value, except where it is folded, raises `ValueError`."""
    if _BREAKS_OUT.search(value):
        raise ValueError(f"the value of {name} would break out of its field")
    return Field(name.lower(), b"%b: %b\r\n" % (name.encode("ascii"), value))


def unencoded(value: bytes) -> bytes:
    """Return a value with its encoded words read (RFC 2047), as UTF-8; as it stands where they cannot be.

    Control characters that were hidden in them are spaces, so that what was one line stays one.
    """
    if b"=?" not in value or len(value) > _MOST_ENCODED:
        return value
    try:
        words = str(make_header(decode_header(value.decode("utf-8", "replace"))))
        return _CONTROLS.sub(" ", words).encode("utf-8")
    except (HeaderParseError, LookupError, ValueError):
        return value


def repeated_singletons(block: HeaderBlock) -> list[str]:
    """Return the names of fields that stand more than once but must not (HDR-08, RFC 6376 §8.15), sorted."""
    names = [field.name for field in block.fields if field.name in SINGLETONS]
    if len(set(names)) == len(names):
        return []
    return sorted(name for name, times in Counter(names).items() if times > 1)


class Mailbox(NamedTuple):
    """One entry of an address list: its text as it stands there, display name and all, and its address."""

    text: str
    address: Address


def mailboxes(value: bytes) -> list[Address]:
    """Return the addresses of an address list (From, Sender, To, Cc; RFC 5322 §3.4), those in groups too.

    Raises `Malformed` where it is not certain which addresses stand there: nothing is guessed, and what
    only the obsolete syntax allows (routes, white space within an address) is not read.
    """
    return [entry.address for entry in entries(value)]


def entries(value: bytes) -> list[Mailbox]:
    """Return what `mailboxes` returns, each with the text around it; raises `Malformed`."""
    return list(_known_entries(value) if len(value) <= _REMEMBERED_LENGTH else _entries(value))


@lru_cache(maxsize=1024)
def _known_entries(value: bytes) -> tuple[Mailbox, ...]:
    """The same senders write again and again."""
    return tuple(_entries(value))


def _entries(value: bytes) -> list[Mailbox]:
    text = value.decode("utf-8", "surrogateescape")
    found: list[Mailbox] = []
    grouped, tokens = False, list[_Token]()
    for token in _tokens(text):
        if token.kind not in (",", ":", ";"):
            tokens.append(token)
            continue
        if (token.kind == ":" and grouped) or (token.kind == ";" and not grouped):
            raise Malformed("a group of addresses does not end where it should")
        if token.kind != ":":
            found += _mailbox(text, tokens)
        grouped = grouped if token.kind == "," else token.kind == ":"
        tokens = []
    if grouped:
        raise Malformed("a group of addresses has no end")
    return found + _mailbox(text, tokens)


class _Token(NamedTuple):
    kind: str
    start: int
    end: int


_TOKEN = re.compile(
    r"""(?P<word>(?:"(?:[^"\\]|\\.)*+"|\[[^\[\]\\]*+\]|[^\s"\[\]()<>,:;\\])++)"""
    r"""|(?P<angle><(?:"(?:[^"\\]|\\.)*+"|[^<>"])*+>)|(?P<gap>[ \t\r\n]++)|(?P<mark>[,:;(])""",
    re.DOTALL,
)
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)


def _tokens(text: str) -> Iterator[_Token]:
    """Yield words, angle addresses and the marks between entries; white space and comments are left out."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Malformed("an address list has a character where none may stand")
        position = match.end()
        if match[0] == "(":
            position = _comment_end(text, position)
        elif match.lastgroup != "gap":
            kind = match[0] if match.lastgroup == "mark" else str(match.lastgroup)
            yield _Token(kind, match.start(), position)


def _comment_end(text: str, position: int) -> int:
    depth = 1
    while depth:
        mark = _COMMENT_MARK.search(text, position)
        if mark is None:
            raise Malformed("a comment in an address list has no end")
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        position = mark.end()
    return position


def _mailbox(text: str, tokens: list[_Token]) -> list[Mailbox]:
    """Read the tokens between two commas: nothing, one bare address, or a display name and one in brackets."""
    if not tokens:
        return []
    last = tokens[-1]
    if any(token.kind == "angle" for token in tokens[:-1]) or (last.kind != "angle" and len(tokens) > 1):
        raise Malformed("an entry of an address list is not one address")
    bare = text[last.start : last.end]
    if last.kind == "angle":
        bare = bare[1:-1].strip(" \t\r\n")
    if any("\ud800" <= character <= "\udfff" for character in bare):
        raise Malformed("an address is not UTF-8")
    return [Mailbox(text[tokens[0].start : last.end], Address.parse(bare))]
