"""What statutes say about opting out, from outside: how long a link lives, how fast and by what ways a "no" counts."""

from __future__ import annotations

import email
import email.policy
import json
import re
import smtplib
from collections.abc import Callable, Iterator
from itertools import count
from urllib.parse import urlsplit

import pytest

from tests.conftest import MakeGateway
from tests.faketime import shifted
from tests.gateway_under_test import (
    TOPIC,
    Gateway,
    eventually,
    fetch,
    field_of,
    newsletter,
    token_of,
)
from tests.sink import Sink

Someone = Callable[[], str]
_names = count(1)


def copy_for(house: Gateway, sink: Sink, reader: str) -> bytes:
    """Return the newsletter as it reached a reader who has just opted in."""
    house.opt_in(reader)
    assert house.outcome(reader) == "sent"
    return eventually(lambda: [one.content for one in sink.messages if reader in one.recipients])[0]


@pytest.mark.req("UNS-25", "LAW-US-02", "LAW-CA-04", "LAW-AU-01")
def test_a_link_works_for_years_after_the_last_mail_that_carried_it(
    make_gateway: MakeGateway, sink: Sink, someone: Someone
) -> None:
    house = make_gateway().start()
    readers = [someone() for _ in range(3)]
    tokens = [token_of(copy_for(house, sink, one)) for one in readers]
    house.stop()
    for shift, reader, token in zip(("+61d", "+400d", "+1826d"), readers, tokens, strict=True):
        house.environment = shifted(shift)
        house.start()
        assert house.get(f"/u/{token}").status == 200
        assert house.one_click(token).status == 200
        assert house.outcome(reader) == "unsubscribed"
        house.stop()


