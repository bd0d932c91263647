"""May this message go to this recipient? Facts in, `Verdict` out.

This module reads no database, no clock and no message body. Whoever calls it gathers the facts and does what it
says. The order of the rules is the order of the law: a person's "no" is looked at before anything that a
sender may claim (requirements §1.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from gateway.consent import Basis, Permission, Place, Source, Standing, Suppression
from gateway.law import Jurisdiction, Law
from gateway.model import Action, Finding, Leave, MessageClass, Purpose, Reason, Scope, Topic, Treatment, Verdict

_SENTENCES = {
    Reason.NO_CONSENT: "the recipient has not opted in to this topic",
    Reason.UNPROVEN: "there is no proof that the recipient has opted in to this topic",
    Reason.EXPIRED: "what the recipient once agreed to has lapsed",
    Reason.UNSUBSCRIBED: "the recipient has unsubscribed",
    Reason.OBJECTED: "the recipient has objected to marketing",
    Reason.COMPLAINED: "the recipient has complained about our mail",
    Reason.BOUNCED: "the address does not exist any more",
    Reason.ERASED: "the recipient has been erased at their own request",
    Reason.MINOR: "the recipient is a minor",
    Reason.NOT_CUSTOMER: "the recipient is not known to own this product",
    Reason.MOVED: "the recipient has given us a newer address",
    Reason.REPEATED: "the recipient has had the notice of this policy version",
    Reason.UNKNOWN_TOPIC: "the message names no topic that its stream has",
}
CONSENTS = (Basis.CONFIRMED, Basis.EXPRESS)
LACKS_CONSENT = (Reason.EXPIRED, Reason.UNPROVEN, Reason.NO_CONSENT)
"""Why promotional mail is refused to who has said no "no"; the nearest to a permission first."""
_TOLD_LAST: dict[Reason | None, int] = {
    reason: place for place, reason in enumerate((*LACKS_CONSENT, Reason.NOT_CUSTOMER, Reason.UNKNOWN_TOPIC), 1)
}


def decide(purpose: Purpose, standing: Standing, law: Law, now: datetime, is_test: bool = False) -> Verdict:
    """Decide for one recipient by what stands for the address now.

    A test needs no opt-in (OUT-21); nor does a stream in shadow mode, whose verdict says what it would refuse (OPS-04).
    """
    match purpose.message_class:
        case MessageClass.PROMOTIONAL:
            return _promotional(purpose, standing, law, now, is_test)
        case MessageClass.PRODUCT:
            return _product(purpose, standing)
        case MessageClass.CONFIRMATION:
            return _confirmation(standing, law)
        case MessageClass.POLICY_NOTICE:
            return _policy_notice(purpose, standing, law)
        case _:
            return SEND


def with_content(verdict: Verdict, findings: tuple[Finding, ...], treatment: Treatment) -> Verdict:
    """Return a verdict with what was found in the message's words, treated as its stream says (CLS-14)."""
    if not findings or not verdict.may_send:
        return verdict
    if treatment is Treatment.REPORT:
        return replace(verdict, content=findings)
    action = Action.HOLD if treatment is Treatment.HOLD else Action.REFUSE
    sentence = "; ".join(map(str, findings))
    return Verdict(action, Reason.CONTENT, sentence, rules=verdict.rules, content=findings)


def strictest(
    purposes: Iterable[Purpose], standing: Standing, law: Law, now: datetime, is_test: bool = False
) -> Verdict:
    """Decide where a message leaves its purpose open: one purpose that would refuse it refuses it (CLS-01)."""
    decided = [decide(purpose, standing, law, now, is_test) for purpose in purposes]
    if refused := [one for one in decided if not one.may_send]:
        return _most_telling(refused)
    verdict = NO_TOPIC
    for found in decided:
        is_unasked = verdict.is_unasked or found.is_unasked
        verdict = verdict if verdict.leave else found
        verdict = replace(verdict, is_unasked=True) if is_unasked and not verdict.is_unasked else verdict
    return verdict


def needs_facts(message_class: MessageClass) -> bool:
    """True where the decision depends on who the recipient is; what does not goes on without the people store."""
    return message_class in _BY_FACTS


def refused_by_all(
    purposes: Iterable[Purpose], standing: Standing, law: Law, now: datetime, is_test: bool = False
) -> Verdict | None:
    """Return a refusal if whatever the message turns out to be, this recipient would not get it; else None."""
    refused = []
    for purpose in purposes:
        verdict = decide(purpose, standing, law, now, is_test)
        if verdict.may_send:
            return None
        refused.append(verdict)
    return _most_telling(refused)


