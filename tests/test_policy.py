"""The policy: a person's "no" first, then what the sender can show; unknown means refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway import policy
from gateway.config.regimes import OURS, regimes_in
from gateway.consent import NOTHING_KNOWN, Basis, Permission, Standing, Suppression
from gateway.law import Law
from gateway.model import Action, Leave, MessageClass, Purpose, Reason, Scope, Topic, Verdict
from gateway.policy import RULES, SEND, TEST, refusal

AT = datetime(2026, 1, 1, tzinfo=UTC)
NEWS, SOFTWARE, OFFERS = Topic("news", "News"), Topic("software", "Software"), Topic("offers", "Offers", partner=True)
OPTED_IN = Standing((Permission(1, Basis.EXPRESS, "news", AT), Permission(2, Basis.EXPRESS, "offers", AT)))
FLOOR = Law(regimes_in(OURS))
ESSENTIAL = set(MessageClass) - {MessageClass.PROMOTIONAL, MessageClass.PRODUCT, MessageClass.CONFIRMATION}


def decide(purpose: Purpose, standing: Standing, is_test: bool = False) -> Verdict:
    return policy.decide(purpose, standing, FLOOR, AT, is_test)


def strictest(purposes: Sequence[Purpose], standing: Standing, is_test: bool = False) -> Verdict:
    return policy.strictest(purposes, standing, FLOOR, AT, is_test)


def refused_by_all(purposes: Sequence[Purpose], standing: Standing, is_test: bool = False) -> Verdict | None:
    return policy.refused_by_all(purposes, standing, FLOOR, AT, is_test)


def promotional(topic: Topic | None = NEWS) -> Purpose:
    return Purpose(MessageClass.PROMOTIONAL, topic)


def with_no(scope: Scope, reason: Reason, topic: str = "") -> Standing:
    return Standing(OPTED_IN.permissions, (Suppression(9, scope, topic, reason, AT),))


@pytest.mark.req("POL-01", "POL-03")
def test_promotion_needs_an_opt_in_to_its_own_topic() -> None:
    assert decide(promotional(NEWS), NOTHING_KNOWN).reason is Reason.NO_CONSENT
    assert decide(promotional(SOFTWARE), OPTED_IN).reason is Reason.NO_CONSENT
    assert decide(promotional(NEWS), OPTED_IN) == Verdict(Action.SEND, evidence=(1,), rules=f"{RULES} FLOOR/2026-11")


def test_promotion_without_a_topic_is_refused_to_everybody() -> None:
    assert decide(promotional(None), OPTED_IN).reason is Reason.UNKNOWN_TOPIC


@pytest.mark.req("SUP-06", "SUP-14")
@pytest.mark.parametrize(
    ("scope", "topic", "refused"),
    [
        (Scope.TOPIC, "news", {"news"}),
        (Scope.TOPIC, "offers", {"offers"}),
        (Scope.PARTNER, "", {"offers"}),
        (Scope.ALL_MARKETING, "", {"news", "offers"}),
        (Scope.ADDRESS, "", {"news", "offers"}),
    ],
)
def test_a_no_is_looked_at_before_the_opt_in(scope: Scope, topic: str, refused: set[str]) -> None:
    standing = with_no(scope, Reason.UNSUBSCRIBED, topic)
    verdicts = {one.slug: decide(promotional(one), standing) for one in (NEWS, OFFERS)}
    assert {slug for slug, verdict in verdicts.items() if not verdict.may_send} == refused
    assert {(one.reason, one.evidence) for one in verdicts.values() if not one.may_send} == {
        (Reason.UNSUBSCRIBED, (9,))
    }


def test_a_refusal_says_no_before_it_says_no_consent() -> None:
    assert decide(promotional(SOFTWARE), with_no(Scope.ALL_MARKETING, Reason.COMPLAINED)).reason is Reason.COMPLAINED


@pytest.mark.req("SUP-14", "POL-20")
@pytest.mark.parametrize("message_class", sorted(ESSENTIAL))
@pytest.mark.parametrize("scope", Scope)
def test_essential_mail_goes_to_everybody(message_class: MessageClass, scope: Scope) -> None:
    assert decide(Purpose(message_class), with_no(scope, Reason.BOUNCED)) == SEND


@pytest.mark.req("POL-04", "POL-09")
def test_product_mail_goes_to_who_owns_the_product_unsubscribed_or_not() -> None:
    owner = replace(with_no(Scope.ALL_MARKETING, Reason.UNSUBSCRIBED), products=("editor",))
    assert decide(Purpose(MessageClass.PRODUCT, product="editor"), owner) == SEND
    assert decide(Purpose(MessageClass.PRODUCT, product="hosting"), owner).reason is Reason.NOT_CUSTOMER
    assert decide(Purpose(MessageClass.PRODUCT), owner) == SEND, "before DATA the product is not known yet"


@pytest.mark.req("POL-04")
def test_product_mail_goes_to_nobody_who_is_not_known_to_own_the_product() -> None:
    product = Purpose(MessageClass.PRODUCT)
    assert decide(product, OPTED_IN).reason is Reason.NOT_CUSTOMER
    assert decide(product, with_no(Scope.ALL_MARKETING, Reason.UNSUBSCRIBED)).reason is Reason.NOT_CUSTOMER
    assert decide(product, with_no(Scope.ADDRESS, Reason.BOUNCED)).reason is Reason.BOUNCED


@pytest.mark.req("SUP-14")
@pytest.mark.parametrize("reason", [Reason.BOUNCED, Reason.OBJECTED, Reason.COMPLAINED])
def test_product_mail_is_stopped_by_the_scope_of_a_no_and_not_by_its_reason(reason: Reason) -> None:
    editor = Purpose(MessageClass.PRODUCT, product="editor")
    for scope in Scope:
        verdict = decide(editor, replace(with_no(scope, reason, "news"), products=("editor",)))
        assert verdict.reason == (reason if scope is Scope.ADDRESS else None)


@pytest.mark.parametrize(
    ("scope", "topic", "may_send"),
    [
        (Scope.TOPIC, "news", True),
        (Scope.PARTNER, "", True),
        (Scope.ALL_MARKETING, "", False),
        (Scope.ADDRESS, "", False),
    ],
)
def test_a_confirmation_is_stopped_by_a_no_to_everything_only(scope: Scope, topic: str, may_send: bool) -> None:
    assert decide(Purpose(MessageClass.CONFIRMATION), NOTHING_KNOWN) == SEND
    verdict = decide(Purpose(MessageClass.CONFIRMATION), with_no(scope, Reason.OBJECTED, topic))
    assert verdict.may_send is may_send


@pytest.mark.req("CLS-01")
def test_a_message_that_leaves_its_purpose_open_needs_every_purpose_to_allow_it() -> None:
    assert strictest([promotional(NEWS), promotional(OFFERS)], OPTED_IN).may_send
    for purposes in ([promotional(NEWS), promotional(SOFTWARE)], [promotional(SOFTWARE), promotional(NEWS)]):
        assert strictest(purposes, OPTED_IN).reason is Reason.NO_CONSENT
    assert strictest([], OPTED_IN).reason is Reason.UNKNOWN_TOPIC


@pytest.mark.req("CLS-01")
def test_a_recipient_is_refused_at_once_where_no_purpose_would_do() -> None:
    account = Purpose(MessageClass.ACCOUNT)
    assert refused_by_all([promotional(SOFTWARE), account], NOTHING_KNOWN) is None
    refused = refused_by_all([promotional(SOFTWARE), promotional(NEWS)], NOTHING_KNOWN)
    assert refused is not None and refused.reason is Reason.NO_CONSENT
    assert refused_by_all([promotional(SOFTWARE), promotional(NEWS)], OPTED_IN) is None
    assert refused_by_all([], OPTED_IN) == refusal(Reason.UNKNOWN_TOPIC)


def test_every_refusal_has_a_sentence_of_one_line_and_names_its_rules() -> None:
    for reason in (Reason.NO_CONSENT, Reason.ERASED, Reason.MINOR, Reason.OBJECTED):
        verdict = refusal(reason)
        assert verdict.action is Action.REFUSE
        assert verdict.sentence and "\n" not in verdict.sentence
        assert verdict.rules == RULES


@pytest.mark.req("OUT-21")
def test_a_test_needs_no_opt_in_and_no_more_than_that() -> None:
    assert decide(promotional(NEWS), NOTHING_KNOWN, is_test=True) == TEST
    assert TEST.may_send and TEST.leave is Leave.TEST
    assert not decide(promotional(NEWS), OPTED_IN, is_test=True).leave, "who has opted in gets the real thing"
    for reason in (Reason.UNSUBSCRIBED, Reason.OBJECTED, Reason.COMPLAINED, Reason.ERASED, Reason.MINOR):
        standing = with_no(Scope.ALL_MARKETING, reason)
        assert decide(promotional(NEWS), standing, is_test=True).reason is reason
    assert decide(promotional(None), NOTHING_KNOWN, is_test=True).reason is Reason.UNKNOWN_TOPIC
    assert decide(Purpose(MessageClass.PRODUCT), NOTHING_KNOWN, is_test=True).reason is Reason.NOT_CUSTOMER


def test_a_message_that_any_purpose_allows_as_a_test_only_is_a_test() -> None:
    assert strictest([promotional(SOFTWARE), promotional(NEWS)], OPTED_IN, is_test=True) == TEST
    assert strictest([promotional(NEWS), promotional(SOFTWARE)], OPTED_IN, is_test=True) == TEST
