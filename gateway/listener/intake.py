"""What is handed in, whoever it goes to: its class, stream and topic, or why it cannot be what it says (RFC 6409).

The rule that must not be broken: reading decides and changes nothing, so that a draft is read as a message is, and
without a trace. Who may be sent to, what is kept and what is answered are for `submission`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from gateway import headers
from gateway.address import Address
from gateway.classify import Choice, Mismatch, classify, purposes_of
from gateway.copies import CopyMaker
from gateway.decisions import Subject, message_id_digest, subject_of
from gateway.dialects import Asked, Dialects, Unsupported
from gateway.errors import Malformed, StoreUnavailable
from gateway.ids import Ids, spool_text
from gateway.law import Law
from gateway.listener.loops import loop_refusal
from gateway.listener.notices import marketing_in_notice, read_notice
from gateway.listener.protocol import Session
from gateway.model import Login, MessageClass, Peer, Purpose, Reason, Recipient, Reply, SpooledMessage, Stream, Topic
from gateway.policy import needs_facts
from gateway.pretence import end_of_campaign, feigned_reply, over
from gateway.promotion import claims_in
from gateway.stamp import submitted_url
from gateway.store import Facts, LoginRecord, Now, Orders, Store

_WAITS: Final = Reply(451, "4.3.0", "consent cannot be checked at this moment, try again later")
_SMTPUTF8: Final = "SMTPUTF8"
_LONGEST_CAMPAIGN: Final = 200
"""Characters of a campaign's name that are kept."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class House:
    """What the company's configuration says about mail that comes in."""

    hostname: str
    max_hops: int
    max_recipients: int
    help_url: str
    streams: Mapping[str, Stream]
    topics: Mapping[str, Topic]
    law: Law
    dialects: Dialects

    def visit(self, record: LoginRecord) -> Visit:
        """Return what is known of somebody who has just logged in."""
        streams = tuple(self.streams[name] for name in record.login.streams if name in self.streams)
        purposes = purposes_of(streams, self.topics)
        has_essentials = not all(needs_facts(one.message_class) for one in purposes)
        return Visit(record, streams, purposes, has_essentials, has_contact=record.login.reader is not None)


@dataclass(slots=True)
class Visit:
    """What is known of one connection's login, and of the transaction under way."""

    record: LoginRecord
    streams: tuple[Stream, ...]
    purposes: tuple[Purpose, ...]
    has_essentials: bool
    facts: dict[str, Facts] = field(default_factory=dict)
    orders: Orders | None = None
    is_over: bool = False
    is_paused: bool = False
    has_contact: bool = False
    is_preflight: bool = False

    @property
    def login(self) -> Login:
        return self.record.login

    def begin(self) -> None:
        """Forget the transaction before."""
        self.facts, self.is_preflight = {}, False

    def subject(self, message_id: str = "") -> Subject:
        """Return how the decision log calls a message of which no more is known than what all of the login's streams
        have in common, and its Message-ID's digest.
        """
        streams = {stream.name for stream in self.streams}
        classes = {purpose.message_class for purpose in self.purposes}
        topics = {purpose.topic.slug for purpose in self.purposes if purpose.topic}
        return Subject("", message_id, self.login.name, _only(streams) or "", _only(classes), _only(topics) or "")

    def is_told_by_summary(self, *streams: Stream) -> bool:
        """True where refusals of one of the streams are answered 250; never where nobody could be told."""
        return self.has_contact and any(stream.reports_refusals for stream in streams)

    def heed(self, orders: Orders) -> None:
        """Take in what operators have ordered since: a login that was changed, streams that were paused."""
        if orders is self.orders:
            return
        self.orders = orders
        now = orders.logins.get(self.login.name)
        self.is_over = now is None or now.disabled or now.secret != self.record.secret
        self.is_paused = bool(self.streams) and all(orders.is_paused(stream.name) for stream in self.streams)


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that can be what it says: what it turned out to be, and how the decision log calls it."""

    block: headers.HeaderBlock
    asked: Asked
    choice: Choice
    message: SpooledMessage
    subject: Subject


Objection = Mismatch | Reply
"""Why a message is not taken: for good and with a decision's line to come, or an answer as it stands."""


