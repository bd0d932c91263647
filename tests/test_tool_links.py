"""A tool's own unsubscribe link: found in the header, found in the body, and what may be reached of it."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.headers import split
from gateway.pieces import Pieces
from gateway.placeholders import find
from gateway.stamp import submitted_url
from gateway.webhooks.tools import may_reach

URL = "https://tool.example.net/u/abc?x=1&y=2"


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (f"<{URL}>", URL),
        (f"<mailto:a@example.net>,\r\n <{URL}>", URL),
        (f"< {URL} >", URL),
        ("<http://tool.example.net/u>", ""),
        ("<http://127.0.0.1:8000/u?x=1>", "http://127.0.0.1:8000/u?x=1"),
        ("<http://localhost/u>", "http://localhost/u"),
        ("<http://localhost.example.net/u>", ""),
        ("<http://127.0.0.1@tool.example.net/u>", ""),
        ("<mailto:a@example.net>", ""),
        ("https://tool.example.net/u", ""),
        ("<https://tool.example.net/u\r\n v>", "https://tool.example.net/uv"),
        (
            "<mailto:a@x>, =?utf-8?q??=\r\n =?utf-8?q?=3Chttps=3A//tool?=\r\n =?utf-8?q?=2Eexample=2Enet/u=3E?=",
            "https://tool.example.net/u",
        ),
        ("=?utf-8?b?%%%?=", ""),
        ("=?nosuch?q?=3Chttps=3A//tool.example.net/u=3E?=", ""),
        (f"<https://tool.example.net/{'x' * 2000}>", ""),
        ("<https://tool.example.net/\u00e9>", ""),
    ],
)
def test_the_https_address_of_a_submitted_header_is_where_the_tool_wants_to_hear(value: str, url: str) -> None:
    assert submitted_url(split(f"List-Unsubscribe: {value}\r\n\r\n".encode())) == url


def test_a_message_without_the_header_has_no_such_address() -> None:
    assert submitted_url(split(b"Subject: x\r\n\r\n")) == ""


@pytest.mark.parametrize(
    ("text", "is_html", "count"),
    [
        (URL, False, 1),
        (f"stop: {URL}. Bye", False, 1),
        (f"{URL}3", False, 0),
        (f"{URL}/more", False, 0),
        (f"{URL}&z=3", False, 0),
        (f"{URL}.html", False, 0),
        (f'<a href="{URL}">', True, 1),
        (f'<a href="{URL.replace("&", "&amp;")}">', True, 1),
        (f'<a href="{URL.replace("/", "&#x2F;").replace("=", "&#x3D;").replace("&y", "&amp;y")}">', True, 1),
        (f"{URL}&#x3D;3", True, 0),
        (f"{URL}&#x26;z=3", True, 0),
        (f"'{URL}&#39; &#x22;{URL}&#x22;", True, 2),
        (f"<p>{URL.replace('&', '&#38;')}&nbsp;</p> {URL}", True, 2),
        (URL.replace("&", "&amp;"), False, 0),
        (URL.replace("https", "http"), False, 0),
        ("", True, 0),
    ],
)
def test_only_the_very_same_address_is_a_link_to_the_tool(text: str, is_html: bool, count: int) -> None:
    found = find(Pieces(text.encode()), is_html=is_html, tool_link=URL.encode())
    assert len(found) == count
    ours = [one.hole.fill("https://ours.example/u/t?a&b", "") for one in found if one.hole]
    assert set(ours) <= {b"https://ours.example/u/t?a&amp;b" if is_html else b"https://ours.example/u/t?a&b"}


@pytest.mark.parametrize(
    ("address", "listed", "may"),
    [
        ("93.184.215.14", ["tool.example.net"], True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", ["tool.example.net"], True),
        ("10.0.0.5", ["tool.example.net"], False),
        ("10.0.0.5", ["tool.example.net", "10.0.0.5"], True),
        ("127.0.0.1", ["tool.example.net"], False),
        ("127.0.0.1", ["localhost"], True),
        ("::1", ["localhost"], True),
        ("127.0.0.1", ["127.0.0.1"], True),
        ("::ffff:127.0.0.1", ["tool.example.net"], False),
        ("::ffff:10.0.0.5", ["10.0.0.5"], True),
        ("169.254.169.254", ["tool.example.net"], False),
        ("fe80::1", ["tool.example.net"], False),
        ("fd00::1", ["tool.example.net"], False),
        ("0.0.0.0", ["tool.example.net"], False),
        ("224.0.0.1", ["tool.example.net"], False),
        ("100.64.0.1", ["tool.example.net"], False),
        ("64:ff9b::a00:5", ["tool.example.net"], False),
        ("2002:a00:5::1", ["tool.example.net"], False),
    ],
)
def test_no_address_inside_a_network_is_reached_unless_it_is_listed(address: str, listed: list[str], may: bool) -> None:
    assert may_reach(ipaddress.ip_address(address), listed) is may
