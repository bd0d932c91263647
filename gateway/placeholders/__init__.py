"""Where a message wants its unsubscribe link: the placeholders of other systems, found in a part's decoded text.

The rule that must not be broken: none of them ever leaves as it is. Each is found raw, HTML-escaped and URL-encoded,
with an `http://` that an editor has put before it; what cannot be filled is named, so that the message is refused.
What they are is data (`placeholders.toml`); how the text is encoded is `footer`'s part.
"""

from __future__ import annotations

import html
import html.entities
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from gateway.pieces import Finder, Pieces

_STEMS: Final = (
    *(b"unsub", b"subscri", b"preferen", b"blacklist", b"jumpoff", b"dnc_url", b"update_profile"),
    *(b"manageurl", b"optinurl", b"messageurl", b"recipient_email", b"recipient.", b"<%", b"&lt;%", b"%3c%25"),
)
"""One of these stands in every placeholder; looking for them first costs next to nothing."""

_OPENINGS: Final = (b"<", b"{", b"%", b"[", b"*", b"#", b"&")
_OPENING: Final = re.compile(rb"[{<\[*#]|%(?=[\w%])|&(?=[\w#])")
_LONGEST_OPENING: Final = 64
"""Octets from where a placeholder begins to where its stem does, at most."""

_LOOK_BACK: Final = 512
"""Octets before a placeholder in which the URL begins of whose query it is a value."""

_LONGEST_TAG: Final = 2048
"""Octets before a placeholder in which the tag begins that it stands in: some have long styles."""

_MOST_SIGNS: Final = 16
"""Signs of less-than before a placeholder that begin no tag, and are passed over."""


class Hole(NamedTuple):
    """Where a copy's link is filled in, and how it is written there."""

    before: bytes = b""
    after: bytes = b""
    escapes: bool = False
    quotes: bool = False
    is_mail: bool = False

    def fill(self, url: str, mailto: str) -> bytes:
        """Return the octets of one copy; without a mail address the page stands in for it."""
        link = (mailto or url) if self.is_mail else url
        if self.quotes:
            link = quote(link, safe="")
        return self.before + (html.escape(link) if self.escapes else link).encode("ascii") + self.after


class Found(NamedTuple):
    """A placeholder at `start:end` of a text, and what to put in its place; `hole` is None for one that is refused.

    In HTML it is clickable where it is a link's target, or becomes a link.
    """

    start: int
    end: int
    hole: Hole | None
    is_clickable: bool = False


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One row of the data: whose it is, how it is shown, what it stands for; one that `is_odd` has its own pattern.

    The pattern is in pieces, one for each sign.
    """

    system: str
    shown: str
    kind: str
    words: str
    pattern: tuple[str, ...]
    is_verified: bool
    is_odd: bool = False


def find(pieces: Pieces, own_link: bytes = b"", tool_link: bytes = b"", *, is_html: bool) -> list[Found]:
    """Return the placeholders of a decoded text, in their order.

    A link of ours, which begins with `own_link`, is one: whoever it was made for, this copy is for somebody else. So is
    the very address at which the tool that made the message would unsubscribe, the `tool_link` (UNS-36).
    """
    content, found = pieces.text, list[Found]()
    if own_link and own_link in content:
        found += _links(content, re.compile(re.escape(own_link) + _TOKEN), is_html)
    if tool_link and _longest_word(tool_link) in content:
        found += _tool_links(content, tool_link, is_html)
    if _may_have_any(content):
        found += _marks(pieces, is_html)
    return _apart(sorted(found))


def _tool_links(content: bytes, link: bytes, is_html: bool) -> list[Found]:
    """Return where an address stands; most programs escape its ampersands for HTML, and some every sign in it."""
    found = _links(content, _spelled_link(link, b"&" if is_html else b""), is_html)
    if found or not is_html or not _ESCAPED_SIGN.search(content):
        return found
    return _links(content, _spelled_link(link, _SIGNS), is_html)


_ESCAPED_SIGN = re.compile(rb"&(?:#0*(?:47|61)|#x0*(?:2F|3D)|sol|equals);", re.IGNORECASE)
"""What the template languages that escape every sign write in the place of some that each address with a query has."""

_SIGNS: Final = b"&=/?:.#+%@'"


def _longest_word(link: bytes) -> bytes:
    """Return what of an address no spelling changes, to look for it first."""
    words: list[bytes] = re.findall(rb"[A-Za-z0-9]+", link)
    return max(words, key=len)


def _links(content: bytes, pattern: re.Pattern[bytes], is_html: bool) -> list[Found]:
    return [
        Found(*match.span(), Hole(escapes=is_html), is_clickable=_is_within_tag(content, match.start()))
        for match in pattern.finditer(content)
    ]


def _spelled_link(link: bytes, signs: bytes) -> re.Pattern[bytes]:
    """Return a pattern for an address in which these signs may be escaped for HTML; what goes on is another page's."""
    spelled = [
        f"(?:{re.escape(one)}|{_entity(one)})" if one.encode() in signs else re.escape(one)
        for one in link.decode("ascii")
    ]
    return re.compile("".join(spelled).encode("ascii") + _LINK_END)


