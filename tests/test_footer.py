"""The visible link: in every part that is shown, in every encoding and charset, and the author's text intact."""

from __future__ import annotations

import base64
import quopri
import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import stamp
from gateway.footer import one_line
from gateway.footer.words import languages, words_in
from gateway.headers import split
from gateway.mend import with_regular_header
from gateway.mime import leaves, parse, shown
from gateway.model import Company, FooterTemplate, Manner
from tests.copies_under_test import (
    ALICE,
    LINK,
    MESSAGE_ID,
    PROMOTION,
    SEALED,
    STAMPABLE,
    draft,
    message,
    promotional,
    promotional_copy,
    read,
    shown_texts,
    wire,
)


def stamped(content: bytes, company: Company | None = None) -> bytes:
    if company is None:
        return wire(promotional_copy(content))
    promotion = stamp.Promotion(company, "News", "news.lists.example.com")
    return wire(promotional_copy(content, promotional(promotion=promotion)))


def one_part(header: bytes, body: bytes) -> bytes:
    return b"From: a@example.com\r\nMIME-Version: 1.0\r\n" + header + b"\r\n\r\n" + body


@pytest.mark.req("BODY-03")
@pytest.mark.parametrize("name", STAMPABLE)
def test_every_shown_text_keeps_its_words_and_gains_one_link(name: str) -> None:
    before, after = shown_texts(with_regular_header(message(name))), shown_texts(stamped(message(name)))
    assert len(before) == len(after) > 0
    for was, now in zip(before, after, strict=True):
        assert now.count(LINK.url) == 1
        assert "1 Main Street, Springfield IL 62701, USA" in now and "Unsubscribe" in now
        assert all(line.strip() in now for line in was.replace("</body>", "\n</body>").splitlines())


@pytest.mark.req("BODY-03")
@pytest.mark.parametrize("name", ["mixed-attachment", "nested", "rfc822-attachment", "related", "related-start"])
def test_what_is_not_shown_keeps_its_bytes(name: str) -> None:
    before, after = message(name), stamped(message(name))
    root = parse(before, split(before))
    others = [part for part in leaves(root) if part not in list(shown(root))]
    assert others
    for part in others:
        assert before[part.head : part.end] in after


@pytest.mark.req("BODY-04")
@pytest.mark.parametrize("name", sorted(SEALED))
def test_promotion_that_is_sealed_is_refused_because_it_cannot_carry_a_link(name: str) -> None:
    refused = stamp.prepare(message(name), split(message(name)), promotional())
    assert isinstance(refused, stamp.Unstampable)
    assert str(refused.reply).startswith("550 5.7.0 content: ")


@pytest.mark.parametrize(
    "content",
    [
        one_part(b"Content-Type: application/pdf", b"%PDF\r\n"),
        one_part(b"Content-Transfer-Encoding: base64", b"this is not base64!\r\n"),
        one_part(b"Content-Transfer-Encoding: base64", b"QUJDR\r\n"),
        one_part(b"Content-Transfer-Encoding: base64", base64.b64encode(b"-----BEGIN PGP MESSAGE-----\r\n")),
        one_part(b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64", b"2EEAQgA=\r\n"),
        one_part(b"Content-Type: text/plain; charset=utf-7", b"+AOQ-\r\n"),
        one_part(b"Content-Type: text/html; charset=cp037", b"\x4c\x97\x6e\r\n"),
        one_part(
            b"Content-Type: text/html; charset=UTF-32BE\r\nContent-Transfer-Encoding: quoted-printable",
            b"=00=00=00x\r\n",
        ),
    ],
)
def test_promotion_without_a_part_that_can_carry_the_link_is_refused(content: bytes) -> None:
    assert isinstance(stamp.prepare(content, split(content), promotional()), stamp.Unstampable)


def test_the_text_footer_follows_a_signature_line_and_ends_its_own_line() -> None:
    copy = stamped(message("no-final-newline"))
    assert copy.endswith(
        b"\r\n\r\nThis message ends without a line end.\r\n\r\n-- \r\nMuller & Sohne, Inc.\r\n"
        b"1 Main Street, Springfield IL 62701, USA\r\nContact: privacy@example.com\r\nUnsubscribe: %b\r\n"
        % LINK.url.encode()
    )


@pytest.mark.parametrize(
    ("charset", "encoding", "name", "written"),
    [
        ("utf-8", "8bit", "Müller & Söhne ☕", "Müller & Söhne ☕"),
        ("utf-8", "7bit", "Müller", "Muller"),
        ("iso-8859-1", "8bit", "Müller – Łódź “x”", 'Müller - Lódz "x"'),
        ("windows-1252", "8bit", "Müller – “x”", "Müller – “x”"),
        ("us-ascii", "7bit", "Straße æøÅ 株式会社", "Strasse aeoA ????"),
        ("iso-2022-jp", "7bit", "株式会社", "株式会社"),
        ("no-such-charset", "8bit", "Müller", "Muller"),
    ],
)
@pytest.mark.req("BODY-03")
def test_the_footer_is_written_in_the_part_s_charset(charset: str, encoding: str, name: str, written: str) -> None:
    header = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}".encode()
    copy = stamped(one_part(header, b"Hello\r\n"), Company(name, "1 Main Street", "", ""))
    body = copy.partition(b"\r\n\r\n")[2]
    assert body.decode("ascii" if charset.startswith("no-") else charset).splitlines()[3] == written
    assert encoding == "8bit" or body.isascii()


