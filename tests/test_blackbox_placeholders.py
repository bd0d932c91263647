"""Other systems' unsubscribe placeholders, judged by what arrives: filled wherever an editor or an encoder puts them.

The messages are written here, octet for octet, and read by Python's own parser; what is wanted is the list of
placeholders that the program documents, each in every spelling.
"""

from __future__ import annotations

import base64
import html
import quopri
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest

from tests.gateway_under_test import Gateway, token_of
from tests.sink import Sink

Someone = Callable[[], str]
DATA = Path(__file__).resolve().parent.parent / "gateway" / "placeholders" / "placeholders.toml"
ROWS: list[dict[str, Any]] = tomllib.loads(DATA.read_text("utf-8"))["placeholder"]
BASE = "https://mail.example.com/u/"
ADDRESS = "1 Main Street, Springfield IL 62701, USA"
COMPLETE = f"Example Software, Inc., {ADDRESS}. Write to privacy@example.com."


def shown(row: dict[str, Any]) -> str:
    """Return a placeholder as an author writes it."""
    text: str = row.get("shown") or row["text"]
    return text.replace("<words>", "no more").replace("<url>", "https://example.com/bye")


FILLED = [row for row in ROWS if row["kind"] != "refused"]
REFUSED = [row for row in ROWS if row["kind"] == "refused"]
NAMES = [f"{row['system']} {shown(row)}" for row in FILLED]


def written(text: str, page: str, encoding: str = "7bit") -> bytes:
    """Return a newsletter of two alternatives in one transfer encoding."""

    def encoded(part: str) -> bytes:
        octets = textwrap.dedent(part).replace("\n", "\r\n").encode()
        match encoding:
            case "base64":
                return base64.encodebytes(octets).replace(b"\n", b"\r\n")
            case "quoted-printable":
                return quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
            case "split":
                lines = octets.replace(b"=", b"=3D").split(b"\r\n")
                return b"\r\n".join(b"=\r\n".join(re.findall(rb"=3D|.", line)) for line in lines)
        return octets

    declared = "quoted-printable" if encoding == "split" else encoding
    head = f"""\
        From: Example Letters <letters@news.example.com>
        To: reader@example.org
        Subject: News
        Date: Sun, 22 Nov 2026 10:00:00 +0000
        MIME-Version: 1.0
        Content-Type: multipart/alternative; boundary="cut"

        --cut
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: {declared}

        """
    middle = f"""\

        --cut
        Content-Type: text/html; charset=utf-8
        Content-Transfer-Encoding: {declared}

        """
    pieces = [textwrap.dedent(one).replace("\n", "\r\n").encode() for one in (head, middle)]
    return pieces[0] + encoded(text) + pieces[1] + encoded(page) + b"\r\n--cut--\r\n"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("placeholders") / "house", shared_sink.url).prepare()
    running.opt_in("reader@example.org")
    yield running.start()
    running.close()


def texts(octets: bytes) -> tuple[str, str]:
    """Return the plain text and the page of a copy that arrived."""
    read = cast(EmailMessage, message_from_bytes(octets, policy=policy.SMTP))
    plain, page = read.get_body(("plain",)), read.get_body(("html",))
    assert plain is not None and page is not None
    return plain.get_content(), page.get_content()


def arrived(house: Gateway, sink: Sink, message: bytes) -> tuple[str, str, str]:
    """Relay a newsletter; return the link of the copy's header, and its two texts."""
    before = len(sink.messages)
    replies = house.submit(message, ["reader@example.org"])
    assert replies[""][0] == 250, replies
    copy = sink.wait_for(before + 1)[-1].content
    return BASE + token_of(copy), *texts(copy)


def body(placeholder: str) -> tuple[str, str]:
    return (
        f"Hello.\nTo leave: {placeholder} any time.\n{COMPLETE}\n",
        f'<html><body><p>Hello.</p><a href="{_escaped(placeholder)}">leave</a><p>{COMPLETE}</p></body></html>',
    )


def _escaped(placeholder: str) -> str:
    return placeholder if "&" in placeholder else html.escape(placeholder)


