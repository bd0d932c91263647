"""What recipients and mailbox providers rely on, from the installed program: links, one-click, the page behind them.

Each test submits real mail, reads the copy that a strict sink got, and does with it what a stranger would. The judge
of an opt-out is the next RCPT.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import random
import re
import secrets
import smtplib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from gateway.errors import InvalidToken
from gateway.store.sqlite import DataFolder
from gateway.tokens import UnsubscribeTokens
from tests.conftest import MakeGateway
from tests.gateway_under_test import Gateway, eventually, field_of, invoice, link_of, newsletter, token_of
from tests.sink import Sink

READERS = 90
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = "application/x-www-form-urlencoded"
OFFERS = {"login": "offers", "sender": "shop@offers.example.com"}

NextReader = Callable[[], str]


@pytest.fixture(scope="module")
def _opted_in(shared_gateway: Gateway) -> Iterator[str]:
    readers = [f"leaver{n}@example.org" for n in range(READERS)]
    shared_gateway.opt_in(*readers)
    shared_gateway.opt_in(*readers, topic="special-offers")
    shared_gateway.add_login("offers", "offers")
    return iter(readers)


@pytest.fixture
def reader(_opted_in: Iterator[str]) -> NextReader:
    """Name people who have opted in to both topics, and whom no other test uses."""
    return lambda: next(_opted_in)


def copies(gateway: Gateway, sink: Sink, readers: Sequence[str], message: bytes = b"") -> list[bytes]:
    """Send one newsletter to opted-in readers and return the copy of each."""
    sink.clear()
    assert gateway.submit(message or newsletter("readers@news.example.com"), readers)[""][0] == 250
    sink.wait_for(len(readers), 20)
    by_reader = {one.recipients: one.content for one in sink.messages}
    return [by_reader[(reader,)] for reader in readers]


def tokens(gateway: Gateway, sink: Sink, readers: Sequence[str]) -> list[str]:
    return [token_of(copy) for copy in copies(gateway, sink, readers)]


def verdicts(
    gateway: Gateway, readers: Sequence[str], *, login: str = "news", sender: str = "letters@news.example.com"
) -> list[str]:
    """Return what RCPT says of each reader now: "250", or the code and the slug of the refusal."""
    with gateway.smtp(login) as client:
        client.mail(sender)
        answers = [client.rcpt(reader) for reader in readers]
    return [str(code) if code == 250 else f"{code} {text.decode().split(':')[0]}" for code, text in answers]


GOING, STOPPED = "250", "550 5.7.1 unsubscribed"


# -- the headers of a copy


@pytest.mark.req("UNS-01")
@pytest.mark.parametrize("supplied", [0, 1, 2])
def test_a_copy_has_one_of_each_header_however_many_were_submitted(
    gateway: Gateway, sink: Sink, reader: NextReader, supplied: int
) -> None:
    theirs = (
        b"List-Unsubscribe: <https://tool.example.net/out?id=1>,\r\n <mailto:out@tool.example.net>\r\n"
        b"list-unsubscribe-post: List-Unsubscribe=One-Click\r\n"
    )
    (copy,) = copies(gateway, sink, [reader()], theirs * supplied + newsletter("readers@news.example.com"))
    assert len(field_of(copy, "List-Unsubscribe")) == 1
    assert len(field_of(copy, "List-Unsubscribe-Post")) == 1
    assert b"tool.example.net/out" not in copy


@pytest.mark.req("UNS-02", "UNS-04", "UNS-06", "UNS-08")
def test_list_unsubscribe_is_https_then_mailto_in_brackets_and_the_post_header_is_one_line(
    gateway: Gateway, sink: Sink, reader: NextReader
) -> None:
    (copy,) = copies(gateway, sink, [reader()])
    (field,) = field_of(copy, "List-Unsubscribe")
    url_safe = rb"[A-Za-z0-9._~:/?#\[\]@!$&'()*+;=%-]+"
    assert re.fullmatch(rb"List-Unsubscribe: <%b>(?:,(?:\r\n)?[ \t]+<%b>)*\r\n" % (url_safe, url_safe), field)
    uris = re.findall(rb"<([^>]*)>", field)
    assert [uri.partition(b":")[0] for uri in uris] == [b"https", b"mailto"]
    assert len(uris[0]) <= 100
    assert len(token_of(copy)) <= 64
    assert field_of(copy, "List-Unsubscribe-Post") == [b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"]


def relisted(keys: str) -> dict[str, str]:
    """Return the section of the newsletter's stream with further keys."""
    return {
        "streams": f"""
            [streams.newsletter]
            class = "promotional"
            topics = ["product-announcements"]
            from = ["*@news.example.com"]
            {keys}
            [streams.billing]
            class = "account"
            from = ["billing@example.com"]
            """
    }


