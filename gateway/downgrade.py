"""A message in fewer letters, for a next hop that takes no more: without UTF-8 in the header, or without an eighth bit.

The rule: a reader sees what the author wrote, and what cannot be written so is not sent. A part's octets are hidden in
its transfer encoding, a domain is written in A-labels; no word of a header is encoded anew, and nothing that is
sealed is touched. This comes before signing (DKIM-11), and only `stamp` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.errors import Malformed
from gateway.headers import Field, HeaderBlock, entries, split
from gateway.mend import (
    Edit,
    applied,
    declared,
    every_part,
    fold,
    header_edit,
    hidden,
    is_dense,
)
from gateway.mime import IDENTITY, Part, parse
from gateway.model import Alphabet
from gateway.steps import steps

_ADDRESSES: Final = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc"),
        *("resent-from", "resent-sender", "resent-to", "resent-cc"),
    }
)
_COMPOSED = ("multipart/", "message/")


class Inexpressible(Malformed):
    """The message cannot be written in so few letters; `enhanced` says why (RFC 3463 §3.7, RFC 6531 §4.3)."""

    def __init__(self, enhanced: str, sentence: str) -> None:
        super().__init__(sentence)
        self.enhanced = enhanced


def written_in(alphabet: Alphabet, message: bytes, *, is_utf8: bool) -> bytes:
    """Return a message as it may be sent to a next hop that takes only this alphabet.

    `is_utf8` is True where the submitter declared SMTPUTF8: only then is the header known to be UTF-8. Raises
    `Inexpressible`: 5.6.7 where the header needs UTF-8 (RFC 6531 §3.2), 5.6.3 where octets cannot be hidden (RFC 6152
    §3).
    """
    if is_utf8 and alphabet is not Alphabet.UTF8:
        message = _with_plain_header(message)
    return _with_seven_bits(message) if alphabet is Alphabet.ASCII else message


def _with_plain_header(message: bytes) -> bytes:
    block = split(message)
    if all(field.raw.isascii() for field in block.fields):
        return message
    fields = [_with_plain_domains(field) for field in block.fields]
    if not all(field.raw.isascii() for field in fields):
        raise Inexpressible("5.6.7", "the header has text beyond ASCII, which the next hop does not take")
    return applied(message, [Edit(0, _header_end(block), [field.raw for field in fields])])


def _header_end(block: HeaderBlock) -> int:
    return sum(len(field.raw) for field in block.fields)


def _with_plain_domains(field: Field) -> Field:
    """Write the domains of an address field in A-labels; its other letters stay as they are."""
    if field.raw.isascii() or field.name not in _ADDRESSES:
        return field
    try:
        addresses = [entry.address for entry in entries(field.value)]
    except Malformed:
        return field
    raw = field.raw
    for address in addresses:
        raw = raw.replace(address.text.encode(), (address.ascii_text or address.text).encode())
    return fold(Field(field.name, raw))


def _with_seven_bits(message: bytes) -> bytes:
    root = parse(message, split(message))
    converted = applied(message, [edit for part in every_part(root) for edit in _seven_bit_edits(message, part)])
    if not converted.isascii():
        raise Inexpressible("5.6.3", "it has 8-bit octets where no transfer encoding can hide them")
    return converted


def _seven_bit_edits(message: bytes, part: Part) -> Iterator[Edit]:
    """Hide what a part holds, or only say that there is nothing to hide; nothing where neither is allowed."""
    if part.is_sealed or part.encoding not in IDENTITY:
        return
    fields = split(message, part.head, part.end).fields
    body = memoryview(message)[part.start : part.end]
    if part.children or all(map(bytes.isascii, steps(body))):
        if part.encoding != "7bit":
            yield header_edit(part, fields, declared(part, fields, "7bit"))
    elif not part.content_type.startswith(_COMPOSED):
        is_text = part.content_type.startswith("text/")
        yield from hidden(part, fields, body, in_base64=not is_text or is_dense(body))
