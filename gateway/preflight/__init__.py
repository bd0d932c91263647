"""What is found out about a draft before it is sent to anybody: the findings, and the letter that tells them.

The rule that must not be broken: what is told is read off the copy that a reader would get, never off what the draft
was meant to become. Who may ask, and where the letter goes, is for whoever asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.preflight.copy import Link, added_to, links_of, trackers_in
from gateway.preflight.receiver import Check, signature_checks, unsubscribe_check

__all__ = ["Check", "Count", "Findings", "Link", "added_to", "links_of", "signature_checks", "trackers_in"]
__all__ += ["unsubscribe_check"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many of the people who are on record would get it, and why the others would not, by reason.

    `leaves` counts those who get it only because the stream is in shadow mode. Where it is not `whole`, the rest has
    not been looked at, because that would have taken too long.
    """

    allowed: int
    refused: Mapping[str, int]
    leaves: int = 0
    is_whole: bool = True

    @property
    def people(self) -> int:
        return self.allowed + sum(self.refused.values())


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is told of one draft.

    `refusal` is the reply that it would get whoever it goes to, "" where there is none; where it cannot be read or made
    into a copy, what comes after is empty. `copy` is what a reader would get, `text` what they would read of it.
    """

    subject: str
    login: str
    refusal: str = ""
    remarks: tuple[str, ...] = ()
    stream: str = ""
    message_class: str = ""
    topics: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    count: Count | None = None
    links: tuple[Link, ...] = ()
    trackers: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    text: str = ""
    copy: bytes = b""
