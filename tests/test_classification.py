"""How well messages are read that the signals were not written from; docs/classification.md tells it in full."""

from __future__ import annotations

import pytest

from gateway.headers import split
from gateway.model import MessageClass, Stream, Treatment
from gateway.promotion import read
from tests.classification.gather import Labelled, corpus
from tests.classification.judge import PROMOTIONAL, TRANSACTIONAL, Judged, Share, flagged, judged

MOST_STOPPED, FEWEST_CAUGHT = 0.01, 0.90


@pytest.fixture(scope="module")
def messages() -> list[Labelled]:
    return corpus()


@pytest.fixture(scope="module")
def judging(messages: list[Labelled]) -> list[Judged]:
    return judged(one for one in messages if one.part == "judging")


def test_no_source_is_both_tuned_on_and_judged(messages: list[Labelled]) -> None:
    sources = [{one.source for one in messages if one.part == part} for part in ("tuning", "judging")]
    assert all(sources) and not sources[0] & sources[1]
    texts = [{one.plain + one.html for one in messages if one.part == part} for part in ("tuning", "judging")]
    assert not texts[0] & texts[1]


def test_enough_is_judged_and_each_names_its_licence(messages: list[Labelled], judging: list[Judged]) -> None:
    assert flagged(judging, TRANSACTIONAL).total >= 200
    assert flagged(judging, PROMOTIONAL).total >= 100
    assert all(one.licence and one.path and one.plain + one.html for one in messages)


@pytest.mark.req("CLS-14")
def test_at_most_one_percent_of_transactional_mail_is_stopped_where_a_stream_refuses(judging: list[Judged]) -> None:
    stopped = flagged(judging, TRANSACTIONAL)
    assert stopped.value <= MOST_STOPPED, stopped


@pytest.mark.req("CLS-14")
def test_no_account_or_requested_mail_is_stopped_where_a_stream_says_nothing() -> None:
    for kind in (MessageClass.ACCOUNT, MessageClass.REQUESTED):
        assert Stream("any", kind).treatment_of(kind) is Treatment.REPORT


@pytest.mark.req("CLS-14")
def test_nine_in_ten_promotional_mails_that_are_called_essential_are_caught(judging: list[Judged]) -> None:
    caught = flagged(judging, PROMOTIONAL)
    assert caught.value >= FEWEST_CAUGHT, caught


@pytest.mark.req("CLS-06")
def test_the_same_octets_give_the_same_finding(messages: list[Labelled], judging: list[Judged]) -> None:
    for one in judging[::20]:
        octets = one.labelled.message()
        assert read(octets, split(octets)) == one.reading


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [(Share(0, 10), 0.0, 0.2775), (Share(5, 10), 0.2366, 0.7634), (Share(98, 100), 0.9300, 0.9945)],
)
def test_the_intervals_are_wilsons(share: Share, low: float, high: float) -> None:
    assert share.interval == pytest.approx((low, high), abs=1e-3)