def test_html_gets_entities_whatever_its_charset() -> None:
    copy = stamped(
        one_part(b"Content-Type: text/html; charset=us-ascii", b"<body></body>"), Company('Ü <b> "x"', "1 St", "", "")
    )
    assert b"&#220; &lt;b&gt; &quot;x&quot;<br>\r\n1 St<br>" in copy


@pytest.mark.parametrize(
    "html",
    [
        b"<html><body><p>Hi</p>^</body></html>",
        b"<html><BODY><p>Hi</p>^</BODY ></html>",
        b"<body>a</body><body>b^</body>",
        b"<p>Hi</p>^",
        b"<p>Hi</p>\r\n^",
        b"<body>Hi^</body><!-- </body> -->",
        b"<body>Hi <!--[if mso]></body><![endif]-->^</body>",
        b"<p>Hi</p>^<!-- never ends </body>",
        b"<!-- a --> <!-- b -->Hi^",
    ],
)
def test_the_html_footer_stands_before_the_last_body_end_and_never_in_a_comment(html: bytes) -> None:
    before, _, after = html.partition(b"^")
    for encoding, encode in (
        (b"8bit", bytes),
        (b"quoted-printable", quopri.encodestring),
        (b"base64", base64.encodebytes),
    ):
        header = b"Content-Type: text/html\r\nContent-Transfer-Encoding: " + encoding
        body = encode(before + after).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"=0D\r\n", b"\r\n")
        shown = read(stamped(one_part(header, body))).get_payload(decode=True)
        assert isinstance(shown, bytes)
        assert shown.startswith(before + b"\r\n<div") and shown.rstrip().endswith(
            b"</div>\r\n" + after if after else b"</div>"
        )


@pytest.mark.parametrize("before_the_edge", [0, 1, 3, 6, 7, 13])
@pytest.mark.parametrize("mark", [b"^</body>", b"<!--</body>-->^</body>", b"^<!-- </body>"])
def test_marks_are_found_wherever_a_large_part_is_cut_for_the_search(before_the_edge: int, mark: bytes) -> None:
    filling = b"<p>Hello there, once more</p>\r\n" * 9000
    before, _, after = (filling[-(256 * 1024 - before_the_edge) :] + mark + b"\r\n").partition(b"^")
    shown = read(stamped(one_part(b"Content-Type: text/html", before + after))).get_payload(decode=True)
    assert isinstance(shown, bytes) and shown.startswith(before + b"\r\n<div") and shown.endswith(after)


def test_a_body_end_is_found_though_quoted_printable_hides_it() -> None:
    body = b"<p>Hi</p>\r\n=3C/bo=\r\nd=79>\r\n"
    header = b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable"
    copy = stamped(one_part(header, body))
    assert copy.index(b"<p>Hi</p>") < copy.index(b"<div") < copy.index(b"=3C/bo=\r\nd=79>\r\n")