@pytest.mark.req("BODY-02")
@pytest.mark.parametrize("row", FILLED, ids=NAMES)
def test_every_placeholder_is_filled_in_text_and_page_and_no_footer_is_added(
    house: Gateway, sink: Sink, row: dict[str, Any]
) -> None:
    placeholder = shown(row)
    page = f"<html><body><p>Hello.</p><p>{placeholder}</p><p>{COMPLETE}</p></body></html>"
    if row["kind"] != "link" and "href" not in placeholder and "<" not in placeholder:
        page = page.replace(placeholder, f'<a href="{placeholder}">leave</a>')
    if placeholder.startswith("<a "):
        page = page.replace(placeholder, f"{placeholder}>leave</a>")
    text = f"Hello.\nTo leave: {placeholder} any time.\n{COMPLETE}\n"
    link, plain, filled = arrived(house, sink, written(text, page))
    if row["kind"] == "mail":
        assert "To leave: u-" in plain and "@bounce.example.com any time." in plain
        return
    if not placeholder.startswith("<a "):
        assert f"To leave: {link} any time." in plain
        assert plain.count(link) == 1 and plain.count(ADDRESS) == 1
    assert link in filled and filled.count(ADDRESS) == 1
    assert placeholder not in filled
    if placeholder.startswith("<% asm"):  # which is shown as text
        return
    assert re.search(rf'<a [^>]*href="{re.escape(link)}"', filled) or link in filled


@pytest.mark.req("BODY-02", "BODY-03")
@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "split", "base64"])
@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(lambda one: one, id="raw"),
        pytest.param(lambda one: f"http://{one}", id="editor's http://"),
        pytest.param(lambda one: quote(one, safe=""), id="URL-encoded"),
        pytest.param(lambda one: "http://" + quote(one, safe=""), id="both"),
        pytest.param(lambda one: quote(quote(one, safe=""), safe=""), id="URL-encoded twice"),
        pytest.param(lambda one: one.replace("{", "&#123;").replace("}", "&#125;"), id="entities"),
        pytest.param(lambda one: re.sub(r"\W", lambda sign: f"&#x{ord(sign[0]):X};", one), id="hexadecimal entities"),
        pytest.param(lambda one: one.replace("{", "&lcub;").replace("%", "&percnt;"), id="named entities"),
        pytest.param(lambda one: one.replace("{{", "{{\xa0").replace("<%", "<%\u200b"), id="an editor's spaces"),
    ],
)
@pytest.mark.parametrize(
    "placeholder",
    ["{{unsubscribe_url}}", "<%asm_group_unsubscribe_raw_url%>", "*|UNSUB|*", "%unsubscribe_url%"],
)
def test_a_placeholder_is_found_however_it_is_spelled_and_encoded(
    house: Gateway, sink: Sink, placeholder: str, spelled: Callable[[str], str], encoding: str
) -> None:
    text, page = body(spelled(placeholder))
    link, plain, filled = arrived(house, sink, written(text, page, encoding))
    assert plain.replace("\r\n", "\n") == text.replace(spelled(placeholder), link)
    assert f'<a href="{link}">leave</a>' in filled
    assert filled.count(link) == 1 and "Unsubscribe" not in filled, "the author's own link is the only one"


@pytest.mark.req("BODY-02", "BODY-03")
@pytest.mark.parametrize("spelled", [html.escape, lambda one: quote(one, safe="")], ids=["HTML-escaped", "URL-encoded"])
@pytest.mark.parametrize("placeholder", ["<% %>", "<%%>", "<% click here %>"])
def test_a_placeholder_of_signs_alone_is_found_escaped_and_encoded(
    house: Gateway, sink: Sink, placeholder: str, spelled: Callable[[str], str]
) -> None:
    page = f'<body><a href="{spelled(placeholder)}">leave</a><p>{COMPLETE}</p></body>'
    link, _, filled = arrived(house, sink, written(f"{{{{unsubscribe_url}}}}\n{COMPLETE}\n", page))
    assert f'<a href="{link}">leave</a>' in filled and filled.count(link) == 1


@pytest.mark.req("BODY-02", "BODY-03", "POL-07")
@pytest.mark.parametrize(
    "placeholder",
    [
        *("{{{unsubscribe_url}}}", "{{{ UnsubscribeURL }}}", "{{{{amazonSESUnsubscribeUrl}}}}", "${unsubscribe_url}"),
        *("#{unsubscribe_url}", "{{${unsubscribe_url}}}", "%7B%7B%7Bunsubscribe_url%7D%7D%7D"),
        "http://{{{unsubscribe_link}}}",
    ],
)
def test_no_brace_of_a_template_language_is_left_around_a_link(house: Gateway, sink: Sink, placeholder: str) -> None:
    text, page = body(placeholder)
    link, plain, filled = arrived(house, sink, written(text, page))
    assert f"To leave: {link} any time." in plain
    assert f'<a href="{link}">leave</a>' in filled and filled.count(link) == 1


