"""Where links go in the parts of a message that are shown, whatever their encoding: the holes that copies fill.

The one rule: the author's text stays as it was, but for what reports on its reader; a part is encoded anew only where
its encoding (base64) leaves no other way. Everything is looked at once a message (`Ground`) and made once for each
manner; what differs from copy to copy is the link alone (`Slot`). What the footer says is `footer`'s part, which
placeholders there are that of `placeholders`, what nobody sees that of `sight`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final, NamedTuple

from gateway.errors import Malformed
from gateway.footer import NOTHING_LACKS, Imprint, Lacking, lacking, wording
from gateway.footer.charsets import codec, in_its_order, is_ascii_compatible
from gateway.mend import LINE_LIMIT, base64_lines, quoted_printable
from gateway.mime import IDENTITY, Content, Part, is_inline_pgp, is_mislabelled
from gateway.model import Manner, Tracking
from gateway.pieces import Pieces
from gateway.placeholders import TOKEN_LENGTH, Found, Hole, find
from gateway.redirectors import redirector_in
from gateway.sight import Page
from gateway.sight.elements import Unseen, host_of
from gateway.steps import joined, steps

_BASE64_STEP: Final = 57
"""Octets that make one line of 76 base64 characters."""

_WHITE = b" \t\r\n\v\f"
_ENDING: Final = 1024
"""Octets at the end of a part that say how a footer is to be put below it."""

_REMEMBERED: Final = 256 * 1024
"""Octets of a text up to which what is found in it is remembered: in a large one there may be as much to remember."""

_LONGEST_ADDRESS: Final = 320
"""Octets of a mail address, at most (RFC 5321 §4.5.3.1)."""

_MOST_PLACES: Final = 1000
"""Places for a link in one part; a tool that asks for more has gone wrong, and each costs every copy its time."""

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


class Tracked(Exception):
    """A part reports on its reader where that is refused: a sentence that names where to."""


class _Insertion(NamedTuple):
    """What stands in for `start:end` of a part's content, as it is once decoded."""

    start: int
    end: int
    texts: tuple[bytes, ...]
    holes: tuple[Hole, ...] = ()


class _Cut(NamedTuple):
    """Something that nobody sees and that fetches from a `host`, as it goes: from our own only of some copies."""

    insertion: _Insertion
    host: str
    is_own: bool


class Terms(NamedTuple):
    """By what a message's parts are looked at: whose they are, what is done about trackers, which hosts are our own.

    `own_link` is what every unsubscribe link of ours begins with, `tool_link` the one that the message's tool made for
    itself, "" for none. Only where a message `is_promotional` are its
    placeholders filled and its trackers looked for. What is not shown as the message (`is_shown`) gets its placeholders
    filled, and nothing else.
    """

    imprint: Imprint
    is_own: Callable[[str], bool]
    tracking: Tracking = Tracking.ALLOW
    own_link: bytes = b""
    tool_link: bytes = b""
    is_promotional: bool = True
    is_shown: bool = True


class _Look(NamedTuple):
    """What was found in a part, by its places in what `_Reading` calls its content; it holds none of its text.

    One that `is_whole` is encoded anew as a whole; one that `is_crowded` has lines too long for the links in them.
    """

    wanted: Sequence[_Insertion]
    cuts: Sequence[_Cut]
    lacks: Lacking
    end: int
    is_whole: bool
    is_crowded: bool


@dataclass(frozen=True, slots=True)
class Ground:
    """A part that was looked at, once a message; what becomes of it depends on the copy's manner alone."""

    part: Part
    _message: bytes
    _terms: Terms
    _look: _Look

    @property
    def is_crowded(self) -> bool:
        """True where the links make lines longer than SMTP's, so that the part needs a transfer encoding first."""
        return self._look.is_crowded

    @property
    def carries_link(self) -> bool:
        """True where a reader of the message sees the link in this part."""
        if not self._terms.is_shown:
            return False
        return self._look.lacks.link or any(not hole.is_mail for one in self._look.wanted for hole in one.holes)

    def trackers(self, manner: Manner) -> list[str]:
        """Return the hosts that a copy does not report to, though the part asked for it."""
        return [cut.host for cut in self._look.cuts if manner.is_untracked or not cut.is_own]

    def placements(self, manner: Manner) -> list[Placement]:
        """Say where links go in the part, and in which words: where the author wants them, and in a footer (BODY-01).

        Whatever reports on its reader goes.
        """
        look = self._look
        cuts = [cut.insertion for cut in look.cuts if manner.is_untracked or not cut.is_own]
        wanted = [one for one in look.wanted if not any(one.start < cut.end and cut.start < one.end for cut in cuts)]
        read = _read(Content(self.part, self._message)) if look.is_whole else None
        part, content = (read.part, read.pieces.text) if read else (self.part, self._ending())
        together = sorted([*wanted, *cuts, *self._footer(part, content, manner)])
        return _within_whole(part, content, together, read.encode) if read else _in_place(part, together)

    def _ending(self) -> bytes:
        """Return what stands at the end of the part, as it is encoded."""
        return self._message[max(self.part.start, self.part.end - _ENDING) : self.part.end]

    def _footer(self, part: Part, content: bytes, manner: Manner) -> list[_Insertion]:
        end, lacks = self._look.end, self._look.lacks
        if not self._terms.is_shown or not (any(lacks) or manner.is_advertising or manner.states_objection):
            return []
        words = wording(part, content, self._terms.imprint, lacks, manner)
        if not lacks.link:
            return [_Insertion(end, end, (words.before,))]
        return [_Insertion(end, end, (words.before, words.after), (Hole(escapes=part.is_html),))]


