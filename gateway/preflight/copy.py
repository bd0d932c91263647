"""What a copy shows and fetches: its links, what reports on its reader, and what stands in it beyond its draft.

The rule that must not be broken: whatever the markup, it is read once and in time proportional to its length.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.model import Company
from gateway.pieces import Pieces
from gateway.prose import Source
from gateway.redirectors import redirector_in
from gateway.sight import Page

_TAG: Final = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)\b([^<>]*)>")
_ADDRESS: Final = re.compile(
    r"""\b(href|src|background|action|poster)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE
)
_IN_TEXT: Final = re.compile(r"https?://[^\s<>\"']+", re.IGNORECASE)
_ENDS_SENTENCES: Final = ".,;:!?)]}"


class Link(NamedTuple):
    """An address on the web that a copy names: where it is named ("link", "image", "form", "text"), and whose it is."""

    kind: str
    url: str
    host: str
    is_ours: bool

    @property
    def is_in_the_clear(self) -> bool:
        return self.url.lower().startswith("http://")


_KINDS: Final = {"src": "image", "background": "image", "poster": "image", "action": "form"}


def links_of(sources: Sequence[Source], is_ours: Callable[[str], bool]) -> list[Link]:
    """Return each address once, in the order in which it is first named."""
    found: dict[str, Link] = {}
    for source in sources:
        for kind, url in _in_html(source.text) if source.is_html else _in_text(source.text):
            host = _host(url)
            if host:
                found.setdefault(url, Link(kind, url, host, is_ours(host)))
    return list(found.values())


def trackers_in(sources: Sequence[Source], links: Sequence[Link]) -> list[str]:
    """Return what of a copy reports on its reader, in a few words each: what nobody sees, links that are noted."""
    pages = [Page(Pieces(source.text.encode("utf-8", "replace"))) for source in sources if source.is_html]
    unseen = (f"fetched unseen from {one.host}" for page in pages for one in page.unseen())
    followed = (redirector_in(one.url.encode("utf-8", "replace")) for one in links)
    return list(dict.fromkeys([*unseen, *(f"{host} notes who follows its links" for host in followed if host)]))


def added_to(draft: Sequence[str], copy: Sequence[str], company: Company) -> list[str]:
    """Return which of the sender's name, postal address and contact are in the copy's texts and not in the draft's."""
    facts = {"name": company.name, "postal address": company.postal_address, "contact": company.contact}
    parts = list(zip(draft, copy, strict=False))
    return [f"the {name}: {fact}" for name, fact in facts.items() if any(_is_new(fact, *pair) for pair in parts)]


def _is_new(fact: str, before: str, after: str) -> bool:
    letters = _letters(fact)
    return bool(letters) and letters in _letters(after) and letters not in _letters(before)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _in_html(text: str) -> Iterator[tuple[str, str]]:
    for _, attributes in _TAG.findall(text):
        yield from _addresses(attributes)


def _addresses(attributes: str) -> Iterator[tuple[str, str]]:
    for name, double, single, bare in _ADDRESS.findall(attributes):
        yield _KINDS.get(name.lower(), "link"), html.unescape(double or single or bare).strip()


def _in_text(text: str) -> Iterator[tuple[str, str]]:
    for url in _IN_TEXT.findall(text):
        yield "text", url.rstrip(_ENDS_SENTENCES)


def _host(url: str) -> str:
    """Return the host of an address on the web; "" for anything else."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme.lower() in ("http", "https") or url.startswith("//")
        return (parts.hostname or "") if is_web else ""
    except ValueError:
        return ""