LONG_STYLE = "color:#0b57d0;text-decoration:underline;" * 40


@pytest.mark.req("BODY-02", "POL-07")
@pytest.mark.parametrize(
    "tag",
    [
        f'<a style="{LONG_STYLE}" href="{{}}">',
        '<a title="1 > 0, it\'s so" href="{}">',
        "<a title='Say \"no\" >' href='{}'>",
        "<A\n  HREF = '{}'\n>",
        "<a rel=x href={}>",
        "<!--[if mso]><v:rect href='x'><![endif]--><a href=\"{}\">",
    ],
    ids=["a long style", "a sign in a title", "single quotes", "capitals and lines", "no quotes", "Outlook"],
)
@pytest.mark.parametrize("placeholder", ["{{{ pm:unsubscribe }}}", "[unsubscribe]", "{unsubscribe_text}"])
def test_a_placeholder_for_a_link_is_a_target_within_any_tag(
    house: Gateway, sink: Sink, tag: str, placeholder: str
) -> None:
    if tag.endswith("{}>"):
        placeholder = placeholder.replace(" ", "")
    page = f"<body><p>1 < 2, {placeholder}.</p>{tag.replace('{}', placeholder)}leave</a><p>{COMPLETE}</p></body>"
    link, _, filled = arrived(house, sink, written(f"{{{{unsubscribe_url}}}}\n{COMPLETE}\n", page))
    assert f'<p>1 < 2, <a href="{link}">Unsubscribe</a>.</p>' in filled.replace("\r\n", "\n")
    assert f"{tag.replace('{}', link)}leave</a>" in filled.replace("\r\n", "\n")
    assert filled.count(link) == 2


@pytest.mark.req("BODY-02")
@pytest.mark.parametrize(
    ("written_so", "becomes"),
    [
        ('<script type="application/ld+json">{"url": "[unsubscribe]"}</script>', '{"url": "LINK"}</script>'),
        ("<unsubscribe><b>no</b> more</unsubscribe>", '<a href="LINK"><b>no</b> more</a>'),
        ("<Unsubscribe style='color:#333333'>no more</Unsubscribe>", '<a href="LINK">no more</a>'),
        ("<a href=http://x.example/ data-msys-unsubscribe=1>no more</a>", "<a href=LINK data-msys-unsubscribe=1>"),
    ],
)
def test_a_link_stands_where_it_can_and_else_its_address(
    house: Gateway, sink: Sink, written_so: str, becomes: str
) -> None:
    page = f'<body>{written_so}<a href="{{{{unsubscribe_url}}}}">leave</a><p>{COMPLETE}</p></body>'
    link, _, filled = arrived(house, sink, written(f"{{{{unsubscribe_url}}}}\n{COMPLETE}\n", page))
    assert becomes.replace("LINK", link) in filled


@pytest.mark.parametrize("subject", ["Leave: {{unsubscribe_url}}", "=?utf-8?b?e3t1bnN1YnNjcmliZV91cmx9fQ==?="])
def test_a_placeholder_in_the_subject_is_refused_and_named(house: Gateway, subject: str) -> None:
    message = written(*body("{{unsubscribe_url}}")).replace(b"Subject: News", b"Subject: " + subject.encode())
    code, reply = house.submit(message, ["reader@example.org"])[""]
    assert code == 554 and reply.startswith("5.6.0 content: ") and "{{unsubscribe_url}}" in reply


