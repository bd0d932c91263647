"""May this message go to this recipient? Facts in, `Verdict` out.

This module reads no database, no clock and no message body. Whoever calls it gathers the facts and does what it
says. The order of the rules is the order of the law: a person's "no" is looked at before anything that a
sender may claim (requirements §1.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.consent import Standing, Suppression
from gateway.model import Action, MessageClass, Purpose, Reason, Topic, Verdict

RULES = "policy-floor/2"
"""Names the rules by which a verdict was reached; it changes whenever they do."""

_SENTENCES = {
    Reason.NO_CONSENT: "the recipient has not opted in to this topic",
    Reason.UNSUBSCRIBED: "the recipient has unsubscribed",
    Reason.OBJECTED: "the recipient has objected to marketing",
    Reason.COMPLAINED: "the recipient has complained about our mail",
    Reason.BOUNCED: "the address does not exist any more",
    Reason.ERASED: "the recipient has been erased at their own request",
    Reason.MINOR: "the recipient is a minor",
    Reason.NOT_CUSTOMER: "the recipient is not known to own this product",
    Reason.UNKNOWN_TOPIC: "the message names no topic that its stream has",
}


def decide(purpose: Purpose, standing: Standing, is_test: bool = False) -> Verdict:
    """Decide for one recipient by what stands for the address now; a test needs no opt-in (OUT-21)."""
    match purpose.message_class:
        case MessageClass.PROMOTIONAL:
            return _promotional(purpose.topic, standing, is_test)
        case MessageClass.PRODUCT:
            return _product(standing)
        case MessageClass.CONFIRMATION:
            return _confirmation(standing)
        case _:
            return SEND


def strictest(purposes: Iterable[Purpose], standing: Standing, is_test: bool = False) -> Verdict:
    """Decide where a message leaves its purpose open: one purpose that would refuse it refuses it (CLS-01)."""
    verdict = refusal(Reason.UNKNOWN_TOPIC)
    for purpose in purposes:
        found = decide(purpose, standing, is_test)
        if not found.may_send:
            return found
        verdict = verdict if verdict.is_test else found
    return verdict


def needs_facts(message_class: MessageClass) -> bool:
    """True where the decision depends on who the recipient is; what does not goes on without the people store."""
    return message_class in _BY_FACTS


def refused_by_all(purposes: Iterable[Purpose], standing: Standing, is_test: bool = False) -> Verdict | None:
    """Return a refusal if whatever the message turns out to be, this recipient would not get it; else None."""
    verdict = refusal(Reason.UNKNOWN_TOPIC)
    for purpose in purposes:
        verdict = decide(purpose, standing, is_test)
        if verdict.may_send:
            return None
    return verdict


def refusal(reason: Reason, evidence: tuple[int, ...] = ()) -> Verdict:
    return Verdict(Action.REFUSE, reason, _SENTENCES[reason], evidence, RULES)


_BY_FACTS = frozenset({MessageClass.PROMOTIONAL, MessageClass.PRODUCT, MessageClass.CONFIRMATION})

SEND = Verdict(Action.SEND, rules=RULES)
TEST = Verdict(Action.SEND, rules=RULES, is_test=True)
PAUSED = Verdict(Action.DEFER, Reason.PAUSED, "the stream takes no mail until an operator releases it", rules=RULES)


def _promotional(topic: Topic | None, standing: Standing, is_test: bool) -> Verdict:
    if topic is None:
        return refusal(Reason.UNKNOWN_TOPIC)
    suppression = standing.suppression(topic.slug, partner=topic.partner)
    if suppression:
        return _suppressed(suppression)
    permission = standing.permissions.get(topic.slug)
    if permission is None:
        return TEST if is_test else refusal(Reason.NO_CONSENT)
    return Verdict(Action.SEND, evidence=(permission.event,), rules=RULES)


def _product(standing: Standing) -> Verdict:
    """A product message needs an owner; until a customer record says so, nobody is one (POL-04)."""
    dead = next((one for one in standing.suppressions if one.reason is Reason.BOUNCED), None)
    return _suppressed(dead) if dead else refusal(Reason.NOT_CUSTOMER)


def _confirmation(standing: Standing) -> Verdict:
    objection = standing.suppression("", partner=False)
    return _suppressed(objection) if objection else SEND


def _suppressed(suppression: Suppression) -> Verdict:
    return refusal(suppression.reason, (suppression.event,))
