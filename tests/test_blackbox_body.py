"""What the started program writes into the bodies of mail, what it takes out of them, and what it refuses to carry.

Copies are read as a mail program reads them, by Python's own parser; all else must be the author's octets.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, field_of, invoice, link_of, newsletter, token_of
from tests.sink import Sink

COMPANY = "Example Software, Inc. 1 Main Street, Springfield IL 62701, USA privacy@example.com"
BASE = "https://mail.example.com/u/"
PIXEL = '<img src="https://track.example.net/o.gif" width="1" height="1" alt="">'
LOGO = '<img src="https://cdn.example.net/logo.png" width="120" height="40" alt="Logo">'
READER, BUYER, GERMAN, JAPANESE, CANADIAN = (
    f"{one}@example.org" for one in ("Reader+news", "buyer", "german", "japanese", "canadian")
)
COMPANY_SECTION = """
    [company]
    name = "Example Software, Inc."
    postal_address = "1 Main Street, Springfield IL 62701, USA"
    contact = "privacy@example.com"
    privacy_policy = "https://example.com/privacy"
    hosts = ["example.com", "*.example.com"]
    list_help = "https://example.com/mail"
    list_owner = "lists@example.com"
    list_post = "no"
    """
STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.careful]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@careful.example.com"]
    tracking = "refuse"
    [streams.lax]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@lax.example.com"]
    tracking = "allow"
    [streams.own]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@own.example.com"]
    footer_html = "footer.html"
    footer_text = "footer.txt"
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    commercial = true
    """
FOOTER = f'<p class="ours">{COMPANY} <a href="{{{{unsubscribe_url}}}}">%s</a></p>\n'


def write_footers(folder: Path) -> None:
    for name, words in (("footer.html", "No more of this"), ("footer.de.html", "Nie wieder")):
        (folder / name).write_text(FOOTER % words)
    (folder / "footer.txt").write_text(f"{COMPANY}\nNo more of this: {{{{unsubscribe_url}}}}\n")


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    sections = {
        "company": COMPANY_SECTION,
        "consent": '[consent]\nrequire = "regime"\nmarkets = ["US"]\n',
        "streams": STREAMS,
    }
    running = Gateway(tmp_path_factory.mktemp("body") / "house", shared_sink.url, sections=sections)
    running.folder.mkdir()
    write_footers(running.folder)
    running.prepare()
    for name in ("careful", "lax", "own"):
        running.add_login(name, name)
    running.opt_in(READER)
    people = ((BUYER, "sale", "US", "en"), (GERMAN, "confirmed", "DE", "de-AT"), (JAPANESE, "express", "US", "ja"))
    for address, basis, country, language in (*people, (CANADIAN, "express", "CA", "en")):
        told = ("--basis", basis, "--country", country, "--language", language)
        running.run("consent", "record", address, "--topic", TOPIC, *told)
    yield running.start()
    running.close()


def html_mail(page: str, sender: str = "letters@news.example.com", to: str = READER) -> bytes:
    head = f"From: <{sender}>\nTo: {to}\nSubject: News\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n"
    return f"{head}\n{page}\n".replace("\n", "\r\n").encode()


def relayed(house: Gateway, sink: Sink, message: bytes, to: str = READER, login: str = "news") -> bytes:
    """Submit a message to one reader; return the copy that arrived."""
    sink.clear()
    sender = {"news": "letters@news.example.com", "shop": "billing@example.com"}.get(login, f"a@{login}.example.com")
    replies = house.submit(message, [to], login=login, sender=sender)
    assert replies[""][0] == 250, replies
    return sink.wait_for(1)[-1].content


def texts(octets: bytes) -> tuple[str, ...]:
    """Return the decoded texts of a copy, plain before HTML, as they are read."""
    read = cast(EmailMessage, message_from_bytes(octets, policy=policy.SMTP))
    return tuple(part.get_content() for part in read.walk() if part.get_content_maintype() == "text")


def page_of(octets: bytes) -> str:
    return texts(octets)[-1]


