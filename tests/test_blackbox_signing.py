"""What the installed program writes over a message, and its signatures, judged by verifiers that are not ours.

The program is a separate process; every octet that is looked at was captured by a strict sink. Where several rows speak
of the same copies, one campaign is sent once and read by many tests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.copies_under_test import MESSAGES, dkimpy_accepts
from tests.gateway_under_test import Gateway, field_of, invoice, newsletter
from tests.judges import dissenters, three_judges
from tests.sink import Received, Sink

OVERSIGNED = (
    *("from", "to", "cc", "subject", "date", "reply-to", "sender", "message-id", "mime-version", "content-type"),
    *("content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post"),
)
NEVER_SIGNED = {"return-path", "received", "bcc", "comments", "keywords", "dkim-signature"}
SINGLETONS = (
    *("From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "Sender", "In-Reply-To", "References"),
    *("MIME-Version", "Content-Type"),
)
SEALED = {"smime-signed", "smime-enveloped", "pgp-encrypted", "pgp-inline"}
CONTROLS = re.compile(rb"(?mi)^assent-.*\r\n(?:[ \t].*\r\n)*")
READERS = ["sign-a@example.org", "sign-b@example.org"]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that signs two further headers, with an account stream for the newsletter's own domain."""
    running = Gateway(tmp_path_factory.mktemp("signing") / "house", shared_sink.url).prepare()
    running.write_config(
        dkim="""
            [dkim."example.com"]
            selectors = [{ name = "s1", key = "var/dkim/example.com.s1.pem" }]
            also_sign = ["X-Repeat", "X-Repeat"]
            """,
        receipts='[streams.receipts]\nclass = "account"\nfrom = ["*@news.example.com"]',
    )
    running.add_login("shop2", "receipts")
    running.opt_in(*READERS)
    yield running.start()
    running.close()


