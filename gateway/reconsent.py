"""Where a policy notice wants its reader's link to consent anew (POL-13).

The one rule: what differs from the message as it was submitted is the placeholder alone; only a part in base64 is
encoded anew. Which link it is, and for whom, is `copies`' part.
"""

from __future__ import annotations

from typing import Final

from gateway.headers import HeaderBlock
from gateway.mime import parse, shown
from gateway.slots import Placement, stand_in

PLACEHOLDER: Final = b"{{assent_reconsent_url}}"


def link_placements(message: bytes, block: HeaderBlock) -> list[Placement]:
    """Return where the link goes, in each part that is shown and asks for it."""
    return [one for part in shown(parse(message, block)) for one in stand_in(message, part, PLACEHOLDER)]


def asks(message: bytes, block: HeaderBlock) -> int:
    """Return how often the part that says it most often asks for the link; 0 where no part does."""
    parts = shown(parse(message, block))
    placed = [[one.slot for one in stand_in(message, part, PLACEHOLDER)] for part in parts]
    return max((sum(len(slot.holes) for slot in slots) for slots in placed), default=0)
