"""What does the body of a POST ask for?

Every body that comes to an unsubscribe link asks to stop mail (UNS-19): reading one only tells how much, and by what
hand. So nothing here raises and nothing is refused; a body that cannot be read stops what the link says. Only its own
button gives consent anew. Size and time limits are the caller's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

from gateway.model import Scope

ONE_CLICK_FIELD: Final = "list-unsubscribe"
SCOPE_FIELD: Final = "scope"
AGREE_FIELD: Final = "agree"

_PAGE_SCOPES = {Scope.TOPIC, Scope.PARTNER, Scope.ALL_MARKETING}
_FOLD = re.compile(rb"\r?\n[ \t]+")
# Parts are found by their own header, not by the boundary: RFC 8058 §8.3 prints an example whose delimiters lack the
# two hyphens that its boundary calls for (errata 5117 and 8927), and senders copy it.
_PART = re.compile(
    rb'^content-disposition:[ \t]*form-data[ \t]*;[^\r\n]*?\bname="?([^"\r\n;]+)"?[^\r\n]*\r?\n'
    rb"(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)


class Body(StrEnum):
    """What kind of body came; the ledger keeps it, so the names are for ever."""

    ONE_CLICK = "one-click"
    PAGE = "page"
    EMPTY = "empty"
    UNFAMILIAR = "unfamiliar"


@dataclass(frozen=True, slots=True)
class Wish:
    """How much mail is to stop, and by what kind of body that was said."""

    scope: Scope
    body: Body

    @property
    def channel(self) -> str:
        """Only the page's own buttons prove that somebody saw the page."""
        return "page" if self.body is Body.PAGE else "one-click"


def read_wish(content_type: str, body: bytes, link: Scope) -> Wish:
    """Return what a POST asks for, where `link` is the scope that its signed token names (UNS-20, RFC 8058 §3.2)."""
    if not body.strip():
        return Wish(link, Body.EMPTY)
    fields = _fields(content_type, body)
    if fields.get(ONE_CLICK_FIELD, "").lower() == "one-click":
        return Wish(link, Body.ONE_CLICK)
    chosen = fields.get(SCOPE_FIELD, "")
    if chosen not in _PAGE_SCOPES:
        return Wish(link, Body.UNFAMILIAR)
    return Wish(Scope.ALL_MARKETING if chosen == Scope.ALL_MARKETING else link, Body.PAGE)


def agrees(content_type: str, body: bytes) -> bool:
    """True where a body is that of the button that gives consent anew: a yes is read narrowly (GDPR 4(11))."""
    return _fields(content_type, body).get(AGREE_FIELD) == "yes"


def _fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the form's fields, names in lower case, values without surrounding white space."""
    if content_type.lstrip().lower().startswith("multipart/"):
        pairs = [(_text(name), _text(value)) for name, value in _PART.findall(_FOLD.sub(b" ", body))]
    else:
        pairs = parse_qsl(_text(body), keep_blank_values=True)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
