"""Submission by known logins: who may submit what, to whom, and the 250 that means safe on disk (RFC 6409).

The rules that must not be broken: a recipient who may not be sent to is refused here, with the reason first and a
decision id that `explain` knows; and 250 is said after the store has committed, never before. What a message is
`classify` says, what may go `policy`; this file asks them, keeps, and answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from gateway import headers
from gateway.address import Address
from gateway.campaigns import Campaigns
from gateway.classify import Choice, Mismatch, classify, matches_any, purposes_of
from gateway.consent import Standing
from gateway.copies import CopyMaker, MessageDraft
from gateway.decisions import NOTHING_KEPT, Subject, door_line, message_id_digest, subject_of
from gateway.dialects import Asked, Dialects, Unsupported
from gateway.errors import Malformed, StoreUnavailable
from gateway.ids import Ids, spool_text
from gateway.law import Law
from gateway.listener.content import Judge, judge_of
from gateway.listener.desk import LoginDesk
from gateway.listener.loops import loop_refusal
from gateway.listener.notices import marketing_in_notice, read_notice
from gateway.listener.protocol import NO_ROOM, Session
from gateway.metrics import Metrics
from gateway.model import (
    Action,
    CampaignName,
    Login,
    MessageClass,
    Outcome,
    Peer,
    Purpose,
    Reason,
    Recipient,
    Reply,
    ReportedRefusal,
    SpooledMessage,
    SpooledRecipient,
    Stream,
    Topic,
    Verdict,
)
from gateway.policy import PAUSED, RULES, needs_facts, refused_by_all, strictest
from gateway.pretence import end_of_campaign, feigned_reply, over
from gateway.stamp import Unstampable
from gateway.store import Facts, LoginRecord, Now, Orders, Store
from gateway.store.condition import Trouble

_NOT_LOGGED_IN = Reply(530, "5.7.0", "log in first, or ask the operator to bind a login to this network")
_TOO_FAST = Reply(450, "4.7.0", "too many messages of this login of late, try again later")
_WELCOME = Reply(235, "2.7.0", "welcome")
_WAITS = Reply(451, "4.3.0", "consent cannot be checked at this moment, try again later")
_OK = Reply(250, "2.1.0", "ok")
_RECIPIENT_OK = Reply(250, "2.1.5", "ok")
_LOGIN_CHANGED = Reply(530, "5.7.0", "the login has been changed or disabled since; log in anew")
_CODES = {"2.0.0": 250, "5.7.1": 550, "5.7.0": 550, "5.6.0": 554, "4.3.0": 451}
_SMTPUTF8 = "SMTPUTF8"
_LONGEST_CAMPAIGN = 200
"""Characters of a campaign's name that are kept."""

T = TypeVar("T")


class Outbound(Protocol):
    """Where accepted copies go next."""

    def share(self, message: SpooledMessage, copies: int) -> int:
        """Return how many of a message's copies may be handed over in memory; the others are left in the spool."""

    def call_others(self) -> None:
        """Tell the other workers that something is left in the spool for them."""

    def take(self, message: SpooledMessage, addressees: Sequence[SpooledRecipient], draft: MessageDraft) -> None:
        """Relay copies that have just been kept and are claimed by this worker."""


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

    @property
    def login(self) -> Login:
        return self.record.login

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
class Ruling:
    """The verdict for one recipient, and the id by which it can be explained."""

    recipient: Recipient
    facts: Facts
    verdict: Verdict
    decision: str
    n: int = 0


