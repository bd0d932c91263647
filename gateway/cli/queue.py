"""Commands about what waits: look at it, try it now, hold it, release it, drop it with a reason."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk, progress_bar
from gateway.cli.people import operator
from gateway.decisions import drop_line, subject_of
from gateway.ids import Ids, spool_number, spool_text
from gateway.installation import OPERATOR_SLOT
from gateway.model import Outcome, Reply, SpooledMessage, SpooledRecipient
from gateway.store import Progress, QueuedRecipient, Selection, Settlement, Store, untold

DROP_PATIENCE = 10.0
"""Seconds that a worker has to let go of what it has claimed, or to be done with it."""

_COLUMNS = ["message", "recipient", "stream", "login", "state", "attempts", "due", "reply"]


class QueueId(click.ParamType[int]):
    """A queue id, as the 250 said it."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else spool_number(value)
        except ValueError as error:
            self.fail(f"{value} is not a queue id: {error}", param, ctx)


def selects(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its selection: queue ids, or a stream."""
    command = click.option("--stream", default="", metavar="NAME", help="All that waits of a stream.")(command)
    return click.argument("messages", nargs=-1, type=QueueId(), metavar="[ID]…")(command)


def selection(messages: tuple[int, ...], stream: str) -> Selection:
    if bool(messages) == bool(stream):
        raise click.UsageError("name queue ids, or a stream with --stream")
    return Selection(messages, stream)


@assent.group()
def queue() -> None:
    """What has been accepted and is not settled yet."""


@queue.command("list")
@click.option("--stream", default="", metavar="NAME", help="Only what waits of a stream.")
@click.option("--held", is_flag=True, help="Only what is held.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@pass_desk
def queue_list(desk: Desk, stream: str, held: bool, limit: int) -> None:
    """List what waits, the oldest first."""
    which = Selection(stream=stream, only_held=held)
    rows = desk.with_store(lambda store: store.queue.waiting(which, limit))
    if stream and not rows:
        desk.stream(stream)
    desk.list([_line(one) for one in rows], _COLUMNS, "nothing waits")


@queue.command("show")
@click.argument("message", type=QueueId())
@pass_desk
def queue_show(desk: Desk, message: int) -> None:
    """Show a message and who of its recipients waits."""
    rows = desk.with_store(lambda store: store.queue.waiting(Selection((message,)), 100_000))
    if not rows:
        desk.no(f"nothing of {spool_text(message)} waits")
    if not desk.as_json:
        desk.tell(_about(rows[0]))
    desk.list([_about(one) | _line(one) for one in rows], ["recipient", "state", "attempts", "due", "reply"], "")


@queue.command("retry")
@selects
@pass_desk
def queue_retry(desk: Desk, messages: tuple[int, ...], stream: str) -> None:
    """Try deferred copies now, held ones too."""
    which = selection(messages, stream)
    with progress_bar("trying again") as progress:
        tried = desk.with_store(lambda store: store.queue.retry(which, progress))
    if not tried:
        _nothing(desk, stream, "nothing of that waits for another attempt", retried=0)
    desk.say(f"{tried} recipients are tried again now", retried=tried)


@queue.command("hold")
@selects
@pass_desk
def queue_hold(desk: Desk, messages: tuple[int, ...], stream: str) -> None:
    """Let nothing more of this leave until it is released; what is under way at this moment may still go."""
    which = selection(messages, stream)
    with progress_bar("holding") as progress:
        held = desk.with_store(lambda store: store.queue.hold(which, progress))
    if not held:
        _nothing(desk, stream, "nothing of that waits that is not held already", held=0)
    desk.say(f"{held} recipients are held; assent queue release lets them go", held=held)


@queue.command("release")
@selects
@pass_desk
def queue_release(desk: Desk, messages: tuple[int, ...], stream: str) -> None:
    """Let what is held go now."""
    which = selection(messages, stream)
    with progress_bar("releasing") as progress:
        released = desk.with_store(lambda store: store.queue.release(which, progress))
    if not released:
        _nothing(desk, stream, "nothing of that is held", released=0)
    desk.say(f"{released} recipients are tried now", released=released)


@queue.command("drop")
@selects
@click.option("--why", required=True, help="The reason: it is recorded, and the submitter is told.")
@pass_desk
def queue_drop(desk: Desk, messages: tuple[int, ...], stream: str, why: str) -> None:
    """Give up what waits: each recipient is recorded as failed, and the submitter gets the usual report."""
    which = selection(messages, stream)
    if not why.isprintable():
        raise click.UsageError("--why is one line of text")
    with progress_bar("dropping") as progress:
        dropped, under_way = desk.with_store(lambda store: drop(desk, store, which, why, progress))
    if not dropped and not under_way:
        _nothing(desk, stream, "nothing of that waits", dropped=0)
    desk.say(f"{dropped} recipients are dropped", dropped=dropped, under_way=under_way)
    if under_way:
        click.echo(f"{under_way} recipients are being relayed just now; see whether they wait again", err=True)
        sys.exit(os.EX_TEMPFAIL)


def _nothing(desk: Desk, stream: str, sentence: str, **facts: int) -> NoReturn:
    """Exit 1, or 2 where the stream was misspelled; mail of one that was configured once may still wait."""
    if stream:
        desk.stream(stream)
    desk.no(sentence, **facts)


async def drop(desk: Desk, store: Store, which: Selection, why: str, progress: Progress = untold) -> tuple[int, int]:
    """Hold, wait until no worker has any of it, settle; return how many were dropped, and how many could not be."""
    await store.queue.hold(which)
    await store.spool.take_over()
    deadline = time.monotonic() + DROP_PATIENCE
    while (under_way := await store.queue.under_way(which)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    ids, dropped = Ids(OPERATOR_SLOT, desk.now), 0
    async for copies in store.queue.held(which, progress):
        await store.spool.settle([_dropped(desk, ids, message, addressee, why) for message, addressee in copies])
        dropped += len(copies)
    return dropped, under_way


def _dropped(desk: Desk, ids: Ids, message: SpooledMessage, addressee: SpooledRecipient, why: str) -> Settlement:
    reply = str(Reply(550, "5.7.1", f"dropped: {why}"))
    subject = subject_of(message, spool_text(message.id))
    line = drop_line(ids.decision(), addressee.decision, desk.now(), addressee.who, subject, why, operator())
    return Settlement(message.id, addressee.n, Outcome.FAILED, reply, line)


def _about(one: QueuedRecipient) -> dict[str, Any]:
    message = one.message
    return {
        "message": spool_text(message.id),
        "stream": message.stream,
        "class": message.message_class,
        "topics": message.topics,
        "campaign": message.campaign,
        "login": message.login,
        "reverse_path": f"<{message.reverse_path}>",
        "octets": one.size,
        "received_at": message.received_at.isoformat(timespec="seconds"),
    }


def _line(one: QueuedRecipient) -> dict[str, Any]:
    return {
        "message": spool_text(one.message.id),
        "recipient": one.address,
        "stream": one.message.stream,
        "login": one.message.login,
        "state": "claimed" if one.is_claimed else "held" if one.due is None else one.outcome.value,
        "outcome": one.outcome,
        "attempts": one.attempts,
        "due": one.due.isoformat(timespec="seconds") if one.due else None,
        "reply": one.reply,
        "received_at": one.message.received_at.isoformat(timespec="seconds"),
    }
