"""Commands that say how it goes: what came of the last hours, what to look at, and the signed report of a month."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.activity import Activity, gather
from gateway.cli import assent, dossier
from gateway.cli.output import Desk, pass_desk, progress_bar, sparkline
from gateway.cli.since import SinceType, moment
from gateway.ledger import canonical_json, is_signed
from gateway.overview import overview
from gateway.picture import of_timeline

_COUNTED: Final = ("submitted", "relayed", "deferred", "failed")
_DRAWN: Final = ("relayed", "refused", "opt_outs")
_SHOWN_APART: Final = frozenset({*_COUNTED, "refused", "content_flagged", "alarms", "timeline"})
_SIGNED: Final = b"assent.report.v1\0"


EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@assent.command()
@click.option("--since", type=SinceType(), default="24h", show_default=True, help="fri, today, 36h, 7d, 2026-11-20 …")
@pass_desk
def status(desk: Desk, since: str) -> None:
    """Say what came of the last hours, what waits, and what to look at, with a command for each."""
    now = desk.now()
    begin = moment(since, now)
    if begin > now:
        raise click.UsageError(f"--since {since} has not come yet")
    told = desk.with_store(lambda store: overview(desk.config(), desk.folder(), store, begin, now))
    if desk.as_json:
        desk.tell(told)
        return
    _draw(desk, told)
    desk.tell({name: value for name, value in told.items() if name not in _SHOWN_APART})
    desk.list(told["refused"], ["reason", "login", "recipients"], "nobody was refused")
    desk.list(told.get("content_flagged", []), ["stream", "login", "found", "recipients"], "nothing was flagged")
    desk.list(told["alarms"], ["alarm", "command"], "nothing to look at")


def _draw(desk: Desk, told: Mapping[str, Any]) -> None:
    """Print what came of the recipients as bars, and how it went as lines; nothing where the store cannot be read."""
    if "timeline" not in told:
        return
    counts = {name: told[name] for name in _COUNTED}
    counts["refused"] = sum(one["recipients"] for one in told["refused"])
    desk.bars(counts, max(counts.values()))
    for name in _DRAWN:
        line = sparkline([step[name] for step in told["timeline"]])
        if line.strip():
            click.echo(f"{name.replace('_', '-'):>14} over time  {line}")
    click.echo()


# the report of a month


@assent.command()
@click.option("--month", default=None, metavar="YYYY-MM", help="The last whole month unless told.")
@click.option("--html", is_flag=True, help="A page with a picture, that can be printed, instead of JSON.")
@click.option("--verify", type=EXISTING, help="Check the signature of a report.")
@pass_desk
def report(desk: Desk, month: str | None, html: bool, verify: Path | None) -> None:
    """Print the signed compliance report of a month: every number is a count of lines of the log."""
    if verify:
        _verify(desk, verify)
        return
    since, until = _span(month, desk.now())
    folder = desk.folder()
    with progress_bar("counting"):
        found = gather(folder.events_between(since, until), folder.lines_between(since, until), since, until)
    signed = _signed(desk, found)
    click.echo(_page(found, signed) if html else json.dumps(signed, indent=2, ensure_ascii=False))


def _span(month: str | None, now: datetime) -> tuple[datetime, datetime]:
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    try:
        since = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC) if month else _month_before(this_month)
    except ValueError as error:
        raise click.UsageError(f"--month {month}: write it as {now:%Y-%m}") from error
    if since > now:
        raise click.UsageError(f"--month {month} has not begun")
    return since, (since + timedelta(days=32)).replace(day=1)


def _month_before(month: datetime) -> datetime:
    return (month - timedelta(days=1)).replace(day=1)


def _signed(desk: Desk, found: Activity) -> dict[str, Any]:
    """Return the report with the heads that seal what it counts, signed with the ledger's key."""
    key = desk.folder().ledger_key()
    told = {
        "controller": dossier.controller(desk.config()),
        "month": f"{found.since:%Y-%m}",
        "made_at": desk.now().isoformat(timespec="seconds"),
        "is_whole": desk.now() >= found.until,
        **found.to_json(),
        "sealed_by": desk.folder().last_heads(),
    }
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"report": told, "public_key": public.hex(), "signature": key.sign(_octets(told)).hex()}


def _verify(desk: Desk, file: Path) -> None:
    """Exit 1 where a report is not as this installation signed it."""
    try:
        told = json.loads(file.read_text("utf-8"))
        signature, stated = bytes.fromhex(told["signature"]), told["report"]
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{file.name} is no report of Assent") from error
    if not is_signed(_octets(stated), signature, desk.folder().ledger_key().public_key()):
        desk.no(f"{file.name} is not as it was signed here", file=file.name, valid=False)
    desk.say(f"{file.name} is the report of {stated['month']} as it was signed here", file=file.name, valid=True)


def _octets(told: Mapping[str, Any]) -> bytes:
    return _SIGNED + canonical_json(told)


def _page(found: Activity, signed: Mapping[str, Any]) -> str:
    """Return the report as a page: a picture of its days, then every number, and the signature."""
    title = f"Compliance report {found.since:%B %Y}"
    told = signed["report"] | {"signature": signed["signature"]}
    return dossier.page(title, told, of_timeline(found.timeline()))
