"""What the started program does with essential mail that reads as promotion, and with what promotion must not claim.

It is told by replies, by `assent explain`, `status` and `queue`, by the metrics, and by what a strict sink received.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.gateway_under_test import Gateway, eventually, fetch, newsletter, transact
from tests.sink import Sink

Someone = Callable[..., str]

STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    [streams.strict-news]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@strict.example.com"]
    claims_without_end = "refuse"
    [streams.trial-news]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@trial.example.com"]
    claims_without_end = "refuse"
    mode = "shadow"
    until = {datetime.now(UTC).date() + timedelta(days=30)}
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    [streams.support]
    class = "requested"
    from = ["support@example.com"]
    [streams.editor]
    class = "product"
    product = "editor"
    from = ["editor@example.com"]
    [streams.held-bills]
    class = "account"
    from = ["held@example.com"]
    reads_as_promotion = "hold"
    [streams.strict-bills]
    class = "account"
    from = ["strict@example.com"]
    reads_as_promotion = "refuse"
    [streams.strict-support]
    class = "requested"
    from = ["strict-support@example.com"]
    reads_as_promotion = "refuse"
    """
SENDERS = {
    "newsletter": "letters@news.example.com",
    "strict-news": "letters@strict.example.com",
    "trial-news": "letters@trial.example.com",
    "billing": "billing@example.com",
    "support": "support@example.com",
    "editor": "editor@example.com",
    "held-bills": "held@example.com",
    "strict-bills": "strict@example.com",
    "strict-support": "strict-support@example.com",
}
RECEIPT = "Thank you for your order. Your order #4711 has been shipped. Total: 10.00"
OFFER = "Save 20% on everything in our summer sale. Shop now!"
SURVEY = "How did we do? Take our short survey."
RESET = "Reset your password: https://example.com/reset/1"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(
        tmp_path_factory.mktemp("promotion") / "house",
        shared_sink.url,
        sections={"streams": STREAMS, "consent": '[consent]\nmarkets = ["US"]\n'},
    ).prepare()
    made.add_login("everything", ",".join(re.findall(r"streams\.([a-z-]+)", STREAMS)))
    yield made.start()
    made.close()


@pytest.fixture(scope="module")
def readers(house: Gateway) -> dict[str, str]:
    """One reader for each country that rules differ for, by a declared consent; the American owns the editor."""
    found = {country: f"reader-{country.lower()}@example.org" for country in ("US", "CA", "GB", "DE")}
    for country, address in found.items():
        house.run(
            *("consent", "record", address, "--topic", "product-announcements"),
            *("--basis", "confirmed", "--country", country),
        )
    house.run("customers", "add", found["US"], "--product", "editor")
    return found


def mail(stream: str, subject: str, body: str, *fields: str) -> bytes:
    head = [f"From: Example <{SENDERS[stream]}>", f"Subject: {subject}", "Date: Sun, 22 Nov 2026 10:00:00 +0000"]
    head += ["Message-ID: <promotion@example.net>", "Content-Type: text/plain; charset=utf-8", *fields]
    return ("\r\n".join([*head, "", body]) + "\r\n").encode()


def submit(house: Gateway, stream: str, subject: str, body: str, *recipients: str, fields: tuple[str, ...] = ()) -> str:
    """Submit a mail; return the reply to the final dot."""
    with house.smtp("everything") as client:
        replies = transact(client, mail(stream, subject, body, *fields), recipients, SENDERS[stream])
    code, text = replies[""]
    return f"{code} {text}"


def queued(reply: str) -> str:
    match = re.search(r"queued as (\S+)", reply)
    assert match, reply
    return match[1]


def lines(house: Gateway, reply: str, address: str) -> list[dict[str, Any]]:
    """Return what `assent explain` says of the message's decisions about an address, once it has been written."""
    message = re.search(r"queued as (\S+)|decision (\w+)", reply)
    assert message

    def found() -> list[dict[str, Any]]:
        done = house.run("--json", "explain", "<promotion@example.net>", address, check=False)
        told = json.loads(done.stdout) if done.returncode == 0 else []
        return [one for one in told if message[1] in (None, one["message"]) and message[2] in (None, one["id"])]

    return list(eventually(found))


def content(house: Gateway, reply: str, address: str) -> list[str]:
    (door,) = [one for one in lines(house, reply, address) if one["kind"] == "door"]
    assert "content" not in door or door["content_rules"].startswith(("signals/", "order/"))
    return door.get("content", [])  # type: ignore[no-any-return]


def reached(sink: Sink, readers: dict[str, str]) -> list[str]:
    """Return the country of each reader whom a message has reached, for each message; reports go elsewhere."""
    paths = [path for one in sink.messages for path in one.recipients]
    return [country for path in paths for country, address in readers.items() if address in path]


