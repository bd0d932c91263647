"""What came of a span of time, in numbers: mail in, mail out, who was refused and why, and how fast a "no" took effect.

The one rule: every number is a count of lines that are on record, so that whoever counts again comes to the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.consent import Event, EventType
from gateway.model import Action, MessageClass, Outcome, Reason

_OPT_OUTS = frozenset({EventType.UNSUBSCRIBE, EventType.OBJECTION, EventType.COMPLAINT})
_OPT_INS = frozenset({EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED, EventType.SUPPRESSION_LIFTED})


BY_THE_HOUR: Final = timedelta(days=3)
"""Up to how long a span is told hour by hour; a longer one day by day."""


@dataclass(slots=True)
class Step:
    """One hour's or one day's recipients: relayed and refused, and how many opted out."""

    relayed: int = 0
    refused: int = 0
    opt_outs: int = 0


@dataclass(slots=True)
class Activity:
    """What happened from `since` until `until`; mail is counted by recipient.

    `refused` are verdicts at the door by reason and login, `put_off` are those that were told to come again, by reason,
    `stopped` those of mail that had been taken, by reason.
    `flagged` are those of mail whose words were found to be promotion, or to claim what it must not, by stream, login
    and what was found; `held` those among them that waited for an operator, by stream.
    `opt_outs` are by channel; `slowest` is the longest from a "no" until it was recorded, `latest_after` the longest
    after that at which promotion on its topic still left, None where none did.
    """

    since: datetime
    until: datetime
    submitted: int = 0
    relayed: int = 0
    deferred: int = 0
    failed: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    put_off: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    flagged: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    refused_promotion: int = 0
    expired_people: int = 0
    opt_ins: int = 0
    opt_outs: Counter[str] = field(default_factory=Counter)
    complaints: int = 0
    erasures: int = 0
    slowest: timedelta | None = None
    latest_after: timedelta | None = None
    steps: dict[int, Step] = field(default_factory=lambda: defaultdict(Step))
    """By their place in the span."""

    @property
    def step(self) -> timedelta:
        """How long a step is: an hour, or a day."""
        return timedelta(hours=1) if self.until - self.since <= BY_THE_HOUR else timedelta(days=1)

    def at(self, moment: datetime) -> Step:
        """Return the step of a moment."""
        return self.steps[(moment - self.since) // self.step]

    def timeline(self) -> list[dict[str, Any]]:
        """Return every step of the span as JSON can tell it, those in which nothing happened too."""
        count = -((self.since - self.until) // self.step)
        return [
            {"from": _second(self.since + n * self.step), **asdict(self.steps.get(n, Step()))} for n in range(count)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "since": _second(self.since),
            "until": _second(self.until),
            "submitted": self.submitted,
            "relayed": self.relayed,
            "deferred": self.deferred,
            "failed": self.failed,
            "refused": [
                {"reason": reason, "login": login, "recipients": count}
                for (reason, login), count in self.refused.most_common()
            ],
            "content_flagged": [
                {"stream": stream, "login": login, "found": found, "recipients": count}
                for (stream, login, found), count in self.flagged.most_common()
            ],
            "held_for_content": dict(self.held.most_common()),
            "refused_promotion": self.refused_promotion,
            "put_off_at_the_door": dict(self.put_off.most_common()),
            "stopped_after_it_was_taken": dict(self.stopped.most_common()),
            "people_whose_consent_had_expired": self.expired_people,
            "opt_ins": self.opt_ins,
            "opt_outs": dict(self.opt_outs.most_common()),
            "complaints": self.complaints,
            "erasures": self.erasures,
            "slowest_opt_out_seconds": _seconds(self.slowest),
            "latest_promotion_after_an_opt_out_seconds": _seconds(self.latest_after),
            "timeline": self.timeline(),
        }


def gather(events: Iterable[Event], lines: Iterable[Mapping[str, Any]], since: datetime, until: datetime) -> Activity:
    """Count what the ledger's events and the decision lines of a span say."""
    activity = Activity(since, until)
    wishes: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        _count_event(activity, event)
        if event.type in _OPT_OUTS | _OPT_INS:
            wishes[event.address_id.hex()].append(event)
    expired: set[str] = set()
    for line in lines:
        _count_line(activity, line)
        if line.get("reason") == Reason.EXPIRED:
            expired.add(line["who"])
        if line["kind"] == "attempt" and line["outcome"] == Outcome.RELAYED:
            _see_whether_late(activity, line, wishes.get(line["who"], ()))
    activity.expired_people = len(expired)
    return activity


def _count_event(activity: Activity, event: Event) -> None:
    if event.type in _OPT_INS:
        activity.opt_ins += event.type is not EventType.SUPPRESSION_LIFTED
    elif event.type in _OPT_OUTS:
        activity.opt_outs[str(event.facts.get("channel", "unknown"))] += 1
        activity.complaints += event.type is EventType.COMPLAINT
        activity.at(event.recorded_at).opt_outs += 1
        if "import" not in event.facts:
            activity.slowest = max(activity.slowest or timedelta(0), event.recorded_at - event.at)
    elif event.type is EventType.ERASURE:
        activity.erasures += 1


def _count_line(activity: Activity, line: Mapping[str, Any]) -> None:
    step = activity.at(datetime.fromisoformat(line["at"]))
    is_refusal = line.get("action") == Action.REFUSE.value
    if line["kind"] == "door":
        activity.submitted += 1
        for found in line.get("content", ()):
            activity.flagged[line["stream"], line["login"], found.partition(":")[0]] += 1
        if line["action"] == Action.HOLD.value:
            activity.held[line["stream"]] += 1
        if line["action"] == Action.DEFER.value:
            activity.put_off[str(line["reason"])] += 1
        if is_refusal:
            activity.refused[str(line["reason"]), line["login"]] += 1
            activity.refused_promotion += line["class"] in (None, MessageClass.PROMOTIONAL)
            step.refused += 1
    elif line["kind"] == "attempt":
        outcome = line["outcome"]
        if is_refusal:
            activity.stopped[str(line["reason"])] += 1
        activity.relayed += outcome == Outcome.RELAYED
        activity.deferred += outcome == Outcome.DEFERRED
        activity.failed += outcome in (Outcome.FAILED, Outcome.EXPIRED) and not is_refusal
        step.relayed += outcome == Outcome.RELAYED


def _see_whether_late(activity: Activity, line: Mapping[str, Any], wishes: Iterable[Event]) -> None:
    """Promotion that left after its recipient's "no" had been recorded, and before any new "yes", was late."""
    if line["class"] != MessageClass.PROMOTIONAL:
        return
    at = datetime.fromisoformat(line["at"])
    said = [one for one in wishes if one.recorded_at <= at and (not one.topic or one.topic == line["topic"])]
    if said and said[-1].type in _OPT_OUTS:
        activity.latest_after = max(activity.latest_after or timedelta(0), at - said[-1].recorded_at)


def _second(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)
