"""Which class, stream and topic does a message have, and on what evidence?

The message may choose among what its login has (CLS-01): by `Assent-Stream` and `Assent-Topic`, by what it says in
another system's words (`dialects`), or else by its From. No match, or more than one, means the strictest choice. A
header can make the treatment stricter, never looser, and what the login does not have is refused. Unknown means
promotional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from gateway.address import Address
from gateway.dialects import ESSENTIAL, NOTHING_ASKED, PROMOTIONAL, Asked, Claim, Meaning, printable
from gateway.errors import Malformed
from gateway.headers import HeaderBlock, mailboxes
from gateway.model import Action, MessageClass, PolicyNotice, Purpose, Reason, Stream, Topic

STRICTEST_FIRST = (
    MessageClass.PROMOTIONAL,
    MessageClass.CONFIRMATION,
    MessageClass.PRODUCT,
    MessageClass.ACCOUNT,
    MessageClass.REQUESTED,
    MessageClass.POLICY_NOTICE,
    MessageClass.BREACH_NOTICE,
    MessageClass.SYSTEM,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a message turned out to be. Every purpose must allow a recipient: more than one means it left that open."""

    stream: Stream
    message_class: MessageClass
    purposes: tuple[Purpose, ...]

    @property
    def topic(self) -> Topic | None:
        """The one topic of the message; None where it has none, or left it open."""
        return self.purposes[0].topic if len(self.purposes) == 1 else None

    def about(self, notice: PolicyNotice) -> Choice:
        """Return the same choice of a message that turned out to be this notice."""
        return replace(self, purposes=tuple(replace(one, notice=notice) for one in self.purposes))


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The message cannot be what it claims, or go on as it is: the slug, the enhanced status, one sentence.

    A status of class 4 says that it may be able to later.
    """

    reason: Reason
    enhanced: str
    sentence: str

    @property
    def text(self) -> str:
        """What a reply says of it, after the status."""
        return f"{self.reason}: {self.sentence}"

    @property
    def action(self) -> Action:
        return Action.DEFER if self.enhanced.startswith("4") else Action.REFUSE


def purposes_of(streams: Sequence[Stream], topics: Mapping[str, Topic]) -> tuple[Purpose, ...]:
    """Return everything that a login's next message may turn out to be, for the decision at RCPT."""
    return tuple(purpose for stream in streams for purpose in _purposes(stream, stream.message_class, topics))


class Unsaid(NamedTuple):
    """What a question about a stream's next message leaves out, or says wrongly: the field, and one sentence."""

    field: str
    sentence: str


def purposes_asked(
    stream: Stream,
    topics: Mapping[str, Topic],
    published: Sequence[str],
    *,
    topic: str = "",
    product: str = "",
    policy_version: str = "",
) -> Sequence[Purpose] | Unsaid:
    """Return what a message of a stream would be sent for that says so much of itself, as `classify` finds it out.

    `published` are the versions of the privacy policy.
    """
    if topic and topic not in stream.topics:
        return Unsaid(
            "topic", f"stream {stream.name} has no topic {topic}; it has {', '.join(stream.topics) or 'none'}"
        )
    if stream.is_promotional:
        return [stream.promotes(topics[slug]) for slug in ([topic] if topic else stream.topics)]
    if stream.message_class is MessageClass.PRODUCT:
        named = product.strip().lower()
        if named and stream.product not in ("", named):
            return Unsaid("product", f"stream {stream.name} is about {stream.product}")
        if not (named or stream.product):
            return Unsaid("product", f"say what product mail of stream {stream.name} would be about")
        return [Purpose(stream.message_class, product=named or stream.product)]
    if stream.message_class is MessageClass.POLICY_NOTICE:
        if policy_version not in published:
            known = f"published are {', '.join(published)}" if published else "none is published"
            return Unsaid("policy_version", f"say which version of the policy the notice would be about; {known}")
        return [Purpose(stream.message_class, notice=PolicyNotice(policy_version))]
    return [Purpose(stream.message_class)]


def classify(
    block: HeaderBlock, streams: Sequence[Stream], topics: Mapping[str, Topic], asked: Asked = NOTHING_ASKED
) -> Choice | Mismatch:
    """Choose among a login's streams and topics by what the message says of itself, and `asked` in others' words."""
    authors = _authors(block)
    if isinstance(authors, Mismatch):
        return authors
    usable = [stream for stream in streams if all(_may_use(stream, author) for author in authors)]
    if not usable:
        return _mismatch("5.7.1", "the From address is not one that this login may use")
    named = _control(block, "assent-stream")
    if named:
        usable = [stream for stream in usable if stream.name == named]
        if not usable:
            return _mismatch("5.7.0", "the login does not have this stream for this From address")
    told = _as_told(usable, topics, asked) if asked.claims else _Told(usable)
    choice = told if isinstance(told, Mismatch) else _narrowed(block, told, topics)
    if len(authors) > 1 and isinstance(choice, Choice) and choice.message_class is MessageClass.PROMOTIONAL:
        return _mismatch("5.7.1", "promotional mail has one author in its From, not several")
    return choice


class _Told(NamedTuple):
    """What other systems' words leave of a login's streams, and the topics (slugs) that they name."""

    usable: list[Stream]
    topics: frozenset[str] = frozenset()
    is_promotional: bool = False


