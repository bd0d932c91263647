"""What every reader yields: a row that says something of somebody, or why a line says nothing.

The rule that must not be broken: a row names the line that it came from, so that whoever must mend a file finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.address import Address
from gateway.consent import EventType
from gateway.errors import Malformed

DIGESTS = {32: "md5", 64: "sha256"}
"""The algorithm of a digest in hexadecimal, by its length."""

_INVISIBLE = "\ufeff\u200b\u2060"
"""What no editor shows: the mark of UTF-8 where a file was appended to another, and what pages put between words."""

_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One statement of a file. `subject` is an address, or a digest in hexadecimal where `algorithm` names one.

    `type` is what happened, None for somebody who is merely there: what that means, whoever imports the file says.
    `at` is None where no time stood, `until` where the file does not say that it ends. A bystander is there without
    having asked for anything, or refused it.
    """

    line: int
    subject: str
    type: EventType | None
    at: datetime | None = None
    algorithm: str = ""
    until: datetime | None = None
    is_bystander: bool = False

    @property
    def address(self) -> Address:
        """Whom it names, without the space around it or what looks like none there; raises `Malformed`."""
        return Address.parse(self.subject.strip().strip(_INVISIBLE).strip())


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be used, and why."""

    line: int
    text: str
    why: str


Found = Row | BadRow
Fields = Mapping[str, str]


class WrongFile(Exception):
    """The file as a whole cannot be imported: one sentence for the operator."""


def moment(text: str) -> datetime | None:
    """Read a time as the vendors write it: RFC 3339, RFC 2822 or Unix seconds; None for none; raises `Malformed`.

    A time without a zone is UTC, as Mailchimp's are, and so is what is returned.
    """
    text = text.strip()
    if not text:
        return None
    for read in _READERS[text[4:5] == "-"]:
        try:
            found = read(text)
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, OverflowError, OSError):
            continue
    raise Malformed(f"not a time: {text[:40]}")


def _unix(text: str) -> datetime:
    return datetime.fromtimestamp(float(text), UTC)


_READERS = (
    (_unix, datetime.fromisoformat, parsedate_to_datetime),
    (datetime.fromisoformat, _unix, parsedate_to_datetime),
)
"""What is tried in turn, the second where the text looks like a date with dashes."""


def algorithm_of(text: str) -> str:
    """Return which digest a word is, all lower or all upper case; "" for what is none (SUP-11)."""
    return DIGESTS.get(len(text), "") if _HEX.fullmatch(text) else ""


def guarded(line: int, source: object, make: Callable[[], Row]) -> Found:
    """Return what a line says, or that it says nothing that can be understood."""
    try:
        return make()
    except (Malformed, KeyError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, Malformed) else "a field is missing or of another kind"
        return BadRow(line, told(source), why)


def told(source: object) -> str:
    """Return the beginning of what stood in a line, for whoever must mend it."""
    return (",".join(source) if isinstance(source, list) else str(source))[:200]