_GOES_ON = rb"(?:0*(?:3[578]|4[3567]|58|6[134]|95|126)|[xX]0*(?i:2[356BDEF]|3[ADF]|40|5F|7E));"
_LINK_END: Final = rb"(?!\.?[A-Za-z0-9_~%%/?=#+@:-]|&(?!quot;|apos;|gt;|lt;|nbsp;|#(?!%b)))" % _GOES_ON
"""Nothing of an address follows, and no sign of one that is escaped."""

TOKEN_LENGTH: Final = 49
_TOKEN: Final = rb"[A-Za-z0-9._-]{%d}(?![A-Za-z0-9_-])" % TOKEN_LENGTH
"""What stands behind the beginning of a link (docs/decisions/0003)."""


def _marks(pieces: Pieces, is_html: bool) -> list[Found]:
    content, data = pieces.text, _data()
    stems = sorted(at for at, _ in _FINDER.find(pieces))
    matches = [*_by_stem(content, stems, data.by_stem)]
    if any(_SEARCHED.match(content, max(0, at - _BEFORE_STEM)) for at in stems):
        matches += data.by_search.finditer(content)
    return [_found(content, match, data, is_html) for match in matches]


_SEARCHED = re.compile(rb"data-msys-unsubscribe", re.IGNORECASE)
_BEFORE_STEM: Final = len(b"data-msys-")


def _may_have_any(content: bytes) -> bool:
    """Most plain text has none of these, and is not looked at twice; looking for a single octet costs nothing."""
    return any(opening in content for opening in _OPENINGS)


def _by_stem(
    content: bytes, stems: Iterable[int], patterns: Mapping[bytes, re.Pattern[bytes]]
) -> Iterator[re.Match[bytes]]:
    tried = 0
    for stem in stems:
        for opening in _OPENING.finditer(content, max(tried, stem - _LONGEST_OPENING), stem + 2):
            match = patterns[opening[0]].match(content, opening.start())
            tried = match.end() if match else opening.end()
            if match:
                yield match
                break


def _stems(text: bytes) -> Iterator[tuple[int, bytes]]:
    for stem in _STEMS:
        at = text.find(stem)
        while at >= 0:
            yield at, stem
            at = text.find(stem, at + 1)


_FINDER: Final = Finder(_stems, lowered=True)


def _apart(found: list[Found]) -> list[Found]:
    """Leave out what lies in one that begins before it."""
    apart = list[Found]()
    for one in found:
        if not apart or one.start >= apart[-1].end:
            apart.append(one)
    return apart


def every() -> tuple[Placeholder, ...]:
    """Return all that are known."""
    return tuple(_data().known.values())


def _found(content: bytes, match: re.Match[bytes], data: _Data, is_html: bool) -> Found:
    name = match.lastgroup or ""
    what, before = data.known[name], _named(match, f"before{name[1:]}")
    start, end = (match.start() + len(before), match.end()) if before else _with_braces(content, *match.span())
    start -= len(_prefix_before(content, start))
    if what.kind == "refused":
        return Found(start, end, None)
    is_target = is_html and (bool(before) or _is_within_tag(content, start))
    if what.kind == "link" and is_html and not is_target:
        words = _named(match, f"words{name[1:]}") or what.words.encode("ascii")
        return Found(start, end, Hole(b'<a href="', b'">' + words + b"</a>", escapes=True), is_clickable=True)
    hole = Hole(escapes=is_html, quotes=_is_parameter(content, start), is_mail=what.kind == "mail")
    return Found(start, end, hole, is_clickable=is_target)


