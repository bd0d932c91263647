"""The MIME tree: what is shown is found, what is sealed is not entered, what is broken is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.headers import HEADER_LIMIT, split
from gateway.mime import DEPTH_LIMIT, OPAQUE, PARTS_LIMIT, Part, is_inline_pgp, leaves, parse, shown
from tests.copies_under_test import NAMES, message

PLAIN, HTML = "text/plain", "text/html"


def tree(content: bytes) -> Part:
    return parse(content, split(content))


def types_shown(content: bytes) -> list[str]:
    return [part.content_type for part in shown(tree(content))]


def multipart(subtype: str, *parts: bytes, boundary: bytes = b"b") -> bytes:
    opened = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    return b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n%b--%b--\r\n' % (
        subtype.encode(),
        boundary,
        opened,
        boundary,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text-only", [PLAIN]),
        ("html-only", [HTML]),
        ("alternative", [PLAIN, HTML]),
        ("related", [HTML]),
        ("related-start", [HTML]),
        ("mixed-attachment", [PLAIN, HTML]),
        ("nested", [PLAIN, HTML, PLAIN]),
        ("rfc822-attachment", [PLAIN]),
        ("newsletter-campaign", [PLAIN, HTML]),
        ("smime-signed", []),
        ("smime-enveloped", []),
        ("pgp-encrypted", []),
    ],
)
def test_the_parts_that_a_recipient_sees_are_found(name: str, expected: list[str]) -> None:
    assert types_shown(message(name)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_part_lies_within_its_message(name: str) -> None:
    content = message(name)
    for part in leaves(tree(content)):
        assert 0 <= part.head <= part.start <= part.end <= len(content)


def test_a_body_ends_before_the_line_break_of_its_delimiter() -> None:
    content = multipart("mixed", b"\r\none\r\n", b"Content-Type: text/html\r\n\r\ntwo")
    assert [content[part.start : part.end] for part in shown(tree(content))] == [b"one\r\n", b"two"]


def test_a_longer_boundary_is_not_taken_for_a_shorter_one() -> None:
    inner = multipart("alternative", b"\r\none", b"Content-Type: text/html\r\n\r\ntwo", boundary=b"bb")
    content = multipart("mixed", inner, b"\r\nthree")
    assert types_shown(content) == [PLAIN, HTML, PLAIN]


def test_a_delimiter_counts_only_at_the_start_of_a_line() -> None:
    content = multipart("mixed", b"\r\nnot --b\r\n --b\r\n--bare\r\nbut this")
    assert [content[part.start : part.end] for part in shown(tree(content))] == [
        b"not --b\r\n --b\r\n--bare\r\nbut this"
    ]


def test_white_space_after_a_delimiter_is_padding() -> None:
    content = multipart("mixed", b"\r\none").replace(b"--b\r\n", b"--b \t\r\n", 1)
    assert types_shown(content) == [PLAIN]


def test_a_missing_last_delimiter_is_forgiven() -> None:
    content = multipart("mixed", b"\r\none").removesuffix(b"--b--\r\n")
    assert [content[part.start : part.end] for part in shown(tree(content))] == [b"one\r\n"]


def test_what_follows_the_last_delimiter_is_no_part() -> None:
    assert types_shown(multipart("mixed", b"\r\none") + b"--b\r\n\r\nepilogue\r\n") == [PLAIN]


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: text",
        b"Content-Type: /plain",
        b"Content-Type: text/html\r\nContent-Type: text/plain",
        b"Content-Transfer-Encoding: x-uuencode",
        b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit",
        b"Content-Type: multipart/mixed",
        b"Content-Type: multipart/mixed; boundary=nowhere",
        b"Content-Type: application/pdf",
        b"Content-Disposition: ATTACHMENT; filename=x.txt",
    ],
)
def test_what_is_broken_or_no_text_is_not_shown(header: bytes) -> None:
    assert types_shown(header + b"\r\n\r\nbody\r\n") == []


@pytest.mark.parametrize(
    "header",
    [
        b"X: no content type",
        b"Content-Type: TEXT/Plain; Charset=UTF-8 (the usual)",
        b"Content-Type: text/plain charset=utf-8",
        b"Content-Transfer-Encoding: 8BIT (as usual)",
        b"Content-Disposition: inline; filename=x.txt",
    ],
)
def test_sloppy_but_clear_headers_are_understood(header: bytes) -> None:
    assert types_shown(header + b"\r\n\r\nbody\r\n") == [PLAIN]


def test_parameters_are_read_quoted_and_unquoted() -> None:
    part = tree(b'Content-Type: text/plain; CHARSET="ISO-8859-1" ; format=Flowed; name="a \\"b\\"; c=d"\r\n\r\n')
    assert part.parameters == {"charset": "iso-8859-1", "format": "flowed", "name": 'a "b"; c=d'}


def test_a_later_part_with_a_name_is_an_attachment_and_the_first_is_not() -> None:
    named = b'Content-Type: text/plain; name="x.txt"\r\n\r\ntext'
    assert types_shown(multipart("mixed", named, named, b"\r\nfooter")) == [PLAIN, PLAIN]


def test_a_digest_holds_messages_and_shows_none() -> None:
    assert types_shown(multipart("digest", b"\r\nSubject: one\r\n\r\ntext")) == []


def test_the_leaves_include_those_of_an_attached_message_and_not_those_of_a_sealed_part() -> None:
    kinds = [part.content_type for part in leaves(tree(message("rfc822-attachment")))]
    assert kinds == [PLAIN, PLAIN, HTML]
    assert [part.content_type for part in leaves(tree(message("smime-signed")))] == ["multipart/signed"]


def test_too_deep_is_opaque_and_does_not_fail() -> None:
    content = b"\r\ntext"
    for depth in range(DEPTH_LIMIT + 20):
        content = multipart("mixed", content, boundary=b"level%d" % depth)
    assert types_shown(content) == []


def test_too_many_parts_are_not_entered() -> None:
    assert types_shown(multipart("mixed", *[b"\r\nx"] * PARTS_LIMIT)) == [PLAIN] * PARTS_LIMIT
    assert types_shown(multipart("mixed", *[b"\r\nx"] * (PARTS_LIMIT + 1))) == []


def test_too_many_lines_that_look_like_delimiters_are_not_understood() -> None:
    assert types_shown(multipart("mixed", b"\r\n" + b"--bb\r\n" * 1900)) == [PLAIN]
    assert types_shown(multipart("mixed", b"\r\n" + b"--bb\r\n" * 2100)) == []


def test_a_part_whose_header_is_longer_than_a_messages_may_be_is_opaque() -> None:
    content = multipart("mixed", b"\r\ntext", b"X: y\r\n" * HEADER_LIMIT + b"\r\nmore")
    assert [part.content_type for part in leaves(tree(content))] == [PLAIN, OPAQUE]


def test_an_unknown_encoding_makes_a_part_opaque() -> None:
    assert tree(b"Content-Transfer-Encoding: x-yenc\r\n\r\nbody").content_type == OPAQUE


def test_openpgp_armour_is_seen_at_the_start_of_a_line_only() -> None:
    assert is_inline_pgp(b"Hello\r\n-----BEGIN PGP MESSAGE-----\r\n")
    assert is_inline_pgp(b"-----BEGIN PGP SIGNED MESSAGE-----\r\n")
    assert not is_inline_pgp(b"> -----BEGIN PGP MESSAGE-----\r\n")


FRAGMENTS = st.sampled_from(
    [
        *(b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: message/rfc822", b"Content-Type: text/html"),
        *(b"Content-Transfer-Encoding: base64", b"Content-Type: ;;=", b"--b", b"--b--", b"--b \t", b"", b"text"),
        *(b"\xff\x00", b" folded"),
    ]
)


@settings(max_examples=300)
@given(st.lists(FRAGMENTS, max_size=25).map(b"\r\n".join))
def test_anything_has_a_tree_whose_parts_lie_within_it(content: bytes) -> None:
    root = tree(content)
    for part in [*leaves(root), *shown(root)]:
        assert 0 <= part.head <= part.start <= part.end <= len(content)
