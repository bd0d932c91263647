"""Submission by known logins: who may submit what, to whom, and the 250 that means safe on disk (RFC 6409).

The rules that must not be broken: a recipient who may not be sent to is refused here, with the reason first and a
decision id that `explain` knows; and 250 is said after the store has committed, never before. What a message is
`classify` says, what may go `policy`; this file asks them, keeps, and answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway import headers
from gateway.address import Address
from gateway.campaigns import Campaigns
from gateway.classify import Choice, Mismatch, matches_any
from gateway.consent import Standing
from gateway.copies import CopyMaker, MessageDraft
from gateway.decisions import Subject, door_line
from gateway.errors import Malformed
from gateway.ids import Ids, spool_text
from gateway.law import Law
from gateway.listener.content import Judge, judge_of
from gateway.listener.desk import LoginDesk
from gateway.listener.intake import House, Intake, Visit, each_once, message_id_in
from gateway.listener.preflight import Preflight
from gateway.listener.protocol import NO_ROOM, Session
from gateway.metrics import Metrics
from gateway.model import (
    Action,
    CampaignName,
    Outcome,
    Reason,
    Recipient,
    Reply,
    ReportedRefusal,
    SpooledMessage,
    SpooledRecipient,
    Stream,
    Verdict,
)
from gateway.policy import PAUSED, RULES, refused_by_all, strictest
from gateway.stamp import Unstampable
from gateway.store import Facts, Now, Store
from gateway.store.condition import Trouble

_NOT_LOGGED_IN = Reply(530, "5.7.0", "log in first, or ask the operator to bind a login to this network")
_TOO_FAST = Reply(450, "4.7.0", "too many messages of this login of late, try again later")
_WELCOME = Reply(235, "2.7.0", "welcome")
_OK = Reply(250, "2.1.0", "ok")
_RECIPIENT_OK = Reply(250, "2.1.5", "ok")
_RECIPIENT_DEAD = Reply(250, "2.1.5", "ok, though mail to this address has come back before")
"""What a login is told of a dead address, to which everything but promotion and product mail still goes (SUP-14)."""
_NOT_ITS_REVERSE_PATH = Mismatch(Reason.CLASS_MISMATCH, "5.7.1", "the login may not use this reverse path")
_LOGIN_CHANGED = Reply(530, "5.7.0", "the login has been changed or disabled since; log in anew")
_CODES = {
    **{"2.0.0": 250, "4.3.0": 451, "4.7.5": 451},
    **{"5.4.6": 554, "5.6.0": 554, "5.7.0": 550, "5.7.1": 550},
}


class Outbound(Protocol):
    """Where accepted copies go next."""

    def share(self, message: SpooledMessage, copies: int) -> int:
        """Return how many of a message's copies may be handed over in memory; the others are left in the spool."""

    def ring_others(self) -> None:
        """Tell the other workers that something is left in the spool for them."""

    def take(self, message: SpooledMessage, addressees: Sequence[SpooledRecipient], draft: MessageDraft) -> None:
        """Relay copies that have just been kept and are claimed by this worker."""


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
        preflight: Preflight | None = None,
    ) -> None:
        self._house = house
        self._preflight = preflight
        self._intake = Intake(house, store, copies, ids, now)
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
        session.visit = self._house.visit(admitted)
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
        visit.begin()
        if not _may_return_to(visit.streams, reverse_path):
            return self._turn_away(visit, _NOT_ITS_REVERSE_PATH)
        return _OK

    async def handle_RCPT(self, server: Any, session: Session, envelope: Any, recipient: Recipient) -> Reply:
        visit: Visit = session.visit
        objection = self._preflight and self._preflight.objection(visit, recipient.address, envelope.rcpt_tos)
        if objection or visit.is_preflight:
            return objection or _RECIPIENT_OK
        (facts,) = await self._intake.facts(visit, [recipient.address])
        visit.heed(self._store.people.orders())
        if visit.is_over:
            return _LOGIN_CHANGED
        is_test = visit.login.tests(recipient.address)
        verdict = self._objection_to(visit, facts.standing, is_test)
        if verdict is None or (verdict is not PAUSED and visit.is_told_by_summary(*visit.streams)):
            visit.facts[recipient.address.text] = facts
            return _RECIPIENT_DEAD if facts.standing.is_dead_address else _RECIPIENT_OK
        if verdict is not PAUSED and not is_test:
            await self._count_refused_at_rcpt(visit, envelope.mail_from)
        ruling = Ruling(recipient, facts, verdict, self._ids.decision())
        return self._refuse_all([ruling], visit.subject(), "4.3.0" if verdict is PAUSED else "5.7.1")

    async def handle_DATA(self, server: Any, session: Session, envelope: Any) -> Reply:
        visit: Visit = session.visit
        envelope.content = await self._copies.mended(envelope.content)
        if self._preflight and visit.is_preflight:
            return await self._preflight.answer(visit, session, envelope)
        taken = await self._intake.read(visit, session, envelope)
        if isinstance(taken, Reply):
            return taken
        if isinstance(taken, Mismatch):
            return self._refuse_whole(visit, envelope, taken)
        if self._store.people.orders().is_paused(taken.choice.stream.name):
            return self._postponed(taken.message, visit, taken.subject)
        return await self._rule(taken.message, visit, taken.choice, taken.block, taken.subject)

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
        lines = [self._line(ruling, self._told_of(ruling, subject, draft)) for ruling in rulings]
        addressees = [self._addressee(ruling) for ruling in rulings]
        going = [one for one in addressees if not one.outcome.is_settled and not one.is_held]
        share = self._outbound.share(message, len(going))
        await self._store.spool.keep(message, addressees, lines, claimed=share)
        self._outbound.take(message, going[:share], draft)
        if share < len(going):
            self._outbound.ring_others()
        self._metrics.message_accepted()
        return Reply(250, "2.0.0", f"queued as {spool_text(message.id)}")

    def _told_of(self, ruling: Ruling, subject: Subject, draft: MessageDraft) -> Subject:
        """Return what a decision line says of the message, with the trackers that this recipient is spared (POL-16)."""
        if not draft.is_tracking:
            return subject
        trackers = draft.trackers(is_untracked=self._law().demands(ruling.facts.standing.places).untracked)
        return replace(subject, trackers=trackers)

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

    def _refuse_whole(self, visit: Visit, envelope: Any, found: Mismatch) -> Reply:
        """Refuse a message, or put it off, whoever it goes to; each recipient's line says so."""
        verdict = _verdict_of(found)
        rulings = [
            Ruling(one, visit.facts[one.address.text], verdict, self._ids.decision())
            for one in each_once(envelope.rcpt_tos)
        ]
        subject = visit.subject(message_id_in(headers.split(envelope.content)))
        return self._refuse_all(rulings, subject, found.enhanced)

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

    # who is asking

    async def _visit_by_network(self, session: Session) -> Visit | None:
        """Return the visit of the login that the operator bound to the peer's network (SMTP-26)."""
        ip = ipaddress.ip_address(session.peer[0])
        for record in await self._store.people.logins():
            if not record.disabled and any(ip in ipaddress.ip_network(one) for one in record.login.networks):
                return self._house.visit(record)
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
        code = 550 if verdict.reason is Reason.UNSUPPORTED_HEADER else None
        return self._reply(enhanced, f"{verdict.reason}: {verdict.sentence}", ruling.decision, code)

    def _turn_away(self, visit: Visit, found: Mismatch) -> Reply:
        """Refuse a transaction before anybody is named in it, and keep a line that says why and whose it was."""
        decision, subject, verdict = self._ids.decision(), visit.subject(), _verdict_of(found)
        self._metrics.decided(subject.message_class, verdict)
        self._store.spool.note([door_line(decision, self._now(), "", subject, verdict)])
        return self._reply(found.enhanced, found.text, decision)

    def _reply(self, enhanced: str, text: str, decision: str, code: int | None = None) -> Reply:
        where = f", see {self._house.help_url}" if self._house.help_url else ""
        return Reply(code or _CODES[enhanced], enhanced, f"{text} (decision {decision}{where})")


def _verdict_of(found: Mismatch) -> Verdict:
    return Verdict(found.action, found.reason, found.sentence, rules=RULES)


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
