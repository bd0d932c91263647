"""What operators see in a browser: how it goes, who is suppressed, one person with the whole history. Read-only.

The rule that must not be broken: without the password nothing is shown, and no address ever stands in a URL, a log or
a cache. A wrong password costs its sender time, and nobody else; a right one is never locked out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.address import Address
from gateway.console import PAGES
from gateway.errors import Malformed, StoreUnavailable
from gateway.picture import of_timeline
from gateway.store import Now, Store

PAGE: Final = 100
"""Suppressions on one page."""

WRONG_SECONDS: Final = 0.5
"""How long each wrong password takes; they are answered one after the other."""

LOOKED_UP_FOR: Final = timedelta(minutes=1)
"""How long the numbers of the first page are shown before they are counted again."""

_HERE = Path(__file__).parent
_STYLESHEET = (_HERE / "static" / "console.css").read_bytes()
_BASIC = {"WWW-Authenticate": 'Basic realm="Assent console", charset="UTF-8"'}

Look = Callable[[], Awaitable[Mapping[str, Any]]]
Page = Callable[[web.Request], Awaitable[web.Response]]


class Pages:
    """The pages of one installation; `look` returns what `assent status` shows."""

    def __init__(self, password: str, store: Store, look: Look, now: Now) -> None:
        self._password = _digest(password)
        self._store = store
        self._look = look
        self._now = now
        self._seen: tuple[datetime, Mapping[str, Any]] | None = None
        self._wrong = asyncio.Lock()
        environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["time"] = _time
        self._templates = {
            name: environment.get_template(f"{name}.html") for name in ("overview", "suppressions", "person", "problem")
        }

    def add_to(self, app: web.Application) -> None:
        """Add the pages to the console, which then leads there from its root, and from their own name with a slash."""
        for entrance in ("/", f"{PAGES}/"):
            app.router.add_get(entrance, _to_the_pages)
        app.router.add_get(PAGES, self._guarded(self._overview))
        app.router.add_get(f"{PAGES}/suppressions", self._guarded(self._suppressions))
        app.router.add_post(f"{PAGES}/suppressions", self._guarded(self._search))
        app.router.add_post(f"{PAGES}/person", self._guarded(self._person))
        app.router.add_get(f"{PAGES}/console.css", _stylesheet)

    def _guarded(self, page: Page) -> Page:
        async def guarded(request: web.Request) -> web.Response:
            if not await self._is_known(request):
                return web.Response(status=401, text="the console wants its password\n", headers=_BASIC)
            if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
                return self._problem(403, "Another site asked for this page. Open the console by its own address.")
            try:
                return await page(request)
            except Malformed:
                return self._problem(400, "That form cannot be read.")
            except StoreUnavailable:
                return self._problem(503, "The store cannot answer now. Try again in a moment.")

        return guarded

    async def _is_known(self, request: web.Request) -> bool:
        """True where the password is right, whatever the user's name; a wrong one is slow."""
        given = _password_of(request)
        if given and hmac.compare_digest(_digest(given), self._password):
            return True
        if "Authorization" in request.headers:
            async with self._wrong:
                await asyncio.sleep(WRONG_SECONDS)
        return False

    async def _overview(self, _: web.Request) -> web.Response:
        now = self._now()
        if self._seen is None or now - self._seen[0] > LOOKED_UP_FOR:
            self._seen = now, await self._look()
        told = self._seen[1]
        return self._page("overview", told=told, picture=of_timeline(told.get("timeline", ())))

    async def _suppressions(self, request: web.Request) -> web.Response:
        try:
            after = bytes.fromhex(request.query.get("after", ""))
        except ValueError:
            return self._problem(400, "That is no page of ours.")
        people = await self._store.people.suppressed_after(after, PAGE)
        following = people[-1][0].hex() if len(people) == PAGE else ""
        shown = [(address, standing) for _, address, standing in people]
        return self._page("suppressions", people=shown, next=following, part="")

    async def _search(self, request: web.Request) -> web.Response:
        form = await _form(request)
        part = form.get("part", "").strip()
        try:
            after = bytes.fromhex(form.get("after", ""))
        except ValueError:
            return self._problem(400, "That is no page of ours.")
        if not part:
            return self._problem(422, "Write a part of the address to look for.")
        found, following = await self._store.people.search_suppressed(part, after, PAGE)
        shown = [(address, standing) for _, address, standing in found]
        return self._page("suppressions", people=shown, next=following.hex(), part=part)

    async def _person(self, request: web.Request) -> web.Response:
        given = (await _form(request)).get("address", "")
        try:
            address = Address.parse(given.strip())
        except Malformed as error:
            return self._problem(422, f"That is no mail address: {error}.")
        (facts,) = await self._store.people.facts([address])
        history = await self._store.people.history(facts.address_id) if facts.address_id else []
        related = [other for _, other, _ in await self._store.people.related(address)]
        return self._page("person", address=address, facts=facts, history=history, related=related)

    def _page(self, name: str, status: int = 200, **told: Any) -> web.Response:
        text = self._templates[name].render(prefix=PAGES, **told)
        return web.Response(text=text, status=status, content_type="text/html")

    def _problem(self, status: int, sentence: str) -> web.Response:
        return self._page("problem", status, sentence=sentence)


async def _form(request: web.Request) -> Mapping[str, str]:
    """Return a form's fields; raises `Malformed` where its coding is not what its header says."""
    try:
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    except (ValueError, LookupError) as error:
        raise Malformed("no form") from error


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()


def _password_of(request: web.Request) -> str:
    """Return the password of RFC 7617's header; "" where there is none, which is nobody's."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        decoded = b64decode(given, validate=True).decode("utf-8") if scheme.lower() == "basic" else ""
    except ValueError:
        return ""
    return decoded.partition(":")[2]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


async def _to_the_pages(_: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": PAGES})


async def _stylesheet(_: web.Request) -> web.Response:
    return web.Response(body=_STYLESHEET, content_type="text/css")