@pytest.mark.req("CLS-14")
@pytest.mark.req("POL-27")
@pytest.mark.parametrize(("stream", "kind"), [("billing", "account"), ("support", "requested")])
def test_account_and_requested_mail_that_reads_as_promotion_is_relayed_and_reported(
    house: Gateway, sink: Sink, readers: dict[str, str], stream: str, kind: str
) -> None:
    reply = submit(house, stream, "Your ticket", f"{OFFER}\r\n\r\nBest wishes, Ann", readers["US"])
    assert reply.startswith("250 ")
    sink.wait_for(1)
    (found,) = content(house, reply, readers["US"])
    assert "discount/en" in found
    flagged = house.json("status")["content_flagged"]
    assert [one for one in flagged if one["stream"] == stream and one["recipients"] >= 1]
    metrics = fetch(f"http://127.0.0.1:{house.console}/metrics").text
    (counted,) = re.findall(f'assent_content_flagged_total{{class="{kind}"}} (\\d+)', metrics)
    assert int(counted) >= 1


@pytest.mark.req("POL-27")
def test_a_banner_below_an_answer_is_reported_or_refused(house: Gateway, sink: Sink, readers: dict[str, str]) -> None:
    answer = "Your support request has been closed: the editor starts again.\r\n\r\n20% off all licences"
    reply = submit(house, "support", "Re: it does not start", answer, readers["US"])
    assert reply.startswith("250 ") and "discount/en" in content(house, reply, readers["US"])[0]
    refused = submit(house, "strict-support", "Re: it does not start", answer, readers["US"])
    assert refused.startswith("550 5.7.0 content: ")
    assert len(sink.wait_for(1)) == 1


@pytest.mark.req("POL-27")
@pytest.mark.req("CLS-06")
def test_a_stream_may_refuse_it_and_the_reply_names_the_rules(
    house: Gateway, sink: Sink, readers: dict[str, str]
) -> None:
    first, again = (submit(house, "strict-support", "Your ticket", OFFER, readers["US"]) for _ in range(2))
    assert first.startswith("550 5.7.0 content: ") and "discount/en" in first
    assert first.partition("(decision")[0] == again.partition("(decision")[0]
    assert "discount/en" in content(house, first, readers["US"])[0]
    assert not reached(sink, readers)


@pytest.mark.req("CLS-14")
def test_product_mail_that_reads_as_promotion_waits_until_it_is_released(
    house: Gateway, sink: Sink, readers: dict[str, str]
) -> None:
    message = queued(submit(house, "editor", "The editor", OFFER, readers["US"]))
    (waiting,) = house.json("queue", "list", "--held")
    assert (waiting["message"], waiting["state"]) == (message, "held") and "discount/en" in waiting["reply"]
    assert any("held" in one["alarm"] for one in house.json("status")["alarms"])
    plain = submit(house, "editor", "The editor", "Version 2.1 fixes a security problem in the editor.", readers["US"])
    assert plain.startswith("250 ")
    assert len(sink.wait_for(1)) == 1, "the held one stays"
    house.run("queue", "release", message)
    assert any(b"summer sale" in one.content for one in sink.wait_for(2))
    assert house.json("queue", "list", "--held") == []


@pytest.mark.req("CLS-14")
def test_a_password_reset_is_never_stopped(house: Gateway, sink: Sink, readers: dict[str, str]) -> None:
    everybody = list(readers.values())
    assert submit(house, "support", "Reset your password", f"{RESET}\r\n\r\n{OFFER}", *everybody).startswith("250 ")
    assert submit(house, "strict-support", "Reset your password", RESET, *everybody).startswith("250 ")
    eventually(lambda: len(reached(sink, readers)) == 2 * len(everybody))


@pytest.mark.req("CLS-14")
def test_what_a_reply_quotes_is_not_read(house: Gateway, sink: Sink, readers: dict[str, str]) -> None:
    body = f"Your ticket is closed.\r\n\r\nOn Mon, 1 Jun 2026, Shop wrote:\r\n> {OFFER}"
    reply = submit(house, "strict-support", "Re: hello", body, readers["DE"], fields=("In-Reply-To: <1@example.org>",))
    assert reply.startswith("250 ")
    sink.wait_for(1)


@pytest.mark.req("CLS-03")
def test_either_limb_makes_mail_promotion(house: Gateway, sink: Sink, readers: dict[str, str]) -> None:
    def sent(subject: str, body: str) -> str:
        return submit(house, "strict-bills", subject, body, readers["US"])

    assert sent("Your receipt", f"{RECEIPT}\r\n\r\n{OFFER}").startswith("250 ")
    assert "its body does not begin" in sent("Your receipt", f"{OFFER}\r\n\r\n{RECEIPT}")
    assert "its subject reads as promotion" in sent("20% off with your receipt", RECEIPT)
    sink.wait_for(1)


@pytest.mark.req("CLS-04")
@pytest.mark.req("CLS-05")
@pytest.mark.req("LAW-DE-02")
@pytest.mark.parametrize(
    ("body", "refused_in"),
    [
        (RECEIPT, set()),
        (f"{RECEIPT}\r\n\r\nYou might also like our bags.", {"CA", "DE"}),
        (f"{RECEIPT}\r\n\r\nRenew now and save: 20% off, special offer, ends soon.", {"CA", "DE", "GB"}),
        (f"{RECEIPT}\r\n\r\n{SURVEY}", {"DE"}),
    ],
)
def test_a_recipients_country_says_from_when_on_mail_is_promotion(
    house: Gateway, sink: Sink, readers: dict[str, str], body: str, refused_in: set[str]
) -> None:
    reply = submit(house, "strict-bills", "Your receipt", body, *readers.values())
    assert reply.startswith("250 "), "some of them get it"
    eventually(lambda: readers.keys() - set(reached(sink, readers)) <= refused_in)
    assert readers.keys() - set(reached(sink, readers)) == refused_in


