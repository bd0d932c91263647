"""The brake: refused wholesale among a campaign's last so many recipients, and never for what lies further back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.brake import LONGEST, Totals, Window
from gateway.model import Brake

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
A_HUNDRED = Brake(80, 100)


class Sending:
    """One campaign as one observer meets it: `send` counts recipients, and says whether the brake was pulled."""

    def __init__(self, brake: Brake = A_HUNDRED) -> None:
        self.window = Window(brake)
        self.recipients = self.refused = 0
        self.now = START

    def send(self, verdicts: str) -> int:
        """Send to each recipient in turn, "." accepted, "x" refused; return at which one it was pulled, 0 for never."""
        for verdict in verdicts:
            if self.lump(1, int(verdict == "x")):
                return self.recipients
        return 0

    def lump(self, recipients: int, refused: int) -> bool:
        """Send one message to many."""
        self.recipients += recipients
        self.refused += refused
        if not refused:
            return False
        return self.window.observe(Totals(self.recipients, self.refused, START), recipients, refused, self.now)


def test_it_is_pulled_at_the_last_of_the_first_recipients_and_not_before() -> None:
    assert Sending().send("x" * 200) == 100
    assert Sending().send("." * 20 + "x" * 80) == 100


def test_it_is_not_pulled_where_enough_goes() -> None:
    assert Sending().send("xxx." * 1000) == 0
    assert Sending().send("." * 21 + "x" * 79 + "." * 1000) == 0


def test_a_bad_list_after_a_good_one_is_noticed_as_soon_as_it_fills_so_much_of_the_window() -> None:
    assert Sending().send("." * 1000 + "x" * 200) == 1080
    assert 1060 <= Sending().send("x." * 500 + "x" * 200) <= 1062


def test_what_is_longer_ago_than_an_hour_counts_no_more() -> None:
    sending = Sending()
    assert sending.send("x" * 99) == 0
    sending.now += LONGEST + timedelta(seconds=1)
    assert sending.send("x" * 60) == 0
    assert sending.send("x" * 60) == 80 + 99


@pytest.mark.parametrize(("recipients", "refused", "pulled"), [(1000, 800, True), (1000, 799, False), (100, 80, True)])
def test_one_message_to_many_is_judged_as_a_whole(recipients: int, refused: int, pulled: bool) -> None:
    assert Sending().lump(recipients, refused) is pulled


def test_two_observers_of_one_campaign_miss_nothing_between_them() -> None:
    """Each worker adds the rows up when somebody is refused on it."""
    windows = [Window(A_HUNDRED), Window(A_HUNDRED)]
    pulled = [windows[n % 2].observe(Totals(n, n, START), 1, 1, START) for n in range(1, 101)]
    assert pulled == [False] * 99 + [True]


@given(st.text(alphabet=".x", max_size=400), st.integers(1, 100), st.integers(1, 60))
def test_it_is_never_pulled_for_less_than_it_says(verdicts: str, percent: int, first: int) -> None:
    at = Sending(Brake(percent, first)).send(verdicts)
    if at:
        window = verdicts[max(0, at - first) : at]
        assert at >= first
        assert window.count("x") * 100 >= percent * first
