"""What records say of a key, a policy and SPF: the pure part of asking DNS."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.findings import State
from gateway.published import (
    Policy,
    Publication,
    applied,
    key_standing,
    organisation,
    policy_findings,
    policy_of,
    spf_finding,
    tags_of,
    walk,
)
from gateway.sign import SigningKey, dns_record, generate_rsa_key

KEY = SigningKey.load("example.com", "s1", generate_rsa_key())
OTHER = SigningKey.load("example.com", "s1", generate_rsa_key())
OURS, THEIRS = dns_record(KEY)[1], dns_record(OTHER)[1]

# keys


def spaced(record: str) -> str:
    text = record.partition("p=")[2]
    return f" v = DKIM1 ; k=rsa; h = sha256 : sha1; s=email:tlsrpt; p= {text[:60]} \t{text[60:]} ; n=a note;"


def in_pkcs1(record: str) -> str:
    """Write the public key without its algorithm's name, as RFC 6376 §3.6.1 shows it."""
    der = KEY.private.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return f"v=DKIM1; p={base64.b64encode(der).decode()}"


@pytest.mark.parametrize("write", [str, spaced, in_pkcs1, lambda record: record.replace("v=DKIM1; k=rsa; ", "")])
def test_our_key_is_recognised_however_it_is_written(write: object) -> None:
    assert callable(write)
    assert key_standing(KEY, (write(OURS),)).publication is Publication.RIGHT


