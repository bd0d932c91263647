"""Reading a file row by row: which format it is in, then what it says.

The rule that must not be broken: what is read is UTF-8 (or UTF-16 with its mark) of one known format, else the file is
refused with one sentence, and nothing of it has been used. Memory is that of a line, which is bounded, also of what is
packed in an archive; that of JSON documents is theirs, which are bounded too.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

import orjson

from gateway.errors import Malformed
from gateway.imports.formats import CLOUDFLARE, LISTINGS, OPT_OUT, TABLES, Listing, Table, reason
from gateway.imports.rows import BadRow, Fields, Found, Row, WrongFile, algorithm_of, guarded, moment, told

_HEADER_OCTETS = 65536
_LONGEST_LINE = 32 * 1024 * 1024
_LARGEST_DOCUMENT = 512 * 1024 * 1024
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")
"""How an archive begins, and one with nothing in it; whether it is whole is another question."""

_Records = Iterator[tuple[int, list[str] | BadRow]]
_ADDRESS_COLUMNS = ("email", "e-mail", "email address", "address", "emailaddress", "recipient")
_MEMBERS = frozenset(one.member for one in LISTINGS)
_DECODER = json.JSONDecoder()
_NEVER_SUBSCRIBED = re.compile(r"(?:^|[ /\\])non-?subscribed_", re.IGNORECASE)
"""Mailchimp's table of contacts who never subscribed: it differs from that of the subscribed by its name alone."""

_SPACE = re.compile(r"\s*")
_TO_THE_END = re.compile(r".*")


def read(path: Path, wanted: str = "") -> Iterator[tuple[str, Found]]:
    """Yield each row of a file with the format it was read as; raises `WrongFile`."""
    with path.open("rb") as file:
        is_archive = file.read(4) in _ARCHIVES
        file.seek(0)
        if is_archive:
            yield from _of_zip(path.name, file, wanted)
        else:
            yield from _of_text(path.name, file, wanted)


