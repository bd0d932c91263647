"""Make what one recipient is sent: the draft once a message, then stamped, then signed, per copy.

The rule that must not be broken: signing is the last step, so that the octets that are signed are the octets on the
wire (DKIM-10), and a promotional copy that cannot be signed is not made. Which link a copy carries is settled here: the
topic's where the message has one, all marketing where it left that open. A large message is worked on beside the event
loop or in steps, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from gateway.address import Address
from gateway.classify import Mismatch
from gateway.dialects import SILENT, Dialects
from gateway.errors import Malformed
from gateway.footer import Imprint
from gateway.headers import HeaderBlock, mailboxes, split
from gateway.ids import spool_text
from gateway.model import (
    PLAIN_MANNER,
    Alphabet,
    Company,
    Copy,
    Manner,
    MessageClass,
    Reason,
    Recipient,
    Segment,
    SpooledMessage,
    Stream,
    Topic,
)
from gateway.sign import STEP, Signer, body_hash, body_hash_in_steps, signer_for
from gateway.stamp import Draft, Link, Promotion, Stamped, Treatment, Unstampable, fitted, prepare, received
from gateway.tokens import ALL_MARKETING, Reconsent, Unsubscribe, UnsubscribeTokens

_NO_KEY = Mismatch(
    Reason.CANNOT_SIGN, "4.7.5", "the message cannot be signed now, and promotional mail does not leave unsigned"
)
"""What promotion is answered, at the door and on the way, where we hold no key for its author's domain (UNS-35)."""

_CONTRADICTED = Mismatch(
    Reason.CANNOT_SIGN, "4.7.5", "DNS publishes another DKIM key than ours, and no signature would verify by it"
)
"""What promotion is answered while DNS is seen to contradict every key that would sign it (DKIM-18)."""

_NO_SITE = Unstampable("5.7.0", "there is no site where its reader could consent anew: [site] is off")
_SMTPUTF8 = "SMTPUTF8"
T = TypeVar("T")
ANY_TOPIC = "marketing"
"""The list of a promotional message that left its topic open."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where recipients unsubscribe: the site's public address, and the feedback domain, "" while that is off."""

    public_url: str
    feedback_domain: str
    tokens: UnsubscribeTokens
    topic_number: Callable[[str], int]

    @property
    def beginning(self) -> str:
        """What every link begins with; "" while there is no site."""
        return f"{self.public_url}/u/" if self.public_url else ""

    def to(self, topic: str, address_id: bytes) -> Link:
        """Return one recipient's way out of a topic; of all marketing where the topic is ""."""
        what = Unsubscribe(self.topic_number(topic) if topic else ALL_MARKETING, address_id)
        mailto = f"{self.tokens.for_local_part(what)}@{self.feedback_domain}" if self.feedback_domain else ""
        return Link(self.beginning + self.tokens.for_url(what), mailto)

    def to_consent_anew(self, version: str, address_id: bytes) -> str:
        """Return where one recipient consents anew, under a version of the privacy policy."""
        return f"{self.public_url}/a/{self.tokens.reconsents.for_url(Reconsent(version, address_id))}"


@dataclass(slots=True)
class MessageDraft:
    """A message that is ready for its copies: what they share, and who signs them."""

    message: SpooledMessage
    stamp: Draft
    signer: Signer | None
    shared_hash: bytes | None = field(default=None, repr=False)

    @property
    def selectors(self) -> tuple[str, ...]:
        return self.signer.selectors if self.signer else ()

    @property
    def is_tracking(self) -> bool:
        """True where some copy is to be spared something that reports on its reader."""
        return bool(self.trackers(is_untracked=True))

    def trackers(self, *, is_untracked: bool) -> tuple[str, ...]:
        """Return the hosts that a copy does not report to, though the message asked for it; our own too, or not."""
        return self.stamp.trackers(Manner(is_untracked=is_untracked))

    @property
    def is_large(self) -> bool:
        """True where a copy takes so long to make that others must have their turn meanwhile."""
        return _is_large(self.message.message)


