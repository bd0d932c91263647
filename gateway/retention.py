"""How long things are kept, and since when proof has not been needed any more.

The rule that must not be broken: what stands for a "yes" that is in force, or for any "no" that stands, is in use, and
proof that is in use never lapses. What to delete, and how, is the store's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.consent import NOTHING_KNOWN, Event, Standing, fold


@dataclass(frozen=True, slots=True)
class Retention:
    """The periods of `[retention]`: of the decision log since it was sealed, of backups since they were made.

    `evidence` and `evidence_ip`, the personal fields of an event and the IP address among them, count from the end of
    its use (GDPR 5(1)(e)).
    """

    decisions: timedelta
    evidence: timedelta
    evidence_ip: timedelta
    backups: timedelta


def in_use(standing: Standing) -> frozenset[int]:
    """Return the events that stand for something: a permission that nothing stops, or a suppression."""
    permissions = (
        one.event
        for one in standing.permissions
        if not standing.suppression(one.topic, partner=False, controller=one.controller)
    )
    return frozenset((*permissions, *(one.event for one in standing.suppressions)))


def ends_of_use(history: Sequence[Event]) -> dict[int, datetime]:
    """Return when each event of one person that is not in use was last of use; one that never was, when it came in."""
    standing, before, ended = NOTHING_KNOWN, frozenset[int](), dict[int, datetime]()
    for event in history:
        standing = standing.after(event)
        used = in_use(standing)
        ended |= dict.fromkeys((before - used) | {event.seq}, event.recorded_at)
        before = used
    undone = dict.fromkeys(before, history[-1].recorded_at) if history else {}
    still = in_use(fold(history))
    return {seq: at for seq, at in (ended | undone).items() if seq not in still}
