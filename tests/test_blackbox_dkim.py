"""Keys and domains: rotation under load, several keys and domains, what others have signed, whom DMARC believes.

The program is a separate process; every octet that is looked at was captured by a strict sink, and three judges that
are not ours look at every signature.
"""

from __future__ import annotations

import json
import re
import signal
import smtplib
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.copies_under_test import PEERS, mailauth_judges
from tests.gateway_under_test import Gateway, eventually, field_of, invoice, newsletter
from tests.judges import dissenters, three_judges
from tests.sink import Sink

READER = "dkim-a@example.org"
DKIM = """
    [dkim."example.com"]
    selectors = [
        { name = "s1", key = "var/dkim/example.com.s1.pem" },
        { name = "e1", key = "var/dkim/example.com.e1.pem" },
    ]
    [dkim."news.example.com"]
    selectors = [{ name = "n1", key = "var/dkim/news.example.com.n1.pem" }]
    [dkim."xn--bcher-kva.example"]
    selectors = [{ name = "b1", key = "var/dkim/xn--bcher-kva.example.b1.pem" }]
    """
STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    [streams.books]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@bücher.example"]
    [streams.txn]
    class = "account"
    from = ["*@txn.example.com", "billing@example.com", "*@news.example.com"]
    """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of three signing domains, one with a second key of Ed25519, and streams that mail from five."""
    made = Gateway(tmp_path_factory.mktemp("dkim") / "house", shared_sink.url, sections={"streams": STREAMS})
    made.prepare_files()
    made.make_dkim_key("news.example.com.n1")
    made.make_dkim_key("xn--bcher-kva.example.b1")
    made.write_config(dkim=DKIM)
    made.run("dkim", "new", "example.com", "--selector", "e1", "--ed25519")
    made.run("migrate")
    for name, stream in (("news", "newsletter"), ("books", "books"), ("shop", "txn")):
        made.add_login(name, stream)
    made.opt_in(READER)
    yield made.start()
    made.close()


@pytest.fixture(scope="module")
def records(house: Gateway) -> dict[str, str]:
    return {one["name"]: one["record"] for one in house.json("dkim", "dns")}


def relayed(house: Gateway, sink: Sink, content: bytes, login: str, sender: str) -> bytes:
    """Submit a message and return the copy that the sink got of it."""
    sink.clear()
    replies = house.submit(content, [READER], login=login, sender=sender)
    assert replies[""][0] == 250, replies
    return sink.wait_for(1)[0].content


def tags_of(field: bytes) -> dict[str, str]:
    """Return the tags of a signature, without white space."""
    value = re.sub(rb"\s", b"", field.partition(b":")[2]).decode()
    return {name: text for name, _, text in (tag.partition("=") for tag in value.split(";"))}


def signatures(content: bytes) -> list[dict[str, str]]:
    return [tags_of(field) for field in field_of(content, "DKIM-Signature")]


def accepted(contents: Sequence[bytes], records: Mapping[str, str], scratch: Path) -> bool:
    """True where three judges accept all; they are told of the RSA keys only, which all of them can read."""
    rsa = {name: record for name, record in records.items() if "k=rsa" in record}
    told = dissenters(map(str, range(len(contents))), three_judges(contents, rsa, scratch))
    assert told == {}
    return True


# several keys and domains


@pytest.mark.req("DMARC-03", "DKIM-14", "DKIM-17", "DKIM-09")
def test_each_stream_is_signed_by_its_own_domain_or_the_one_above(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    """A subdomain signs for itself where it has a key; an internationalised one is an A-label, as it may be written."""
    bill = invoice().replace(b"billing@example.com", b"ann@txn.example.com")
    before = int(time.time())
    copies = {
        "news.example.com": relayed(house, sink, newsletter(READER), "news", "letters@news.example.com"),
        "example.com": relayed(house, sink, bill, "shop", "ann@txn.example.com"),
        "xn--bcher-kva.example": relayed(
            house, sink, newsletter(READER, sender="ann@xn--bcher-kva.example"), "books", "ann@xn--bcher-kva.example"
        ),
    }
    for domain, content in copies.items():
        for tags in signatures(content):
            assert tags["d"] == domain
            assert before - 60 <= int(tags["t"]) <= time.time() + 60 and "x" not in tags
            assert "i" not in tags
    assert [tags["s"] for content in copies.values() for tags in signatures(content)] == ["n1", "s1", "e1", "b1"]
    sink.clear()
    with house.smtp("books") as client:
        client.mail("ann@bücher.example", ["SMTPUTF8"])
        client.rcpt(READER)
        assert client.data(newsletter(READER, sender="ann@bücher.example"))[0] == 250
    (unicode,) = sink.wait_for(1)
    assert signatures(unicode.content)[0]["d"] == "xn--bcher-kva.example"
    assert accepted([*copies.values(), unicode.content], records, tmp_path)


@pytest.mark.req("DKIM-07")
def test_a_second_signature_of_ed25519_verifies_beside_that_of_rsa(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    content = relayed(house, sink, invoice(), "shop", "billing@example.com")
    first, second = signatures(content)
    assert (first["a"], first["s"], second["a"], second["s"]) == ("rsa-sha256", "s1", "ed25519-sha256", "e1")
    assert first["d"] == second["d"] == "example.com"
    assert accepted([content], records, tmp_path)
    (tmp_path / "copy.eml").write_bytes(content)
    (judged,) = mailauth_judges([tmp_path / "copy.eml"], records, tmp_path)
    assert [(one["selector"], one["result"]) for one in judged] == [("s1", "pass"), ("e1", "pass")]


# what others have signed

FOREIGN = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=tool.example.net; s=x; h=from; bh=YQ==; b=YQ==\r\n",
    b"DKIM-Signature: v=1; a=rsa-sha256; d=helpdesk.example;\r\n s=y; h=from:to; bh=YQ==;\r\n b=YWE=\r\n",
)
OURS_BEFORE = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=from; bh=YQ==; b=YQ==\r\n",
    b"dkim-signature: v=1; a=rsa-sha256; d=News.Example.com;\r\n\ts=n1; h=from; bh=YQ==; b=YQ==\r\n",
)


