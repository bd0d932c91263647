"""A decision of the past, made again: with what was known then, and with what has become known since (CON-01, CON-08).

The rule that must not be broken: what was known at a moment is what had been recorded by then, whatever time an event
claims for itself. It decides with `policy` and nothing else; where a history comes from is left to whoever asks, as
is when each import was complete (`completed`, a time to come for one that is not): its consents count from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain

from gateway.consent import Event, EventType, Standing, Suppression, fold
from gateway.law import Law
from gateway.model import Action, Purpose, Reason, Topic, Verdict
from gateway.policy import CONSENTS, LACKS_CONSENT, decide

Completed = Mapping[int, datetime]


@dataclass(frozen=True, slots=True)
class History:
    """A person's own events, and those of others whose "no" covers the person too, in the order of the ledger each.

    `listed` is what lists of digests hold for an address of which there are no events yet.
    """

    own: Sequence[Event]
    wider: Sequence[Event] = ()
    listed: Sequence[Suppression] = ()

    def __iter__(self) -> Iterator[Event]:
        return chain(self.own, self.wider)


ON_ITS_WAY = timedelta(minutes=10)
"""How long a copy may have been under way between its decision and the line that says so (RFC 5321 §4.5.3.2.6)."""


@dataclass(frozen=True, slots=True)
class Hindsight:
    """A decision seen from later: `then` with what was known at the moment, `now` with what is known of that moment.

    `told_late` is the "no" that the person had said before mail was allowed, and that reached us only later.
    """

    then: Verdict
    now: Verdict
    told_late: Event | None


def known_at(history: History, moment: datetime, completed: Completed) -> Standing:
    """Return what stood for a person at a moment, as far as it had been recorded then."""
    standing = _amount_to(history, moment, lambda one: one.recorded_at <= moment)
    return standing.counting({number for number, at in completed.items() if at > moment})


def true_at(history: History, moment: datetime) -> Standing:
    """Return what stood for a person at a moment, by everything that has been recorded up to now.

    An import that was undone later had never been right.
    """
    return _amount_to(history, moment, lambda one: one.at <= moment or one.type is EventType.IMPORT_UNDONE)


def _amount_to(history: History, moment: datetime, counts: Callable[[Event], bool]) -> Standing:
    """Fold what counts of a person's events, and take over the "no" of whoever else covers them, never their "yes"."""
    others: dict[bytes, list[Event]] = {}
    for event in filter(counts, history.wider):
        others.setdefault(event.address_id, []).append(event)
    own = fold(filter(counts, history.own))
    wider = [suppression for one in others.values() for suppression in fold(one).suppressions]
    wider += [one for one in history.listed if one.at <= moment]
    return replace(own, suppressions=(*own.suppressions, *wider)) if wider else own


def look_back(purpose: Purpose, history: History, law: Law, moment: datetime, completed: Completed) -> Hindsight:
    """Decide for promotion at a moment of the past, with what was known then and with what is known now."""
    then = decide(purpose, known_at(history, moment, completed), law, moment)
    now = decide(purpose, true_at(history, moment), law, moment)
    late = None
    if then.may_send and not now.may_send and now.reason not in LACKS_CONSENT:
        late = next((one for one in history if one.seq in now.evidence and one.recorded_at > moment), None)
    return Hindsight(then, now, late)


def lapses(topic: Topic, standing: Standing, law: Law) -> dict[int, datetime]:
    """Return when each permission of a standing lapses by time: by the topic's rule or the strictest country's."""
    regimes = [one.regime for one in law.jurisdictions(standing.places)]
    ends = dict[int, datetime]()
    for one in standing.permissions:
        found = [end for regime in regimes if (end := regime.lapses_at(one.basis, one.at))]
        found += [topic.max_age.after(one.at)] if topic.max_age and one.basis in CONSENTS else []
        if found:
            ends[one.event] = min(found)
    return ends


def decide_again(
    purpose: Purpose,
    history: History,
    law: Law,
    line: Verdict,
    at: datetime,
    is_test: bool,
    completed: Completed,
) -> tuple[Verdict, datetime]:
    """Make a decision of the log again; return what comes out, and the moment that it was made with.

    A line is written when a copy has gone, and what reached us while it was on its way had no part in the decision.
    """
    meanwhile = [one.recorded_at for one in history if at - ON_ITS_WAY <= one.recorded_at <= at]
    moments = [at, *(one - timedelta(microseconds=1) for one in sorted(meanwhile, reverse=True))]
    made = [(decide(purpose, known_at(history, one, completed), law, one, is_test), one) for one in moments]
    return next(((verdict, one) for verdict, one in made if is_same(verdict, line)), made[0])


def is_same(one: Verdict, other: Verdict) -> bool:
    """True where two verdicts say the same for the same reason on the same evidence, whatever the rules were called."""
    return (one.action, one.reason, set(one.evidence)) == (other.action, other.reason, set(other.evidence))


def was_decided(action: str, reason: str | None, evidence: Sequence[int], rules: str) -> Verdict:
    """Return the verdict of a line of the decision log, as far as it can be compared."""
    return Verdict(Action(action), Reason(reason) if reason else None, "", tuple(evidence), rules)
