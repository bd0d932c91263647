"""The public site, over real sockets: what a mailbox provider, a scanner, an attacker and a reader get from it."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import random
import re
import ssl
import string
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDictProxy

from gateway.address import Address
from gateway.consent import EventType
from gateway.model import Company, KeyRing, Scope, Topic
from gateway.tokens import Unsubscribe, UnsubscribeTokens
from tests.site_under_test import (
    ADDRESSES,
    ALICE,
    ALL_TOKEN,
    ANNOUNCEMENTS,
    COMPANY,
    ERASED,
    FORMER,
    NEW_KEY,
    NOW,
    OLD_KEY,
    PARTNER_TOKEN,
    RECONSENT_TOKEN,
    TOPIC_TOKEN,
    UPDATES,
    RunningSite,
    running_site,
    token,
)
from unsubscribe_site import app, server, throttle
from unsubscribe_site.app import BODY_LIMIT, client_address, is_in_clear
from unsubscribe_site.pages import STYLESHEET, mask
from unsubscribe_site.throttle import Throttle
from unsubscribe_site.wish import Body, Wish, read_wish

ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "PROPFIND")
ESSENTIALS = "You will still get essential messages about products you bought"
CSP = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


class Answer:
    """One answer, read whole."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()


class Browserless:
    """A client without cookies that follows nothing, and can also write its own octets."""

    def __init__(self, site: RunningSite, session: aiohttp.ClientSession) -> None:
        self.site, self.session = site, session

    async def ask(self, method: str, url: str, **more: Any) -> Answer:
        async with self.session.request(method, url, allow_redirects=False, **more) as got:
            return Answer(got.status, got.headers, await got.read())

    async def get(self, token: str = TOPIC_TOKEN, **more: Any) -> Answer:
        return await self.ask("GET", self.site.link(token), **more)

    async def post(self, token: str = TOPIC_TOKEN, body: Any = ONE_CLICK, **more: Any) -> Answer:
        return await self.ask("POST", self.site.link(token), data=body, **{"headers": FORM, **more})

    async def say(self, *octets: bytes, then_close: bool = False) -> bytes:
        """Write these octets on a connection of their own and return everything that comes back."""
        reader, writer = await asyncio.open_connection(self.site.host, self.site.port)
        writer.writelines(octets)
        if then_close:
            writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[RunningSite]:
    async with running_site() as running:
        yield running


@pytest.fixture
async def client(site: RunningSite) -> AsyncIterator[Browserless]:
    async with _client(site) as browserless:
        yield browserless


class _client:
    """A `Browserless` for a site that a test started itself."""

    def __init__(self, site: RunningSite) -> None:
        self._site = site

    async def __aenter__(self) -> Browserless:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), skip_auto_headers=("User-Agent",))
        return Browserless(self._site, self._session)

    async def __aexit__(self, *failure: object) -> None:
        await self._session.close()


def only_event(site: RunningSite) -> Any:
    (event,) = site.store.ledger
    return event


# -- the one-click POST