@pytest.fixture(scope="module")
def workshop_on_disk(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    partner = '[streams.partner]\nclass = "account"\nfrom = ["*@partner.example"]'
    made = Gateway(
        tmp_path_factory.mktemp("workshop") / "house", shared_sink.url, sections={"partner": partner}
    ).prepare()
    made.add_login("partner", "partner")
    made.opt_in(*READERS)
    yield made
    made.close()


@pytest.fixture
def workshop(workshop_on_disk: Gateway) -> Iterator[Gateway]:
    """A gateway that is prepared and not started, whose configuration a test may change."""
    before = workshop_on_disk.config.read_text()
    yield workshop_on_disk
    if workshop_on_disk.process is not None:
        workshop_on_disk.stop()  # killed, it could relay its last copy to the next test once more
    workshop_on_disk.config.write_text(before)


@pytest.fixture(scope="module")
def records(house: Gateway) -> dict[str, str]:
    """Return what DNS must publish, by name."""
    return {one["name"]: one["record"] for one in house.json("dkim", "dns", "example.com")}


def relayed(
    house: Gateway, sink: Sink, content: bytes, *, login: str = "news", to: Sequence[str] = READERS[:1]
) -> bytes:
    """Submit a message and return the copy that the sink got of it."""
    return sent(house, sink, content, login, to)[0].content


def sent(house: Gateway, sink: Sink, content: bytes, login: str, to: Sequence[str]) -> list[Received]:
    sink.clear()
    sender = "billing@example.com" if login == "shop" else "letters@news.example.com"
    replies = house.submit(content, to, login=login, sender=sender)
    assert replies[""][0] == 250, replies
    return sink.wait_for(len(to) if login == "news" else 1)


def header_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[0] + b"\r\n"


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def names_of(content: bytes) -> list[str]:
    """Return the names of the header fields in their order, in lower case."""
    return [
        line.partition(b":")[0].strip().lower().decode()
        for line in header_of(content).split(b"\r\n")[:-1]
        if line[:1] not in b" \t"
    ]


def tags_of(content: bytes) -> dict[str, str]:
    """Return the tags of the topmost signature, without white space."""
    value = re.sub(rb"\s", b"", field_of(content, "DKIM-Signature")[0].partition(b":")[2]).decode()
    return {name: text for name, _, text in (tag.partition("=") for tag in value.split(";"))}


def all_accept(contents: Sequence[bytes], records: dict[str, str], scratch: Path) -> bool:
    """True where every judge accepts every message, and dkimpy too."""
    dissent = dissenters(map(str, range(len(contents))), three_judges(contents, records, scratch))
    assert dissent == {}
    return all(dkimpy_accepts(content, records) for content in contents)


def nobody_accepts(contents: Sequence[bytes], records: dict[str, str], scratch: Path) -> bool:
    judged = [told for one in three_judges(contents, records, scratch) for told in one.values()]
    return "pass" not in judged and not any(dkimpy_accepts(content, records) for content in contents)


# signatures


@pytest.mark.req("DKIM-01", "DKIM-02", "DKIM-05", "DKIM-06", "DKIM-08", "DKIM-10")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_every_shape_of_mail_leaves_with_a_valid_signature_of_what_was_decided(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, login: str
) -> None:
    """What verifies is what was on the wire, so signing was the last thing that happened to it."""
    copies = {
        path.stem: relayed(house, sink, CONTROLS.sub(b"", path.read_bytes()), login=login)
        for path in sorted(MESSAGES.glob("*.eml"))
        if login != "news" or path.stem not in SEALED
    }
    assert len(copies) > 20
    judged = three_judges(list(copies.values()), records, tmp_path)
    assert dissenters(copies, judged) == {}
    for name, content in copies.items():
        assert dkimpy_accepts(content, records), name
        tags = tags_of(content)
        assert (tags["a"], tags["c"], tags["d"], tags["s"]) == ("rsa-sha256", "relaxed/relaxed", "example.com", "s1")
        assert "l" not in tags and "t" in tags
        present = Counter(names_of(content))
        listed = Counter(tags["h"].split(":"))
        decided = {one: present[one] + 1 for one in OVERSIGNED} | {"x-repeat": min(2, present["x-repeat"])}
        assert listed == Counter(decided), name
        if login == "news":
            assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(listed), name


@pytest.mark.req("DKIM-03")
@pytest.mark.parametrize("place", ["top", "bottom"])
def test_one_more_of_any_oversigned_header_breaks_the_signature(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, place: str
) -> None:
    content = relayed(house, sink, newsletter(READERS[0]))
    assert all_accept([content], records, tmp_path)
    extras = [f"{name}: another\r\n".encode() for name in OVERSIGNED]
    header, body = header_of(content), body_of(content)
    changed = [(extra + header if place == "top" else header + extra) + b"\r\n" + body for extra in extras]
    assert nobody_accepts(changed, records, tmp_path)


@pytest.mark.req("DKIM-04")
def test_repeated_headers_are_signed_from_the_lowest_up(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    content = relayed(house, sink, b"X-Repeat: one\r\nX-Repeat: two\r\nX-Repeat: three\r\n" + newsletter(READERS[0]))
    assert tags_of(content)["h"].split(":").count("x-repeat") == 2
    assert all_accept([content], records, tmp_path)
    assert all_accept([content.replace(b"X-Repeat: one", b"X-Repeat: 1")], records, tmp_path), (
        "the top one is not signed"
    )
    swapped = content.replace(b"X-Repeat: two\r\nX-Repeat: three\r\n", b"X-Repeat: three\r\nX-Repeat: two\r\n")
    changed = [content.replace(old, b"X-Repeat: 0") for old in (b"X-Repeat: two", b"X-Repeat: three")]
    assert nobody_accepts([swapped, *changed], records, tmp_path)


@pytest.mark.req("DKIM-05")
def test_appended_text_breaks_the_signature(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    copies = [relayed(house, sink, newsletter(READERS[0])), relayed(house, sink, invoice(), login="shop")]
    assert all_accept(copies, records, tmp_path)
    assert not any("l" in tags_of(content) for content in copies)
    assert nobody_accepts([content + b"Buy more\r\n" for content in copies], records, tmp_path)


@pytest.mark.req("DKIM-08")
@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n\r\n\r\n", b""),
        (b" \t \r\n \r\n", b""),
        (b"Hello\r\n", b"Hello\r\n"),
        (b"Hello\r\n\r\n\r\n", b"Hello\r\n"),
        (b"Hello \t\r\n \tyou  two\t\r\n", b"Hello\r\n you two\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
    ],
    ids=[
        "empty",
        "blank lines",
        "white space",
        "one line",
        "trailing blank lines",
        "trailing white space",
        "RFC 6376 §3.4.5",
    ],
)
def test_the_body_hash_is_that_of_the_relaxed_form(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, body: bytes, canonical: bytes
) -> None:
    content = relayed(house, sink, header_of(invoice()) + b"\r\n" + body, login="shop")
    digest = base64.b64encode(hashlib.sha256(canonical).digest()).decode()
    assert tags_of(content)["bh"] == digest
    assert canonical or digest == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert body_of(content) == body
    assert all_accept([content], records, tmp_path)
    assert all_accept([header_of(content) + b"\r\n" + canonical + b"\r\n\r\n"], records, tmp_path), (
        "white space at the end is free"
    )


@pytest.mark.req("DKIM-13", "HDR-01")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_what_changes_on_the_way_is_not_signed_and_bcc_never_leaves(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, login: str
) -> None:
    extra = (
        b"Return-Path: <old@news.example.com>\r\nReceived: from a by b; Sun, 22 Nov 2026 09:00:00 +0000\r\n"
        b"Comments: a\r\nKeywords: b\r\nBCC: secret@example.org\r\nbcc:\r\n secret2@example.org\r\n"
        b"DKIM-Signature: v=1; a=rsa-sha256; d=tool.example.net; s=x; h=from; bh=YQ==; b=YQ==\r\n"
    )
    content = relayed(house, sink, extra + newsletter(READERS[0]), login=login)
    assert not NEVER_SIGNED & set(tags_of(content)["h"].split(":"))
    assert "bcc" not in names_of(content) and b"secret" not in content
    assert {"comments", "keywords", "received"} <= set(names_of(content))
    assert names_of(content)[0] == "dkim-signature"
    assert all_accept([content], records, tmp_path)


FOREIGN = b"DKIM-Signature: v=1; a=rsa-sha256; d=tool.example.net; s=x; t=1;\r\n h=from : to; bh=YQ==;\r\n b=YQ==\r\n"


@pytest.mark.req("DKIM-12", "ARC-01")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"d=tool.example.net", b"d=legitimate.com(.attacker.com"),
        (b"d=tool.example.net; ", b""),
        (b"v=1; ", b"v=1;; "),
        (b"t=1", b"t=yesterday"),
        (b"s=x", b"s=x; s=y"),
        (FOREIGN, b"DKIM-Signature: =?utf-8?q?v=3D1=3B_d=3Dtool=2Eexample=2Enet?=\r\n"),
    ],
    ids=["a domain that is none", "no domain", "a tag without a name", "no time", "one tag twice", "encoded words"],
)
def test_a_signature_that_nobody_may_accept_does_not_keep_a_verifier_from_ours(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, before: bytes, after: bytes
) -> None:
    """OpenDKIM looks at no signature of a message that holds one which it cannot parse."""
    plain = invoice()
    unharmed = relayed(house, sink, FOREIGN + plain, login="shop")
    assert unharmed.endswith(FOREIGN + plain) and FOREIGN.count(before) == 1
    content = relayed(house, sink, FOREIGN.replace(before, after) + plain, login="shop")
    assert content.endswith(plain) and names_of(content).count("dkim-signature") == 1
    assert all_accept([unharmed, content], records, tmp_path)


