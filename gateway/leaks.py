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
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from gateway.address import Address
from gateway.headers import Field
from gateway.mime import Part, content_of, leaves
from gateway.sight import host_of

_URL = re.compile(rb"//[^\s\"'<>]+")
_QUOTED = re.compile(rb"[\"'=]\s*(?:https?:)?//[^\"'<>]*", re.IGNORECASE)
_MAIL = re.compile(rb"mailto:[^\s\"'<>]+", re.IGNORECASE)
_HIDDEN_SLASHES = re.compile(rb"&(?:#0*(?:47|58)|#x0*(?:2f|3a)|sol|colon)(?![0-9a-z])|%2f%2f", re.IGNORECASE)
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


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a message shows to foreign hosts: its links' text in every reading, in lower case, and possible digests.

    `digests` are runs as long as one, in hexadecimal or base64; `runs` are longer ones, in which one may lie; `makers`
    are those that make digests of these lengths.
    """

    text: str = ""
    digests: frozenset[str] = frozenset()
    runs: str = ""
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
                if written in self.digests or (self.runs and written in self.runs):
                    return True
                if _as_base64(digest.digest()) in self.digests:
                    return True
        return False


NOTHING_EXPOSED: Final = Exposed()


def exposed(message: bytes, root: Part, header: Iterable[Field], is_own: IsOwn, replaced: str = "") -> Exposed:
    """Return what of a message points to hosts that are not our own: in the header, and in each part that is text.

    A link that is `replaced` in every copy points nowhere.
    """
    found = list[str]()
    for field in header:
        if b"//" in field.raw:
            found += _foreign(field.value, is_own, is_html=False)
    for part in leaves(root):
        if part.content_type.startswith("text/"):
            text = content_of(message, part)
            found += _foreign(text, is_own, is_html=part.content_type != "text/plain")
    if replaced:
        found = [one for one in found if one.rstrip(".,;") != replaced.partition(":")[2]]
    return _readings(found) if found else NOTHING_EXPOSED


def _foreign(text: bytes, is_own: IsOwn, *, is_html: bool) -> list[str]:
    """Return the links in a text that point to foreign hosts."""
    if is_html and _HIDDEN_SLASHES.search(text):
        text += b"\n" + html.unescape(text.decode("utf-8", "replace")).encode("utf-8", "replace")
    urls = _URL.findall(text)
    if is_html:
        urls += [b"//" + one.partition(b"//")[2] for one in _QUOTED.findall(text) if b"\n" in one or b" " in one]
        urls += _sent_by_forms(text, is_own)
    found = [one for url in dict.fromkeys(urls) for one in _beyond(_plain(url), is_own, _DEPTH)]
    return [*found, *map(_without_mailbox, _MAIL.findall(text) if b"ailto:" in text or b"AILTO:" in text else ())]


def _plain(url: bytes) -> str:
    """Return a link as programs follow it: entities read, white space left out (WHATWG URL §4.4)."""
    text = url.decode("utf-8", "replace")
    return "".join((html.unescape(text) if "&" in text else text).split())


def _beyond(url: str, is_own: IsOwn, depth: int) -> Iterator[str]:
    """Yield a link that is foreign; of one of our own, the foreign ones to which it says to go on."""
    if not is_own(_host(url)):
        yield url
    elif depth and ("?" in url or "%2f%2f" in url.lower() or url.count("//") > 1):
        for parameter in re.split(r"[?&;#]", url)[1:]:
            target = unquote(parameter.partition("=")[2])
            if "//" in target:
                yield from _beyond(target[target.index("//") :], is_own, depth - 1)


@lru_cache(maxsize=4096)
def _host(url: str) -> str:
    return host_of(url)


def _without_mailbox(url: bytes) -> str:
    """Return what a mail link says besides the domain that it leads to, which is told nothing by its own address."""
    mailbox, _, query = url[len(b"mailto:") :].decode("utf-8", "replace").partition("?")
    return f"{unquote(html.unescape(mailbox)).rpartition('@')[0]}?{query}"


def _sent_by_forms(text: bytes, is_own: IsOwn) -> list[bytes]:
    if b"<form" not in text.lower():
        return []
    targets = [one for one in _FORM.findall(text) if not is_own(host_of(one.decode("utf-8", "replace")))]
    return [targets[0] + b"?" + value.strip(b"\"'") for value in _VALUE.findall(text)] if targets else []


def _readings(links: list[str]) -> Exposed:
    """Read links in every way that hides an address: as they stand, percent-decoded, base64, base32, hexadecimal."""
    texts, fresh = list[str](), "\n".join(dict.fromkeys(links))
    for _ in range(_DEPTH):
        texts.append(fresh)
        decoded = [*_percent_decoded(fresh), *_decoded_words(fresh)]
        fresh = "\n".join(dict.fromkeys(decoded))
        if not fresh:
            break
    everything = "\n".join(texts)
    lowered = everything.lower()
    runs = {*_HEX_RUN.findall(lowered)}
    digests = {one for one in runs if len(one) in _HEX_LENGTHS}
    exact = frozenset({*digests, *_base64_runs(everything)})
    lengths, longest = {*map(len, exact)}, max(map(len, runs), default=0)
    makers = [make for make, (hexes, base64s) in _LENGTHS.items() if {hexes, base64s} & lengths or hexes <= longest]
    return Exposed(f"{lowered}\n{lowered[::-1]}", exact, "\n".join(runs - digests), tuple(makers))


def _base64_runs(text: str) -> Iterator[str]:
    for run in _BASE64_RUN.findall(text):
        plain = run.replace("-", "+").replace("_", "/")
        yield from (one for one in (plain, *run.split("/")) if len(one) in _BASE64_LENGTHS)


def _percent_decoded(text: str) -> Iterator[str]:
    if "%" in text:
        yield unquote(text)
    if "+" in text:
        yield unquote_plus(text)


def _decoded_words(text: str) -> Iterator[str]:
    """Yield what words say that might be an encoded address. In base64 that of ASCII needs letters and digits alone."""
    for word in dict.fromkeys(_WORD.findall(text)):
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
