"""Make the bytes that one recipient's copy must carry: headers, unsubscribe link, footer.

Two steps, because one message goes to many: `prepare` decides once a message, and `Draft` makes each copy of what the
copies share. The rule that must not be broken: what a copy keeps of the message it keeps octet for octet, and
nothing that is put in can break out of its line. Signing is left to `sign`, and comes last.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import cached_property, lru_cache, partial
from typing import Final, NamedTuple

from gateway.address import Address, domain_key
from gateway.dialects import SILENT, Dialects
from gateway.downgrade import Inexpressible, written_in
from gateway.errors import Malformed
from gateway.footer import Imprint, one_line
from gateway.headers import Field, HeaderBlock, entries, make, split
from gateway.leaks import exposed
from gateway.mend import LINE_LIMIT, has_long_line, in_quoted_printable, mend, with_regular_header
from gateway.mime import Content, Part, parse, shown, texts, unshown
from gateway.model import PLAIN_MANNER, Alphabet, Company, FooterTemplate, Manner, Peer, Reply, Segment, Tracking
from gateway.prose import decoded
from gateway.reconsent import link_placements
from gateway.slots import Ground, Placement, Slot, Terms, Tracked, Unfillable, refuse_links, survey

CONTROL_PREFIX: Final = "assent-"
LIST_ID_LIMIT: Final = 255
"""Octets of a list's identifier (RFC 2919 §3)."""

LONGEST_TOOL_URL: Final = 2000
"""Octets of a tool's own link that is kept."""

SHARED_FROM: Final = 64 * 1024
"""Octets of a message from which its copies are views of it; below, cutting it up costs less."""