WRONG = {
    "another key": (THEIRS, "publishes another key than ours"),
    "no key any more": ("v=DKIM1; k=rsa; p=", "says that the key is revoked"),
    "of another kind": ("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "is for ed25519 keys"),
    "for another digest": (f"{OURS}; h=sha1", "does not allow sha256"),
    "for no mail": (f"{OURS}; s=tlsrpt", "is not for mail"),
    "no base64": ("v=DKIM1; p=!!!", "publishes another key than ours"),
    "no key": ("v=DKIM1; p=AAAA", "publishes another key than ours"),
    "another version": ("v=DKIM2; p=AAAA", "is no DKIM1 record"),
}


@pytest.mark.req("DKIM-18")
@pytest.mark.parametrize(("record", "told"), WRONG.values(), ids=WRONG)
def test_a_record_by_which_nothing_would_verify_contradicts_us(record: str, told: str) -> None:
    standing = key_standing(KEY, (record,))
    assert standing.publication is Publication.WRONG
    assert told in standing.told


@pytest.mark.req("DKIM-18")
def test_silence_and_what_is_not_about_keys_contradict_nothing() -> None:
    assert key_standing(KEY, None).publication is Publication.UNKNOWN
    for texts in ((), ("v=spf1 -all",), ("",)):
        assert key_standing(KEY, texts).publication is Publication.MISSING


@pytest.mark.parametrize("texts", [(f"{OURS}; t=y",), (THEIRS, OURS), (OURS, OURS)])
def test_what_leaves_room_for_doubt_is_called_doubtful(texts: tuple[str, ...]) -> None:
    assert key_standing(KEY, texts).publication is Publication.DOUBTFUL


def test_keys_of_ed25519_are_compared_too() -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = SigningKey.load("example.com", "e1", pem)
    assert key_standing(key, (dns_record(key)[1],)).publication is Publication.RIGHT
    assert key_standing(key, (OURS,)).publication is Publication.WRONG


def test_of_a_tag_that_stands_twice_the_first_counts() -> None:
    assert tags_of("a=1; b ; a=2; c = d=e ") == {"a": "1", "c": "d=e"}


# policies


def policy(domain: str, tags: str = "p=none") -> Policy:
    found = policy_of(domain, [f"v=DMARC1; {tags}"])
    assert found
    return found


@pytest.mark.parametrize("texts", [["p=none; v=DMARC1"], ["v=DMARC2; p=none"], ["v=dmarc1; p=none"], []])
def test_what_does_not_begin_with_the_version_is_no_policy(texts: list[str]) -> None:
    assert policy_of("example.com", texts) is None


def test_of_several_policies_none_is_heeded() -> None:
    assert policy_of("example.com", ["v=DMARC1; p=none", "v=DMARC1 ; p=reject"]) is None
    assert policy_of("example.com", ["v=spf1 -all", "v=DMARC1;p=none"]) is not None


@pytest.mark.req("DMARC-02")
def test_the_walk_asks_eight_times_at_most() -> None:
    """RFC 9989's own example of a long name: after the first question, seven labels and fewer."""
    assert list(walk("news.example.com")) == ["news.example.com", "example.com", "com"]
    long = list(walk("a.b.c.d.e.f.g.h.i.j.mail.example.com"))
    assert long[1] == "g.h.i.j.mail.example.com"
    assert [name.count(".") + 1 for name in long] == [13, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.req("DMARC-01", "DMARC-02")
def test_the_organisation_is_what_the_policies_on_the_way_say() -> None:
    news = "news.example.co.uk"
    assert organisation(news, []) == news
    assert organisation(news, [policy("example.co.uk")]) == "example.co.uk"
    assert organisation(news, [policy(news), policy("example.co.uk")]) == "example.co.uk"
    assert organisation(news, [policy(news, "psd=n")]) == news
    assert organisation(news, [policy(news), policy("co.uk", "psd=y")]) == "example.co.uk"
    assert organisation("co.uk", [policy("co.uk", "psd=y")]) == "co.uk"


def test_the_policy_is_the_domains_own_or_the_organisations_or_the_suffixs() -> None:
    own, parent, suffix = policy("a.example.co.uk"), policy("example.co.uk"), policy("co.uk", "psd=y")
    assert applied("a.example.co.uk", [own, parent, suffix]) is own
    assert applied("a.example.co.uk", [parent, suffix]) is parent
    assert applied("a.example.co.uk", [suffix]) is suffix
    assert applied("a.example.co.uk", []) is None


SAID = {
    "p=reject; rua=mailto:a@example.com": {(State.OK, "says p=reject")},
    "p=Quarantine; sp=x; rua=mailto:a@b.example!10m, https://c.example": {(State.OK, "says p=quarantine")},
    "p=none; np=reject; psd=u; t=y; fo=1:d; rua=mailto:a@example.com; x-own=1": {(State.OK, "in test mode (t=y)")},
    "rua=mailto:a@example.com": {(State.WARNING, "no p=: it counts as none")},
    "p=block; rua=mailto:a@example.com": {(State.WARNING, "p=block, which is no request")},
    "p=none": {(State.OK, "says p=none"), (State.WARNING, "has no rua=")},
    "p=none; pct=50; rf=afrf; ri=3600; rua=mailto:a@example.com": {
        (State.OK, "says p=none"),
        (State.WARNING, "has pct=, rf=, ri=, which RFC 9989 has removed"),
    },
}


@pytest.mark.req("DMARC-02")
@pytest.mark.parametrize(("tags", "expected"), SAID.items(), ids=SAID)
def test_what_a_policy_asks_for_is_said(tags: str, expected: set[tuple[State, str]]) -> None:
    found = list(policy_findings("example.com", policy("example.com", tags)))
    assert len(found) == len(expected)
    assert all(any(one.state is state and told in one.told for one in found) for state, told in expected), found


def test_below_an_organisation_its_request_for_subdomains_counts() -> None:
    (found,) = policy_findings("news.example.com", policy("example.com", "p=none; sp=reject; rua=mailto:a@b.example"))
    assert found.told == "_dmarc.example.com says sp=reject"


# SPF

SPF = {
    "none": (["a-verification=1"], State.WARNING, "has no SPF record"),
    "two": (["v=spf1 -all", "v=SPF1 ~all"], State.PROBLEM, "has 2 SPF records"),
    "open": (["v=spf1 include:_spf.example.net +all"], State.WARNING, "lets anybody send"),
    "no end": (["v=spf1 ip4:192.0.2.25"], State.WARNING, "lets anybody send"),
    "eleven": (["v=spf1 a mx/24 ptr:b.example " + "include:b.example " * 8 + "-all"], State.PROBLEM, "11 look-ups"),
    "ten": (["v=spf1 a mx " + "include:b.example " * 8 + "-all"], State.OK, "-all"),
    "elsewhere": (["v=spf1 redirect=_spf.example.net"], State.OK, "redirect="),
    "good": (["a-verification=1", "v=spf1 ip4:192.0.2.25 ~all"], State.OK, "~all"),
}


@pytest.mark.req("DMARC-02")
@pytest.mark.parametrize(("texts", "state", "told"), SPF.values(), ids=SPF)
def test_how_an_spf_record_looks_is_said(texts: list[str], state: State, told: str) -> None:
    found = spf_finding("example.com", tuple(texts))
    assert (found.state, told in found.told) == (state, True), found.told
    assert spf_finding("example.com", None).state is State.WARNING