class SubmissionHandler:
    """The hooks of the submission listener."""

    def __init__(
        self,
        house: House,
        desk: LoginDesk,
        store: Store,
        copies: CopyMaker,
        outbound: Outbound,
        campaigns: Campaigns,
        ids: Ids,
        metrics: Metrics,
        now: Now,
    ) -> None:
        self._house = house
        self._desk = desk
        self._store = store
        self._copies = copies
        self._outbound = outbound
        self._campaigns = campaigns
        self._ids = ids
        self._metrics = metrics
        self._now = now

    async def handle_AUTH(
        self, server: Any, session: Session, envelope: Any, mechanism: str, name: str, password: str
    ) -> Reply:
        admitted = await self._desk.admit(session.peer[0], name, password)
        if isinstance(admitted, Reply):
            self._metrics.login_refused()
            return admitted
        session.visit = self._visit(admitted)
        return _WELCOME

    async def handle_MAIL(
        self, server: Any, session: Session, envelope: Any, reverse_path: str, options: Sequence[str]
    ) -> Reply:
        visit = session.visit or await self._visit_by_network(session)
        if visit is None:
            return _NOT_LOGGED_IN
        session.visit = visit
        if visit.is_over:
            return _LOGIN_CHANGED
        if self._store.condition[Trouble.DISK]:
            return NO_ROOM
        if self._desk.keeps_waiting(visit.login.name):
            return _TOO_FAST
        visit.facts = {}
        if not _may_return_to(visit.streams, reverse_path):
            return self._objection(Reason.CLASS_MISMATCH, "5.7.1", "the login may not use this reverse path")
        return _OK

    async def handle_RCPT(self, server: Any, session: Session, envelope: Any, recipient: Recipient) -> Reply:
        visit: Visit = session.visit
        (facts,) = await self._facts(visit, [recipient.address])
        visit.heed(self._store.people.orders())
        if visit.is_over:
            return _LOGIN_CHANGED
        is_test = visit.login.tests(recipient.address)
        verdict = self._objection_to(visit, facts.standing, is_test)
        if verdict is None or (verdict is not PAUSED and visit.is_told_by_summary(*visit.streams)):
            visit.facts[recipient.address.text] = facts
            return _RECIPIENT_OK
        if verdict is not PAUSED and not is_test:
            await self._count_refused_at_rcpt(visit, envelope.mail_from)
        ruling = Ruling(recipient, facts, verdict, self._ids.decision())
        return self._refuse_all([ruling], _subject_at_rcpt(visit), "4.3.0" if verdict is PAUSED else "5.7.1")

    async def handle_DATA(self, server: Any, session: Session, envelope: Any) -> Reply:
        visit: Visit = session.visit
        block = headers.split(envelope.content)
        asked = self._asked(block)
        if isinstance(asked, Reply):
            return asked
        choice = await self._choice(block, asked, visit, envelope)
        if isinstance(choice, Reply):
            return choice
        ends = end_of_campaign(block) if choice.message_class is MessageClass.PROMOTIONAL else None
        message = self._message(visit, session, envelope, choice, _campaign(block, asked), ends)
        subject = _subject(message, block, asked)
        if self._store.people.orders().is_paused(choice.stream.name):
            return self._postponed(message, visit, subject)
        return await self._rule(message, visit, choice, block, subject)

    def _asked(self, block: headers.HeaderBlock) -> Asked | Reply:
        """Return what a header asks for in other systems' words; a refusal where it can be no message's."""
        repeated = headers.repeated_singletons(block)
        if repeated:
            sentence = f"the header has more than one {repeated[0]} field, RFC 5322 section 3.6"
            return self._objection(Reason.CONTENT, "5.6.0", sentence)
        asked = self._house.dialects.read(block)
        if isinstance(asked, Unsupported):
            return self._objection(Reason.UNSUPPORTED_HEADER, "5.6.0", asked.sentence)
        return loop_refusal(block, self._house.hostname, self._house.max_hops) or asked

    async def _choice(self, block: headers.HeaderBlock, asked: Asked, visit: Visit, envelope: Any) -> Choice | Reply:
        """Return what a message is, or the refusal of what it cannot be, whoever it goes to."""
        choice = classify(block, visit.streams, self._house.topics, asked)
        if isinstance(choice, Mismatch):
            return self._objection(choice.reason, choice.enhanced, choice.sentence)
        objection = await self._heed(asked, choice, visit, envelope) if asked.claims else None
        if objection:
            return objection
        content = envelope.content
        if choice.message_class is MessageClass.POLICY_NOTICE:
            published = self._store.people.orders().policies
            notice = read_notice(content, block, len(envelope.rcpt_tos), published)
            if isinstance(notice, Mismatch):
                return self._objection(notice.reason, notice.enhanced, notice.sentence)
            choice = choice.about(notice)
        elif choice.message_class is MessageClass.BREACH_NOTICE and (
            unfit := marketing_in_notice(content, block, "breach")
        ):
            return self._objection(unfit.reason, unfit.enhanced, unfit.sentence)
        return self._objection_to_class(choice, visit, envelope, block) or choice

    def _objection_to_class(
        self, choice: Choice, visit: Visit, envelope: Any, block: headers.HeaderBlock
    ) -> Reply | None:
        """Return why a message cannot be what its class says, whoever it goes to; None where it can."""
        if needs_facts(choice.message_class) and self._cannot_decide(visit):
            return _WAITS
        if choice.message_class is not MessageClass.PROMOTIONAL:
            return None
        if not envelope.mail_from:
            return self._objection(Reason.CLASS_MISMATCH, "5.7.1", "promotional mail needs a reverse path")
        try:
            pretence = feigned_reply(block) or over(end_of_campaign(block), self._now())
        except Malformed as problem:
            pretence = str(problem)
        if pretence:
            return self._objection(Reason.CONTENT, "5.7.0", pretence)
        return self._copies.objection(block)

    async def _facts(self, visit: Visit, addresses: Sequence[Address]) -> list[Facts]:
        """Look people up; without the people store, essential mail goes on and knows nobody (SMTP-22)."""
        try:
            return await self._store.people.facts(addresses)
        except StoreUnavailable:
            if not visit.has_essentials:
                raise
            return [self._store.people.unread(one) for one in addresses]

    async def _heed(self, asked: Asked, choice: Choice, visit: Visit, envelope: Any) -> Reply | None:
        """Do what a message asks for in another system's words, or return the refusal.

        A "no" is passed over for nobody; who may not be stopped by one in any case may ask for it.
        """
        if asked.bypasses and needs_facts(choice.message_class):
            sentence = f"{asked.bypasses[0]} asks to pass over what people have said, which only essential mail may"
            return self._objection(Reason.CLASS_MISMATCH, "5.7.0", sentence)
        named = [one for one in asked.recipients if one.text not in visit.facts]
        if len(envelope.rcpt_tos) + len(named) > self._house.max_recipients:
            sentence = f"its header names more recipients than the {self._house.max_recipients} that a message may have"
            return self._objection(Reason.UNSUPPORTED_HEADER, "5.6.0", sentence)
        if not all(one.text.isascii() for one in named) and _SMTPUTF8 not in envelope.mail_options:
            return self._objection(Reason.UNSUPPORTED_HEADER, "5.6.0", "a recipient in its header needs SMTPUTF8")
        visit.facts |= {one.text: facts for one, facts in zip(named, await self._facts(visit, named), strict=True)}
        envelope.rcpt_tos += [Recipient(one) for one in named]
        return None

    def _cannot_decide(self, visit: Visit) -> bool:
        """True while a "no" may be unknown, or the time may be wrong: then only essential mail moves (SMTP-22)."""
        return self._store.condition.promotion_waits or not all(one.is_read for one in visit.facts.values())

    async def _rule(
        self, message: SpooledMessage, visit: Visit, choice: Choice, block: headers.HeaderBlock, subject: Subject
    ) -> Reply:
        """Decide for every recipient, keep the message if it may go to any, and hand it on."""
        judge = judge_of(message, block, choice.stream, self._law(), self._now())
        rulings = [self._ruling(visit, choice, judge, n, one) for n, one in enumerate(message.recipients)]
        if choice.stream.is_shadow:
            rulings = await self._introduced(rulings)
        await self._count(visit, choice.stream, message.campaign, rulings)
        going = [ruling for ruling in rulings if ruling.verdict.is_kept]
        draft = await self._copies.draft(message, block) if going else None
        if isinstance(draft, Unstampable):
            verdict = Verdict(Action.REFUSE, Reason.CONTENT, draft.sentence, rules=RULES)
            unfit = [replace(ruling, verdict=verdict) for ruling in rulings]
            return self._refuse_all(unfit, subject, draft.enhanced)
        if len(going) < len(rulings) and visit.is_told_by_summary(choice.stream):
            reported = await self._report(message, [one for one in rulings if not one.verdict.is_kept], subject)
            if draft is None:
                return reported
            rulings = going
        if draft is None:
            return self._refuse_all(rulings, subject)
        return await self._keep(message, rulings, subject, draft)

    async def _introduced(self, rulings: Sequence[Ruling]) -> list[Ruling]:
        """Make people of those who are nobody's yet and get a copy in shadow mode: links name people."""
        strangers = [one.recipient.address for one in rulings if one.verdict.may_send and not one.facts.address_id]
        known = iter(await self._store.people.introduce(strangers) if strangers else ())
        return [
            replace(one, facts=next(known)) if one.verdict.may_send and not one.facts.address_id else one
            for one in rulings
        ]

    async def _keep(
        self, message: SpooledMessage, rulings: Sequence[Ruling], subject: Subject, draft: MessageDraft
    ) -> Reply:
        """Keep a message with its decisions and hand it on; only then say 250."""
        lines = [self._line(ruling, subject) for ruling in rulings]
        addressees = [self._addressee(ruling) for ruling in rulings]
        going = [one for one in addressees if not one.outcome.is_settled and not one.is_held]
        share = self._outbound.share(message, len(going))
        await self._store.spool.keep(message, addressees, lines, claimed=share)
        self._outbound.take(message, going[:share], draft)
        if share < len(going):
            self._outbound.call_others()
        self._metrics.message_accepted()
        return Reply(250, "2.0.0", f"queued as {spool_text(message.id)}")

    async def _report(self, message: SpooledMessage, refused: Sequence[Ruling], subject: Subject) -> Reply:
        """Keep refusals for the campaign's summary; return the reply for where there was nobody else (SMTP-32)."""
        campaign = CampaignName(message.login, message.stream, message.campaign)
        told = [ReportedRefusal(one.recipient.address.text, str(one.verdict.reason), one.decision) for one in refused]
        await self._store.spool.refusals.add(campaign, told, [self._line(ruling, subject) for ruling in refused])
        return self._reply("2.0.0", "reported: it may go to nobody, as the summary will say", refused[0].decision)

    def _objection_to(self, visit: Visit, standing: Standing, is_test: bool) -> Verdict | None:
        """Return why a recipient is refused whatever the message turns out to be; None while it may be accepted."""
        if visit.is_paused:
            return PAUSED
        return refused_by_all(visit.purposes, standing, self._law(), self._now(), is_test)

    def _law(self) -> Law:
        return self._house.law.under(self._store.people.orders().policies)

    def _ruling(self, visit: Visit, choice: Choice, judge: Judge, n: int, recipient: Recipient) -> Ruling:
        facts = visit.facts[recipient.address.text]
        is_test = visit.login.tests(recipient.address)
        verdict = strictest(choice.purposes, facts.standing, self._law(), self._now(), is_test)
        return Ruling(recipient, facts, judge(verdict, facts.standing.places), self._ids.decision(), n)

    def _postponed(self, message: SpooledMessage, visit: Visit, subject: Subject) -> Reply:
        """Put a message of a paused stream off: each recipient's line says so, and the sender may come again."""
        rulings = [
            Ruling(one, visit.facts[one.address.text], PAUSED, self._ids.decision()) for one in message.recipients
        ]
        return self._refuse_all(rulings, subject, "4.3.0")

    def _refuse_all(self, rulings: Sequence[Ruling], subject: Subject, enhanced: str = "") -> Reply:
        """Refuse a message that may go to nobody; each recipient's line says why, the reply names the first."""
        is_final = all(one.verdict.action is Action.REFUSE for one in rulings)
        refused = [one.recipient.address.text for one in rulings] if is_final else ()
        self._store.spool.note([self._line(ruling, subject) for ruling in rulings], refused)
        return self._refusal(rulings[0], enhanced)

    # how the campaign fares

    async def _count(self, visit: Visit, stream: Stream, campaign: str, rulings: Sequence[Ruling]) -> None:
        """Count what was decided for a message's recipients; tests do not count."""
        if visit.login.test_recipients:
            rulings = [one for one in rulings if not visit.login.tests(one.recipient.address)]
        refused = sum([not one.verdict.is_kept for one in rulings])
        if self._campaigns.count(visit.login.name, stream, campaign, len(rulings), refused):
            await self._campaigns.pause(visit.login.name, stream, campaign)

    async def _count_refused_at_rcpt(self, visit: Visit, reverse_path: str) -> None:
        """Count a refusal before DATA for each stream that the message may be of, by its reverse path."""
        for stream in visit.streams:
            if _may_return_to((stream,), reverse_path) and self._campaigns.count(visit.login.name, stream, "", 1, 1):
                await self._campaigns.pause(visit.login.name, stream, "")

    def _addressee(self, ruling: Ruling) -> SpooledRecipient:
        verdict = ruling.verdict
        if verdict.is_kept:
            who, decision, is_read = ruling.facts.who, ruling.decision, ruling.facts.is_read
            kept = SpooledRecipient(ruling.n, ruling.recipient, who, decision, is_identified=is_read)
            return replace(kept, is_held=True, reply=verdict.sentence) if verdict.action is Action.HOLD else kept
        reply = str(self._refusal(ruling))
        return SpooledRecipient(
            ruling.n, ruling.recipient, ruling.facts.who, ruling.decision, outcome=Outcome.FAILED, reply=reply
        )

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
            recipients=tuple(envelope.rcpt_tos),
            message=envelope.content,
            campaign=campaign,
            product=choice.purposes[0].product if choice.purposes else "",
            notice=choice.purposes[0].notice if choice.purposes else None,
            ends=ends,
        )

    # who is asking

    def _visit(self, record: LoginRecord) -> Visit:
        streams = tuple(self._house.streams[name] for name in record.login.streams if name in self._house.streams)
        purposes = purposes_of(streams, self._house.topics)
        has_essentials = not all(needs_facts(one.message_class) for one in purposes)
        return Visit(record, streams, purposes, has_essentials, has_contact=record.login.reader is not None)

    async def _visit_by_network(self, session: Session) -> Visit | None:
        """Return the visit of the login that the operator bound to the peer's network (SMTP-26)."""
        ip = ipaddress.ip_address(session.peer[0])
        for record in await self._store.people.logins():
            if not record.disabled and any(ip in ipaddress.ip_network(one) for one in record.login.networks):
                return self._visit(record)
        return None

    # what is answered

    def _line(self, ruling: Ruling, subject: Subject) -> bytes:
        verdict = ruling.verdict
        self._metrics.decided(subject.message_class, verdict)
        facts = ruling.facts
        return door_line(ruling.decision, self._now(), facts.who, subject, verdict, people_read=facts.is_read)

    def _refusal(self, ruling: Ruling, enhanced: str = "") -> Reply:
        verdict = ruling.verdict
        enhanced = enhanced or ("5.7.0" if verdict.reason is Reason.CONTENT else "5.7.1")
        return self._reply(enhanced, f"{verdict.reason}: {verdict.sentence}", ruling.decision)

    def _objection(self, reason: Reason, enhanced: str, sentence: str) -> Reply:
        """Refuse a whole transaction, and keep a line that says why."""
        decision = self._ids.decision()
        verdict = Verdict(Action.REFUSE, reason, sentence, rules=RULES)
        self._metrics.decided(None, verdict)
        self._store.spool.note([door_line(decision, self._now(), "", NOTHING_KEPT, verdict)])
        code = 550 if reason is Reason.UNSUPPORTED_HEADER else None
        return self._reply(enhanced, f"{reason}: {sentence}", decision, code)

    def _reply(self, enhanced: str, text: str, decision: str, code: int | None = None) -> Reply:
        where = f", see {self._house.help_url}" if self._house.help_url else ""
        return Reply(code or _CODES[enhanced], enhanced, f"{text} (decision {decision}{where})")


