"""Counters of the whole machine, in the text that Prometheus reads.

Every worker counts in its own row of one shared block of memory, so counting costs no lock and no message between
processes; whoever is asked adds the rows up. No address, token or subject can get in: the names are fixed
(OPS-09).
"""

from __future__ import annotations

import mmap
from itertools import product

from gateway.model import Action, MessageClass, Outcome, Reason, Verdict

_PLAIN = {
    "assent_messages_accepted_total": "Messages that were acknowledged with 250.",
    "assent_logins_refused_total": "Failed attempts to log in.",
    "assent_unsubscribes_total": "Opt-outs that came by the site, by mail or by the API.",
    "assent_streams_paused_total": "Times a stream was paused by its brake, until an operator releases it.",
    "assent_smarthost_unavailable_total": "Times a copy had to wait because no smarthost could be reached.",
    "assent_answers_lost_total": "Recipients who may have got a copy whose answer was lost; they are tried again.",
}
_DECISIONS = "assent_decisions_total"
_ATTEMPTS = "assent_attempts_total"
_CONTENT = "assent_content_flagged_total"
_HELP = {
    **_PLAIN,
    _DECISIONS: "Verdicts at the door, one a recipient.",
    _ATTEMPTS: "Attempts to relay a copy, by how they ended.",
    _CONTENT: "Recipients of mail whose words were found to be promotion, or to claim what promotion must not.",
}


def _decision_key(message_class: MessageClass | None, action: Action, reason: Reason | None) -> str:
    return f'{_DECISIONS}{{class="{message_class or "unknown"}",action="{action.value}",reason="{reason or ""}"}}'


def _content_key(message_class: MessageClass | None) -> str:
    return f'{_CONTENT}{{class="{message_class or "unknown"}"}}'


def _attempt_key(outcome: Outcome) -> str:
    return f'{_ATTEMPTS}{{outcome="{outcome}"}}'


_SERIES = [
    *_PLAIN,
    *(_decision_key(*one) for one in product((None, *MessageClass), Action, (None, *Reason))),
    *(_attempt_key(one) for one in Outcome),
    *(_content_key(one) for one in (None, *MessageClass)),
]
_INDEX = {name: number for number, name in enumerate(_SERIES)}
_WIDTH = len(_SERIES)


class Board:
    """The shared block: made by the supervisor before it forks, one row a slot, which is one worker's at a time."""

    def __init__(self, slots: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, slots * _WIDTH * 8)).cast("Q")

    def row(self, slot: int) -> Metrics:
        return Metrics(self._cells[slot * _WIDTH : (slot + 1) * _WIDTH])

    def text(self) -> str:
        """Return every counter that has moved, in the Prometheus text exposition format 0.0.4."""
        totals = {name: sum(self._cells[at::_WIDTH]) for name, at in _INDEX.items()}
        lines: list[str] = []
        for family, help_text in _HELP.items():
            lines += [f"# HELP {family} {help_text}", f"# TYPE {family} counter"]
            lines += [
                f"{name} {total}"
                for name, total in totals.items()
                if name.partition("{")[0] == family and (total or name in _PLAIN)
            ]
        return "\n".join(lines) + "\n"


class Metrics:
    """One worker's row."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def message_accepted(self) -> None:
        self._add("assent_messages_accepted_total")

    def login_refused(self) -> None:
        self._add("assent_logins_refused_total")

    def unsubscribed(self) -> None:
        self._add("assent_unsubscribes_total")

    def stream_paused(self) -> None:
        self._add("assent_streams_paused_total")

    def smarthost_unavailable(self) -> None:
        self._add("assent_smarthost_unavailable_total")

    def answer_lost(self) -> None:
        self._add("assent_answers_lost_total")

    def decided(self, message_class: MessageClass | None, verdict: Verdict) -> None:
        self._cells[_DECISION_INDEX[message_class, verdict.action, verdict.reason]] += 1
        if verdict.content:
            self._add(_content_key(message_class))

    def attempted(self, outcome: Outcome) -> None:
        self._cells[_ATTEMPT_INDEX[outcome]] += 1

    def _add(self, name: str) -> None:
        self._cells[_INDEX[name]] += 1


_DECISION_INDEX = {key: _INDEX[_decision_key(*key)] for key in product((None, *MessageClass), Action, (None, *Reason))}
_ATTEMPT_INDEX = {outcome: _INDEX[_attempt_key(outcome)] for outcome in Outcome}
