"""The page that tells a team which unsubscribe placeholders of its templates are filled, from the program's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.placeholders import Placeholder

_OPENING: Final = """# Unsubscribe placeholders

Written by `make docs` from gateway/placeholders/placeholders.toml.

A template that was made for another system has a placeholder where its unsubscribe link goes. In promotional mail
Assent puts the recipient's own link there, in plain text and HTML, whatever the charset and transfer encoding: raw,
HTML-escaped (`&lt;%`), URL-encoded (`%7B%7B`), split by soft line breaks, behind an `http://` that an editor has put
before it, or the address of the editor's own page. White space within the braces, and case, make no difference. It is
filled in attached text and calendars too; what is within an attached message stays as it is.

*link*: in text a whole link, within a tag its target. *url*: the address alone. *mail*: the address to which a mail
unsubscribes. Preferences and "all lists" lead to the same page, which offers the wider choice. **refused**: there is
no page for it here, or it is no link, and the message is answered `554 5.6.0 content:` with its name, since no
placeholder leaves as it is; so is one in a Subject, a From or a Reply-To, where no link can stand. A name in brackets
was seen at second hand only.

Where a part has its own link that can be seen, the footer brings none; it still names the sender, postal address and
contact where the part does not.

| system | placeholder | becomes |
|---|---|---|
"""


def page(placeholders: Iterable[Placeholder]) -> str:
    """Return the page about all of them, by system."""
    rows = sorted(placeholders, key=lambda one: (one.system.lower(), one.shown))
    return _OPENING + "".join(map(_row, rows))


def _row(one: Placeholder) -> str:
    system = one.system if one.is_verified else f"({one.system})"
    becomes = "**refused**" if one.kind == "refused" else one.kind
    return f"| {system} | `{one.shown.replace('|', chr(92) + '|')}` | {becomes} |\n"
