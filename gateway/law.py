"""What the law accepts: country rules as data, and which of them apply to one person.

The rule that must not be broken: a person is judged by every country that they may be in, and each must be content;
what we do not know never loosens anything (POL-14). The rules themselves stand in regimes/*.toml, with their sources
and with examples that a test decides. Who may be sent what is left to `policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any, Final, NamedTuple

from gateway.consent import Basis, Place, Source
from gateway.model import Advertising, Period

FLOOR: Final = "FLOOR"
"""The code of the regime that holds everywhere: what the company's own policy promises."""


class Demands(NamedTuple):
    """What a country's rules want of the mail itself.

    The first promotional message `states_objection` (GDPR 21(4)); it is `untracked`, by ourselves too (ePrivacy 5(3));
    essential mail that is commercial has a `commercial_footer` (CASL 6(2), 6(6)).
    """

    states_objection: bool = False
    untracked: bool = False
    commercial_footer: bool = False


@dataclass(frozen=True, slots=True)
class Regime:
    """One jurisdiction's rules.

    `bases` are what it accepts for promotional mail; a basis in `lapses` is good for that long, to the day.
    `objection_follows` says that a person's "no" covers all their addresses; `policy_acceptance` that an operator may
    let accepting the privacy policy count (POL-02), `corporate_subscribers` the same of an address that is a company's
    (LAW-UK-01); `request_states` is what a request for consent says (LAW-CA-05). `advertising` is from when on a
    message with another purpose is promotion, `surveys` that one which asks for an opinion is.
    `demands` are what mail is to be like.
    """

    code: str
    name: str
    version: str
    countries: frozenset[str]
    bases: frozenset[Basis]
    lapses: Mapping[Basis, Period] = field(default_factory=dict, hash=False)
    objection_follows: bool = True
    policy_acceptance: bool = False
    corporate_subscribers: bool = False
    citations: tuple[str, ...] = ()
    request_states: tuple[str, ...] = ()
    advertising: Advertising = Advertising.PRIMARY
    surveys: bool = False
    demands: Demands = field(default=Demands())

    def __str__(self) -> str:
        return f"{self.code}/{self.version}"

    def lapses_at(self, basis: Basis, at: datetime) -> datetime | None:
        """Return when a permission lapses: as the anniversary begins, in UTC, since that day is refused (LAW-CA-01)."""
        period = self.lapses.get(basis)
        return period and period.after(at).replace(hour=0, minute=0, second=0, microsecond=0)


