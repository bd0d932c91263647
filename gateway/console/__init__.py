"""The operators' listener: health, readiness, metrics, the API for programs, and pages; never on the public site.

Health and metrics show counts and nothing else: no address, token or subject can be asked for there. All that concerns
people is behind a token or a password.
"""

from __future__ import annotations

from typing import Final

PAGES: Final = "/console"
"""Where the pages are."""
