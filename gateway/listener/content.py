"""What a message's words add to the verdicts about it: a remark, or more where its stream asks for more (CLS-14).

The rule that must not be broken: a message is read once, however many recipients it has, and mail that its login
declares essential is stopped by its words only where class or configuration says so. Whose rules a recipient is under
is the law's to say, what the words amount to `promotion`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.consent import Place
from gateway.headers import HeaderBlock
from gateway.law import Law
from gateway.model import Advertising, Finding, MessageClass, SpooledMessage, Stream, Treatment, Verdict
from gateway.policy import RULES, with_content
from gateway.pretence import feigned_reply
from gateway.promotion import crowded_sender, read, unended_claim

_READ_ELSEWHERE = frozenset({MessageClass.POLICY_NOTICE, MessageClass.BREACH_NOTICE})
"""Notices that hold any marketing are refused before this, whatever a stream says."""

_LEAST = {MessageClass.REQUESTED: Advertising.SIGNIFICANT}
"""An answer to a person sells nothing, whatever their country bears: that is what the policy promises (POL-27)."""

Judge = Callable[[Verdict, tuple[Place, ...]], Verdict]
"""Returns a verdict with what the words add to it, for a recipient who may be in these places."""


def judge_of(message: SpooledMessage, block: HeaderBlock, stream: Stream, law: Law, now: datetime) -> Judge:
    """Read a message; return what its words add to each of its verdicts."""
    if message.message_class is MessageClass.PROMOTIONAL:
        return _of_promotion(message, block, stream, now)
    if message.message_class in _READ_ELSEWHERE:
        return _adds_nothing
    least = _LEAST.get(message.message_class, Advertising.PRIMARY)
    reading, treatment = read(message.message, block), stream.treatment_of(message.message_class)

    def judge(verdict: Verdict, places: tuple[Place, ...]) -> Verdict:
        advertising, surveys = law.advertising(places)
        found = reading.under(advertising.or_stricter(least), surveys)
        return with_content(verdict, (found,), treatment) if found else verdict

    return judge if any((reading.primary, reading.any, reading.survey)) else _adds_nothing


def _of_promotion(message: SpooledMessage, block: HeaderBlock, stream: Stream, now: datetime) -> Judge:
    claim = None if message.ends else unended_claim(block)
    if claim and stream.needs_ends and not stream.in_shadow(now):
        return lambda verdict, _: with_content(verdict, (claim,), Treatment.REFUSE)
    findings = tuple(one for one in (claim, crowded_sender(block), _feigned(block)) if one)
    return (lambda verdict, _: with_content(verdict, findings, Treatment.REPORT)) if findings else _adds_nothing


def _feigned(block: HeaderBlock) -> Finding | None:
    """Return that a message feigns a reply, which is refused before this, except in shadow mode."""
    sentence = feigned_reply(block)
    return Finding(sentence, ("subject/reply",), RULES) if sentence else None


def _adds_nothing(verdict: Verdict, places: tuple[Place, ...]) -> Verdict:
    return verdict
