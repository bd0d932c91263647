"""An operator's own footers: files that are read once, and what each must have so that mail may carry it.

The one rule: a footer that lacks the link is found at start, and never met when mail is sent. Beside `footer.html`
may stand `footer.de.html` for those who read German.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.config.kinds import Kind, line, written
from gateway.model import Company

LINK: Final = "{{unsubscribe_url}}"
_LARGEST: Final = 64 * 1024
_LONGEST_LINE: Final = 900
"""Octets of a line, so that the link fits in it too (RFC 5322 §2.1.1)."""

_TARGET = re.compile(r"<a\b[^>]*\bhref\s*=\s*[\"']?" + re.escape(LINK), re.IGNORECASE)
_MARKS = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)


def _footer(text: str, folder: Path) -> Mapping[str, str] | None:
    if not line(text):
        return None
    path = folder / text
    found = {"": _read(path)}
    for one in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        language = one.name[len(path.stem) + 1 : -len(path.suffix) or None].lower()
        if re.fullmatch(r"[a-z]{2,3}", language):
            found[language] = _read(one)
    return found


def _read(path: Path) -> str:
    try:
        text = path.read_bytes()[:_LARGEST].decode("utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); make it a file that this user may read") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8; save the file in that encoding") from error
    if text.count(LINK) != 1:
        raise ValueError(
            f"{path} has {text.count(LINK)} places for the link; write {LINK} once, where people unsubscribe"
        )
    if path.suffix.lower() in (".html", ".htm") and not _TARGET.search(text):
        raise ValueError(f'{path} has no link that people could follow; write <a href="{LINK}">Unsubscribe</a>')
    lines = text.rstrip().splitlines()
    if any(len(one.encode("utf-8")) > _LONGEST_LINE for one in lines):
        raise ValueError(f"{path} has a line of more than {_LONGEST_LINE} octets; break it")
    return "".join(f"{one}\r\n" for one in lines)


FOOTER: Final[Kind] = written("the path of a file", '"footer.html"', _footer, {})


def unsaid(text: str, company: Company) -> Iterator[str]:
    """Yield the keys of what a footer does not say of the company (15 USC 7704(a)(5), CASL 6(2))."""
    said = _letters(html.unescape(_MARKS.sub(" ", text)))
    told = {"name": company.name, "postal_address": company.postal_address, "contact": company.contact}
    yield from (key for key, value in told.items() if _letters(value) not in said)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())