def survey(content: Content, terms: Terms) -> Ground | None:
    """Look at a part: where its author wants links, what it lacks, what of it reports on its reader.

    Returns None where nothing can be written into the part: OpenPGP armour, base64 that does not decode, text that is
    not in its charset. Raises `Unfillable`, `Tracked`, and `Malformed` where it wants too many links. What was found is
    remembered, since many a campaign comes as one message a recipient, with the same text in each.
    """
    part = content.part
    if part.is_wide and is_mislabelled(part, content.pieces.text):
        return survey(Content(_in_utf8(part), content.message), terms)
    written = (part.content_type, part.encoding, part.parameters.get("charset"), part.parameters.get("format"))
    memory = _memory(content.digest, written, terms) if len(content.octets) <= _REMEMBERED else []
    if not memory:
        memory.append(_look(content, terms))
    look = memory[0]
    return Ground(part, content.message, terms, look) if look else None


def _in_utf8(part: Part) -> Part:
    return replace(part, parameters={**part.parameters, "charset": "utf-8"})


@lru_cache(maxsize=256)
def _memory(digest: bytes, written: tuple[str | None, ...], terms: Terms) -> list[_Look | None]:
    """Return the place for what is found in a text: empty until it has been looked at."""
    return []


def _look(content: Content, terms: Terms) -> _Look | None:
    part, read = content.part, _read(content)
    if read is None or (not part.is_html and is_inline_pgp(read.pieces.text)):
        return None
    pieces, text, is_whole = read.pieces, read.pieces.text, not read.is_in_place
    page = Page(pieces) if part.is_html and terms.is_shown else None
    found = find(pieces, terms.own_link, terms.tool_link, is_html=part.is_html) if terms.is_promotional else []
    if len(found) > _MOST_PLACES:
        raise Malformed(f"a part has more than {_MOST_PLACES} places for an unsubscribe link")
    _refuse_unfillable(text, found)
    _refuse_telling(text, found, terms)
    unseen = page.unseen() if page and terms.tracking is not Tracking.ALLOW else []
    _refuse_trackers(text, unseen, terms)
    wanted = [_Insertion(one.start, one.end, (b"", b""), (one.hole,)) for one in found if one.hole]
    cuts = [_Insertion(one.start, one.end, (one.instead,)) for one in unseen]
    end = page.end if page else len(text)
    if part.encoding == "quoted-printable":
        moved = _in_source(content, text, [*wanted, *cuts], end)
        if moved:
            wanted, cuts, end = moved.places[: len(wanted)], moved.places[len(wanted) :], moved.end
        is_whole = moved is None
    gone = [_Cut(cut, one.host, terms.is_own(one.host)) for cut, one in zip(cuts, unseen, strict=True)]
    lacks = _lacking(read.part, text, page, found, terms) if terms.is_shown else NOTHING_LACKS
    is_crowded = part.encoding in IDENTITY and _overflows(text, wanted, terms.own_link)
    return _Look(wanted, gone, lacks, end, is_whole, is_crowded)


def _overflows(text: bytes, wanted: Sequence[_Insertion], own_link: bytes) -> bool:
    """True where a line is too long with the links in it, as long as they may be."""
    url, mailto = own_link.decode("ascii") + "x" * TOKEN_LENGTH, "x" * _LONGEST_ADDRESS
    grown = dict[int, int]()
    for one in wanted:
        begins, ends = text.rfind(b"\n", 0, one.start) + 1, text.find(b"\n", one.end)
        link = sum(len(hole.fill(url, mailto)) for hole in one.holes)
        length = grown.get(begins, (ends if ends >= 0 else len(text)) - begins)
        grown[begins] = length + link - (one.end - one.start)
    return any(length > LINE_LIMIT for length in grown.values())


