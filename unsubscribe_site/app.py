"""The routes of the public site: GET only shows, POST changes.

The rule that must not be broken: 200 to a POST is said after the store has committed, and never anything in 300 to
399 (RFC 8058 §3.1). A link that we did not sign gets one 404, the same for every way in which it can be wrong. What a
"no" amounts to is the ledger's to say; what a page says, that of `pages`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from gateway.address import Address
from gateway.consent import Event, EventType, NewEvent
from gateway.errors import InvalidToken, StoreUnavailable
from gateway.metrics import Metrics
from gateway.model import Company, Scope, Topic
from gateway.store import PublishedPolicy
from gateway.tokens import Unsubscribe, UnsubscribeTokens
from unsubscribe_site.pages import STYLESHEET, Pages, Subject, mask
from unsubscribe_site.server import ROUTE, report
from unsubscribe_site.throttle import Throttle
from unsubscribe_site.wish import Body, Wish, agrees, read_wish

BODY_LIMIT: Final = 8 * 1024
USER_AGENT_LIMIT: Final = 256
RETRY_AFTER: Final = timedelta(seconds=30)
SECURITY_TXT_LIFE: Final = timedelta(days=180)

MARKS: Final = ".,:;!?*'\")]>’”»…"
"""What a sentence leaves at the end of a link where a mail reader takes it along; no token ends with any of it."""

ADDED: Final = re.compile("[&;]")
"""What begins the `&utm_source=…` that a tool adds to a link without a query; no token has it."""

Network = IPv4Network | IPv6Network
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeopleStore(Protocol):
    """What the site needs of the store. Any of it may raise `StoreUnavailable`."""

    async def opt_out(self, events: Sequence[NewEvent], /) -> None:
        """Keep what is news among the events; on return it is on disk, whether or not the ledger has it yet."""

    async def record(self, events: Sequence[NewEvent], /) -> Sequence[Event]:
        """Append events to the ledger; on return they are on disk."""

    async def address_of(self, address_id: bytes, /) -> Address | None:
        """Return a person's address, None once it has been erased."""

    async def policies(self) -> Sequence[PublishedPolicy]:
        """Return the published versions of the privacy policy, the newest first."""

    def topic_slug(self, number: int, /) -> str | None:
        """Return the slug of a topic that has, or ever had, this number in links."""


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """What the operator says about the site. `topics` is by the number that links carry."""

    company: Company
    public_url: str
    topics: Mapping[int, Topic]
    trusted_proxies: tuple[Network, ...] = ()
    body_timeout: timedelta = timedelta(seconds=15)