@pytest.mark.req("LAW-US-01", "LAW-AU-01", "UNS-29")
def test_an_opt_out_counts_from_its_answer_on_and_brings_no_mail(
    gateway: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    token = token_of(copy_for(gateway, sink, reader))
    sink.clear()
    assert gateway.one_click(token).status == 200
    assert gateway.outcome(reader) == "unsubscribed"
    witness = someone()
    copy_for(gateway, sink, witness)
    assert not [one for one in sink.messages if reader in one.recipients], "nothing tells them that they have left"


@pytest.mark.req("POL-07")
def test_the_link_is_seen_in_each_alternative_and_leads_out(gateway: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    message = email.message_from_bytes(copy_for(gateway, sink, reader), policy=email.policy.default)
    parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
    assert set(parts) == {"text/plain", "text/html"}
    links = {kind: re.findall(r'https://mail\.example\.com/u/[^\s"<>]+', text) for kind, text in parts.items()}
    assert all(links.values()), "one for those who read text, one for those who read HTML"
    shown = re.search(r"<a [^>]*/u/[^>]*>([^<]+)</a>", parts["text/html"])
    assert shown and "nsubscribe" in shown[1] and "nsubscribe" in parts["text/plain"]
    header = message["List-Unsubscribe"]
    (path,) = {urlsplit(one).path for found in links.values() for one in found}
    assert path in header
    page = gateway.get(path)
    assert page.status == 200 and "<form" in page.text
    assert gateway.outcome(reader) == "sent", "looking changes nothing"
    sink.wait_for(2)
    button = re.findall(r'<button type="submit" name="scope" value="([a-z-]+)"', page.text)[0]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert gateway.post(path, f"scope={button}".encode(), **form).status == 200
    assert gateway.outcome(reader) == "unsubscribed"


@pytest.mark.req("LAW-EU-02", "LAW-AU-02")
def test_leaving_takes_one_step_and_asks_nothing(gateway: Gateway, sink: Sink, someone: Someone) -> None:
    reader = someone()
    token = token_of(copy_for(gateway, sink, reader))
    page = gateway.get(f"/u/{token}")
    assert "Set-Cookie" not in page.headers
    assert not re.findall(r"<(?:input|select|textarea|script)\b", page.text), (
        "no field to fill in, no login, no captcha"
    )
    button = re.findall(r'<button type="submit" name="scope" value="([a-z-]+)"', page.text)[0]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert gateway.post(f"/u/{token}", f"scope={button}".encode(), **form).status == 200
    assert gateway.outcome(reader) == "unsubscribed"


@pytest.fixture(scope="module")
def api_token(shared_gateway: Gateway) -> Iterator[str]:
    yield shared_gateway.json("tokens", "add", f"statutes{next(_names)}", "--scopes", "record")["token"]


def by_link(house: Gateway, copy: bytes, reader: str) -> None:
    assert house.one_click(token_of(copy)).status == 200


def by_mail(house: Gateway, copy: bytes, reader: str) -> None:
    (target,) = re.findall(rb"<mailto:([^?>]+)", b"".join(field_of(copy, "List-Unsubscribe")))
    with smtplib.SMTP("127.0.0.1", house.feedback, timeout=20) as client:
        client.sendmail(reader, [target.decode()], b"From: <%b>\r\nSubject: unsubscribe\r\n\r\n" % reader.encode())


def by_command(house: Gateway, copy: bytes, reader: str) -> None:
    house.run("suppressions", "add", reader, "--scope", "all-marketing", "--reason", "objected")


@pytest.mark.req("LAW-EU-01", "POL-08")
@pytest.mark.parametrize("way", [by_link, by_mail, by_command])
def test_an_objection_needs_no_reason_whatever_way_it_comes(
    gateway: Gateway, sink: Sink, someone: Someone, way: Callable[[Gateway, bytes, str], None]
) -> None:
    reader = someone()
    way(gateway, copy_for(gateway, sink, reader), reader)
    assert gateway.outcome(reader) in ("unsubscribed", "objected")


@pytest.mark.req("LAW-EU-01", "POL-08")
def test_a_program_objects_for_a_person_without_a_reason(
    gateway: Gateway, sink: Sink, someone: Someone, api_token: str
) -> None:
    reader = someone()
    copy_for(gateway, sink, reader)
    said = json.dumps({"address": reader}).encode()
    headers = {"Authorization": f"Bearer {api_token}", "Content-Type": "application/json"}
    assert fetch(f"http://127.0.0.1:{gateway.console}/api/v1/withdrawals", "POST", said, headers).status == 201
    assert gateway.outcome(reader) == "unsubscribed"


@pytest.mark.req("LAW-UK-02")
def test_no_octet_for_a_refused_recipient_reaches_the_smarthost(gateway: Gateway, sink: Sink, someone: Someone) -> None:
    reader, stranger, left = someone(), someone(), someone()
    gateway.opt_in(reader, left)
    gateway.run("suppressions", "add", left, "--scope", "topic", "--topic", TOPIC, "--reason", "unsubscribed")
    replies = gateway.submit(newsletter(reader), [stranger, reader, left])
    assert {who: code for who, (code, _) in replies.items()} == {stranger: 550, left: 550, "": 250}
    sink.wait_for(1)
    spoken = "\n".join(sink.commands)
    assert reader in spoken and stranger not in spoken and left not in spoken


@pytest.mark.req("POL-19")
def test_a_page_is_not_shown_in_the_clear_and_a_no_is_taken_all_the_same(
    gateway: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    token = token_of(copy_for(gateway, sink, reader))
    in_clear = {"X-Forwarded-Proto": "http"}
    for path in (f"/u/{token}", "/policy", "/a/anything", "/.well-known/security.txt", "/nowhere"):
        answer = gateway.get(path, **in_clear)
        assert (answer.status, answer.text) == (403, "This site is served over TLS only.\n")
        assert answer.headers["Strict-Transport-Security"]
    assert gateway.get(f"/u/{token}", **{"X-Forwarded-Proto": "https"}).status == 200
    assert gateway.get("/healthz", **in_clear).status == 200
    assert gateway.post(f"/u/{token}", b"List-Unsubscribe=One-Click", **in_clear).status == 200
    assert gateway.outcome(reader) == "unsubscribed"


@pytest.mark.req("LAW-US-08")
def test_no_mail_goes_out_in_the_name_of_another_domain_or_with_a_header_that_says_two_things(
    gateway: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = someone()
    gateway.opt_in(reader)
    for author in ("ceo@bank.example", "news@example.com.evil.example", "letters@news.example.org"):
        replies = gateway.submit(newsletter(reader, sender=author), [reader])
        assert replies[""][0] == 550 and replies[""][1].startswith("5.7.1 class-mismatch: "), author
    honest = newsletter(reader)
    two_authors = honest.replace(b"\r\nTo:", b", Bank <ceo@bank.example>\r\nTo:", 1)
    assert gateway.submit(two_authors, [reader])[""][0] == 550
    for field in (b"From: Bank <ceo@bank.example>\r\n", b"Subject: Re: your account\r\n", b"Date: Mon, 1 Jan 2024\r\n"):
        code, text = gateway.submit(field + honest, [reader])[""]
        assert code == 554 and text.startswith("5.6.0 content: "), field
    other = b"Reply-To: desk@helpdesk.example\r\n" + honest
    assert gateway.submit(other, [reader])[""][0] == 250
    assert all(one.envelope_from.endswith("@news.example.com") for one in sink.wait_for(1))
