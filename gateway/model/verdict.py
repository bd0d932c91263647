"""What the policy is asked about one recipient, a purpose, and what it answers, a verdict."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from gateway.model.words import Action, Leave, MessageClass, Reason


class Finding(NamedTuple):
    """What reading a message's words came to: one sentence, the ids of the signals it rests on, their version."""

    sentence: str
    signs: tuple[str, ...]
    rules: str

    def __str__(self) -> str:
        return f"{self.sentence}: {', '.join(self.signs)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What we decided for one recipient: what to do, why, on which evidence, by which rules.

    A `leave` says that only that let it go; the reason and sentence of one in shadow mode are those of the refusal.
    `content` is what the message's words were found to say, whatever came of it.
    `is_unasked` says of promotion that its reader has not opted in to it, whatever else lets it go.
    """

    action: Action
    reason: Reason | None = None
    sentence: str = ""
    evidence: tuple[int, ...] = ()
    rules: str = ""
    leave: Leave | None = None
    content: tuple[Finding, ...] = ()
    is_unasked: bool = False

    @property
    def may_send(self) -> bool:
        return self.action is Action.SEND

    @property
    def is_kept(self) -> bool:
        """True for what is sent, and for what an operator must release first."""
        return self.action in (Action.SEND, Action.HOLD)


class Period(NamedTuple):
    """A span by the calendar, as laws count: so many months, or so many days."""

    months: int = 0
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read "24mo", "2 years", "90 days"; raises `ValueError`."""
        match = _PERIOD.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a period such as 24mo, 2 years or 90 days")
        count, unit = int(match[1]), match[2][0]
        return cls(days=count) if unit == "d" else cls(months=count * (12 if unit == "y" else 1))

    def after(self, moment: datetime) -> datetime:
        """Return the end of the period that begins at `moment`; where a month has no such day, its last one."""
        month = moment.month - 1 + self.months
        year, month = moment.year + month // 12, month % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        return moment.replace(year=year, month=month, day=day) + timedelta(days=self.days)


_PERIOD = re.compile(r"(\d{1,4})\s*(d|days?|mo|months?|y|years?)")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a person can opt in to and out of. Its number in links is the store's (`Store.topic_numbers`).

    `families` are the product families that it is about (LAW-EU-03); an opt-in lapses after `max_age` (CON-15);
    `also_called` are other systems' names for it, in lower case ("sendgrid:17").
    """

    slug: str
    name: str
    partner: bool = False
    families: tuple[str, ...] = ()
    max_age: Period | None = None
    also_called: tuple[str, ...] = ()


class PolicyNotice(NamedTuple):
    """What a notice of a new policy is about: the version, and whether it asks for consent anew.

    `message` is the spooled message that carries it, "" at the door.
    """

    version: str
    asks: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why a message is sent: its class; for promotion its topic and whose it is ("" is the company); its product.

    Up to the end of `shadow_until` (UTC) promotion goes to those as well who have not opted in (OPS-04).
    """

    message_class: MessageClass
    topic: Topic | None = None
    product: str = ""
    controller: str = ""
    shadow_until: date | None = None
    notice: PolicyNotice | None = None

    def is_in_shadow(self, now: datetime) -> bool:
        return self.shadow_until is not None and now.date() <= self.shadow_until