def _with_braces(content: bytes, start: int, end: int) -> tuple[int, int]:
    """Return where a placeholder ends with what template languages want around it: `{{{…}}}`, `${…}`, `#{…}`.

    What was left of it would spoil the link.
    """
    if not _BRACE.match(content, start):
        return start, end
    while True:
        sigil = _SIGIL_BEFORE.search(content, max(0, start - _LONGEST_SIGN), start)
        start = sigil.start() if sigil else start
        before = _BRACE_BEFORE.search(content, max(0, start - _LONGEST_SIGN), start)
        after = _BRACE_BEHIND.match(content, end)
        if not before or not after:
            return start, end
        start, end = before.start(), after.end()


def _named(match: re.Match[bytes], group: str) -> bytes:
    return (match[group] if group in match.re.groupindex else b"") or b""


def _prefix_before(content: bytes, at: int) -> bytes:
    """Return what an editor has put before a placeholder that it took for an address: `http://`, or where it is itself.

    Some write every target anew as seen from their own page: `../{{…}}`, `https://editor.example/{{…}}`.
    """
    equals = content.rfind(b"=", max(len(b"href"), at - _LOOK_BACK), at)
    prefix = _TARGET.fullmatch(content, equals - len(b"href"), at) if equals >= 0 else None
    if prefix is None:
        slashes = content.rfind(b"://", max(0, at - _LOOK_BACK), at)
        prefix = _ADDRESS.search(content, max(0, (slashes if slashes >= 0 else at) - _LONGEST_SCHEME), at)
    return prefix[1] if prefix else b""


def _is_within_tag(content: bytes, at: int) -> bool:
    """True where no link can stand in HTML: in a tag, whatever its quotes hold, a comment, a script or a title."""
    start = at
    for _ in range(_MOST_SIGNS):
        start = content.rfind(b"<", max(0, at - _LONGEST_TAG), start)
        if start < 0 or _BEGINS_TAG.match(content, start):
            break
    if start < 0 or _HOLDS_TEXT.match(content, start):
        return start >= 0
    if _COMMENT.match(content, start):
        return content.find(b"-->", start, at) < 0
    return _OPEN_TAG.fullmatch(content, start, at) is not None