def _of_zip(name: str, file: BinaryIO, wanted: str) -> Iterator[tuple[str, Found]]:
    """Read the three tables of a Mailchimp export, whatever else is in the archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            tables = [one for one in archive.namelist() if one.lower().endswith(".csv") and not one.startswith("__")]
            if not tables:
                raise WrongFile(f"{name} is an archive without a table (.csv) in it")
            for one in tables:
                with archive.open(one) as member:
                    yield from _of_text(f"{name}: {one}", member, wanted or "mailchimp")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise WrongFile(f"{name} is a broken or locked archive: {error}") from error


def _of_text(name: str, file: IO[bytes], wanted: str) -> Iterator[tuple[str, Found]]:
    start = file.read(_HEADER_OCTETS)
    file.seek(0)
    if not start.strip():
        raise WrongFile(f"{name} is empty")
    if b"\0" in start[:2]:
        raise WrongFile(f"{name} is UTF-16 without its mark, or no text; save it as UTF-8 and try again")
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = io.TextIOWrapper(file, encoding, newline="")
    try:
        head = text.read(2048).lstrip()
        text.seek(0)
        yield from (_documents if head[:1] in ("{", "[") else _table_or_list)(name, text, wanted)
    except UnicodeError as error:
        raise WrongFile(f"{name} is neither UTF-8 nor UTF-16 text; save it as UTF-8 and try again") from error


def _table_or_list(name: str, text: TextIO, wanted: str) -> Iterator[tuple[str, Found]]:
    rows = _csv(name, text)
    first = next(((line, row) for line, row in rows if isinstance(row, BadRow) or any(row)), None)
    if first is None or isinstance(first[1], BadRow):
        raise WrongFile(f"{name} is no list of addresses and no table")
    header = [one.strip().lower() for one in first[1]]
    known = frozenset(header)
    tables = [one for one in TABLES if one.name == (wanted or one.name)]
    table = next((one for one in tables if one.fits(known, is_named=bool(wanted))), None)
    if table:
        are_bystanders = table.name == "mailchimp" and _NEVER_SUBSCRIBED.search(name) is not None
        for found in _of_table(table, header, rows):
            yield table.name, _bystander(found) if are_bystanders and isinstance(found, Row) else found
    elif "@" in "".join(first[1]) or algorithm_of(first[1][0].strip()):
        yield from _of_list(name, [first], rows, wanted)
    elif len(header) == 1 and header[0] in _ADDRESS_COLUMNS and wanted in ("", "plain"):
        yield from _of_list(name, [], rows, "plain")
    else:
        raise WrongFile(_no_format(name, ", ".join(header)[:200], wanted))


def _bystander(row: Row) -> Row:
    return replace(row, type=None, is_bystander=True)


def _no_format(name: str, columns: str, wanted: str) -> str:
    columns = "".join(one if one.isprintable() else "\ufffd" for one in columns)
    if wanted:
        return f"{name} is not in the format {wanted}: it begins with {columns}"
    return f"{name} is in no format that we know: it begins with {columns}"


def _csv(name: str, text: TextIO) -> _Records:
    """Yield each record with the line before it; one that is too large, or not a record, is a bad row."""
    lines = _Lines(name, text)
    rows = csv.reader(lines)
    while True:
        before = rows.line_num
        try:
            row: list[str] | BadRow = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            row = BadRow(rows.line_num, "", str(error))
        if lines.are_over or (isinstance(row, BadRow) and row.line > before + 1):
            raise WrongFile(f"{name} has a quotation mark that is not closed, in line {before + 1} or soon after it")
        yield before, row


class _Lines:
    """The lines of a file, one after the other; one of which there is no end in sight refuses it."""

    def __init__(self, name: str, text: TextIO) -> None:
        self._name = name
        self._text = text
        self.are_over = False

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise WrongFile(f"{self._name} has a line of more than {_LONGEST_LINE} characters")
            yield line
        self.are_over = True


def _of_table(table: Table, header: Sequence[str], rows: _Records) -> Iterator[Found]:
    for before, row in rows:
        if isinstance(row, BadRow):
            yield row
        elif any(row):
            yield _of_fields(table, before + 1, row, header)


def _of_fields(table: Table, line: int, row: list[str], header: Sequence[str]) -> Found:
    surplus = len(row) - len(header)
    if surplus > 0 and table.loose in header:
        at = header.index(table.loose)
        row = [*row[:at], ",".join(row[at : at + surplus + 1]), *row[at + surplus + 1 :]]
    if len(row) != len(header):
        return BadRow(line, told(row), f"has {len(row)} fields, and the header {len(header)}")
    fields: Fields = dict(zip(header, row, strict=True))
    return guarded(line, row, lambda: table.read(line, fields))


def _of_list(
    name: str, first: list[tuple[int, list[str] | BadRow]], rows: _Records, wanted: str
) -> Iterator[tuple[str, Found]]:
    """Read one address or digest a line, Amazon's `address,REASON` or Cloudflare's `address,UNTIL,SCOPE`.

    A file keeps to what it began with, but that Cloudflare's may begin with addresses alone.
    """
    begun = ""
    for before, row in chain(first, rows):
        line = before + 1
        if isinstance(row, BadRow):
            yield begun, row
            continue
        words = [one.strip() for one in row]
        if not any(words):
            continue
        kind = _kind(words, begun or wanted)
        begun = kind if (begun, kind, wanted) == ("plain", CLOUDFLARE, "") else begun or _begun(name, kind, wanted)
        if kind != begun or len(words) > _WIDTHS.get(kind, 1):
            yield begun, BadRow(line, told(words), f"not a line of a list of the format {begun}")
        else:
            yield kind, guarded(line, words[0], partial(_listed, line, words, begun))


_WIDTHS = {"ses": 2, CLOUDFLARE: 3}


def _kind(words: Sequence[str], expected: str) -> str:
    if "@" not in words[0]:
        return algorithm_of(words[0]) or "plain"
    if len(words) == 1:
        return CLOUDFLARE if expected == CLOUDFLARE else "plain"
    if expected in _WIDTHS:
        return expected
    if _is_time(words[1]) or (len(words) == 3 and not words[1]):
        return CLOUDFLARE
    return "ses" if len(words) == 2 else "plain"


def _is_time(word: str) -> bool:
    try:
        return moment(word) is not None
    except Malformed:
        return False


def _begun(name: str, kind: str, wanted: str) -> str:
    if wanted not in ("", kind):
        raise WrongFile(f"{name} is not in the format {wanted}: it looks like {kind}")
    return kind


def _listed(line: int, words: Sequence[str], kind: str) -> Row:
    if kind == "ses":
        return Row(line, words[0], reason(words[1]))
    if kind == CLOUDFLARE:
        return Row(line, words[0], OPT_OUT, until=moment("".join(words[1:2])))
    if kind == "plain":
        return Row(line, words[0], None)
    return Row(line, words[0], OPT_OUT, algorithm=kind)


def _documents(name: str, text: TextIO, wanted: str) -> Iterator[tuple[str, Found]]:
    """Read one JSON document that has a list in it, or one of each row after the other."""
    whole = text.read(_LARGEST_DOCUMENT)
    if len(whole) == _LARGEST_DOCUMENT:
        raise WrongFile(f"{name} is JSON of more than {_LARGEST_DOCUMENT} characters; import it in parts")
    try:
        document = orjson.loads(whole)
    except orjson.JSONDecodeError:
        document = {}
    if isinstance(document, dict) and not document.keys() & _MEMBERS:
        yield from _one_by_one(name, whole, wanted)
        return
    listing, items = _listing(name, document, wanted)
    for number, item in enumerate(items, 1):
        yield listing.name, guarded(number, item, partial(listing.read, number, item))


def _listing(name: str, document: Any, wanted: str) -> tuple[Listing, list[Any]]:
    for one in LISTINGS:
        items = document.get(one.member) if isinstance(document, dict) and one.member else None
        items = document if isinstance(document, list) and not one.member else items
        if isinstance(items, list) and one.name == (wanted or one.name):
            first = items[0] if items else dict.fromkeys(one.keys)
            if isinstance(first, dict) and one.fits(first, is_named=bool(wanted)):
                return one, items
    raise WrongFile(f"{name} is JSON, but not of {wanted or 'a vendor that we know'}")


def _one_by_one(name: str, whole: str, wanted: str) -> Iterator[tuple[str, Found]]:
    """Read what is a document of its own each, on a line or on several; after what is none, from the next line on."""
    listing: Listing | None = None
    at = _end_of(_SPACE, whole, 0)
    line = 1 + whole.count("\n", 0, at)
    while at < len(whole):
        try:
            item, end = _DECODER.raw_decode(whole, at)
        except (ValueError, RecursionError) as error:
            if listing is None:
                raise WrongFile(f"{name} begins like JSON and is not: {error}") from error
            end = _end_of(_TO_THE_END, whole, at)
            yield listing.name, BadRow(line, whole[at:end][:200], "not JSON")
        else:
            listing = listing or _listing(name, [item], wanted)[0]
            yield listing.name, guarded(line, item, partial(listing.read, line, item))
        end = _end_of(_SPACE, whole, end)
        line += whole.count("\n", at, end)
        at = end


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
