"""What other mail systems' headers mean here: the topic, the campaign and the class that a message names in them.

The rule that must not be broken: whatever such a header asks for is done or refused, never passed over in silence.
The headers are data, one file a vendor beside this one (`rows` says how they are written); whether the login has what
is named is left to `classify`, who may be sent to is left to `policy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.address import Address
from gateway.dialects.rows import ANY, ESSENTIAL, FORMS, PROMOTIONAL, Header, Meaning, Reading, Rule, Vendor, vendor_of
from gateway.errors import Malformed
from gateway.headers import Field, HeaderBlock, mailboxes, unencoded

__all__ = ["ESSENTIAL", "NOTHING_ASKED", "PROMOTIONAL", "SILENT", "Asked", "Claim", "Dialects", "Meaning"]
__all__ += ["Unsupported", "Vendor", "vendor_of"]

_SHOWN: Final = 80
"""Characters of a message's own words that a reply repeats."""

_WITHOUT_TABS: Final = bytes.maketrans(b"\t", b" ")
"""Some programs fold at a space and go on with a tab, which JSON would not have within a text."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a message says in another system's words; `where` is the header, and the member of its JSON."""

    means: Meaning
    vendor: str
    where: str
    value: str

    def is_met_by(self, name: str, also_called: Iterable[str]) -> bool:
        """True for what has this name, or is `also_called` so in the configuration ("sendgrid:17")."""
        value = self.value.lower()
        return value == name or f"{self.vendor}:{value}" in also_called


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a message says in such headers, from top to bottom."""

    claims: tuple[Claim, ...] = ()

    def of(self, meaning: Meaning) -> tuple[Claim, ...]:
        return tuple(one for one in self.claims if one.means is meaning)

    @property
    def campaign(self) -> str:
        """The first campaign that is named; "" for none."""
        return next((one.value for one in self.claims if one.means is Meaning.CAMPAIGN), "")

    @property
    def recipients(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(Address.parse(one.value) for one in self.of(Meaning.RECIPIENTS)))

    @property
    def bypasses(self) -> tuple[str, ...]:
        """Where the message asks to pass over what people have said; decision lines record it."""
        return tuple(one.where for one in self.of(Meaning.BYPASS))


NOTHING_ASKED: Final = Asked()


@dataclass(frozen=True, slots=True)
class Unsupported:
    """What a message asks for and does not get, or what nobody can read: one sentence that names the header."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Dialects:
    """All vendors' headers. Those called `removed`, and those that begin with a removed `family`, are for us alone."""

    read_headers: Mapping[str, Header]
    removed: frozenset[str] = frozenset()
    removed_families: tuple[str, ...] = ()

    @classmethod
    def of(cls, vendors: Iterable[Vendor]) -> Dialects:
        """Gather the vendors' headers; raises `ValueError` where two describe the same one."""
        known: dict[str, Header] = {}
        for header in (one for vendor in vendors for one in vendor.headers):
            if known.setdefault(header.key, header) is not header:
                raise ValueError(f"{header.name} is described by {known[header.key].vendor} and by {header.vendor}")
        for_us = [one for one in known.values() if not one.keep]
        return cls(
            {key: header for key, header in known.items() if header.is_read},
            frozenset(one.key for one in for_us if not one.is_family),
            tuple(one.key for one in for_us if one.is_family),
        )

    def read(self, block: HeaderBlock) -> Asked | Unsupported:
        """Return what a message's header asks for in other systems' words."""
        spoken = [field for field in block.fields if field.name in self.read_headers]
        if not spoken:
            return NOTHING_ASKED
        try:
            return Asked(tuple(claim for field in self._counting(spoken) for claim in self._claims(field)))
        except Malformed as problem:
            return Unsupported(str(problem))

    def _counting(self, fields: list[Field]) -> Iterator[Field]:
        """Yield the fields that count: of some headers the vendor reads the first alone."""
        seen = set[str]()
        for field in fields:
            if not (self.read_headers[field.name].first and field.name in seen):
                yield field
            seen.add(field.name)

    def _claims(self, field: Field) -> Iterator[Claim]:
        header = self.read_headers[field.name]
        for rule, where, value in _values(header, unencoded(field.value)):
            if not _asks_nothing(rule, value):
                yield from _meant(header.vendor, rule, where, value)


SILENT: Final = Dialects({})
"""No dialect at all."""


