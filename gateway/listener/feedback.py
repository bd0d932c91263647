"""Mail that comes back to us: anyone may write, and only a token of ours does anything.

So far that is the mailto unsubscribe (FBL-07): the token is the local-part of the address, or stands in the subject
of a mail to `unsubscribe@`. 250 is said after the opt-out has been committed. A mail that answers by itself
changes nothing (FBL-10). No person reads mail here: who writes to one is told where to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway import headers
from gateway.address import domain_key
from gateway.consent import EventType, NewEvent
from gateway.errors import InvalidToken
from gateway.listener.protocol import Session
from gateway.metrics import Metrics
from gateway.model import Recipient, Reply, Scope
from gateway.store import Now, People
from gateway.tokens import Unsubscribe, UnsubscribeTokens

UNSUBSCRIBE = "unsubscribe"
_PERSONS = frozenset({"postmaster", "abuse"})
"""Mailboxes that every domain is expected to have (RFC 5321 §4.5.1, RFC 2142 §4 and §5)."""
_WORD = re.compile(r"[A-Za-z0-9._-]{49}")
_OK_SENDER = Reply(250, "2.1.0", "ok")
_OK_RECIPIENT = Reply(250, "2.1.5", "ok")
_OK = Reply(250, "2.0.0", "ok")
_NOT_OURS = Reply(550, "5.7.1", "this host takes no mail for that domain")
_NOBODY = Reply(550, "5.1.1", "there is no such mailbox here")
_NO_TOKEN = Reply(550, "5.7.1", "the mail has no unsubscribe token; write to the address in the List-Unsubscribe field")


class FeedbackHandler:
    """The hooks of the feedback listener; whoever writes to a person there is referred to `contact` (RFC 5321 §3.4)."""

    def __init__(
        self, domain: str, contact: str, people: People, tokens: UnsubscribeTokens, metrics: Metrics, now: Now
    ) -> None:
        self._domain = domain_key(domain)
        self._elsewhere = Reply(551, "5.1.6", f"nobody reads mail at this domain; please try <{contact}>")
        self._people = people
        self._tokens = tokens
        self._metrics = metrics
        self._now = now

    async def handle_MAIL(
        self, server: Any, session: Session, envelope: Any, reverse_path: str, options: Sequence[str]
    ) -> Reply:
        return _OK_SENDER

    async def handle_RCPT(self, server: Any, session: Session, envelope: Any, recipient: Recipient) -> Reply:
        address = recipient.address
        if address.key.rpartition("@")[2] != self._domain:
            return _NOT_OURS
        if address.local.lower() in _PERSONS:
            return self._elsewhere
        if address.local.lower() != UNSUBSCRIBE and self._wish(address.local) is None:
            return _NOBODY
        return _OK_RECIPIENT

    async def handle_DATA(self, server: Any, session: Session, envelope: Any) -> Reply:
        block = headers.split(envelope.content)
        if _answers_by_itself(block):
            return _OK
        said = [one.address.local for one in envelope.rcpt_tos] + _words_of_subject(block)
        wishes = dict.fromkeys(wish for wish in map(self._wish, said) if wish)
        if not wishes:
            return _NO_TOKEN
        await self._people.opt_out([self._event(wish) for wish in wishes])
        self._metrics.unsubscribed()
        return _OK

    def _wish(self, text: str) -> Unsubscribe | None:
        """Return what a word says, if it is a token of ours in either spelling and of a topic that we know."""
        for read in (self._tokens.read_local_part, self._tokens.read_url):
            try:
                wish = read(text)
            except InvalidToken:
                continue
            if wish.scope is not Scope.TOPIC or self._people.topic_slug(wish.number):
                return wish
        return None

    def _event(self, wish: Unsubscribe) -> NewEvent:
        topic = self._people.topic_slug(wish.number) if wish.scope is Scope.TOPIC else None
        facts = {"channel": "mailto"}
        return NewEvent(EventType.UNSUBSCRIBE, wish.address_id, self._now(), topic or "", wish.scope, facts)


def _answers_by_itself(block: headers.HeaderBlock) -> bool:
    """RFC 3834 §5: Auto-Submitted with any value but "no" marks mail that no person wrote."""
    field = block.first("auto-submitted")
    return field is not None and field.value.split(b";")[0].strip().lower() != b"no"


def _words_of_subject(block: headers.HeaderBlock) -> list[str]:
    field = block.first("subject")
    return _WORD.findall(field.value.decode("utf-8", "replace")) if field else []
