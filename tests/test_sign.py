"""DKIM signatures, judged by two verifiers that are not ours, and broken in every way that must break them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import sign
from gateway.headers import Field, split
from gateway.stamp import Stamped
from tests.copies_under_test import (
    NAMES,
    NOW,
    SEALED,
    STAMPABLE,
    dkimpy_accepts,
    dns,
    essential_copy,
    mailauth_judges,
    message,
    promotional_copy,
    rsa_key,
    signed,
    wire,
)


def pem_of(private: rsa.RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def rsa_pem(bits: int) -> bytes:
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def tags_of(content: bytes) -> dict[str, str]:
    field = split(content).first("dkim-signature")
    assert field
    pairs = (tag.partition("=") for tag in re.sub(r"\s", "", field.value.decode()).split(";"))
    return {name: value for name, _, value in pairs}


def copy_of(*lines: bytes, body: bytes = b"Hi\r\n") -> Stamped:
    return Stamped(split(b"".join(line + b"\r\n" for line in lines) + b"\r\n").fields, (body,))


SIMPLE = copy_of(b"From: News <news@example.com>", b"To: alice@example.org", b"Subject: October")


@pytest.mark.req("DKIM-01", "DKIM-10", "BODY-03")
@pytest.mark.parametrize("name", NAMES)
def test_dkimpy_accepts_every_copy(name: str) -> None:
    assert dkimpy_accepts(signed(essential_copy(message(name))))
    if name not in SEALED:
        assert dkimpy_accepts(signed(promotional_copy(message(name))))


@pytest.mark.req("DKIM-01", "DKIM-10", "BODY-03")
def test_mailauth_accepts_every_copy(tmp_path: Path) -> None:
    copies = {f"{name}-essential": signed(essential_copy(message(name))) for name in NAMES}
    copies |= {f"{name}-promotional": signed(promotional_copy(message(name))) for name in STAMPABLE}
    files = [tmp_path / name for name in copies]
    for file, content in zip(files, copies.values(), strict=True):
        file.write_bytes(content)
    for file, signatures in zip(files, mailauth_judges(files, dns(), tmp_path), strict=True):
        ours = [one for one in signatures if one["domain"] == "example.com"]
        assert [one["result"] for one in ours] == ["pass"], (file.name, signatures)
        signs_link = {"list-unsubscribe", "list-unsubscribe-post"} <= set(ours[0]["headers"])
        assert signs_link == file.name.endswith("-promotional")


@pytest.mark.req("DKIM-02", "DKIM-05", "DKIM-08", "DKIM-09", "DKIM-13")
def test_the_signature_says_exactly_what_was_decided() -> None:
    tags = tags_of(signed(promotional_copy(message("odd-headers"))))
    assert sorted(tags) == ["a", "b", "bh", "c", "d", "h", "s", "t", "v"]
    assert (tags["a"], tags["c"], tags["d"], tags["s"]) == ("rsa-sha256", "relaxed/relaxed", "example.com", "s1")
    assert tags["t"] == str(int(NOW.timestamp()))
    assert set(tags["h"].split(":")) == set(sign.OVERSIGNED)


@pytest.mark.req("DKIM-03")
def test_each_header_is_listed_once_more_than_it_is_there() -> None:
    copy = promotional_copy(message("newsletter-campaign"))
    present = [field.name for field in copy.header]
    listed = tags_of(signed(copy))["h"].split(":")
    assert {name: listed.count(name) for name in sign.OVERSIGNED} == {
        name: present.count(name) + 1 for name in sign.OVERSIGNED
    }


@pytest.mark.req("DKIM-03")
@pytest.mark.parametrize("name", sign.OVERSIGNED)
@pytest.mark.parametrize("place", ["top", "bottom"])
def test_an_added_header_breaks_the_signature(name: str, place: str) -> None:
    content = signed(promotional_copy(message("alternative")))
    assert dkimpy_accepts(content)
    header, _, body = content.partition(b"\r\n\r\n")
    extra = f"{name}: another".encode()
    changed = [extra, header] if place == "top" else [header, extra]
    assert not dkimpy_accepts(b"\r\n".join([*changed, b"", body]))


@pytest.mark.req("DKIM-01")
@pytest.mark.parametrize("name", ["list-unsubscribe", "list-unsubscribe-post", "subject", "from"])
def test_a_removed_header_breaks_the_signature(name: str) -> None:
    content = signed(promotional_copy(message("alternative")))
    block = split(content)
    kept = b"".join(field.raw for field in block.without(lambda field: field.name == name))
    assert not dkimpy_accepts(kept + b"\r\n" + content[block.body :])


@pytest.mark.req("DKIM-05")
def test_appended_text_breaks_the_signature() -> None:
    content = signed(SIMPLE)
    assert dkimpy_accepts(content)
    assert dkimpy_accepts(content + b"\r\n \r\n")
    assert not dkimpy_accepts(content + b"more\r\n")


@pytest.mark.req("DKIM-04")
def test_repeated_headers_are_signed_from_the_lowest_up() -> None:
    lines = (b"From: a@example.com", b"X-Repeat: 1", b"X-Repeat: 2", b"X-Repeat: 3")
    signer = sign.Signer([rsa_key()], also=("X-Repeat", "X-Repeat"))
    content = signed(copy_of(*lines), signer)
    assert tags_of(content)["h"].endswith(":x-repeat:x-repeat")
    assert dkimpy_accepts(content)
    assert dkimpy_accepts(content.replace(b"X-Repeat: 1", b"X-Repeat: one"))
    assert not dkimpy_accepts(content.replace(b"X-Repeat: 2\r\nX-Repeat: 3", b"X-Repeat: 3\r\nX-Repeat: 2"))
    assert not dkimpy_accepts(content.replace(b"X-Repeat: 2", b"X-Repeat: two"))


@pytest.mark.req("DKIM-04")
def test_further_headers_are_listed_only_as_often_as_they_are_there() -> None:
    signer = sign.Signer([rsa_key()], also=("x-repeat", "x-repeat", "x-absent"))
    content = signed(copy_of(b"From: a@example.com", b"X-Repeat: 1"), signer)
    assert tags_of(content)["h"].split(":")[-1] == "x-repeat"
    assert tags_of(content)["h"].count("x-repeat") == 1 and "x-absent" not in tags_of(content)["h"]
    assert dkimpy_accepts(content)


@pytest.mark.req("DKIM-13")
@pytest.mark.parametrize("name", ["Return-Path", "Received", "Bcc", "Comments", "keywords", "DKIM-Signature"])
def test_headers_that_change_on_the_way_cannot_be_signed(name: str) -> None:
    with pytest.raises(ValueError):
        sign.Signer([rsa_key()], also=(name,))


@pytest.mark.req("DKIM-06")
def test_keys_that_are_too_short_are_refused_and_short_ones_flagged() -> None:
    with pytest.raises(ValueError, match="too short"):
        sign.SigningKey.load("example.com", "s1", pem_of(short_key()))
    assert sign.SigningKey.load("example.com", "s1", rsa_pem(1024)).is_weak
    assert not rsa_key().is_weak


def short_key() -> rsa.RSAPrivateKey:
    """Return a key of 512 bits, which no library makes any more, from the two greatest primes below 2**256."""
    p, q, e = 2**256 - 189, 2**256 - 357, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), rsa.rsa_crt_iqmp(p, q), public).private_key()


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\x00\xff"])
def test_what_is_no_key_is_refused_with_one_sentence(pem: bytes) -> None:
    with pytest.raises(ValueError, match="not a private key"):
        sign.SigningKey.load("example.com", "s1", pem)


def test_keys_that_dkim_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="RSA and Ed25519"):
        sign.SigningKey.load("example.com", "s1", pem_of(ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize("selector", ["", "a b", "a;b", "-a", "a..b", "a\r\nb", "ä"])
def test_a_selector_that_cannot_stand_in_dns_is_refused(selector: str) -> None:
    with pytest.raises(ValueError):
        sign.SigningKey.load("example.com", selector, b"")


@pytest.mark.req("DKIM-07")
def test_a_second_signature_is_made_with_ed25519(tmp_path: Path) -> None:
    edwards = sign.SigningKey.load("example.com", "ed", pem_of(Ed25519PrivateKey.generate()))
    signer = sign.Signer([rsa_key(), edwards])
    content = signed(promotional_copy(message("alternative")), signer)
    records = dns(rsa_key(), edwards)
    assert signer.selectors == ("s1", "ed")
    file = tmp_path / "message"
    file.write_bytes(content)
    (signatures,) = mailauth_judges([file], records, tmp_path)
    assert [one["result"] for one in signatures] == ["pass", "pass"]
    assert {one["algorithm"] for one in signatures} == {"rsa-sha256", "ed25519-sha256"}
    assert dkimpy_accepts(content, records, index=0)


@pytest.mark.req("DKIM-07")
def test_the_key_of_rfc_8463_is_published_as_the_rfc_does() -> None:
    """RFC 8463 Appendix A.2."""
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = sign.SigningKey("football.example.com", "brisbane", Ed25519PrivateKey.from_private_bytes(seed))
    assert sign.dns_record(key) == (
        "brisbane._domainkey.football.example.com",
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    )


@pytest.mark.req("DKIM-07")
def test_the_signature_of_rfc_8463_is_made_again() -> None:
    """RFC 8463 Appendix A.3: Ed25519 is deterministic, so the same data give the same b=."""
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = sign.SigningKey("football.example.com", "brisbane", Ed25519PrivateKey.from_private_bytes(seed))
    raw = (
        b"From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n"
        b"Subject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
        b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n"
    )
    body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
    bh = base64.b64encode(sign.body_hash([body])).decode()
    assert bh == "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    fields = {field.name: field.raw for field in split(raw).fields}
    listed = ("from", "to", "subject", "date", "message-id", "from", "subject", "date")
    chosen = b"".join(sign.canonical_field(name, fields.pop(name)) for name in listed if name in fields)
    unsigned = (
        "dkim-signature:v=1; a=ed25519-sha256; c=relaxed/relaxed; d=football.example.com; i=@football.example.com; "
        "q=dns/txt; s=brisbane; t=1528637909; h=from : to : subject : date : message-id : from : subject : date; "
        f"bh={bh}; b="
    )
    expected = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    assert base64.b64encode(key.sign(chosen + unsigned.encode())).decode() == expected


@pytest.mark.req("DKIM-08")
@pytest.mark.parametrize("body", [[], [b""], [b"\r\n"], [b"\r\n", b"\r\n\r\n"], [b" \t \r\n", b"\t\r\n"], [b" "]])
def test_an_empty_body_has_the_hash_of_the_rfc(body: list[bytes]) -> None:
    assert base64.b64encode(sign.body_hash(body)) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.req("DKIM-08")
def test_the_example_of_the_rfc_is_canonicalised_as_it_says() -> None:
    """RFC 6376 §3.4.5."""
    assert sign.canonical_field("a", b"A: X\r\n") == b"a:X\r\n"
    assert sign.canonical_field("b", b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z\r\n"
    assert sign.body_hash([b" C \r\nD \t E\r\n\r\n\r\n"]) == hashlib.sha256(b" C\r\nD E\r\n").digest()


@pytest.mark.req("DKIM-08")
@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x85", "\u2028", "\xa0"])
def test_only_spaces_and_tabs_are_white_space(odd: str) -> None:
    raw = f"Subject: a {odd}\t b{odd}\r\n".encode()
    assert sign.canonical_field("subject", raw) == f"subject:a {odd} b{odd}\r\n".encode()


def reference(body: bytes) -> bytes:
    """RFC 6376 §3.4.4, said as slowly and plainly as the RFC does."""
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def in_steps(segments: Sequence[bytes | memoryview]) -> bytes:
    steps = sign.body_hash_in_steps(segments)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


PIECES = st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"  \t ", b"\r\n\r\n", b"word", b"\xff"]), max_size=30)


@pytest.mark.req("DKIM-08")
@settings(max_examples=500)
@given(PIECES, st.lists(st.integers(0, 60), max_size=4))
def test_the_body_hash_does_not_depend_on_where_segments_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    segments = [body[start:end] for start, end in pairwise(edges)]
    assert sign.body_hash(segments) == in_steps(segments) == hashlib.sha256(reference(body)).digest()


@pytest.mark.req("DKIM-08")
@pytest.mark.parametrize(
    "line",
    [b"word  \t\r\n", b"\r\n", b" " * 997 + b"\r\n", b"a" + b" \t" * 400, b"x", b" \r\n\t\r\n"],
    ids=["trailing", "empty", "spaces", "endless", "no-end", "blank"],
)
def test_a_large_body_is_hashed_in_steps_as_it_would_be_in_one(line: bytes) -> None:
    body = b"begin" + line * (1_000_000 // len(line)) + b"end\r\n\r\n"
    expected = hashlib.sha256(reference(body)).digest()
    assert sign.body_hash([body[:300_001], body[300_001:]]) == expected
    assert sign.body_hash([body[:5], memoryview(body)[5:]]) == expected


@pytest.mark.req("DKIM-08")
@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("at_the_edge", [b" \t\r\n", b"\r\n\r\n ", b"  x", b"x \r\n", b"\r\n.\r\n"])
def test_white_space_at_the_end_of_a_step_is_reduced_as_anywhere(before: int, at_the_edge: bytes) -> None:
    body = b"a" * (sign.STEP - before) + at_the_edge + b"b" * sign.STEP + b" \r\n" * sign.STEP
    assert sign.body_hash([memoryview(body)]) == hashlib.sha256(reference(body)).digest()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=25).map(lambda value: value.translate(None, b"\r\n\0\v\f")), max_size=4),
    st.lists(st.sampled_from([b"Hi", b" ", b"\t", b"\r\n", b"\r\n.\r\n", b"\xc3\xa9"]), max_size=8).map(b"".join),
)
def test_dkimpy_accepts_what_we_sign_whatever_the_values(values: list[bytes], body: bytes) -> None:
    """But for VT and FF, which dkimpy takes for white space at the ends of a value, and the RFC does not."""
    lines = [b"Subject: " + b"\r\n ".join(values), b"X-Other: " + b" ".join(values), b"From: a@example.com"]
    if any(not value.strip() for value in values):
        return
    assert dkimpy_accepts(signed(copy_of(*lines, body=body + b"\r\n")))


@pytest.mark.req("DKIM-14")
@pytest.mark.parametrize("identity", ["@example.com", "@news.example.com", "news@example.com", "news@a.b.EXAMPLE.com"])
def test_an_identity_within_the_domain_is_signed(identity: str) -> None:
    content = signed(SIMPLE, sign.Signer([rsa_key()], identity=identity))
    assert tags_of(content)["i"] == identity.replace("EXAMPLE", "example")
    assert dkimpy_accepts(content)


@pytest.mark.req("DKIM-14")
@pytest.mark.parametrize(
    "identity", ["@evilexample.com", "example.com", "@com", "@", "@.example.com", "a;b@example.com", "@x y.example.com"]
)
def test_an_identity_outside_the_domain_is_refused(identity: str) -> None:
    with pytest.raises(ValueError):
        sign.Signer([rsa_key()], identity=identity)


@pytest.mark.req("DKIM-14", "DKIM-15")
@pytest.mark.parametrize(
    ("author_domain", "domain"),
    [
        ("example.com", "example.com"),
        ("News.Example.COM", "news.example.com"),
        ("a.b.example.com", "example.com"),
        ("evilexample.com", None),
        ("com", None),
    ],
)
def test_the_nearest_signer_at_or_above_the_author_s_domain_signs(author_domain: str, domain: str | None) -> None:
    keys = [sign.SigningKey(name, "s1", rsa_key().private) for name in ("example.com", "news.example.com")]
    signers = {key.domain: sign.Signer([key]) for key in keys}
    found = sign.signer_for(author_domain, signers)
    assert (found.domain if found else None) == domain


@pytest.mark.req("DKIM-17")
def test_domains_are_written_as_a_labels() -> None:
    key = sign.SigningKey.load("straße.Example", "s1", rsa_pem(2048))
    content = signed(SIMPLE, sign.Signer([key], identity="@news.straße.example"))
    assert tags_of(content)["d"] == "xn--strae-oqa.example"
    assert tags_of(content)["i"] == "@news.xn--strae-oqa.example"
    assert dkimpy_accepts(content, dns(key))


def test_a_signer_signs_for_one_domain_only() -> None:
    other = sign.SigningKey("example.net", "s1", rsa_key().private)
    for keys in ([], [rsa_key(), other]):
        with pytest.raises(ValueError):
            sign.Signer(keys)


@pytest.mark.req("DKIM-10")
def test_a_signature_is_whole_lines_of_ascii_that_need_no_folding() -> None:
    content = signed(promotional_copy(message("newsletter-campaign")))
    signature = split(content).fields[0].raw
    assert signature.isascii() and signature.endswith(b"\r\n")
    assert max(map(len, signature.split(b"\r\n"))) <= 78
    assert signature.count(b"\r") == signature.count(b"\n") == signature.count(b"\r\n")


@pytest.mark.req("DKIM-12")
def test_the_new_signature_stands_above_a_foreign_one() -> None:
    names = [field.name for field in split(signed(essential_copy(message("newsletter-campaign")))).fields]
    assert names[:2] == ["dkim-signature", "received"]
    assert names.count("dkim-signature") == 2


def test_a_new_key_is_strong_and_its_record_fits_the_library_s_reading() -> None:
    name, text = sign.dns_record(rsa_key())
    assert name == "s1._domainkey.example.com"
    assert text.startswith("v=DKIM1; k=rsa; p=MIIBIjANBgkq")
    public = dkim.crypto.parse_public_key(base64.b64decode(text.partition("p=")[2]))
    assert public["modulus"].bit_length() == 2048


def test_the_same_copy_signed_later_says_so_and_differs_in_nothing_else() -> None:
    signer = sign.Signer([rsa_key()])
    digest = sign.body_hash(SIMPLE.body)
    now, later = (signer.sign(SIMPLE.header, digest, at) for at in (NOW, NOW + timedelta(hours=1)))
    assert tags_of(later)["t"] == str(int(NOW.timestamp()) + 3600)
    assert re.sub(rb"t=\d+|b=[^;]*\Z", b"", now) == re.sub(rb"t=\d+|b=[^;]*\Z", b"", later)


def test_garbage_lines_are_left_unsigned() -> None:
    copy = Stamped((Field("", b"no field at all\r\n"), *SIMPLE.header), SIMPLE.body)
    assert tags_of(signed(copy))["h"] == tags_of(signed(SIMPLE))["h"]
    assert wire(copy).startswith(b"no field at all\r\n")
