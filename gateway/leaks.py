"""Whether a message tells strangers who its recipients are: an address, or a digest of one, in what points elsewhere.

The rule that must not be broken: what points to a foreign host is found and read once a message, in every encoding that
links are known to be written in; a recipient costs a few searches in that (POL-06). Which hosts are our own is for
whoever asks to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from gateway.address import Address
from gateway.headers import Field
from gateway.mime import Content
from gateway.pieces import Finder, Pieces
from gateway.sight.elements import host_of

_HOST = re.compile(rb"//([^\s\"'<>/?#\\]*)")
_UNBROKEN = re.compile(rb"[^\s\"'<>]*")
_LONGEST_BEFORE: Final = 512
"""Octets before a link in which another one begins that it may be a part of."""

_OPENING = re.compile(rb"([\"'])\s*(?:https?:)?\s*\Z", re.IGNORECASE)
_MAIL = re.compile(rb"mailto:[^\s\"'<>]+", re.IGNORECASE)
_HIDDEN_SLASHES = re.compile(rb"&(?:#0*(?:47|58)|#x0*(?:2f|3a)|sol|colon)(?![0-9a-z])", re.IGNORECASE)
_BEYOND_PIECES = re.compile(_HIDDEN_SLASHES.pattern + rb"|<form\b", re.IGNORECASE)
"""What only the whole of a page can tell of: slashes written as entities, and forms."""

_INNER_SLASHES = re.compile(rb"%(?:25)*2f%(?:25)*2f", re.IGNORECASE)
_LONGEST_VALUE: Final = 8 * 1024
_REMEMBERED: Final = 256 * 1024
"""Octets of a part up to which its links are remembered: a large one may consist of nothing else."""

_REMEMBERED_LINK: Final = 2048
_FORM = re.compile(rb"<form\b[^>]*\baction\s*=\s*[\"']?\s*((?:https?:)?//[^\s\"'>]+)", re.IGNORECASE)
_VALUE = re.compile(rb"\bvalue\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>\"']+)", re.IGNORECASE)

_WORD = re.compile(r"[A-Za-z0-9]{10,}|[A-Za-z0-9_-]{14,}")
_HEX_WORD = re.compile(r"(?:[0-9a-fA-F]{2})+")
_BASE32_WORD = re.compile(r"[A-Za-z2-7]+")
_HEX_RUN = re.compile(r"[0-9a-f]{32,}")
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{22,}")
_DIGESTS: Final = (hashlib.md5, hashlib.sha1, hashlib.sha224, hashlib.sha256, hashlib.sha384, hashlib.sha512)
_LENGTHS: Final = {make: (2 * make().digest_size, -(-4 * make().digest_size // 3)) for make in _DIGESTS}
"""How many characters each digest has in hexadecimal, and in base64 without padding."""

_HEX_LENGTHS: Final = frozenset(one for one, _ in _LENGTHS.values())
_BASE64_LENGTHS: Final = frozenset(one for _, one in _LENGTHS.values())
_DEPTH: Final = 3
"""How often a text is decoded again: base64 in a parameter of a link in a parameter."""

IsOwn = Callable[[str], bool]
_Whole = Callable[[bytes, re.Match[bytes]], bytes | None]
"""Returns all of a link of which the unbroken beginning is known."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a message shows to foreign hosts: its links' text in every reading, in lower case, and possible digests.

    `digests` are runs as long as one, in hexadecimal or base64; `runs` are longer ones, in which one may lie; `makers`
    are those that make digests of these lengths.
    """

    text: str = ""
    digests: frozenset[str] = frozenset()
    runs: tuple[str, ...] = ()
    makers: tuple[Callable[..., Any], ...] = ()

    def tells_of(self, address: Address) -> str:
        """Return as what foreign hosts are told an address: "address", "digest", or "" where they are not."""
        if not self.text:
            return ""
        spellings = _spellings(address)
        if any(_stands_in(self.text, one) for one in spellings):
            return "address"
        return "digest" if self.makers and self._holds_digest(address, spellings) else ""

    def _holds_digest(self, address: Address, spellings: Iterable[str]) -> bool:
        texts = {address.text, *(one for one in spellings if "@" in one)}
        for text in texts | {one.upper() for one in texts} | {one.swapcase() for one in texts}:
            octets = text.encode("utf-8")
            for make in self.makers:
                digest = make(octets, usedforsecurity=False)
                written = digest.hexdigest()
                if written in self.digests or any(written in run for run in self.runs):
                    return True
                if _as_base64(digest.digest()) in self.digests:
                    return True
        return False


NOTHING_EXPOSED: Final = Exposed()


def exposed(contents: Iterable[Content], header: Iterable[Field], is_own: IsOwn, replaced: str = "") -> Exposed:
    """Return what of a message points to hosts that are not our own: in the header, and in the leaves that are text.

    A link that is `replaced` in every copy points nowhere.
    """
    found = list[str]()
    for field in header:
        if b"//" in field.raw:
            found += _foreign(field.value, is_own, is_html=False)
    for content in contents:
        found += _foreign_in(content, is_own)
    if replaced:
        found = [one for one in found if one.rstrip(".,;") != replaced.partition(":")[2]]
    return _readings(found) if found else NOTHING_EXPOSED


def _foreign_in(content: Content, is_own: IsOwn) -> list[str]:
    """Return the foreign links of a part; what was found is remembered, as a campaign repeats it in each message."""
    part = content.part
    is_remembered = len(content.octets) <= _REMEMBERED
    memory = _memory(content.digest, part.content_type, part.encoding, is_own) if is_remembered else []
    if not memory:
        pieces, is_html = content.pieces, part.content_type != "text/plain"
        memory.append(_foreign_in_page(pieces, is_own) if is_html else _foreign(pieces.text, is_own, is_html=False))
    return memory[0]


@lru_cache(maxsize=256)
def _memory(digest: bytes, content_type: str, encoding: str, is_own: IsOwn) -> list[list[str]]:
    """Return the place for the links of a text: empty until it has been read."""
    return []


def _foreign_in_page(pieces: Pieces, is_own: IsOwn) -> list[str]:
    """Return the foreign links of HTML, piece by piece where none of it runs on from one piece to the next."""
    found = [link for _, link in _finder(is_own).find(pieces)]
    links = [link for link in found if link is not None]
    return links if len(links) == len(found) else _foreign(pieces.text, is_own, is_html=True)


@lru_cache(maxsize=8)
def _finder(is_own: IsOwn) -> Finder[str | None]:
    return Finder(partial(_apart, is_own))


def _apart(is_own: IsOwn, text: bytes) -> Iterator[tuple[int, str | None]]:
    """Yield the foreign links within pieces of a page, and None where only the whole page can tell."""
    yield from _links(text, is_own, _value_in_piece)
    yield from ((match.start(), None) for match in _BEYOND_PIECES.finditer(text))


def _foreign(text: bytes, is_own: IsOwn, *, is_html: bool) -> list[str]:
    """Return the links in a text that point to foreign hosts."""
    if is_html and b"&" in text and _HIDDEN_SLASHES.search(text):
        text += b"\n" + html.unescape(text.decode("utf-8", "replace")).encode("utf-8", "replace")
    links = [link for _, link in _links(text, is_own, _value if is_html else _unbroken) if link is not None]
    return [*links, *_sent_by_forms(text, is_own)] if is_html and b"<form" in text else links


def _links(text: bytes, is_own: IsOwn, whole: _Whole) -> Iterator[tuple[int, str | None]]:
    """Yield the links that a text says outright, each with its place; None for one of which `whole` knows no end."""
    hosts = {match[1] for match in _HOST.finditer(text)}
    foreign = {one for one in hosts if not is_own(host_of(_plain(b"//" + one)))}
    if foreign:
        yield from _links_to(foreign, text, whole)
    if len(hosts) > len(foreign) and b"%" in text and _INNER_SLASHES.search(text):
        ours = re.compile(_link(hosts - foreign) + _INNER_SLASHES.pattern + rb"[^\s\"'<>]*", re.IGNORECASE)
        for match in ours.finditer(text):
            yield from ((match.start(), there) for there in _beyond(_plain(match[0]), is_own, _DEPTH))
    if b"ailto:" in text:
        yield from ((match.start(), _without_mailbox(match[0])) for match in _MAIL.finditer(text))


def _link(hosts: Iterable[bytes]) -> bytes:
    """Return the pattern of a link to one of these hosts."""
    return rb"//(?:%b)(?![^\s\"'<>/?#\\])[^\s\"'<>]*" % b"|".join(sorted(map(re.escape, hosts)))


def _links_to(hosts: Iterable[bytes], text: bytes, whole: _Whole) -> Iterator[tuple[int, str | None]]:
    """Yield the links to these hosts; of one that stands in another link's query only what belongs to it."""
    for match in re.compile(_link(hosts)).finditer(text):
        backwards = text[max(0, match.start() - _LONGEST_BEFORE) : match.start()][::-1]
        so_far = _UNBROKEN.match(backwards)
        is_inner = so_far is not None and b"//" in so_far[0]
        link = match[0].partition(b"&")[0] if is_inner else whole(text, match)
        yield match.start(), None if link is None else _plain(link)