IRREGULAR = {
    "a line that is no field": (b"\r\n\r\n", b"\r\nno field\r\nX-Late: 1\r\n\r\n"),
    "a line of letters beyond ASCII": (b"\r\n\r\n", b"\r\nGr\xc3\xbc\xc3\x9fe: 1\r\nX-Late: 1\r\n\r\n"),
    "white space before a colon": (b"Subject:", b"Subject \t:"),
    "the first line of a mailbox file": (b"From: ", b"From billing@example.com  Sun Nov 22 10:00:00 2026\r\nFrom: "),
    "a quoted first line": (b"From: ", b">From billing@example.com  Sun Nov 22 10:00:00 2026\r\nFrom: "),
}


@pytest.mark.req("HDR-07", "DKIM-10")
@pytest.mark.parametrize("name", IRREGULAR)
def test_what_is_no_field_ends_the_header_where_every_server_ends_it_and_is_judged_so(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, name: str
) -> None:
    submitted = invoice()
    content = relayed(house, sink, submitted.replace(*IRREGULAR[name], 1), login="shop")
    header, body = header_of(content), body_of(content)
    assert header.endswith(b"\r\n" + header_of(submitted))
    late = IRREGULAR[name][1].removeprefix(b"\r\n") if name.startswith("a line") else b""
    assert body == late + body_of(submitted)
    assert all_accept([content], records, tmp_path)