@pytest.mark.req("CLS-07")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("\uff33\u200b\uff21\uff2c\uff25 \uff4e\uff4f\uff57 \uff4f\uff4e! \uff33hop now", ()),
        ("&#83;&#65;LE now on! Sh&#111;p now", ("Content-Type: text/html; charset=utf-8",)),
        (
            "PGI+UzwvYj5BTEUgbm93IG9uISBTaG9wIG5vdw==",
            ("Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: base64"),
        ),
        ("SALE now on! Shop now", ("Content-Type: text/plain; charset=utf-16",)),
    ],
)
def test_what_hides_words_hides_nothing(
    house: Gateway, sink: Sink, readers: dict[str, str], body: str, fields: tuple[str, ...]
) -> None:
    message = mail("strict-bills", "Hello", body)
    for field in fields:
        name = field.partition(":")[0].encode()
        message = re.sub(rb"(?m)^%b: .*\r\n" % name, b"", message)
        message = field.encode() + b"\r\n" + message
    with house.smtp("everything") as client:
        code, text = transact(client, message, [readers["US"]], SENDERS["strict-bills"])[""]
    assert code == 550 and "sale/en" in text
    assert not reached(sink, readers)


# what promotion must not claim


def promote(house: Gateway, stream: str, subject: str, reader: str, *fields: str, sender: str = "Example") -> str:
    """Submit a promotional mail; return the reply to the final dot."""
    message = newsletter(reader, sender=SENDERS[stream], subject=subject).replace(b"Example Letters", sender.encode())
    message = re.sub(rb"Message-ID: .*\r\n", b"Message-ID: <promotion@example.net>\r\n", message)
    with house.smtp("everything") as client:
        replies = transact(
            client, "".join(f"{one}\r\n" for one in fields).encode() + message, [reader], SENDERS[stream]
        )
    code, text = replies[""]
    return f"{code} {text}"


@pytest.mark.req("CLS-09")
def test_a_claim_that_ends_needs_to_say_when(house: Gateway, sink: Sink, readers: dict[str, str]) -> None:
    reader, ends = readers["US"], f"Assent-Campaign-Ends: {datetime.now(UTC).date() + timedelta(days=2)}"
    warned = promote(house, "newsletter", "Today only: bags", reader)
    assert warned.startswith("250 ")
    assert "hurry/en" in content(house, warned, reader)[0]
    refused = promote(house, "strict-news", "Today only: bags", reader)
    assert refused.startswith("550 5.7.0 content: ") and "hurry/en" in refused
    dated = promote(house, "strict-news", "Today only: bags", reader, ends)
    assert content(house, dated, reader) == []
    (door,) = [one for one in lines(house, dated, reader) if one["kind"] == "door"]
    assert (door["campaign_ends"][:10], door["claims"]) == (ends.rpartition(" ")[2], ["hurry/en"])
    assert content(house, promote(house, "strict-news", "New bags", reader), reader) == []
    sink.wait_for(3)


@pytest.mark.req("OPS-04")
@pytest.mark.req("CLS-09")
def test_in_shadow_mode_a_rule_about_content_is_only_recorded(
    house: Gateway, sink: Sink, readers: dict[str, str]
) -> None:
    claiming, feigning = (
        promote(house, "trial-news", subject, readers["US"]) for subject in ("Today only: bags", "Re: your bags")
    )
    assert claiming.startswith("250 ") and feigning.startswith("250 ")
    assert "hurry/en" in content(house, claiming, readers["US"])[0]
    assert "subject/reply" in content(house, feigning, readers["US"])[0]
    sink.wait_for(2)


@pytest.mark.req("CLS-10")
@pytest.mark.parametrize(
    ("sender", "sign"),
    [
        ("New bags are here", "from/subject"),
        ('"Anna, from Example"', "from/recipient"),
        ("=?utf-8?q?=E2=9C=94_Example?=", "from/marks"),
        ("Example Letters", ""),
    ],
)
def test_a_from_that_names_more_than_the_sender_is_flagged(
    house: Gateway, sink: Sink, readers: dict[str, str], sender: str, sign: str
) -> None:
    message_to = f"Anna Reader <{readers['US']}>"
    message = newsletter(message_to, sender=SENDERS["newsletter"], subject="New bags are here")
    message = message.replace(b"Example Letters", sender.encode())
    message = re.sub(rb"Message-ID: .*\r\n", b"Message-ID: <promotion@example.net>\r\n", message)
    code, text = house.submit(message, [readers["US"]], login="everything")[""]
    assert code == 250
    found = content(house, f"{code} {text}", readers["US"])
    assert [one.partition(": ")[2] for one in found] == ([sign] if sign else [])
    sink.wait_for(1)
