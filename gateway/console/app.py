"""The console as one web application: what it answers where. This is the boundary where surprises end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version

from aiohttp import web

from gateway.console import problems
from gateway.console.api import BODY_LIMIT, PREFIX, RETRY_AFTER, Api, Route
from gateway.console.openapi import document
from gateway.console.pages import Pages
from gateway.console.problems import Refused
from gateway.errors import StoreUnavailable

Ready = Callable[[], Awaitable[bool]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(metrics: Callable[[], str], ready: Ready, api: Api, pages: Pages | None) -> web.Application:
    """Build the console; `metrics` gives the text that Prometheus reads, `ready` says whether work can be done."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if await ready() else web.Response(status=503, text="not ready\n")

    async def metrics_text(_: web.Request) -> web.Response:
        return web.Response(body=metrics().encode("utf-8"), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application(middlewares=[_guard], client_max_size=BODY_LIMIT)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_text)
    for route in api.routes():
        app.router.add_route(route.method, PREFIX + route.path, _handler(api, route))
    if pages:
        pages.add_to(app)
    described = document(api.routes(), version("assent"))
    app.router.add_get(f"{PREFIX}/openapi.json", lambda _: _described(described))
    return app


def _handler(api: Api, route: Route) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        given = await api.answer(request, route)
        return web.Response(text=given.model_dump_json(), status=route.status, content_type="application/json")

    return handle


async def _described(described: object) -> web.Response:
    return web.json_response(described)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every failure its problem document."""
    try:
        return await handler(request)
    except Refused as refused:
        return problems.answer(refused)
    except StoreUnavailable:
        return problems.answer(Refused(503, "the store cannot answer now, try again later", headers=RETRY_AFTER))
    except web.HTTPException as error:
        headers = {name: error.headers[name] for name in error.headers.keys() & {"Allow"}}
        return problems.answer(Refused(error.status, headers=headers))
    except Exception as error:
        problems.report(error)
        return problems.answer(Refused(500, "an internal error; the log says where"))
