"""The operators' listener: health, readiness and metrics, never on the public site.

It shows counts and nothing else: no address, token or subject can be asked for here. The pages and the JSON API
for operators come to this listener too, behind their own authentication.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

Ready = Callable[[], Awaitable[bool]]


def create_app(metrics: Callable[[], str], ready: Ready) -> web.Application:
    """Build the console; `metrics` gives the text that Prometheus reads, `ready` says whether work can be done."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if await ready() else web.Response(status=503, text="not ready\n")

    async def metrics_text(_: web.Request) -> web.Response:
        return web.Response(body=metrics().encode("utf-8"), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_text)
    return app
