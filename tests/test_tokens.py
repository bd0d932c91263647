"""Unsubscribe tokens: one spelling each, in two places, that nobody else can make and that verify for ever."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidToken
from gateway.model import KeyRing, Scope
from gateway.tokens import ALL_MARKETING, FIRST_TOPIC, MAIL_PREFIX, PARTNER, Unsubscribe, UnsubscribeTokens

OLD, NEW = b"o" * 32, b"n" * 32
TOKENS = UnsubscribeTokens(KeyRing({1: OLD, 2: NEW}))
WHAT = Unsubscribe(FIRST_TOPIC, bytes(range(16)))
URL, LOCAL = TOKENS.for_url(WHAT), TOKENS.for_local_part(WHAT)
URL_LETTERS = string.ascii_letters + string.digits + "-_."
MAIL_LETTERS = string.ascii_lowercase + string.digits

whats = st.builds(Unsubscribe, st.integers(0, 65535), st.binary(min_size=16, max_size=16))


def is_refused_in_url(token: str) -> bool:
    try:
        TOKENS.read_url(token)
    except InvalidToken:
        return True
    return False


def is_refused_in_mail(token: str) -> bool:
    try:
        TOKENS.read_local_part(token)
    except InvalidToken:
        return True
    return False


def test_the_formats_are_for_ever() -> None:
    """Literal values: whoever changes one of them breaks every link that has been sent."""
    assert URL == "AgAQAAECAwQFBgcICQoLDA0ODw.gEirNFAylD38Jr795S75Lg"
    assert LOCAL == "u-aiabaaabaibqibiga4eascqlbqgq4d3sutrx4wbjq6f2tby"


def test_both_spellings_have_49_characters_that_their_place_allows() -> None:
    assert (len(URL), len(LOCAL)) == (49, 49)
    assert set(URL) <= set(URL_LETTERS)
    assert set(LOCAL) <= set(MAIL_LETTERS + "-")


@given(whats)
def test_what_is_signed_is_read(what: Unsubscribe) -> None:
    assert TOKENS.read_url(TOKENS.for_url(what)) == what
    assert TOKENS.read_local_part(TOKENS.for_local_part(what)) == what


def test_a_number_says_the_scope() -> None:
    assert Unsubscribe(ALL_MARKETING, bytes(16)).scope is Scope.ALL_MARKETING
    assert Unsubscribe(PARTNER, bytes(16)).scope is Scope.PARTNER
    assert Unsubscribe(FIRST_TOPIC, bytes(16)).scope is Scope.TOPIC


@pytest.mark.req("UNS-10")
def test_every_change_of_one_character_is_refused() -> None:
    for at, old in enumerate(URL):
        for new in set(URL_LETTERS + "=+/ ") - {old}:
            assert is_refused_in_url(URL[:at] + new + URL[at + 1 :]), (at, new)
    for at, old in enumerate(LOCAL):
        for new in set(MAIL_LETTERS + "-=._") - {old}:
            assert is_refused_in_mail(LOCAL[:at] + new + LOCAL[at + 1 :]), (at, new)


@pytest.mark.req("UNS-10")
def test_every_flip_of_one_bit_is_refused() -> None:
    for token, is_refused in ((URL, is_refused_in_url), (LOCAL.removeprefix(MAIL_PREFIX), is_refused_in_mail)):
        octets = token.encode("ascii")
        for bit in range(len(octets) * 8):
            flipped = bytearray(octets)
            flipped[bit // 8] ^= 1 << bit % 8
            prefix = "" if token is URL else MAIL_PREFIX
            changed = prefix + flipped.decode("latin-1")
            assert is_refused(changed) or changed.lower() == LOCAL, bit


@pytest.mark.req("UNS-10")
def test_every_flip_of_one_bit_of_what_was_signed_is_refused() -> None:
    payload, _, mac = URL.partition(".")
    decoded = base64.urlsafe_b64decode(payload + "==") + base64.urlsafe_b64decode(mac + "==")
    for bit in range(len(decoded) * 8):
        flipped = bytearray(decoded)
        flipped[bit // 8] ^= 1 << bit % 8
        spelled = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (flipped[:19], flipped[19:])]
        assert is_refused_in_url(".".join(spelled)), bit


@pytest.mark.parametrize(
    "other",
    [
        *(URL + "=", URL + "==", f" {URL}", URL + "\n", URL.swapcase(), URL.replace(".", "%2E"), URL.replace(".", ":")),
        *(URL[:26] + "==" + URL[26:], URL[:-1], URL[:26], "", ".", URL.replace("-", "+").replace("_", "/") + " "),
        *(URL + "A" * 100_000, "é" * 49, URL[:25] + chr(ord(URL[25]) + 1) + URL[26:]),
    ],
)
def test_another_spelling_of_a_link_is_no_link(other: str) -> None:
    assert is_refused_in_url(other)


def test_letters_that_carry_no_bits_have_one_spelling_too() -> None:
    """Base64's last letter has bits to spare: a decoder that ignores them would know several spellings of one MAC."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    for at in (25, 48):
        others = [letter for letter in alphabet if letter != URL[at]]
        assert all(is_refused_in_url(URL[:at] + letter + URL[at + 1 :]) for letter in others)


