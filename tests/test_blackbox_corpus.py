"""Six hundred messages, real and composed, through one gateway: as account mail, and as promotion.

All are submitted and relayed once, over a few connections; the tests then look at what came of each. Nothing legal is
refused as account mail and nothing of it is changed; what is promotion is stamped once and otherwise whole; and
three judges accept every signature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

import pytest

from tests.corpus import Specimen, specimens
from tests.gateway_under_test import Gateway, eventually
from tests.judges import dissenters, three_judges
from tests.raw_smtp import RawSmtp, Said
from tests.sink import Sink

CONNECTIONS = 4
LONGEST_LINE = 998
SPECIMENS = specimens()
LEGAL = [one for one in SPECIMENS if not one.fault]
STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    brake = "none"
    [streams.receipts]
    class = "account"
    from = ["*@news.example.com"]
    """
GOES = re.compile(
    rb"(?mi)^(?:assent-[!-9;-~]*|bcc|list-[!-9;-~]*|dkim-signature|x-campaign)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*"
)
"""Fields that come or go: ours, and of other systems' the one that stands in the corpus (docs/message-path.md)."""

CANNOT_CARRY = re.compile(
    r"5\.7\.0 content: (?:no part of this promotional message can carry its unsubscribe link|"
    r"its Subject begins as a reply's or a forwarded message's, and it answers none \(CLS-08\)) "
    r"\(decision \w+, see \S+\)"
)
"""Why some of it cannot be promotion: sealed, or no text at all; a reply that is none."""

MENDED = {
    "032 of libpython3.11-testsuite": (b"\r\ncounter to RFC 2822", b"\r\n\r\ncounter to RFC 2822"),
    "087 of golang-github-jhillyerd-enmime-dev": (b"\r\nThis is a multi", b"\r\n\r\nThis is a multi"),
    "140 of golang-github-gatherstars-com-jwz-dev": (b"From fork-admin@xent.com  Fri Sep  6 11:42:31 2002\r\n", b""),
    "156 of golang-github-gatherstars-com-jwz-dev": (b"From fork-admin@xent.com  Tue Sep 17 17:22:15 2002\r\n", b""),
    "odd-headers": (b"\r\nFROM : ", b"\r\nFROM: "),
}
"""What is no header field, and how it leaves (docs/decisions/0023-where-a-header-ends.md)."""


@dataclass(frozen=True)
class Fate:
    """What came of a specimen: the answer to its final dot, and what the sink got."""

    specimen: Specimen
    answer: Said
    copy: bytes

    @property
    def said(self) -> str:
        return f"{self.specimen.name}: {self.answer}"


@dataclass(frozen=True)
class Played:
    """All fates, as account mail and as promotion, and where they are written down."""

    house: Gateway
    records: dict[str, str]
    account: list[Fate]
    promotion: list[Fate]


