"""What of a page nobody sees: hidden images, hidden parts, links that cannot be made out; what only looks like it."""

from __future__ import annotations

import re

import pytest

from gateway.pieces import Pieces
from gateway.sight import Page
from gateway.sight.elements import host_of


def unseen(page: str) -> list[str]:
    octets = page.encode()
    return [octets[one.start : one.end].decode() for one in Page(Pieces(octets)).unseen()]


@pytest.mark.parametrize(
    "hidden",
    [
        '<img src="https://t.example/o" width="1" height="1">',
        "<IMG WIDTH=0 SRC=//t.example/o>",
        '<img src="https://t.example/o" width="00" height="001">',
        '<img src="https://t.example/o" height=1>',
        '<img src="https://t.example/o" style="width:1px; height:1px">',
        '<img src="https://t.example/o" style="DISPLAY : NONE !important">',
        '<img src="https://t.example/o" style="display/**/:/* x */none">',
        '<img src="https://t.example/o" style="\\64 isplay:none">',
        '<img src="https://t.example/o" style="visibility:collapse">',
        '<img src="https://t.example/o" style="opacity:0.0">',
        '<img src="https://t.example/o" style="position:absolute;left:-9999px">',
        '<img src="https://t.example/o" style="max-height:0;overflow:hidden">',
        '<img src="https://t.example/o" hidden>',
        '<img src="\nhttps://t.example/\no" alt="a > b" width="1"\nheight=\'1\'/>',
        '<img srcset="https://t.example/o 1x" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" width=1 height=1>',
        '<input type="image" src="https://t.example/o" width="1" height="1">',
        '<iframe src="https://t.example/o" width="0" height="0">',
        '<link href="https://t.example/o" rel="preload">',
        '<bgsound src="https://t.example/o">',
    ],
)
def test_what_fetches_and_shows_nothing_is_found_whole(hidden: str) -> None:
    assert unseen(f"<p>Grüße <img src='https://c.example/l' width=99></p>{hidden}<p>x</p>") == [hidden]


@pytest.mark.parametrize(
    "around",
    [
        '<div style="display:none">{}</div>',
        '<div style="visibility:hidden"><div><span>{}</span></div></div>',
        '<div style="max-height:0;overflow:hidden">{}</div>',
        "<div hidden>{}</div>",
        "<style>.a, .b{{display:none}}</style><p class='x b'>{}</p>",
        "<style>#a{{opacity:0}}</style><p id=a>{}</p>",
        "<!--[if mso]><p style='display:none'>{}</p><![endif]-->",
    ],
)
def test_what_hides_a_part_hides_what_is_in_it(around: str) -> None:
    image = '<img src="https://t.example/o">'
    assert unseen(around.format(image) + image) == [image]


@pytest.mark.parametrize(
    "shown",
    [
        '<img src="https://c.example/line" width="600" height="1">',
        '<img src="https://c.example/space" width="1" height="20">',
        '<img src="https://c.example/l" width="100%">',
        '<img src="https://c.example/l" width="10" height="10" border="0" style="display:block;border:0">',
        '<img src="cid:logo" width="1" height="1">',
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" width="1" height="1">',
        '<!-- <img src="https://t.example/o" width="1" height="1"> -->',
        "<style>@media (max-width:9px){.a{display:none}}</style><img class=a src='https://c.example/l'>",
        "<style>@media (max-width:9px){.a{display:block!important}}</style>"
        "<img class=a style='display:none' src='https://c.example/l'>",
        "<style>.a{display:none} @media (max-width:9px){.a{display:block}}</style><img class=a src='https://c.example/l'>",
        '<div style="display:none">x</div><img src="https://c.example/l">',
        '<div style="display:none"><img src="https://c.example/never-closed">',
        '<link rel="stylesheet" href="https://c.example/s.css">',
        '<td background="https://c.example/l" style="height:99px">x</td>',
        '<input type="hidden" src="https://c.example/l" width="1" height="1">',
    ],
)
def test_what_can_be_seen_somewhere_stays(shown: str) -> None:
    assert unseen(shown) == []


def test_a_hidden_background_loses_its_picture_and_keeps_its_place() -> None:
    page = (
        '<p style="display:none;background:url(https://t.example/1)">x</p><td hidden background="https://t.example/2">y</td>'
        "<style>.a{width:1px;height:1px;background:url('https://t.example/3')}</style>"
    )
    found = Page(Pieces(page.encode())).unseen()
    assert [(one.instead, one.host) for one in found] == [
        (b"none", "t.example"),
        (b"", "t.example"),
        (b"none", "t.example"),
    ]


IMAGE = '<img class="o" src="https://t.example/o">'


