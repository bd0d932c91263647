"""Ways around somebody's "no": other spellings of an address, labels that say two things, places where none counts.

Who is gone has opted in under every spelling that is tried, and then said "no" under one. The address that was checked
is the address on the wire, octet for octet.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.abuse import size
from tests.abuse.conftest import READERS, connect
from tests.gateway_under_test import Gateway, newsletter
from tests.raw_smtp import RawSmtp
from tests.sink import Sink

fuzzed = settings(
    max_examples=size(200, 35_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

GONE, GONE_ABROAD, OPEN = "gone@example.org", "größe.café@straße.example", "open@example.org"
SAME = [
    *(
        "GONE@example.org",
        "Gone@EXAMPLE.org",
        '"gone"@example.org',
        '"g\\one"@example.org',
        '"\\G\\O\\N\\E"@example.org',
    ),
    *(
        "gone@example.org.",
        "gone@example\N{IDEOGRAPHIC FULL STOP}org",
        "gone@ex\N{FULLWIDTH LATIN SMALL LETTER A}mple.org",
    ),
]
SAME_ABROAD = [
    *("GRÖSSE.CAFÉ@straße.example", "GRÖẞE.CAFÉ@STRAẞE.example", "größe.café@xn--strae-oqa.example"),
    *(unicodedata.normalize("NFD", "größe.café") + "@straße.example", "grösse.café@straße.EXAMPLE"),
    *('"größe.café"@straße.example', "GrÖßE.CaFé@XN--STRAE-OQA.example"),
]


@pytest.fixture(scope="module", autouse=True)
def said_no(abused: Gateway) -> Iterator[None]:
    """Two people say "yes" in every spelling, and then "no" to all marketing in one."""
    abused.opt_in(OPEN, GONE, GONE_ABROAD, *SAME, *SAME_ABROAD)
    for address in (GONE, GONE_ABROAD):
        abused.run("suppressions", "add", address, "--scope", "all-marketing", "--reason", "objected")
    yield


def offered(client: RawSmtp, path: str, login_sender: str = "letters@news.example.com") -> int:
    """Offer one recipient in a transaction of its own; return the code of the reply."""
    client.send(f"RSET\r\nMAIL FROM:<{login_sender}> SMTPUTF8\r\nRCPT TO:{path}\r\n".encode())
    assert [client.reply().code for _ in range(2)] == [250, 250]
    return client.reply().code


@pytest.mark.req("SUP-02")
@pytest.mark.parametrize("spelling", [GONE, GONE_ABROAD, *SAME, *SAME_ABROAD])
def test_a_no_counts_for_every_spelling_of_the_address(abused: Gateway, spelling: str) -> None:
    with connect(abused, "news") as client:
        client.send(f"MAIL FROM:<letters@news.example.com> SMTPUTF8\r\nRCPT TO:<{spelling}>\r\n".encode())
        assert client.reply().code == 250
        said = client.reply()
    assert said.code == 550
    assert said.text.startswith("5.7.1 objected: "), said


def recased(text: str) -> st.SearchStrategy[str]:
    pairs = [st.sampled_from([one.lower(), one.upper()]) for one in text]
    return st.tuples(*pairs).map("".join)


def quoted(text: str) -> st.SearchStrategy[str]:
    return st.tuples(*[st.sampled_from([one, f"\\{one}"]) for one in text]).map(lambda ones: '"' + "".join(ones) + '"')


def spelled(address: str) -> st.SearchStrategy[str]:
    """Return spellings of an ASCII address that mean the same mailbox."""
    local, _, domain = address.partition("@")
    dots = st.sampled_from(["", "."])
    return st.builds(
        lambda front, host, dot: f"{front}@{host}{dot}",
        recased(local) | recased(local).flatmap(quoted),
        recased(domain),
        dots,
    )


@fuzzed
@given(spelled(GONE))
def test_no_spelling_reaches_who_is_gone(abused: Gateway, spelling: str) -> None:
    with connect(abused, "news") as client:
        assert offered(client, f"<{spelling}>") == 550


TRICKS = [
    *(
        "<{gone}>,<{open}>",
        "<{open}> <{gone}>",
        "<{open}>, {gone}",
        "<{open},{gone}>",
        "<{open} {gone}>",
        "<@{host},@b.org:{gone}>",
    ),
    *(
        "<{open}(comment)>",
        "<(x){open}>",
        '<"x" {open}>',
        "{open}",
        "<{open}",
        "{open}>",
        "<<{open}>>",
        "< {open}>",
        "<{open} >",
    ),
    *(
        "<{open}\t>",
        "<{open}>X",
        "<{open}>\u00a0<{gone}>",
        "<{open}\0>",
        "<{open}\x0b>",
        "<{open}\u2028RCPT TO:<{gone}>>",
    ),
    *(
        "<{open}\x85>",
        "<{user}%{host}@relay.example.com>",
        "<relay.example.com!{user}>",
        "<{user}@{host}@{host}>",
        "<{user}@>",
    ),
    *(
        "<{user}@[127.0.0.1> <{gone}>]>",
        "<{user}\\@{host}>",
        "<=?utf-8?q?open?=@{host}>",
        "<{user}@{host}..>",
        "<{user}@.{host}>",
    ),
    "<{user}@{host}> ORCPT=rfc822;{gone} X={gone}",
]


@pytest.mark.req("SMTP-26")
@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_that_two_could_read_differently_is_refused(abused: Gateway, trick: str) -> None:
    user, _, host = OPEN.partition("@")
    path = trick.format(open=OPEN, gone=GONE, user=user, host=host)
    with connect(abused, "news") as client:
        assert offered(client, path) in (500, 501, 550, 553, 555)
        assert offered(client, f"<{OPEN}>") == 250


LOCALS = st.text(
    alphabet=st.sampled_from([*"ab.>< @,:;()[]\\\"'%!=+", "ü", "ß", "\u0301", "\u2028", "\x85", "\u212a"]), max_size=12
)


@fuzzed
@given(
    spelled(OPEN) | LOCALS.map(lambda text: f'"{text}"@example.org') | LOCALS.map(lambda text: f"{text}@example.org")
)
def test_the_address_that_was_checked_is_the_address_on_the_wire(abused: Gateway, sink: Sink, address: str) -> None:
    sink.clear()
    with connect(abused, "receipts") as client:
        code = offered(client, f"<{address}>")
        if code == 250:
            assert client.say("DATA").code == 354
            client.send(b"From: letters@news.example.com\r\n\r\nHello\r\n.\r\n")
            assert client.reply().code == 250
            (message,) = sink.wait_for(1)
            assert message.recipients == (address,)
    assert sink.faults == []


# labels

LABELS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Assent-Stream", "ASSENT-STREAM", "assent-stream ", "Assent-Class", "Assent-Topic", "X-Assent-Stream"]
        ),
        st.lists(
            st.sampled_from(
                [
                    *(
                        "receipts",
                        "RECEIPTS",
                        "newsletter",
                        "account",
                        "promotional",
                        "offers",
                        "product-announcements",
                        "\r\n ",
                        " ",
                    ),
                    *(
                        "\t",
                        ",",
                        ";",
                        "(receipts)",
                        '"receipts"',
                        "=?utf-8?q?receipts?=",
                        "=?utf-8?b?cmVjZWlwdHM=?=",
                        "\u00a0",
                        "\x0c",
                    ),
                    *("receipt", "s", "ſ", "\x85", "\u2028", "*", "system", "requested", "special-offers"),
                ]
            ),
            max_size=3,
        ).map("".join),
    ),
    max_size=4,
)


@pytest.mark.req("CLS-01", "CLS-12")
@fuzzed
@given(LABELS)
def test_only_a_clear_label_makes_mail_essential(abused: Gateway, sink: Sink, labels: list[tuple[str, str]]) -> None:
    """A stranger gets what is an account message beyond doubt; whatever is in doubt is promotion, and refused."""
    header = "".join(f"{name}: {value}\r\n" for name, value in labels)
    sink.clear()
    with connect(abused, "office") as client:
        said = client.transact(header.encode() + newsletter("stranger@example.org"), ["stranger@example.org"])
    assert said.code in (250, 550), said
    if said.code == 250:
        sink.wait_for(1)
        assert meant(labels, "assent-topic") <= {""}
        assert meant(labels, "assent-class") <= {"", "account"}
        assert meant(labels, "assent-stream") == {"receipts"} or meant(labels, "assent-class") == {"account"}


def meant(labels: list[tuple[str, str]], name: str) -> set[str]:
    """Return what the fields of that name say, unfolded."""
    values = [value for one, value in labels if one.strip().lower() == name]
    return {value.replace("\r\n", "").strip(" \t").lower() for value in values}


LABEL = b"Assent-Stream: receipts\r\n"
HIDDEN = {
    "in the body": (b"", LABEL),
    "in a part": (b"Content-Type: multipart/mixed; boundary=cut\r\n", b"--cut\r\n" + LABEL + b"\r\nHi\r\n--cut--\r\n"),
    "in a message in the message": (b"Content-Type: message/rfc822\r\n", LABEL + b"\r\nHi\r\n"),
    "in a comment": (b"X-Comment: (\r\n " + LABEL[:-2] + b")\r\n", b"Hi\r\n"),
    "in the subject": (b"Subject: News\r\n " + LABEL, b"Hi\r\n"),
    "after an encoded line end": (b"Subject: =?utf-8?q?=0D=0AAssent-Stream:_receipts=0D=0A?=\r\n", b"Hi\r\n"),
    "after NEL": (b"X-Any: x\xc2\x85" + LABEL, b"Hi\r\n"),
    "after LINE SEPARATOR": (b"X-Any: x\xe2\x80\xa8" + LABEL, b"Hi\r\n"),
}


@pytest.mark.req("CLS-01", "CLS-12")
@pytest.mark.parametrize("place", HIDDEN)
def test_a_label_counts_in_the_header_of_the_message_only(abused: Gateway, sink: Sink, place: str) -> None:
    header, body = HIDDEN[place]
    content = b"From: letters@news.example.com\r\n" + header + b"\r\n" + body
    with connect(abused, "office") as client:
        said = client.transact(content, ["stranger@example.org"])
        assert said.code == 550 and re.match(r"5\.7\.1 no-consent: ", said.text), said
        assert client.transact(LABEL + newsletter(READERS[0]), ["stranger@example.org"]).code == 250
    sink.wait_for(1)
