"""A draft that a login mails to `preflight@` the feedback domain comes back as a letter about it, and goes nowhere.

The rules that must not be broken: nothing of a draft is kept, counted or relayed, and the letter goes to the login's
contact; where it has none, to the draft's author, but only within a domain that we sign for. What is looked at is the
copy for a reader who may get it, made as any other and addressed to whoever reads the letter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.address import Address
from gateway.classify import Mismatch, matches_any
from gateway.consent import NOTHING_KNOWN
from gateway.copies import CopyMaker, MessageDraft
from gateway.decisions import door_line
from gateway.decisions import subject_of as subject_of_decision
from gateway.dialects import Meaning
from gateway.errors import Malformed
from gateway.headers import HeaderBlock, mailboxes, split
from gateway.ids import Ids, spool_text
from gateway.law import Law
from gateway.listener.content import judge_of
from gateway.listener.intake import House, Intake, Objection, Taken, Visit
from gateway.listener.protocol import Session
from gateway.manner import commercial_manner_of, manner_of
from gateway.model import (
    Company,
    Copy,
    Leave,
    Manner,
    MessageClass,
    Peer,
    Reason,
    Recipient,
    Reply,
    SpooledMessage,
    SpooledRecipient,
    Stream,
    Verdict,
)
from gateway.policy import SEND, needs_facts, strictest
from gateway.preflight import (
    Check,
    Count,
    Findings,
    added_to,
    links_of,
    signature_checks,
    trackers_in,
    unsubscribe_check,
)
from gateway.preflight.letter import letter
from gateway.prose import sources_of, subject_of, texts_of
from gateway.stamp import Unstampable
from gateway.store import Now, Store
from gateway.tokens import ALL_MARKETING, NOBODY, Unsubscribe, UnsubscribeTokens

MAILBOX: Final = "preflight"
LONGEST_COUNT: Final = 20.0
"""Seconds for which people are counted, while the login waits for its answer."""

_AT_ONCE: Final = 100
_ONLY_ONE: Final = Reply(550, "5.7.1", "a draft for preflight has no other recipient")
_UNTOLD: Final = Reply(
    550, "5.7.1", "the letter about a draft needs a reader: add one by assent logins add NAME --contact ADDRESS"
)
_PAGE: Final = 200
_CONTROLS: Final = ("assent-stream", "assent-topic", "assent-class", "assent-product", "assent-policy-version")

Probe = Callable[[str], Awaitable[tuple[int, str]]]
"""Asks the site for the page of a link, as a reader's first click does; returns the status, 0 for none, and words."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the configuration says that a letter needs: whose mail it is, which keys are published, where the site is.

    `public_url` is "" where there is no site; `probe` asks the site, if there is one.
    """

    feedback_domain: str
    company: Company
    published_keys: Mapping[str, str]
    public_url: str
    topic_number: Callable[[str], int]
    probe: Probe | None


class Preflight:
    """Takes drafts for one worker's listener, one at a time."""

    def __init__(
        self,
        around: Surroundings,
        house: House,
        store: Store,
        copies: CopyMaker,
        tokens: UnsubscribeTokens,
        ids: Ids,
        now: Now,
    ) -> None:
        self._around = around
        self._key = Address.parse(f"{MAILBOX}@{around.feedback_domain}").key
        self._house = house
        self._intake = Intake(house, store, copies, ids, now)
        self._store = store
        self._copies = copies
        self._tokens = tokens
        self._ids = ids
        self._now = now
        self._turn = asyncio.Lock()

    def objection(self, visit: Visit, recipient: Address, others: Sequence[Recipient]) -> Reply | None:
        """Take in that a recipient is, or is not, the preflight mailbox; return why it cannot be beside the others."""
        if recipient.key != self._key:
            return _ONLY_ONE if visit.is_preflight else None
        if others:
            return _ONLY_ONE
        visit.is_preflight = True
        return None

    async def answer(self, visit: Visit, session: Session, envelope: Any) -> Reply:
        """Find out about a draft, and keep the letter that tells it; only then say 250."""
        taken = await self._intake.read(visit, session, envelope)
        block = taken.block if isinstance(taken, Taken) else split(envelope.content)
        reader = visit.login.reader or self._author(visit, block)
        if reader is None:
            return _UNTOLD
        async with self._turn:
            findings = await self._findings(visit, taken, block, reader)
        message = self._letter(findings, visit, reader)
        await self._keep(message)
        return Reply(250, "2.0.0", f"preflight: a letter about it goes to {reader} as {spool_text(message.id)}")

    def _author(self, visit: Visit, block: HeaderBlock) -> Address | None:
        """Return the draft's author, if it is one that the login may use, within a domain that we sign for."""
        field = block.first("from")
        try:
            authors = mailboxes(field.value) if field else []
        except Malformed:
            return None
        if len(authors) != 1 or not self._copies.signs_for(block):
            return None
        (author,) = authors
        return author if any(matches_any(author, one.senders) for one in visit.streams) else None

    # what is found out

    async def _findings(self, visit: Visit, taken: Taken | Objection, block: HeaderBlock, reader: Address) -> Findings:
        found = Findings(subject_of(block), visit.login.name)
        if not isinstance(taken, Taken):
            return replace(found, refusal=_told(taken))
        message = replace(taken.message, recipients=(Recipient(reader),))
        verdict = judge_of(message, block, taken.choice.stream, self._law(), self._now())(SEND, ())
        found = replace(
            found,
            refusal="" if verdict.is_kept else f"550 5.7.0 {verdict.reason}: {verdict.sentence}",
            remarks=tuple(self._remarks(visit, taken, verdict)),
            stream=message.stream,
            message_class=str(message.message_class),
            topics=tuple(one.topic.name for one in taken.choice.purposes if one.topic),
            why=tuple(_reasons(taken)),
            count=await self._count(taken) if needs_facts(message.message_class) else None,
        )
        draft = await self._copies.draft(message, block)
        if isinstance(draft, Unstampable):
            return replace(found, refusal=found.refusal or str(draft.reply))
        manner = manner_of(NOTHING_KNOWN, verdict, self._law(), self._around.company, taken.choice.stream)
        octets = b"".join((await self._copy(draft, taken.choice.stream, manner)).segments)
        removed = draft.trackers(is_untracked=manner.is_untracked)
        found = replace(found, trackers=tuple(f"taken out of the copy: {host}" for host in removed))
        found = await asyncio.to_thread(self._seen, found, message, block, octets)
        return replace(found, checks=(*found.checks, *await self._probed(octets)))

    async def _copy(self, draft: MessageDraft, stream: Stream, manner: Manner) -> Copy:
        """Make the copy of a reader of whom nothing is known but that the message may go there."""
        if draft.message.message_class is MessageClass.PROMOTIONAL:
            return await self._copies.promotional_copy(draft, 0, NOBODY, self._now(), manner)
        commercial = commercial_manner_of(NOTHING_KNOWN, self._law(), self._around.company, stream)
        if commercial:
            return await self._copies.commercial_copy(draft, 0, NOBODY, self._now(), commercial)
        return await self._copies.shared_copy(draft, draft.message.recipients, self._now(), NOBODY)

    def _seen(self, found: Findings, message: SpooledMessage, block: HeaderBlock, copy: bytes) -> Findings:
        """Read a copy as its receiver does, beside its draft."""
        after = split(copy)
        shown = sources_of(copy, after)
        links = links_of(shown, self._is_ours)
        texts = texts_of(copy, after)
        checks = signature_checks(copy, after, self._around.published_keys)
        added = added_to(texts_of(message.message, block), texts, self._around.company)
        if message.message_class is MessageClass.PROMOTIONAL:
            number = self._around.topic_number(message.topic) if message.topic else ALL_MARKETING
            meant = Unsubscribe(number, NOBODY)
            checks.append(unsubscribe_check(after, self._around.public_url, self._tokens, meant))
            added.insert(0, f"the link to unsubscribe: {self._around.public_url}/u/{self._tokens.for_url(meant)}")
        return replace(
            found,
            links=tuple(links),
            trackers=(*found.trackers, *trackers_in(shown, links)),
            added=tuple(added),
            checks=tuple(checks),
            text="\n\n".join(texts),
            copy=copy,
        )

    async def _probed(self, copy: bytes) -> list[Check]:
        """Ask the site for the page of the copy's link; to ask changes nothing."""
        field = split(copy).first("list-unsubscribe")
        if field is None or self._around.probe is None:
            return []
        url = field.value.decode("ascii", "replace").partition("<")[2].partition(">")[0]
        status, told = await self._around.probe(url)
        return [Check("unsubscribe page", status == _PAGE if status else None, told)]

    def _remarks(self, visit: Visit, taken: Taken, verdict: Verdict) -> Iterator[str]:
        if self._store.people.orders().is_paused(taken.choice.stream.name):
            yield "Its stream is paused now, so that it would be answered 451 4.3.0 paused."
        if verdict.is_kept and not verdict.may_send:
            yield f"It would be held until an operator releases it: {verdict.sentence}"
        yield from (f"Its words: {one}" for one in verdict.content)
        named = len(taken.message.recipients) - 1
        if named:
            yield f"Its header names {named} more recipients; to each the same rules would apply."
        if taken.asked.bypasses:
            yield f"It asks to pass over what people have said: {', '.join(taken.asked.bypasses)}"

    async def _count(self, taken: Taken) -> Count:
        """Decide about everybody on record, as at the door, for so long as a login may be kept waiting."""
        loop = asyncio.get_running_loop()
        end, last = loop.time() + LONGEST_COUNT, b""
        tally, law, now = Counter[Reason | Leave | None](), self._law(), self._now()
        while page := await self._store.people.standings_after(last, _AT_ONCE):
            if loop.time() > end:
                return _counted(tally, is_whole=False)
            for _, standing in page:
                verdict = strictest(taken.choice.purposes, standing, law, now)
                tally[verdict.leave if verdict.may_send else verdict.reason] += 1
            last = page[-1][0]
            await asyncio.sleep(0)
        return _counted(tally, is_whole=True)

    def _law(self) -> Law:
        return self._house.law.under(self._store.people.orders().policies)

    def _is_ours(self, host: str) -> bool:
        return self._around.company.owns(host) or host == urlsplit(self._around.public_url).hostname

    # what is kept

    def _letter(self, findings: Findings, visit: Visit, reader: Address) -> SpooledMessage:
        spool_id, now = self._ids.spool(), self._now()
        hostname, help_url = self._house.hostname, self._house.help_url
        return SpooledMessage(
            id=spool_id,
            login="",
            stream=findings.stream or next((one.name for one in visit.streams), ""),
            message_class=MessageClass.SYSTEM,
            topics=(),
            reverse_path="",
            options=(),
            peer=Peer(hostname, "127.0.0.1", "ESMTP"),
            received_at=now,
            recipients=(Recipient(reader),),
            message=letter(hostname, help_url, reader.text, findings, spool_text(spool_id), now),
        )

    async def _keep(self, message: SpooledMessage) -> None:
        """Keep the letter, as any mail of ours; whoever of the workers comes first relays it."""
        (recipient,) = message.recipients
        who, decision = self._store.people.unread(recipient.address).who, self._ids.decision()
        line = door_line(decision, self._now(), who, subject_of_decision(message, spool_text(message.id)), SEND)
        await self._store.spool.keep(message, [SpooledRecipient(0, recipient, who, decision)], [line], claimed=0)


def _counted(tally: Counter[Reason | Leave | None], *, is_whole: bool) -> Count:
    """Return the count of what was decided: the reason of each refusal, else the leave, if that let it go."""
    refused = {str(one): count for one, count in tally.items() if isinstance(one, Reason)}
    return Count(tally.total() - sum(refused.values()), refused, tally[Leave.SHADOW], is_whole)


def _told(objection: Objection) -> str:
    if isinstance(objection, Mismatch):
        return f"{objection.text} ({objection.enhanced})"
    return str(objection)


def _reasons(taken: Taken) -> Iterator[str]:
    """Say what made the message what it is."""
    field = taken.block.first("from")
    if field:
        yield f"stream {taken.choice.stream.name} may be used with the From {field.text}"
    for name in _CONTROLS:
        for field in taken.block.all(name):
            yield f"{name.title()} says {field.text}"
    for claim in taken.asked.claims:
        if claim.means in (Meaning.CLASS, Meaning.NAMES, Meaning.HINTS):
            yield f"{claim.where} says {claim.value}"
    if len(taken.choice.purposes) > 1:
        yield "it leaves open which of its topics it is about, so that a reader must have opted in to each"