def _values(header: Header, raw: bytes) -> Iterator[tuple[Rule, str, Any]]:
    """Yield every value of a header, with the rule for it and its place in words; raises `Malformed`."""
    rule, text = header.rules[0], raw.decode("utf-8", "replace")
    match header.reading:
        case Reading.TEXT:
            yield rule, header.name, text
        case Reading.LIST:
            yield from ((rule, header.name, one.strip()) for one in text.split(","))
        case Reading.PATTERN:
            yield rule, header.name, _matched(header, text)
        case Reading.JSON:
            yield from _members(header, (), _object(header, raw))


def _matched(header: Header, text: str) -> str:
    match = header.pattern.fullmatch(text) if header.pattern else None
    if match is None and header.rules[0].meanings == (Meaning.NAMES,):
        raise Malformed(f"{header.name} cannot be read")
    return match[match.lastindex or 0].strip() if match else ""


def _object(header: Header, raw: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(raw.translate(_WITHOUT_TABS))
    except orjson.JSONDecodeError as error:
        raise Malformed(f"{header.name} is not JSON") from error
    if not isinstance(found, dict):
        raise Malformed(f"{header.name} is not a JSON object")
    return found


def _members(header: Header, at: tuple[str, ...], value: dict[str, Any]) -> Iterator[tuple[Rule, str, Any]]:
    """Yield the members that have a rule, however deep; one that nobody described asks for we know not what."""
    for name, member in value.items():
        path = (*at, name)
        where = f"{header.name} {'.'.join(path)}"
        rules = [rule for rule in header.rules if rule.leads_to(path) and len(rule.path) >= len(path)]
        exact = next((rule for rule in rules if len(rule.path) == len(path)), None)
        if exact:
            yield exact, where, _in_form(exact, where, member)
        elif rules and isinstance(member, dict):
            yield from _members(header, path, member)
        elif rules and _is_empty(member):
            continue
        else:
            raise Malformed(f"{printable(where)} is nothing that this gateway knows")


def _in_form(rule: Rule, where: str, value: Any) -> Any:
    """Return a member that is what it must be, or says nothing: PHP writes an empty object as an empty array."""
    if rule.form and not isinstance(value, FORMS[rule.form]) and not _is_empty(value):
        raise Malformed(f"{where} is not of type {rule.form}")
    return value


def _asks_nothing(rule: Rule, value: Any) -> bool:
    return _is_empty(value) or _word(value) in rule.unless


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _word(value: Any) -> str:
    return str(value).strip().lower()


def _meant(vendor: str, rule: Rule, where: str, value: Any) -> Iterator[Claim]:
    """Yield what a value claims; raises `Malformed` for what is not done here, or cannot be read."""
    for meaning in rule.meanings:
        match meaning:
            case Meaning.SERVICE:
                raise Malformed(f"{printable(where)} asks for what this gateway does not do: {rule.says}")
            case Meaning.CLASS:
                yield Claim(meaning, vendor, where, _class(rule, where, value))
            case Meaning.BYPASS:
                yield Claim(meaning, vendor, where, _word(value))
            case Meaning.RECIPIENTS:
                yield from (Claim(meaning, vendor, where, one.text) for one in _addresses(where, value))
            case Meaning.NAMES | Meaning.HINTS | Meaning.CAMPAIGN:
                yield from (Claim(meaning, vendor, where, one) for one in _texts(where, value))


def _class(rule: Rule, where: str, value: Any) -> str:
    found = rule.classes.get(_word(value)) or rule.classes.get(ANY)
    if found is None:
        raise Malformed(f"{where} cannot be read")
    return found


def _texts(where: str, value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise Malformed(f"{where} is neither text nor a number")
        if text := _CONTROLS.sub(" ", str(one)).strip():
            yield text


def _addresses(where: str, value: Any) -> Iterator[Address]:
    """Read "ann@example.org", "Ann <ann@example.org>" or {"email": "ann@example.org"}, one or an array of them."""
    for one in value if isinstance(value, list) else [value]:
        text = one.get("email") if isinstance(one, dict) else one
        try:
            found = mailboxes(str(text).encode("utf-8"))
        except Malformed as error:
            raise Malformed(f"{where} names a recipient that cannot be read") from error
        if any(address.is_whole_domain for address in found):
            raise Malformed(f"{where} names a whole domain, which is nobody's mailbox")
        yield from found


def printable(text: str) -> str:
    """Return a message's own words as a reply may repeat them: ASCII, and cut short."""
    words = re.sub(r"[^ -~]", "?", text)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