class _Reading(NamedTuple):
    """The text that a part says, and how all of it is encoded; one that `is_in_place` can be changed where it stands.

    `part` is as it is to be taken for: the charset may be another meanwhile.
    """

    part: Part
    pieces: Pieces
    encode: Callable[[bytes], bytes]
    is_in_place: bool = False


def _read(content: Content) -> _Reading | None:
    part = content.part
    if part.encoding == "base64":
        text = _decoded_base64(content.octets)
        if text is None or is_ascii_compatible(codec(part)):
            return None if text is None else _Reading(part, Pieces(text), base64_lines)
        return _transcoded(part, text)
    if not is_ascii_compatible(codec(part)):
        return None
    encode = quoted_printable if part.encoding == "quoted-printable" else bytes
    return _Reading(part, content.pieces, encode, is_in_place=True)


def _transcoded(part: Part, text: bytes) -> _Reading | None:
    """Read what is in UTF-16 and the like, where no octet is a letter, as UTF-8, so that it can be looked through."""
    try:
        charset = in_its_order(codec(part), text)
        in_utf8 = text.decode(charset).encode("utf-8")
    except (ValueError, LookupError):
        return None
    return _Reading(
        _in_utf8(part), Pieces(in_utf8), lambda changed: base64_lines(changed.decode("utf-8").encode(charset))
    )


def _lacking(part: Part, text: bytes, page: Page | None, found: Sequence[Found], terms: Terms) -> Lacking:
    links = [one for one in found if one.hole and not one.hole.is_mail]
    if page is None:
        return lacking(part, text, terms.imprint.company, has_link=bool(links), is_seen=_always, is_legible=_always)
    has_link = any(one.is_clickable and _is_legible(page, one) for one in links)
    company, is_seen, is_legible = terms.imprint.company, page.is_seen, page.is_legible
    return lacking(part, text, company, has_link=has_link, is_seen=is_seen, is_legible=is_legible)


def _always(at: int) -> bool:
    return True


def _is_legible(page: Page, one: Found) -> bool:
    """True where the author's own place for the link can be seen: what becomes a link has the colours of one."""
    becomes_link = one.hole is not None and one.hole.before
    return page.is_seen(one.start) if becomes_link else page.has_legible_link(one.start)


def _refuse_trackers(text: bytes, unseen: Sequence[Unseen], terms: Terms) -> None:
    if terms.tracking is not Tracking.REFUSE:
        return
    reporting = next((one.host for one in unseen if not terms.is_own(one.host)), None)
    if reporting:
        raise Tracked(f"it has something that nobody sees and that tells {reporting} who reads it")
    redirecting = redirector_in(text)
    if redirecting:
        raise Tracked(f"its links go through {redirecting}, which notes who follows them")


def stand_in(message: bytes, part: Part, placeholder: bytes) -> list[Placement]:
    """Say where a link goes in a shown part: wherever this placeholder stands, and nowhere else."""
    body = message[part.start : part.end]
    content = _decoded_base64(memoryview(body)) if part.encoding == "base64" else body
    spelled = _spell_in_quoted_printable if part.encoding == "quoted-printable" else re.escape
    wanted = [
        _Insertion(*match.span(), (b"", b""), (Hole(escapes=part.is_html),))
        for match in re.finditer(spelled(placeholder), content or b"")
    ]
    return (
        _within_whole(part, content or b"", wanted, base64_lines)
        if part.encoding == "base64"
        else _in_place(part, wanted)
    )


def refuse_links(text: str) -> None:
    """Raise `Unfillable` where the text of a header, in which no link can stand, has a placeholder for one."""
    for one in find(Pieces(text.encode("utf-8", "replace")), is_html=False):
        raise Unfillable(text.encode("utf-8", "replace")[one.start : one.end].decode("ascii", "replace"))


def _refuse_unfillable(text: bytes, found: Sequence[Found]) -> None:
    for one in found:
        if one.hole is None:
            raise Unfillable(text[one.start : one.end].decode("ascii", "replace"))


def _refuse_telling(text: bytes, found: Sequence[Found], terms: Terms) -> None:
    """Raise `Tracked` where a link would tell a foreign host how one recipient unsubscribes: it names them (POL-06)."""
    for one in found:
        around = _AROUND.search(text, max(0, one.start - _LONGEST_AROUND), one.start)
        host = host_of(around[0].decode("latin-1")) if around else ""
        if host and not terms.is_own(host):
            raise Tracked(f"a link tells {host}, which is not the company's own (company.hosts), a recipient's link")


_LONGEST_AROUND: Final = 512
_AROUND = re.compile(rb"(?:https?:)?//[^\s\"'<>]*\Z", re.IGNORECASE)
"""The beginning of an address in which a link stands as a value."""


def _in_place(part: Part, wanted: Sequence[_Insertion]) -> list[Placement]:
    encoders = (quoted_printable, _within_line) if part.encoding == "quoted-printable" else (bytes, bytes)
    return [
        Placement(part.start + start, part.start + end, b"", Slot(texts, holes, encoders[end > start]))
        for start, end, texts, holes in wanted
    ]


