"""The console's pages from outside: what an operator sees with the password, and nobody without it."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Callable, Iterator
from html.parser import HTMLParser

import pytest

from tests.gateway_under_test import Answer, Gateway, eventually, fetch, newsletter
from tests.sink import Sink

Someone = Callable[[], str]
PASSWORD = "correct horse: battery staple"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("console") / "house", shared_sink.url)
    running.folder.mkdir(parents=True)
    secret = running.folder / "console.password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    section = f'[console]\nlisten = ["127.0.0.1:{running.console}"]\npassword_file = "console.password"\n'
    running.write_config(console=section)
    yield running.prepare().start()
    running.close()


def ask(house: Gateway, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
    credentials = base64.b64encode(f"operator:{PASSWORD}".encode()).decode()
    told = {"Authorization": f"Basic {credentials}", **headers}
    if form is None:
        return fetch(f"http://127.0.0.1:{house.console}{path}", "GET", None, told)
    body = urllib.parse.urlencode(form).encode()
    told["Content-Type"] = "application/x-www-form-urlencoded"
    return fetch(f"http://127.0.0.1:{house.console}{path}", "POST", body, told)


class Reader(HTMLParser):
    """What stands on a page, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.scrolled: list[bool] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scrolled += ["tabindex" in dict(attrs)] if ("class", "wide") in attrs else []
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.words += data.split()


@pytest.mark.parametrize("path", ["/console", "/console/suppressions"])
def test_nobody_sees_anything_without_the_password(house: Gateway, path: str) -> None:
    url = f"http://127.0.0.1:{house.console}{path}"
    wrong = base64.b64encode(b"operator:guess").decode()
    for headers in (
        {},
        {"Authorization": f"Basic {wrong}"},
        {"Authorization": "Basic ???"},
        {"Authorization": "Bearer x"},
    ):
        answer = fetch(url, "GET", None, headers)
        assert answer.status == 401 and "Basic" in answer.headers["WWW-Authenticate"]
        assert "<" not in answer.text
    assert house.get(path).status == 404, "the public site knows no console"


def test_the_first_page_shows_what_status_says(house: Gateway, sink: Sink, someone: Someone) -> None:
    stranger = someone()
    assert house.submit(newsletter(stranger), [stranger])[stranger][0] == 550
    house.run("streams", "pause", "offers", "--why", "a test")
    assert eventually(lambda: house.json("status")["refused"])
    page = Reader(ask(house, "/console").text)
    assert "Overview" in page.words and "offers" in page.words
    assert "svg" in page.tags and "1 refused" in " ".join(page.words), "a picture, which says what it shows"
    assert "release" in page.words, "an alarm comes with its command"
    assert stranger not in " ".join(page.words)
    house.run("streams", "release", "offers")


@pytest.mark.parametrize("path", ["/", "/console/"])
def test_the_address_alone_leads_to_the_first_page(house: Gateway, path: str) -> None:
    answer = ask(house, path)
    assert (answer.status, answer.headers["Location"]) == (303, "/console")


def test_a_person_is_shown_with_the_whole_history(house: Gateway, someone: Someone) -> None:
    reader = someone()
    house.opt_in(reader)
    house.run("suppressions", "add", reader, "--scope", "all-marketing", "--reason", "objected")
    answer = ask(house, "/console/person", {"address": f" {reader} "})
    assert answer.status == 200
    words = Reader(answer.text).words
    assert {"EXPRESS_OPT_IN", "OBJECTION", "objected", "all-marketing", reader} <= set(words)
    unknown = ask(house, "/console/person", {"address": "unknown@example.net"})
    assert "Nothing is known of this address." in unknown.text
    wrong = ask(house, "/console/person", {"address": "<script>alert(1)</script>"})
    assert wrong.status == 422 and "<script>" not in wrong.text
    assert ask(house, "/console/person").status == 405, "no address ever stands in a URL"
    assert reader not in house.log.read_text()