@pytest.mark.req("UNS-09", "UNS-11", "UNS-13")
async def test_the_simple_example_of_rfc_8058_unsubscribes(client: Browserless) -> None:
    answer = await client.say(
        f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\n".encode(),
        b"Host: example.com\r\n",
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Length: 26\r\n",
        b"Connection: close\r\n\r\n",
        ONE_CLICK,
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"set-cookie" not in answer.lower()
    event = only_event(client.site)
    assert (event.type, event.address_id, event.at) == (EventType.UNSUBSCRIBE, ALICE, NOW)
    assert (event.scope, event.topic) == (Scope.TOPIC, "product-announcements")
    assert event.facts == {"channel": "one-click", "body": "one-click"}
    assert event.personal == {"ip": "127.0.0.1", "user_agent": ""}


@pytest.mark.req("UNS-12")
@pytest.mark.parametrize(
    "boundary", ["---FormBoundaryjWmhtjORrn", "-FormBoundaryjWmhtjORrn"], ids=["printed", "erratum"]
)
async def test_the_multipart_example_of_rfc_8058_unsubscribes_as_printed_and_as_corrected(
    client: Browserless, boundary: str
) -> None:
    body = (
        b"---FormBoundaryjWmhtjORrn\r\n"
        b'Content-Disposition: form-data; name="List-Unsubscribe"\r\n'
        b"\r\n"
        b"One-Click\r\n"
        b"---FormBoundaryjWmhtjORrn--"
    )
    assert len(body) == 124, "the Content-Length that the RFC prints"
    answer = await client.post(body=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert answer.status == 200
    assert only_event(client.site).facts["body"] == "one-click"


def multipart(
    boundary: str, *, header: str = 'name="List-Unsubscribe"', end: str = "\r\n", newline: str = "\r\n"
) -> bytes:
    lines = (f"--{boundary}", f"Content-Disposition: form-data; {header}", "", "One-Click", f"--{boundary}--")
    return newline.join(lines).encode() + end.encode()


MULTIPART = {
    "trailing line break": ("boundary=xyz", multipart("xyz")),
    "no trailing line break": ("boundary=xyz", multipart("xyz", end="")),
    "quoted boundary": ('boundary="a b(c)d"', multipart("a b(c)d")),
    "every legal character": ('boundary="0\'()+_,-./:=?zZ"', multipart("0'()+_,-./:=?zZ")),
    "seventy characters": (f"boundary={'b' * 70}", multipart("b" * 70)),
    "charset before boundary": ("charset=utf-8; boundary=xyz", multipart("xyz")),
    "preamble and epilogue": ("boundary=xyz", b"preamble\r\n" + multipart("xyz") + b"epilogue"),
    "unquoted name": ("boundary=xyz", multipart("xyz", header="name=List-Unsubscribe")),
    "a header after the disposition": (
        "boundary=xyz",
        multipart("xyz", header='name="List-Unsubscribe"\r\nContent-Type: text/plain; charset=utf-8'),
    ),
    "folded header": ("boundary=xyz", multipart("xyz", header='\r\n name="List-Unsubscribe"')),
    "bare line feeds": ("boundary=xyz", multipart("xyz", newline="\n", end="\n")),
    "after another field": (
        "boundary=xyz",
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' + multipart("xyz"),
    ),
}


@pytest.mark.req("UNS-12")
@pytest.mark.parametrize(("parameters", "body"), MULTIPART.values(), ids=list(MULTIPART))
async def test_every_spelling_of_a_multipart_one_click_is_understood(
    client: Browserless, parameters: str, body: bytes
) -> None:
    answer = await client.post(body=body, headers={"Content-Type": f"multipart/form-data; {parameters}"})
    assert answer.status == 200
    assert only_event(client.site).facts == {"channel": "one-click", "body": "one-click"}


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.req("UNS-11")
async def test_a_one_click_in_chunks_unsubscribes(client: Browserless) -> None:
    assert (await client.post(body=chunks(b"List-Unsub", b"scribe=One", b"-Click"))).status == 200
    assert only_event(client.site).facts["body"] == "one-click"


@pytest.mark.req("UNS-14", "WEB-13")
@pytest.mark.parametrize(
    "path", ["/u/{}", "/u/{}/", "/u/{}?utm_source=mail", "/u/{}/?x", "http://MAIL.EXAMPLE.COM/u/{}"]
)
@pytest.mark.parametrize(
    "header",
    [
        "Host: mail.example.com",
        "Host: MAIL.EXAMPLE.COM:80",
        "Host: mail.example.com\r\nX-Forwarded-Proto: http",
        "Host: mail.example.com\r\nX-Forwarded-Host: www.example.com\r\nForwarded: proto=http",
        "Host: mail.example.com\r\nAccept-Language: de",
        "Host: mail.example.com\r\nUpgrade-Insecure-Requests: 1",
        "Host: mail.example.com\r\nConnection: Upgrade\r\nUpgrade: h2c",
    ],
    ids=["plain", "case", "http", "host", "language", "upgrade-insecure", "h2c"],
)
async def test_a_post_is_never_redirected(client: Browserless, path: str, header: str) -> None:
    head = f"POST {path.format(TOPIC_TOKEN)} HTTP/1.1\r\n{header}\r\nConnection: close\r\nContent-Length: 26\r\n"
    answer = await client.say(f"{head}\r\n".encode(), ONE_CLICK)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nlocation:" not in answer.lower()
    assert len(client.site.store.ledger) == 1


@pytest.mark.req("UNS-14")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["", "/", "/u", "/u/", "/u/x", "/u//", "//u/x", "/u/x/y", "/healthz/", "/policy/", "/p/x"]
)
async def test_no_path_at_all_is_redirected(client: Browserless, method: str, path: str) -> None:
    answer = await client.ask(method, client.site.url + path)
    assert answer.status == 404
    assert "Location" not in answer.headers


@pytest.mark.req("UNS-19")
async def test_a_client_that_stops_sending_after_its_request_is_still_unsubscribed(client: Browserless) -> None:
    head = f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\n\r\n".encode()
    await client.say(head, ONE_CLICK, then_close=True)
    assert len(client.site.store.ledger) == 1


@pytest.mark.req("UNS-22")
async def test_200_is_said_only_after_the_commit(client: Browserless) -> None:
    client.site.store.may_commit.clear()
    pending = asyncio.ensure_future(client.post())
    done, _ = await asyncio.wait([pending], timeout=0.2)
    assert not done
    assert not client.site.store.ledger
    client.site.store.may_commit.set()
    assert (await pending).status == 200
    assert len(client.site.store.ledger) == 1


@pytest.mark.req("UNS-24")
async def test_a_hundred_repeats_are_answered_200_and_recorded_once(client: Browserless) -> None:
    answers = [await client.post() for _ in range(100)]
    assert {answer.status for answer in answers} == {200}
    assert len(client.site.store.ledger) == 1


@pytest.mark.req("WEB-03")
async def test_many_valid_posts_from_one_address_are_all_answered_200(client: Browserless) -> None:
    people = [number.to_bytes(16, "big") for number in range(1000)]
    for some in (people[at : at + 50] for at in range(0, 1000, 50)):
        answers = await asyncio.gather(*(client.post(token(person=person)) for person in some))
        assert {answer.status for answer in answers} == {200}
    assert len(client.site.store.ledger) == 1000


# -- any body


@pytest.mark.req("UNS-19")
@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        (b"", "", "empty"),
        (b" \r\n", "application/x-www-form-urlencoded", "empty"),
        (b'{"List-Unsubscribe": "One-Click"}', "application/json", "unfamiliar"),
        (b"\xff\xfe\x00junk&&==", "application/octet-stream", "unfamiliar"),
        (b"other=key", "application/x-www-form-urlencoded", "unfamiliar"),
        (b"scope=address", "application/x-www-form-urlencoded", "unfamiliar"),
        (b"--b\r\ngarbled", "multipart/form-data; boundary=b", "unfamiliar"),
        (b"List-Unsubscribe=One-Click\r\n", "application/x-www-form-urlencoded", "one-click"),
        (b"list-unsubscribe=one-click", "", "one-click"),
        (b"a=b&List%2DUnsubscribe=One%2DClick", "application/x-www-form-urlencoded", "one-click"),
    ],
)
async def test_any_body_opts_out_and_is_recorded_for_what_it_is(
    client: Browserless, body: bytes, content_type: str, kind: str
) -> None:
    assert (await client.post(body=body, headers={"Content-Type": content_type})).status == 200
    event = only_event(client.site)
    assert event.facts == {"channel": "one-click", "body": kind}
    assert (event.scope, event.topic) == (Scope.TOPIC, "product-announcements")