@pytest.mark.parametrize(
    ("rule", "page", "is_hidden"),
    [
        (".a .o", f"<div class=a><b>{IMAGE}</b></div>", True),
        ("#x > .o", f"<p id=x>{IMAGE}</p>", True),
        ("#x > .o", f"<p id=x><b>{IMAGE}</b></p>", False),
        ("div.a td.b > img", f"<div class=a><table><tr><td>1<td class=b>{IMAGE}</table></div>", True),
        ("div.a td.b > img", f"<div class=a><table><tr><td class=b>1<td>{IMAGE}</table></div>", False),
        (".a > .b .o", f"<p class=a><i class=b><i class=b><u>{IMAGE}</u></i></i></p>", True),
        (".a .o", f"<div class=a></div>{IMAGE}", False),
        (".a .o", f"<div class=a><table><tr><td></div>{IMAGE}</td></tr></table></div>", True),
        (".a .o", f"<!-- <div class=a> -->{IMAGE}", False),
        (".a p", f"<div class=a><p>Dear Ann {IMAGE}</p></div>", True),
        ("p", f"<p>Dear Ann {IMAGE}</p>", True),
        (".a.o", f"<p>{IMAGE}</p>", False),
        (".a.o", '<p><img class="a o" src="https://t.example/o"></p>', True),
        (".a + .o", f"<p class=a></p>{IMAGE}", False),
        (".a .o:hover", f"<p class=a>{IMAGE}</p>", False),
    ],
)
def test_a_rule_hides_by_what_encloses_an_element(rule: str, page: str, is_hidden: bool) -> None:
    assert unseen(f"<style>{rule} {{display:none}}</style>{page}") == (
        re.findall("<img[^>]*>", page) if is_hidden else []
    )
    shown = f"<style>{rule} {{display:none}} @media (min-width:9px){{.o, p{{display:block}}}}</style>{page}"
    assert unseen(shown) == []


def test_a_rule_makes_small_what_stands_within_another() -> None:
    assert unseen(f"<style>.a .o {{width:1px;height:1px}}</style><p class=a>{IMAGE}</p>{IMAGE}") == [IMAGE]


@pytest.mark.parametrize(
    ("page", "legible"),
    [
        ('<a href="LINK">out</a>', True),
        ('<a href="LINK" style="color:#999999">out</a>', True),
        ('<a href="LINK"><img src="x" alt="out"></a>', True),
        ('<body bgcolor="#000000"><a href="LINK" style="color:white">out</a>', True),
        ('<td style="background:#123456"></td><a href="LINK" style="color:#123456">out</a>', True),
        ('<a href="LINK" style="color:#fff">out</a>', False),
        ('<td style="background:#123456">a <a href="LINK" style="color:rgb(18, 52, 87)">out</a></td>', False),
        ('<a href="LINK"><font color="#fffffe">out</font></a>', False),
        ('<a href="LINK" style="font-size:0px">out</a>', False),
        ('<td style="font-size:0"><a href="LINK">out</a></td>', False),
        ('<td style="font-size:0"><a href="LINK" style="font-size:12px">out</a></td>', True),
        ('<td style="font-size:0"><a href="LINK"><img src="x" alt="out"></a></td>', True),
        ('<a href="LINK">&nbsp;&zwnj; </a>', False),
        ('<a href="LINK" style="display:none">out</a>', False),
        ('<div style="display:none"><a href="LINK">out</a></div>', False),
        ('<!-- <a href="LINK">out</a> -->', False),
    ],
)
def test_a_link_must_be_there_to_be_seen(page: str, legible: bool) -> None:
    octets = page.encode()
    assert Page(Pieces(octets)).has_legible_link(octets.index(b"LINK")) is legible


@pytest.mark.parametrize(
    ("page", "legible"),
    [
        ("<p>TEXT</p>", True),
        ('<p style="color:#777">TEXT</p>', True),
        ('<td style="color:#fff" bgcolor="#123456"><p>TEXT</p></td>', True),
        ('<div style="font-size:0"><p style="font-size:12px">TEXT</p></div>', True),
        ('<div style="font-size:0"></div><p>TEXT</p>', True),
        ("<style>.a{background:#000}</style><p class=a style=color:#fff>TEXT</p>", True),
        ("<style>p{font-size:12px}</style><td style=font-size:0><p>TEXT</p></td>", True),
        ('<p style="color:#fff">TEXT</p>', False),
        ('<font color="white"><b>TEXT</b></font>', False),
        ('<td style="color:#123456;background:#123456"><p>TEXT</p></td>', False),
        ('<td style="background-color:#123456"><p style="color:rgb(18, 52, 87)">TEXT</p></td>', False),
        ('<div style="font-size:0px"><p>TEXT</p></div>', False),
        ('<p style="font-size:12px"><span style="font-size:0">TEXT</span></p>', False),
    ],
)
def test_text_must_be_there_to_be_read(page: str, legible: bool) -> None:
    octets = page.encode()
    assert Page(Pieces(octets)).is_legible(octets.index(b"TEXT")) is legible


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://A.Example:8443/x", "a.example"),
        ("//user:secret@b.example?x", "b.example"),
        (" http:\\\\c.example\\x", "c.example"),
        ("cid:logo", ""),
        ("mailto:a@d.example", ""),
    ],
)
def test_the_host_of_a_link(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        '<img "',
        "<img '",
        "<!--",
        "<style>",
        ".a{display:none}",
        '<div style="display:none">',
        '<td background="a" ',
        "hidden ",
        "url(",
        "</body><!--",
        "<style>.a .o{display:none}</style><i class=o>",
        "<style>.a > i .o, i i i i{display:none}</style><i class=o>",
        "</i><style>i b{display:none}</style><b></i>",
        "<img src=//t.example/o width=1 height=1>",
    ],
)
@pytest.mark.parametrize("around", ["{}", "<style>{}", "<div style='display:none'>{}"])
def test_no_page_is_too_odd(piece: str, around: str) -> None:
    """What costs more than a few looks at each octet would take minutes here."""
    octets = around.format(piece * (60_000 // len(piece))).encode()
    page = Page(Pieces(octets))
    assert all(one.host == "t.example" for one in page.unseen())
    assert page.is_seen(len(octets) // 2) in (True, False)
    assert page.is_legible(len(octets) // 2) in (True, False) and 0 <= page.end <= len(octets)