def create_app(
    *,
    store: PeopleStore,
    tokens: UnsubscribeTokens,
    settings: SiteSettings,
    metrics: Metrics,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> web.Application:
    """Build the public site; `now` must return an aware time. `start` in `server` puts it on sockets."""
    site = _Site(store, tokens, settings, metrics, now)
    app = web.Application(middlewares=[site.guard], client_max_size=BODY_LIMIT)
    link = app.router.add_resource(r"/u/{token}{slash:/?}", name="unsubscribe")
    link.add_route("GET", site.show)
    link.add_route("HEAD", site.show)
    link.add_route("POST", site.opt_out)
    anew = app.router.add_resource(r"/a/{token}", name="consent-anew")
    anew.add_route("GET", site.ask_anew)
    anew.add_route("HEAD", site.ask_anew)
    anew.add_route("POST", site.consent_anew)
    app.router.add_get("/policy", site.policy, name="policy")
    app.router.add_get("/healthz", _healthz, name="healthz")
    app.router.add_get("/.well-known/security.txt", site.security_txt, name="security-txt")
    app.router.add_get("/static/site.css", _stylesheet, name="stylesheet")
    return app


@dataclass(frozen=True, slots=True)
class _Link:
    """A link that we signed, with what its number means here."""

    address_id: bytes
    scope: Scope
    topic: Topic | None


class _Site:
    def __init__(
        self,
        store: PeopleStore,
        tokens: UnsubscribeTokens,
        settings: SiteSettings,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._public_url = settings.public_url.rstrip("/")
        self._pages = Pages(settings.company, urlsplit(self._public_url).path)
        self._strangers = Throttle()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give every failure its page; the boundary where surprises end."""
        if request.method != "POST" and request[ROUTE] != "healthz" and self._is_read_along(request):
            return web.Response(status=403, text="This site is served over TLS only.\n")
        try:
            return await handler(request)
        except InvalidToken:
            return self._problem(404 if self._may_fail(request) else 429)
        except StoreUnavailable:
            return self._problem(503, _retry_after())
        except web.HTTPException as error:
            return self._problem(error.status, {name: error.headers[name] for name in error.headers.keys() & {"Allow"}})
        except Exception as error:
            report(f"{request.method} {request[ROUTE]}", error)
            return self._problem(500)

    async def show(self, request: web.Request) -> web.Response:
        """Show what a link stops. Changes nothing: scanners and previews open every link (UNS-15)."""
        link = self._read_link(request)
        return _html(self._pages.ask(await self._subject(link, link.scope)))

    async def opt_out(self, request: web.Request) -> web.Response:
        """Stop the mail, whatever the body says (UNS-19): the one-click POST and the page's own (RFC 8058 §3.2)."""
        link = self._read_link(request)
        wish = read_wish(request.headers.get("Content-Type", ""), await self._body(request), link.scope)
        try:
            await self._store.opt_out([self._event(request, link, wish)])
        except StoreUnavailable:
            return _html(self._pages.retry(wish.scope), 503, _retry_after())
        self._metrics.unsubscribed()
        if wish.body is Body.ONE_CLICK:
            return web.Response(text="Unsubscribed.\n")
        return _html(self._pages.done(await self._subject(link, wish.scope)))

    async def ask_anew(self, request: web.Request) -> web.Response:
        """Ask whether what was agreed to before goes on under a new policy. Changes nothing (POL-13)."""
        what = self._tokens.reconsents.read_url(request.match_info["token"])
        return _html(self._pages.ask_anew(what.version, await self._masked(what.address_id)))

    async def consent_anew(self, request: web.Request) -> web.Response:
        """Record that somebody has pressed the button; it lifts no "no" (POL-12), and no robot's POST is a press."""
        what = self._tokens.reconsents.read_url(request.match_info["token"])
        if not agrees(request.headers.get("Content-Type", ""), await self._body(request)):
            raise web.HTTPBadRequest
        facts = {"channel": "page", "policy_version": what.version}
        event = NewEvent(EventType.RECONSENT, what.address_id, self._now(), facts=facts, personal=self._trace(request))
        await self._store.record([event])
        return _html(self._pages.done_anew(what.version, await self._masked(what.address_id)))

    async def policy(self, request: web.Request) -> web.Response:
        """List the versions of the privacy policy with their effective dates and texts (POL-33)."""
        return _html(self._pages.policies(await self._store.policies(), self._now()))

    async def security_txt(self, request: web.Request) -> web.Response:
        """Say where to report a vulnerability (RFC 9116)."""
        expires = (self._now() + SECURITY_TXT_LIFE).astimezone(UTC).strftime("%Y-%m-%dT00:00:00Z")
        lines = (
            f"Contact: mailto:{self._settings.company.contact}",
            f"Expires: {expires}",
            "Preferred-Languages: en",
            f"Canonical: {self._public_url}/.well-known/security.txt",
        )
        return web.Response(text="".join(f"{line}\n" for line in lines))

    def _read_link(self, request: web.Request) -> _Link:
        token, *_ = ADDED.split(request.match_info["token"], 1)
        link = self._tokens.read_url(token.rstrip(MARKS))
        if link.scope is not Scope.TOPIC:
            return _Link(link.address_id, link.scope, None)
        return _Link(link.address_id, link.scope, self._topic(link))

    def _topic(self, link: Unsubscribe) -> Topic:
        """A topic that is no longer configured can still be refused; one that never was is not in our links."""
        if topic := self._settings.topics.get(link.number):
            return topic
        slug = self._store.topic_slug(link.number)
        if slug is None:
            raise InvalidToken
        return Topic(slug, slug.replace("-", " ").capitalize())

    async def _body(self, request: web.Request) -> bytes:
        """Read a body of at most `BODY_LIMIT` octets in the time allowed; compression is refused, unread (WEB-05)."""
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise web.HTTPUnsupportedMediaType
        if (request.content_length or 0) > BODY_LIMIT:
            raise web.HTTPRequestEntityTooLarge(BODY_LIMIT)
        try:
            async with asyncio.timeout(self._settings.body_timeout.total_seconds()):
                return await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except (web.RequestPayloadError, ConnectionError):
            raise web.HTTPBadRequest from None

    def _event(self, request: web.Request, link: _Link, wish: Wish) -> NewEvent:
        return NewEvent(
            type=EventType.UNSUBSCRIBE,
            person=link.address_id,
            at=self._now(),
            topic=link.topic.slug if link.topic else "",
            scope=wish.scope,
            facts={"channel": wish.channel, "body": wish.body.value},
            personal=self._trace(request),
        )

    def _trace(self, request: web.Request) -> dict[str, str]:
        agent = request.headers.get("User-Agent", "")[:USER_AGENT_LIMIT]
        return {"ip": self._client(request), "user_agent": agent.encode("utf-8", "replace").decode()}

    async def _subject(self, link: _Link, scope: Scope) -> Subject:
        return Subject(scope, link.topic.name if link.topic else "", await self._masked(link.address_id))

    async def _masked(self, address_id: bytes) -> str:
        """The page is of use without the address, and after a POST it must not fail for want of it."""
        try:
            address = await self._store.address_of(address_id)
        except StoreUnavailable:
            return ""
        return mask(address) if address else ""

    def _is_read_along(self, request: web.Request) -> bool:
        told = request.headers.get("X-Forwarded-Proto", "")
        return not request.secure and is_in_clear(request.remote or "", told, self._settings.trusted_proxies)

    def _may_fail(self, request: web.Request) -> bool:
        return self._strangers.allows_failure(self._client(request), time.monotonic())

    def _client(self, request: web.Request) -> str:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))
        return client_address(request.remote or "", forwarded, self._settings.trusted_proxies)

    def _problem(self, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
        return _html(self._pages.problem(status), status, headers)


def client_address(remote: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the nearest address that is not a trusted proxy's; nothing further away can be believed (WEB-14)."""
    client = _address(remote)
    for hop in reversed(forwarded_for.split(",")):
        further = _address(hop)
        if further is None or not _is_in(client, trusted):
            break
        client = further
    return str(client or "")


def is_in_clear(remote: str, forwarded_proto: str, trusted: Sequence[Network]) -> bool:
    """True where a request without TLS of its own came over a network that others can read along (POL-19).

    That it came without TLS is believed of anybody, that it had some only of a trusted proxy.
    """
    return forwarded_proto.strip().lower() == "http" or not _is_in(_address(remote), (*_LOOPBACK, *trusted))


_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_HOP = re.compile(r"([0-9.]+)(?::[0-9]+)?|\[([^]%]+)(?:%.*)?\](?::[0-9]+)?|([^%]+)(?:%.*)?")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as sockets and proxies write it: without port and zone, and IPv4 where it came through IPv6."""
    hop = _HOP.fullmatch(text.strip())
    try:
        address = ip_address(hop[hop.lastindex or 0] if hop else "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: IPv4Address | IPv6Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def _html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers=headers, content_type="text/html")


def _retry_after() -> dict[str, str]:
    return {"Retry-After": str(int(RETRY_AFTER.total_seconds()))}


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _stylesheet(request: web.Request) -> web.Response:
    return web.Response(body=STYLESHEET, content_type="text/css", charset="utf-8")
