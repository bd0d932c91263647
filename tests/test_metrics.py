"""Counters: rows of one shared block that add up, in names that are fixed beforehand."""

from __future__ import annotations

import os
import re

import pytest

from gateway.metrics import Board
from gateway.model import Action, MessageClass, Outcome, Reason, Verdict

SAMPLE = re.compile(r'(assent_[a-z_]+)(?:\{(?:[a-z]+="[a-z-]*",?)+\})? (\d+)')
REFUSED = Verdict(Action.REFUSE, Reason.NO_CONSENT)


def samples(board: Board) -> dict[str, int]:
    lines = [line for line in board.text().splitlines() if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in lines), lines
    return {name: int(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_rows_of_all_workers_add_up() -> None:
    board = Board(3)
    for worker in range(3):
        for _ in range(worker + 1):
            board.row(worker).message_accepted()
    assert samples(board)["assent_messages_accepted_total"] == 6


def test_what_a_forked_worker_counts_is_seen_by_whoever_is_asked() -> None:
    board = Board(2)
    pid = os.fork()
    if pid == 0:
        try:
            board.row(1).unsubscribed()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    board.row(0).unsubscribed()
    assert samples(board)["assent_unsubscribes_total"] == 2


def test_verdicts_are_counted_by_class_action_and_reason() -> None:
    board = Board(1)
    row = board.row(0)
    row.decided(MessageClass.PROMOTIONAL, REFUSED)
    row.decided(MessageClass.PROMOTIONAL, REFUSED)
    row.decided(None, REFUSED)
    row.decided(MessageClass.ACCOUNT, Verdict(Action.SEND))
    row.attempted(Outcome.RELAYED)
    found = samples(board)
    assert found['assent_decisions_total{class="promotional",action="refuse",reason="no-consent"}'] == 2
    assert found['assent_decisions_total{class="unknown",action="refuse",reason="no-consent"}'] == 1
    assert found['assent_decisions_total{class="account",action="send",reason=""}'] == 1
    assert found['assent_attempts_total{outcome="relayed"}'] == 1
    assert sum(found.values()) == 5


def test_every_verdict_and_outcome_has_a_counter_of_its_own() -> None:
    board = Board(1)
    for message_class in (None, *MessageClass):
        for action in Action:
            for reason in (None, *Reason):
                board.row(0).decided(message_class, Verdict(action, reason))
    for outcome in Outcome:
        board.row(0).attempted(outcome)
    moved = {name: value for name, value in samples(board).items() if value}
    assert set(moved.values()) == {1}
    assert len(moved) == (len(MessageClass) + 1) * len(Action) * (len(Reason) + 1) + len(Outcome)


def test_plain_counters_stand_at_zero_from_the_start() -> None:
    board = Board(1)
    assert set(samples(board).values()) == {0}
    board.row(0).login_refused()
    board.row(0).smarthost_unavailable()
    assert [name for name, value in samples(board).items() if value] == [
        *("assent_logins_refused_total", "assent_smarthost_unavailable_total"),
    ]


@pytest.mark.req("OPS-09")
def test_the_text_is_prometheus_text_and_holds_no_address() -> None:
    board = Board(1)
    board.row(0).decided(MessageClass.PROMOTIONAL, Verdict(Action.REFUSE, Reason.OBJECTED, "bob@example.org said no"))
    lines = board.text().splitlines()
    assert board.text().endswith("\n")
    assert "bob" not in board.text() and "@" not in board.text()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
    for family in families:
        assert lines[lines.index(f"# TYPE {family} counter") - 1].startswith(f"# HELP {family} ")
