"""The MIME structure of a message as offsets into its bytes: which parts there are, and which are shown.

Nothing here changes or raises: what cannot be understood is a part that is not shown (an opaque part), so that it is
left alone. Parts that someone sealed (signed or encrypted) are never entered. What is written into the parts
that are shown is left to `stamp`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from gateway.headers import Field, HeaderBlock, is_too_long, split
from gateway.model import Segment
from gateway.pieces import Pieces
from gateway.steps import joined, lines

DEPTH_LIMIT: Final = 100
PARTS_LIMIT: Final = 1000
OPAQUE: Final = "application/octet-stream"
IDENTITY: Final = frozenset({"7bit", "8bit", "binary"})

_LOOKALIKES_LIMIT = 2 * PARTS_LIMIT
"""Lines that begin as a delimiter does; past so many, a multipart is not understood."""

_SEALED = frozenset({"multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})
AMP: Final = "text/x-amp-html"
WATCH: Final = "text/watch-html"
_HTML = frozenset({"text/html", AMP, WATCH})
_SHOWN = _HTML | {"text/plain"}
_EMBEDDED = frozenset({"message/rfc822", "message/global"})
_ENCODINGS = IDENTITY | {"quoted-printable", "base64"}

_TYPE = re.compile(r"\s*([!#$&^_.+\w-]+/[!#$&^_.+\w-]+)\s*(?:[;(\s]|$)", re.ASCII)
_PARAMETER = re.compile(r""";\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*+"|[^\s;"]*)""")
_TOKEN = re.compile(r"\s*([^\s;(]*)")
WIDE: Final = re.compile(r"utf[-_]?(?:16|32)|ucs|iso[-_]10646[-_]ucs")
"""What the names of UTF-16 and UTF-32 begin with, in lower case."""

_ARMOUR = b"-----BEGIN PGP "
_PGP = re.compile(rb"-----BEGIN PGP (?:SIGNED )?MESSAGE-----")


@dataclass(frozen=True, slots=True)
class Part:
    """One node of the tree. Its header lies in `head:start`, its body in `start:end` of the message.

    `parameters` are those of Content-Type, names and charset in lower case; `encoding` is the transfer encoding.
    """

    content_type: str
    parameters: Mapping[str, str]
    encoding: str
    disposition: str
    is_named: bool
    content_id: bytes
    head: int
    start: int
    end: int
    children: tuple[Part, ...] = field(default=())

    @property
    def is_sealed(self) -> bool:
        """True for signed and encrypted parts, of which no octet may change (RFC 1847, RFC 8551)."""
        return self.content_type in _SEALED

    @property
    def is_html(self) -> bool:
        return self.content_type in _HTML

    @property
    def is_wide(self) -> bool:
        """True for one that claims UTF-16 or UTF-32, in which an ASCII letter has a NUL beside it."""
        return WIDE.match(self.parameters.get("charset", "")) is not None

    @property
    def is_multipart(self) -> bool:
        return self.content_type.startswith("multipart/")


def parse(message: bytes, block: HeaderBlock) -> Part:
    """Return the tree of a whole message whose header block was read; never raises.

    Deeper than `DEPTH_LIMIT`, or past `PARTS_LIMIT` parts, multiparts have no children; a part whose header is longer
    than a message's may be is opaque.
    """
    return _Reader(message).part(block, 0, len(message), 0, "text/plain")


def shown(part: Part) -> Iterator[Part]:
    """Yield the parts in plain text and HTML that a mail program shows as the message itself (RFC 8621 §4.1.4).

    AMP for Email is HTML that some programs show instead of the other, and so is what is made for Apple's watches.
    """
    if part.disposition == "attachment" or part.is_sealed:
        return
    if part.content_type in _SHOWN:
        yield part
    elif part.is_multipart:
        for child in _bodies(part):
            yield from shown(child)


def unshown(root: Part) -> Iterator[Part]:
    """Yield what else a message itself holds: attachments, and kinds of text that few programs show.

    An embedded message is somebody else's, and what is in it is not yielded.
    """
    known = {id(part) for part in shown(root)}
    return (part for part in _own_leaves(root) if id(part) not in known)


def _own_leaves(part: Part) -> Iterator[Part]:
    if not part.is_multipart or part.is_sealed:
        yield part
        return
    for child in part.children:
        yield from _own_leaves(child)


def leaves(part: Part) -> Iterator[Part]:
    """Yield the parts that hold content, those of embedded messages too; a sealed part counts as one."""
    if part.is_sealed or not part.children:
        yield part
        return
    for child in part.children:
        yield from leaves(child)


class Content:
    """What a leaf says, for all who look at it: its octets as they are encoded, and what is worked out of them once.

    The octets are a view of the whole message.
    """

    def __init__(self, part: Part, message: bytes) -> None:
        self.part = part
        self.message = message
        self.octets = memoryview(message)[part.start : part.end]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the octets."""
        return hashlib.sha256(self.octets).digest()

    @cached_property
    def pieces(self) -> Pieces:
        """The text once its transfer encoding is undone; what does not decode is left as it is."""
        return Pieces(self._decoded())

    def _decoded(self) -> bytes:
        if self.part.encoding == "quoted-printable":
            return from_quoted_printable(self.octets)
        if self.part.encoding == "base64":
            with suppress(binascii.Error):
                return binascii.a2b_base64(self.octets)
        return bytes(self.octets)


def texts(message: bytes, root: Part) -> dict[int, Content]:
    """Return the leaves of a message that are text, in order, by their `id`."""
    return {id(part): Content(part, message) for part in leaves(root) if part.content_type.startswith("text/")}


def from_quoted_printable(data: Segment) -> bytes:
    """Undo quoted-printable (RFC 2045 §6.7), which is read line by line."""
    return joined(map(binascii.a2b_qp, lines(data)))


