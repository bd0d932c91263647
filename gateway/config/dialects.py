"""The headers of other mail systems as files: one a vendor, brought along."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

from gateway.config.kinds import many, word
from gateway.config.notes import nearest
from gateway.dialects import Dialects, Vendor, vendor_of

OURS = Path(__file__).resolve().parent.parent / "dialects"
VENDORS = tuple(sorted(path.stem for path in OURS.glob("*.toml")))
"""What may stand before the colon in `also_called`."""


def vendors() -> tuple[Vendor, ...]:
    """Read every vendor's file, by name; raises `ValueError` for one that cannot mean what it says."""
    return tuple(vendor_of(key, tomllib.loads((OURS / f"{key}.toml").read_text("utf-8"))) for key in VENDORS)


@lru_cache(maxsize=1)
def dialects() -> Dialects:
    """Return what all of them say; read once."""
    return Dialects.of(vendors())


def _name_elsewhere(text: str) -> str | None:
    vendor, colon, name = text.lower().partition(":")
    if colon and vendor not in VENDORS:
        raise ValueError(f'"{vendor}" is no system that we know; {nearest(vendor, VENDORS) or ", ".join(VENDORS)}')
    return f"{vendor}:{name.strip()}" if name.strip() and name.isprintable() else None


ALSO_CALLED = many(
    word("another system's name for it", '"sendgrid:17"', _name_elsewhere),
    "an array of other systems' names for it",
    '["sendgrid:17", "postmark:broadcast"]',
)