def _as_told(usable: list[Stream], topics: Mapping[str, Topic], asked: Asked) -> _Told | Mismatch:
    """Narrow the streams to those whose class, name or topic a message gives in another system's words.

    Of several that are named all are left, and all must allow a recipient.
    """
    classes = {claim.value for claim in asked.of(Meaning.CLASS)}
    if classes == {ESSENTIAL}:
        usable = [stream for stream in usable if not stream.is_promotional]
    if not usable:
        where = asked.of(Meaning.CLASS)[0].where
        return _mismatch("5.7.0", f"{where} calls it essential, and the login has no such mail for this From address")
    named = _named(_Told(usable), asked.of(Meaning.NAMES), topics)
    for claim in asked.of(Meaning.NAMES):
        if not _is_met(claim, named, topics):
            return _not_had(claim)
    hinted = _named(named, asked.of(Meaning.HINTS), topics)
    return _Told(hinted.usable, named.topics or hinted.topics, PROMOTIONAL in classes)


def _named(told: _Told, claims: Sequence[Claim], topics: Mapping[str, Topic]) -> _Told:
    """Return the streams of which a claim gives the name, or all, and those of their topics that one names."""
    by_name = [one for one in told.usable if any(claim.is_met_by(one.name, one.also_called) for claim in claims)]
    usable = by_name or told.usable
    slugs = {slug for one in usable for slug in one.topics}
    met = {slug for slug in slugs if any(claim.is_met_by(slug, topics[slug].also_called) for claim in claims)}
    return _Told(usable, frozenset(met))


def _is_met(claim: Claim, told: _Told, topics: Mapping[str, Topic]) -> bool:
    return any(claim.is_met_by(one.name, one.also_called) for one in told.usable) or any(
        claim.is_met_by(slug, topics[slug].also_called) for slug in told.topics
    )


def _not_had(claim: Claim) -> Mismatch:
    name = printable(f"{claim.vendor}:{claim.value}")
    sentence = f'{claim.where} names no topic or stream that the login has for this From address (also_called "{name}")'
    return Mismatch(Reason.UNKNOWN_TOPIC, "5.7.0", sentence)


def _narrowed(block: HeaderBlock, told: _Told, topics: Mapping[str, Topic]) -> Choice | Mismatch:
    usable, declared = told.usable, _declared_class(block)
    if isinstance(declared, Mismatch):
        return declared
    if told.is_promotional:
        declared = MessageClass.PROMOTIONAL
    topic = _control(block, "assent-topic")
    if topic and not any(topic in stream.topics for stream in usable):
        return Mismatch(Reason.UNKNOWN_TOPIC, "5.7.0", "the login does not have this topic for this From address")
    chosen = told.topics | {topic} if topic else told.topics
    if chosen:
        usable = [stream for stream in usable if not chosen.isdisjoint(stream.topics)]
    stream = min(usable, key=lambda one: (declared is not one.message_class, _strictness(one.message_class)))
    message_class = declared or stream.message_class
    if _strictness(message_class) > _strictness(stream.message_class):
        return _mismatch("5.7.0", "the login does not have this class for this From address")
    if message_class is MessageClass.PRODUCT:
        return _about_product(block, stream)
    as_strict = [one for one in usable if one.message_class is stream.message_class]
    purposes = tuple(dict.fromkeys(each for one in as_strict for each in _purposes(one, message_class, topics)))
    if chosen:
        purposes = tuple(one for one in purposes if one.topic is None or one.topic.slug in chosen)
    return Choice(stream, message_class, purposes)


def _about_product(block: HeaderBlock, stream: Stream) -> Choice | Mismatch:
    """Product mail names a product that its recipients must own, by its stream or by itself (POL-04)."""
    named = _control(block, "assent-product")
    if named and stream.product not in ("", named):
        return _mismatch("5.7.0", "the stream is about another product")
    product = named or stream.product
    if not product:
        return _mismatch("5.7.0", "a product message names its product in Assent-Product")
    return Choice(stream, MessageClass.PRODUCT, (Purpose(MessageClass.PRODUCT, product=product),))


def _purposes(stream: Stream, message_class: MessageClass, topics: Mapping[str, Topic]) -> tuple[Purpose, ...]:
    if message_class is MessageClass.PRODUCT:
        return (Purpose(message_class, product=stream.product),)
    if message_class is not MessageClass.PROMOTIONAL:
        return (Purpose(message_class),)
    of_topics = (stream.promotes(topics[slug]) for slug in stream.topics)
    return tuple(of_topics) or (Purpose(message_class),)


def _authors(block: HeaderBlock) -> list[Address] | Mismatch:
    field = block.first("from")
    if field is None:
        return _mismatch("5.7.1", "the message has no From address")
    try:
        return mailboxes(field.value) or _mismatch("5.7.1", "the message has no From address")
    except Malformed:
        return _mismatch("5.7.1", "the From address cannot be read")


def _may_use(stream: Stream, author: Address) -> bool:
    return matches_any(author, stream.senders)


def matches_any(address: Address, patterns: Sequence[str]) -> bool:
    """True where an address is one of a stream's `from` or `return_paths` patterns (`*@news.example.com`)."""
    return _matches_any(address.key, tuple(patterns))


@lru_cache(maxsize=4096)
def _matches_any(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern.lower()) for pattern in patterns)


def _declared_class(block: HeaderBlock) -> MessageClass | Mismatch | None:
    declared = _control(block, "assent-class")
    if not declared:
        return None
    try:
        return MessageClass(declared)
    except ValueError:
        return _mismatch("5.7.0", "there is no such class")


def _control(block: HeaderBlock, name: str) -> str:
    """Return a control header's value; where it stands more than once and differs, one that nothing matches."""
    fields = block.all(name)
    if not fields:
        return ""
    values = {field.value.lower().decode("utf-8", "replace") for field in fields}
    return values.pop() if len(values) == 1 else "\0" * bool(values)


def _strictness(message_class: MessageClass) -> int:
    return STRICTEST_FIRST.index(message_class)


def _mismatch(enhanced: str, sentence: str) -> Mismatch:
    return Mismatch(Reason.CLASS_MISMATCH, enhanced, sentence)
