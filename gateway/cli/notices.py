"""Commands about notices: the wordings under which people opt in, registered before anybody meets them.

The rule that must not be broken: a notice never changes once it is registered. Who met which one, and what they
answered, is for `people`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.people import NAME, TIME, known_topic, wording
from gateway.evidence import METHODS, STATEMENTS, Notice, about_controllers, statements_in
from gateway.law import in_force
from gateway.store import Store


@assent.group()
def notices() -> None:
    """The wordings under which people opt in."""


@notices.command("add")
@click.argument("name", type=NAME)
@click.option("--topic", required=True)
@click.option("--text", "text", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--url", required=True, help="Where the question stood.")
@click.option("--control", type=click.Choice(["unticked"]), required=True, help="The control as people met it.")
@click.option(
    "--kind", default="checkbox", show_default=True, help="What the control was: checkbox, button, signature."
)
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True, help="How it is answered.")
@click.option("--version", default="1", show_default=True, help="Of these words, as you count them.")
@click.option("--language", default="en", show_default=True, help="Of the text (BCP 47).")
@click.option("--controller", "controllers", multiple=True, help="Who asks, by name; the company unless told.")
@click.option(
    "--policy-version", default="", help="Of the privacy policy that it points at; the one in force unless told."
)
@click.option(
    "--states", multiple=True, type=click.Choice(STATEMENTS), help="What it says besides what can be read from it."
)
@click.option("--from", "valid_from", type=TIME, required=True)
@click.option("--until", "valid_until", type=TIME, default=None)
@pass_desk
def notices_add(
    desk: Desk,
    /,
    topic: str,
    text: Path,
    valid_from: datetime,
    valid_until: datetime | None,
    controllers: tuple[str, ...],
    policy_version: str,
    states: tuple[str, ...],
    **told: Any,
) -> None:
    """Register a notice. It never changes afterwards: a new wording is a new notice.

    Canada wants a request for consent to say for what it is, who asks, where they are reached and that it can be
    withdrawn; where it does not, consent of people there is refused.
    """
    if valid_until and valid_until <= valid_from:
        raise click.UsageError("--until lies before --from: nobody could have opted in under this notice")
    wanted, company, words = known_topic(desk, topic), desk.config().company, wording(text)
    for problem in about_controllers(controllers):
        raise click.UsageError(problem)
    said = {*statements_in(words, wanted, company), *states}
    notice = Notice(
        topic=topic,
        text=words,
        valid_from=valid_from,
        valid_until=valid_until,
        controllers=controllers or (company.name,),
        policy_version=_pointed_at(desk, policy_version, valid_from),
        states=tuple(one for one in STATEMENTS if one in said),
        **told,
    )

    async def add(store: Store) -> bool:
        if any(one.name == notice.name for one in await store.people.notices()):
            return False
        await store.people.add_notice(notice)
        return True

    if not desk.with_store(add):
        desk.no(f"there is a notice {notice.name} already, and a notice never changes", name=notice.name)
    _told(desk, notice)


def _told(desk: Desk, notice: Notice) -> None:
    unsaid = [one for one in STATEMENTS if one not in notice.states]
    is_wanted = unsaid and "CA" in desk.config().law.markets
    canadian = f"; it does not state {', '.join(unsaid)}, as Canada wants (SOR/2012-36)" if is_wanted else ""
    facts = {"name": notice.name, "topic": notice.topic, "sha256": notice.sha256, "unsaid": unsaid}
    desk.say(f"notice {notice.name} is registered{canadian}", **facts)


def _pointed_at(desk: Desk, version: str, at: datetime) -> str:
    """Return the version of the privacy policy that a notice pointed at: the one named, or the one in force then."""
    published = [one.version for one in desk.with_store(lambda store: store.people.policies())]
    if version and version not in [one.version for one in published]:
        desk.no(f"there is no version {version}; see assent policy list", version=version)
    return version or in_force(published, at)


@notices.command("list")
@pass_desk
def notices_list(desk: Desk) -> None:
    """List the registered notices."""
    rows = [
        {
            "name": one.name,
            "topic": one.topic,
            "url": one.url,
            "control": one.control,
            "kind": one.kind,
            "method": one.method,
            "version": one.version,
            "language": one.language,
            "controllers": one.controllers,
            "policy_version": one.policy_version,
            "states": one.states,
            "sha256": one.sha256,
            "from": one.valid_from.date(),
            "until": one.valid_until.date() if one.valid_until else None,
            "text": one.text,
        }
        for one in desk.with_store(lambda store: store.people.notices())
    ]
    shown = ["name", "topic", "version", "language", "url", "control", "from", "until"]
    desk.list(rows, shown, "no notices; see assent notices add")
