"""From what TOML gave to values, by the schema.

Everything is read, whatever is wrong: a problem is noted and a blank stands in for the value, so that one run tells
them all. What values must be to one another is `checks`' to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.kinds import Missing, shown
from gateway.config.lines import Place
from gateway.config.notes import Notes, dotted, nearest
from gateway.config.schema import NOT_YET_IN_FORCE, REQUIRED, SECTIONS, TOP, UNSET, Key, Presence, Section, Tables

Table = dict[str, Any]


class Reader:
    """Reads one file. `keys_may_be_missing` is for those who are about to make them."""

    def __init__(self, folder: Path, notes: Notes, *, keys_may_be_missing: bool = False) -> None:
        self._folder = folder
        self._notes = notes
        self._keys_may_be_missing = keys_may_be_missing

    def read(self, raw: Mapping[str, Any]) -> Table:
        """Return every section by its name, and the keys before the first one beside them."""
        sections = {section.name: section for section in SECTIONS if section is not TOP}
        for name in raw.keys() - sections.keys() - {key.name for key in TOP.keys}:
            self._unknown((name,), name, [*sections, *(key.name for key in TOP.keys)])
        values = self._keys(TOP, (), raw)
        values |= {name: self._section(section, raw.get(name)) for name, section in sections.items()}
        self._pair_tls("submission", values["submission"])
        self._pair_tls("site", values["site"] or {})
        return values

    def _pair_tls(self, name: str, table: Table) -> None:
        missing = [key for key in ("tls_certificate", "tls_key") if table.get(key, "") is None]
        if len(missing) == 1:
            self._notes.problem((name, missing[0]), f"{name}.{missing[0]} is missing beside the other; set both")

    def _section(self, section: Section, raw: Any) -> Any:
        if raw is None:
            return self._absent(section)
        if not isinstance(raw, dict):
            self._notes.problem((section.name,), f"{section.name} is a section; write [{section.title}]")
            raw = {}
        if section.names is None:
            return self._table(section, (section.name,), raw)
        return {name: self._named(section, name, raw[name]) for name in raw}

    def _absent(self, section: Section) -> Any:
        if section.names is not None:
            return {}
        if section.absent is Presence.OFF:
            return None
        if section.absent is REQUIRED:
            needed = ", ".join(key.name for key in section.keys if isinstance(key, Key) and key.default is REQUIRED)
            self._notes.problem((section.name,), f"[{section.name}] is missing; add it, with {needed}", spoils=False)
            return {key.name: key.kind.blank for key in section.keys if isinstance(key, Key)}
        return self._keys(section, (section.name,), {})

    def _named(self, section: Section, name: str, raw: Any) -> Table:
        place = (section.name, name)
        if not isinstance(raw, dict):
            self._notes.problem(
                place, f"{dotted(place)} stands in no table of its own; write [{section.title}] above it"
            )
            raw = {}
        elif section.names:
            self._name(section.names.read, place, name)
        return self._table(section, place, raw)

    def _name(self, read: Any, place: Place, name: str) -> None:
        try:
            canonical = read(name, self._folder)
        except ValueError as error:
            self._notes.problem(place, f"[{dotted(place)}]: {error}", spoils=False)
        else:
            if canonical != name:
                meant = dotted((*place[:-1], canonical))
                self._notes.problem(place, f"[{dotted(place)}] is not how we write it; write [{meant}]", spoils=False)

    def _table(self, section: Section, place: Place, raw: Mapping[str, Any]) -> Table:
        known = [key.name for key in section.keys]
        for name in raw.keys() - set(known):
            self._unknown((*place, name), name, known)
        return self._keys(section, place, raw)

    def _unknown(self, place: Place, name: str, known: list[str]) -> None:
        if f"{name}_file" in known:
            remedy = f"secrets stand in a file of their own, mode 0600; name it with {name}_file"
        else:
            remedy = nearest(name, known) or "remove it, or see docs/configuration.md"
        self._notes.problem(place, f"{dotted(place)} is not a key that exists; {remedy}")

    def _keys(self, section: Section, place: Place, raw: Mapping[str, Any]) -> Table:
        return {key.name: self._value(section, key, (*place, key.name), raw) for key in section.keys}

    def _value(self, section: Section, key: Key | Tables, place: Place, raw: Mapping[str, Any]) -> Any:
        if isinstance(key, Tables):
            return self._array(key, place, raw.get(key.name))
        if key.name not in raw:
            return self._default(key, place)
        self._warn_if_not_yet(f"{section.name}.{key.name}", place, raw[key.name])
        try:
            return key.kind.read(raw[key.name], self._folder)
        except Missing as error:
            return self._missing(key, place, error)
        except ValueError as error:
            return self._wrong(key, place, error)

    def _missing(self, key: Key, place: Place, error: Missing) -> Any:
        if self._keys_may_be_missing:
            return error.value
        if not error.meanwhile:
            return self._wrong(key, place, error)
        self._notes.warning(place, f"{dotted(place)}: {error}; until then {error.meanwhile}")
        return error.value

    def _wrong(self, key: Key, place: Place, error: ValueError) -> Any:
        self._notes.problem(place, f"{dotted(place)}: {error}")
        return key.kind.blank

    def _default(self, key: Key, place: Place) -> Any:
        if key.default is REQUIRED:
            self._notes.problem(place, f"{dotted(place)} is missing; write {key.kind.form}")
        if key.default in (REQUIRED, UNSET):
            return key.kind.blank
        return key.kind.read(key.default, self._folder)

    def _array(self, key: Tables, place: Place, raw: Any) -> list[Table]:
        if not isinstance(raw, list) or not raw or not all(isinstance(one, dict) for one in raw):
            names = ", ".join(f"{one.name} = …" for one in key.section.keys)
            said = "is missing" if raw is None else "is not an array of tables"
            self._notes.problem(place, f"{dotted(place)} {said}; write {key.name} = [{{ {names} }}]")
            return []
        return [self._table(key.section, (*place, n), one) for n, one in enumerate(raw)]

    def _warn_if_not_yet(self, name: str, place: Place, raw: Any) -> None:
        not_yet = NOT_YET_IN_FORCE.get(name)
        if not_yet and raw not in not_yet.happens:
            said = f"{dotted(place)} = {shown(raw)} is understood but not yet in force in this version"
            self._notes.warning(place, f"{said}: {not_yet.instead}")