@pytest.mark.req("UNS-19")
@given(
    st.sampled_from(["", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/plain"]),
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"--b", b"\r\n", b"Content-Disposition: form-data; name=", b"scope", b"=", b"&"])).map(
        b"".join
    ),
    st.sampled_from([Scope.TOPIC, Scope.PARTNER, Scope.ALL_MARKETING]),
)
def test_reading_a_body_never_fails_and_never_stops_less_than_the_link_says(
    content_type: str, body: bytes, link: Scope
) -> None:
    assert read_wish(content_type, body, link).scope in {link, Scope.ALL_MARKETING}


@pytest.mark.req("UNS-20")
@pytest.mark.parametrize("link", [Scope.TOPIC, Scope.PARTNER, Scope.ALL_MARKETING])
def test_a_page_button_stops_what_the_link_says_or_all_marketing(link: Scope) -> None:
    form = FORM["Content-Type"]
    assert read_wish(form, b"scope=topic", link) == Wish(link, Body.PAGE)
    assert read_wish(form, b"scope=all-marketing", link) == Wish(Scope.ALL_MARKETING, Body.PAGE)


@pytest.mark.req("UNS-19", "WEB-05")
async def test_a_body_of_exactly_the_limit_opts_out_and_one_octet_more_is_refused(client: Browserless) -> None:
    assert (await client.post(body=b"x" * (BODY_LIMIT + 1))).status == 413
    assert (await client.post(body=chunks(b"x" * BODY_LIMIT, b"x"))).status == 413
    assert (await client.post(body=b"x" * (1 << 20))).status == 413
    assert not client.site.store.ledger
    assert (await client.post(body=b"x" * BODY_LIMIT)).status == 200
    assert only_event(client.site).facts["body"] == "unfamiliar"


@pytest.mark.req("WEB-05")
async def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(client: Browserless) -> None:
    head = f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_LIMIT + 1}\r\n\r\n"
    assert (await client.say(head.encode())).startswith(b"HTTP/1.1 413 ")