def regime_of(raw: Mapping[str, Any]) -> Regime:
    """Build a regime from a parsed TOML file; raises `ValueError` with a sentence for what it cannot mean."""
    try:
        return Regime(
            code=raw["code"],
            name=raw["name"],
            version=raw["version"],
            countries=frozenset(raw["countries"]),
            bases=frozenset(Basis(one) for one in raw["bases"]),
            lapses={Basis(name): Period.parse(text) for name, text in raw.get("lapses", {}).items()},
            objection_follows=raw.get("objection_follows", True),
            policy_acceptance=raw.get("policy_acceptance", False),
            corporate_subscribers=raw.get("corporate_subscribers", False),
            citations=tuple(raw["citations"]),
            request_states=tuple(raw.get("request_states", ())),
            advertising=Advertising(raw.get("advertising", Advertising.PRIMARY)),
            surveys=raw.get("surveys_advertise", False),
            demands=Demands(*(raw.get(one, False) for one in Demands._fields)),
        )
    except KeyError as error:
        raise ValueError(f"the regime lacks {error}") from error


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A version of the privacy policy; in `reconsent` countries consent from before it is over (POL-12)."""

    version: str
    effective: datetime
    reconsent: tuple[str, ...] = ()


def in_force(policies: Iterable[PolicyVersion], at: datetime) -> str:
    """Return the version of the privacy policy that was in force at a time; "" where none was published for it."""
    begun = [one for one in policies if one.effective <= at]
    return max(begun, key=lambda one: one.effective).version if begun else ""


class Jurisdiction(NamedTuple):
    """One set of rules that a person may be under: whose, and for which country ("" for the floor everywhere)."""

    country: str
    regime: Regime
    bases: frozenset[Basis]


@dataclass(frozen=True, eq=False, slots=True)
class Law:
    """Everything by which decisions are made that is not about one person.

    `require` is "express" (the floor always holds) or "regime"; `policy_accepted_in` are the countries where accepting
    the policy counts, `corporate_in` those where a company's own address needs no opt-in, `free_accounts` whether an
    account that cost nothing is a sale (LAW-EU-04).
    """

    regimes: tuple[Regime, ...]
    require: str = "express"
    markets: tuple[str, ...] = ()
    policy_accepted_in: frozenset[str] = frozenset()
    corporate_in: frozenset[str] = frozenset()
    free_accounts: bool = False
    policies: tuple[PolicyVersion, ...] = ()

    def under(self, policies: tuple[PolicyVersion, ...]) -> Law:
        """Return the same law with the policy versions that have been published."""
        return _under(self, policies) if policies else self

    def jurisdictions(self, places: tuple[Place, ...]) -> tuple[Jurisdiction, ...]:
        """Return every set of rules that must be content with mail to a person who may be in these places."""
        return _jurisdictions(self, places)

    def names(self, places: tuple[Place, ...]) -> str:
        """Return the names and versions of those rules, as a verdict tells them (LAW-XX-03)."""
        return _names(self, places)

    def advertising(self, places: tuple[Place, ...]) -> tuple[Advertising, bool]:
        """Return from when on mail to these places is promotion, by the strictest rules, and whether a survey is."""
        return _advertising(self, places)

    def demands(self, places: tuple[Place, ...]) -> Demands:
        """Return what mail to a person who may be in these places must be like: all that any of those rules want."""
        return _demands(self, places)

    def reconsents_due(self, country: str, now: datetime) -> Iterable[PolicyVersion]:
        """Return the policy versions in force that ask people of a country for consent anew."""
        return (one for one in self.policies if country in one.reconsent and one.effective <= now)

    def follows(self, places: tuple[Place, ...]) -> bool:
        """True where a "no" from one address of a person covers the others too (SUP-05)."""
        applied = [one.regime for one in self.jurisdictions(places) if one.country]
        return not applied or any(one.objection_follows for one in applied)

    def _worked_out(self, places: tuple[Place, ...]) -> tuple[Jurisdiction, ...]:
        countries = self._countries(places)
        applied = [(country, one) for country in countries for one in self._rules_of(country)]
        if self.require == "express" or not applied:
            applied.insert(0, ("", self._floor))
        further = self._further_bases(places, countries)
        return tuple(Jurisdiction(country, one, self._bases(one, further)) for country, one in applied)

    def _rules_of(self, country: str) -> Sequence[Regime]:
        """Where no rules of a country are known the company's own promise stands in for them."""
        return [one for one in self.regimes if country in one.countries] or [self._floor]

    def _countries(self, places: Sequence[Place]) -> tuple[str, ...]:
        """What was declared, or else every market; and whatever else points at a country."""
        declared = [one.country for one in places if one.source is Source.DECLARED]
        return tuple(dict.fromkeys([*(declared or self.markets), *(one.country for one in places)]))

    def _further_bases(self, places: Sequence[Place], countries: Sequence[str]) -> frozenset[Basis]:
        """Return what an operator lets count wherever the person may be; the company's own promise yields to it.

        Accepting the policy counts for nobody who has declared no country, wherever the company mails (POL-02).
        """
        switched = {Basis.CORPORATE: self.corporate_in}
        if any(one.source is Source.DECLARED for one in places):
            switched[Basis.POLICY_ACCEPTED] = self.policy_accepted_in
        return frozenset(
            basis for basis, switched_on in switched.items() if countries and switched_on.issuperset(countries)
        )

    def _bases(self, regime: Regime, further: frozenset[Basis]) -> frozenset[Basis]:
        is_free = self.free_accounts and Basis.SALE in regime.bases
        return regime.bases | further | ({Basis.FREE_SALE} if is_free else set())

    @property
    def _floor(self) -> Regime:
        return next(one for one in self.regimes if one.code == FLOOR)

    def request_states(self, places: Iterable[Place], country: str = "", seen_in: str = "") -> tuple[str, ...]:
        """Return what a request for consent has to say, by the rules of each country that the person may be in.

        `places` are what was known before, `country` is declared with the answer and `seen_in` that of its IP address.
        """
        news = {source: one for source, one in ((Source.DECLARED, country), (Source.IP, seen_in)) if one}
        countries = {*news.values(), *(one.country for one in places if one.source not in news)}
        applied = (one for one in self.regimes if not countries.isdisjoint(one.countries))
        return tuple(dict.fromkeys(said for one in applied for said in one.request_states))

    def may_accept_policy(self, country: str) -> bool:
        """True where every rule of a country leaves it to the operator whether accepting the policy counts."""
        rules = [one for one in self.regimes if country in one.countries]
        return bool(rules) and all(one.policy_acceptance for one in rules)

    def may_mail_companies(self, country: str) -> bool:
        """True where every rule of a country leaves it to the operator to mail companies without an opt-in."""
        rules = [one for one in self.regimes if country in one.countries]
        return bool(rules) and all(one.corporate_subscribers for one in rules)


@lru_cache(maxsize=16)
def _under(law: Law, policies: tuple[PolicyVersion, ...]) -> Law:
    return replace(law, policies=policies)


@lru_cache(maxsize=4096)
def _jurisdictions(law: Law, places: tuple[Place, ...]) -> tuple[Jurisdiction, ...]:
    return law._worked_out(places)


@lru_cache(maxsize=4096)
def _names(law: Law, places: tuple[Place, ...]) -> str:
    return " ".join(dict.fromkeys(str(one.regime) for one in law.jurisdictions(places)))


@lru_cache(maxsize=4096)
def _advertising(law: Law, places: tuple[Place, ...]) -> tuple[Advertising, bool]:
    applied = [one.regime for one in law.jurisdictions(places)]
    measures = (one.advertising for one in applied)
    return reduce(Advertising.or_stricter, measures, Advertising.PRIMARY), any(one.surveys for one in applied)


@lru_cache(maxsize=4096)
def _demands(law: Law, places: tuple[Place, ...]) -> Demands:
    wanted = [one.regime.demands for one in law.jurisdictions(places)]
    return Demands(*(any(column) for column in zip(*wanted, strict=True)))