@pytest.mark.parametrize(
    ("ending", "decoded"),
    [
        (b"end", b"end\r\n\r\n-- "),
        (b"end\r\n", b"end\r\n\r\n-- "),
        (b"end=\r\n", b"end\r\n\r\n-- "),
        (b"end = \r\n", b"end \r\n\r\n-- "),
        (b"end=", b"end\r\n\r\n-- "),
        (b"end=3D", b"end=\r\n\r\n-- "),
        (b"", b"\r\n-- "),
    ],
)
def test_quoted_printable_text_is_continued_on_a_new_line(ending: bytes, decoded: bytes) -> None:
    copy = stamped(one_part(b"Content-Transfer-Encoding: quoted-printable", ending))
    unpadded = re.sub(rb"[ \t]+\r\n", b"\r\n", copy.partition(b"\r\n\r\n")[2])
    assert quopri.decodestring(unpadded).startswith(decoded)


def test_only_the_lines_from_the_link_on_are_encoded_anew_in_base64() -> None:
    text = b"word " * 100
    body = base64.encodebytes(text).replace(b"\n", b"\r\n")
    copy = stamped(one_part(b"Content-Transfer-Encoding: base64", body))
    encoded = copy.partition(b"\r\n\r\n")[2]
    assert encoded.startswith(body[: body.rindex(b"\r\n", 0, -2)])
    assert base64.b64decode(encoded).startswith(text + b"\r\n\r\n-- \r\n")


def test_flowed_text_gets_lines_that_do_not_flow() -> None:
    copy = stamped(message("format-flowed"), Company("> From us", "From 1 Main Street", "", ""))
    lines = copy.partition(b"\r\n\r\n")[2].split(b"\r\n")
    tail = lines[lines.index(b"-- ") :]
    assert tail[1:3] == [b" > From us", b" From 1 Main Street"]
    assert not any(line.endswith(b" ") for line in tail[1:])


@pytest.mark.req("BODY-08")
def test_the_html_link_says_unsubscribe_in_words_and_can_be_seen() -> None:
    copy = stamped(message("html-only")).decode()
    link = copy[copy.index(f'<a href="{LINK.url}"') : copy.index("</a>", copy.index(LINK.url, copy.index("<html")))]
    assert link.endswith(">Unsubscribe")
    assert "display:none" not in copy
    assert contrast("0b57d0", "ffffff") > 4.5 and contrast("333333", "ffffff") > 4.5
    assert "color:#0b57d0" in link and "color:#333333" in copy and "background-color:#ffffff" in copy


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: the contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_company_name_breaks_out_of_the_footer(name: str, address: str) -> None:
    content = message("alternative")
    copy = stamped(content, Company(name, address, "", ""))
    assert copy.count(b"\r") == copy.count(b"\n") == copy.count(b"\r\n") and b"\0" not in copy
    assert copy.count(b"<a href=") == content.count(b"<a href=") + 1
    assert [part.get_content_type() for part in read(copy).walk()] == [
        part.get_content_type() for part in read(content).walk()
    ]


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def test_copies_share_the_memory_of_what_they_have_in_common() -> None:
    made = draft(message("mixed-attachment"), promotional())
    first, second = (made.copy_for(ALICE, LINK, MESSAGE_ID) for _ in range(2))
    shared = [piece for piece in first.body if any(piece is other for other in second.body)]
    assert sum(map(len, shared)) > sum(map(len, first.body)) / 2


def spoken(content: bytes, manner: Manner, promotion: stamp.Promotion = PROMOTION) -> bytes:
    return wire(draft(content, promotional(promotion=promotion)).copy_for(ALICE, LINK, MESSAGE_ID, manner))


@pytest.mark.req("BODY-08")
def test_there_are_words_in_the_languages_that_are_promised() -> None:
    assert {"en", "de", "fr", "es", "it", "nl", "pt", "pl", "ja"} <= set(languages())
    assert len({words_in(one).unsubscribe for one in languages()}) == len(languages())
    assert all(all(words_in(one)) for one in languages())
    assert words_in("pt-BR") == words_in("pt") and words_in("tlh") == words_in("en")


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "iso-2022-jp", "koi8-r", "utf-16", "us-ascii"])
@pytest.mark.req("BODY-03", "BODY-08")
def test_every_language_fits_every_charset(language: str, charset: str) -> None:
    manner = Manner(language, is_advertising=True, states_objection=True)
    for kind, text in (("plain", "Hello\r\n"), ("html", "<p>Hello</p>\r\n")):
        header = f"Content-Type: text/{kind}; charset={charset}\r\nContent-Transfer-Encoding: base64".encode()
        content = one_part(header, base64.encodebytes(text.encode(charset)).replace(b"\n", b"\r\n"))
        (shown,) = shown_texts(spoken(content, manner))
        words, english = words_in(language), words_in("en")
        assert shown.startswith(text.rstrip())
        assert LINK.url in shown and "????" not in shown
        if kind == "plain":
            assert any(
                f"{one}: {LINK.url}" in shown
                for one in (plain(words.unsubscribe), english.unsubscribe, words.unsubscribe)
            )
        else:
            assert f">{html_of(words.unsubscribe)}</a>" in shown and html_of(words.advertising) in shown


def plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def html_of(text: str) -> str:
    return text.encode("ascii", "xmlcharrefreplace").decode().replace("'", "&#x27;")


WITH_HTML = [
    name
    for name in STAMPABLE
    if name != "newsletter-fragment"  # whose last words are a comment that never ends
    and any(one.content_type == "text/html" for one in shown(parse(message(name), split(message(name)))))
]
PIXEL = b'<img src="https://track.example.net/o" width="1" height="1">'


@pytest.mark.req("BODY-03", "POL-16")
@pytest.mark.parametrize("name", WITH_HTML)
def test_only_a_tracker_goes_from_the_shapes_of_html(name: str) -> None:
    """The pixel is put where the part's own encoding lets it stand, and its copy is that of the message without it."""
    content = message(name)
    root = parse(content, split(content))
    part = next(one for one in shown(root) if one.content_type == "text/html")
    body = content[part.start : part.end]
    if part.encoding == "base64":
        body = base64.b64encode(base64.b64decode(body) + PIXEL) + b"\r\n"
    else:
        body = body.rstrip(b"\r\n") + (PIXEL.replace(b"=", b"=3D") if part.encoding[0] == "q" else PIXEL) + b"\r\n"
    tracked = content[: part.start] + body + content[part.end :]
    before, after = shown_texts(wire(promotional_copy(content))), shown_texts(wire(promotional_copy(tracked)))
    assert any("track.example.net" in text for text in shown_texts(tracked))
    assert [re.sub(r"\s", "", text) for text in before] == [re.sub(r"\s", "", text) for text in after]


def test_quoted_printable_that_nobody_would_write_is_encoded_anew_as_a_whole() -> None:
    odd = b"<p>Caf=e9 = x</p>=\n<p>{{unsubscribe_url}}</p>" + PIXEL.replace(b"1", b"=31") + b"<p>end=zz</p>\r\n"
    header = b"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable"
    (text,) = shown_texts(stamped(one_part(header, odd.replace(b"=\n", b"=\r\n"))))
    assert "Café" in text and LINK.url in text and "track.example" not in text and "end" in text


def test_what_is_added_for_one_reader_is_not_for_another() -> None:
    made = draft(message("alternative"), promotional())
    manners = [Manner(), Manner("de"), Manner(is_advertising=True), Manner(states_objection=True), Manner()]
    copies = [wire(made.copy_for(ALICE, LINK, MESSAGE_ID, manner)) for manner in manners]
    assert copies[0] == copies[4] and len(set(copies)) == 4
    assert [b"advertisement" in one for one in copies] == [False, False, True, False, False]
    assert [b"right to object" in one for one in copies] == [False, False, False, True, False]


def test_an_operator_s_own_footer_is_written_in_any_charset_and_language() -> None:
    template = FooterTemplate(
        {"": "Müller, bye: {{unsubscribe_url}}\r\n"},
        {"": '<a href="{{unsubscribe_url}}">ü</a>', "de": '<b><a href="{{unsubscribe_url}}">ß</a></b>'},
    )
    promotion = replace(PROMOTION, template=template)
    latin = one_part(b"Content-Type: text/plain; charset=us-ascii", b"Hello\r\n")
    assert f"Muller, bye: {LINK.url}" in shown_texts(spoken(latin, Manner("de"), promotion))[0]
    assert b"&#252;</a>" in spoken(message("html-only"), Manner("fr"), promotion)
    assert b"<b><a href" in spoken(message("html-only"), Manner("de", is_advertising=True), promotion)