def test_suppressions_come_page_by_page(house: Gateway) -> None:
    people = [f"suppressed{n}@example.org" for n in range(120)]
    listed = house.folder / "list.txt"
    listed.write_text("\n".join(people))
    house.run("suppressions", "import", str(listed), "--scope", "all-marketing")
    seen: list[str] = []
    path = "/console/suppressions"
    while path:
        page = Reader(ask(house, path).text)
        seen += [word for word in page.words if word.startswith("suppressed")]
        path = next((one for one in page.sources if "after=" in one), "")
    assert sorted(seen) == sorted(people)
    assert ask(house, "/console/suppressions?after=zz").status == 400


def test_suppressions_are_searched_by_a_part_of_the_address(house: Gateway) -> None:
    house.run("suppressions", "add", "Needle@haystack.example", "--scope", "all-marketing", "--reason", "objected")
    for part in ("needle", "HAYSTACK.example", "dle@hay"):
        words = Reader(ask(house, "/console/suppressions", {"part": part}).text).words
        assert "Needle@haystack.example" in words and "objected" in words
    assert "is suppressed" in ask(house, "/console/suppressions", {"part": "%"}).text, "no pattern, but a part"
    assert ask(house, "/console/suppressions", {"part": " "}).status == 422
    assert ask(house, "/console/suppressions", {"part": "x", "after": "zz"}).status == 400
    shown = ask(house, "/console/suppressions", {"part": '"><script>'})
    assert shown.status == 200 and "<script>" not in shown.text
    assert "haystack" not in house.log.read_text()


@pytest.mark.parametrize("path", ["/console/person", "/console/suppressions"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"address=\xff\xfe"),
        ("application/x-www-form-urlencoded; charset=nonsense", b"address=a"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"address=a"),
        ("multipart/form-data", b"address"),
        ("multipart/form-data; boundary=x", b"address"),
    ],
)
def test_a_form_that_cannot_be_read_is_the_askers_mistake(
    house: Gateway, path: str, content_type: str, body: bytes
) -> None:
    credentials = base64.b64encode(f"operator:{PASSWORD}".encode()).decode()
    told = {"Authorization": f"Basic {credentials}", "Content-Type": content_type}
    answer = fetch(f"http://127.0.0.1:{house.console}{path}", "POST", body, told)
    assert (answer.status, answer.headers.get_content_type()) == (400, "text/html")
    assert "That form cannot be read." in answer.text
    assert "Traceback" not in house.log.read_text() and "Error" not in house.log.read_text()


def test_pages_load_nothing_from_elsewhere_and_cannot_be_framed(house: Gateway) -> None:
    shown = [ask(house, "/console"), ask(house, "/console/suppressions")]
    for answer in (*shown, ask(house, "/console/person", {"address": "a@example.org"})):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        page = Reader(answer.text)
        assert "script" not in page.tags and "img" not in page.tags
        assert all(one.startswith("/console") for one in page.sources)
    assert ask(house, "/console", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert fetch(f"http://127.0.0.1:{house.console}/console/console.css").status == 200


def test_a_table_that_is_wider_than_the_screen_can_be_scrolled_by_keyboard(house: Gateway, someone: Someone) -> None:
    """WCAG 2.2, 2.1.1: what scrolls by itself has to take the focus."""
    reader = someone()
    house.run("suppressions", "add", reader, "--scope", "all-marketing", "--reason", "objected")
    shown = [ask(house, "/console"), ask(house, "/console/suppressions")]
    for answer in (*shown, ask(house, "/console/person", {"address": reader})):
        tables = Reader(answer.text)
        assert len(tables.scrolled) == tables.tags.count("table") > 0
        assert all(tables.scrolled)


def test_without_a_password_there_are_no_pages(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> None:
    house = Gateway(tmp_path_factory.mktemp("bare") / "house", sink.url).prepare().start()
    try:
        assert ask(house, "/console").status == 404
        assert fetch(f"http://127.0.0.1:{house.console}/healthz").status == 200
    finally:
        house.close()
