"""The charsets of text parts, and words spelled in them: what a charset lacks is spelled without.

The one rule: no charset makes this raise, whatever a part claims to be written in.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

from gateway.mime import WIDE, Part

_PRINTABLE = "".join(map(chr, range(32, 127)))


def codec(part: Part) -> str:
    """Return the codec of a part's charset; "ascii" where none is named, or none of that name is known."""
    return _codec_of(part.parameters.get("charset", "us-ascii")[:_CHARSET_LIMIT])


@lru_cache(maxsize=256)
def _codec_of(charset: str) -> str:
    """Only names that Python lists are looked up: it remembers every name it was ever asked for."""
    name = re.sub(r"[^a-z0-9]+", "_", charset)
    if name in aliases or name in _CODECS:
        return name
    return "utf_16" if WIDE.match(name) else "ascii"


_CHARSET_LIMIT: Final = 40
"""Characters of the longest name that the registry of charsets has (RFC 2978 §2.3)."""

_CODECS = frozenset(aliases.values())


@lru_cache(maxsize=256)
def is_ascii_compatible(codec: str) -> bool:
    """False for UTF-16, UTF-7, EBCDIC and the like, into which ASCII cannot be written as it is."""
    try:
        return _PRINTABLE.encode(codec) == _PRINTABLE.encode("ascii")
    except (LookupError, UnicodeError):
        return False


def in_its_order(codec: str, text: bytes) -> str:
    """Return UTF-16 or UTF-32 with the order of a text's octets, so that it is written in the same (RFC 2781 §4.3).

    Where no mark says which comes first, letters do, whose other octets are NULs. Any other codec is returned as it is.
    """
    name = codecs.lookup(codec).name
    if name not in _EITHER_ORDER:
        return codec
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return f"{name}-le" if text.startswith(codecs.BOM_UTF16_LE) else f"{name}-be"
    return f"{name}-le" if text[1::2].count(0) > text[::2].count(0) else f"{name}-be"


_EITHER_ORDER: Final = frozenset({"utf-16", "utf-32"})

_TRANSLITERATE: Final = "assent.transliterate"
_SPELLINGS = {
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d"},
    **{"Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "–": "-", "—": "-", "‘": "'", "’": "'"},
    **{"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "•": "*", "·": "*", "€": "EUR", "£": "GBP", "©": "(c)"},
}


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(map(_plain_spelling, characters)), error.end


def _plain_spelling(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return _SPELLINGS.get(character) or decomposed or "?"


codecs.register_error(_TRANSLITERATE, _transliterate)


def spelled(text: str, codec: str) -> bytes:
    """Write a text in a charset: what it lacks is spelled with plain letters, or "?" where there are none."""
    return text.encode(codec, _TRANSLITERATE)