class Intake:
    """Reads what logins hand in, by the company's configuration."""

    def __init__(self, house: House, store: Store, copies: CopyMaker, ids: Ids, now: Now) -> None:
        self._house = house
        self._store = store
        self._copies = copies
        self._ids = ids
        self._now = now

    async def read(self, visit: Visit, session: Session, envelope: Any) -> Taken | Objection:
        """Read a whole message; recipients that its header names are added to the envelope."""
        block = headers.split(envelope.content)
        asked = self._asked(block)
        if not isinstance(asked, Asked):
            return asked
        choice = await self._choice(block, asked, visit, envelope)
        if not isinstance(choice, Choice):
            return choice
        ends = end_of_campaign(block) if choice.message_class is MessageClass.PROMOTIONAL else None
        message = self._message(visit, session, envelope, choice, _campaign(block, asked), ends)
        if visit.login.tool_hosts and choice.message_class is MessageClass.PROMOTIONAL:
            message = replace(message, tool_url=_tool_url(visit.login, block, message.recipients))
        return Taken(block, asked, choice, message, _subject(message, block, asked))

    async def facts(self, visit: Visit, addresses: Sequence[Address]) -> list[Facts]:
        """Look people up; without the people store, essential mail goes on and knows nobody (SMTP-22)."""
        try:
            return await self._store.people.facts(addresses)
        except StoreUnavailable:
            if not visit.has_essentials:
                raise
            return [self._store.people.unread(one) for one in addresses]

    def _asked(self, block: headers.HeaderBlock) -> Asked | Objection:
        """Return what a header asks for in other systems' words; an objection where it can be no message's."""
        repeated = headers.repeated_singletons(block)
        if repeated:
            sentence = f"the header has more than one {repeated[0]} field, RFC 5322 section 3.6"
            return Mismatch(Reason.CONTENT, "5.6.0", sentence)
        asked = self._house.dialects.read(block)
        if isinstance(asked, Unsupported):
            return Mismatch(Reason.UNSUPPORTED_HEADER, "5.6.0", asked.sentence)
        return loop_refusal(block, self._house.hostname, self._house.max_hops) or asked

    async def _choice(
        self, block: headers.HeaderBlock, asked: Asked, visit: Visit, envelope: Any
    ) -> Choice | Objection:
        """Return what a message is, or the objection to what it cannot be, whoever it goes to."""
        choice = classify(block, visit.streams, self._house.topics, asked)
        if isinstance(choice, Mismatch):
            return choice
        objection = await self._heed(asked, choice, visit, envelope) if asked.claims else None
        if objection:
            return objection
        content = envelope.content
        if choice.message_class is MessageClass.POLICY_NOTICE:
            published = self._store.people.orders().policies
            notice = read_notice(content, block, len(envelope.rcpt_tos), published)
            if isinstance(notice, Mismatch):
                return notice
            choice = choice.about(notice)
        elif choice.message_class is MessageClass.BREACH_NOTICE and (
            unfit := marketing_in_notice(content, block, "breach")
        ):
            return unfit
        return self._objection_to_class(choice, visit, envelope, block) or choice

    def _objection_to_class(
        self, choice: Choice, visit: Visit, envelope: Any, block: headers.HeaderBlock
    ) -> Objection | None:
        """Return why a message cannot be what its class says, whoever it goes to; None where it can."""
        if needs_facts(choice.message_class) and self._cannot_decide(visit):
            return _WAITS
        if choice.message_class is not MessageClass.PROMOTIONAL:
            return None
        if not envelope.mail_from:
            return Mismatch(Reason.CLASS_MISMATCH, "5.7.1", "promotional mail needs a reverse path")
        only_recorded = choice.stream.in_shadow(self._now())
        try:
            pretence = ("" if only_recorded else feigned_reply(block)) or over(end_of_campaign(block), self._now())
        except Malformed as problem:
            pretence = str(problem)
        if pretence:
            return Mismatch(Reason.CONTENT, "5.7.0", pretence)
        return self._copies.objection(block)

    async def _heed(self, asked: Asked, choice: Choice, visit: Visit, envelope: Any) -> Objection | None:
        """Do what a message asks for in another system's words, or return the objection.

        A "no" is passed over for nobody; who may not be stopped by one in any case may ask for it.
        """
        if asked.bypasses and needs_facts(choice.message_class):
            sentence = f"{asked.bypasses[0]} asks to pass over what people have said, which only essential mail may"
            return Mismatch(Reason.CLASS_MISMATCH, "5.7.0", sentence)
        named = [one for one in asked.recipients if one.text not in visit.facts]
        if len(envelope.rcpt_tos) + len(named) > self._house.max_recipients:
            sentence = f"its header names more recipients than the {self._house.max_recipients} that a message may have"
            return Mismatch(Reason.UNSUPPORTED_HEADER, "5.6.0", sentence)
        if not all(one.text.isascii() for one in named) and _SMTPUTF8 not in envelope.mail_options:
            return Mismatch(Reason.UNSUPPORTED_HEADER, "5.6.0", "a recipient in its header needs SMTPUTF8")
        visit.facts |= {one.text: facts for one, facts in zip(named, await self.facts(visit, named), strict=True)}
        envelope.rcpt_tos += [Recipient(one) for one in named]
        return None

    def _cannot_decide(self, visit: Visit) -> bool:
        """True while a "no" may be unknown, or the time may be wrong: then only essential mail moves (SMTP-22)."""
        return self._store.condition.promotion_waits or not all(one.is_read for one in visit.facts.values())

    def _message(
        self,
        visit: Visit,
        session: Session,
        envelope: Any,
        choice: Choice,
        campaign: str,
        ends: datetime | None,
    ) -> SpooledMessage:
        return SpooledMessage(
            id=self._ids.spool(),
            login=visit.login.name,
            stream=choice.stream.name,
            message_class=choice.message_class,
            topics=tuple(one.topic.slug for one in choice.purposes if one.topic),
            reverse_path=envelope.mail_from,
            options=tuple(envelope.mail_options),
            peer=_peer(session),
            received_at=self._now(),
            recipients=each_once(envelope.rcpt_tos),
            message=envelope.content,
            campaign=campaign,
            product=choice.purposes[0].product if choice.purposes else "",
            notice=choice.purposes[0].notice if choice.purposes else None,
            ends=ends,
        )