def _unbroken(text: bytes, match: re.Match[bytes]) -> bytes:
    return match[0]


def _value(text: bytes, match: re.Match[bytes]) -> bytes:
    """Return a link with what stands behind white space in it, where it is an attribute's value (WHATWG URL §4.4)."""
    mark, end = _mark_before(text, match), match.end()
    closing = text.find(mark, end, end + _LONGEST_VALUE) if mark else -1
    return text[match.start() : closing] if closing >= 0 else match[0]


def _value_in_piece(text: bytes, match: re.Match[bytes]) -> bytes | None:
    """As `_value`; None where the value does not end in the piece in which it begins."""
    link = _value(text, match)
    runs_on = _mark_before(text, match) and (link == match[0] or b"<" in link)
    return None if runs_on else link


def _mark_before(text: bytes, match: re.Match[bytes]) -> bytes:
    """Return the quotation mark before a link that goes on behind white space; "" where there is none."""
    if not text[match.end() : match.end() + 1].isspace():
        return b""
    before = _OPENING.search(text, max(0, match.start() - 32), match.start())
    return before[1] if before else b""


def _plain(url: bytes) -> str:
    """Return a link as programs follow it: entities read, white space left out."""
    text = url.decode("utf-8", "replace")
    return "".join((html.unescape(text) if "&" in text else text).split())


