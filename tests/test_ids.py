"""Ids: they sort by time, read back, and no two workers make the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import SPOOL_TEXT_LENGTH, Ids, spool_number, spool_text, ulid, ulid_milliseconds

START = datetime(2026, 11, 22, tzinfo=UTC)
MILLISECONDS = st.integers(0, 2**48 - 1)


def test_a_ulid_is_the_one_of_the_specification() -> None:
    assert ulid(0, 0) == "0" * 26
    assert ulid(2**48 - 1, 2**80 - 1) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    assert ulid(1469918176385, 0) == "01ARYZ6S410000000000000000"


@given(MILLISECONDS, st.integers(0, 2**80 - 1))
def test_a_ulid_tells_its_time_in_either_case(milliseconds: int, randomness: int) -> None:
    text = ulid(milliseconds, randomness)
    assert len(text) == 26
    assert ulid_milliseconds(text) == ulid_milliseconds(text.lower()) == milliseconds


@given(MILLISECONDS, MILLISECONDS)
def test_ulids_sort_by_time(one: int, other: int) -> None:
    texts = ulid(one, 2**80 - 1), ulid(other, 0)
    assert (texts[0] < texts[1]) == (one < other)


@given(st.integers(0, 2**63 - 1))
def test_a_spool_id_is_read_back(number: int) -> None:
    text = spool_text(number)
    assert len(text) == SPOOL_TEXT_LENGTH
    assert spool_number(text) == spool_number(text.lower()) == number


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_spool_ids_sort_as_text_as_they_do_as_numbers(numbers: list[int]) -> None:
    assert [spool_number(text) for text in sorted(map(spool_text, numbers))] == sorted(numbers)


@pytest.mark.parametrize("text", ["", "0", "U" * 13, "é" * 13, "0" * 12 + " ", "../../../etc/"])
def test_what_is_no_queue_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"queue id|substring"):
        spool_number(text)


@pytest.mark.parametrize("text", ["", "0" * 25, "0" * 27, "I" * 26, "é" * 26])
def test_what_is_no_decision_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"decision id|substring"):
        ulid_milliseconds(text)


def test_no_two_workers_make_the_same_id_at_one_instant() -> None:
    made = [ids.spool() for ids in (Ids(slot, lambda: START) for slot in range(128)) for _ in range(50)]
    assert len(set(made)) == len(made)
    assert all(0 < one < 2**63 for one in made)


def test_a_worker_makes_sixteen_thousand_ids_in_one_millisecond() -> None:
    ids = Ids(127, lambda: START)
    assert len({ids.spool() for _ in range(2**14)}) == 2**14


def test_ids_are_in_the_order_of_time() -> None:
    now = [START]
    ids = Ids(5, lambda: now[0])
    made = []
    for _ in range(20):
        now[0] += timedelta(milliseconds=1)
        made.append((ids.spool(), ids.decision()))
    assert made == sorted(made)
    assert ulid_milliseconds(made[-1][1]) == int(now[0].timestamp() * 1000)


def test_ids_fit_in_63_bits_until_the_year_2109() -> None:
    assert Ids(127, lambda: datetime(2109, 5, 1, tzinfo=UTC)).spool() < 2**63