@pytest.mark.parametrize(
    "field",
    [
        "Reply-To: %unsubscribe_email%",
        "Reply-To: Leave <%unsubscribe_email%@example.com>",
        "From: {{unsubscribe_url}} <{}>",
    ],
)
def test_a_placeholder_in_a_name_or_an_address_is_refused_and_named(house: Gateway, field: str) -> None:
    message = written(*body("{{unsubscribe_url}}"))
    if field.startswith("From"):
        message = re.sub(rb"From: [^\r]+", field.replace("{}", "letters@news.example.com").encode(), message)
    else:
        message = field.encode() + b"\r\n" + message
    code, reply = house.submit(message, ["reader@example.org"])[""]
    assert code == 554 and reply.startswith("5.6.0 content: ") and "unsubscribe_" in reply


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: str(row["text"]))
def test_what_cannot_be_filled_is_refused_and_named(house: Gateway, row: dict[str, Any]) -> None:
    code, reply = house.submit(written(*body(shown(row))), ["reader@example.org"])[""]
    assert code == 554 and reply.startswith("5.6.0 content: ") and shown(row).strip("{} ") in reply


@pytest.mark.req("BODY-02", "POL-07")
def test_where_an_editor_has_seen_a_placeholder_from_goes_with_it(house: Gateway, sink: Sink) -> None:
    """Editors write a target anew as they see it from their own page; only an address with a query may be meant so."""
    before = [
        "//",
        " http:// ",
        "/",
        "../",
        "../../mail/",
        "https://editor.example/",
        "HTTPS://editor.example:8080/a/b/",
    ]
    lost = [f'<a href="{one}{{{{unsubscribe_url}}}}">leave</a>' for one in before]
    kept = '<a title="See: {{unsubscribe_url}}" href="mailto:{{unsubscribe_url}}">{{unsubscribe_url}}</a>'
    page = f"<body>{''.join(lost)}{kept}<p>{COMPLETE}</p></body>"
    link, plain, filled = arrived(
        house, sink, written(f"https://editor.example/m/{{{{unsubscribe_url}}}} {COMPLETE}\n", page)
    )
    assert filled == f"<body>{f'<a href={chr(34)}{link}{chr(34)}>leave</a>' * len(before)}" + (
        f'<a title="See: {link}" href="mailto:{link}">{link}</a><p>{COMPLETE}</p></body>'
    )
    assert plain.startswith(f"{link} ")


@pytest.mark.req("BODY-03")
@pytest.mark.parametrize("length", [700, 990])
@pytest.mark.parametrize("encoding", ["7bit", "8bit"])
def test_a_line_that_its_link_makes_too_long_reaches_the_reader_whole(
    house: Gateway, sink: Sink, encoding: str, length: int
) -> None:
    padding = "word " * 200
    line = f"{padding[: length - 19]}{{{{unsubscribe_url}}}}"
    link, plain, filled = arrived(house, sink, written(f"{line}\n{COMPLETE}\n", f"<p>{line}<p>{COMPLETE}", encoding))
    assert plain.replace("\r\n", "\n").startswith(f"{line.replace('{{unsubscribe_url}}', link)}\n{COMPLETE}")
    assert filled.startswith(f"<p>{line.replace('{{unsubscribe_url}}', link)}<p>{COMPLETE}")
    copy = sink.messages[-1].content
    assert max(map(len, copy.split(b"\r\n"))) <= 998
    assert copy.count(b"quoted-printable") == 2 * (length > 800), "only where it has to be"


BESIDE = """\
From: Example Letters <letters@news.example.com>\r
To: reader@example.org\r
Subject: News\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="cut"\r
\r
--cut\r
Content-Type: text/plain; charset=utf-8\r
\r
Hello\r
--cut\r
%s\r
--cut--\r
"""
PLACED = "<p>Hello</p><a href='{{unsubscribe_url}}'>leave</a>"
PLACED_IN_BASE64 = base64.encodebytes(PLACED.encode()).decode().replace("\n", "\r\n")


@pytest.mark.req("BODY-02")
@pytest.mark.parametrize(
    ("part", "is_shown"),
    [
        (f"Content-Type: text/html; name=offer.html\r\n\r\n{PLACED}", False),
        (f"Content-Type: text/html\r\nContent-Disposition: attachment; filename=o.html\r\n\r\n{PLACED}", False),
        (f"Content-Type: text/x; name=o\r\nContent-Transfer-Encoding: base64\r\n\r\n{PLACED_IN_BASE64}", False),
        ("Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\nURL:{{unsubscribe_url}}\r\nEND:VCALENDAR", False),
        (f"Content-Type: text/watch-html; charset=utf-8\r\n\r\n{PLACED}", True),
    ],
    ids=["named", "attached", "in base64", "calendar", "for a watch"],
)
def test_no_placeholder_leaves_in_what_is_beside_the_message(
    house: Gateway, sink: Sink, part: str, is_shown: bool
) -> None:
    before = len(sink.messages)
    assert house.submit((BESIDE % part).encode(), ["reader@example.org"])[""][0] == 250
    copy = sink.wait_for(before + 1)[-1].content
    read = cast(EmailMessage, message_from_bytes(copy, policy=policy.SMTP))
    shown_part, beside = (cast(EmailMessage, one).get_content() for one in read.iter_parts())
    link = BASE + token_of(copy)
    assert beside.count(link) == 1 and "{{" not in beside and (ADDRESS in beside) is is_shown
    assert shown_part.count(link) == 1 and ADDRESS in shown_part, "which has a footer of its own"


