"""One installation: its clock, its data folder, its store and its keys, as the configuration says.

What the running service and a command typed beside it have in common, and no more: no listener, no site, no event loop
of its own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.address import Address
from gateway.announcements import outcomes_of
from gateway.config import Config
from gateway.ids import Ids, spool_text
from gateway.model import Fate, MessageClass, Peer, Priority, Recipient, SpooledMessage, SpooledRecipient, priority_of
from gateway.proof import Archive
from gateway.report import delivery_report, is_told
from gateway.sign import Signer, SigningKey
from gateway.store import Now, ReportMaker, Store, open_path
from gateway.store.outgoing import SINCE, TOOL
from gateway.store.sqlite import DataFolder

log = logging.getLogger(__name__)

KEEPER_SLOT = 127
OPERATOR_SLOT = 126
"""Slots for ids that are no worker's: the keeper's, and those of commands."""


class Clock:
    """The wall clock at the start, carried on by the monotonic one: a jump of the wall clock moves nothing (OPS-06).

    All processes of a crew go by one clock, also those that are started later.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._offset + time.monotonic(), UTC)

    def jump(self) -> float:
        """Return by how many seconds the wall clock has left this one, ahead or behind."""
        return abs(time.time() - time.monotonic() - self._offset)


def data_folder(config: Config) -> DataFolder:
    """Return where this installation keeps everything."""
    return DataFolder(config.data_dir, open_path(config.database), config.block_related)


def open_store(config: Config, owner: str, ids: Ids, now: Now) -> Store:
    """Open the store for one process, whose ids these are; reports of failures are written by this host."""
    announced = outcomes_of({what for one in config.webhooks.values() for what in one.happenings})
    return data_folder(config).open(f"{owner}-{os.getpid()}", _report_maker(config, ids, now), now, announced)


def _report_maker(config: Config, ids: Ids, now: Now) -> ReportMaker:
    """Return what turns fates into a report to the submitter; a message from the null sender gets none, but a log."""
    hostname = config.hostname

    def report(about: SpooledMessage, fates: Sequence[Fate]) -> tuple[SpooledMessage, SpooledRecipient] | None:
        told = [one for one in fates if is_told(one.recipient, one.outcome)]
        if not about.reverse_path:
            _tell_the_postmaster(about, fates)
        if not about.reverse_path or not told:
            return None
        spool_id = ids.spool()
        text = delivery_report(hostname, about, told, spool_text(spool_id), now(), _end_of(about, config))
        sender = Recipient(Address.parse(about.reverse_path))
        peer = Peer(hostname, "127.0.0.1", "ESMTP")
        message = SpooledMessage(
            spool_id, "", about.stream, MessageClass.SYSTEM, (), "", (), peer, now(), (sender,), text
        )
        return message, SpooledRecipient(0, sender, "", ids.decision())

    return report


def _end_of(about: SpooledMessage, config: Config) -> datetime:
    """Return when a message that waits is given up."""
    stream = config.streams.get(about.stream)
    schedule = (config.smarthosts[stream.smarthost] if stream else next(iter(config.smarthosts.values()))).schedule
    if stream and priority_of(about.message_class) is Priority.PROMOTION:
        schedule = stream.promotion_schedule(schedule)
    return about.received_at + schedule.give_up_after


def _tell_the_postmaster(about: SpooledMessage, fates: Sequence[Fate]) -> None:
    """Log what nobody else can be told: mail from the null sender, a report for one, that did not arrive (SMTP-18)."""
    for one in fates:
        log.error(
            "message %s from the null sender ended as %s, and nobody can be told: %s (decision %s)",
            *(spool_text(about.id), one.outcome, one.reply, one.decision),
        )


async def prepare(config: Config) -> list[Path]:
    """Make or migrate the files and number the topics; return the copies of files that were migrated.

    One process, before the others.
    """
    copies = data_folder(config).prepare()
    now = Clock().now
    store = open_store(config, "prepare", Ids(OPERATOR_SLOT, now), now)
    await store.people.number_topics(list(config.topics))
    await store.people.take_snapshot()
    await store.people.apply_journal()
    await _register_webhooks(config, store)
    await store.close()
    return copies


async def _register_webhooks(config: Config, store: Store) -> None:
    """Let the store know who is told what happens from now on; who is no more forgets what waited."""
    calls, webhooks = store.calls, config.webhooks
    positions = calls.positions()
    named = {one.target for one in calls.backlogs()}
    named |= {source.removeprefix(SINCE) for source in positions if source.startswith(SINCE)}
    await calls.drop_targets({one for one in named if one not in webhooks and not one.startswith(TOOL)})
    await store.people.tell_of_erasures([one.name for one in webhooks.values() if one.hears_of_erasures])
    last = await store.people.last_event()
    ends = {"ledger": last, "pauses": await store.people.last_pause()}
    ends |= {f"{SINCE}{name}": last for name in webhooks}
    moved = {source: end for source, end in ends.items() if positions.get(source, end + 1) > end}
    if moved:
        await calls.publish([], moved)


async def archive_of(config: Config, store: Store) -> Archive:
    """Return what the ledger's events point at: the company, its topics, notices and policy versions."""
    notices = {one.name: one for one in await store.people.notices()}
    published = await store.people.policies()
    return Archive(config.company, config.topics, notices, tuple(one.version for one in published))


def published_keys(config: Config, *, is_signing: bool = False) -> list[SigningKey]:
    """Return every key that the configuration names and that is there; of those, only the ones that sign, if wanted."""
    return [
        SigningKey(domain.name, selector.name, selector.key.private)
        for domain in config.dkim.values()
        for selector in domain.selectors
        if selector.key.private and (selector.signs or not is_signing)
    ]


def signers(config: Config) -> Mapping[str, Signer]:
    """Return a signer for each domain that has a key; one whose key file is missing cannot sign."""
    signing = published_keys(config, is_signing=True)
    loaded = {name: [key for key in signing if key.domain == name] for name in config.dkim}
    return {
        name: Signer(keys, config.dkim[name].also_sign, config.dkim[name].identity)
        for name, keys in loaded.items()
        if keys
    }
