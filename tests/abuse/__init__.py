"""Abuse of the installed program through its sockets: what it must bear, refuse or shake off.

Sizes are those of CI; with ASSENT_ABUSE=1, as `make torture` sets it, they are the full ones.
"""

import os

IS_TORTURE = os.environ.get("ASSENT_ABUSE") == "1"


def size(ci: int, torture: int) -> int:
    """Return how many, how large or how long: for every change, or for the long run."""
    return torture if IS_TORTURE else ci
