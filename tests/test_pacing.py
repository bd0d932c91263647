"""A destination that asks us to slow down: it alone is served more slowly, and only for as long as it wants that."""

from __future__ import annotations

import pytest

from gateway.model import Reply
from gateway.pacing import FIRST_REST, LONGEST_REST, Paces

SLOWER = Reply(421, "4.7.28", "unusual rate of mail")
TAKEN = Reply(250, "2.0.0", "ok")


def slowed(times: int = 1, now: float = 0.0) -> tuple[Paces, float]:
    """Return paces of a destination that has refused so many copies in turn, and when the last one was."""
    paces = Paces()
    paces.heard("busy.example", SLOWER, now)
    for _ in range(times - 1):
        now += LONGEST_REST
        assert paces.wait("busy.example", now) == 0
        paces.heard("busy.example", SLOWER, now)
    return paces, now


def rest(paces: Paces, now: float) -> float:
    """Return how many seconds later a copy may go again."""
    return next(second for second in range(int(LONGEST_REST) + 1) if not paces.wait("busy.example", now + second))


def test_nobody_waits_before_somebody_asks() -> None:
    paces = Paces()
    paces.heard("a.example", TAKEN, 0)
    assert not paces
    assert paces.wait("a.example", 0) == 0


def test_only_the_destination_that_asked_is_slowed_down() -> None:
    paces, now = slowed()
    assert paces.wait("busy.example", now) > 0
    assert paces.wait("other.example", now) == 0


@pytest.mark.parametrize(
    ("reply", "slows"),
    [
        (SLOWER, True),
        (Reply(451, "4.7.1", "greylisted"), True),
        (Reply(421, "", "too many connections"), True),
        (Reply(421, "4.3.2", "the smarthost is shutting down"), False),
        (Reply(451, "4.2.2", "this mailbox is full"), False),
        (Reply(550, "5.7.1", "never"), False),
    ],
)
def test_what_concerns_the_mailbox_or_the_smarthost_slows_no_destination(reply: Reply, slows: bool) -> None:
    paces = Paces()
    paces.heard("a.example", reply, 0)
    assert (paces.wait("a.example", 0) > 0) is slows


def test_after_the_rest_one_copy_finds_out_and_the_others_wait() -> None:
    paces, now = slowed()
    now += FIRST_REST
    assert [paces.wait("busy.example", now) > 0 for _ in range(3)] == [False, True, True]


def test_each_refusal_doubles_the_rest_up_to_a_limit() -> None:
    rests = [rest(*slowed(times)) for times in range(1, 10)]
    assert rests[:4] == [FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST, 8 * FIRST_REST]
    assert rests[-1] == LONGEST_REST


def test_copies_that_were_under_way_already_say_nothing_new() -> None:
    paces, now = slowed()
    for _ in range(9):
        paces.heard("busy.example", SLOWER, now)
    paces.heard("busy.example", TAKEN, now)
    assert rest(paces, now) == FIRST_REST


def test_each_copy_that_is_taken_halves_the_rest_until_it_is_forgotten() -> None:
    paces, now = slowed(3)
    for _ in range(3):
        now += rest(paces, now)
        assert paces
        paces.heard("busy.example", TAKEN, now)
    assert not paces


def test_whoever_waits_is_told_later_and_later_times_but_none_beyond_the_limit() -> None:
    paces, now = slowed()
    told = [paces.wait("busy.example", now) for _ in range(500)]
    assert told == sorted(told)
    assert len(set(told)) > 100
    assert told[-1] == LONGEST_REST


def test_what_nobody_came_back_to_is_forgotten() -> None:
    paces, now = slowed()
    assert paces.wait("busy.example", now) > 0
    paces.heard("other.example", SLOWER, now + LONGEST_REST)
    assert "busy.example" in paces._paces
    paces.heard("third.example", SLOWER, now + 3 * LONGEST_REST)
    assert set(paces._paces) == {"third.example"}