@pytest.mark.req("DKIM-13", "UNS-32")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_nobody_reads_a_bcc_below_what_ends_the_header(house: Gateway, login: str) -> None:
    content = newsletter(READERS[0]).replace(b"\r\n\r\n", b"\r\nno field\r\nBCC : secret@example.org\r\n\r\n", 1)
    code, reply = house.submit(content, READERS[:1], login=login)[""]
    assert code == 554 and reply.startswith("5.6.0 content: a line of its header is no field"), reply


@pytest.mark.req("CLS-01", "HDR-08")
def test_a_message_without_an_author_before_its_header_ends_is_refused(house: Gateway) -> None:
    replies = house.submit(
        b"Subject: One\r\nno field\r\n" + invoice(), READERS[:1], login="shop", sender="billing@example.com"
    )
    assert replies[""][0] == 550, replies


@pytest.mark.req("DKIM-06")
def test_keys_below_1024_bits_stop_the_start_and_below_2048_are_warned_of(workshop: Gateway, sink: Sink) -> None:
    workshop.make_dkim_key(bits=512)
    done = workshop.run("serve", check=False)
    assert done.returncode == 78
    assert re.search(r"config\.toml:\d+: .*RSA key of 512 bits.*RFC 8301", done.stderr)
    for bits, is_warned in ((1024, True), (2048, False)):
        workshop.make_dkim_key(bits=bits)
        workshop.log.unlink(missing_ok=True)
        workshop.start()
        content = relayed(workshop, sink, invoice(), login="shop")
        assert tags_of(content)["a"] == "rsa-sha256"
        assert len(base64.b64decode(tags_of(content)["b"])) * 8 == bits
        workshop.stop()
        assert (f"RSA of {bits} bits, where 2048 are advised" in workshop.log.read_text()) is is_warned


@pytest.mark.req("DKIM-06")
def test_rsa_sha1_cannot_be_asked_for(workshop: Gateway) -> None:
    workshop.config.write_text(
        workshop.config.read_text().replace('name = "s1",', 'name = "s1", algorithm = "rsa-sha1",')
    )
    done = workshop.run("serve", check=False)
    assert (done.returncode, "algorithm is not a key" in done.stderr) == (78, True)


def identified(workshop: Gateway, identity: str) -> Gateway:
    """Write an identity into the configuration."""
    text = workshop.config.read_text()
    workshop.config.write_text(
        text.replace('[dkim."example.com"]\n', f'[dkim."example.com"]\nidentity = "{identity}"\n')
    )
    return workshop