def each_once(recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
    """Return recipients without those who were named before: nobody gets a message twice for being listed twice."""
    first: dict[tuple[str, str], Recipient] = {}
    for one in recipients:
        first.setdefault((one.address.local, one.address.key.rpartition("@")[2]), one)
    return tuple(first.values())


def _tool_url(login: Login, block: headers.HeaderBlock, recipients: Sequence[Recipient]) -> str:
    """Return where the login's tool wants to hear of the one recipient's "no"; "" for several, whose it is nobody's."""
    url = submitted_url(block) if len(recipients) == 1 else ""
    try:
        return url if url and urlsplit(url).hostname in login.tool_hosts else ""
    except ValueError:
        return ""


def message_id_in(block: headers.HeaderBlock) -> str:
    """Return the digest that stands for a message's Message-ID in decision lines; "" where it has none."""
    message_id = block.first("message-id")
    return message_id_digest(message_id.value.decode("utf-8", "replace")) if message_id else ""


def _only(values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _subject(message: SpooledMessage, block: headers.HeaderBlock, asked: Asked) -> Subject:
    subject = subject_of(message, spool_text(message.id), message_id_in(block), asked.bypasses)
    return replace(subject, claims=claims_in(block)) if message.ends else subject


def _campaign(block: headers.HeaderBlock, asked: Asked) -> str:
    """Return the campaign's name as the message gives it, in our words before others'; "" for none."""
    named = block.first("assent-campaign")
    return (named.text.strip() if named else asked.campaign)[:_LONGEST_CAMPAIGN]


def _peer(session: Session) -> Peer:
    return Peer(session.host_name, session.peer[0], session.protocol, session.tls)
