"""Which class, stream and topic the installed program sees in a message, and that promotion needs an opt-in.

The program is a separate process. What it decided is read from its replies, from `assent explain` and from what a
strict sink received.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, field_of, free_port, invoice, newsletter, transact
from tests.sink import Sink

Someone = Callable[[], str]

STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements", "special-offers"]
    from = ["*@news.example.com", "team@example.com"]
    [streams.offers]
    class = "promotional"
    topics = ["special-offers"]
    from = ["*@offers.example.com"]
    [streams.billing]
    class = "account"
    from = ["billing@example.com", "team@example.com"]
    [streams.support]
    class = "requested"
    from = ["support@example.com", "team@example.com"]
    """
BOTH, NEWS_ONLY, OFFERS_ONLY, NOBODY = (f"class-{name}@example.org" for name in ("both", "news", "offers", "nobody"))


@pytest.fixture(scope="module")
def offices(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose newsletter has two topics, and whose streams share a From address."""
    made = Gateway(
        tmp_path_factory.mktemp("offices") / "house", shared_sink.url, sections={"streams": STREAMS}
    ).prepare()
    made.add_login("everything", "newsletter,offers,billing,support")
    made.add_login("marketing", "newsletter,offers")
    made.add_login("essentials", "billing,support")
    made.opt_in(BOTH, NEWS_ONLY)
    made.opt_in(BOTH, OFFERS_ONLY, topic="special-offers")
    yield made.start()
    made.close()


def outcome(house: Gateway, login: str, author: str, recipient: str, **controls: str) -> str:
    """Submit one mail with control headers; return "sent", or where and how it was refused: `RCPT 5.7.1 no-consent`."""
    lines = [f"Assent-{name.replace('_', '-')}: {value}\r\n" for name, value in controls.items()]
    content = "".join(lines).encode() + newsletter(recipient, sender=author)
    replies = house.submit(content, [recipient], login=login, sender=author)
    ((where, (code, text)),) = replies.items()
    if code == 250:
        return "sent"
    assert code == 550
    return f"{'RCPT' if where else 'DATA'} {text.partition(':')[0]}"


# the login's streams and topics, and the message's choice among them


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize(
    ("author", "recipient", "expected"),
    [
        ("billing@example.com", NOBODY, "sent"),
        ("support@example.com", NOBODY, "sent"),
        ("ann@news.example.com", NOBODY, "DATA 5.7.1 no-consent"),
        ("ann@news.example.com", BOTH, "sent"),
        ("ann@offers.example.com", OFFERS_ONLY, "sent"),
        ("ann@offers.example.com", NEWS_ONLY, "DATA 5.7.1 no-consent"),
        ("ann@news.example.com", NEWS_ONLY, "DATA 5.7.1 no-consent"),  # two topics, none chosen: both must allow it
        ("ann@news.example.com", OFFERS_ONLY, "DATA 5.7.1 no-consent"),
        ("team@example.com", NOBODY, "DATA 5.7.1 no-consent"),  # three streams match: the strictest counts
        ("team@example.com", BOTH, "sent"),
        ("ceo@example.com", BOTH, "DATA 5.7.1 class-mismatch"),
    ],
)
def test_a_login_with_many_streams_chooses_by_from(
    offices: Gateway, sink: Sink, author: str, recipient: str, expected: str
) -> None:
    assert outcome(offices, "everything", author, recipient) == expected
    assert len(sink.wait_for(1) if expected == "sent" else sink.messages) == (expected == "sent")


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize(
    ("login", "author", "recipient", "controls", "expected"),
    [
        ("everything", "team@example.com", NOBODY, {"Stream": "billing"}, "sent"),
        ("everything", "team@example.com", NOBODY, {"stream": " support "}, "sent"),
        ("everything", "team@example.com", NOBODY, {"Stream": "newsletter"}, "DATA 5.7.1 no-consent"),
        ("everything", "team@example.com", NEWS_ONLY, {"Stream": "newsletter", "Topic": TOPIC}, "sent"),
        ("everything", "ann@news.example.com", NEWS_ONLY, {"Topic": TOPIC}, "sent"),
        ("everything", "ann@news.example.com", NEWS_ONLY, {"Topic": "special-offers"}, "DATA 5.7.1 no-consent"),
        ("everything", "ann@news.example.com", OFFERS_ONLY, {"Topic": "special-offers"}, "sent"),
        ("everything", "billing@example.com", NOBODY, {"Class": "promotional"}, "DATA 5.7.1 unknown-topic"),
        ("everything", "ann@news.example.com", BOTH, {"Class": "account"}, "DATA 5.7.0 class-mismatch"),
        ("everything", "ann@news.example.com", BOTH, {"Class": "system"}, "DATA 5.7.0 class-mismatch"),
        ("everything", "ann@news.example.com", BOTH, {"Class": "newsletter"}, "DATA 5.7.0 class-mismatch"),
        ("everything", "ann@news.example.com", BOTH, {"Stream": "billing"}, "DATA 5.7.0 class-mismatch"),
        ("everything", "ann@news.example.com", BOTH, {"Stream": "nosuch"}, "DATA 5.7.0 class-mismatch"),
        ("everything", "ann@news.example.com", BOTH, {"Topic": "nosuch"}, "DATA 5.7.0 unknown-topic"),
        ("everything", "ann@offers.example.com", BOTH, {"Topic": TOPIC}, "DATA 5.7.0 unknown-topic"),
        ("marketing", "ann@news.example.com", BOTH, {"Class": "account"}, "DATA 5.7.0 class-mismatch"),
        ("marketing", "team@example.com", BOTH, {"Stream": "billing"}, "DATA 5.7.0 class-mismatch"),
        ("marketing", "billing@example.com", BOTH, {}, "DATA 5.7.1 class-mismatch"),
        ("essentials", "team@example.com", NOBODY, {}, "sent"),
        ("essentials", "team@example.com", NOBODY, {"Stream": "newsletter"}, "DATA 5.7.0 class-mismatch"),
        ("essentials", "billing@example.com", NOBODY, {"Topic": TOPIC}, "DATA 5.7.0 unknown-topic"),
    ],
)
def test_control_headers_choose_among_what_the_login_has_and_never_loosen(
    offices: Gateway, sink: Sink, login: str, author: str, recipient: str, controls: dict[str, str], expected: str
) -> None:
    assert outcome(offices, login, author, recipient, **controls) == expected
    assert len(sink.wait_for(1) if expected == "sent" else sink.messages) == (expected == "sent")


@pytest.mark.req("CLS-01")
def test_a_control_header_that_contradicts_itself_is_refused(offices: Gateway, sink: Sink) -> None:
    content = b"Assent-Stream: newsletter\r\nassent-stream: billing\r\n" + newsletter(sender="team@example.com")
    code, text = offices.submit(content, [BOTH], login="everything", sender="team@example.com")[""]
    assert (code, text[:21]) == (550, "5.7.0 class-mismatch:")
    assert sink.messages == []


@pytest.mark.req("CLS-01")
def test_a_recipient_whom_every_stream_would_refuse_is_refused_at_rcpt(
    offices: Gateway, sink: Sink, someone: Someone
) -> None:
    """And only then: a login that also has account mail hears it after DATA, when it is known what the message is."""
    stranger = someone()
    assert outcome(offices, "marketing", "ann@news.example.com", stranger) == "RCPT 5.7.1 no-consent"
    assert outcome(offices, "marketing", "ann@news.example.com", OFFERS_ONLY) == "DATA 5.7.1 no-consent"
    assert outcome(offices, "everything", "ann@news.example.com", stranger) == "DATA 5.7.1 no-consent"
    assert sink.messages == []


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize(("topic", "login"), [(TOPIC, "marketing"), ("special-offers", "everything")])
def test_a_no_to_one_topic_is_the_reason_and_not_that_another_was_never_asked_for(
    offices: Gateway, someone: Someone, topic: str, login: str
) -> None:
    reader = someone()
    offices.run("suppressions", "add", reader, "--scope", "topic", "--topic", topic, "--reason", "unsubscribed")
    where = "RCPT" if login == "marketing" else "DATA"
    assert outcome(offices, login, "ann@news.example.com", reader) == f"{where} 5.7.1 unsubscribed"


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize("login", ["marketing", "everything"])
def test_a_refusal_can_be_explained_by_its_decision_id(offices: Gateway, someone: Someone, login: str) -> None:
    replies = offices.submit(newsletter(sender="ann@news.example.com"), [someone()], login=login)
    ((_, text),) = replies.values()
    decision = re.search(r"\(decision (\w+), see https://wiki\.example\.com/mail\)", text)
    assert decision
    (told,) = eventually(lambda: json.loads(offices.run("--json", "explain", decision[1], check=False).stdout))
    assert (told["login"], told["action"], told["reason"]) == (login, "refuse", "no-consent")
    assert text.startswith(f"5.7.1 no-consent: {told['sentence']} (decision ")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(
    ("field", "reason"), [("Assent-Class: account", "class-mismatch"), ("X-SMTPAPI: {", "unsupported-header")]
)
def test_a_message_that_is_refused_whole_is_explained_for_each_of_its_recipients(
    offices: Gateway, someone: Someone, field: str, reason: str
) -> None:
    content = f"{field}\r\n".encode() + newsletter(sender="ann@news.example.com")
    readers = [someone(), someone()]
    replies = offices.submit(content, readers, login="everything", sender="ann@news.example.com")
    assert [*replies] == [""] and replies[""][1].partition(" ")[2].startswith(f"{reason}: ")
    message_id = field_of(content, "Message-ID")[0].split()[1].decode()
    for reader in readers:
        asked = ("--json", "explain", message_id, reader)
        done = eventually(lambda asked=asked: (ran := offices.run(*asked, check=False)).returncode == 0 and ran)
        (told,) = json.loads(done.stdout)
        assert (told["login"], told["action"], told["reason"]) == ("everything", "refuse", reason)


@pytest.mark.req("OPS-01")
def test_a_reverse_path_that_is_refused_is_explained_with_the_login_that_gave_it(offices: Gateway) -> None:
    replies = offices.submit(newsletter(), [NOBODY], login="marketing", sender="ceo@elsewhere.example")
    decision = replies["MAIL"][1].partition("(decision ")[2].partition(",")[0]
    (told,) = offices.json("explain", decision)
    assert (told["login"], told["class"], told["reason"]) == ("marketing", "promotional", "class-mismatch")


@pytest.mark.req("CLS-02")
@pytest.mark.parametrize("login", ["marketing", "essentials"])
def test_no_control_header_leaves(offices: Gateway, sink: Sink, login: str) -> None:
    stream, author = (
        ("newsletter", "ann@news.example.com") if login == "marketing" else ("billing", "billing@example.com")
    )
    topic = f"ASSENT-TOPIC\t:\r\n\t{TOPIC}\r\n" if login == "marketing" else ""
    controls = (
        f"Assent-Stream: {stream}\r\n{topic}assent-campaign: autumn\r\nAssent-Campaign-Ends: 2026-12-31\r\n"
        "Assent-Product: editor\r\nAssent-Policy-Version:\r\n 7\r\nAssent-Anything-Else: x\r\n"
    )
    header, blank, body = newsletter(BOTH, sender=author).partition(b"\r\n\r\n")
    content = header + b"\r\n" + controls.encode() + b"Assented: stays\r\n" + blank[2:] + body
    assert offices.submit(content, [BOTH], login=login, sender=author)[""][0] == 250
    (message,) = sink.wait_for(1)
    sent = message.content.partition(b"\r\n\r\n")[0]
    assert not re.search(rb"(?mi)^assent-", sent)
    assert not re.search(rb"autumn|2026-12-31|editor", sent)
    assert field_of(message.content, "Assented") == [b"Assented: stays\r\n"]
    assert field_of(message.content, "Subject") == [b"Subject: News\r\n"]


# what is unlabelled


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, Any]]]:
    """What `assent init` makes in an empty folder, started; and what it told."""
    house = Gateway(tmp_path_factory.mktemp("fresh"), "")
    told = house.json("init")
    ports = {"submission": free_port(), "feedback": free_port(), "site": free_port(), "console": free_port()}
    text = house.config.read_text()
    for name, port in ports.items():
        text = re.sub(rf'(?m)(^\[{name}\]\nlisten = \["127\.0\.0\.1:)\d+', rf"\g<1>{port}", text)
    house.config.write_text(text)
    house.submission = ports["submission"]
    house.passwords = {one["name"]: one["password"] for one in told["logins"]}
    house.start(wait=False)
    eventually(lambda: _answers(house), 30)
    yield house, told
    house.close()


def _answers(house: Gateway) -> bool:
    try:
        with house.smtp(None) as client:
            return bool(client.noop()[0] == 250)
    except OSError:
        return False


@pytest.mark.req("CLS-12")
def test_on_a_fresh_install_unlabelled_mail_to_a_stranger_is_refused_with_a_hint(
    fresh: tuple[Gateway, dict[str, Any]],
) -> None:
    house, told = fresh
    essential = {one["name"] for one in told["logins"] if "billing" in one["streams"]}
    promotional = {one["name"] for one in told["logins"]} - essential
    assert len(promotional) == len(essential) == 1
    for login in promotional:
        with house.smtp(login) as client:
            replies = transact(client, newsletter(), ["stranger@example.org"], "letters@news.example.com")
        ((code, text),) = replies.values()
        assert code == 550
        assert re.fullmatch(r"5\.7\.1 no-consent: [^()]+ \(decision \w{26}, see https://\S+\)", text)
        with house.smtp(login) as client:
            replies = transact(client, invoice(), ["stranger@example.org"], "letters@news.example.com")
        assert replies.keys() == {"stranger@example.org"}, "no account mail by a login that was not given it"
    for login in essential:
        with house.smtp(login) as client:
            assert transact(client, invoice(), ["stranger@example.org"], "billing@example.com")[""][0] == 250
    (relayed,) = eventually(lambda: list((house.folder / "var" / "outbox" / "new").glob("*")))
    assert b"Your invoice 4711" in relayed.read_bytes()


@pytest.mark.req("CLS-12")
def test_a_login_has_no_stream_that_was_not_named(fresh: tuple[Gateway, dict[str, Any]]) -> None:
    house, _ = fresh
    for streams in ((), ("--streams", "billing,nosuch")):
        done = house.run("logins", "add", "another", *streams, check=False)
        assert done.returncode == 2, done.stdout
    assert "another" not in {one["name"] for one in house.json("logins", "list")}


# promotion needs an opt-in


@pytest.mark.req("POL-01")
def test_promotion_reaches_only_who_has_opted_in(gateway: Gateway, sink: Sink, someone: Someone) -> None:
    unknown, accepted_only, opted_in = someone(), someone(), someone()
    gateway.run("consent", "record", accepted_only, "--topic", TOPIC, "--basis", "policy-accepted")
    gateway.opt_in(opted_in)
    assert _codes(gateway, [unknown, accepted_only, opted_in]) == [550, 550, 250]
    (message,) = sink.wait_for(1)
    assert message.recipients == (opted_in,)
    assert gateway.run("explain", accepted_only, "--topic", TOPIC, check=False).returncode == 1
    shown = gateway.json("consent", "show", accepted_only)
    assert [one["type"] for one in shown] == ["POLICY_ACCEPTED"], "acceptance is kept as what it is"


def _codes(gateway: Gateway, recipients: Sequence[str]) -> list[int]:
    """Submit to each recipient alone; return the last reply's code, and check the refusals' words."""
    codes = []
    for recipient in recipients:
        ((code, text),) = gateway.submit(newsletter(recipient), [recipient]).values()
        assert code == 250 or text.startswith("5.7.1 no-consent: ")
        codes.append(code)
    return codes


@pytest.mark.req("POL-01")
def test_an_opt_in_to_one_topic_allows_no_other(offices: Gateway, sink: Sink) -> None:
    assert outcome(offices, "marketing", "ann@offers.example.com", OFFERS_ONLY) == "sent"
    assert outcome(offices, "marketing", "ann@offers.example.com", NEWS_ONLY) == "DATA 5.7.1 no-consent"
    assert [message.recipients for message in sink.wait_for(1)] == [(OFFERS_ONLY,)]


@pytest.mark.req("POL-01", "SUP-01", "SUP-03")
def test_who_writes_an_address_in_another_way_has_opted_in_to_that_way_only(gateway: Gateway, sink: Sink) -> None:
    """Consent is matched narrowly: case in the domain is the same address, a sub-address or a dot is another."""
    gateway.opt_in("pol.narrow@example.org")
    same, others = (
        "pol.narrow@EXAMPLE.org",
        ["polnarrow@example.org", "pol.narrow+x@example.org", "pol.narrow@sub.example.org"],
    )
    assert _codes(gateway, [same, *others]) == [250, 550, 550, 550]
    assert [message.recipients for message in sink.wait_for(1)] == [(same,)]


# whose address it is


@pytest.mark.req("I18N-05", "I18N-04")
def test_consent_is_for_the_address_that_gave_it_and_not_for_one_that_looks_like_it(offices: Gateway) -> None:
    offices.opt_in("reader@straße.example", "ﬁ@example.org", "jose\u0301@example.org")

    def reply(recipient: str) -> int:
        with offices.smtp("marketing") as client:
            client.command_encoding = "utf-8"
            client.mail("letters@news.example.com", ["SMTPUTF8"])
            return client.rcpt(recipient)[0]

    assert reply("reader@xn--strae-oqa.example") == 250
    assert reply("reader@strasse.example") == 550
    assert reply("fi@example.org") == 550
    assert reply("jos\u00e9@example.org") == 250