@pytest.mark.req("DKIM-14")
@pytest.mark.parametrize("identity", ["@evilexample.com", "ann@example.com.evil.example"])
def test_an_identity_outside_of_the_signing_domain_stops_the_start(workshop: Gateway, identity: str) -> None:
    done = identified(workshop, identity).run("serve", check=False)
    assert done.returncode == 78
    assert re.fullmatch(r"\S*config\.toml:\d+: .*identity.* is not in example\.com .*\n", done.stderr)


@pytest.mark.req("DKIM-14", "DKIM-15")
def test_the_identity_stands_in_the_signature_and_only_our_authors_are_signed(
    workshop: Gateway, sink: Sink, tmp_path: Path
) -> None:
    identified(workshop, "letters@news.example.com").start()
    records = {one["name"]: one["record"] for one in workshop.json("dkim", "dns")}
    content = relayed(workshop, sink, newsletter(READERS[0]))
    assert (tags_of(content)["d"], tags_of(content)["i"]) == ("example.com", "letters@news.example.com")
    assert all_accept([content], records, tmp_path)
    theirs = newsletter(sender="ann@partner.example")
    assert workshop.submit(theirs, READERS[:1], login="partner", sender="ann@partner.example")[""][0] == 250
    assert "dkim-signature" not in names_of(sink.wait_for(2)[1].content)


@pytest.mark.req("DKIM-15")
def test_promotion_from_a_domain_without_a_key_cannot_be_configured(workshop: Gateway) -> None:
    text = workshop.config.read_text().replace('from = ["*@offers.example.com"]', 'from = ["*@partner.example"]')
    workshop.config.write_text(text)
    done = workshop.run("serve", check=False)
    assert done.returncode == 78
    assert re.fullmatch(r"\S*config\.toml:\d+: .*no key signs mail from partner\.example; .+\n", done.stderr)


@pytest.mark.req("DKIM-15")
@pytest.mark.parametrize("author", ["ceo@example.com", "ann@gmail.example", "letters@newsexample.com"])
def test_mail_from_anybody_elses_domain_is_not_signed_but_refused(house: Gateway, sink: Sink, author: str) -> None:
    code, text = house.submit(newsletter(READERS[0], sender=author), READERS[:1])[""]
    assert (code, text[:22]) == (550, "5.7.1 class-mismatch: ")
    relayed(house, sink, newsletter(READERS[0]))
    assert len(sink.messages) == 1


# headers

FORGED = [
    b"List-Unsubscribe: <https://evil.example/u>, <mailto:u@evil.example>\r\n",
    b"LIST-UNSUBSCRIBE-POST: List-Unsubscribe=One-Click\r\n",
    b"list-id: Forged\r\n\t<forged.evil.example>\r\n",
    b"List-Unsubscribe\t: <https://evil.example/second>\r\n",
    b"List-Post: NO\r\n",
    b"List-Help:\r\n <https://evil.example/help>\r\n",
    b"List-Owner: <mailto:evil@evil.example>\r\nList-Archive: <https://evil.example/a>\r\nList-Subscribe: <https://evil.example/s>\r\n",
]


@pytest.mark.req("HDR-01")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_the_submitters_list_headers_are_removed(house: Gateway, sink: Sink, login: str) -> None:
    content = relayed(house, sink, b"".join(FORGED) + newsletter(READERS[0]), login=login)
    assert b"evil.example" not in content
    ours = ["list-unsubscribe", "list-unsubscribe-post", "list-id"] if login == "news" else []
    assert [name for name in names_of(content) if name.startswith("list-")] == ours
    if login == "news":
        (field,) = field_of(content, "List-Unsubscribe")
        assert re.fullmatch(rb"List-Unsubscribe: <https://mail\.example\.com/u/[^>]+>,\r\n <mailto:[^>]+>\r\n", field)


ENCODED_WORD = rb"=\?utf-8\?b\?[A-Za-z0-9+/=]+\?="
LIST_ID = re.compile(
    rb'List-Id: (?P<phrase>[A-Za-z0-9-]+(?: [A-Za-z0-9-]+)*|"(?:[^"\\\r\n]|\\.)*"|%b(?:\r\n %b)*)(?:\r\n)? '
    rb"<(?P<id>[a-z0-9-]+(?:\.[a-z0-9-]+)+)>\r\n" % (ENCODED_WORD, ENCODED_WORD)
)