@pytest.mark.req("BODY-04")
def test_a_placeholder_in_an_attached_message_is_anothers(house: Gateway, sink: Sink) -> None:
    attached = f"Content-Type: message/rfc822\r\n\r\nSubject: Old\r\nContent-Type: text/html\r\n\r\n{PLACED}"
    before = len(sink.messages)
    assert house.submit((BESIDE % attached).encode(), ["reader@example.org"])[""][0] == 250
    assert attached.encode() in sink.wait_for(before + 1)[-1].content


def test_a_thousand_places_for_a_link_are_filled_and_one_more_is_refused(house: Gateway, sink: Sink) -> None:
    link, plain, _ = arrived(house, sink, written("Leave: {{unsubscribe_url}}\n" * 1000 + COMPLETE, "<p>Hello</p>"))
    assert plain.count(link) == 1000 and "{{" not in plain
    one_more = written("Leave: {{unsubscribe_url}}\n" * 1001 + COMPLETE, "<p>Hello</p>")
    code, reply = house.submit(one_more, ["reader@example.org"])[""]
    assert code == 554 and reply.startswith("5.6.0 content: a part has more than 1000 places for an unsubscribe link (")


def test_a_link_in_anothers_query_is_percent_encoded(house: Gateway, sink: Sink) -> None:
    page = f'<body><a href="https://t.example.com/?u={{{{unsubscribe_url}}}}&amp;x=1">leave</a><p>{COMPLETE}</p></body>'
    link, _, filled = arrived(house, sink, written(f"{{{{unsubscribe_url}}}}\n{COMPLETE}\n", page))
    assert f'href="https://t.example.com/?u={quote(link, safe="")}&amp;x=1"' in filled


@pytest.mark.req("BODY-01")
def test_the_footer_says_what_is_lacking_and_nothing_twice(house: Gateway, sink: Sink) -> None:
    link, plain, page = arrived(
        house, sink, written("Read on: {{unsubscribe_url}}\n", '<body><a href="{{unsubscribe_url}}">out</a></body>')
    )
    for text in (plain, page):
        assert text.count(link) == 1
        assert "Example Software, Inc." in text and ADDRESS in text and "privacy@example.com" in text
    _, plain, page = arrived(house, sink, written(f"{COMPLETE}\n", f"<body><p>{COMPLETE}</p></body>"))
    for text in (plain, page):
        assert text.count("Example Software") == text.count("Main Street") == text.count("privacy@") == 1
        assert text.count(BASE) == 1, "the link was lacking"
    spread = COMPLETE.replace(", ", ",<br>\n<b></b>").replace("Software", "&#83;oftware")
    _, _, page = arrived(house, sink, written("Hello\n", f"<body><p>{spread}</p></body>"))
    assert page.count("Main Street") == 1, "line breaks, tags and entities hide nothing"


@pytest.mark.req("BODY-01")
def test_a_placeholder_that_nobody_sees_is_no_way_out(house: Gateway, sink: Sink) -> None:
    hidden = f"<body><!-- {{{{unsubscribe_url}}}} --><p>{COMPLETE}</p></body>"
    link, _, page = arrived(house, sink, written("Hello\n", hidden))
    assert "{{" not in page and page.count(f'<a href="{link}"') == 1


def test_what_only_looks_like_a_placeholder_stays(house: Gateway, sink: Sink) -> None:
    text = f"[Unsubscribe](https://example.com/out) {{{{ name }}}} 100% [x] {{subscribe}} %recipient%\n{COMPLETE}\n"
    _, plain, _ = arrived(house, sink, written(text, f"<body>{text}</body>"))
    assert plain.replace("\r\n", "\n").startswith(text)
