"""What a stream and a login decide at the door of the installed program: refusals, pauses, the brake, tests.

The program is a separate process with two workers. What it decided is read from its replies, from `assent explain`,
from /metrics and its log, and from what a strict sink received.
"""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, invoice, newsletter, transact
from tests.sink import Sink

Someone = Callable[[], str]

STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.tips]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@tips.example.com"]
    brake = "80% of 10"
    [streams.rushes]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@rushes.example.com"]
    brake = "80% of 10"
    [streams.offers]
    class = "promotional"
    topics = ["special-offers"]
    from = ["*@offers.example.com"]
    brake = "none"
    [streams.quiet]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@quiet.example.com"]
    refusals = "report"
    summary_after = "1s"
    brake = "80% of 20"
    [streams.billing]
    class = "account"
    from = ["billing@example.com"]
    """
READER = "streams-reader@example.org"
NO_CONSENT = "550 5.7.1 no-consent"
PAUSED = "451 4.3.0 paused"
REFUSAL = re.compile(
    r"(\d{3} \d\.\d\.\d) ([a-z-]+): [^()@]+ \(decision (\w{26}), see https://wiki\.example\.com/mail\)"
)


@pytest.fixture(scope="module")
def office(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two workers, streams with small brakes, and logins of one stream or more."""
    folder = tmp_path_factory.mktemp("office") / "house"
    made = Gateway(folder, shared_sink.url, sections={"streams": STREAMS}, workers=2).prepare()
    made.add_login("tips", "tips")
    made.add_login("rushes", "rushes")
    made.add_login("offers", "offers")
    made.add_login("quiet", "quiet", "--contact", "campaigns@example.com")
    made.add_login("nobodys", "quiet")
    made.add_login("everything", "newsletter,tips,billing")
    made.add_login("tester", "newsletter,tips", "--test-recipients", "Colleague@EXAMPLE.org, leaver@example.org")
    made.opt_in(READER)
    yield made.start()
    made.close()


def answers(client: smtplib.SMTP, recipients: Sequence[str], sender: str) -> list[str]:
    """Say MAIL and each RCPT; return how each recipient was answered: "250 2.1.5 ok", "550 5.7.1 no-consent", …"""
    assert client.mail(sender)[0] == 250
    told = [client.rcpt(one) for one in recipients]
    client.rset()
    return [f"{code} {text.decode().partition(':')[0]}" for code, text in told]


def final(replies: dict[str, tuple[int, str]]) -> str:
    """Return the only reply of a transaction, its sentence left out."""
    ((code, text),) = replies.values()
    return f"{code} {text.partition(':')[0]}"


def labelled(message: bytes, **controls: str) -> bytes:
    lines = [f"Assent-{name.replace('_', '-')}: {value}\r\n" for name, value in controls.items()]
    return "".join(lines).encode() + message


def explained(house: Gateway, text: str) -> dict[str, Any]:
    """Return the first line of the decision that a reply names."""
    decision = re.search(r"\(decision (\w{26})", text)
    assert decision, text
    return house.json("explain", decision[1])[0]  # type: ignore[no-any-return]