class CopyMaker:
    """Makes copies by the company's configuration and keys; holds no state of any message."""

    def __init__(
        self,
        hostname: str,
        company: Company,
        topics: Mapping[str, Topic],
        streams: Mapping[str, Stream],
        links: Links,
        signers: Mapping[str, Signer],
        dialects: Dialects = SILENT,
        are_contradicted: Callable[[Sequence[int]], bool] = lambda marks: False,
    ) -> None:
        self._hostname = hostname
        self._company = company
        self._topics = topics
        self._streams = streams
        self._promotions = dict[tuple[str, str], Promotion]()
        self._links = links
        self._signers = signers
        self._own_domains = frozenset(signers)
        self._dialects = dialects
        self._are_contradicted = are_contradicted

    def signs_for(self, block: HeaderBlock) -> bool:
        """True where we hold a key for the author's domain."""
        return self._signer(block) is not None

    def objection(self, block: HeaderBlock) -> Mismatch | None:
        """Return why promotion with this header cannot be signed now; None where it can."""
        return self.obstacle(self._signer(block))

    def obstacle(self, signer: Signer | None) -> Mismatch | None:
        """Return why promotion must not be signed by these keys now: none is there, or DNS contradicts all of them."""
        if signer is None:
            return _NO_KEY
        return _CONTRADICTED if self._are_contradicted(signer.marks) else None

    async def mended(self, message: bytes) -> bytes:
        """Return a message without lines that are too long for SMTP; as it is where that cannot be (`draft` says so).

        Done before anything else holds the message, so that only one of the two stays in memory.
        """
        fit = await _beside_where_large(message, fitted, message, self._dialects)
        return message if isinstance(fit, Unstampable) else fit

    async def written_in(self, alphabet: Alphabet, message: SpooledMessage) -> SpooledMessage | Unstampable:
        """Return a message as a next hop takes it that knows only this alphabet; whoever knows more takes it too."""
        is_utf8 = _SMTPUTF8 in message.options
        if alphabet is Alphabet.EIGHT_BIT and not is_utf8:
            return message  # whose header asks for nothing that the next hop lacks
        fit_in = partial(fitted, dialects=self._dialects, alphabet=alphabet, is_utf8=is_utf8)
        fit = await _beside_where_large(message.message, fit_in, message.message)
        return fit if isinstance(fit, Unstampable) else replace(message, message=fit)

    async def draft(self, message: SpooledMessage, block: HeaderBlock | None = None) -> MessageDraft | Unstampable:
        """Decide what all copies of a message have in common; done once a message. `block` is its header, if known."""
        return await _beside_where_large(message.message, self._draft, message, block or split(message.message))

    def _draft(self, message: SpooledMessage, block: HeaderBlock) -> MessageDraft | Unstampable:
        asks = message.notice is not None and message.notice.asks
        if asks and not self._links.public_url:
            return _NO_SITE
        addresses = tuple(one.address for one in message.recipients)
        alone = addresses[0] if len(addresses) == 1 else None
        treatment = Treatment(
            recipients=addresses,
            trace=received(message.peer, self._hostname, spool_text(message.id), message.received_at, alone),
            date=message.received_at,
            own_domains=self._own_domains,
            promotion=self._promotion(message),
            dialects=self._dialects,
            asks=asks,
            commercial=self._commercial(message),
            own_link=self._links.beginning,
        )
        stamp = prepare(message.message, block, treatment)
        return stamp if isinstance(stamp, Unstampable) else MessageDraft(message, stamp, self._signer(block))

    async def promotional_copy(
        self, draft: MessageDraft, n: int, address_id: bytes, now: datetime, manner: Manner = PLAIN_MANNER
    ) -> Copy:
        """Make the copy of recipient `n`, with the link of the person `address_id`, who is spoken to in this manner."""
        message = draft.message
        recipient = message.recipients[n]
        message_id = f"<{spool_text(message.id)}.{n}@{self._hostname}>"
        link = self._links.to(message.topic, address_id)
        if draft.is_large:
            stamped = await asyncio.to_thread(draft.stamp.copy_for, recipient.address, link, message_id, manner)
            hashed = await _hash_of_large(stamped.body)
        else:
            stamped = draft.stamp.copy_for(recipient.address, link, message_id, manner)
            hashed = body_hash(stamped.body)
        return self._finished(draft, stamped, (recipient,), hashed, now)

    async def shared_copy(
        self, draft: MessageDraft, recipients: tuple[Recipient, ...], now: datetime, reader: bytes | None = None
    ) -> Copy:
        """Make the copy that all recipients of an essential message share.

        `reader` is the one recipient of a policy notice that asks for consent anew.
        """
        notice = draft.message.notice
        url = self._links.to_consent_anew(notice.version, reader) if notice and notice.asks and reader else ""
        stamped = draft.stamp.shared_copy(f"<{spool_text(draft.message.id)}@{self._hostname}>", url)
        if draft.shared_hash is None:
            draft.shared_hash = await _hash_of_large(stamped.body) if draft.is_large else body_hash(stamped.body)
        return self._finished(draft, stamped, recipients, draft.shared_hash, now)

    async def commercial_copy(
        self, draft: MessageDraft, n: int, address_id: bytes, now: datetime, manner: Manner
    ) -> Copy:
        """Make the copy of essential mail for recipient `n`, to whose law it is commercial (LAW-CA-06).

        Its link leads out of all marketing, and changes nothing for mail of this kind.
        """
        message_id, link = f"<{spool_text(draft.message.id)}@{self._hostname}>", self._links.to("", address_id)
        stamped = await asyncio.to_thread(draft.stamp.commercial_copy, message_id, link, manner)
        hashed = await _hash_of_large(stamped.body)
        return self._finished(draft, stamped, (draft.message.recipients[n],), hashed, now)

    def _finished(
        self, draft: MessageDraft, stamped: Stamped, recipients: tuple[Recipient, ...], hashed: bytes, now: datetime
    ) -> Copy:
        signature = draft.signer.sign(stamped.header, hashed, now) if draft.signer else b""
        return Copy(draft.message.reverse_path, recipients, stamped.segments(signature), draft.message.options)

    def _promotion(self, message: SpooledMessage) -> Promotion | None:
        if message.message_class is not MessageClass.PROMOTIONAL:
            return None
        key = message.stream, message.topic
        known = self._promotions.get(key)
        if known is None:
            known = self._promotions[key] = self._made_promotion(*key)
        return known

    def _made_promotion(self, stream_name: str, slug: str) -> Promotion:
        topic, stream, company = self._topics.get(slug), self._streams.get(stream_name), self._company
        name, label = (topic.name, slug) if topic else (company.name, ANY_TOPIC)
        promotion = Promotion(company, name, f"{label}.{self._hostname}", template=company.footer)
        if stream is None:
            return promotion
        return replace(
            promotion,
            template=stream.footer or company.footer,
            tracking=stream.tracking,
            mailto_first=stream.mailto_first,
            refuses_others=stream.refuses_others,
        )

    def _commercial(self, message: SpooledMessage) -> Imprint | None:
        """Return whose footer essential mail may have; None where its stream is not commercial anywhere."""
        stream = self._streams.get(message.stream)
        if stream is None or not stream.is_commercial or stream.is_promotional or not self._links.public_url:
            return None
        return Imprint(self._company, stream.footer or self._company.footer)

    def _signer(self, block: HeaderBlock) -> Signer | None:
        author = _author(block)
        return signer_for(author.key.rpartition("@")[2], self._signers) if author else None


def _is_large(message: bytes) -> bool:
    return len(message) > STEP


async def _beside_where_large(message: bytes, work: Callable[..., T], *arguments: Any) -> T:
    """Work on a message, if it is large beside the event loop."""
    return await asyncio.to_thread(work, *arguments) if _is_large(message) else work(*arguments)


async def _hash_of_large(body: Sequence[Segment]) -> bytes:
    """Work out a body's hash; after each step the event loop has its turn."""
    steps = body_hash_in_steps(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)
        await asyncio.sleep(0)


def _author(block: HeaderBlock) -> Address | None:
    field = block.first("from")
    try:
        authors = mailboxes(field.value) if field else []
    except Malformed:
        return None
    return authors[0] if authors else None