def list_id_of(content: bytes) -> tuple[bytes, bytes]:
    """Return phrase and identifier of the one List-Id, which has the form of RFC 2919 §3."""
    (field,) = field_of(content, "List-Id")
    parsed = LIST_ID.fullmatch(field)
    assert parsed, field
    assert len(parsed["id"]) <= 255
    assert max(map(len, field.split(b"\r\n"))) <= 78
    return parsed["phrase"], parsed["id"]


@pytest.mark.req("HDR-02")
def test_a_list_keeps_its_identifier_when_it_is_renamed(workshop: Gateway, sink: Sink) -> None:
    workshop.start()
    first = list_id_of(relayed(workshop, sink, newsletter(READERS[0])))
    assert first == (b"Product announcements", b"product-announcements.relay.example.com")
    name = 'Neues, "für" Freunde & Kunden: alles über unsere Produkte'
    workshop.config.write_text(workshop.config.read_text().replace('"Product announcements"', f"'{name}'"))
    workshop.stop()
    workshop.start()
    phrase, identifier = list_id_of(relayed(workshop, sink, newsletter(READERS[0])))
    assert str(make_header(decode_header(phrase.decode()))) == name
    assert identifier == first[1]


ODD = [
    b"Received: from old.example.net (old.example.net [192.0.2.1])\r\n\tby tool.example.net with ESMTP;\r\n"
    b"\tSun, 22 Nov 2026 09:59:00 +0000\r\n",
    b"FROM:\r\n\t =?iso-8859-1?q?Gr=FC=DFe?=\r\n  <letters@news.example.com>\r\n",
    b"to:sign-a@example.org\r\n",
    b"X-Tab-Folded:\tone\r\n\ttwo\r\n \t three  \r\n",
    b"X-8bit: gr\xfc\xdfe\r\n\t\xe4\xf6\r\n",
    b"X-UTF8: gr\xc3\xbc\xc3\x9fe\r\n",
    b"X-Empty:\r\n",
    b"x-ODD-case:no space after the colon \r\n",
    b"X-Repeat: second\r\nX-Repeat: first\r\n",
    b"SUBJECT: =?utf-8?Q?one?=\r\n =?utf-8?Q?two?= \t \r\n",
    b"Date:  22 Nov 2026 10:00 +0000 (a comment)\r\n",
    b"Message-ID:\r\n <odd.4711@tool.example.net>\r\n",
    b"X-Long: " + b"a" * 900 + b"\r\n",
    b"MIME-version: 1.0 (by hand)\r\n",
    b'Content-type: text/plain;\r\n\tcharset="iso-8859-1"\r\n',
    b"Content-Transfer-Encoding: 8bit\r\n",
]
REMOVED = [
    b"List-Id:\r\n\t<forged.example.net>\r\n",
    b"Bcc: secret@example.org,\r\n\tsecret2@example.org\r\n",
    b"ASSENT-Stream:\r\n newsletter\r\n",
    b"Resent-Bcc: secret@example.org\r\n",
]


@pytest.mark.req("HDR-07")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_headers_that_stay_stay_octet_for_octet_and_new_ones_stand_above(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, login: str
) -> None:
    removed = [field if login == "news" else field.replace(b"newsletter", b"receipts") for field in REMOVED]
    mixed = [*ODD[:2], removed[0], *ODD[2:6], removed[1], *ODD[6:12], removed[2], *ODD[12:], removed[3]]
    body = b"Gr\xfc\xdfe\r\n\r\n  \t indented, and white space at the end \t \r\n.\r\n"
    content = relayed(house, sink, b"".join(mixed) + b"\r\n" + body, login=login)
    added = ["dkim-signature", "received"]
    added += ["list-unsubscribe", "list-unsubscribe-post", "list-id"] if login == "news" else []
    kept = b"".join(ODD)
    assert header_of(content).endswith(kept)
    assert names_of(content[: content.index(kept)] + b"\r\n") == added
    assert body_of(content).startswith(body)
    assert login == "news" or body_of(content) == body
    assert all_accept([content], records, tmp_path)