def _beyond(url: str, is_own: IsOwn, depth: int) -> Iterator[str]:
    """Yield a link that is foreign; of one of our own, the foreign ones to which it says to go on."""
    if not is_own(host_of(url)):
        yield url
    elif depth:
        for parameter in re.split(r"[?&;#]", url)[1:]:
            target = unquote(parameter.partition("=")[2])
            if "//" in target:
                yield from _beyond(target[target.index("//") :], is_own, depth - 1)


def _without_mailbox(url: bytes) -> str:
    """Return what a mail link says besides the domain that it leads to, which is told nothing by its own address."""
    mailbox, _, query = url[len(b"mailto:") :].decode("utf-8", "replace").partition("?")
    return f"{unquote(html.unescape(mailbox)).rpartition('@')[0]}?{query}"


def _sent_by_forms(text: bytes, is_own: IsOwn) -> list[str]:
    targets = [one for one in _FORM.findall(text) if not is_own(host_of(_plain(one)))]
    return [f"//?{_plain(value)}" for value in _VALUE.findall(text)] if targets else []


def _readings(links: list[str]) -> Exposed:
    """Put together what links say; those of a campaign are mostly the same in each of its messages."""
    read = [(_read_before if len(one) <= _REMEMBERED_LINK else _read)(one) for one in dict.fromkeys(links)]
    digests = frozenset(chain.from_iterable(one.digests for one in read))
    runs = [run for one in read for run in one.runs]
    lengths, longest = {*map(len, digests)}, max(map(len, runs), default=0)
    makers = [make for make, (hexes, base64s) in _LENGTHS.items() if {hexes, base64s} & lengths or hexes <= longest]
    return Exposed("\n".join([one.text for one in read]), digests, tuple(runs), tuple(makers))


