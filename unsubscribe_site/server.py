"""Connections, response headers and the access log: what every answer of the site has in common.

The rule that must not be broken: nothing that is logged tells who asked for what. A path is a capability, so the
access log has the route's name in its place, and an error is logged by its type and place, without its text (WEB-06).
aiohttp's own answers to requests that it cannot parse pass through here too.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from socket import socket
from ssl import SSLContext
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

ERRORS: Final = logging.getLogger("assent.site")
ACCESS: Final = logging.getLogger("assent.site.access")

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "Assent",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
"""On every answer, errors included (WEB-07, WEB-08). `Server` is there because aiohttp would name its version."""

IDLE: Final = timedelta(seconds=15)
LINGER: Final = timedelta(seconds=2)

MOST_CONNECTIONS: Final = 10_000

ROUTE: Final = web.RequestKey("route", str)
"""Where a request keeps its route's name for the access log."""

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "PROPFIND"})


async def start(
    app: web.Application, sockets: Sequence[socket], *, tls: SSLContext | None = None, idle: timedelta = IDLE
) -> web.AppRunner:
    """Serve an app on bound sockets and return the runner, whose `cleanup()` lets open requests finish.

    A connection on which no whole request arrives within `idle` is closed; bodies have their own limit. Where more are
    open than the process can bear, whoever has been there longest makes room: mail needs open files as well.
    """
    app.middlewares.insert(0, _keep_route)
    app.on_response_prepare.append(_add_headers)
    runner = web.AppRunner(app, access_log_class=AccessLog)
    await runner.setup()
    crowd = _Crowd(min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
    for bound in sockets:
        await _Door(runner, bound, tls, idle, crowd).start()
    return runner


def report(what: str, error: BaseException | None) -> None:
    """Log an error by type and place. Its text is left out: it may quote the request."""
    if error is not None:
        ERRORS.error("%s: %s\n%s", what, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


class AccessLog(AbstractAccessLogger):
    """One line a request: method, route, status, duration. No path, address, referer or user agent."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        method = request.method if request.method in _METHODS else "other"
        self.logger.info("%s %s %d %.1f ms", method, request.get(ROUTE, "unmatched"), response.status, time * 1000)


@web.middleware
async def _keep_route(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Keep the route's name; of one without a name its path, in which a parameter stands as `{id}` (WEB-06)."""
    route = request.match_info.route
    request[ROUTE] = route.name or (route.resource.canonical if route.resource else "unmatched")
    return await handler(request)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


class _Crowd:
    """Who is connected, in the order in which they came; `most` at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._present: dict[_Connection, None] = {}

    def enter(self, one: _Connection) -> None:
        if len(self._present) >= self._most:
            longest = next(iter(self._present))
            self.leave(longest)
            longest.force_close()
        self._present[one] = None

    def leave(self, one: _Connection) -> None:
        self._present.pop(one, None)


class _Connection(web.RequestHandler):
    """aiohttp's side of one connection, with our headers on its own answers and without its talkative log."""

    __slots__ = ("_crowd",)

    def __init__(self, crowd: _Crowd, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._crowd.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._crowd.leave(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            report("unhandled", exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is already on its way")
        answer = web.Response(status=status, text="The request could not be read.\n", headers=HEADERS)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        report(str(args[0]), kw.get("exc_info"))


class _Door(web.SockSite):
    """A listening socket whose connections are ours."""

    def __init__(
        self, runner: web.AppRunner, bound: socket, tls: SSLContext | None, idle: timedelta, crowd: _Crowd
    ) -> None:
        super().__init__(runner, bound, ssl_context=tls)
        self._idle = idle
        self._crowd = crowd

    async def start(self) -> None:
        await web.BaseSite.start(self)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connect,
            sock=self._sock,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._idle.total_seconds() if self._ssl_context else None,
            backlog=self._backlog,
        )

    def _connect(self) -> _Connection:
        server = self._runner.server
        assert server is not None
        return _Connection(
            self._crowd,
            server,
            loop=asyncio.get_running_loop(),
            logger=ERRORS,
            access_log=ACCESS,
            access_log_class=AccessLog,
            keepalive_timeout=self._idle.total_seconds(),
            lingering_time=LINGER.total_seconds(),
            auto_decompress=False,
        )
