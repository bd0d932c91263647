"""Counts that several processes keep together: each in its own row, all of them added up, fading with time."""

from __future__ import annotations

import os

import pytest

from gateway.listener.tally import PLACES, SharedTally, Tally


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pair(fade: float | None = None, clock: Clock | None = None) -> tuple[Tally, Tally]:
    shared = SharedTally(2, fade)
    return shared.own(0, clock or Clock()), shared.own(1, clock or Clock())


def test_everybody_sees_the_sum_and_what_the_others_have_counted() -> None:
    one, other = pair()
    one.add("a")
    one.add("a")
    other.add("a", 3)
    other.put("b", 7)
    assert (one.level("a"), one.elsewhere("a"), other.elsewhere("a")) == (5, 3, 2)
    assert (one.level("b"), one.elsewhere("b"), other.elsewhere("b"), one.level("c")) == (7, 7, 0, 0)


def test_another_process_counts_in_the_same_memory() -> None:
    one, other = pair()
    child = os.fork()
    if not child:
        other.add("a", 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert one.level("a") == 2


def test_a_count_fades_as_the_sum_of_all_that_was_counted_when_it_was() -> None:
    clock = Clock()
    one, other = pair(fade=60, clock=clock)
    one.add("a", 10)
    clock.now += 60
    assert one.level("a") == pytest.approx(10 / 2.71828, rel=1e-4)
    other.add("a", 1)
    one.add("a", 1)
    assert one.level("a") == pytest.approx(10 / 2.71828 + 2, rel=1e-4)
    clock.now += 3600
    assert one.level("a") < 1e-20


def test_what_is_put_to_nothing_leaves_its_place() -> None:
    one, other = pair()
    for number in range(4 * PLACES):
        one.put(str(number), 1)
        one.put(str(number), 0)
    one.put("a", 1)
    assert other.level("a") == 1
    one.clear()
    assert other.level("a") == 0


def test_a_full_row_keeps_the_greatest_counts() -> None:
    one, _ = pair()
    for number in range(100):
        one.put(f"great {number}", 50)
    for number in range(3 * PLACES):
        one.add(f"small {number}")
    assert [one.level(f"great {number}") for number in range(100)] == [50] * 100