def _read(link: str) -> Exposed:
    """Read a link in every way that hides an address: as it stands, percent-decoded, base64, base32, hexadecimal."""
    texts, fresh, words = list[str](), link, set[str]()
    for _ in range(_DEPTH):
        texts.append(fresh)
        new = {*_WORD.findall(fresh)} - words
        words |= new
        fresh = "\n".join([*_percent_decoded(fresh), *_decoded(new)])
        if not fresh:
            break
    everything = "\n".join(texts)
    long = _BASE64_RUN.findall(everything)
    runs = {run for one in long for run in _HEX_RUN.findall(one.lower())}
    digests = {one for one in runs if len(one) in _HEX_LENGTHS}
    lowered = everything.lower()
    return Exposed(f"{lowered}\n{lowered[::-1]}", frozenset({*digests, *_base64_runs(long)}), tuple(runs - digests))


_read_before = lru_cache(maxsize=4096)(_read)


def _base64_runs(runs: Iterable[str]) -> Iterator[str]:
    for run in runs:
        plain = run.replace("-", "+").replace("_", "/")
        yield from (one for one in (plain, *run.split("/")) if len(one) in _BASE64_LENGTHS)


def _percent_decoded(text: str) -> Iterator[str]:
    if "%" in text:
        yield unquote(text)
    if "+" in text:
        yield unquote_plus(text)


def _decoded(words: Iterable[str]) -> Iterator[str]:
    """Yield what words say that might be an encoded address. In base64 that of ASCII needs letters and digits alone."""
    for word in words:
        said = [_from_base64(word)]
        if _HEX_WORD.fullmatch(word):
            said.append(_text_of(bytes.fromhex, word))
        if _BASE32_WORD.fullmatch(word):
            said.append(_text_of(base64.b32decode, word.upper() + "=" * (-len(word) % 8)))
        yield from (one for one in said if "@" in one or "%40" in one)


def _from_base64(word: str) -> str:
    if len(word) % 4 == 1:
        word = word[:-1]
    plain = word.replace("-", "+").replace("_", "/") if "-" in word or "_" in word else word
    return _text_of(binascii.a2b_base64, plain + "=" * (-len(plain) % 4))


def _text_of(decode: Callable[[str], bytes], word: str) -> str:
    try:
        return decode(word).decode("utf-8", "ignore")
    except ValueError:
        return ""


def _spellings(address: Address) -> tuple[str, ...]:
    """Return how a link may spell an address, in lower case: with the sign for "at" that return paths use, untagged."""
    lowered = address.text.lower()
    local, _, domain = lowered.rpartition("@")
    untagged = local.partition("+")[0]
    spaced = local.replace("+", " ")
    spelled = (lowered, f"{untagged}@{domain}", f"{spaced}@{domain}", f"{local}={domain}", f"{untagged}={domain}")
    named = (address.ascii_text or "").lower()
    return tuple(dict.fromkeys((*spelled, *([named] if named else []))))


def _stands_in(text: str, address: str) -> bool:
    """True where an address stands in a text as itself, not as the end or the beginning of another."""
    at = text.find(address)
    while at >= 0:
        end = at + len(address)
        if not _goes_on(text[at - 1 : at]) and not _MORE_OF_A_DOMAIN.match(text, end):
            return True
        at = text.find(address, at + 1)
    return False


def _goes_on(character: str) -> bool:
    return character.isalnum() or character in ("-", ".")


_MORE_OF_A_DOMAIN = re.compile(r"[\w-]|\.(?!(?:png|gif|jpe?g|webp|svg|ico|html?|php|aspx?|js|json|css|txt)\b)\w")


def _as_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii").rstrip("=")