@pytest.mark.req("DKIM-12")
@pytest.mark.parametrize("login", ["news", "shop"])
def test_our_signature_stands_above_others_and_what_would_not_verify_is_gone(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path, login: str
) -> None:
    """In promotion, whose body changes, nobody's signature is left; account mail keeps those of others."""
    signed = FOREIGN[0] + OURS_BEFORE[0] + FOREIGN[1] + OURS_BEFORE[1] + newsletter(READER)
    content = relayed(house, sink, signed, login, "letters@news.example.com")
    ours, *others = field_of(content, "DKIM-Signature")
    assert content.startswith(ours) and tags_of(ours)["d"] == "news.example.com"
    assert others == ([] if login == "news" else list(FOREIGN))
    assert accepted([content], records, tmp_path)


ARC = (
    b"ARC-Seal: i=1; a=rsa-sha256; t=12345; cv=none;\r\n\td=list.example; s=x; b=YQ==\r\n",
    b"ARC-Message-Signature: i=1; a=rsa-sha256; \r\n\td=list.example; s=x; h=from:to; bh=YQ==; b=YQ==\r\n",
    b"ARC-Authentication-Results: i=1; list.example;\r\n\tspf=pass smtp.mailfrom=a@b.example\r\n",
)


@pytest.mark.req("ARC-01")
def test_nothing_is_sealed_and_seals_of_others_stay_on_what_passes_through(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    sealed = relayed(house, sink, b"".join(ARC) + invoice(), "shop", "billing@example.com")
    assert b"".join(ARC) in sealed
    own = [
        relayed(house, sink, newsletter(READER), "news", "letters@news.example.com"),
        relayed(house, sink, invoice(), "shop", "billing@example.com"),
    ]
    assert not any(re.search(rb"(?mi)^arc-", content) for content in own)
    assert len(re.findall(rb"(?mi)^arc-", sealed)) == len(ARC)
    assert accepted([sealed, *own], records, tmp_path)


# whose mail it is


@pytest.mark.req("LAW-US-04", "SMTP-25")
def test_a_foreign_author_is_refused_and_a_helpdesk_or_an_odd_id_is_not(house: Gateway, sink: Sink) -> None:
    for login, author in (
        ("news", "ann@gmail.example"),
        ("news", "letters@newsexample.com"),
        ("shop", "ann@bücher.example"),
    ):
        content = newsletter(READER, sender=author)
        with house.smtp(login) as client:
            client.mail(f"{'letters@news' if login == 'news' else 'ann@txn'}.example.com", ["SMTPUTF8"])
            client.rcpt(READER)
            code, text = client.data(content)
        assert (code, text[:22]) == (550, b"5.7.1 class-mismatch: "), (author, text)
    elsewhere = b"Reply-To: Help <support@helpdesk.example.net>\r\n" + re.sub(
        rb"Message-ID: <[^>]+>", b"Message-ID: <4711@localhost>", newsletter(READER)
    )
    content = relayed(house, sink, elsewhere, "news", "letters@news.example.com")
    assert field_of(content, "Reply-To") == [b"Reply-To: Help <support@helpdesk.example.net>\r\n"]
    assert field_of(content, "Message-ID") == [b"Message-ID: <4711@localhost>\r\n"]


@pytest.mark.req("DMARC-01", "DMARC-03")
def test_a_receiver_finds_the_author_aligned_by_dkim_alone(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    policies = {
        "_dmarc.example.com": "v=DMARC1; p=reject; sp=quarantine; np=reject; t=n",
        "_dmarc.news.example.com": "v=DMARC1; p=reject; adkim=s",
        "_dmarc.xn--bcher-kva.example": "v=DMARC1; p=reject",
    }
    bill = invoice().replace(b"billing@example.com", b"ann@txn.example.com")
    books = newsletter(READER, sender="ann@xn--bcher-kva.example")
    copies = [
        relayed(house, sink, newsletter(READER), "news", "letters@news.example.com"),
        relayed(house, sink, bill, "shop", "ann@txn.example.com"),
        relayed(house, sink, books, "books", "ann@xn--bcher-kva.example"),
    ]
    copies.append(copies[1].replace(b"amount", b"total"))
    judged = receivers_view(copies, records | policies, tmp_path)
    assert [one["dmarc"] for one in judged] == ["pass", "pass", "pass", "fail"]
    assert [one["aligned"] for one in judged[:3]] == ["news.example.com", "example.com", "xn--bcher-kva.example"]
    assert [one["policy"] for one in judged] == ["reject", "quarantine", "reject", "quarantine"]


def receivers_view(contents: Sequence[bytes], records: Mapping[str, str], scratch: Path) -> list[dict[str, Any]]:
    if not (PEERS / "node_modules" / "mailauth").is_dir():
        pytest.skip("npm mailauth is not installed (tests/peers)")
    (scratch / "records.json").write_text(json.dumps(records))
    files = [scratch / f"seen-{n}.eml" for n in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    command = ["node", str(PEERS / "verify_dmarc.mjs"), str(scratch / "records.json"), *map(str, files)]
    judged: list[dict[str, Any]] = json.loads(
        subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    )
    return judged


# rotation


@pytest.mark.req("DKIM-16")
def test_a_key_is_replaced_under_load_and_no_signature_fails(shared_sink: Sink, sink: Sink, tmp_path: Path) -> None:
    """What is signed by the old key verifies as long as its record is listed, which it is until its line is removed."""
    house = Gateway(tmp_path / "house", shared_sink.url, workers=2).prepare().start()
    load = Load(house)
    try:
        eventually(lambda: len(sink.messages) > 10, 60)
        told = house.json("dkim", "new", "example.com", "--selector", "s2")
        house.write_config(dkim=told["config"])
        published = {one["name"]: one["record"] for one in house.json("dkim", "dns")}
        assert published.keys() == {"s1._domainkey.example.com", "s2._domainkey.example.com"}
        assert published[told["name"]] == told["record"]
        reload(house)
        eventually(lambda: {selectors_of(one.content) for one in sink.messages[-20:]} == {("s2",)}, 60)
        house.write_config(dkim=told["config"].replace(", signs = false", ""))
        reload(house)
        eventually(lambda: ("s2", "s1") in selectors(sink), 60)
    finally:
        load.end()
        house.close()
    assert load.problems == []
    assert selectors(sink) == {("s1",), ("s2",), ("s2", "s1")}
    assert accepted([one.content for one in sink.messages], published, tmp_path)


class Load:
    """Invoices, one after another, until it is ended; what is answered other than 250 is kept."""

    def __init__(self, house: Gateway) -> None:
        self.problems: list[object] = []
        self._house = house
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(60)

    def _submit(self) -> None:
        while not self._is_over.wait(0.02):
            try:
                said = self._house.submit(invoice(), [READER], login="shop", sender="billing@example.com")
            except (smtplib.SMTPException, OSError):
                continue  # a crew that leaves ends its sessions
            if said[""][0] != 250:
                self.problems.append(said)


def reload(house: Gateway) -> None:
    assert house.process is not None
    house.process.send_signal(signal.SIGHUP)


def selectors_of(content: bytes) -> tuple[str, ...]:
    return tuple(tags["s"] for tags in signatures(content))


def selectors(sink: Sink) -> set[tuple[str, ...]]:
    return {selectors_of(one.content) for one in list(sink.messages)}


@pytest.mark.req("DKIM-16")
def test_a_domain_needs_a_key_that_signs(house: Gateway) -> None:
    text = house.config.read_text()
    try:
        house.config.write_text(text.replace('news.example.com.n1.pem" }', 'news.example.com.n1.pem", signs = false }'))
        done = house.run("serve", check=False)
    finally:
        house.config.write_text(text)
    assert done.returncode == 78
    assert re.search(r"config\.toml:\d+: dkim\.\"news\.example\.com\".*: no key signs any more; ", done.stderr), (
        done.stderr
    )


@pytest.mark.req("DKIM-07")
def test_a_key_of_ed25519_that_has_gone_leaves_the_signature_of_rsa(
    house: Gateway, sink: Sink, records: dict[str, str], tmp_path: Path
) -> None:
    key = house.folder / "var/dkim/example.com.e1.pem"
    key.rename(tmp_path / "e1.pem")
    reload(house)
    eventually(lambda: "e1.pem" in house.log.read_text(), 60)
    eventually(lambda: selectors_of(after_a_reload(house, sink)) == ("s1",), 60)
    content = relayed(house, sink, invoice(), "shop", "billing@example.com")
    assert accepted([content], records, tmp_path)


def after_a_reload(house: Gateway, sink: Sink) -> bytes:
    """Return an invoice's copy; a session that a leaving crew ends is begun anew."""
    while True:
        try:
            return relayed(house, sink, invoice(), "shop", "billing@example.com")
        except (smtplib.SMTPException, OSError):
            time.sleep(0.1)
