"""The country rules: each file's own examples, who is judged by which, and what a configuration may say of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from gateway.config.regimes import OURS, regimes_in
from gateway.consent import Event, EventType, Source, Standing, fold
from gateway.law import Law, PolicyVersion, regime_of
from gateway.model import MessageClass, Period, Purpose, Reason, Topic, Verdict
from gateway.policy import decide, refused_by_all

WHO = bytes(16)
REGIMES = regimes_in(OURS)
NEWS = Topic("news", "News", families=("editor",))
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
_OF_THE_EVENT = {"type", "at", "topic"}


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def event(seq: int, raw: Mapping[str, Any]) -> Event:
    facts = {name: value for name, value in raw.items() if name not in _OF_THE_EVENT}
    at = noon(raw["at"])
    return Event(seq, EventType(raw["type"]), WHO, at, at, raw.get("topic", ""), facts=facts)


def happened(type: EventType, on: date = date(2026, 1, 1), topic: str = "", **facts: Any) -> dict[str, Any]:
    return {"type": type, "at": on, "topic": topic, **facts}


def standing(*told: Mapping[str, Any]) -> Standing:
    return fold(event(seq, one) for seq, one in enumerate(told, 1))


def declared(country: str, source: Source = Source.DECLARED) -> dict[str, Any]:
    return happened(EventType.PLACE_LEARNED, country=country, source=source)


def asked(law: Law, known: Standing, topic: Topic = NEWS, now: datetime = NOW, controller: str = "") -> Verdict:
    return decide(Purpose(MessageClass.PROMOTIONAL, topic, controller=controller), known, law, now)


def examples() -> Iterator[Any]:
    for path in sorted(OURS.glob("*.toml")):
        raw = tomllib.loads(path.read_text("utf-8"))
        for one in raw["examples"]:
            yield pytest.param(raw, one, id=f"{raw['code']}: {one['says']}")


@pytest.mark.req("LAW-XX-01", "LAW-CA-01", "LAW-CA-02", "LAW-EU-03", "LAW-DE-01")
@pytest.mark.parametrize(("rules", "example"), list(examples()))
def test_each_example_of_a_country_is_decided_as_its_file_says(rules: dict[str, Any], example: dict[str, Any]) -> None:
    country = example.get("place") or next(iter(rules["countries"]), "")
    place = [declared(country)] if country else []
    law = Law(REGIMES, require="regime")
    topic = replace(NEWS, partner=example.get("partner", False))
    verdict = asked(law, standing(*place, *example["events"]), topic, noon(example["now"]))
    assert (verdict.reason or "send") == example["expect"]


@pytest.mark.req("LAW-XX-01")
@pytest.mark.parametrize("regime", REGIMES, ids=lambda one: one.code)
def test_every_country_names_its_sources_and_its_version(regime: Any) -> None:
    assert regime.citations and all(regime.citations)
    assert regime.version[:4].isdigit()


@pytest.mark.req("POL-14")
@pytest.mark.parametrize(
    ("markets", "places", "codes"),
    [
        ((), (), ["FLOOR"]),
        (("US",), (), ["US"]),
        (("US", "DE"), (), ["US", "DE", "EU"]),
        (("US",), (declared("DE", Source.IP),), ["US", "DE", "EU"]),
        (("US",), (declared("DE"), declared("US", Source.IP)), ["DE", "EU", "US"]),
        (("US",), (declared("DE", Source.DOMAIN),), ["US", "DE", "EU"]),
        (("US",), (declared("CA"),), ["CA"]),
        (("US",), (declared("BR"),), ["FLOOR"]),
    ],
)
def test_what_is_not_declared_can_only_tighten(markets: Any, places: Any, codes: list[str]) -> None:
    law = Law(REGIMES, require="regime", markets=markets)
    assert [one.regime.code for one in law.jurisdictions(standing(*places).places)] == codes


@pytest.mark.req("POL-01")
def test_by_default_the_companys_own_promise_holds_beside_every_countrys_rules() -> None:
    law = Law(REGIMES, markets=("US",))
    assert asked(law, standing(happened(EventType.SALE, family="editor"))).reason is Reason.NO_CONSENT
    assert asked(law, standing(happened(EventType.EXPRESS_OPT_IN, topic="news"))).may_send


@pytest.mark.req("POL-02")
def test_accepting_the_policy_counts_only_where_it_was_switched_on_for_a_declared_country() -> None:
    accepted = happened(EventType.POLICY_ACCEPTED)
    law = Law(REGIMES, policy_accepted_in=frozenset({"US"}))
    assert asked(law, standing(accepted, declared("US"))).may_send
    assert asked(law, standing(accepted)).reason is Reason.NO_CONSENT
    assert asked(law, standing(accepted, declared("DE"))).reason is Reason.NO_CONSENT
    assert asked(Law(REGIMES), standing(accepted, declared("US"))).reason is Reason.NO_CONSENT
    assert not law.may_accept_policy("DE") and not law.may_accept_policy("CA") and law.may_accept_policy("US")


@pytest.mark.req("LAW-UK-01", "POL-14")
def test_a_companys_address_needs_no_opt_in_where_a_markets_rules_leave_that_to_operators() -> None:
    company = happened(EventType.CORPORATE_SUBSCRIBER)
    law = Law(REGIMES, markets=("GB",), corporate_in=frozenset({"GB"}))
    assert asked(law, standing(company)).may_send
    assert asked(law, standing(company, declared("US", Source.IP))).reason is Reason.NO_CONSENT
    assert asked(replace(law, markets=()), standing(company)).reason is Reason.NO_CONSENT


def test_a_new_policy_that_asks_for_consent_anew_ends_older_consent_in_its_countries() -> None:
    version = PolicyVersion("v2", datetime(2026, 11, 1, tzinfo=UTC), frozenset({"FR"}))
    law = Law(REGIMES, policies=(version,))
    opted_in = happened(EventType.EXPRESS_OPT_IN, topic="news")
    before = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    assert asked(law, standing(declared("FR"), opted_in), now=before).may_send
    assert asked(law, standing(declared("FR"), opted_in)).reason is Reason.EXPIRED
    assert asked(law, standing(declared("US"), opted_in)).may_send
    again = happened(EventType.RECONSENT, date(2026, 11, 2), policy_version="v2")
    assert asked(law, standing(declared("FR"), opted_in, again)).may_send


@pytest.mark.req("LAW-EU-04")
def test_an_account_that_cost_nothing_is_a_sale_only_where_the_company_says_so() -> None:
    known = standing(
        declared("FR"), happened(EventType.SALE, family="editor", free=True), happened(EventType.SOFT_OPTOUT_OFFERED)
    )
    assert asked(Law(REGIMES, require="regime"), known).reason is Reason.NO_CONSENT
    assert asked(Law(REGIMES, require="regime", free_accounts=True), known).may_send


@pytest.mark.req("POL-31")
def test_consent_that_another_controller_asked_for_is_that_controllers() -> None:
    theirs = standing(happened(EventType.EXPRESS_OPT_IN, topic="news", controller="Other Ltd."))
    assert asked(Law(REGIMES), theirs).reason is Reason.NO_CONSENT
    assert asked(Law(REGIMES), theirs, controller="Other Ltd.").may_send


def test_an_opt_in_lapses_when_it_is_older_than_its_topic_allows() -> None:
    topic = replace(NEWS, max_age=Period.parse("24mo"))
    known = standing(happened(EventType.EXPRESS_OPT_IN, date(2024, 11, 22), "news"))
    assert asked(Law(REGIMES), known, topic, datetime(2026, 11, 22, 12, tzinfo=UTC)).may_send
    assert asked(Law(REGIMES), known, topic, datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC)).reason is Reason.EXPIRED


@pytest.mark.req("CON-13")
def test_an_opt_in_without_proof_is_called_unproven_and_permits_nothing() -> None:
    known = standing(happened(EventType.EXPRESS_OPT_IN, topic="news", provenance="unproven"))
    assert asked(Law(REGIMES), known).reason is Reason.UNPROVEN
    purposes = [Purpose(MessageClass.PROMOTIONAL, NEWS), Purpose(MessageClass.PROMOTIONAL, Topic("tips", "Tips"))]
    for either_way in (purposes, purposes[::-1]):
        verdict = refused_by_all(either_way, known, Law(REGIMES), NOW)
        assert verdict is not None and verdict.reason is Reason.UNPROVEN, "more than that the other was never asked for"


def test_an_opt_out_from_another_address_of_a_person_follows_where_the_law_says_so() -> None:
    opted_in = happened(EventType.EXPRESS_OPT_IN, topic="news")
    linked = happened(EventType.UNSUBSCRIBE, date(2026, 2, 1), "news", linked=7)
    law = Law(REGIMES)
    assert asked(law, standing(declared("FR"), opted_in, linked)).reason is Reason.UNSUBSCRIBED
    assert asked(law, standing(opted_in, linked)).reason is Reason.UNSUBSCRIBED
    assert asked(law, standing(declared("US"), opted_in, linked)).may_send
    objected = happened(EventType.OBJECTION, date(2026, 2, 1), linked=7)
    assert asked(law, standing(declared("US"), opted_in, objected)).reason is Reason.OBJECTED


def test_a_mailbox_with_a_new_owner_has_agreed_to_nothing() -> None:
    known = standing(happened(EventType.OPT_IN_CONFIRMED, topic="news"), happened(EventType.RRVS_REJECT))
    assert asked(Law(REGIMES), known).reason is Reason.NO_CONSENT


@pytest.mark.req("POL-30")
def test_a_closed_account_is_no_customer_and_its_consent_has_lapsed() -> None:
    known = standing(
        happened(EventType.EXPRESS_OPT_IN, topic="news"),
        happened(EventType.PRODUCT_OWNED, product="editor"),
        happened(EventType.ACCOUNT_CLOSED),
    )
    assert asked(Law(REGIMES), known).reason is Reason.NO_CONSENT
    product = Purpose(MessageClass.PRODUCT, product="editor")
    assert decide(product, known, Law(REGIMES), NOW).reason is Reason.NOT_CUSTOMER


@pytest.mark.req("LAW-XX-03")
def test_a_verdict_names_every_rule_that_was_asked_and_a_refusal_the_one_that_refused() -> None:
    law = Law(REGIMES)
    opted_in = happened(EventType.EXPRESS_OPT_IN, topic="news")
    assert asked(law, standing(declared("FR"), opted_in)).rules == "order/6 FLOOR/2026-11 EU/2026-11"
    assert asked(law, standing(declared("DE"), opted_in)).rules == "order/6 DE/2026-11"


def test_evidence_names_everything_that_the_permission_rests_on() -> None:
    law = Law(REGIMES, require="regime")
    known = standing(declared("DE"), happened(EventType.SALE, family="editor"), happened(EventType.SOFT_OPTOUT_OFFERED))
    assert asked(law, known).evidence == (2, 3)


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        ("24mo", "2024-02-29", "2026-02-28"),
        ("2 years", "2024-02-29", "2026-02-28"),
        ("6 months", "2026-08-31", "2027-02-28"),
        ("90 days", "2026-01-01", "2026-04-01"),
        ("1mo", "2026-12-15", "2027-01-15"),
    ],
)
def test_periods_end_by_the_calendar(text: str, begins: str, ends: str) -> None:
    assert Period.parse(text).after(datetime.fromisoformat(begins)) == datetime.fromisoformat(ends)


@pytest.mark.parametrize("text", ["", "24", "mo", "-1 days", "two years", "1 week"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a period"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({}, "lacks 'code'"),
        (
            {"code": "XX", "name": "X", "version": "1", "countries": [], "bases": ["silence"], "citations": []},
            "silence",
        ),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_in_one_sentence(raw: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        regime_of(raw)


def test_a_folder_names_the_file_that_holds_no_rules(tmp_path: Path) -> None:
    (tmp_path / "xx.toml").write_text("code = 1")
    with pytest.raises(ValueError, match=r"xx\.toml holds no country rules"):
        regimes_in(tmp_path)
