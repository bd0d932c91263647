"""What `gateway.preflight` reads off a copy: signatures by every key and none, the way out, links in odd markup."""

from __future__ import annotations

import pytest

from gateway.headers import split
from gateway.model import KeyRing
from gateway.preflight import Count, Findings, links_of, signature_checks, unsubscribe_check
from gateway.preflight.letter import LARGEST_COPY, letter
from gateway.probe import Probe
from gateway.prose import Source
from gateway.sign import Signer, SigningKey, generate_rsa_key
from gateway.tokens import FIRST_TOPIC, NOBODY, Unsubscribe, UnsubscribeTokens
from tests.copies_under_test import LINK, NOW, dns, essential_copy, message, promotional_copy, rsa_key, signed
from tests.gateway_under_test import free_port

TOKENS = UnsubscribeTokens(KeyRing({1: bytes(32)}))
PLAIN = "text-only"


@pytest.fixture(scope="module")
def ed25519_key() -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey.load("example.com", "e1", pem)


def verdicts(copy: bytes, records: dict[str, str]) -> list[bool | None]:
    return [one.is_well for one in signature_checks(copy, split(copy), records)]


def test_a_signature_of_each_algorithm_verifies_by_its_own_key(ed25519_key: SigningKey) -> None:
    copy = signed(essential_copy(message(PLAIN)), Signer([rsa_key(), ed25519_key]))
    assert verdicts(copy, dns(rsa_key(), ed25519_key)) == [True, True]


def test_another_key_another_body_or_another_header_is_seen() -> None:
    copy = signed(essential_copy(message(PLAIN)))
    other = SigningKey.load("example.com", "s1", generate_rsa_key())
    assert verdicts(copy, dns(other)) == [False]
    assert verdicts(copy + b"more\r\n", dns()) == [False]
    assert verdicts(copy.replace(b"\r\nSubject: ", b"\r\nSubject: x", 1), dns()) == [False]
    assert verdicts(copy, {"s1._domainkey.example.com": "v=DKIM1; k=rsa; p=garbage"}) == [False]


def test_a_copy_without_a_signature_or_with_somebody_elses_is_no_success() -> None:
    assert verdicts(message(PLAIN), dns()) == [False]
    assert verdicts(signed(essential_copy(message(PLAIN))), {}) == [None]


def test_a_way_out_that_says_something_else_or_is_not_signed_is_seen() -> None:
    meant = Unsubscribe(FIRST_TOPIC, NOBODY)
    copy = signed(promotional_copy(message(PLAIN)))
    strange = unsubscribe_check(split(copy), "https://mail.example.com", TOKENS, meant)
    assert (strange.is_well, LINK.url.startswith("https://mail.example.com/u/")) == (False, True)
    token = TOKENS.for_url(meant)
    right = copy.replace(LINK.url.rpartition("/")[2].encode(), token.encode()).replace(
        LINK.mailto.partition("@")[0].encode(), TOKENS.for_local_part(meant).encode()
    )
    assert unsubscribe_check(split(right), "https://mail.example.com", TOKENS, meant).is_well
    wrong = unsubscribe_check(split(right), "https://mail.example.com", TOKENS, Unsubscribe(FIRST_TOPIC, bytes(16)))
    assert not wrong.is_well
    unsigned = right[right.index(b"Received:") :]
    assert not unsubscribe_check(split(unsigned), "https://mail.example.com", TOKENS, meant).is_well


@pytest.mark.parametrize(
    ("markup", "found"),
    [
        ('<a href="https://a.example/?x=1&amp;y=2">', ["https://a.example/?x=1&y=2"]),
        ("<a href='http://b.example'><A HREF = http://c.example/>", ["http://b.example", "http://c.example/"]),
        (
            '<table background="//d.example/x.png"><form action="https://e.example/">',
            ["//d.example/x.png", "https://e.example/"],
        ),
        ('<a href="mailto:x@example.com"><img src="cid:1"><a href="https://[">', []),
    ],
)
def test_links_are_read_in_any_spelling(markup: str, found: list[str]) -> None:
    assert [one.url for one in links_of([Source(True, markup)], lambda host: False)] == found


def test_a_link_in_a_sentence_ends_before_its_full_stop() -> None:
    assert [one.url for one in links_of([Source(False, "See http://a.example/x.")], lambda host: False)] == [
        "http://a.example/x"
    ]


def test_a_letter_says_when_not_everybody_was_counted_and_brings_no_huge_copy() -> None:
    found = Findings("x", "news", count=Count(7, {"no-consent": 3}, is_whole=False), copy=b"x" * LARGEST_COPY)
    written = letter("relay.example.com", "", "desk@example.com", found, "01J", NOW)
    assert b"7 of the first 10 people on record" in written
    assert b"copy.eml" not in written and len(written) < 10_000


def test_nothing_of_a_draft_breaks_out_of_its_line_in_a_letter() -> None:
    found = Findings("a\r\nBcc: x@example.org\x85<script>", "news", refusal="550 no\r\n.\r\n")
    written = letter("relay.example.com", "", "desk@example.com", found, "01J", NOW)
    assert b"\r\nBcc:" not in written and b"\r\n.\r\n" not in written
    assert b"&lt;script&gt;" in written and b"<script" not in written.partition(b"text/html")[2]


async def test_a_site_that_is_not_there_is_told_as_not_reached() -> None:
    status, told = await Probe("127.0.0.1", free_port(), is_tls=False)("https://mail.example.com/u/x")
    assert (status, told.partition(":")[0]) == (0, "the site cannot be reached from here")