def refusal(house: Gateway, message: bytes, login: str = "news", to: str = READER) -> str:
    sender = "letters@news.example.com" if login == "news" else f"a@{login}.example.com"
    code, reply = house.submit(message, [to], login=login, sender=sender)[""]
    assert code == 550, reply
    return reply


# the footer


@pytest.mark.req("BODY-01", "BODY-08", "LAW-US-05", "LAW-EU-05")
@pytest.mark.parametrize(
    ("reader", "words"),
    [(READER, "Unsubscribe"), (GERMAN, "Abmelden"), (JAPANESE, "配信停止"), (CANADIAN, "Unsubscribe")],
)
def test_the_footer_speaks_the_reader_s_language(house: Gateway, sink: Sink, reader: str, words: str) -> None:
    declared = b"charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    copy = relayed(house, sink, newsletter(reader).replace(b"charset=utf-8\r\n", declared), reader)
    plain, page = texts(copy)
    link = link_of(copy)
    assert f"{words}: {link}" in plain
    assert re.search(rf'<a href="{re.escape(link)}"[^>]*>{words}</a>', page_decoded(page))
    for text in (plain, page):
        for said in ("Example Software, Inc.", "1 Main Street, Springfield IL 62701, USA", "privacy@example.com"):
            assert said in text


def page_decoded(page: str) -> str:
    return re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), page)


@pytest.mark.req("BODY-03", "BODY-08")
def test_a_charset_that_lacks_the_words_gets_english_ones(house: Gateway, sink: Sink) -> None:
    head = f"From: letters@news.example.com\nTo: {JAPANESE}\nSubject: News\nMIME-Version: 1.0\n"
    latin = f"{head}Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\nCafé\n"
    copy = relayed(house, sink, latin.replace("\n", "\r\n").encode("latin-1"), JAPANESE)
    assert texts(copy)[0].startswith("Café") and f"Unsubscribe: {link_of(copy)}" in texts(copy)[0]


@pytest.mark.req("BODY-03")
@pytest.mark.parametrize("charset", ["utf-16", "UTF-16LE", "utf-32"])
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_a_page_that_claims_a_wide_charset_and_has_none_is_read_as_it_is(
    house: Gateway, sink: Sink, charset: str, encoding: str
) -> None:
    page = "<p>Caf\u00e9</p>\r\n" if encoding == "8bit" else "<p>Coffee</p>\r\n"
    body = base64.encodebytes(page.encode()).replace(b"\n", b"\r\n") if encoding == "base64" else page.encode()
    declared = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    mail = html_mail("").replace(b"Content-Type: text/html; charset=utf-8\r\n", declared.encode()) + body
    copy = relayed(house, sink, mail)
    said = message_from_bytes(copy).get_payload(decode=True)
    assert isinstance(said, bytes) and declared.encode() in copy, "the label is the author's"
    assert page.strip() in said.decode() and f'<a href="{link_of(copy)}"' in said.decode()


@pytest.mark.req("BODY-03")
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["unmarked", "marked"])
def test_what_is_written_in_a_wide_charset_keeps_the_order_of_its_octets(
    house: Gateway, sink: Sink, order: str, mark: str
) -> None:
    page = f"{mark}<p>Caf\u00e9 \u20ac</p>"
    declared = f"Content-Type: text/html; charset={order[:6]}\r\nContent-Transfer-Encoding: base64\r\n".encode()
    mail = html_mail("").replace(b"Content-Type: text/html; charset=utf-8\r\n", declared)
    copy = relayed(house, sink, mail + base64.encodebytes(page.encode(order)).replace(b"\n", b"\r\n"))
    said = message_from_bytes(copy).get_payload(decode=True)
    assert isinstance(said, bytes) and said.startswith(page.encode(order))
    assert f'<a href="{link_of(copy)}"' in said.decode(order)