def _most_telling(refused: Iterable[Verdict]) -> Verdict:
    """Return of several refusals the one that says most: a "no" before an opt-in that lapsed, that before none."""
    return min(refused, key=lambda one: _TOLD_LAST.get(one.reason, 0), default=NO_TOPIC)


RULES = "order/6"
"""Names the order of the rules below; it changes whenever they do. A verdict names the country rules beside it."""


def refusal(reason: Reason, evidence: tuple[int, ...] = (), rules: str = RULES) -> Verdict:
    return Verdict(Action.REFUSE, reason, _SENTENCES[reason], evidence, rules)


_BY_FACTS = frozenset({MessageClass.PROMOTIONAL, MessageClass.PRODUCT, MessageClass.CONFIRMATION})

SEND = Verdict(Action.SEND, rules=RULES)
NO_TOPIC = refusal(Reason.UNKNOWN_TOPIC)
TEST = Verdict(Action.SEND, rules=RULES, leave=Leave.TEST)
PAUSED = Verdict(Action.DEFER, Reason.PAUSED, "the stream takes no mail until an operator releases it", rules=RULES)


def _promotional(purpose: Purpose, standing: Standing, law: Law, now: datetime, is_test: bool) -> Verdict:
    topic = purpose.topic
    if topic is None:
        return NO_TOPIC
    suppression = _no(standing, law, topic.slug, partner=topic.partner, controller=purpose.controller)
    if suppression:
        return _suppressed(suppression)
    jurisdictions = law.jurisdictions(standing.places)
    held = [one for one in standing.permissions if one.controller == purpose.controller]
    usable = [one for one in held if not standing.is_over(topic.slug, one.at)]
    evidence, is_unasked = list[int](), False
    for jurisdiction in jurisdictions:
        grounds = _grounds(topic, usable, standing, jurisdiction, law, now)
        if not grounds:
            if is_test:
                return TEST
            refused = refusal(_why_not(topic, usable, jurisdiction), rules=f"{RULES} {jurisdiction.regime}")
            return _in_shadow(refused) if purpose.is_in_shadow(now) else refused
        evidence += [one.event for one in grounds]
        is_unasked = is_unasked or grounds[0].basis not in CONSENTS
    rules = f"{RULES} {law.names(standing.places)}"
    return Verdict(Action.SEND, evidence=tuple(dict.fromkeys(evidence)), rules=rules, is_unasked=is_unasked)


def _in_shadow(refused: Verdict) -> Verdict:
    return replace(refused, action=Action.SEND, leave=Leave.SHADOW, is_unasked=True)


def _no(
    standing: Standing, law: Law, topic: str = "", *, partner: bool = False, controller: str = ""
) -> Suppression | None:
    """Return what stops promotional mail; a "no" from another address of the person where the law says so."""
    for one in _noes(standing, law):
        if one.covers(topic, partner=partner, controller=controller):
            return one
    return None


def _noes(standing: Standing, law: Law) -> list[Suppression]:
    """Return every "no" that counts; first what nobody could take back: a minor, an address that is dead (§1.3)."""
    noes = (one for one in standing.suppressions if not one.linked or _follows(one, standing, law))
    return sorted(noes, key=lambda one: one.reason not in (Reason.MINOR, Reason.BOUNCED))


def _follows(suppression: Suppression, standing: Standing, law: Law) -> bool:
    """True where the rules want it, of where the person may be by this address or by the one where it was said."""
    if suppression.reason is not Reason.UNSUBSCRIBED:
        return True
    said_in = tuple(Place(one, Source.DECLARED) for one in suppression.said_in)
    return law.follows(standing.places) or (bool(said_in) and law.follows(said_in))


def _grounds(
    topic: Topic,
    usable: list[Permission],
    standing: Standing,
    jurisdiction: Jurisdiction,
    law: Law,
    now: datetime,
) -> tuple[Permission, ...]:
    """Return the strongest permission that one set of rules accepts, and what else it rests on; () for none."""
    valid = [one for one in usable if _is_current(one, topic, standing, jurisdiction, law, now)]
    for one in valid:
        if one.basis in jurisdiction.bases and _is_about(one, topic):
            return (one,)
    return _soft_opt_in(topic, valid, law) if Basis.SOFT_OPT_IN in jurisdiction.bases else ()