@pytest.mark.req("WEB-05")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
async def test_a_compressed_body_is_refused(client: Browserless, coding: str) -> None:
    head = f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {coding}\r\n"
    body = gzip.compress(ONE_CLICK)
    answer = await client.say(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert not client.site.store.ledger


@pytest.mark.req("WEB-05")
async def test_a_body_that_stalls_is_answered_408_and_changes_nothing() -> None:
    async with running_site(body_timeout=timedelta(seconds=0.2)) as site, _client(site) as client:
        head = f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\n\r\n".encode()
        answer = await client.say(head, b"List-Unsub")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert not site.store.ledger


@pytest.mark.req("WEB-05")
@pytest.mark.parametrize("opening", [b"", b"GET /u/x HTTP/1.1\r\nHos"], ids=["silent", "half a header"])
async def test_a_connection_without_a_whole_request_is_closed(opening: bytes) -> None:
    async with running_site(idle=timedelta(seconds=0.2)) as site, _client(site) as client:
        assert await client.say(opening) == b""


@pytest.mark.req("WEB-05")
async def test_a_header_that_trickles_in_does_not_hold_its_connection() -> None:
    async with running_site(idle=timedelta(seconds=0.3)) as site:
        reader, writer = await asyncio.open_connection(site.host, site.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        closed = asyncio.ensure_future(reader.read())
        for letter in itertools.cycle(b"X-Slow: a\r\n"):
            writer.write(bytes([letter]))
            if (await asyncio.wait([closed], timeout=0.02))[0]:
                break
        writer.close()
        assert closed.exception() is not None or closed.result() == b""


@pytest.mark.req("WEB-05")
@pytest.mark.parametrize(("pause", "status"), [(0, b" 400 "), (0.1, b" 408 ")], ids=["at once", "later"])
async def test_a_body_in_broken_chunks_is_refused(pause: float, status: bytes) -> None:
    async with running_site(body_timeout=timedelta(seconds=0.5)) as site:
        reader, writer = await asyncio.open_connection(site.host, site.port)
        writer.write(f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        await asyncio.sleep(pause)
        writer.write(b"zz\r\nnot a chunk\r\n")
        assert status in (await reader.read()).splitlines()[0]
        writer.close()
        assert not site.store.ledger


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    client: Browserless, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _, writer = await asyncio.open_connection(client.site.host, client.site.port)
    writer.write(f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\n\r\nList".encode())
    await asyncio.sleep(0.1)
    writer.transport.abort()
    async with asyncio.timeout(10):
        while "POST unsubscribe 400" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "ERROR" not in caplog.text
    assert not client.site.store.ledger


# -- methods that only look


@pytest.mark.req("UNS-15")
async def test_a_thousand_safe_requests_change_nothing(client: Browserless) -> None:
    agents = (
        {"User-Agent": "Mozilla/5.0 (compatible; BingPreview/1.0b)"},
        {"User-Agent": "Slackbot-LinkExpanding 1.0"},
        {"Sec-Purpose": "prefetch"},
        {"Purpose": "prefetch", "X-Moz": "prefetch"},
        {"Range": "bytes=0-0", "If-None-Match": "*"},
    )
    requests = itertools.islice(itertools.cycle(itertools.product(SAFE_METHODS, agents)), 1000)
    links = itertools.cycle([TOPIC_TOKEN, PARTNER_TOKEN, ALL_TOKEN])
    for (method, headers), link in zip(requests, links, strict=False):
        answer = await client.ask(method, client.site.link(link), headers=headers)
        assert answer.status == (200 if method in ("GET", "HEAD") else 405)
    assert not client.site.store.ledger


@pytest.mark.req("UNS-15")
async def test_a_get_with_the_one_click_body_changes_nothing(client: Browserless) -> None:
    answer = await client.ask("GET", client.site.link() + "?List-Unsubscribe=One-Click", data=ONE_CLICK, headers=FORM)
    assert answer.status == 200
    assert not client.site.store.ledger


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_other_methods_are_told_what_is_allowed_whether_or_not_the_link_is_ours(
    client: Browserless, method: str
) -> None:
    ours, forged = [await client.ask(method, client.site.link(one)) for one in (TOPIC_TOKEN, "x" * 49)]
    assert ours.status == 405
    assert set(ours.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}
    assert _essence(ours) == _essence(forged)


@pytest.mark.req("UNS-16")
async def test_head_answers_what_get_would_without_the_page(client: Browserless) -> None:
    seen, head = await client.get(), await client.ask("HEAD", client.site.link())
    assert head.body == b""
    assert head.headers["Content-Length"] == str(len(seen.body))


# -- the page


class Page(HTMLParser):
    """The parts of a page that the requirements speak of, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "link", "br", "circle", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.buttons: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts.setdefault(tag, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> str:
        return " ".join("".join(self.texts[tag]).split())


def page(answer: Answer) -> Page:
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return Page(answer.text)


@pytest.mark.req("UNS-16", "UNS-17", "UNS-18", "LAW-US-03", "WEB-12", "WEB-19")
@pytest.mark.parametrize("link", [TOPIC_TOKEN, PARTNER_TOKEN, ALL_TOKEN], ids=["topic", "partner", "all"])
async def test_the_page_is_one_form_of_buttons_that_posts_to_its_own_address(client: Browserless, link: str) -> None:
    seen = page(await client.get(link))
    assert seen.all("form") == [{"method": "post"}], "without an action a form posts to the page's own address"
    assert not {"input", "select", "textarea", "script", "img", "iframe"} & {tag for tag, _ in seen.elements}
    assert not any("http-equiv" in attributes for attributes in seen.all("meta"))
    assert not any(name == "style" or name.startswith("on") for _, found in seen.elements for name in found)
    values = [button["value"] for button in seen.all("button")]
    assert (
        values
        == {
            TOPIC_TOKEN: ["topic", "all-marketing"],
            PARTNER_TOKEN: ["partner", "all-marketing"],
            ALL_TOKEN: ["all-marketing"],
        }[link]
    )


@pytest.mark.req("UNS-17", "UNS-20", "WEB-21", "LAW-US-03")
@pytest.mark.parametrize(
    ("link", "choice", "scope", "says"),
    [
        (TOPIC_TOKEN, "topic", Scope.TOPIC, "no more “Product announcements” messages to a•••@e•••.org"),
        (TOPIC_TOKEN, "all-marketing", Scope.ALL_MARKETING, "no more marketing messages to a•••@e•••.org"),
        (PARTNER_TOKEN, "partner", Scope.PARTNER, "no more offers from our partners to a•••@e•••.org"),
        (ALL_TOKEN, "all-marketing", Scope.ALL_MARKETING, "no more marketing messages to a•••@e•••.org"),
    ],
)
async def test_a_button_stops_what_it_says_and_the_answer_says_what_was_stopped(
    client: Browserless, link: str, choice: str, scope: Scope, says: str
) -> None:
    answer = await client.post(link, f"scope={choice}")
    assert answer.status == 200
    seen = page(answer)
    assert [attributes for _, attributes in seen.elements if attributes.get("role") == "status"]
    assert says in seen.text("main")
    assert ESSENTIALS in seen.text("main")
    event = only_event(client.site)
    assert event.scope is scope
    assert event.facts == {"channel": "page", "body": "page"}


@pytest.mark.req("UNS-09", "UNS-20")
async def test_one_topic_leaves_the_others_and_all_marketing_leaves_none(client: Browserless) -> None:
    await client.post()
    standing = client.site.store.standing[ALICE]
    assert standing.suppression("product-announcements", partner=False)
    assert not standing.suppression("software-updates", partner=False)
    await client.post(body="scope=all-marketing")
    assert client.site.store.standing[ALICE].suppression("software-updates", partner=False)


@pytest.mark.req("UNS-20")
@pytest.mark.parametrize(("link", "scope"), [(PARTNER_TOKEN, Scope.PARTNER), (ALL_TOKEN, Scope.ALL_MARKETING)])
async def test_a_one_click_has_the_scope_that_the_link_was_signed_for(
    client: Browserless, link: str, scope: Scope
) -> None:
    await client.post(link)
    assert (only_event(client.site).scope, only_event(client.site).topic) == (scope, "")


@pytest.mark.req("POL-28", "UNS-28")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_page_shows_a_masked_address_and_nothing_else_about_anybody(client: Browserless, method: str) -> None:
    answer = await client.ask(method, client.site.link())
    assert "a•••@e•••.org" in answer.text
    for secret in ("alice", "liddell", "example.org", ALICE.hex(), "Software updates"):
        assert secret not in answer.text


@pytest.mark.req("POL-28")
@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("alice@example.com", "a•••@e•••.com"),
        ("a@b.co", "a•••@b•••.co"),
        ("ALICE@mail.example.co.uk", "A•••@m•••.uk"),
        ('"alice liddell"@example.com', "a•••@e•••.com"),
        ("alice@[192.0.2.1]", "a•••@•••"),
        ("ålice@bücher.example", "å•••@b•••.example"),
    ],
)
def test_a_masked_address_is_enough_for_its_owner(address: str, masked: str) -> None:
    assert mask(Address.parse(address)) == masked


@pytest.mark.req("WEB-02")
async def test_the_page_reads_the_same_before_and_after_an_unsubscribe(client: Browserless) -> None:
    before = await client.get()
    await client.post()
    await client.post(body="scope=all-marketing")
    assert _essence(await client.get()) == _essence(before)


async def test_a_link_is_honoured_though_its_person_was_erased(client: Browserless) -> None:
    link = token(person=ERASED)
    assert "•" not in (await client.get(link)).text
    assert (await client.post(link)).status == 200
    assert only_event(client.site).address_id == ERASED


async def test_a_link_is_honoured_though_its_topic_is_no_longer_configured(client: Browserless) -> None:
    link = token(FORMER)
    assert "Unsubscribe from Summer contest" in page(await client.get(link)).text("h1")
    assert (await client.post(link)).status == 200
    assert only_event(client.site).topic == "summer-contest"


@pytest.mark.req("POL-07")
async def test_following_the_link_and_pressing_its_first_button_unsubscribes(client: Browserless) -> None:
    first = page(await client.get()).all("button")[0]
    await client.post(body=f"{first['name']}={first['value']}")
    assert only_event(client.site).facts["channel"] == "page"


@pytest.mark.req("POL-29", "WEB-20")
@pytest.mark.parametrize("which", ["ask", "done", "unknown", "retry"])
async def test_every_page_has_a_language_a_title_one_heading_and_the_privacy_contact(
    client: Browserless, which: str
) -> None:
    client.site.store.away = which == "retry"
    seen = page(
        await {
            "ask": client.get,
            "done": lambda: client.post(body="scope=topic"),
            "unknown": lambda: client.get("x" * 49),
            "retry": client.post,
        }[which]()
    )
    assert seen.all("html")[0]["lang"] == "en"
    assert len(seen.all("h1")) == 1
    assert seen.text("title") == f"{seen.text('h1')} – {COMPANY.name}"
    assert [link["href"] for link in seen.all("a")] == ["mailto:privacy@example.com", "https://example.com/privacy"]
    assert COMPANY.postal_address in seen.text("footer")
    assert {"header", "main", "footer"} <= {tag for tag, _ in seen.elements}


@pytest.mark.req("WEB-20")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_buttons_have_the_contrast_that_wcag_asks_for(scheme: str) -> None:
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", STYLESHEET.decode(), re.DOTALL)
    )
    colour = {"light": light, "dark": light | dark}[scheme]
    for text, ground in [("text", "card"), ("text", "ground"), ("quiet", "card"), ("quiet", "ground")]:
        assert _contrast(colour[text], colour[ground]) >= 4.5
    for ground in ("accent", "accent-pressed"):
        assert _contrast(colour["on-accent"], colour[ground]) >= 4.5
    for part, ground in [("line", "card"), ("accent", "card"), ("accent", "ground"), ("good", "good-ground")]:
        assert _contrast(colour[part], colour[ground]) >= 3


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</title><b>", "' onfocus='x")


@pytest.mark.parametrize("text", HOSTILE)
async def test_names_that_look_like_markup_are_shown_as_text(text: str) -> None:
    company = Company(f"A{text}", f"B{text}", "privacy@example.com", "https://example.com/privacy")
    topics = {ANNOUNCEMENTS: Topic("product-announcements", f"C{text}")}
    async with running_site(company=company, topics=topics) as site, _client(site) as client:
        for answer in (await client.get(), await client.post(body="scope=topic"), await client.get("x" * 49)):
            seen = page(answer)
            assert not {"script", "img", "b"} & {tag for tag, _ in seen.elements}
            assert f"A{text}" in "".join(seen.texts["footer"])
        assert f"C{text}" in "".join(page(await client.get()).texts["h1"])


async def test_a_hostile_user_agent_is_kept_short_and_can_be_stored(client: Browserless) -> None:
    head = f"POST /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n".encode()
    await client.say(head, b"User-Agent: \xff\xfe<script>" + b"x" * 4000 + b"\r\n\r\n")
    kept = only_event(client.site).personal["user_agent"]
    assert len(kept) == 256
    assert kept.encode("utf-8")


# -- links that are not ours


def _essence(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    return answer.status, {name: text for name, text in answer.headers.items() if name != "Date"}, answer.body


def forgeries() -> Iterator[str]:
    alphabet = string.ascii_letters + string.digits + "-_"
    chance = random.Random(8058)
    for at, letter in enumerate(TOPIC_TOKEN):
        yield TOPIC_TOKEN[:at] + chance.choice(alphabet.replace(letter, "")) + TOPIC_TOKEN[at + 1 :]
    *head, last = TOPIC_TOKEN
    yield from ("".join(head) + other for other in alphabet if other != last)
    yield from (TOPIC_TOKEN[:-1], TOPIC_TOKEN + "A", TOPIC_TOKEN + "==", TOPIC_TOKEN.lower(), "x", "x" * 49, "é" * 49)
    yield from ("%00" * 49, "x" * 4000, TOPIC_TOKEN[::-1], TOPIC_TOKEN.replace(".", "%2F"))
    yield UnsubscribeTokens(KeyRing({3: NEW_KEY})).for_url(Unsubscribe(ANNOUNCEMENTS, ALICE))
    yield UnsubscribeTokens(KeyRing({2: b"another" * 5})).for_url(Unsubscribe(ANNOUNCEMENTS, ALICE))
    yield UnsubscribeTokens(KeyRing({2: NEW_KEY})).for_local_part(Unsubscribe(ANNOUNCEMENTS, ALICE))
    yield from (token(number) for number in (2, 15, 999, 65535))


@pytest.mark.req("UNS-10", "WEB-01")
async def test_every_link_that_is_not_ours_gets_one_identical_404(client: Browserless) -> None:
    expected = _essence(await client.ask("GET", client.site.url + "/no/such/page"))
    assert expected[0] == 404
    for forged in forgeries():
        for method in ("GET", "POST"):
            assert _essence(await client.ask(method, f"{client.site.url}/u/{forged}")) == expected, forged
    assert not client.site.store.ledger


@pytest.mark.req("UNS-10")
async def test_no_flipped_bit_of_a_token_passes(client: Browserless) -> None:
    for at, bit in itertools.product(range(len(TOPIC_TOKEN)), range(7)):
        flipped = chr(ord(TOPIC_TOKEN[at]) ^ 1 << bit)
        changed = TOPIC_TOKEN[:at] + f"%{ord(flipped):02X}" + TOPIC_TOKEN[at + 1 :]
        assert (await client.ask("GET", f"{client.site.url}/u/{changed}")).status == 404


async def test_a_link_signed_with_an_old_key_still_works(client: Browserless) -> None:
    old = UnsubscribeTokens(KeyRing({1: OLD_KEY})).for_url(Unsubscribe(UPDATES, ALICE))
    assert (await client.post(old)).status == 200
    assert only_event(client.site).topic == "software-updates"


@pytest.mark.req("WEB-04")
async def test_a_flood_of_forged_links_is_turned_away_and_valid_ones_are_not(
    client: Browserless, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "ALLOWANCE", 5)
    statuses = [(await client.get("x" * 49)).status for _ in range(8)]
    assert statuses == [404] * 5 + [429] * 3
    assert (await client.post()).status == 200
    assert (await client.get()).status == 200


@pytest.mark.req("WEB-04")
def test_failures_are_counted_by_network_and_forgotten_after_a_minute() -> None:
    strangers = Throttle()
    assert all(strangers.allows_failure("192.0.2.1", 0.0) for _ in range(throttle.ALLOWANCE))
    assert not strangers.allows_failure("192.0.2.99", 59.0)
    assert strangers.allows_failure("198.51.100.1", 59.0)
    assert strangers.allows_failure("192.0.2.1", 60.0)


@pytest.mark.req("WEB-04")
def test_a_flood_from_many_networks_does_not_grow_the_memory() -> None:
    strangers = Throttle()
    for number in range(throttle.NETWORKS + 5):
        strangers.allows_failure(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", 0.0)
    assert len(strangers._failures) <= throttle.NETWORKS


# -- what every answer carries, and what is never believed


async def _answers(client: Browserless) -> AsyncIterator[tuple[int, Answer]]:
    url, link, store = client.site.url, client.site.link(), client.site.store
    yield 200, await client.get()
    yield 200, await client.ask("HEAD", link)
    yield 200, await client.post()
    yield 200, await client.post(body="scope=topic")
    for path in ("/healthz", "/.well-known/security.txt", "/static/site.css"):
        yield 200, await client.ask("GET", url + path)
    for path in ("/", "/u/x", "/api/v1/events", "/static/../app.py", "/static/", "/favicon.ico", "/policy/"):
        yield 404, await client.ask("GET", url + path)
    yield 405, await client.ask("PUT", link)
    yield 413, await client.post(body=b"x" * 9000)
    yield 415, await client.post(headers={"Content-Encoding": "gzip"})
    yield 417, await client.post(headers={"Expect": "the-impossible"})
    store.away = True
    yield 503, await client.post()
    yield 200, await client.get()
    store.failure = RuntimeError("surprise")
    yield 500, await client.post()
    yield 500, await client.get()


@pytest.mark.req("WEB-07", "WEB-08", "WEB-09", "UNS-13")
async def test_every_answer_carries_the_security_headers_and_no_cookie(client: Browserless) -> None:
    async for status, answer in _answers(client):
        assert answer.status == status
        _check_headers({name.lower(): text for name, text in answer.headers.items()})


@pytest.mark.req("WEB-07", "WEB-08")
@pytest.mark.parametrize(
    "garbage", [b"NOT HTTP AT ALL\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA" + b"a" * 9000 + b": b\r\n\r\n"]
)
async def test_the_answer_to_a_request_that_cannot_be_parsed_carries_them_too(
    client: Browserless, garbage: bytes
) -> None:
    status, *lines = (await client.say(garbage)).split(b"\r\n\r\n")[0].decode().split("\r\n")
    assert status.startswith("HTTP/1.") and " 400 " in status
    _check_headers({name.lower(): text for name, text in (line.split(": ", 1) for line in lines)})


def _check_headers(headers: dict[str, str]) -> None:
    assert headers["content-security-policy"] == CSP
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-robots-tag"] == "noindex, nofollow"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert re.fullmatch(r"max-age=\d{8}", headers["strict-transport-security"])
    assert not re.search(r"\d|aiohttp|python", headers["server"].lower())
    assert not {"set-cookie", "location", "www-authenticate"} & set(headers)


@pytest.mark.req("WEB-14")
async def test_neither_host_nor_forwarded_headers_find_their_way_into_a_page(client: Browserless) -> None:
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example;proto=http"}
    trusting = await client.get()
    assert _essence(await client.get(headers=evil)) == _essence(trusting)
    answer = await client.ask("GET", client.site.url + "/.well-known/security.txt", headers=evil)
    assert "Canonical: https://mail.example.com/.well-known/security.txt\n" in answer.text


@pytest.mark.req("WEB-14")
@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "client"),
    [
        ("198.51.100.7", "", [], "198.51.100.7"),
        ("198.51.100.7", "203.0.113.1", [], "198.51.100.7"),
        ("198.51.100.7", "203.0.113.1", ["127.0.0.0/8"], "198.51.100.7"),
        ("127.0.0.1", "203.0.113.1", ["127.0.0.0/8"], "203.0.113.1"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.1", ["127.0.0.0/8"], "203.0.113.1"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.1, 10.0.0.9", ["127.0.0.0/8", "10.0.0.0/8"], "203.0.113.1"),
        ("127.0.0.1", "203.0.113.1, <script>", ["127.0.0.0/8"], "127.0.0.1"),
        ("::1", " 2001:db8::1 ", ["::1/128"], "2001:db8::1"),
        ("127.0.0.1", "", ["127.0.0.0/8"], "127.0.0.1"),
        ("", "203.0.113.1", ["127.0.0.0/8"], ""),
        ("::ffff:127.0.0.1", "203.0.113.1", ["127.0.0.0/8"], "203.0.113.1"),
        ("::ffff:198.51.100.7", "203.0.113.1", ["127.0.0.0/8"], "198.51.100.7"),
        ("127.0.0.1", "203.0.113.1:51234", ["127.0.0.0/8"], "203.0.113.1"),
        ("127.0.0.1", "[2001:db8::1]:443", ["127.0.0.0/8"], "2001:db8::1"),
        ("127.0.0.1", "fe80::1%someone@example.org", ["127.0.0.0/8"], "fe80::1"),
    ],
)
def test_only_a_trusted_proxy_is_believed_about_who_asked(
    remote: str, forwarded: str, trusted: list[str], client: str
) -> None:
    assert client_address(remote, forwarded, [ip_network(one) for one in trusted]) == client


@pytest.mark.parametrize(
    ("remote", "forwarded", "trusted", "is_clear"),
    [
        ("127.0.0.1", "", [], False),
        ("::1", "", [], False),
        ("::ffff:127.0.0.1", "", [], False),
        ("::ffff:192.0.2.7", "", [], True),
        ("127.0.0.1", "HTTP", [], True),
        ("192.0.2.7", "", [], True),
        ("192.0.2.7", "https", [], True),
        ("192.0.2.7", "https", ["192.0.2.7/32"], False),
        ("192.0.2.7", "http", ["192.0.2.7/32"], True),
        ("", "https", ["192.0.2.7/32"], True),
    ],
)
def test_nobody_but_a_trusted_proxy_is_believed_to_have_had_tls(
    remote: str, forwarded: str, trusted: list[str], is_clear: bool
) -> None:
    assert is_in_clear(remote, forwarded, [ip_network(one) for one in trusted]) is is_clear


@pytest.mark.req("WEB-14")
async def test_the_proof_of_a_click_names_the_reader_behind_the_trusted_proxy() -> None:
    async with running_site(trusted_proxies=(ip_network("127.0.0.0/8"),)) as site, _client(site) as client:
        await client.post(headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "User-Agent": "Gmail"})
        assert only_event(site).personal == {"ip": "203.0.113.9", "user_agent": "Gmail"}


async def test_the_site_can_speak_tls_itself(tmp_path: Path) -> None:
    server, reader = _tls(tmp_path)
    async with running_site(tls=server) as site, _client(site) as client:
        answer = await client.ask("POST", site.link().replace("http:", "https:"), data=ONE_CLICK, ssl=reader)
        assert answer.status == 200
        assert len(site.store.ledger) == 1


def _tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a fresh certificate for 127.0.0.1, and one that trusts only that."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2120, 1, 1))
    certificate = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    pem = folder / "site.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


async def test_a_public_url_with_a_path_puts_it_before_our_own_paths() -> None:
    async with running_site(public_url="https://example.com/mail/") as site, _client(site) as client:
        assert page(await client.get()).all("link")[0]["href"] == "/mail/static/site.css"


@pytest.mark.req("WEB-24")
async def test_security_txt_names_the_contact_and_expires_within_a_year(client: Browserless) -> None:
    answer = await client.ask("GET", client.site.url + "/.well-known/security.txt")
    fields = dict(line.split(": ", 1) for line in answer.text.splitlines())
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert fields["Contact"] == "mailto:privacy@example.com"
    expires = datetime.strptime(fields["Expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert NOW < expires < NOW + timedelta(days=365)


# -- consenting anew


async def test_a_look_at_the_link_of_a_policy_notice_changes_nothing(client: Browserless) -> None:
    url = f"{client.site.url}/a/{RECONSENT_TOKEN}"
    for method in ("GET", "HEAD", "GET"):
        assert (await client.ask(method, url)).status == 200
    assert (await client.ask("PUT", url)).status == 405
    assert client.site.store.ledger == []


async def test_the_page_names_the_version_and_a_masked_address_and_nothing_else(client: Browserless) -> None:
    seen = page(await client.ask("GET", f"{client.site.url}/a/{RECONSENT_TOKEN}"))
    assert "Version 2027-1" in seen.text("main") and "a•••@e•••.org" in seen.text("main")
    assert [one["href"] for one in seen.all("link")] == ["/static/site.css"]


async def test_a_press_is_recorded_with_its_version_and_trace(client: Browserless) -> None:
    answer = await client.ask("POST", f"{client.site.url}/a/{RECONSENT_TOKEN}", data=b"agree=yes", headers=FORM)
    assert answer.status == 200 and "Set-Cookie" not in answer.headers
    event = only_event(client.site)
    assert (event.type, event.address_id, event.facts["policy_version"]) == ("RECONSENT", ALICE, "2027-1")
    assert event.personal and event.personal["ip"] == "127.0.0.1"


@pytest.mark.req("POL-12")
@pytest.mark.parametrize("body", [b"", b"agree=", b"agree=no", b"List-Unsubscribe=One-Click", b"\xff" * 100])
async def test_a_post_that_is_not_the_buttons_is_no_consent(client: Browserless, body: bytes) -> None:
    answer = await client.ask("POST", f"{client.site.url}/a/{RECONSENT_TOKEN}", data=body, headers=FORM)
    assert answer.status == 400 and "Nothing was changed" in answer.text
    assert client.site.store.ledger == []


async def test_a_press_that_could_not_be_recorded_says_so(client: Browserless) -> None:
    client.site.store.away = True
    answer = await client.ask("POST", f"{client.site.url}/a/{RECONSENT_TOKEN}", data=b"agree=yes", headers=FORM)
    assert answer.status == 503 and "has not been recorded" in answer.text
    assert client.site.store.ledger == []


@pytest.mark.parametrize("wrong", [TOPIC_TOKEN, RECONSENT_TOKEN[:-1], RECONSENT_TOKEN + "A", "A" * 600, ".", "a.b.c"])
async def test_what_we_did_not_sign_as_a_link_of_a_notice_is_none(client: Browserless, wrong: str) -> None:
    for method in ("GET", "POST"):
        assert (await client.ask(method, f"{client.site.url}/a/{wrong}")).status == 404
    assert client.site.store.ledger == []


# -- when the store is away


@pytest.mark.req("WEB-21")
async def test_a_click_that_could_not_be_recorded_says_so_and_can_be_repeated(client: Browserless) -> None:
    client.site.store.away = True
    answer = await client.post(body="scope=all-marketing")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    seen = page(answer)
    assert "has not been recorded" in seen.text("main")
    assert not [attributes for _, attributes in seen.elements if attributes.get("role") == "status"]
    client.site.store.away = False
    (again,) = seen.all("button")
    assert (await client.post(body=f"{again['name']}={again['value']}")).status == 200
    assert only_event(client.site).scope is Scope.ALL_MARKETING


async def test_a_one_click_that_could_not_be_recorded_is_not_answered_200(client: Browserless) -> None:
    client.site.store.away = True
    assert (await client.post()).status == 503
    client.site.store.failure = RuntimeError("surprise")
    assert (await client.post()).status == 500
    assert not client.site.store.ledger


async def test_the_page_is_shown_without_the_address_while_the_store_is_away(client: Browserless) -> None:
    client.site.store.away = True
    answer = await client.get()
    assert answer.status == 200
    assert "•" not in answer.text


# -- what is logged


@pytest.mark.req("WEB-06")
async def test_no_log_tells_who_asked_for_what(client: Browserless, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"Referer": "https://inbox.example/message/4711", "User-Agent": "TellTale/1.0"}
    await client.get(headers=secrets)
    await client.post(headers=secrets)
    await client.get("x" * 49, headers=secrets)
    await client.ask("PUT", client.site.link(), headers=secrets)
    await client.post(body=b"x" * 9000)
    client.site.store.failure = KeyError(f"{TOPIC_TOKEN} belongs to {ADDRESSES[ALICE]}")
    await client.post()
    await client.say(f"BROKEN /u/{TOPIC_TOKEN} HTTP/9.x\r\n\r\n".encode())
    await client.say(f"GET /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\n {TOPIC_TOKEN}\x00\r\n\r\n".encode())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("assent.site.access")]
    assert [line.rsplit(" ", 2)[0] for line in lines[:6]] == [
        "GET unsubscribe 200",
        "POST unsubscribe 200",
        "GET unsubscribe 404",
        "PUT unmatched 405",
        "POST unsubscribe 413",
        "POST unsubscribe 500",
    ]
    assert "POST unsubscribe: KeyError" in caplog.text, "the error itself is logged, by type and place"
    assert [record.levelname for record in caplog.records].count("ERROR") == 1, "a stranger's garbage is no error"
    for secret in (TOPIC_TOKEN, "alice", "example.org", "inbox.example", "TellTale", "127.0.0.1"):
        assert secret not in caplog.text


@pytest.mark.req("WEB-06")
@pytest.mark.parametrize("boundary", ["a handler", "an answer"])
async def test_an_error_that_passes_every_boundary_is_logged_without_its_text(
    boundary: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: web.Request, *_: object, **__: object) -> web.StreamResponse:
        raise RuntimeError(str(request.url))

    if boundary == "a handler":
        monkeypatch.setattr(app._Site, "guard", staticmethod(web.middleware(fail)))
    else:
        monkeypatch.setattr(server, "_add_headers", fail)
    async with running_site() as site, _client(site) as client:
        await client.say(f"GET /u/{TOPIC_TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert "RuntimeError" in caplog.text
    assert TOPIC_TOKEN not in caplog.text
