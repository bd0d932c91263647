"""The page in a real browser: what a reader sees, presses and hears, and what the browser is kept from doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Scope
from tests.site_under_test import ALL_TOKEN, PARTNER_TOKEN, TOPIC_TOKEN, RunningSite, running_site

playwright = pytest.importorskip("playwright.async_api", reason="Playwright's Python package is not installed")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TALL_ENOUGH = 44
WIDE_ENOUGH = 24

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed (Debian package chromium)")


@pytest.fixture
async def site() -> AsyncIterator[RunningSite]:
    async with running_site() as running:
        yield running


@pytest.fixture
async def chromium() -> AsyncIterator[Any]:
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        await browser.close()


class Watch:
    """Everything about a page that would tell of a leak or an error."""

    def __init__(self, page: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(f"{request.method} {request.url}"))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


async def press(page: Any, name: str) -> None:
    async with page.expect_navigation():
        await page.get_by_role("button", name=name, exact=True).click()


@pytest.mark.req("UNS-17", "UNS-18", "WEB-19", "POL-29", "LAW-US-03")
async def test_one_press_without_javascript_unsubscribes(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page(java_script_enabled=False)
    await page.goto(site.link())
    assert not site.store.ledger
    await press(page, "Unsubscribe")
    (event,) = site.store.ledger
    assert (event.scope, event.topic, event.facts["channel"]) == (Scope.TOPIC, "product-announcements", "page")
    assert page.url == site.link()
    assert "“Product announcements”" in await page.get_by_role("status").inner_text()
    assert await page.locator("footer a[href^='mailto:']").is_visible()


@pytest.mark.req("UNS-20", "WEB-21")
async def test_all_marketing_can_be_stopped_at_first_or_afterwards(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.goto(site.link(PARTNER_TOKEN))
    await press(page, "Unsubscribe")
    await press(page, "Unsubscribe from all marketing")
    assert [event.scope for event in site.store.ledger] == [Scope.PARTNER, Scope.ALL_MARKETING]
    said = await page.get_by_role("status").inner_text()
    assert "no more marketing messages" in said
    assert "You will still get essential messages about products you bought" in said
    assert await page.get_by_role("button").count() == 0


@pytest.mark.req("WEB-20")
async def test_the_keyboard_is_enough_and_shows_where_it_is(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.goto(site.link())
    for name in ("Unsubscribe", "Unsubscribe from all marketing", "Privacy contact", "Privacy policy"):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert await focused.inner_text() == name
        assert await focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        assert await focused.evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)") >= 2
    for _ in range(3):
        await page.keyboard.press("Shift+Tab")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    assert await page.get_by_role("status").is_visible()
    assert site.store.ledger[0].scope is Scope.TOPIC


@pytest.mark.req("WEB-08", "WEB-09", "UNS-13", "UNS-18")
async def test_nothing_but_the_page_and_its_stylesheet_is_asked_for_and_nothing_is_kept(
    site: RunningSite, chromium: Any
) -> None:
    context = await chromium.new_context()
    page = await context.new_page()
    watch = Watch(page)
    await page.goto(site.link(), wait_until="networkidle")
    assert not site.store.ledger, "opening the page is not a wish"
    await press(page, "Unsubscribe")
    await page.wait_for_load_state("networkidle")
    stylesheet = f"GET {site.url}/static/site.css"
    assert watch.requests == [f"GET {site.link()}", stylesheet, f"POST {site.link()}", stylesheet]
    assert watch.complaints == []
    assert await context.cookies() == []
    assert await page.evaluate("document.styleSheets[0].cssRules.length") > 10


@pytest.mark.req("WEB-08")
@pytest.mark.parametrize(
    ("smuggled", "directive"),
    [
        ("<img src='ELSEWHERE/open.gif'>", "img-src"),
        ("<iframe src='ELSEWHERE'></iframe>", "frame-src"),
        ("<p style='background: red'>", "style-src-attr"),
        ("<form id='f' action='ELSEWHERE'></form>", "form-action"),
        ("<base href='ELSEWHERE'>", "base-uri"),
    ],
)
async def test_what_would_be_smuggled_into_a_page_is_stopped_by_the_browser(
    site: RunningSite, chromium: Any, smuggled: str, directive: str
) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.close()

    elsewhere = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    page = await chromium.new_page()
    await page.goto(site.link())
    stopped = await page.evaluate(
        """smuggled => new Promise(tell => {
            document.addEventListener("securitypolicyviolation", event => tell(event.effectiveDirective))
            document.querySelector("main").insertAdjacentHTML("beforeend", smuggled)
            document.querySelector("#f")?.submit()
        })""",
        smuggled.replace("ELSEWHERE", f"http://127.0.0.1:{port}"),
    )
    await page.close()
    elsewhere.close()
    assert stopped == directive
    assert b"".join(heard) == b"", "a connection may have been opened ahead of the check, but nothing is said on it"


@pytest.mark.req("UNS-24")
async def test_reloading_the_answer_is_harmless(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.goto(site.link())
    await press(page, "Unsubscribe")
    await page.reload()
    assert await page.get_by_role("status").is_visible()
    assert len(site.store.ledger) == 1


@pytest.mark.req("WEB-21")
async def test_a_click_that_could_not_be_recorded_is_repeated_by_one_press(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.goto(site.link())
    site.store.away = True
    await press(page, "Unsubscribe from all marketing")
    assert "has not been recorded" in await page.get_by_role("alert").inner_text()
    site.store.away = False
    await press(page, "Try again")
    assert await page.get_by_role("status").is_visible()
    assert site.store.ledger[0].scope is Scope.ALL_MARKETING


@pytest.mark.req("WEB-20")
@pytest.mark.parametrize(
    "link", [TOPIC_TOKEN, PARTNER_TOKEN, ALL_TOKEN, "x" * 49], ids=["topic", "partner", "all", "404"]
)
async def test_a_narrow_screen_and_wide_text_need_no_sideways_scrolling(
    site: RunningSite, chromium: Any, link: str
) -> None:
    page = await chromium.new_page(viewport={"width": 320, "height": 560}, bypass_csp=True)
    await page.goto(site.link(link))
    assert await _overflow(page) == []
    await page.add_style_tag(
        content="* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }"
        "p { margin-bottom: 2em !important } html { font-size: 200% !important }"
    )
    assert await _overflow(page) == []


async def _overflow(page: Any) -> list[str]:
    """Return what is wider than the room it has."""
    return await page.evaluate(
        """[...document.querySelectorAll("html, body, body *:not(svg *)")]
            .filter(e => getComputedStyle(e).display != "inline" && e.scrollWidth > e.clientWidth)
            .map(e => e.tagName)"""
    )


@pytest.mark.req("WEB-20")
async def test_buttons_and_links_are_large_enough_to_hit(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page(viewport={"width": 320, "height": 560})
    await page.goto(site.link())
    for button in await page.get_by_role("button").all():
        assert (await button.bounding_box())["height"] >= TALL_ENOUGH
    for link in await page.get_by_role("link").all():
        box = await link.bounding_box()
        assert min(box["height"], box["width"]) >= WIDE_ENOUGH


@pytest.mark.req("WEB-20")
async def test_a_screen_reader_hears_landmarks_one_heading_and_two_buttons(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.goto(site.link())
    heard = await page.locator("body").aria_snapshot()
    for part in (
        "- banner:",
        "- main:",
        '- heading "Unsubscribe from Product announcements" [level=1]',
        '- button "Unsubscribe"\n',
        '- button "Unsubscribe from all marketing"\n',
        "- contentinfo:",
        '- link "Privacy contact":',
    ):
        assert part in heard
    assert heard.count("heading") == 1


@pytest.mark.req("WEB-19")
async def test_the_page_can_be_read_and_used_without_its_stylesheet(site: RunningSite, chromium: Any) -> None:
    page = await chromium.new_page()
    await page.route("**/*.css", lambda route: route.abort())
    await page.goto(site.link())
    assert await page.evaluate("document.styleSheets.length && getComputedStyle(document.body).margin") in (0, "8px")
    assert await page.get_by_role("heading", level=1).is_visible()
    await press(page, "Unsubscribe")
    assert (await page.locator("svg").bounding_box())["width"] <= 48
    assert await page.get_by_role("status").is_visible()


async def test_the_page_follows_the_reader_into_the_dark(site: RunningSite, chromium: Any) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = await chromium.new_page(color_scheme=scheme)
        await page.goto(site.link())
        grounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(243, 244, 246)", "rgb(15, 18, 22)"]