@pytest.mark.req("BODY-01", "BODY-02")
def test_a_template_that_says_everything_stays_as_it_is(house: Gateway, sink: Sink) -> None:
    page = f'<html><body><p style="color:#999">{COMPANY}</p><a href="{{{{unsubscribe_url}}}}">Leave</a></body></html>'
    copy = relayed(house, sink, html_mail(page))
    assert page_of(copy).rstrip() == page.replace("{{unsubscribe_url}}", link_of(copy))


@pytest.mark.req("BODY-01")
@pytest.mark.parametrize(
    "link",
    [
        '<a href="{}" style="display:none">Leave</a>',
        '<div style="display:none">Hello <a href="{}">Leave</a></div>',
        '<a href="{}" style="color:#ffffff">Leave</a>',
        '<table bgcolor="#224466"><tr><td><a href="{}" style="color:#224467">Leave</a></td></tr></table>',
        '<a href="{}"><span style="font-size:0">Leave</span></a>',
        '<a href="{}"></a>',
        "<style>.x{{visibility:hidden}}</style><a class=x href={}>Leave</a>",
        "<style>#foot > .x{{display:none}}</style><p id=foot><a class=x href={}>Leave</a></p>",
        '<div style="font-size:0"><a href="{}">Leave</a></div>',
        "<!-- <a href={}>Leave</a> -->",
    ],
)
def test_a_link_that_nobody_can_make_out_is_no_way_out(house: Gateway, sink: Sink, link: str) -> None:
    page = f"<html><body><p>{COMPANY}</p>{link.format('{{unsubscribe_url}}')}</body></html>"
    copy = relayed(house, sink, html_mail(page))
    assert page_of(copy).count(link_of(copy)) == 2 and ">Unsubscribe</a>" in page_of(copy)
    assert page_of(copy).count("Main Street") == 1, "what the page says is not said twice"


@pytest.mark.req("BODY-01")
@pytest.mark.parametrize(
    "hidden",
    [
        '<p style="color:#ffffff">{}</p>',
        '<table bgcolor="#224466"><tr><td style="color:#224467"><p>{}</p></td></tr></table>',
        '<div style="font-size:0"><p>{}</p></div>',
        "<style>.legal p{{display:none}}</style><div class=legal><p>{}</p></div>",
    ],
)
def test_an_address_that_nobody_can_make_out_is_said_again(house: Gateway, sink: Sink, hidden: str) -> None:
    link = '<a href="{{unsubscribe_url}}">Leave</a>'
    copy = relayed(house, sink, html_mail(f"<html><body>{hidden.format(COMPANY)}{link}</body></html>"))
    assert page_of(copy).count("Main Street") == 2 and page_of(copy).count(link_of(copy)) == 1


AMP = (
    '<!doctype html><html amp4email><head><meta charset="utf-8">'
    "<style amp4email-boilerplate>body{visibility:hidden}</style>"
    '<script async src="https://cdn.ampproject.org/v0.js"></script></head><body><h1>News</h1>'
)


@pytest.mark.req("BODY-01", "BODY-02", "POL-16")
@pytest.mark.parametrize("encoding", ["7bit", "base64"])
def test_a_page_in_amp_carries_what_the_other_parts_do(house: Gateway, sink: Sink, encoding: str) -> None:
    copy = relayed(house, sink, with_amp(f"{AMP}</body></html>", encoding))
    assert [one.count(link_of(copy)) for one in texts(copy)] == [1, 1, 1]
    page = texts(copy)[1]
    assert page.startswith(AMP) and page.rstrip().endswith("</body></html>") and "Main Street" in page
    assert "style=" not in page, "a style attribute may be more than AMP allows"


@pytest.mark.req("BODY-02", "POL-16")
def test_a_page_in_amp_is_filled_and_tells_nobody_who_reads_it(house: Gateway, sink: Sink) -> None:
    full = f'{AMP}<p>{COMPANY}</p>%s<a href="{{{{unsubscribe_url}}}}">Leave</a></body></html>'
    copy = relayed(house, sink, with_amp(full % '<amp-pixel src="https://track.example.net/o"></amp-pixel>', "7bit"))
    assert texts(copy)[1].rstrip() == (full % "</amp-pixel>").replace("{{unsubscribe_url}}", link_of(copy))


