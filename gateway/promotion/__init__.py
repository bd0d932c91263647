"""Does a message read as promotion, whatever its stream calls it? Its words in, findings with their evidence out.

The rule that must not be broken: the same octets give the same finding by the same rules anywhere (CLS-06), and the
finding names the signals that it rests on. What is read is the subject and the body as a reader sees them; the
signals are data. What is done about a finding is `policy`'s to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import getaddresses
from functools import lru_cache
from typing import Final

from gateway.headers import Field, HeaderBlock
from gateway.model import Advertising, Finding
from gateway.promotion.signals import Find, Kind, Signals, Thresholds, our_signals, words_of
from gateway.prose import bodies_of, decoded, is_reply, subject_of

__all__ = ["Reading", "claims_in", "crowded_sender", "read", "unended_claim"]

_OF_PROMOTION: Final = frozenset({Kind.OFFER, Kind.LIST})
_UNENDED: Final = "its subject makes a claim that ends, and Assent-Campaign-Ends does not say when (CLS-09)"
_MORE_THAN_A_NAME: Final = "its From names more than the sender (CLS-10)"
_SHARED_WORDS: Final = 3
"""Words of a subject in a row from which on finding them in the From is no accident; all of a shorter one."""

_SHORTEST_NAME: Final = 3
_REMEMBERED: Final = 256
"""Fields of each kind that are remembered: a campaign has the same in every message."""

_READ: Final = 2000
"""Octets of such a field that are read."""

_ADDRESSES: Final = re.compile(rb"<[^<>]*>")
_MARKS_OF_OWNERS: Final = frozenset("©®™℠")
_FURTHER_MARKS: Final = frozenset("‼⁉√")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a message reads as by each measure that the law of some country takes; None for no promotion."""

    primary: Finding | None
    significant: Finding | None
    any: Finding | None
    survey: Finding | None

    def under(self, advertising: Advertising, surveys: bool) -> Finding | None:
        """Return what makes the message promotion under rules that measure so; a survey counts where they say it."""
        found = self.primary
        if found is None and advertising is not Advertising.PRIMARY:
            found = self.significant if advertising is Advertising.SIGNIFICANT else self.any
        return found or (self.survey if surveys else None)