def is_mislabelled(part: Part, text: bytes) -> bool:
    """True where a part claims UTF-16 or UTF-32, and its decoded text is UTF-8, as ASCII is.

    Exports from Windows are so. No ASCII letter, and no line end, is written without a NUL in what they claim.
    """
    if not part.is_wide or b"\0" in text:
        return False
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_inline_pgp(content: bytes) -> bool:
    """True where decoded text carries OpenPGP armour in itself (RFC 9580 §6.2), so that it counts as sealed."""
    at = content.find(_ARMOUR)
    while at >= 0:
        if content[max(0, at - 1) : at] in (b"", b"\n") and _PGP.match(content, at):
            return True
        at = content.find(_ARMOUR, at + 1)
    return False


def _bodies(part: Part) -> tuple[Part, ...]:
    if part.content_type == "multipart/related":
        return _related_root(part)
    return tuple(child for index, child in enumerate(part.children) if index == 0 or not child.is_named)


def _related_root(part: Part) -> tuple[Part, ...]:
    """RFC 2387 §3.2: the part that `start` names, else the first."""
    start = part.parameters.get("start", "").encode("utf-8")
    named = tuple(child for child in part.children if start and child.content_id == start)
    return (named or part.children)[:1]


class _Reader:
    """Reads parts out of one message and counts them."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._parts = 0

    def part(self, block: HeaderBlock, head: int, end: int, depth: int, default: str) -> Part:
        content_type, parameters = _content_type(block.all("content-type"), default)
        encoding = _encoding(block.all("content-transfer-encoding"))
        if encoding not in _ENCODINGS:
            content_type = OPAQUE
        disposition, named = _disposition(block.first("content-disposition"))
        content_id = block.first("content-id")
        return Part(
            content_type=content_type,
            parameters=parameters,
            encoding=encoding,
            disposition=disposition,
            is_named=named or "name" in parameters,
            content_id=content_id.value if content_id else b"",
            head=head,
            start=block.body,
            end=end,
            children=self._children(content_type, parameters, encoding, block.body, end, depth + 1),
        )

    def _children(
        self, content_type: str, parameters: Mapping[str, str], encoding: str, start: int, end: int, depth: int
    ) -> tuple[Part, ...]:
        if depth > DEPTH_LIMIT or content_type in _SEALED:
            return ()
        if content_type in _EMBEDDED and encoding in IDENTITY:
            return (self._child(start, end, depth, "text/plain"),)
        if not content_type.startswith("multipart/"):
            return ()
        default = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
        spans = self._spans(parameters.get("boundary", "").encode("latin-1"), start, end)
        return tuple(self._child(first, last, depth, default) for first, last in spans)

    def _child(self, start: int, end: int, depth: int, default: str) -> Part:
        if is_too_long(self._message, start, end):
            return _opaque(start, end)
        return self.part(split(self._message, start, end), start, end, depth, default)

    def _spans(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Return where the parts between a boundary's delimiters lie (RFC 2046 §5.1.1).

        A last delimiter that is missing is forgiven, as mail programs do.
        """
        spans: list[tuple[int, int]] = []
        opened = -1
        for at, after, closes in self._delimiters(boundary, start, end):
            if opened >= 0:
                spans.append((opened, max(opened, at)))
            opened = -1 if closes else after
            if closes:
                break
        if opened >= 0:
            spans.append((opened, end))
        self._parts += len(spans)
        return spans if self._parts <= PARTS_LIMIT else []

    def _delimiters(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield each delimiter: where the line break before it begins, where its line ends, whether it is the last."""
        if not boundary:
            return
        delimiter = re.compile(rb"--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
        position = start
        for _ in range(_LOOKALIKES_LIMIT):
            at = self._line_starting(b"--" + boundary, position, start, end)
            if at < 0:
                return
            match = delimiter.match(self._message, at, end)
            if match:
                yield max(start, at - 2), match.end(), match[1] is not None
            position = at + 2
        self._parts = PARTS_LIMIT

    def _line_starting(self, prefix: bytes, position: int, start: int, end: int) -> int:
        if position == start and self._message.startswith(prefix, start, end):
            return start
        found = self._message.find(b"\r\n" + prefix, max(start, position - 2), end)
        return found + 2 if found >= 0 else -1


def _opaque(start: int, end: int) -> Part:
    """Return a part of which nothing is known, its encoding included, so that it is neither shown nor encoded anew."""
    return Part(OPAQUE, {}, "", "", is_named=False, content_id=b"", head=start, start=start, end=end)


def _content_type(fields: list[Field], default: str) -> tuple[str, Mapping[str, str]]:
    """RFC 2045 §5.2; a value that cannot be read, or two of them, makes the part opaque."""
    if not fields:
        return default, {}
    text = fields[0].value.decode("latin-1")
    match = _TYPE.match(text)
    if match is None or len(fields) > 1:
        return OPAQUE, {}
    return match[1].lower(), _parameters(text)


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _PARAMETER.findall(text):
        plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        key = name.partition("*")[0].lower()
        found.setdefault(key, plain.lower() if key in ("charset", "format") else plain)
    return found


def _encoding(fields: list[Field]) -> str:
    """RFC 2045 §6; "" where two fields contradict, which is no encoding that anyone knows."""
    if not fields:
        return "7bit"
    return _first_token(fields[0]) if len(fields) == 1 else ""


def _disposition(given: Field | None) -> tuple[str, bool]:
    if given is None:
        return "", False
    return _first_token(given), "filename" in _parameters(given.value.decode("latin-1"))


def _first_token(given: Field) -> str:
    match = _TOKEN.match(given.value.decode("latin-1"))
    return match[1].lower() if match else ""