def with_amp(page: str, encoding: str) -> bytes:
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["To"], message["Subject"] = "letters@news.example.com", READER, "News"
    message.set_content("News", cte="7bit")
    message.add_alternative(page, subtype="x-amp-html", cte=encoding)
    message.add_alternative("<html><body>News</body></html>", subtype="html", cte="7bit")
    return message.as_bytes()


@pytest.mark.req("BODY-02")
def test_a_link_of_somebody_else_becomes_this_reader_s(house: Gateway, sink: Sink) -> None:
    theirs = link_of(relayed(house, sink, newsletter(BUYER), BUYER))
    copy = relayed(house, sink, html_mail(f'<body><p>{COMPANY}</p><a href="{theirs}">Leave</a></body>'))
    assert theirs != link_of(copy) and theirs not in page_of(copy)
    assert page_of(copy).count(BASE) == 1


@pytest.mark.req("BODY-04")
@pytest.mark.parametrize("name", ["smime-signed", "pgp-encrypted"])
def test_what_is_sealed_is_not_touched(house: Gateway, sink: Sink, name: str) -> None:
    sealed = (Path(__file__).parent / "messages" / f"{name}.eml").read_bytes()
    body = sealed.partition(b"\r\n\r\n")[2]
    as_billing, as_news = (
        re.sub(rb"(?im)^From:.*\r\n", b"From: <%b>\r\n" % sender, sealed, count=1)
        for sender in (b"billing@example.com", b"letters@news.example.com")
    )
    assert relayed(house, sink, as_billing, CANADIAN, "shop").partition(b"\r\n\r\n")[2] == body
    assert refusal(house, as_news).startswith("5.7.0 content: ")


@pytest.mark.req("BODY-05")
def test_mail_that_nobody_asked_for_says_that_it_is_advertising(house: Gateway, sink: Sink) -> None:
    said = "This message is an advertisement."
    assert all(said in text for text in texts(relayed(house, sink, newsletter(BUYER), BUYER)))
    page = f'<body>{COMPANY} <a href="{{{{unsubscribe_url}}}}">Leave</a></body>'
    assert said in page_of(relayed(house, sink, html_mail(page, to=BUYER), BUYER)), "however complete it is"
    assert not any(said in text for text in texts(relayed(house, sink, newsletter(READER))))


@pytest.mark.req("BODY-06")
def test_the_first_message_explains_the_right_to_object_and_the_second_need_not(house: Gateway, sink: Sink) -> None:
    house.run("consent", "record", "new@example.org", "--topic", TOPIC, "--basis", "confirmed", "--country", "FR")
    explained = "Your right to object: "
    plain, page = texts(relayed(house, sink, newsletter("new@example.org"), "new@example.org"))
    assert f"\r\n\r\n{explained}" in plain.replace("\r\n", "\n").replace("\n", "\r\n"), "in a paragraph of its own"
    assert re.search(rf"<div [^>]*>\s*{explained}", page)

    def no_more() -> bool:
        return not any(
            explained in one for one in texts(relayed(house, sink, newsletter("new@example.org"), "new@example.org"))
        )

    eventually(no_more)
    history = house.json("consent", "show", "new@example.org")
    assert "OBJECTION_EXPLAINED" in str(history)
    assert not any(explained in one for one in texts(relayed(house, sink, newsletter(READER)))), "no rule of the US"


@pytest.mark.req("BODY-01")
@pytest.mark.parametrize(("reader", "words"), [(READER, "No more of this"), (GERMAN, "Nie wieder")])
def test_the_operator_s_own_footer_stands_instead(house: Gateway, sink: Sink, reader: str, words: str) -> None:
    copy = relayed(house, sink, newsletter(reader, sender="a@own.example.com"), reader, "own")
    plain, page = texts(copy)
    assert f"No more of this: {link_of(copy)}" in plain and f'<a href="{link_of(copy)}">{words}</a>' in page
    assert page.count(BASE) == plain.count(BASE) == 1 and ">Unsubscribe" not in page


