"""One HTTP request to a program outside, and what came of it.

The rules that must not be broken: no redirect is ever followed, nothing of ours goes with a request but what it is
made of (no cookie, no proxy of the environment), and what is said of a failure names nobody.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

MOST_SECONDS = 15.0
"""How long an endpoint has to answer, all in all (the Standard Webhooks specification advises 15 to 30 s)."""

CONNECTIONS = 8
_BODY_SECONDS, _BODY_READ = 1.0, 4096
_GONE = 410
_LONGEST_WAIT = timedelta(days=1)
_SECONDS = re.compile(r"[0-9]{1,9}")
_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class Post(NamedTuple):
    """What is posted where; the URL goes out as it stands here."""

    url: str
    body: bytes
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What came of a request: the status, 0 where there was no answer; in words; how long we are asked to wait."""

    status: int
    words: str
    wait: timedelta = timedelta(0)

    @property
    def is_taken(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        return self.status == _GONE


class Caller:
    """Makes requests to one target, a few at a time. `authorities` are PEM; "" trusts the system's."""

    def __init__(self, authorities: str = "", resolver: AbstractResolver | None = None) -> None:
        trusted = ssl.create_default_context(cadata=authorities or None)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trusted, resolver=resolver),
            timeout=aiohttp.ClientTimeout(total=MOST_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"Assent/{version('assent')}"},
        )

    async def post(self, post: Post) -> Answer:
        """Post, and return what came of it; never raises for what the other side does."""
        try:
            async with self._session.post(
                URL(post.url, encoded=True), data=post.body, headers=post.headers, allow_redirects=False
            ) as response:
                await _read_a_little(response)
                return Answer(response.status, _told(response.status), _wait(response.headers))
        except TimeoutError:
            return Answer(0, f"no answer within {MOST_SECONDS:.0f} s")
        except aiohttp.ClientConnectorCertificateError:
            return Answer(0, "its certificate is not trusted")
        except aiohttp.ClientConnectorError as error:
            return Answer(0, f"cannot be reached: {error.os_error.strerror or 'its name has no address'}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, f"cannot be reached ({type(error).__name__})")

    async def close(self) -> None:
        await self._session.close()


def _told(status: int) -> str:
    return f"answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")


async def _read_a_little(response: aiohttp.ClientResponse) -> None:
    """Let a short body arrive, so that the connection can be used again; whatever becomes of it, the status counts."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(_BODY_SECONDS):
            await response.content.read(_BODY_READ)


def _wait(headers: Mapping[str, str]) -> timedelta:
    """Read Retry-After (RFC 9110 §10.2.3): a number of seconds, or a time by the clock that the answer's Date tells."""
    text = headers.get("Retry-After", "")
    if _SECONDS.fullmatch(text):
        return min(timedelta(seconds=int(text)), _LONGEST_WAIT)
    try:
        wait = datetime.strptime(text, _HTTP_DATE) - datetime.strptime(headers.get("Date", ""), _HTTP_DATE)
    except ValueError:
        return timedelta(0)
    return max(timedelta(0), min(wait, _LONGEST_WAIT))
