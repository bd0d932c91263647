"""Addresses: the strict grammar, the keys for matching, and the text that is never rewritten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import Address, domain_key
from gateway.errors import Malformed

KELVIN = "\u212a"


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("bob@example.com", "bob", "example.com"),
        ("b.o.b+tag@mail.example.com", "b.o.b+tag", "mail.example.com"),
        ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com"),
        ('"john doe"@example.com', '"john doe"', "example.com"),
        (r'"a\"b\\c"@example.com', r'"a\"b\\c"', "example.com"),
        ('"a@b"@example.com', '"a@b"', "example.com"),
        ("bob@example.com.", "bob", "example.com."),
        ("bob@[192.0.2.1]", "bob", "[192.0.2.1]"),
        ("bob@[IPv6:2001:db8::1]", "bob", "[IPv6:2001:db8::1]"),
        ("jürgen@straße.de", "jürgen", "straße.de"),
        ("x" * 64 + "@example.com", "x" * 64, "example.com"),
        ("ü" * 32 + "@example.com", "ü" * 32, "example.com"),
    ],
)
def test_what_the_standard_allows_is_parsed_and_kept_as_it_is(text: str, local: str, domain: str) -> None:
    address = Address.parse(text)
    assert (address.text, address.local, address.domain) == (text, local, domain)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "bob", "bob@", "@example.com", "bob@localhost", "bob@.", "bob@example..com", "bob@.example.com"),
        *(".bob@example.com", "bob.@example.com", "b..b@example.com", "bob @example.com", "bob@exa mple.com"),
        *("<bob@example.com>", "Bob <bob@example.com>", "bob@example.com>", "@a.example,@b.example:bob@example.com"),
        *("bob(comment)@example.com", "bob@(comment)example.com", '"bob@example.com', 'b"o"b@example.com'),
        *('"a"b"@example.com', '"bob\\"@example.com', '"tab\there"@example.com', "a@b@example.com"),
        *(
            "bob@example.com\r\nRCPT TO:<eve@example.com>",
            "bob\n@example.com",
            "bob\0@example.com",
            "bob@example.com\n",
        ),
        *("bob@-example.com", "bob@example-.com", "bob@exa_mple.com", "bob@" + "x" * 64 + ".com", "bob@example.com.."),
        *("x" * 65 + "@example.com", "ü" * 33 + "@example.com", "bob@" + "x." * 130 + "com"),
        *("bob@[192.0.2]", "bob@[example.com]", "bob@192.0.2.1]", "bob@[IPv6:]", "bob@\u2488com.example"),
        *("bo\u2028b@example.com", "bo\x85b@example.com", "bo\u202eb@example.com", "bo\udc80b@example.com"),
    ],
)
def test_what_it_does_not_allow_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        Address.parse(text)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.req("SUP-01")
def test_one_mailbox_spelled_three_ways_has_one_key() -> None:
    keys = {Address.parse(text).key for text in ('"bob"@EX.com.', "Bob@ex.com", "bob@ex.com", r'"\b\o\b"@ex.com')}
    assert keys == {"bob@ex.com"}


@pytest.mark.req("SUP-03")
@pytest.mark.parametrize("other", ["alice+x@example.com", "a.lice@example.com", "alice@mail.example.com"])
def test_tags_and_dots_make_another_address(other: str) -> None:
    alice = Address.parse("alice@example.com")
    assert Address.parse(other).key != alice.key
    assert Address.parse(other).broad_key != alice.broad_key


@pytest.mark.req("SUP-02")
@pytest.mark.parametrize(
    ("look_alike", "plain"), [(f"{KELVIN}elvin@ex.com", "kelvin@ex.com"), ("JÜRGEN@ex.com", "jürgen@ex.com")]
)
def test_unicode_case_is_another_address_for_consent_and_the_same_for_suppression(look_alike: str, plain: str) -> None:
    one, other = Address.parse(look_alike), Address.parse(plain)
    assert one.key != other.key
    assert one.broad_key == other.broad_key


@pytest.mark.req("I18N-04", "SUP-02")
@pytest.mark.parametrize(("twin", "ascii"), [(KELVIN, "K"), ("\u037e", ";"), ("\u1fef", "`")])
def test_no_character_becomes_an_ascii_one_in_a_key(twin: str, ascii: str) -> None:
    assert Address.parse(f"a{twin}b@ex.com").key != Address.parse(f'"a{ascii}b"@ex.com').key
    assert not Address.parse(f"a{twin}b@ex.com").key.isascii()


@pytest.mark.req("I18N-04")
def test_composed_and_decomposed_letters_are_one_key_and_compatibility_letters_are_not() -> None:
    assert Address.parse("e\u0301@ex.com").key == Address.parse("\u00e9@ex.com").key
    assert Address.parse("E\u0301@ex.com").key == Address.parse("\u00c9@ex.com").key
    assert Address.parse("ﬁ@ex.com").key != Address.parse("fi@ex.com").key
    assert Address.parse("e\u0301@ex.com").text == "e\u0301@ex.com"


@pytest.mark.req("I18N-05")
def test_domains_are_compared_as_idna_2008_a_labels() -> None:
    assert domain_key("Straße.DE") == "xn--strae-oqa.de"
    assert domain_key("straße.de") != domain_key("strasse.de")
    assert Address.parse("a@STRAẞE.de").key == Address.parse("a@xn--strae-oqa.DE").key
    assert Address.parse("a@bücher.example.").key == "a@xn--bcher-kva.example"


def test_only_an_address_beyond_ascii_needs_smtputf8() -> None:
    assert Address.parse("bob@bücher.example").needs_smtputf8
    assert Address.parse("jürgen@example.com").needs_smtputf8
    assert not Address.parse("bob@xn--bcher-kva.example").needs_smtputf8


_CHARACTERS = st.characters(codec="utf-8")
_TEXTS = st.text(_CHARACTERS, max_size=40) | st.builds(
    lambda local, domain: f"{local}@{domain}.example",
    st.text(_CHARACTERS, max_size=20),
    st.text(_CHARACTERS, max_size=9),
)


@given(_TEXTS)
def test_whatever_is_given_is_parsed_to_itself_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except Malformed:
        return
    assert address.text == text == f"{address.local}@{address.domain}"
    assert not set(address.local.strip('"')) & set("\r\n\0\t\x7f\x85\u2028\u202e")
    assert text.encode("utf-8")


@given(st.text("abcXYZ.+-\u00e9\u0301\u212a", min_size=1, max_size=12), st.sampled_from(["ex.com", "BÜCHER.example"]))
def test_a_key_is_the_key_of_its_own_address(local: str, domain: str) -> None:
    try:
        address = Address.parse(f"{local}@{domain}")
    except Malformed:
        return
    assert Address.parse(address.key).key == address.key
    assert Address.parse(address.key).broad_key == address.broad_key