def test_a_mail_address_may_change_its_case_and_nothing_else() -> None:
    assert TOKENS.read_local_part(LOCAL.upper()) == WHAT
    assert TOKENS.read_local_part(LOCAL.title()) == WHAT
    for other in (LOCAL + "=", LOCAL[:-1], f"{LOCAL}a", f'"{LOCAL}"', LOCAL.replace("u-", "v-"), LOCAL[2:], ""):
        assert is_refused_in_mail(other)
    assert is_refused_in_mail(LOCAL.replace("k", "\u212a") if "k" in LOCAL else "\u212a" * 49)


@pytest.mark.req("UNS-10")
def test_a_token_for_one_place_is_none_in_the_other() -> None:
    url_mac = base64.urlsafe_b64decode(URL[27:] + "==")
    payload = base64.urlsafe_b64decode(URL[:26] + "==")
    crossed = MAIL_PREFIX + base64.b32encode(payload + url_mac[:10]).decode("ascii").rstrip("=").lower()
    assert len(crossed) == 49
    assert is_refused_in_mail(crossed)
    mail_mac = base64.b32decode(LOCAL[2:].upper() + "=")[19:]
    assert is_refused_in_url(URL[:27] + base64.urlsafe_b64encode(mail_mac + bytes(6)).rstrip(b"=").decode())
    assert is_refused_in_mail(URL)
    assert is_refused_in_url(LOCAL)


@pytest.mark.req("UNS-26")
def test_a_link_verifies_after_its_key_has_been_replaced_three_times() -> None:
    first = UnsubscribeTokens(KeyRing({1: OLD}))
    later = UnsubscribeTokens(KeyRing({1: OLD, 2: NEW, 3: b"3" * 32, 4: b"4" * 32}))
    assert later.read_url(first.for_url(WHAT)) == WHAT
    assert later.read_local_part(first.for_local_part(WHAT)) == WHAT
    assert later.for_url(WHAT) != first.for_url(WHAT)


def test_a_key_that_we_do_not_have_verifies_nothing() -> None:
    stranger = UnsubscribeTokens(KeyRing({9: OLD}))
    impostor = UnsubscribeTokens(KeyRing({1: b"x" * 32, 2: b"y" * 32}))
    for other in (stranger, impostor):
        assert is_refused_in_url(other.for_url(WHAT))
        assert is_refused_in_mail(other.for_local_part(WHAT))


def test_the_newest_key_signs() -> None:
    assert UnsubscribeTokens(KeyRing({2: NEW, 1: OLD})).for_url(WHAT) == URL
    assert UnsubscribeTokens(KeyRing({2: NEW})).read_url(URL) == WHAT


@given(st.text(max_size=80) | st.text(URL_LETTERS, min_size=49, max_size=49))
def test_what_was_not_signed_is_refused_without_another_exception(text: str) -> None:
    assert is_refused_in_url(text)
    assert is_refused_in_mail(text)


@given(whats, whats)
def test_nobody_can_put_another_person_or_topic_under_a_mac(one: Unsubscribe, other: Unsubscribe) -> None:
    first, second = TOKENS.for_url(one), TOKENS.for_url(other)
    if one != other:
        assert is_refused_in_url(first[:27] + second[27:])
