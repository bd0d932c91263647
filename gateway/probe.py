"""Ask our own site for a page, at the place where it listens, as a reader would at the place that links name.

The rule that must not be broken: only GET is ever asked, which changes nothing, and only of the address that was given
at the start, whatever a link says. What the answer means is for whoever asks.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import aiohttp

_PATIENCE: Final = 5.0
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Probe:
    """Asks a site that listens at a host and port, under the name of its public address."""

    def __init__(self, host: str, port: int, *, is_tls: bool) -> None:
        reached = _ANY_ADDRESS.get(host, host)
        literal = f"[{reached}]" if ":" in reached else reached
        self._base = f"{'https' if is_tls else 'http'}://{literal}:{port}"

    async def __call__(self, url: str) -> tuple[int, str]:
        """Return how the site answers GET for a link: its status, 0 for no answer, and the same in words."""
        parts = urlsplit(url)
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        # The certificate is for the public name, and this goes to the place behind it.
        connector = aiohttp.TCPConnector(ssl=False)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
                session.get(self._base + parts.path, headers={"Host": parts.netloc}, allow_redirects=False) as answer,
            ):
                return answer.status, f"the site answers {answer.status} {answer.reason}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, f"the site cannot be reached from here: {type(error).__name__}"