def _may_return_to(streams: Sequence[Stream], reverse_path: str) -> bool:
    """True where a stream allows the reverse path: its `return_paths`, or any address in its From domains (SMTP-25)."""
    if not reverse_path:
        return any(not stream.is_promotional for stream in streams)
    try:
        address = Address.parse(reverse_path)
    except Malformed:
        return False
    return any(
        matches_any(address, stream.return_paths)
        or matches_any(address, [f"*@{sender.rpartition('@')[2]}" for sender in stream.senders])
        for stream in streams
    )


def _subject(message: SpooledMessage, block: headers.HeaderBlock, asked: Asked) -> Subject:
    message_id = block.first("message-id")
    digest = message_id_digest(message_id.value.decode("utf-8", "replace")) if message_id else ""
    return subject_of(message, spool_text(message.id), digest, asked.bypasses)


def _campaign(block: headers.HeaderBlock, asked: Asked) -> str:
    """Return the campaign's name as the message gives it, in our words before others'; "" for none."""
    named = block.first("assent-campaign")
    return (named.value.decode("utf-8", "replace").strip() if named else asked.campaign)[:_LONGEST_CAMPAIGN]


def _subject_at_rcpt(visit: Visit) -> Subject:
    """Before DATA a message is whatever all of the login's streams have in common."""
    streams = {stream.name for stream in visit.streams}
    classes = {purpose.message_class for purpose in visit.purposes}
    topics = {purpose.topic.slug for purpose in visit.purposes if purpose.topic}
    return Subject("", "", visit.login.name, _only(streams) or "", _only(classes), _only(topics) or "")


def _only(values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _peer(session: Session) -> Peer:
    return Peer(session.host_name, session.peer[0], session.protocol, session.tls)