_ONE_CLICK = Field("list-unsubscribe-post", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
_NEVER_KEPT = frozenset({"bcc", "resent-bcc"})
_READ_BY_PEOPLE = frozenset({"subject", "from", "reply-to"})
"""Fields in which a placeholder would be read as it is, since no link can stand there."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What promotional copies say of their sender and list. `list_id` is a dot-atom of at most 255 octets (RFC 2919).

    `mailto_first` turns round the order of preference in List-Unsubscribe (UNS-05); `refuses_others` is that a message
    whose To or Cc names others of its envelope is not rewritten (UNS-32). `template` is the operator's own footer,
    `tracking` what becomes of what reports on its reader.
    """

    company: Company
    list_name: str
    list_id: str
    mailto_first: bool = False
    template: FooterTemplate | None = None
    tracking: Tracking = Tracking.STRIP
    refuses_others: bool = False

    def __post_init__(self) -> None:
        if len(self.list_id) > LIST_ID_LIMIT or not _LIST_ID.fullmatch(self.list_id):
            raise ValueError(f"{self.list_id!r} is not a list identifier")


@dataclass(frozen=True, slots=True)
class Treatment:
    """How one message is to be stamped, whoever it goes to.

    `recipients` are all of the submission's envelope; `trace` is its `received` field; `date` stands in for a
    missing Date; signatures by `own_domains` (lower-case A-labels) are removed; `promotion` is None for other classes.
    The next hop takes an `alphabet`; `is_utf8` is True where the submitter declared SMTPUTF8, `asks` where a policy
    notice has room for its one reader's link to consent anew. The headers that `dialects` calls removed were for us.
    `commercial` is whose footer essential mail has where the law of a reader's country wants one (CASL 6(2));
    `own_link` is what every unsubscribe link begins with.
    """

    recipients: tuple[Address, ...]
    trace: Field
    date: datetime
    own_domains: frozenset[str] = frozenset()
    promotion: Promotion | None = None
    alphabet: Alphabet = Alphabet.UTF8
    is_utf8: bool = False
    dialects: Dialects = SILENT
    asks: bool = False
    commercial: Imprint | None = None
    own_link: str = ""

    @property
    def splits(self) -> bool:
        """True where each recipient's copy is a message of its own (UNS-31)."""
        return self.promotion is not None and len(self.recipients) > 1


class Link(NamedTuple):
    """Where one recipient unsubscribes: the https URL, and the mail address, "" where no mail is read."""

    url: str
    mailto: str = ""


class Stamped(NamedTuple):
    """A copy before it is signed: its fields from top to bottom, and its body in segments that copies share."""

    header: tuple[Field, ...]
    body: tuple[Segment, ...]

    def segments(self, signature: bytes) -> tuple[Segment, ...]:
        """Return the whole copy for the wire; the signature's fields stand on top (RFC 6376 §5.6)."""
        return (b"".join([signature, *[field.raw for field in self.header], b"\r\n"]), *self.body)


@dataclass(frozen=True, slots=True)
class Unstampable:
    """A message that cannot be made into copies: the enhanced status and the sentence that its submitter is owed."""

    enhanced: str
    sentence: str

    @property
    def reply(self) -> Reply:
        return Reply(554 if self.enhanced in ("5.6.0", "5.6.3") else 550, self.enhanced, f"content: {self.sentence}")


class _Named(NamedTuple):
    """A To or Cc that names recipients of the envelope: its place, and its entries with their broad keys."""

    place: int
    name: str
    entries: tuple[tuple[str, str], ...]


class _Promoted(NamedTuple):
    """What a promotional draft knows beyond the common: its list, and who must not be named to whom."""

    listed: tuple[Field, ...]
    mailto_first: bool
    envelope: frozenset[str]
    named: tuple[_Named, ...]


class _Bodies:
    """The bodies of a message's copies: one for each manner, and the one that has no footer."""

    def __init__(self, message: bytes, start: int, grounds: Sequence[Ground], asked: Sequence[Placement]) -> None:
        self._message = message
        self._start = start
        self._grounds = grounds
        self._made = dict[Manner, tuple[Segment | Slot, ...]]()
        self._asked = asked

    @cached_property
    def plain(self) -> tuple[Segment | Slot, ...]:
        """The body for whoever needs no footer."""
        return _pieces(self._message, self._start, self._asked)

    def of(self, manner: Manner) -> tuple[Segment | Slot, ...]:
        """Return the body for whoever is spoken to like this; what copies share is one."""
        known = self._made.get(manner)
        if known is None:
            placements = [one for ground in self._grounds for one in ground.placements(manner)]
            known = self._made[manner] = _pieces(self._message, self._start, placements)
        return known

    def trackers(self, manner: Manner) -> tuple[str, ...]:
        """Return the hosts that a copy does not report to, though the message asked for it."""
        return tuple(dict.fromkeys(host for ground in self._grounds for host in ground.trackers(manner)))


@dataclass(frozen=True, slots=True)
class Draft:
    """What all copies of a message have in common."""

    _trace: Field
    _kept: tuple[Field, ...]
    _dated: tuple[Field, ...]
    _needs_message_id: bool
    _bodies: _Bodies
    _promoted: _Promoted | None

    def copy_for(self, recipient: Address, link: Link, message_id: str, manner: Manner = PLAIN_MANNER) -> Stamped:
        """Make the promotional copy of one recipient.

        `message_id` ("<…@…>") is used where the message has none or is split. Raises `ValueError` if the message is
        not promotional, or if the link or the id cannot stand in a header.
        """
        if self._promoted is None:
            raise ValueError("only promotional copies are made one by one")
        listed = (_list_unsubscribe(link, self._promoted.mailto_first), _ONE_CLICK, *self._promoted.listed)
        kept = _addressed(self._kept, self._promoted, recipient)
        body = _filled(self._bodies.of(manner), link.url, link.mailto)
        return Stamped((self._trace, *listed, *self._identity(message_id), *kept), body)

    def shared_copy(self, message_id: str, url: str = "") -> Stamped:
        """Make the copy that all recipients of a message of another class share; the id is used where it has none.

        `url` is the link that a policy notice has room for. Raises `ValueError` where it lacks one, and for promotion,
        which never leaves without its recipient's own link.
        """
        body = self._bodies.plain
        if self._promoted or (not url and any(isinstance(piece, Slot) for piece in body)):
            raise ValueError("the copy needs its recipient's link")
        return Stamped((self._trace, *self._identity(message_id), *self._kept), _filled(body, url, ""))

    def commercial_copy(self, message_id: str, link: Link, manner: Manner) -> Stamped:
        """Make the copy of essential mail for one whose law takes it for commercial: with a footer (CASL 6(2))."""
        body = _filled(self._bodies.of(manner), link.url, link.mailto)
        return Stamped((self._trace, *self._identity(message_id), *self._kept), body)

    def trackers(self, manner: Manner) -> tuple[str, ...]:
        """Return the hosts that a copy does not report to, though the message asked for it (POL-16)."""
        return self._bodies.trackers(manner)

    def _identity(self, message_id: str) -> tuple[Field, ...]:
        if not self._needs_message_id:
            return self._dated
        if not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError("that is not a message id")
        return (make("Message-ID", message_id.encode("utf-8")), *self._dated)


def prepare(message: bytes, block: HeaderBlock, treatment: Treatment) -> Draft | Unstampable:
    """Decide once what every copy of a message, whose header `block` is, keeps, loses and gains.

    `Unstampable` (550 5.7.0) where promotion has no part that can carry the visible link, being sealed or unreadable;
    (554 5.6.0) where the lines break SMTP's rules and cannot be mended; (5.6.3, 5.6.7) where the next hop takes too few
    letters.
    """
    fit = fitted(message, treatment.dialects, treatment.alphabet, is_utf8=treatment.is_utf8)
    if isinstance(fit, Unstampable):
        return fit
    return _drafted(fit, block if fit is message else split(fit), treatment)


def fitted(
    message: bytes, dialects: Dialects = SILENT, alphabet: Alphabet = Alphabet.UTF8, *, is_utf8: bool = False
) -> bytes | Unstampable:
    """Return a message as SMTP and the next hop take it: a header of fields, no long lines, letters of this alphabet.

    Fields that are for us, by `dialects` too, do not leave, and may be long: compact JSON cannot be folded.
    `is_utf8` is True where the submitter declared SMTPUTF8. What fits already is returned as it is; `Unstampable` says
    why something cannot be made to (5.6.0, 5.6.3, 5.6.7).
    """
    try:
        message = with_regular_header(message)
        if has_long_line(message):
            message = mend(message, partial(_is_for_us, dialects=dialects))
        return written_in(alphabet, message, is_utf8=is_utf8)
    except Inexpressible as problem:
        return Unstampable(problem.enhanced, str(problem))
    except Malformed as problem:
        return Unstampable("5.6.0", str(problem))


def _drafted(message: bytes, block: HeaderBlock, treatment: Treatment) -> Draft | Unstampable:
    promotion = treatment.promotion
    root = parse(message, block)
    contents = texts(message, root) if promotion or treatment.commercial else {}
    kept = _ended(block.without(lambda field: _is_removed(field, treatment)))
    tool_url = submitted_url(block) if promotion else ""
    try:
        for field in block.fields if promotion else ():
            if field.name in _READ_BY_PEOPLE:
                refuse_links(decoded(field))
        grounds = _grounds(root, contents, treatment, tool_url) if contents else []
    except Malformed as problem:
        return Unstampable("5.6.0", str(problem))
    except Unfillable as placeholder:
        return Unstampable("5.6.0", f"there is nothing to put in the place of {placeholder}")
    except Tracked as problem:
        return Unstampable("5.7.0", str(problem))
    if crowded := [ground.part for ground in grounds if ground.is_crowded]:
        roomy = in_quoted_printable(message, crowded)
        return _drafted(roomy, split(roomy), treatment)
    if promotion and not any(ground.carries_link for ground in grounds):
        return _NO_LINK
    leak = _leak(contents.values(), kept, treatment, tool_url) if promotion else None
    if leak:
        return leak
    promoted = _promoted(promotion, treatment, kept) if promotion else None
    if promotion and promotion.refuses_others and promoted and promoted.named:
        return _NAMES_OTHERS
    names = {field.name for field in kept}
    asked = link_placements(message, block) if treatment.asks else ()
    return Draft(
        _trace=treatment.trace,
        _kept=kept,
        _dated=() if "date" in names else (make("Date", _date(treatment.date).encode("ascii")),),
        _needs_message_id="message-id" not in names,
        _bodies=_Bodies(message, block.body, grounds, asked),
        _promoted=promoted,
    )


def _grounds(root: Part, contents: Mapping[int, Content], treatment: Treatment, tool_url: str) -> list[Ground]:
    """Look at the texts that are shown, if anything can become of them, and for promotion at the others too."""
    terms = _terms(treatment, tool_url)
    looked_at = [(part, terms) for part in shown(root)]
    if terms.is_promotional and len(looked_at) < len(contents):
        looked_at += [(part, terms._replace(is_shown=False)) for part in unshown(root) if id(part) in contents]
        looked_at.sort(key=lambda one: one[0].start)
    return [ground for part, how in looked_at if (ground := survey(contents[id(part)], how))]


def _terms(treatment: Treatment, tool_url: str) -> Terms:
    """Return by what the parts of promotion, or of mail that is commercial by a reader's law, are looked at."""
    promotion = treatment.promotion
    if promotion is None:
        assert treatment.commercial is not None
        return Terms(treatment.commercial, treatment.commercial.company.owns, is_promotional=False)
    company = promotion.company
    return Terms(
        Imprint(company, promotion.template),
        *(company.owns, promotion.tracking, treatment.own_link.encode("ascii"), tool_url.encode("ascii")),
    )


def submitted_url(block: HeaderBlock) -> str:
    """Return where the tool that made a message would unsubscribe its reader, by its own List-Unsubscribe; "" for none.

    It is https; on loopback, http will do. White space within the brackets is folding (RFC 2369 §2), and encoded words
    are read too, which must not stand there: some mail libraries write a long field so.
    """
    listed = block.first("list-unsubscribe")
    found = _TOOL_URL.search("".join(decoded(listed).split())) if listed else None
    return found[1] if found and len(found[1]) <= LONGEST_TOOL_URL else ""


def _leak(
    contents: Iterable[Content], kept: Sequence[Field], treatment: Treatment, tool_url: str
) -> Unstampable | None:
    """Return why a message may not leave that tells foreign hosts who its recipients are (POL-06)."""
    assert treatment.promotion is not None
    found = exposed(contents, kept, treatment.promotion.company.owns, tool_url)
    told = next((told for one in treatment.recipients if (told := found.tells_of(one))), "")
    return _LEAKS[told] if told else None


def _promoted(promotion: Promotion, treatment: Treatment, kept: tuple[Field, ...]) -> _Promoted:
    envelope = frozenset(address.broad_key for address in treatment.recipients) if treatment.splits else frozenset()
    return _Promoted(_listed(promotion), promotion.mailto_first, envelope, tuple(_named(kept, envelope)))


def _is_for_us(field: Field, dialects: Dialects) -> bool:
    """HDR-01, CLS-02, DKIM-13: what is never relayed, whatever becomes of the message."""
    name = field.name
    if name.startswith(("list-", CONTROL_PREFIX)) or name in _NEVER_KEPT:
        return True
    return name in dialects.removed or name.startswith(dialects.removed_families)


def _is_removed(field: Field, treatment: Treatment) -> bool:
    """Return whether a message loses a field: what is for us, and what it is to get anew (DKIM-12)."""
    name = field.name
    if _is_for_us(field, treatment.dialects):
        return True
    if name == "message-id":
        return treatment.splits or not field.value
    if name == "dkim-signature":
        domain = _signing_domain(field)
        return treatment.promotion is not None or not domain or domain in treatment.own_domains
    return name == "date" and not field.value


def _signing_domain(field: Field) -> str:
    """Return who signed; "" where no verifier may accept the signature, by its form alone (RFC 6376 §3.2, §6.1.1)."""
    found = _TAG.findall(field.value) if _TAG_LIST.fullmatch(field.value) else []
    tags = {name: value.strip(b" \t") for name, value in found}
    times = [tags[name] for name in (b"t", b"x") if name in tags]
    if len(tags) < len(found) or not tags.keys() >= _NEEDED_TAGS or not all(time.isdigit() for time in times):
        return ""
    try:
        domain = tags[b"d"].decode("utf-8")
        return domain_key(domain) if _DOMAIN.fullmatch(domain) else ""
    except (Malformed, UnicodeDecodeError):
        return ""


def _ended(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Give the last line its CRLF where the message ended without one."""
    if not fields or fields[-1].raw.endswith(b"\r\n"):
        return fields
    return (*fields[:-1], Field(fields[-1].name, fields[-1].raw + b"\r\n"))


def _pieces(message: bytes, position: int, placements: Sequence[Placement]) -> tuple[Segment | Slot, ...]:
    """Cut the body at its placements; what a large message keeps stays where it is, and no copy costs it again."""
    source: Segment = memoryview(message) if len(message) > SHARED_FROM else message
    pieces = list[Segment | Slot]()
    for start, end, kept, slot in placements:
        pieces += (source[position:start], kept, slot if slot.holes else slot.fill("", ""))
        position = end
    ending = b"" if message.endswith(b"\r\n") or position == len(message) else b"\r\n"
    return tuple([piece for piece in (*pieces, source[position:], ending) if isinstance(piece, Slot) or len(piece)])


def _filled(body: Sequence[Segment | Slot], url: str, mailto: str) -> tuple[Segment, ...]:
    return tuple([piece.fill(url, mailto) if isinstance(piece, Slot) else piece for piece in body])


def _named(kept: Sequence[Field], envelope: frozenset[str]) -> Iterator[_Named]:
    """Find the To and Cc that name recipients of the envelope; one that cannot be read may name anyone."""
    for index, field in enumerate(kept):
        if envelope and field.name in ("to", "cc"):
            listed = _keys_of_entries(field)
            if listed is None or any(key in envelope for _, key in listed):
                yield _Named(index, field.name.title(), listed or ())


def _keys_of_entries(field: Field) -> tuple[tuple[str, str], ...] | None:
    try:
        return tuple((text, address.broad_key) for text, address in entries(field.value))
    except Malformed:
        return None


def _addressed(kept: tuple[Field, ...], promoted: _Promoted, recipient: Address) -> tuple[Field, ...]:
    """Return the kept fields without the names of other recipients of the envelope (UNS-32)."""
    if not promoted.named:
        return kept
    fields = list(kept)
    for at, name, listed in promoted.named:
        told = [text for text, key in listed if key not in promoted.envelope or key == recipient.broad_key]
        fields[at] = make(
            name, _FOLD.join(told or [recipient.ascii_text or recipient.text]).encode("utf-8", "surrogateescape")
        )
    return tuple(fields)


def _list_unsubscribe(link: Link, mailto_first: bool) -> Field:
    """RFC 2369 §3.2, RFC 8058 §3.1: written as it stands, never encoded, folded nowhere but at the comma."""
    if not _URL.fullmatch(link.url) or (link.mailto and not _MAIL_ADDRESS.fullmatch(link.mailto)):
        raise ValueError("the link cannot stand in List-Unsubscribe")
    uris = [f"<{link.url}>", *([f"<mailto:{link.mailto}?subject=unsubscribe>"] if link.mailto else [])]
    value = _FOLD.join(reversed(uris) if mailto_first else uris)
    if max(map(len, uris)) > LINE_LIMIT - len("List-Unsubscribe: ,"):
        raise ValueError("the link is too long for List-Unsubscribe")
    return make("List-Unsubscribe", value.encode("ascii"))


@lru_cache(maxsize=256)
def _listed(promotion: Promotion) -> tuple[Field, ...]:
    """Return what the header says of the list, the same in all of its copies (RFC 2919, RFC 2369 §3.1, §3.4, §3.5)."""
    company = promotion.company
    told = (("List-Help", company.list_help), ("List-Owner", company.list_owner))
    links = [make(name, f"<{url}>".encode("ascii")) for name, url in told if url]
    closed = [make("List-Post", b"NO")] if company.refuses_posts else []
    return (_list_id(promotion), *links, *closed)


def _list_id(promotion: Promotion) -> Field:
    phrase = _phrase(promotion.list_name)
    gap = "\r\n " if phrase.startswith("=?") else " "
    return make("List-Id", f"{phrase}{gap}<{promotion.list_id}>".strip().encode("ascii"))


def _phrase(text: str) -> str:
    """Write a text as a phrase: plain words, a quoted string, or encoded words (RFC 5322 §3.2.5, RFC 2047 §5)."""
    text = one_line(text)[:_PHRASE_LIMIT]
    if _PLAIN_WORDS.fullmatch(text):
        return text
    if text.isascii():
        return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"' if text else ""
    runs = [text[at : at + _ENCODED_RUN] for at in range(0, len(text), _ENCODED_RUN)]
    words = [base64.b64encode(run.encode("utf-8", "replace")).decode("ascii") for run in runs]
    return "\r\n ".join(f"=?utf-8?b?{word}?=" for word in words)


def received(peer: Peer, by: str, queue_id: str, at: datetime, recipient: Address | None = None) -> Field:
    """Build the trace field of a submission (RFC 5321 §4.4, RFC 3848).

    `recipient` is given only where the envelope has no other (§7.6: `for` must not tell who else got it).
    """
    name = peer.helo if _HOST.fullmatch(peer.helo) else "unknown"
    literal = f"IPv6:{peer.ip}" if ":" in peer.ip else peer.ip
    tls = f" ({peer.tls})" if peer.tls else ""
    clauses = [f"from {name} ([{literal}])", f"by {by} with {peer.protocol}{tls} id {queue_id}"]
    if recipient:
        clauses.append(f"for <{recipient.ascii_text or recipient}>")
    value = "\r\n\t".join(clauses) + ";\r\n\t" + _date(at)
    return make("Received", value.encode("utf-8", "surrogateescape"))


def _date(moment: datetime) -> str:
    return _date_of_second(moment.replace(microsecond=0), moment.utcoffset())


@lru_cache(maxsize=64)
def _date_of_second(second: datetime, _offset: timedelta | None) -> str:
    """Write a date (RFC 5322 §3.3) with its numeric offset; many messages share a second."""
    return format_datetime(second)


_LEAKS: Final = {
    "address": Unstampable(
        "5.7.0", "a link tells a host that is not the company's own (company.hosts) the address of a recipient"
    ),
    "digest": Unstampable(
        "5.7.0", "a link tells a host that is not the company's own (company.hosts) a digest of a recipient's address"
    ),
}
_NO_LINK = Unstampable("5.7.0", "no part of this promotional message can carry its unsubscribe link")
_NAMES_OTHERS = Unstampable("5.7.0", "its To or Cc names recipients to others of the same message")
_FOLD = ",\r\n "
_PHRASE_LIMIT = 100
_ENCODED_RUN = 9
"""Characters of at most four octets whose encoded word fits a line of 76 with the field's name (RFC 2047 §2)."""

_PLAIN_WORDS = re.compile(r"[A-Za-z0-9-]+(?: [A-Za-z0-9-]+)*")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LIST_ID = re.compile(rf"{_ATOM}(?:\.{_ATOM})+")
_MESSAGE_ID = re.compile(r"<[^\s\x00-\x20<>\x7f]{1,300}@[^\s\x00-\x20<>\x7f]{1,300}>")
_URL = re.compile(r"https://[A-Za-z0-9._~!$&'()*+;=:@/?%#\[\]-]+")
_TOOL_URL = re.compile(
    r"<(https://[A-Za-z0-9._~!$&'()*+;=:@/?%#\[\],-]+"
    r"|http://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?"
    r"(?:[/?][A-Za-z0-9._~!$&'()*+;=:@/?%#,-]*)?)>"
)
_MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+")
_HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")
_TAG = re.compile(rb"[ \t]*+([A-Za-z][A-Za-z0-9_]*+)[ \t]*+=([ \t!-:<-~\x80-\xff]*+)")
_TAG_LIST = re.compile(rb"%b(?:;%b)*+(?:;[ \t]*+)?" % (_TAG.pattern, _TAG.pattern))
_NEEDED_TAGS: Final = frozenset({b"v", b"a", b"b", b"bh", b"d", b"h", b"s"})
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)+")
