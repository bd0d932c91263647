"""A header of another system's, as its file describes it: how its value is read, and what each value means.

The rule that must not be broken: a row means exactly one thing, and one that contradicts itself is no row
(`ValueError` with its name), so that nothing which a message asks for is passed over by a slip in the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Meaning(StrEnum):
    """What a value does to the message that carries it."""

    NAMES = "names"
    """It names a topic or a stream, which the login must have (CLS-01)."""
    HINTS = "hints"
    """It names a topic or a stream where the login has one that is so called, and says nothing otherwise."""
    CAMPAIGN = "campaign"
    CLASS = "class"
    RECIPIENTS = "recipients"
    """It names further recipients, about whom is decided as about any other."""
    BYPASS = "bypass"
    """It asks to pass over what people have said; never ignored, always recorded."""
    SERVICE = "service"
    """It asks for what we do not do: the message is refused."""
    NOTHING = "nothing"


class Reading(StrEnum):
    """How a header's value falls apart."""

    TEXT = "text"
    LIST = "list"
    PATTERN = "pattern"
    JSON = "json"


FORMS: Final[Mapping[str, type]] = {"object": dict, "array": list, "boolean": bool}
_OF_RULE: Final = frozenset({"means", "says", "unless", "classes", "is"})
_OF_HEADER: Final = frozenset({"name", "reads", "pattern", "members", "first", "keep"})
ESSENTIAL: Final = "essential"
PROMOTIONAL: Final = "promotional"
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """What values at one place mean; `path` leads to a member of JSON, and is () for a header that is none.

    A value that is one of `unless` asks for nothing. `classes` say which values mean which class, "*" any other;
    `form` is what the member must be in JSON, "" for anything. `says` is what a reader is told of it.
    """

    path: tuple[str, ...]
    meanings: tuple[Meaning, ...]
    says: str
    unless: frozenset[str] = frozenset()
    classes: Mapping[str, str] = field(default_factory=dict)
    form: str = ""

    def leads_to(self, path: tuple[str, ...]) -> bool:
        """True where this is the rule of a member, or of one that stands deeper."""
        return all(mine in (ANY, theirs) for mine, theirs in zip(self.path, path, strict=False))


@dataclass(frozen=True, slots=True)
class Header:
    """One header of a vendor's; the name of a family ends in "*".

    `first` says that only the topmost counts; `keep`, that it goes on to the recipients.
    """

    vendor: str
    name: str
    rules: tuple[Rule, ...]
    reading: Reading = Reading.TEXT
    pattern: re.Pattern[str] | None = None
    first: bool = False
    keep: bool = False

    @property
    def key(self) -> str:
        """The name as a header block has it: in lower case, without the star of a family."""
        return self.name.rstrip(ANY).lower()

    @property
    def is_family(self) -> bool:
        return self.name.endswith(ANY)

    @property
    def is_read(self) -> bool:
        """True where its value matters; JSON must be JSON, whatever it says."""
        has_meaning = any(rule.meanings != (Meaning.NOTHING,) for rule in self.rules)
        return has_meaning or self.reading is Reading.JSON


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor's headers; `key` is what stands before the colon in `also_called`."""

    key: str
    name: str
    sources: tuple[str, ...]
    headers: tuple[Header, ...]


def vendor_of(key: str, raw: Mapping[str, Any]) -> Vendor:
    """Build a vendor from a parsed TOML file; raises `ValueError` with a sentence for what it cannot mean."""
    try:
        headers = tuple(_header(key, one) for one in raw.get("headers", ()))
        return Vendor(key, raw["name"], tuple(raw["sources"]), headers)
    except KeyError as error:
        raise ValueError(f"{key} lacks {error}") from error


def _header(vendor: str, raw: Mapping[str, Any]) -> Header:
    name: str = raw["name"]
    _refuse_unknown(raw, _OF_HEADER | (frozenset() if "members" in raw else _OF_RULE))
    members: Sequence[Mapping[str, Any]] = raw.get("members", ())
    reading = Reading.JSON if members else Reading.PATTERN if "pattern" in raw else Reading(raw.get("reads", "text"))
    if (reading is Reading.JSON) != bool(members):
        raise ValueError(f"{name} is JSON, and says nothing of its members")
    for one in members:
        _refuse_unknown(one, _OF_RULE | {"path"})
    rules = [_rule(tuple(one["path"].split(".")), one) for one in members] or [_rule((), raw)]
    header = Header(
        vendor,
        name,
        tuple(rules),
        reading,
        re.compile(raw["pattern"]) if "pattern" in raw else None,
        **{switch: raw.get(switch, False) for switch in ("first", "keep")},
    )
    if header.is_family and header.is_read:
        raise ValueError(f"{name} is a family of headers, which can only be removed")
    return header


def _refuse_unknown(raw: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := raw.keys() - known:
        raise ValueError(f"{raw['name'] if 'name' in raw else raw['path']} has {', '.join(sorted(unknown))}")


def _rule(path: tuple[str, ...], raw: Mapping[str, Any]) -> Rule:
    meanings = tuple(Meaning(one) for one in raw["means"])
    classes: dict[str, str] = raw.get("classes", {})
    if bool(classes) != (Meaning.CLASS in meanings) or not {*classes.values()} <= {ESSENTIAL, PROMOTIONAL}:
        raise ValueError(f"{raw.get('name') or raw['path']} says of no value, or of a wrong one, which class it means")
    form = raw.get("is", "")
    if form and form not in FORMS:
        raise ValueError(f"{form} is nothing that JSON has")
    return Rule(path, meanings, raw["says"], frozenset(raw.get("unless", ())), classes, form)