@pytest.mark.req("UNS-03", "UNS-05")
@pytest.mark.parametrize(("keys", "order"), [("", ["https", "mailto"]), ("mailto_first = true", ["mailto", "https"])])
def test_the_order_of_preference_is_configured_and_either_way_unsubscribes(
    make_gateway: MakeGateway, sink: Sink, keys: str, order: list[str]
) -> None:
    gateway = make_gateway(relisted(keys))
    readers = ["clicks@example.org", "writes@example.org"]
    gateway.opt_in(*readers)
    gateway.start()
    for_click, for_mail = copies(gateway, sink, readers)
    (field,) = field_of(for_mail, "List-Unsubscribe")
    uris = [uri.decode("ascii") for uri in re.findall(rb"<([^>]*)>", field)]
    assert [uri.partition(":")[0] for uri in uris] == order
    assert gateway.one_click(token_of(for_click)).status == 200
    (mailto,) = [urlsplit(uri) for uri in uris if uri.startswith("mailto:")]
    with smtplib.SMTP("127.0.0.1", gateway.feedback, timeout=20) as client:
        client.sendmail(
            "writes@example.org", [mailto.path], b"From: writes@example.org\r\nSubject: unsubscribe\r\n\r\n"
        )
    assert verdicts(gateway, readers) == [STOPPED, STOPPED]


@pytest.mark.parametrize("mailbox", ["postmaster", "Abuse"])
def test_who_writes_to_a_person_at_the_feedback_domain_is_told_where_people_read(
    gateway: Gateway, mailbox: str
) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.feedback, timeout=20) as client:
        client.ehlo()
        assert client.mail("reader@example.org")[0] == 250
        told = client.rcpt(f"{mailbox}@bounce.example.com")
    assert told == (551, b"5.1.6 nobody reads mail at this domain; please try <privacy@example.com>")


TO_ALL = "To: Ann <ann@example.org>, bob@example.org\r\nCc: Readers <list@news.example.com>, cyd@example.org"
ALL = ["ann@example.org", "bob@example.org", "cyd@example.org"]


def to_all(message_id: str) -> bytes:
    message = newsletter("everybody").replace(b"To: everybody", TO_ALL.encode())
    return re.sub(rb"(?<=Message-ID: )\S+", message_id.encode(), message)