@pytest.mark.req("HDR-08")
@pytest.mark.parametrize("name", SINGLETONS)
def test_a_header_that_may_stand_once_and_stands_twice_is_refused(house: Gateway, sink: Sink, name: str) -> None:
    """Whether the second differs or not, in whatever case, wherever it stands, for promotion and account mail."""
    more = ["Cc: a@example.org", "Reply-To: a@example.org", "Sender: a@news.example.com", "In-Reply-To: <a@b>"]
    content = "\r\n".join([*more, "References: <a@b>", ""]).encode() + newsletter(READERS[0])
    (field,) = field_of(content, name)
    header, body = header_of(content), body_of(content)
    for again in (field, f"{name.upper()}\t: other\r\n".encode(), f"{name.lower()}:\r\n x\r\n".encode()):
        for doubled in (again + header, header + again):
            for login in ("news", "shop2"):
                code, text = house.submit(doubled + b"\r\n" + body, READERS[:1], login=login)[""]
                assert (code, text[:6]) == (554, "5.6.0 ")
                assert re.search(rf"\b{name.lower()}\b", text), text
    relayed(house, sink, content)
    assert len(sink.messages) == 1


def without(content: bytes, *names: str) -> bytes:
    for name in names:
        (field,) = field_of(content, name)
        content = content.replace(field, b"")
    return content


@pytest.mark.req("HDR-10")
@pytest.mark.parametrize("login", ["news", "shop2"])
def test_date_and_message_id_are_added_where_they_are_missing(house: Gateway, sink: Sink, login: str) -> None:
    content = relayed(house, sink, without(newsletter(READERS[0]), "Date", "Message-ID"), login=login)
    (date,), (identifier,) = field_of(content, "Date"), field_of(content, "Message-ID")
    added = parsedate_to_datetime(date.decode().partition(":")[2].strip())
    assert abs(added.timestamp() - sink.messages[0].at) < 60
    assert re.fullmatch(rb"Message-ID: <[A-Za-z0-9.]+@relay\.example\.com>\r\n", identifier)


@pytest.mark.req("HDR-10")
@pytest.mark.parametrize("login", ["news", "shop2"])
@pytest.mark.parametrize("missing", ["Date", "Message-ID"])
def test_what_is_there_stays_when_the_other_is_added(house: Gateway, sink: Sink, login: str, missing: str) -> None:
    odd = newsletter(READERS[0]).replace(b"Date: Sun, ", b"date:  \r\n\t").replace(b"Message-ID: ", b"MESSAGE-id:\r\n ")
    there = "Message-ID" if missing == "Date" else "Date"
    content = relayed(house, sink, without(odd, missing), login=login)
    assert field_of(content, there) == field_of(odd, there)
    assert len(field_of(content, missing)) == 1
    untouched = relayed(house, sink, odd, login=login)
    assert [field_of(untouched, name) for name in ("Date", "Message-ID")] == [
        field_of(odd, name) for name in ("Date", "Message-ID")
    ]


@pytest.mark.req("HDR-10")
def test_only_copies_of_a_split_newsletter_get_ids_of_their_own(house: Gateway, sink: Sink) -> None:
    content = newsletter("list@news.example.com")
    copies = [message.content for message in sent(house, sink, content, "news", READERS)]
    identifiers = {field_of(copy, "Message-ID")[0] for copy in copies}
    assert len(identifiers) == 2
    assert field_of(content, "Message-ID")[0] not in identifiers
    assert {field_of(copy, "Date")[0] for copy in copies} == {field_of(content, "Date")[0]}
    (shared,) = sent(house, sink, content, "shop2", READERS)
    assert len(shared.recipients) == 2
    assert field_of(shared.content, "Message-ID") == field_of(content, "Message-ID")
