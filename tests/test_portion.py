"""Events that are written many at a time leave what the same events leave that are recorded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.address import Address
from gateway.consent import EventType, NewEvent, fold
from gateway.model import Scope
from gateway.store.drafts import Told
from gateway.store.people import SqlitePeople
from tests.store_under_test import START, Rig

STRANGERS = tuple(Address.parse(f"{one}@example.org") for one in ("a", "B", "ñ", "Ñ", "listed"))
KNOWN = OLD, NEW, ERASED, NOTIFIED = tuple(
    Address.parse(f"{one}@example.org") for one in ("old", "new", "erased", "notified")
)
EVERYBODY = (*STRANGERS, *KNOWN)
IMPORT = 2
OPT_INS = (EventType.EXPRESS_OPT_IN, EventType.OPT_IN_CONFIRMED)
OPT_OUTS = (EventType.UNSUBSCRIBE, EventType.COMPLAINT, EventType.HARD_BOUNCE)


def happened(kind: EventType, who: Address, minutes: int = 0) -> NewEvent:
    facts = {"channel": "import", "import": IMPORT, "line": minutes, "provenance": "attested"}
    scope = Scope.ALL_MARKETING if kind in OPT_OUTS else None
    return NewEvent(kind, who, START + timedelta(minutes=minutes), "news", scope, facts, {"address": who.text})


def clicked(kind: EventType, who: Address) -> NewEvent:
    return NewEvent(kind, who, START, "news", None if kind in OPT_INS else Scope.TOPIC, {"channel": "one-click"})


EVENTS = st.lists(
    st.builds(happened, st.sampled_from(OPT_INS + OPT_OUTS), st.sampled_from(EVERYBODY), st.integers(0, 5)), max_size=30
)
MEANWHILE = st.lists(
    st.builds(clicked, st.sampled_from((*OPT_INS, *OPT_OUTS, EventType.ERASURE)), st.sampled_from(EVERYBODY)),
    max_size=4,
)


async def prepare(rig: Rig, people: SqlitePeople) -> None:
    """Have somebody with two addresses, one who was forgotten, one with a notice, and a digest that names another."""
    await people.link(OLD, NEW, {})
    notice = {"policy_version": "2", "message": "01J"}
    await people.record([NewEvent(EventType.POLICY_NOTICE, NOTIFIED, START, facts=notice)])
    await people.record([happened(EventType.OPT_IN_CONFIRMED, ERASED), happened(EventType.ERASURE, ERASED)])
    imports = rig.folder.open_imports(rig.clock.now)
    for number in (1, IMPORT):
        assert (await imports.begin("list.txt", "ann"))[0] == number
    await imports.add_digests(1, STRANGERS[-1].list_digests[:1], Scope.ALL_MARKETING, "")
    await imports.close()


async def import_all(
    rig: Rig, people: SqlitePeople, events: Sequence[NewEvent], meanwhile: Sequence[NewEvent], together: int
) -> None:
    """Draft so many events at a time before they are recorded; while the first wait, people say more themselves."""
    imports = rig.folder.open_imports(rig.clock.now)
    digest_of = rig.folder.order_of_people()
    whose = [(one, one.person) for one in events if isinstance(one.person, Address)]
    told = [Told(digest_of(who.key), who, lambda _, event=one: event) for one, who in whose]
    with rig.folder.open_drafter() as drafter:
        for first in range(0, max(len(told), 1), together):
            left = [draft for draft, _ in drafter.draft(told[first : first + together])]
            await people.record(() if first else meanwhile)
            while left:
                left = left[len(await imports.apply(IMPORT, left[:7])) :]
    await imports.close()


async def on_record(people: SqlitePeople) -> list[object]:
    """Return what is on record of everybody, without the numbers that the ledger gave."""
    found: list[object] = []
    for facts in await people.facts(EVERYBODY):
        history = await people.history(facts.address_id) if facts.address_id else []
        told = [
            (one.type, one.at, one.topic, one.scope, one.personal, {**one.facts, "other": "", "linked": ""})
            for one in history
        ]
        stands = [(one.scope, one.reason, one.at) for one in facts.standing.suppressions]
        allows = [(one.basis, one.topic, one.at) for one in facts.standing.permissions]
        address = await people.address_of(facts.address_id) if facts.address_id else None
        found.append((told, sorted(stands), allows, fold(history).links != (), address))
    return found


@settings(max_examples=25, deadline=None)
@given(EVENTS, MEANWHILE, st.sampled_from([1, 5, 30]))
@example([happened(EventType.HARD_BOUNCE, NOTIFIED)], [clicked(EventType.UNSUBSCRIBE, NOTIFIED)], 1)
async def test_many_at_once_leave_what_one_by_one_leave(
    events: list[NewEvent], meanwhile: list[NewEvent], together: int
) -> None:
    kept = []
    for is_import in (True, False):
        with TemporaryDirectory() as folder:
            rig = Rig(Path(folder))
            async with rig.people() as people:
                await prepare(rig, people)
                if is_import:
                    await import_all(rig, people, events, meanwhile, together)
                else:
                    await people.record([*meanwhile, *events])
                kept.append(await on_record(people))
            assert rig.folder.verify(None) == []
    assert kept[0] == kept[1]
