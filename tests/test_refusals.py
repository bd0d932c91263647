"""Refusals that were answered 250: on disk with their decision lines, told once, and never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import CampaignName, MessageClass, ReportedRefusal, SpooledMessage, SpooledRecipient
from gateway.store.writer import connect
from tests.store_under_test import ALICE, BOB, Rig

SPRING, UNNAMED = CampaignName("news", "newsletter", "spring"), CampaignName("news", "newsletter", "")
TO_ALICE, TO_BOB = (ReportedRefusal(one.text, "no-consent", f"d-{one.local}") for one in (ALICE, BOB))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


class Maker:
    """Makes a summary, and remembers what it was to tell."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.told: list[list[ReportedRefusal]] = []

    def __call__(self, refusals: Sequence[ReportedRefusal]) -> tuple[SpooledMessage, SpooledRecipient]:
        self.told.append(list(refusals))
        return self.rig.message(message_class=MessageClass.SYSTEM), self.rig.addressees(ALICE)[0]


async def test_refusals_leave_only_with_their_campaigns_summary(rig: Rig) -> None:
    make = Maker(rig)
    async with rig.spool() as spool:
        await spool.refusals.add(SPRING, [TO_ALICE], [rig.line()])
        rig.clock.move(timedelta(minutes=5))
        await spool.refusals.add(SPRING, [TO_ALICE, TO_BOB], [rig.line()])
        await spool.refusals.add(UNNAMED, [TO_BOB], [rig.line()])
        assert sorted(spool.refusals.campaigns()) == [(UNNAMED, rig.clock.now()), (SPRING, rig.clock.now())]
        await spool.refusals.summarise(SPRING, make)
        assert (make.told, await spool.queue.depth()) == ([[TO_ALICE, TO_BOB]], (1, rig.clock.now()))
        assert [one for one, _ in spool.refusals.campaigns()] == [UNNAMED]
        await spool.refusals.summarise(SPRING, make)
        assert len(make.told) == 1, "what has been told is not told again"
    with closing(connect(rig.folder.spool, read_only=True)) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (3,)


async def test_a_summary_that_cannot_be_made_forgets_nothing(rig: Rig) -> None:
    def fail(refusals: Sequence[ReportedRefusal]) -> tuple[SpooledMessage, SpooledRecipient]:
        raise LookupError("no")

    async with rig.spool() as spool:
        await spool.refusals.add(SPRING, [TO_ALICE], [])
        with pytest.raises(LookupError):
            await spool.refusals.summarise(SPRING, fail)
        make = Maker(rig)
        await spool.refusals.summarise(SPRING, make)
    assert make.told == [[TO_ALICE]]