def _within_line(text: bytes) -> bytes:
    """Encode what stands in the midst of a line, which soft line breaks keep as short as it was."""
    return b"=\r\n" + quoted_printable(text) + b"=\r\n" if text else b"=\r\n"


class _Moved(NamedTuple):
    """Where in quoted-printable stands what was found in the text that it encodes, and where that text ends."""

    places: list[_Insertion]
    end: int


def _in_source(content: Content, text: bytes, wanted: Sequence[_Insertion], end: int) -> _Moved | None:
    """Find in quoted-printable what was found in the text that it encodes; None where the two do not agree."""
    last = [_Insertion(end, end + 1, ())] if end < len(text) else []
    sought = [*wanted, *last]
    spans = _spans_in_source(content, sorted({place for one in sought for place in (one.start, one.end - 1)}))
    moved = [one._replace(start=spans[one.start][0], end=spans[one.end - 1][1]) for one in sought]
    agree = all(
        binascii.a2b_qp(content.octets[there.start : there.end]) == text[here.start : here.end]
        for here, there in zip(sought, moved, strict=True)
    )
    if not agree:
        return None
    return _Moved(moved[: len(wanted)], moved[-1].start if last else len(content.octets))


def _spans_in_source(content: Content, places: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return which octets of quoted-printable stand for the one at each of these places of its text, in order.

    A text is no longer than what encodes it, so that all lines but those just before a place are counted in a few
    leaps; the rest is read mark by mark.
    """
    source, start = content.message, content.part.start
    spans, begins, told = dict[int, tuple[int, int]](), start, 0
    for place in places:
        while ends := source.rfind(b"\n", begins, begins + place - told) + 1:
            told += ends - begins - 2 * source.count(b"=", begins, ends) - source.count(b"=\r\n", begins, ends)
            begins = ends
        first, after = _span_in_source(source, begins, content.part.end, place - told)
        spans[place] = first - start, after - start
    return spans


def _span_in_source(source: bytes, begins: int, end: int, place: int) -> tuple[int, int]:
    at, looked = begins + place, begins
    while (sign := source.find(b"=", looked, min(at + 1, end))) >= 0:
        mark = _QP_ESCAPE.match(source, sign, end)
        if mark and mark[1] and sign == at:
            return mark.span()
        at += len(mark[0]) - bool(mark[1]) if mark else 0
        looked = mark.end() if mark else sign + 1
    return at, at + 1


_QP_ESCAPE = re.compile(rb"=(?:([0-9A-Fa-f]{2})|[ \t]*\r?\n)")


def _within_whole(
    part: Part, content: bytes, wanted: Sequence[_Insertion], encode: Callable[[bytes], bytes]
) -> list[Placement]:
    """Encode all of a part anew, but keep the lines before the first change as they would be encoded anyway."""
    if not wanted:
        return []
    kept = wanted[0].start - wanted[0].start % _BASE64_STEP if encode is base64_lines else 0
    texts, holes, position = [b""], list[Hole](), kept
    for start, end, around, inside in wanted:
        texts[-1] += content[position:start] + around[0]
        texts += around[1:]
        holes += inside
        position = end
    texts[-1] += content[position:]
    slot = Slot(tuple(texts), tuple(holes), encode)
    return [Placement(part.start, part.end, base64_lines(memoryview(content)[:kept]) if kept else b"", slot)]


def _decoded_base64(body: memoryview) -> bytes | None:
    """Return what a base64 body says, decoded a step at a time so that other threads have their turn."""
    try:
        return joined(_from_base64(body))
    except binascii.Error:
        return None


def _from_base64(body: memoryview) -> Iterator[bytes]:
    """Decode strictly, except that at the end padding may be lacking; the last letters wait until all have come."""
    rest = b""
    for step in steps(body):
        letters = rest + step.translate(None, _WHITE)
        whole = max(len(letters) - 3, 0) // 4 * 4
        if b"=" in letters[:whole]:
            raise binascii.Error("there is padding before the end")
        yield _strictly(letters[:whole])
        rest = letters[whole:]
    text = rest.rstrip(b"=")
    if len(rest) - len(text) > 2:
        raise binascii.Error("there is more padding than two signs")
    yield _strictly(text + b"=" * (-len(text) % 4))


_strictly = partial(binascii.a2b_base64, strict_mode=True)


def _spell_in_quoted_printable(text: bytes) -> bytes:
    """Match a text in which any character may be escaped, and soft line breaks may fall between any two."""
    return _SOFT_BREAK.join(rb"(?:%b|=%02X)" % (re.escape(bytes([octet])), octet) for octet in text)