_BEGINS_TAG = re.compile(rb"<[a-zA-Z/!?]")
_HOLDS_TEXT = re.compile(rb"<(?:script|style|textarea|title)\b", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--(?!\[)")
_OPEN_TAG = re.compile(rb"<(?:[^>\"']++|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+")


def _is_parameter(content: bytes, at: int) -> bool:
    """True where the link is a value in another URL's query, so that it has to be percent-encoded."""
    return _QUERY.search(content[max(0, at - _LOOK_BACK) : at]) is not None


_QUERY = re.compile(rb"\?[^\s\"'<>]*=\Z")


class _Data(NamedTuple):
    """The rows by the group that each has in a pattern: those that have a stem, and those that are searched for.

    Of those that have one, there is a pattern for each octet that they may begin with.
    """

    known: Mapping[str, Placeholder]
    by_stem: Mapping[bytes, re.Pattern[bytes]]
    by_search: re.Pattern[bytes]


@lru_cache(maxsize=1)
def _data() -> _Data:
    """Read the data; the longest come first, since some are the beginnings of others."""
    raw = tomllib.loads(resources.files(__package__).joinpath("placeholders.toml").read_text("utf-8"))
    rows = sorted(map(_read, raw["placeholder"]), key=lambda one: -len(one.shown))
    known = {f"p{number}": one for number, one in enumerate(rows)}
    searched = {name: one for name, one in known.items() if "msys" in one.shown}
    with_stem = {name: one for name, one in known.items() if name not in searched}
    by_opening = {opening: _one_of(_beginning(opening, with_stem)) for opening in _OPENINGS}
    return _Data(known, by_opening, _one_of(searched))


def _beginning(opening: bytes, rows: Mapping[str, Placeholder]) -> dict[str, Placeholder]:
    """Return the rows that may begin with an octet; with one that spells others, any may."""
    if opening in (b"%", b"&"):
        return dict(rows)
    return {name: one for name, one in rows.items() if one.is_odd or one.shown.startswith(opening.decode("ascii"))}


def _one_of(rows: Mapping[str, Placeholder]) -> re.Pattern[bytes]:
    """Match any of these rows, whose own groups are empty, at their ends; what several begin with is tried once."""
    tree: _Tree = {}
    for name, one in rows.items():
        branch = tree
        for piece in (*one.pattern, f"(?P<{name}>)"):
            branch = branch.setdefault(_numbered(piece, name[1:]), {})
    return re.compile(_either(tree).encode("ascii"), re.IGNORECASE)


_Tree: TypeAlias = "dict[str, _Tree]"
"""Pieces of patterns, and what may follow each."""


def _either(tree: _Tree) -> str:
    ways = [piece + _either(rest) for piece, rest in tree.items()]
    return f"(?:{'|'.join(ways)})" if len(ways) > 1 else "".join(ways)


def _numbered(pattern: str, number: str) -> str:
    """A name may stand once in a pattern, so each row's groups get its number."""
    return re.sub(r"\(\?P<(before|words)>", rf"(?P<\g<1>{number}>", pattern)


def _read(row: Mapping[str, Any]) -> Placeholder:
    shown = row.get("shown", row.get("text", ""))
    pattern = (row["pattern"],) if "pattern" in row else (*_spelled(row["text"]), _NOT_MARKDOWN)
    return Placeholder(
        *(row["system"], shown, row["kind"], row.get("words", ""), pattern),
        is_verified=row.get("verified", True),
        is_odd="pattern" in row,
    )


_ENDS_A_PATH: Final = rb"\s\"'<>?#={}\[\]|*%&"
_TARGET: Final = re.compile(
    rb"""href=\s*["']?(\s*(?:(?:https?:)?//[^%b]*|[^:%b]*)\s*)""" % (_ENDS_A_PATH, _ENDS_A_PATH), re.IGNORECASE
)
"""A link's target as far as it is an address's beginning, or leads to another page."""

_ADDRESS: Final = re.compile(rb"(https?(?:://[^%b]*|%%3A%%2F%%2F))\Z" % _ENDS_A_PATH, re.IGNORECASE)
_LONGEST_SCHEME: Final = len(b"https%3A%2F%2F")

_NOT_MARKDOWN: Final = r"(?!\()"
"""`[unsubscribe](https://…)` is how some programs write a link as text."""

_GAP: Final = r"(?:[\s+\xA0]|\xC2\xA0|\xE2\x80\x8B|&(?:nbsp|ZeroWidthSpace|#(?:160|8203|xA0|x200B));|%(?:20|C2%A0))*"
"""White space, and what editors write in its place: the space that does not break, and the one that has no width."""

_FILLED_IN: Final = {
    " ": _GAP,
    "<words>": r"(?P<words>[^<>{}\"'%|]{0,200})",
    "<url>": r"[^\s\"'<>|]{0,2000}",
}


def _spelled(text: str) -> list[str]:
    """Return the pattern for a placeholder in any spelling that editors and encoders give it."""
    return [_FILLED_IN.get(one) or _character(one) for one in re.findall(r"<words>|<url>|.", text)]


def _character(one: str) -> str:
    """Return a pattern for one sign of a placeholder; the longer spellings come first, since `%25` begins with `%`."""
    if one.isalnum() or one in "_-":
        return one
    return f"(?:%(?:25){{0,3}}{ord(one):02X}|{_entity(one)}|{re.escape(one)})"


def _entity(one: str) -> str:
    """Return a pattern for a sign as HTML escapes it."""
    names = [name for name, text in html.entities.html5.items() if text == one and name.endswith(";")]
    return f"&(?:{'|'.join([f'#0*{ord(one)};', f'#[xX]0*(?i:{ord(one):X});', *names])})"


def _spelling(sign: str, anchor: str = "") -> re.Pattern[bytes]:
    return re.compile((_character(sign) + anchor).encode("ascii"), re.IGNORECASE)


_LONGEST_SIGN: Final = 16
"""Octets of a sign of a placeholder, however it is spelled."""

_BRACE, _BRACE_BEFORE, _BRACE_BEHIND = _spelling("{"), _spelling("{", r"\Z"), _spelling("}")
_SIGIL_BEFORE: Final = re.compile(rf"(?:{_character('$')}|{_character('#')})\Z".encode("ascii"), re.IGNORECASE)
"""What stands before a brace in the templates of JavaScript, Java and Ruby."""