def test_an_own_footer_without_a_link_keeps_the_program_from_starting(house: Gateway) -> None:
    footer = house.folder / "footer.html"
    kept = footer.read_text()
    try:
        for wrong, told in (
            ("<p>Hello</p>", "places for the link"),
            ('<a href="{{unsubscribe_url}}">x</a>', "postal_address"),
        ):
            footer.write_text(wrong)
            done = house.run("check", check=False)
            assert (
                done.returncode == 78
                and "footer_html" in done.stdout + done.stderr
                and told in done.stdout + done.stderr
            )
    finally:
        footer.write_text(kept)


@pytest.mark.req("LAW-CA-03", "LAW-CA-06")
def test_essential_mail_that_canada_calls_commercial_has_a_way_out_there(house: Gateway, sink: Sink) -> None:
    sink.clear()
    sent = invoice()
    house.submit(sent, [CANADIAN, READER], login="shop", sender="billing@example.com")
    copies = {one.recipients[0]: one.content for one in sink.wait_for(2)}
    assert copies[READER].partition(b"\r\n\r\n")[2] == sent.partition(b"\r\n\r\n")[2]
    (text,) = texts(copies[CANADIAN])
    assert all(said in text for said in ("Example Software, Inc.", "1 Main Street", "privacy@example.com"))
    (link,) = re.findall(rf"Unsubscribe: {BASE}(\S+)", text)
    assert not field_of(copies[CANADIAN], "List-Unsubscribe")
    assert house.one_click(link).status == 200
    again = relayed(house, sink, invoice(), CANADIAN, "shop")
    assert BASE in texts(again)[0], "the invoice still goes"
    assert house.submit(newsletter(CANADIAN), [CANADIAN])[CANADIAN][0] == 550, "all marketing does not"


@pytest.mark.req("HDR-04")
def test_the_lists_say_where_help_is_and_that_nobody_writes_to_them(house: Gateway, sink: Sink) -> None:
    copy = relayed(house, sink, newsletter(READER))
    assert field_of(copy, "List-Help") == [b"List-Help: <https://example.com/mail>\r\n"]
    assert field_of(copy, "List-Owner") == [b"List-Owner: <mailto:lists@example.com>\r\n"]
    assert field_of(copy, "List-Post") == [b"List-Post: NO\r\n"]


# what a link tells