def metric(house: Gateway, name: str) -> int:
    page = fetch(f"http://127.0.0.1:{house.console}/metrics").text
    return sum(int(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


# at the door


@pytest.mark.req("SMTP-19")
def test_promotion_with_a_null_sender_is_refused(office: Gateway, sink: Sink) -> None:
    with office.smtp("news") as client:
        code, text = client.mail("")
    assert (code, text[:22]) == (550, b"5.7.1 class-mismatch: ")
    replies = office.submit(newsletter(READER), [READER], login="everything", sender="")
    assert final(replies) == "550 5.7.1 class-mismatch"
    assert office.submit(invoice(), ["x@example.org"], login="everything", sender="")[""][0] == 250
    assert [message.envelope_from for message in sink.wait_for(1)] == [""]


@pytest.mark.req("SMTP-20")
def test_a_login_of_one_class_hears_refusals_at_rcpt_and_the_rest_goes(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    strangers = [someone(), someone()]
    replies = office.submit(newsletter(READER), [strangers[0], READER, strangers[1]])
    assert {one: reply[0] for one, reply in replies.items()} == {strangers[0]: 550, strangers[1]: 550, "": 250}
    assert all(replies[one][1].startswith("5.7.1 no-consent: ") for one in strangers)
    assert [message.recipients for message in sink.wait_for(1)] == [(READER,)]


@pytest.mark.req("SMTP-24")
def test_a_refusal_says_its_slug_its_decision_and_where_help_is_and_no_more(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    stranger, leaver = someone(), someone()
    office.opt_in(leaver)
    office.run("suppressions", "add", leaver, "--scope", "all-marketing", "--reason", "objected", "--why", "he phoned")
    sealed = newsletter(READER).replace(b"multipart/alternative", b"multipart/encrypted")
    told = [
        *office.submit(newsletter(), [stranger, leaver]).values(),
        *office.submit(newsletter(), [stranger], login="everything").values(),
        *office.submit(newsletter(sender="ceo@example.com"), [READER]).values(),
        *office.submit(sealed, [READER]).values(),
        *office.submit(newsletter(READER), [READER], sender="me@elsewhere.example").values(),
        *office.submit(labelled(newsletter(READER), Topic="nosuch"), [READER]).values(),
    ]
    found = [REFUSAL.fullmatch(f"{code} {text}") for code, text in told]
    assert all(found), told
    slugs = [one[2] for one in found if one]
    mismatch = "class-mismatch"
    assert slugs == ["no-consent", "objected", "no-consent", mismatch, "content", mismatch, "unknown-topic"]
    for one, slug in zip(told, slugs, strict=True):
        assert explained(office, one[1])["reason"] == slug
    assert not any(secret in text for _, text in told for secret in (stranger, leaver, "phoned", "event"))


# the campaign


def test_a_campaign_stands_in_every_decision_and_leaves_no_trace_in_the_copy(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    stranger = someone()
    content = labelled(newsletter(READER), Campaign=" Autumn 2026 ", Campaign_Ends="2099-12-31", Product="editor")
    replies = office.submit(content, [READER, stranger], login="everything", sender="letters@news.example.com")
    assert replies[""][0] == 250
    message, report = sorted(sink.wait_for(2, 20), key=lambda one: one.envelope_from == "")
    assert report.recipients == ("letters@news.example.com",), "who was refused after DATA is reported"
    assert not re.search(rb"(?mi)^assent-", message.content)
    told = re.search(r"(?m)^Message-ID: (\S+)\r$", content.decode())
    assert told
    to_reader = eventually(lambda: _about(office, told[1], READER, 2))
    to_stranger = eventually(lambda: _about(office, told[1], stranger, 1))
    assert [one["kind"] for one in to_reader] == ["door", "attempt"]
    assert {one["campaign"] for one in (*to_reader, *to_stranger)} == {"Autumn 2026"}


def _about(house: Gateway, message_id: str, recipient: str, count: int) -> list[dict[str, Any]] | None:
    done = house.run("--json", "explain", message_id, recipient, check=False)
    lines = json.loads(done.stdout) if done.returncode == 0 else []
    return lines if len(lines) == count else None


# refusals that are told by a summary


@pytest.mark.req("SMTP-32")
def test_a_stream_that_reports_answers_250_relays_to_nobody_who_may_not_and_mails_one_summary(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    strangers = [someone() for _ in range(4)]
    content = labelled(newsletter(READER, sender="a@quiet.example.com"), Campaign="Autumn news")
    with office.smtp("quiet") as client:
        mixed = transact(client, content, [strangers[0], READER, strangers[1]], "a@quiet.example.com")
        nobody = transact(client, content, strangers[1:], "a@quiet.example.com")
    assert mixed.keys() == nobody.keys() == {""}, "no recipient hears of it by SMTP"
    assert (mixed[""][0], nobody[""][0]) == (250, 250)
    assert mixed[""][1].startswith("2.0.0 queued as ")
    assert REFUSAL.fullmatch(f"{nobody[''][0]} {nobody[''][1]}")
    copy, summary = sorted(sink.wait_for(2, 20), key=lambda message: message.envelope_from == "")
    assert copy.recipients == (READER,)
    assert (summary.envelope_from, summary.recipients) == ("", ("campaigns@example.com",))
    text = summary.content.decode()
    assert 'Login quiet, stream quiet, campaign "Autumn news":' in text
    listed = dict(re.findall(r"(?m)^(\S+@\S+)\tno-consent\tdecision (\w{26})\r$", text))
    assert set(listed) == set(strangers), "each once, and nobody else"
    assert re.search(r"(?m)^ +4  no-consent\r$", text)
    (told, *_) = office.json("explain", listed[strangers[3]])
    assert (told["action"], told["reason"], told["campaign"]) == ("refuse", "no-consent", "Autumn news")


@pytest.mark.req("SMTP-32")
def test_each_campaign_has_a_summary_of_its_own_once(office: Gateway, sink: Sink, someone: Someone) -> None:
    with office.smtp("quiet") as client:
        for name in ("one", "two", "one", "two"):
            refuse_quietly(client, name, someone())
        sink.wait_for(2, 20)
        for _ in range(2):
            refuse_quietly(client, "three", someone())
    texts = [message.content.decode() for message in sink.wait_for(3, 20)]
    assert sorted(re.findall(r'campaign "(\w+)"', "".join(texts))) == ["one", "three", "two"]
    assert all("2 recipients were answered 250" in text for text in texts)


def refuse_quietly(client: smtplib.SMTP, campaign: str, stranger: str) -> None:
    content = labelled(newsletter(sender="a@quiet.example.com"), Campaign=campaign)
    assert transact(client, content, [stranger], "a@quiet.example.com")[""][0] == 250


@pytest.mark.req("SMTP-32")
def test_what_is_to_be_told_survives_a_kill(office: Gateway, sink: Sink, someone: Someone) -> None:
    stranger = someone()
    with office.smtp("quiet") as client:
        replies = transact(client, newsletter(sender="a@quiet.example.com"), [stranger], "a@quiet.example.com")
    assert replies[""][0] == 250
    office.kill()
    office.start()
    assert stranger in sink.wait_for(1, 20)[0].content.decode()


@pytest.mark.req("SMTP-32")
def test_where_nobody_can_be_told_by_mail_refusals_are_told_by_smtp(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    replies = office.submit(newsletter(), [someone()], login="nobodys", sender="a@quiet.example.com")
    assert final(replies) == NO_CONSENT


@pytest.mark.req("SMTP-32", "SMTP-33")
def test_a_stream_that_reports_has_a_brake_as_well(office: Gateway, sink: Sink, someone: Someone) -> None:
    content = labelled(newsletter(sender="a@quiet.example.com"), Campaign="bought")
    with office.smtp("quiet") as client:
        replies = transact(client, content, [someone() for _ in range(20)], "a@quiet.example.com")
        assert replies[""][0] == 250
        assert answers(client, [READER], "a@quiet.example.com") == [PAUSED]
    office.run("streams", "release", "quiet")
    assert "20 recipients were answered 250" in sink.wait_for(1, 20)[0].content.decode()


# pauses


@pytest.mark.req("SMTP-33")
def test_a_paused_stream_answers_451_on_every_worker_until_it_is_released(office: Gateway, sink: Sink) -> None:
    office.run("streams", "pause", "tips", "--why", "the wrong list")
    with ExitStack() as stack:
        clients = [stack.enter_context(office.smtp("tips")) for _ in range(4)]
        for client in clients:
            assert answers(client, [READER, "nobody@example.org"], "a@tips.example.com") == [PAUSED, PAUSED]
        (listed,) = [one for one in office.json("streams", "list") if one["name"] == "tips"]
        assert office.json("status")["paused_streams"] == ["tips"]
        assert (listed["why"], listed["paused_by"] != "", listed["paused_at"] is None) == (
            "the wrong list",
            True,
            False,
        )
        office.run("streams", "release", "tips")
        for client in clients:
            replies = transact(client, newsletter(READER, sender="a@tips.example.com"), [READER], "a@tips.example.com")
            assert replies[""][0] == 250
    assert len(sink.wait_for(4)) == 4
    (listed,) = [one for one in office.json("streams", "list") if one["name"] == "tips"]
    assert (listed["why"], listed["paused_at"]) == ("", None)


@pytest.mark.req("SMTP-33")
def test_a_pause_stops_only_its_stream(office: Gateway, sink: Sink) -> None:
    office.run("streams", "pause", "newsletter", "--why", "a try")
    try:
        replies = office.submit(newsletter(READER), [READER], login="everything")
        assert final(replies) == PAUSED
        told = explained(office, replies[""][1])
        assert (told["action"], told["reason"], told["stream"]) == ("defer", "paused", "newsletter")
        assert "a try" not in str(replies)
        tip = newsletter(READER, sender="a@tips.example.com")
        for content, sender in ((invoice(READER), "billing@example.com"), (tip, "a@tips.example.com")):
            assert office.submit(content, [READER], login="everything", sender=sender)[""][0] == 250
    finally:
        office.run("streams", "release", "newsletter")
    assert len(sink.wait_for(2)) == 2


def test_pausing_and_releasing_twice_is_a_no_and_an_unknown_stream_a_mistake(office: Gateway) -> None:
    assert office.run("streams", "release", "offers", check=False).returncode == 1
    assert office.run("streams", "pause", "offers", check=False).returncode == 2, "a reason must be given"
    assert office.run("streams", "pause", "nosuch", "--why", "x", check=False).returncode == 2
    office.run("streams", "pause", "offers", "--why", "x")
    assert office.run("streams", "pause", "offers", "--why", "y", check=False).returncode == 1
    assert [one["why"] for one in office.json("streams", "list") if one["name"] == "offers"] == ["x"]
    office.run("streams", "release", "offers")
    assert office.run("streams", "release", "offers", check=False).returncode == 1


# the brake


@pytest.mark.req("SMTP-33")
def test_five_hundred_refusals_pause_the_stream_raise_an_alarm_and_a_release_lets_it_go_on(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    before = metric(office, "assent_streams_paused_total")
    with office.smtp("news") as client, office.smtp("news") as other:
        assert answers(client, [someone() for _ in range(500)], "a@news.example.com") == [NO_CONSENT] * 500
        for one in (other, client):
            assert answers(one, [someone(), READER], "a@news.example.com") == [PAUSED, PAUSED]
        assert metric(office, "assent_streams_paused_total") == before + 1
        assert re.search(r"ERROR .*newsletter is paused \(80% of 500 .*news", office.log.read_text())
        (listed,) = [one for one in office.json("streams", "list") if one["name"] == "newsletter"]
        assert listed["paused_by"] == "the brake"
        office.run("streams", "release", "newsletter")
        strangers = [someone() for _ in range(300)]
        assert answers(client, strangers, "a@news.example.com") == [NO_CONSENT] * 300, "counting began anew"
        assert answers(other, [READER], "a@news.example.com") == ["250 2.1.5 ok"]


@pytest.mark.req("SMTP-33")
def test_the_brake_counts_over_all_workers(office: Gateway, someone: Someone) -> None:
    """Ten connections, one refusal on each: no worker alone has seen enough."""
    with ExitStack() as stack:
        clients = [stack.enter_context(office.smtp("rushes")) for _ in range(11)]
        told = [answers(client, [someone()], "a@rushes.example.com")[0] for client in clients]
    assert told == [NO_CONSENT] * 10 + [PAUSED]
    office.run("streams", "release", "rushes")


@pytest.mark.req("SMTP-33")
def test_a_campaign_of_which_enough_goes_is_not_stopped(office: Gateway, sink: Sink, someone: Someone) -> None:
    tip = newsletter(READER, sender="a@tips.example.com")
    with office.smtp("tips") as client:
        for _ in range(10):
            replies = transact(client, tip, [someone(), READER], "a@tips.example.com")
            assert replies[""][0] == 250
    assert len(sink.wait_for(10)) == 10


@pytest.mark.req("SMTP-33")
def test_the_brake_sees_refusals_after_data_and_keeps_a_named_campaign_apart(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    """Half of what the login sends on the stream is well, but not the campaign that is named."""
    office.run("streams", "pause", "tips", "--why", "to begin anew")
    office.run("streams", "release", "tips")
    good, bad = (
        labelled(newsletter(sender="a@tips.example.com"), Campaign=name) for name in ("welcome", "bought addresses")
    )
    with office.smtp("everything") as client:
        for _ in range(10):
            assert transact(client, good, [READER], "a@tips.example.com")[""][0] == 250
            assert final(transact(client, bad, [someone()], "a@tips.example.com")) == NO_CONSENT
        assert final(transact(client, good, [READER], "a@tips.example.com")) == PAUSED
    (listed,) = [one for one in office.json("streams", "list") if one["name"] == "tips"]
    assert "bought addresses" in listed["why"]
    office.run("streams", "release", "tips")


def test_without_a_brake_nothing_is_stopped(office: Gateway, someone: Someone) -> None:
    with office.smtp("offers") as client:
        strangers = [someone() for _ in range(600)]
        assert answers(client, strangers, "a@offers.example.com") == [NO_CONSENT] * 600
        assert answers(client, [someone()], "a@offers.example.com") == [NO_CONSENT]


# tests


@pytest.mark.req("OUT-21")
def test_a_test_recipient_gets_promotion_without_an_opt_in_recorded_as_a_test(
    office: Gateway, sink: Sink, someone: Someone
) -> None:
    stranger = someone()
    content = newsletter("colleague@example.org")
    replies = office.submit(content, ["colleague@example.org", stranger], login="tester")
    assert {one: reply[0] for one, reply in replies.items()} == {stranger: 550, "": 250}
    (message,) = sink.wait_for(1)
    assert message.recipients == ("colleague@example.org",)
    told = re.search(r"(?m)^Message-ID: (\S+)\r$", content.decode())
    assert told
    lines = eventually(lambda: _about(office, told[1], "colleague@example.org", 2))
    assert [(one["kind"], one["action"], one["test"]) for one in lines] == [
        ("door", "send", True),
        ("attempt", "send", True),
    ]
    (refused,) = eventually(lambda: _about(office, told[1], stranger, 1) or [explained(office, replies[stranger][1])])
    assert "test" not in refused
    assert office.submit(content, ["colleague@example.org"])["colleague@example.org"][0] == 550, "another login's tests"


@pytest.mark.req("OUT-21")
def test_a_test_recipient_who_said_no_gets_nothing(office: Gateway, sink: Sink) -> None:
    content = newsletter("leaver@example.org")
    assert office.submit(content, ["leaver@example.org"], login="tester")[""][0] == 250
    (message,) = sink.wait_for(1)
    assert office.one_click(_token(message.content)).status == 200
    replies = office.submit(content, ["leaver@example.org"], login="tester")
    assert final(replies) == "550 5.7.1 unsubscribed"
    office.run("suppressions", "add", "colleague@example.org", "--scope", "all-marketing", "--reason", "objected")
    assert final(office.submit(content, ["colleague@example.org"], login="tester")) == "550 5.7.1 objected"
    assert len(sink.messages) == 1


@pytest.mark.req("OUT-21")
def test_tests_never_pull_the_brake(office: Gateway) -> None:
    """The one who said no is refused however often, and still the stream goes on."""
    with office.smtp("tester") as client:
        told = answers(client, ["leaver@example.org"] * 30, "a@tips.example.com")
    assert set(told) == {"550 5.7.1 unsubscribed"}
    with office.smtp("tips") as client:
        assert answers(client, [READER], "a@tips.example.com") == ["250 2.1.5 ok"]


def _token(message: bytes) -> str:
    link = re.search(rb"/u/([\w.-]+)", message)
    assert link
    return link[1].decode()


# logins


def test_a_login_is_listed_with_everything_it_was_given(office: Gateway) -> None:
    office.add_login(
        "crm",
        "newsletter",
        "--contact",
        "crm@example.com",
        "--tool-hosts",
        "crm.example.net, Lists.Example.NET",
        "--test-recipients",
        "me@example.org",
    )
    (listed,) = [one for one in office.json("logins", "list") if one["name"] == "crm"]
    assert listed == {
        "name": "crm",
        "streams": ["newsletter"],
        "contact": "crm@example.com",
        "tool_hosts": ["crm.example.net", "lists.example.net"],
        "networks": [],
        "test_recipients": ["me@example.org"],
        "disabled": False,
    }
    assert office.run("logins", "add", "crm", "--streams", "tips", check=False).returncode == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--contact", "nobody"),
        ("--tool-hosts", "https://crm.example.net/"),
        ("--test-recipients", "not an address"),
        ("--test-recipients", ",".join(f"c{n}@example.org" for n in range(26))),
        ("--network", "10.0.0.1/8"),
    ],
)
def test_what_a_login_cannot_be_is_a_mistake_and_adds_nothing(office: Gateway, wrong: tuple[str, str]) -> None:
    assert office.run("logins", "add", "wrong", "--streams", "newsletter", *wrong, check=False).returncode == 2
    assert "wrong" not in {one["name"] for one in office.json("logins", "list")}


def test_a_login_bound_to_a_network_needs_no_password(make_gateway: Callable[..., Gateway]) -> None:
    house = make_gateway()
    assert house.add_login("printer", "billing", "--network", "127.0.0.0/8") == ""
    house.start()
    with house.smtp(None) as client:
        assert transact(client, invoice(), ["x@example.org"], "billing@example.com")[""][0] == 250


def test_a_new_password_ends_the_old_one_and_the_sessions_that_were_opened_with_it(office: Gateway) -> None:
    old = office.add_login("rota", "newsletter")
    with office.smtp("rota") as client:
        assert answers(client, [READER], "a@news.example.com") == ["250 2.1.5 ok"]
        new = office.json("logins", "passwd", "rota")["password"]
        assert new != old
        (told,) = answers(client, [READER], "a@news.example.com")
        assert told.startswith("530 5.7.0 ")
        assert client.mail("a@news.example.com")[0] == 530
    with pytest.raises(smtplib.SMTPAuthenticationError):
        office.smtp("rota")
    office.passwords["rota"] = new
    with office.smtp("rota") as client:
        assert answers(client, [READER], "a@news.example.com") == ["250 2.1.5 ok"]
    assert office.run("logins", "passwd", "nobody", check=False).returncode == 1


def test_a_disabled_login_submits_no_more_not_even_where_it_is_logged_in(office: Gateway) -> None:
    office.add_login("former", "newsletter")
    with office.smtp("former") as client:
        office.run("logins", "disable", "former")
        (told,) = answers(client, [READER], "a@news.example.com")
        assert told.startswith("530 5.7.0 ")
    with pytest.raises(smtplib.SMTPAuthenticationError):
        office.smtp("former")
    assert [one["disabled"] for one in office.json("logins", "list") if one["name"] == "former"] == [True]
    assert office.run("logins", "disable", "nobody", check=False).returncode == 1