@pytest.fixture(scope="module")
def played(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    house = Gateway(tmp_path_factory.mktemp("corpus") / "house", shared_sink.url, sections={"streams": STREAMS})
    house.prepare_files()
    house.run("migrate")
    house.add_login("news", "newsletter")
    house.add_login("shop", "receipts")
    house.opt_in(*(reader("news", n) for n in range(len(SPECIMENS))))
    house.start()
    shared_sink.clear()
    answers = {login: submitted(house, login) for login in ("shop", "news")}
    expected = sum(said.code == 250 for each in answers.values() for said in each)
    copies = {one.recipients[0]: one.content for one in shared_sink.wait_for(expected, timeout=120)}
    fates = {
        login: [
            Fate(specimen, answers[login][n], copies.get(reader(login, n), b"")) for n, specimen in enumerate(SPECIMENS)
        ]
        for login in answers
    }
    assert shared_sink.faults == []
    records = {one["name"]: one["record"] for one in house.json("dkim", "dns")}
    yield Played(house, records, fates["shop"], fates["news"])
    house.close()


def reader(login: str, n: int) -> str:
    return f"{login}-{n}@example.org"


def submitted(house: Gateway, login: str) -> list[Said]:
    """Submit every specimen to a reader of its own; return the answers in their order."""

    def share(first: int) -> list[Said]:
        with RawSmtp(house.submission) as client:
            client.ehlo()
            assert client.login(login, house.passwords[login]).code == 235
            return [
                client.transact(re.sub(rb"(?m)^\.", b"..", SPECIMENS[n].content), [reader(login, n)])
                for n in range(first, len(SPECIMENS), CONNECTIONS)
            ]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = list(pool.map(share, range(CONNECTIONS)))
    return [shares[n % CONNECTIONS][n // CONNECTIONS] for n in range(len(SPECIMENS))]


def legal(fates: list[Fate]) -> list[Fate]:
    return [fate for fate in fates if not fate.specimen.fault]


def relayed(fates: list[Fate]) -> list[Fate]:
    return [fate for fate in fates if fate.copy]


def body_of(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def kept_header(content: bytes) -> bytes:
    return GOES.sub(b"", content.partition(b"\r\n\r\n")[0] + b"\r\n")


def is_overlong(octets: bytes) -> bool:
    return any(len(line) > LONGEST_LINE for line in octets.split(b"\r\n"))


@pytest.mark.req("HDR-08", "SMTP-07", "CLS-13")
def test_only_what_no_server_may_take_is_refused_as_account_mail(played: Played) -> None:
    refused = [fate for fate in played.account if fate.answer.code != 250]
    assert len(LEGAL) >= 400
    assert {fate.specimen.name for fate in refused} == {one.name for one in SPECIMENS if one.fault}, [
        fate.said for fate in refused if not fate.specimen.fault
    ]
    for fate in refused:
        assert (fate.answer.code, len(fate.answer.lines)) in ((554, 1), (550, 1)), fate.said
        assert re.match(r"5\.6\.0 [^.]+", fate.answer.text), fate.said


@pytest.mark.req("HDR-07", "DKIM-10", "CLS-13")
def test_account_mail_leaves_octet_for_octet(played: Played) -> None:
    changed = []
    for fate in legal(played.account):
        ours = fate.specimen.content.replace(*MENDED.get(fate.specimen.name, (b"", b"")))
        ending = b"" if ours.endswith(b"\r\n") else b"\r\n"
        if not is_overlong(ours) and body_of(fate.copy) != body_of(ours) + ending:
            changed.append(fate.specimen.name)
        if not is_overlong(ours) and not kept_header(fate.copy).endswith(kept_header(ours)):
            changed.append(f"header of {fate.specimen.name}")
    assert changed == []


def test_what_has_too_long_lines_reads_as_before(played: Played) -> None:
    mended = [fate for fate in legal(played.account) if is_overlong(fate.specimen.content)]
    assert mended and not any(is_overlong(fate.copy) for fate in mended)
    for fate in mended:
        assert decoded(fate.copy) == decoded(fate.specimen.content), fate.said


def decoded(content: bytes) -> list[object]:
    return [part.get_payload(decode=True) for part in leaves(message_from_bytes(content))]


@pytest.mark.req("UNS-01", "UNS-34", "HDR-01")
def test_promotion_leaves_with_one_way_out_or_is_refused_in_a_sentence(played: Played) -> None:
    refused = [fate for fate in legal(played.promotion) if fate.answer.code != 250]
    for fate in refused:
        assert fate.answer.code == 550 and CANNOT_CARRY.fullmatch(fate.answer.text), fate.said
    assert len(relayed(played.promotion)) == len(LEGAL) - len(refused) >= 400
    for fate in relayed(played.promotion):
        header = fate.copy.partition(b"\r\n\r\n")[0]
        for name in (b"list-unsubscribe", b"list-unsubscribe-post", b"list-id"):
            assert len(re.findall(rb"(?mi)^%b[ \t]*:" % name, header)) == 1, fate.said


@pytest.mark.req("BODY-03", "HDR-07")
def test_what_promotion_does_not_show_stays_octet_for_octet(played: Played) -> None:
    changed = [
        fate.specimen.name
        for fate in relayed(played.promotion)
        if not is_overlong(fate.specimen.content) and hidden_parts(fate.copy) != hidden_parts(fate.specimen.content)
    ]
    assert changed == []


def hidden_parts(content: bytes) -> list[bytes]:
    """Return each part that is no text, as it is encoded, without the line ends around it."""
    return [
        str(part.get_payload()).encode("utf-8", "surrogateescape").strip()
        for part in leaves(message_from_bytes(content))
        if part.get_content_maintype() != "text"
    ]


def leaves(message: Message) -> Iterator[Message]:
    for part in message.walk():
        if not part.is_multipart():
            yield part


@pytest.mark.req("DKIM-01", "DKIM-08", "DKIM-10", "DKIM-12")
def test_three_judges_accept_every_signature(played: Played, tmp_path_factory: pytest.TempPathFactory) -> None:
    fates = {
        f"{kind}: {fate.specimen.name}": fate
        for kind in ("account", "promotion")
        for fate in relayed(getattr(played, kind))
    }
    copies = [fate.copy for fate in fates.values()]
    judged = three_judges(copies, played.records, tmp_path_factory.mktemp("judged"))
    assert len(copies) > 2 * 400
    assert dissenters(fates, judged) == {}


def test_nothing_has_crashed(played: Played) -> None:
    log = played.house.log.read_text()
    assert "Traceback" not in log and "unforeseen" not in log
    eventually(lambda: played.house.json("queue", "list") == [], 60)