LOWER = READER.lower()
UNTAGGED = "reader@example.org"
SPELLINGS: dict[str, str] = {
    "as it is": READER,
    "upper case": READER.upper(),
    "percent-encoded": quote(READER, safe=""),
    "percent-encoded twice": quote(quote(READER, safe=""), safe=""),
    "only the at": READER.replace("@", "%40"),
    "without its tag": UNTAGGED,
    "entities": READER.replace("@", "&#64;"),
    "a return path": LOWER.replace("@", "="),
    "backwards": LOWER[::-1],
    "base64": base64.b64encode(READER.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(LOWER.encode()).decode().rstrip("="),
    "base64 of JSON": base64.b64encode(f'{{"to":"{LOWER}"}}'.encode()).decode(),
    "base32": base64.b32encode(LOWER.encode()).decode(),
    "hexadecimal": LOWER.encode().hex(),
    **{
        f"{name} of {case.__name__}": hashlib.new(name, case(READER).encode()).hexdigest()
        for name in ("md5", "sha1", "sha256", "sha512")
        for case in (str, str.lower, str.upper)
    },
    "md5 in upper case": hashlib.md5(LOWER.encode()).hexdigest().upper(),
    "sha256 in base64": quote(base64.b64encode(hashlib.sha256(LOWER.encode()).digest()).decode()),
    "sha256 without the tag": hashlib.sha256(UNTAGGED.encode()).hexdigest(),
}


@pytest.mark.req("POL-06")
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_no_link_tells_a_foreign_host_who_the_reader_is(house: Gateway, spelling: str) -> None:
    reply = refusal(house, html_mail(f'<body><a href="https://partner.example/?e={spelling}">Look</a></body>'))
    assert reply.startswith("5.7.0 content: ") and "not the company's own" in reply


@pytest.mark.req("POL-06")
@pytest.mark.parametrize(
    "where",
    [
        pytest.param(
            lambda one: html_mail(f'<body><img src="//partner.example/{one}.png" width=9></body>'), id="image"
        ),
        pytest.param(lambda one: newsletter(READER).replace(b"here is", f"http://p.example/{one}".encode()), id="text"),
        pytest.param(
            lambda one: b"X-More: <https://partner.example/%b>\r\n" % one.encode() + newsletter(READER), id="header"
        ),
        pytest.param(
            lambda one: html_mail(f'<form action="https://partner.example/"><input type=hidden value="{one}"></form>'),
            id="form",
        ),
        pytest.param(
            lambda one: html_mail(
                f'<a href="https://www.example.com/go?to={quote(f"https://p.example/?e={one}", safe="")}">x</a>'
            ),
            id="beyond a link of our own",
        ),
        pytest.param(
            lambda one: (
                html_mail("x")
                .replace(b"utf-8\r\n", b"utf-8\r\nContent-Transfer-Encoding: base64\r\n")
                .replace(b"\r\n\r\nx", b"\r\n\r\n" + base64.b64encode(f"<a href='http://p.example/{one}'>".encode()))
            ),
            id="base64 part",
        ),
        pytest.param(lambda one: html_mail('<a href="https://p.example/?to={{unsubscribe_url}}">x</a>'), id="token"),
    ],
)
def test_a_foreign_link_is_found_wherever_it_stands(house: Gateway, where: Callable[[str], bytes]) -> None:
    assert refusal(house, where(READER)).startswith("5.7.0 content: ")


@pytest.mark.req("POL-06")
def test_links_of_our_own_and_other_people_s_names_may_stand(house: Gateway, sink: Sink) -> None:
    fine = [
        f"https://www.example.com/?e={quote(READER)}",
        "https://partner.example/?e=somebody@example.org",
        f"https://partner.example/?e={'ab' * 16}",
        f"mailto:{READER}",
    ]
    page = "".join(f'<a href="{one}">x</a>' for one in fine)
    assert all(one in page_of(relayed(house, sink, html_mail(f"<body>{page}</body>"))) for one in fine)


# what reports on its reader


@pytest.mark.req("POL-16", "LAW-EU-06")
@pytest.mark.parametrize(
    "hidden",
    [
        PIXEL,
        '<IMG SRC="//track.example.net/o" WIDTH=0>',
        '<img src="https://track.example.net/o" style="display:none">',
        '<img style="visibility:hidden" src="https://track.example.net/o">',
        '<img src="https://track.example.net/o" style="width:1px;height:1px">',
        '<div style="display:none"><img src="https://track.example.net/o"></div>',
        '<style>.t{display:none}</style><img class="t" src="https://track.example.net/o">',
        '<style>.foot .t{display:none}</style><p class="foot"><img class="t" src="https://track.example.net/o"></p>',
        '<link rel="prefetch" href="https://track.example.net/o">',
        '<table style="display:none;background:url(https://track.example.net/o)"><tr><td>x</td></tr></table>',
        '<img alt="a > b" src="https&#58;//track.example.net/o" width="&#49;" height="1">',
    ],
)
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_a_hidden_image_is_stripped_and_nothing_else_changes(
    house: Gateway, sink: Sink, hidden: str, encoding: str
) -> None:
    before = f'<html><body><p>Grüße</p>{LOGO}<a href="https://cdn.example.net/?q=1&amp;r=2">More</a>'
    copy = relayed(house, sink, encoded(f"{before}{hidden}<p>End</p></body></html>", encoding))
    page = page_of(copy)
    assert "track.example.net" not in page and page.startswith(before) and "<p>End</p>" in page


def encoded(page: str, encoding: str) -> bytes:
    head = html_mail("", to=READER).partition(b"\r\n\r\n")[0]
    octets = page.encode()
    if encoding == "base64":
        octets = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    if encoding == "quoted-printable":
        octets = re.sub(rb"[=\x80-\xff]", lambda found: b"=%02X" % found[0][0], octets)
        octets = b"=\r\n".join(octets[at : at + 60] for at in range(0, len(octets), 60))
        octets = re.sub(rb"=(=\r\n)([0-9A-F]{2})|=([0-9A-F])(=\r\n)([0-9A-F])", rb"\1=\2=\3\5\4", octets)
        octets = octets.replace(b"==\r\n=", b"=\r\n=").replace(b"===", b"=")
    return b"%b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (head, encoding.encode(), octets)


@pytest.mark.req("POL-16")
def test_what_was_stripped_is_on_record(house: Gateway, sink: Sink) -> None:
    message_id = "<stripped@tool.example.net>"
    message = b"Message-ID: %b\r\n" % message_id.encode() + html_mail(f"<body>{PIXEL}</body>")
    relayed(house, sink, message)
    told = house.run("explain", message_id, READER).stdout
    assert "track.example.net" in told


@pytest.mark.req("POL-16")
@pytest.mark.parametrize("tracker", [PIXEL, '<a href="https://u1.ct.sendgrid.net/ls/click?upn=x">Look</a>'])
def test_a_careful_stream_refuses_what_reports_on_its_reader(house: Gateway, tracker: str) -> None:
    reply = refusal(house, html_mail(f"<body>{tracker}</body>", "a@careful.example.com"), "careful")
    assert reply.startswith("5.7.0 content: ") and ("track.example.net" in reply or "sendgrid.net" in reply)


@pytest.mark.req("POL-16")
def test_visible_images_pass_and_a_lax_stream_lets_all_of_them_pass(house: Gateway, sink: Sink) -> None:
    mobile = (
        "<style>@media (max-width:600px){.wide{display:none!important}.small{display:block!important}}</style>"
        '<img class="wide" src="https://cdn.example.net/w.png"><img class="small" style="display:none"'
        ' src="https://cdn.example.net/s.png"><img src="https://cdn.example.net/line.png" width="600" height="1">'
    )
    page = f"<html><body>{LOGO}{mobile}<a href='https://u1.ct.sendgrid.net/x'>y</a>"
    assert page_of(relayed(house, sink, html_mail(page))).startswith(page)
    page = f"<html><body>{PIXEL}"
    assert page_of(relayed(house, sink, html_mail(page, "a@lax.example.com"), login="lax")).startswith(page)


@pytest.mark.req("POL-16", "LAW-EU-06")
def test_where_europe_s_rules_hold_our_own_hidden_images_go_too(house: Gateway, sink: Sink) -> None:
    own = '<img src="https://www.example.com/o.gif" width="1" height="1">'
    sink.clear()
    house.submit(html_mail(f"<body>{own}{PIXEL}{LOGO}</body>"), [READER, GERMAN])
    copies = {one.recipients[0]: page_of(one.content) for one in sink.wait_for(2)}
    assert own in copies[READER] and own not in copies[GERMAN]
    assert all(PIXEL not in page and LOGO in page for page in copies.values())


@pytest.mark.req("POL-17", "LAW-EU-06")
def test_nothing_of_ours_is_added_but_the_footer(house: Gateway, sink: Sink) -> None:
    sent = newsletter(READER).replace(b"<b>new</b>", b'<a href="https://example.net/x">new</a> ' + LOGO.encode())
    copy = relayed(house, sink, sent)
    for before, after in zip(texts(sent), texts(copy), strict=True):
        kept, cut = before.rstrip().removesuffix("</body></html>"), "\r\n-- \r\n" if "<" not in before else "<div lang"
        stays, _, footer = after.partition(cut)
        assert stays.rstrip() == kept.rstrip()
        assert "<img" not in footer.lower() and "url(" not in footer
        assert re.findall(r"https?://[^\s\"<>]+", footer) == [link_of(copy)]
    assert token_of(copy) and copy.count(b"<img") == sent.count(b"<img")