def read(message: bytes, block: HeaderBlock, known: Signals | None = None) -> Reading:
    """Read a whole message, whose header block has been split."""
    known = known or our_signals()
    limits = known.thresholds
    bodies = [known.find(words_of(one)) for one in bodies_of(message, block)]
    told = _Told(known.version)
    everything = list({one.signal.id: one for found in bodies for one in found}.values())
    subject = [] if is_reply(block) else known.find(words_of(subject_of(block)))
    offers, surveys = (
        [one for one in (*subject, *everything) if one.signal.kind is kind] for kind in (Kind.OFFER, Kind.SURVEY)
    )
    return Reading(
        primary=_by_subject(subject, limits, told)
        or next(filter(None, (_by_body(found, subject, limits, told) for found in bodies)), None),
        significant=told.of("it holds significant promotional material", offers, limits.significant),
        any=told.of("promotion is one of its purposes", offers, limits.any),
        survey=told.of("it asks for an opinion", surveys, 1),
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """Makes findings by one version of the signals."""

    version: str

    def of(self, sentence: str, finds: Iterable[Find], weight: int) -> Finding | None:
        """Return the finding where the finds weigh enough; None where they do not."""
        finds = {one.signal.id: one for one in finds}.values()
        if _weight(finds) < weight:
            return None
        return Finding(sentence, tuple(one.signal.id for one in finds), self.version)


def _by_subject(subject: Sequence[Find], limits: Thresholds, told: _Told) -> Finding | None:
    """16 CFR 316.3(a)(2)(i): the subject would lead a reasonable recipient to conclude that it is an advertisement."""
    return told.of(
        "its subject reads as promotion", (one for one in subject if one.signal.kind is Kind.OFFER), limits.subject
    )


def _by_body(found: Sequence[Find], subject: Sequence[Find], limits: Thresholds, told: _Told) -> Finding | None:
    """16 CFR 316.3(a)(2)(ii): what is transactional does not stand at the beginning of the body.

    It does where it weighs enough before any offers do; where it does not, all that speaks for promotion counts, in
    the subject too.
    """
    offered = transacted = 0
    for one in found:
        if one.at >= limits.beginning or offered >= limits.body:
            break
        offered += one.signal.weight * (one.signal.kind is Kind.OFFER)
        transacted += one.signal.weight * (one.signal.kind is Kind.TRANSACTION)
        if transacted >= limits.transaction:
            return None
    sold = [one for one in (*subject, *found) if one.signal.kind in _OF_PROMOTION]
    return told.of("its body does not begin with anything transactional", sold, limits.body)


def _weight(finds: Iterable[Find]) -> int:
    return sum(one.signal.weight for one in finds)


# what promotion itself must not claim


def unended_claim(block: HeaderBlock) -> Finding | None:
    """Return what is to be said of a subject whose claim ends, where nothing says when (CLS-09); None for none."""
    claims = claims_in(block)
    return Finding(_UNENDED, claims, our_signals().version) if claims else None


def claims_in(block: HeaderBlock) -> tuple[str, ...]:
    """Return the signals in a subject that hold on certain days only, such as a discount."""
    subject = _first(block, "subject")
    return _claims_of(subject) if subject else ()


def _first(block: HeaderBlock, name: str) -> Field | None:
    """Return a field as far as it is read, so that what is remembered stays small."""
    field = block.first(name)
    return Field(name, field.raw[:_READ]) if field and len(field.raw) > _READ else field


@lru_cache(maxsize=_REMEMBERED)
def _claims_of(subject: Field) -> tuple[str, ...]:
    return tuple(one.signal.id for one in our_signals().find(_words_of(subject)) if one.signal.is_claim)


def crowded_sender(block: HeaderBlock) -> Finding | None:
    """Return what else than the sender's name stands in the From: the subject, the recipient's name, marks (CLS-10)."""
    sender, subject, to = (_first(block, name) for name in ("from", "subject", "to"))
    if sender is None or not _name_of(sender):
        return None
    signs = _signs_of(sender, subject)
    if to is not None and b"<" in to.raw and _holds_name_of(sender, to):
        signs = (*signs, "from/recipient")
    return Finding(_MORE_THAN_A_NAME, signs, our_signals().version) if signs else None


@lru_cache(maxsize=_REMEMBERED)
def _signs_of(sender: Field, subject: Field | None) -> tuple[str, ...]:
    signs = {
        "from/subject": subject is not None and _shares(words_of(_name_of(sender)), _words_of(subject)),
        "from/marks": any(map(_is_mark, _name_of(sender))),
    }
    return tuple(sign for sign, stands in signs.items() if stands)


@lru_cache(maxsize=_REMEMBERED)
def _words_of(field: Field) -> tuple[str, ...]:
    return tuple(words_of(decoded(field)))


@lru_cache(maxsize=_REMEMBERED)
def _name_of(sender: Field) -> str:
    """Return the name that a From shows; "" for an address alone."""
    return next((name for name, _ in getaddresses([decoded(sender)])), "")


def _holds_name_of(sender: Field, to: Field) -> bool:
    """True where a sender's name holds a recipient's first name, unless that is in the sender's address as well."""
    firsts, plain = _possible_firsts(sender), _ADDRESSES.sub(b"", to.raw).lower()
    if plain.isascii() and b"=?" not in plain and not any(first.encode() in plain for first in firsts):
        return False
    return any(next(iter(words_of(name)), "") in firsts for name, _ in getaddresses([decoded(to)]))


@lru_cache(maxsize=_REMEMBERED)
def _possible_firsts(sender: Field) -> tuple[str, ...]:
    """Return the words of a sender's name that would be a recipient's if theirs began so."""
    said = sender.raw.partition(b"<")[2].lower()
    words = words_of(_name_of(sender))
    return tuple(one for one in words if len(one) >= _SHORTEST_NAME and one.encode() not in said)


def _shares(words: Sequence[str], subject: Sequence[str]) -> bool:
    length = min(_SHARED_WORDS, len(subject))
    if length == 0 or (length == 1 and len(subject[0]) < _SHORTEST_NAME):
        return False
    said = set(_runs(words, length))
    return any(run in said for run in _runs(subject, length))


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[at : at + length]) for at in range(len(words) - length + 1))


def _is_mark(letter: str) -> bool:
    """True for an emoji or another sign that draws the eye; an owner's mark belongs to a name."""
    is_symbol = unicodedata.category(letter) == "So" and letter not in _MARKS_OF_OWNERS
    return is_symbol or letter in _FURTHER_MARKS