def _is_about(permission: Permission, topic: Topic) -> bool:
    """Consent is to one topic; what comes of dealings with the company covers its own topics, never a partner's."""
    if permission.basis in CONSENTS:
        return permission.topic == topic.slug
    return permission.basis is not Basis.OFFER and not topic.partner


def _soft_opt_in(topic: Topic, valid: list[Permission], law: Law) -> tuple[Permission, ...]:
    """A sale of the family that the topic is about, at which an opt-out was offered (ePrivacy Directive 13(2)).

    What was offered at a sale of another family does not count; offers that name none are of earlier versions.
    """
    bases = (Basis.SALE, Basis.FREE_SALE) if law.free_accounts else (Basis.SALE,)
    sales = [one for one in valid if one.basis in bases and one.family in topic.families and not topic.partner]
    offers = [one for one in valid if one.basis is Basis.OFFER]
    return next(((sale, one) for sale in sales for one in offers if one.family in ("", sale.family)), ())


def _is_current(
    permission: Permission, topic: Topic, standing: Standing, jurisdiction: Jurisdiction, law: Law, now: datetime
) -> bool:
    """False once it has lapsed, by the country's rules or the topic's, or a new policy has asked for it anew.

    Who has agreed anew to a version has agreed to what the versions before it asked for.
    """
    basis, at = permission.basis, permission.at
    lapses_at = jurisdiction.regime.lapses_at(basis, at)
    if lapses_at and now >= lapses_at:
        return False
    if topic.max_age and basis in CONSENTS and now > topic.max_age.after(at):
        return False
    if not law.policies:
        return True
    renewed = max([at, *(one.effective for one in law.policies if one.version in standing.reconsents)])
    return all(renewed >= one.effective for one in law.reconsents_due(jurisdiction.country, now))


def _why_not(topic: Topic, usable: list[Permission], jurisdiction: Jurisdiction) -> Reason:
    """Say what was nearest: a basis that lapsed, an opt-in without proof, or nothing."""
    reasons = {_shortcoming(one, topic, jurisdiction) for one in usable}
    return next((one for one in LACKS_CONSENT if one in reasons), Reason.NO_CONSENT)


def _shortcoming(permission: Permission, topic: Topic, jurisdiction: Jurisdiction) -> Reason:
    if permission.basis is Basis.UNPROVEN and permission.topic == topic.slug:
        return Reason.UNPROVEN
    accepted = permission.basis in jurisdiction.bases and _is_about(permission, topic)
    return Reason.EXPIRED if accepted else Reason.NO_CONSENT


def _product(purpose: Purpose, standing: Standing) -> Verdict:
    """A product message goes to who owns the product, unsubscribed or not, where mail arrives (POL-09, SUP-14)."""
    dead = next((one for one in standing.suppressions if one.scope is Scope.ADDRESS and not one.linked), None)
    if dead:
        return _suppressed(dead)
    owns = purpose.product in standing.products if purpose.product else bool(standing.products)
    return SEND if owns else refusal(Reason.NOT_CUSTOMER)


def _confirmation(standing: Standing, law: Law) -> Verdict:
    """Somebody may be asked to confirm what they have asked for since their "no" to everything (requirements §1.2)."""
    noes = (one for one in _noes(standing, law) if one.covers("", partner=False))
    return next((_suppressed(one) for one in noes if not _is_taken_back(one, standing)), SEND)


def _is_taken_back(suppression: Suppression, standing: Standing) -> bool:
    """True where the person has asked for mail since; a minor cannot, nor anybody for a whole domain."""
    is_own = not suppression.entry and suppression.reason is not Reason.MINOR
    return is_own and standing.asked_at is not None and suppression.at < standing.asked_at


def _policy_notice(purpose: Purpose, standing: Standing, law: Law) -> Verdict:
    """A notice goes to a person's newest address, once; who has objected is told, but not asked (POL-10, POL-13)."""
    if standing.moved_to:
        return refusal(Reason.MOVED)
    notice = purpose.notice
    if notice is None:
        return SEND
    had = next((one for one in standing.notices if one.version == notice.version), None)
    if had and had.message != notice.message:
        return refusal(Reason.REPEATED, (had.event,))
    objection = _no(standing, law) if notice.asks else None
    return _suppressed(objection) if objection else SEND


def _suppressed(suppression: Suppression) -> Verdict:
    """A list of digests that names somebody who is not known yet is no event of theirs."""
    return refusal(suppression.reason, (suppression.event,) if suppression.event else ())
