"""The footer's own words, by language: `locales/*.toml`, English where there is none of that language.

The one rule: a language has all of the words, so that no footer mixes two. Which language a person reads is for others
to know; a tag is cut down to its first part ("pt-BR" reads what "pt" does).
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from typing import Final, NamedTuple

ENGLISH: Final = "en"


class Words(NamedTuple):
    """What the footer says in one language, whose BCP 47 tag is `language`.

    `advertising` is said where no opt-in is on file (15 USC 7704(a)(5)), `objection` in the first message to
    somebody (GDPR 21(4)).
    """

    language: str
    unsubscribe: str
    contact: str
    advertising: str
    objection: str


def primary(tag: str) -> str:
    """Return the language of a tag (RFC 5646 §2.2.1), in lower case: "de" of "de-AT"."""
    return tag.replace("_", "-").partition("-")[0].lower()


def words_in(tag: str) -> Words:
    """Return the words for whoever reads this language; the English ones where there are none."""
    return _all().get(primary(tag)) or _all()[ENGLISH]


def languages() -> tuple[str, ...]:
    """Return the languages that there are words in."""
    return tuple(_all())


@lru_cache(maxsize=1)
def _all() -> dict[str, Words]:
    files = (one for one in resources.files(__package__).joinpath("locales").iterdir() if one.name.endswith(".toml"))
    found = (_read(one.name.removesuffix(".toml"), one.read_text("utf-8")) for one in files)
    return {words.language: words for words in sorted(found)}


def _read(language: str, text: str) -> Words:
    return Words(language=language, **tomllib.loads(text))