@pytest.mark.req("UNS-31", "UNS-32", "UNS-33")
def test_copies_of_one_submission_name_one_reader_each_and_have_ids_that_lead_back(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway()
    gateway.opt_in(*ALL)
    gateway.start()
    ours = "<4711@tool.example.net>"
    got = copies(gateway, sink, ALL, to_all(ours))
    addressed = [(field_of(one, "To"), field_of(one, "Cc")) for one in got]
    listed = b"Cc: Readers <list@news.example.com>"
    assert addressed == [
        ([b"To: Ann <ann@example.org>\r\n"], [listed + b"\r\n"]),
        ([b"To: bob@example.org\r\n"], [listed + b"\r\n"]),
        ([b"To: cyd@example.org\r\n"], [listed + b",\r\n cyd@example.org\r\n"]),
    ]
    for reader, copy in zip(ALL, got, strict=True):
        assert not [other for other in ALL if other != reader and other.encode() in copy]
    ids = {identity for copy in got for identity in field_of(copy, "Message-ID")}
    assert len(ids) == len(ALL) and not [one for one in ids if ours.encode() in one]
    (alone,) = copies(gateway, sink, ALL[:1], to_all(ours))
    assert field_of(alone, "Message-ID") == [f"Message-ID: {ours}\r\n".encode()]
    assert field_of(alone, "To") + field_of(alone, "Cc") == [f"{one}\r\n".encode() for one in TO_ALL.split("\r\n")]


@pytest.mark.req("UNS-32")
def test_where_it_is_wished_a_message_that_names_others_is_refused(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway(relisted('other_recipients = "refuse"'))
    gateway.opt_in(*ALL)
    gateway.start()
    code, text = gateway.submit(to_all("<4712@tool.example.net>"), ALL)[""]
    assert (code, text.split(": ")[0]) == (550, "5.7.0 content")
    assert "names recipients" in text
    assert len(copies(gateway, sink, ALL, newsletter("list@news.example.com"))) == len(ALL)
    assert len(copies(gateway, sink, ALL[:1], to_all("<4713@tool.example.net>"))) == 1


def host_of_length(length: int) -> str:
    """Return a host name with labels of at most 63 octets."""
    name = "example.com"
    while rest := length - len(name):
        name = "m" * (rest - 1 if rest <= 64 else min(63, rest - 3)) + "." + name
    return name


@pytest.mark.req("UNS-07", "UNS-08")
def test_links_of_every_length_stand_whole_and_in_clear(make_gateway: MakeGateway, sink: Sink) -> None:
    bases = [
        "https://u.example.com",
        f"https://{host_of_length(120)}",
        f"https://{host_of_length(253)}",
        f"https://{host_of_length(253)}/{'p' * 138}",
    ]
    assert [len(base) for base in bases] == [21, 128, 261, 400]
    gateway = make_gateway()
    gateway.opt_in("far@example.org")
    for base in bases:
        site = f'[site]\nlisten = ["127.0.0.1:{gateway.site}"]\npublic_url = "{base}"'
        feedback = f'[feedback]\nlisten = ["127.0.0.1:{gateway.feedback}"]\ndomain = "{host_of_length(204)}"'
        gateway.write_config(site=site, feedback=feedback)
        gateway.start()
        (copy,) = copies(gateway, sink, ["far@example.org"])
        gateway.stop()
        (field,) = field_of(copy, "List-Unsubscribe")
        https, mailto = re.fullmatch(rb"List-Unsubscribe: <(\S+)>,\r\n[ \t]<(\S+)>\r\n", field).groups()
        assert re.fullmatch(rb"%b/u/[A-Za-z0-9_.-]{30,64}" % base.encode(), https)
        assert re.fullmatch(rb"mailto:[a-z0-9-]+@%b\?subject=unsubscribe" % host_of_length(204).encode(), mailto)
        assert b"=?" not in copy.partition(b"\r\n\r\n")[0]
        assert max(map(len, copy.split(b"\r\n"))) <= 998


@pytest.mark.req("UNS-31")
def test_three_recipients_make_three_transactions_with_a_link_each_of_their_own(
    gateway: Gateway, sink: Sink, reader: NextReader
) -> None:
    readers = [reader(), reader(), reader()]
    three = tokens(gateway, sink, readers)
    assert sorted(one.recipients for one in sink.messages) == sorted((one,) for one in readers)
    assert len(set(three)) == 3
    for n, token in enumerate(three):
        assert gateway.one_click(token).status == 200
        assert verdicts(gateway, readers) == [STOPPED] * (n + 1) + [GOING] * (2 - n)


@pytest.mark.req("UNS-34")
def test_no_other_class_of_mail_carries_a_one_click(make_gateway: MakeGateway, sink: Sink) -> None:
    classes = ["confirmation", "account", "requested", "policy-notice", "breach-notice", "system"]
    streams = [f'[streams.{one}]\nclass = "{one}"\nfrom = ["{one}@example.com"]' for one in classes]
    keep = (
        '[streams.newsletter]\nclass = "promotional"\ntopics = ["product-announcements"]\nfrom = ["*@news.example.com"]'
    )
    billing = '[streams.billing]\nclass = "account"\nfrom = ["billing@example.com"]'
    gateway = make_gateway({"streams": "\n".join([keep, billing, *streams])})
    gateway.add_login("all", ",".join(classes))
    gateway.opt_in("reader@example.org")
    gateway.publish_policy("2026-1")
    gateway.start()
    for one in classes:
        sender = f"{one}@example.com"
        message = invoice("reader@example.org").replace(b"billing@example.com", sender.encode())
        message = b"Assent-Policy-Version: 2026-1\r\n" + message
        assert gateway.submit(message, ["reader@example.org"], login="all", sender=sender)[""][0] == 250
    gateway.submit(newsletter(), ["reader@example.org"])
    marked = {
        one.envelope_from: bool(re.search(rb"(?im)^List-Unsubscribe|^List-Id|example\.com/u/", one.content))
        for one in sink.wait_for(len(classes) + 1)
    }
    assert marked == {**{f"{one}@example.com": False for one in classes}, "letters@news.example.com": True}


@pytest.mark.req("UNS-35")
def test_what_cannot_be_signed_waits_and_account_mail_still_flows(make_gateway: MakeGateway, sink: Sink) -> None:
    gateway = make_gateway()
    gateway.opt_in("reader@example.org")
    key = gateway.folder / "var/dkim/example.com.s1.pem"
    gateway.start()
    sink.hold()
    accepted = gateway.submit(newsletter(subject="Taken while there was a key"), ["reader@example.org"])
    assert accepted[""][0] == 250
    gateway.stop()
    key.rename(key.with_suffix(".away"))
    gateway.start()
    sink.release()
    sink.clear()
    code, text = gateway.submit(newsletter(), ["reader@example.org"])[""]
    assert (code, text[:18]) == (451, "4.7.5 cannot-sign:")
    (line,) = gateway.json("explain", text.partition("(decision ")[2][:26])
    assert (line["action"], line["reason"]) == ("defer", "cannot-sign")
    assert "cannot be signed now" in line["sentence"]
    assert gateway.submit(invoice(), ["reader@example.org"], login="shop", sender="billing@example.com")[""][0] == 250
    (only,) = sink.wait_for(1)
    assert only.envelope_from == "billing@example.com"
    waiting = accepted[""][1].split()[-1]
    tried = eventually(lambda: [one for one in gateway.json("queue", "show", waiting) if "4.7.5" in one["reply"]])
    assert tried[0]["outcome"] == "deferred"
    gateway.stop()
    key.with_suffix(".away").rename(key)
    gateway.start()
    late = sink.wait_for(2, 20)[1]
    assert b"Subject: Taken while there was a key\r\n" in late.content
    assert b"d=example.com" in field_of(late.content, "DKIM-Signature")[0]


# -- what a link says, and to whom


@pytest.mark.req("UNS-09")
def test_the_link_alone_names_the_reader_and_the_list(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    leaving, staying = reader(), reader()
    token, _ = tokens(gateway, sink, [leaving, staying])
    assert gateway.post(f"/u/{token}", b"").status == 200
    assert verdicts(gateway, [leaving, staying]) == [STOPPED, GOING]
    assert verdicts(gateway, [leaving, staying], **OFFERS) == [GOING, GOING]


class Guessing:
    """A gateway behind a trusted proxy, so that failures count against many networks and none is slowed down."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._line = http.client.HTTPConnection("127.0.0.1", gateway.site, timeout=20)
        self._networks = cycle(f"198.{n >> 8}.{n & 255}.7" for n in range(18 << 8, 20 << 8))

    def post(self, token: str) -> tuple[int, bytes]:
        headers = {"Content-Type": FORM, "X-Forwarded-For": next(self._networks)}
        self._line.request("POST", f"/u/{token}", ONE_CLICK, headers)
        answer = self._line.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def guessing(make_gateway: MakeGateway) -> Guessing:
    site = (
        '[site]\nlisten = ["127.0.0.1:{}"]\npublic_url = "https://mail.example.com"\ntrusted_proxies = ["127.0.0.1/32"]'
    )
    gateway = make_gateway()
    gateway.write_config(site=site.format(gateway.site))
    gateway.opt_in("alice.adams+4711@example.org")
    return Guessing(gateway.start())


def decoded(token: str) -> bytes:
    return b"".join(base64.urlsafe_b64decode(part + "==") for part in token.split("."))


def flipped(octets: bytes) -> Iterator[bytes]:
    """Yield the octets with each of their bits flipped in turn."""
    for bit in range(len(octets) * 8):
        changed = bytearray(octets)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


@pytest.mark.req("UNS-10")
def test_a_token_tells_nothing_and_neither_a_changed_nor_a_guessed_one_does_anything(
    guessing: Guessing, sink: Sink
) -> None:
    address = "alice.adams+4711@example.org"
    (token,) = tokens(guessing.gateway, sink, [address])
    assert_names_nobody(token, address)
    content, mac = map(decoded, token.split("."))
    forged = [quote(one, safe="") for one in flipped(token.encode())]
    forged += [spelled(changed[: len(content)], changed[len(content) :]) for changed in flipped(content + mac)]
    forged += [secrets.token_urlsafe(37)[:49] for _ in range(1_000)]
    forged += [spelled(content, secrets.token_bytes(len(mac))) for _ in range(1_000)]
    assert token not in forged
    assert {guessing.post(one) for one in forged} == {guessing.post("x")}
    assert guessing.post("x")[0] == 404
    assert verdicts(guessing.gateway, [address]) == [GOING]
    assert guesses_that_hit(guessing.gateway, token, 100_000) == 0
    assert guessing.post(token)[0] == 200
    assert verdicts(guessing.gateway, [address]) == [STOPPED]


def spelled(content: bytes, mac: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (content, mac))


def assert_names_nobody(token: str, address: str) -> None:
    """Fail if an address, a part of it or an unsalted digest of it stands in a token, in clear or decoded."""
    local, _, domain = address.partition("@")
    names = [address, local, domain, "alice", "4711", "example"]
    digests = [hashlib.new(kind, address.encode()) for kind in ("md5", "sha1", "sha256", "sha512")]
    for said in (token.encode(), decoded(token)):
        assert not [name for name in names if name.encode() in said.lower()]
        assert not [one.name for one in digests if one.digest()[:8] in said or one.hexdigest()[:12].encode() in said]


def guesses_that_hit(gateway: Gateway, token: str, count: int) -> int:
    """Ask the pure core, with the installation's own keys, how many guesses pass; half know whose link it is."""
    reads = UnsubscribeTokens(DataFolder(gateway.folder / "var", Path()).token_ring()).read_url
    assert reads(token)
    content = decoded(token.split(".")[0])
    hits = 0
    for n in range(count):
        try:
            reads(spelled(content if n % 2 else random.randbytes(19), random.randbytes(16)))
            hits += 1
        except InvalidToken:
            continue
    return hits


@pytest.mark.req("UNS-16", "LAW-US-03")
def test_what_a_sentence_or_a_tool_leaves_behind_a_link_breaks_none(
    gateway: Gateway, sink: Sink, reader: NextReader
) -> None:
    marks = [
        ".",
        ")",
        ").",
        ">",
        "%3E",
        "%22",
        ",",
        "*",
        "]",
        "!",
        "%E2%80%9D",
        "./",
        "&utm_source=news",
        ";jsessionid=1",
    ]
    readers = [reader() for _ in marks]
    for token, mark in zip(tokens(gateway, sink, readers), marks, strict=True):
        assert gateway.get(f"/u/{token}{mark}").text == gateway.get(f"/u/{token}").text, mark
        pressed = gateway.post(f"/u/{token}{mark}", b"scope=topic", **{"Content-Type": FORM})
        assert "You are unsubscribed" in pressed.text, mark
    assert verdicts(gateway, readers) == [STOPPED] * len(marks)


# -- behind a proxy


@pytest.mark.req("WEB-14")
def test_a_proxy_that_comes_through_an_ipv6_socket_is_the_proxy_that_is_trusted(
    make_gateway: MakeGateway, sink: Sink
) -> None:
    gateway = make_gateway()
    gateway.write_config(
        site=f"""
        [site]
        listen = ["[::]:{gateway.site}"]
        public_url = "https://mail.example.com"
        trusted_proxies = ["127.0.0.1/32"]
        """
    )
    gateway.opt_in("reader@example.org")
    gateway.start()
    (token,) = tokens(gateway, sink, ["reader@example.org"])
    told = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6, 203.0.113.9:51234"}
    assert gateway.get(f"/u/{token}", **told).status == 200
    assert gateway.post(f"/u/{token}", ONE_CLICK, **told).status == 200
    event = gateway.json("consent", "show", "reader@example.org")[-1]
    assert (event["type"], event["personal"]["ip"]) == ("UNSUBSCRIBE", "203.0.113.9")


# -- the one-click POST


@pytest.mark.req("UNS-11", "UNS-13")
def test_the_example_of_rfc_8058_and_a_barer_one_unsubscribe(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    readers = [reader(), reader()]
    example, bare = tokens(gateway, sink, readers)
    line = "POST /u/{} HTTP/1.1\r\nHost: example.com\r\n{}Content-Length: 26\r\nConnection: close\r\n\r\n"
    answers = [
        gateway.say(line.format(example, f"Content-Type: {FORM}\r\n").encode() + ONE_CLICK),
        gateway.say(line.format(bare, "").encode() + ONE_CLICK),
    ]
    assert [answer.status for answer in answers] == [200, 200]
    for answer in answers:
        assert not {"set-cookie", "www-authenticate", "location", "refresh"} & {name.lower() for name in answer.headers}
    assert verdicts(gateway, readers) == [STOPPED, STOPPED]


def multipart(boundary: str, end: str = "\r\n") -> bytes:
    lines = (f"--{boundary}", 'Content-Disposition: form-data; name="List-Unsubscribe"', "", "One-Click")
    return ("\r\n".join(lines) + f"\r\n--{boundary}--{end}").encode()


MULTIPART = {
    "trailing line break": ("boundary=xyz", multipart("xyz")),
    "no trailing line break": ("boundary=xyz", multipart("xyz", "")),
    "quoted boundary with spaces": ('boundary="a b(c)d"', multipart("a b(c)d", "")),
    "every legal character": ('charset=utf-8; boundary="0\'()+_,-./:=?zZ"', multipart("0'()+_,-./:=?zZ")),
    "seventy characters": (f"boundary={'b' * 70}", multipart("b" * 70)),
    "preamble and epilogue": ("boundary=xyz", b"preamble\r\n" + multipart("xyz") + b"epilogue\r\n"),
}


@pytest.mark.req("UNS-12")
def test_a_multipart_one_click_is_understood_in_every_spelling(
    gateway: Gateway, sink: Sink, reader: NextReader
) -> None:
    readers = [reader() for _ in MULTIPART]
    for token, (parameters, body) in zip(tokens(gateway, sink, readers), MULTIPART.values(), strict=True):
        answer = gateway.post(f"/u/{token}", body, **{"Content-Type": f"multipart/form-data; {parameters}"})
        assert (answer.status, answer.text) == (200, gateway.one_click(token).text), parameters
    assert verdicts(gateway, readers) == [STOPPED] * len(MULTIPART)


@pytest.mark.req("UNS-14")
def test_a_post_is_never_redirected(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    paths = ["{url}", "{path}", "{path}/", "{path}?utm_source=mail", "http://MAIL.EXAMPLE.COM{path}"]
    hosts = [
        "Host: mail.example.com",
        "Host: MAIL.EXAMPLE.COM",
        "Host: 127.0.0.1:8080",
        "Host: mail.example.com\r\nX-Forwarded-Proto: http\r\nX-Forwarded-For: 203.0.113.9",
        "Host: mail.example.com\r\nForwarded: for=203.0.113.9;proto=http;host=www.example.com",
        "Host: mail.example.com\r\nX-Forwarded-Host: www.example.com\r\nX-Forwarded-Port: 80\r\nVia: 1.1 proxy",
        "Host: mail.example.com\r\nAccept-Language: de\r\nUpgrade-Insecure-Requests: 1",
    ]
    readers = [reader() for _ in paths]
    for path, copy in zip(paths, copies(gateway, sink, readers), strict=True):
        url = link_of(copy)
        target = path.format(url=url, path=urlsplit(url).path)
        for host in hosts:
            head = f"POST {target} HTTP/1.1\r\n{host}\r\nConnection: close\r\nContent-Length: 26\r\n\r\n"
            answer = gateway.say(head.encode() + ONE_CLICK)
            assert answer.status == 200, (target, host)
            assert "Location" not in answer.headers
    assert verdicts(gateway, readers) == [STOPPED] * len(paths)
    for nowhere in ("/", "/u", "/u/", "/u/x", "/u/x/", "//u/x", "/login"):
        assert gateway.post(nowhere, ONE_CLICK).status == 404, nowhere


@pytest.mark.req("UNS-24")
def test_a_hundred_posts_at_once_are_one_event(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    leaving = reader()
    (token,) = tokens(gateway, sink, [leaving])
    with ThreadPoolExecutor(10) as providers:
        answers = list(providers.map(gateway.one_click, [token] * 100))
    assert [answer.status for answer in answers] == [200] * 100
    events = [event["type"] for event in gateway.json("consent", "show", leaving)]
    assert events.count("UNSUBSCRIBE") == 1


# -- the page


AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "WhatsApp/2.23.20.0",
    "Mozilla/5.0 (compatible; Google-Safety; +http://www.google.com/bot.html)",
    "BarracudaCentral/1.0",
    "",
]
ASIDES = [
    {},
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"},
    {"X-Moz": "prefetch"},
    {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"},
    {"X-HTTP-Method-Override": "POST"},
    {"Range": "bytes=0-10"},
]


@pytest.mark.req("UNS-15")
def test_a_thousand_safe_requests_change_nothing(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    staying = reader()
    (token,) = tokens(gateway, sink, [staying])
    before = gateway.json("consent", "show", staying)
    choose = random.Random(15).choice
    line = http.client.HTTPConnection("127.0.0.1", gateway.site, timeout=20)
    seen = set()
    for _ in range(1_000):
        method = choose(["GET", "GET", "HEAD", "OPTIONS", "PROPFIND"])
        headers = {"User-Agent": choose(AGENTS), **choose(ASIDES), "Content-Type": FORM}
        path = f"/u/{token}" + choose(["", "", "/", "?List-Unsubscribe=One-Click", "?scope=all-marketing"])
        line.request(method, path, choose([None, ONE_CLICK, b"scope=topic"]), headers)
        answer = line.getresponse()
        seen.add((method, answer.status))
        answer.read()
    assert seen == {("GET", 200), ("HEAD", 200), ("OPTIONS", 405), ("PROPFIND", 405)}
    assert verdicts(gateway, [staying]) == [GOING]
    assert gateway.json("consent", "show", staying) == before
    assert gateway.run("suppressions", "check", staying, check=False).returncode == 1


class Page(HTMLParser):
    """What a page holds that could act: forms with their fields and buttons, scripts, things fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.mark.req("UNS-16", "UNS-17", "UNS-18")
def test_the_page_is_one_form_of_buttons_and_nothing_on_it_acts_by_itself(
    gateway: Gateway, sink: Sink, reader: NextReader
) -> None:
    leaving = reader()
    (copy,) = copies(gateway, sink, [leaving])
    path = urlsplit(link_of(copy)).path
    answer = gateway.get(path)
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/html")
    page = Page(answer.text)
    (form,) = page.named("form")
    assert form["method"] == "post"
    assert form.get("action") in (None, path)
    assert page.named("input", "select", "textarea") == []
    first, *_ = page.named("button")
    assert first["type"] == "submit"
    assert page.named("script", "img", "iframe", "object", "embed", "video") == []
    assert not [one for one in page.named("meta") if "http-equiv" in one]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "Refresh" not in answer.headers
    assert verdicts(gateway, [leaving]) == [GOING]
    pressed = gateway.post(path, urlencode({first["name"]: first["value"]}).encode(), **{"Content-Type": FORM})
    assert (pressed.status, pressed.headers.get_content_type()) == (200, "text/html")
    assert "You are unsubscribed" in pressed.text
    assert verdicts(gateway, [leaving]) == [STOPPED]


# -- the log


@pytest.mark.req("WEB-06")
def test_no_log_line_tells_who_asked_for_what(gateway: Gateway, sink: Sink, reader: NextReader) -> None:
    leaving = reader()
    (copy,) = copies(gateway, sink, [leaving])
    token = token_of(copy)
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    told = {"Referer": "https://webmail.example.net/inbox?of=someone", "User-Agent": "Snooper/1.0 leaver-agent"}
    statuses = {
        gateway.get(f"/u/{token}", **told).status,
        gateway.get(f"/u/{forged}", **told).status,
        gateway.get(f"/u/{token}/{leaving}", **told).status,
        gateway.http("PROPFIND", f"/u/{token}", None, told).status,
        gateway.post(f"/u/{token}", b"x" * 10_000, **told).status,
        gateway.post(f"/u/{token}", ONE_CLICK, **told, **{"Content-Encoding": "gzip"}).status,
        gateway.post(f"/u/{token}?who={leaving}", ONE_CLICK, **told).status,
        *(gateway.say(request).status for request in unreadable(token, leaving)),
    }
    assert statuses == {200, 400, 404, 405, 413, 415}
    log = gateway.log.read_text()
    assert re.search(r"access: POST unsubscribe 413 ", log), "the requests were logged at all"
    local = leaving.partition("@")[0]
    secrets_told = [token, token.split(".")[0], forged, leaving, f"{local}%40", "webmail.example.net", "leaver-agent"]
    assert not [one for one in secrets_told if one in log]


def unreadable(token: str, address: str) -> list[bytes]:
    """Return requests that no parser takes; what an error quotes of them would tell."""
    return [
        f"GET /u/{token} HTTP/9.x\r\nHost: mail.example.com\r\n\r\n".encode(),
        f"POST /u/{token} HTTP/1.1\r\nHost: mail.example.com\r\nReferer {address}\r\n\r\n".encode(),
        f"POST /u/{token} HTTP/1.1\r\nHost: mail.example.com\r\nContent-Length: {address}\r\n\r\n".encode(),
        f"GET /u/{token} HTTP/1.1\r\nHost: m\r\nX-Padding: {address * 2_000}\r\n\r\n".encode(),
    ]
