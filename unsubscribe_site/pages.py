"""The words and the HTML that a person reads.

The rule that must not be broken: a page names one topic and a masked address, and nothing else about anybody. Whoever
was forwarded the link sees it too, and it reads the same whether or not the person is subscribed (UNS-28, WEB-02).
Templates are compiled, and every page that has no variable part is rendered, once at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.address import Address
from gateway.model import Company, Scope
from gateway.store import PublishedPolicy

_HERE = Path(__file__).parent

STYLESHEET: Final = (_HERE / "static" / "site.css").read_bytes()

_NOT_RECORDED = (
    "Your choice is not recorded yet",
    "Something on our side is not working, so your choice has not been recorded. Please try again in a minute.",
)
_UNKNOWN_LINK = (
    "This link does not work",
    "It may have been cut short on its way to you. Please open the message again and use its unsubscribe link, "
    "or write to our privacy contact, named below, and we will do it for you.",
)
_AGAIN = "Nothing was changed. Please open the link again and press the button once more."
_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("That request was garbled", _AGAIN),
    404: _UNKNOWN_LINK,
    405: ("That cannot be done here", _AGAIN),
    408: ("That took too long", _AGAIN),
    413: ("That was too much at once", _AGAIN),
    415: ("That form of request is not understood", "Nothing was changed. Please send it again without compression."),
    429: _UNKNOWN_LINK,
    500: _NOT_RECORDED,
    503: _NOT_RECORDED,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a page is about: how much mail is to stop, the topic's name for people, and whose mail, masked or ""."""

    scope: Scope
    topic: str
    address: str


class Pages:
    """Every page of the site, for one company. `prefix` is the path that the public URL puts before ours."""

    def __init__(self, company: Company, prefix: str = "") -> None:
        environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        contact = quote(company.contact, safe="@")
        environment.globals.update(company=company, contact=contact, prefix=prefix, Scope=Scope)
        self._ask = environment.get_template("ask.html")
        self._done = environment.get_template("done.html")
        self._retry = environment.get_template("retry.html")
        self._policies = environment.get_template("policies.html")
        self._ask_anew = environment.get_template("ask_anew.html")
        self._done_anew = environment.get_template("done_anew.html")
        self._problems = _rendered(environment)

    def ask(self, subject: Subject) -> str:
        """Return the page that shows what a link stops, with the buttons that stop it (UNS-17)."""
        return self._ask.render(subject=subject)

    def done(self, subject: Subject) -> str:
        """Return the page that says what has been stopped, and what has not (WEB-21)."""
        return self._done.render(subject=subject)

    def retry(self, scope: Scope) -> str:
        """Return the page that says that the "no" is not recorded yet, with a button that says it again."""
        title, sentence = _NOT_RECORDED
        return self._retry.render(title=title, sentence=sentence, scope=scope)

    def policies(self, published: Sequence[PublishedPolicy], now: datetime) -> str:
        """Return the page that lists every version of the privacy policy, the newest first (POL-33)."""
        in_force = next((one for one in published if one.version.effective <= now), None)
        return self._policies.render(published=published, in_force=in_force)

    def ask_anew(self, version: str, address: str) -> str:
        """Return the page that asks for consent anew under a policy version, with the button that gives it (POL-13)."""
        return self._ask_anew.render(version=version, address=address)

    def done_anew(self, version: str, address: str) -> str:
        """Return the page that says that consent has been given anew."""
        return self._done_anew.render(version=version, address=address)

    def problem(self, status: int) -> str:
        """Return the page for an HTTP error; statuses without words of their own share those of 400 or 500."""
        return self._problems.get(status) or self._problems[400 if status < 500 else 500]


def mask(address: Address) -> str:
    """Return enough of an address for its owner to know it, and no more: `a•••@e•••.com` (POL-28)."""
    first = address.local.lstrip('"')[:1]
    if address.domain.startswith("["):
        return f"{first}•••@•••"
    top = address.domain.rstrip(".").rpartition(".")[2]
    return f"{first}•••@{address.domain[0]}•••.{top}"


def _rendered(environment: Environment) -> Mapping[int, str]:
    template = environment.get_template("problem.html")
    return {status: template.render(title=title, sentence=text) for status, (title, text) in _PROBLEMS.items()}
