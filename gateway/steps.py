"""Much data, worked on a step at a time: so that other threads have their turn, and memory holds no more than it must.

The one rule: of what goes in and what comes out there is one each in memory, and between them never more than a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final

from gateway.model import Segment

STEP: Final = 4096 * 57
"""Octets of a step; a multiple of 57, which make one line of base64 (RFC 2045 §6.8)."""


def steps(data: Segment) -> Iterator[bytes]:
    """Yield octets a step at a time."""
    for at in range(0, len(data), STEP):
        yield bytes(data[at : at + STEP])


def lines(data: Segment) -> Iterator[bytes]:
    """Yield octets about a step at a time, cut where a line ends."""
    rest = b""
    for step in steps(data):
        held = rest + step
        end = held.rfind(b"\n") + 1
        yield held[:end]
        rest = held[end:]
    yield rest


def joined(pieces: Iterable[Segment]) -> bytes:
    """Join pieces as they come, none of which is kept beside the whole."""
    whole = BytesIO()
    whole.writelines(pieces)
    return whole.getvalue()
