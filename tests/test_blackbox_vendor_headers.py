"""Other systems' headers at the door of the installed program: what they name, what they ask for, that they are gone.

The table below has every header and every member that gateway/dialects describes, with values as the vendors write
them; a test holds it to the data. What the program decided is read from its replies, from `assent explain` and from
what a strict sink received.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway, field_of, invoice, link_of, newsletter, token_of
from tests.sink import Sink

FILES = sorted((Path(__file__).resolve().parent.parent / "gateway" / "dialects").glob("*.toml"))
VENDORS = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in FILES}
Someone = Callable[[], str]

NEWS, OFFERS, BILLING, UNKNOWN = "101", "102", "103", "999"
"""Names that every vendor has for a topic, another topic and a stream; and one that nobody has."""

READER = "vendor-reader@example.org"
"""Has opted in to the one topic and not to the other."""


@dataclass(frozen=True)
class Case:
    """A header of a vendor's; `{}` in its value is what it names. `harmless` values ask for nothing."""

    vendor: str
    header: str
    value: str
    path: str = ""
    harmless: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(one for one in (self.header, self.path) if one)

    def field(self, name: str = "autumn") -> str:
        return f"{self.header}: {self.value.replace('{}', name)}"

    def harmless_fields(self) -> list[str]:
        return [f"{self.header}: {value}" for value in self.harmless]


def member(vendor: str, header: str, path: str, value: str, *harmless: str, at: str = "") -> Case:
    """Write a member of JSON; `at` is where it stands if its path has a star."""
    return Case(vendor, header, _nested(at or path, value), path, tuple(_nested(at or path, one) for one in harmless))


def _nested(path: str, value: str) -> str:
    for name in reversed(path.split(".")):
        value = f'{{"{name}": {value}}}'
    return value


SENDGRID, MSYS = ("sendgrid", "X-SMTPAPI"), ("sparkpost", "X-MSYS-API")

MUST_EXIST = [
    Case("ses", "X-SES-LIST-MANAGEMENT-OPTIONS", "contactListName=MyList;topicName={}"),
    Case("ses", "X-SES-LIST-MANAGEMENT-OPTIONS", "MyList; topic={}"),
    Case("ses", "X-SES-LIST-MANAGEMENT-OPTIONS", "contactListName={}"),
    member(*SENDGRID, "asm_group_id", "{}"),
    member("sendgrid", "X-Sendgrid-SuppressionGroup", "group_id", "{}"),
    Case("postmark", "X-PM-Message-Stream", "{}"),
    Case("greenarrow", "X-GreenArrow-MailClass", "{}"),
    Case("greenarrow", "X-GreenArrow-ListID", "{}"),
]
MAY_EXIST = [
    Case("ses", "X-SES-CONFIGURATION-SET", "{}"),
    Case("ses", "X-SES-TENANT-NAME", "{}"),
    Case("ses", "X-SES-TENANT", "{}"),
    member(*SENDGRID, "ip_pool", '"{}"'),
    Case("mailgun", "X-Mailgun-Tag", "{}"),
    Case("mailgun", "X-Mailgun-Sending-Ip", "{}"),
    Case("mailgun", "X-Mailgun-Sending-Ip-Pool", "{}"),
    member(*MSYS, "options.ip_pool", '"{}"'),
    Case("mandrill", "X-MC-Subaccount", "{}"),
    Case("mandrill", "X-MC-IpPool", "{}"),
    Case("brevo", "X-Mailin-IP", "{}"),
    Case("kumomta", "X-Tenant", "{}"),
    Case("greenarrow", "X-GreenArrow-InstanceID", "{}"),
    Case("greenarrow", "X-GreenArrow-MtaID", "{}"),
    Case("greenarrow", "X-Virtual-MTA", "{}"),
    Case("emaildelivery", "X-Transactional-Route", "{}"),
    Case("standard", "List-ID", "Weekly News <{}>"),
]
CAMPAIGNS = [
    member(*SENDGRID, "category", '"{}"'),
    member(*SENDGRID, "category", '["{}", "second"]'),
    Case("postmark", "X-PM-Tag", "{}"),
    Case("mailgun", "X-Mailgun-Tag", "{}"),
    member(*MSYS, "campaign_id", '"{}"'),
    member(*MSYS, "tags", '["{}", "second"]'),
    Case("mandrill", "X-MC-Tags", "{},second"),
    Case("brevo", "X-Mailin-Tag", "{}"),
    Case("kumomta", "X-Campaign", "{}"),
    Case("greenarrow", "X-GreenArrow-SendID", "{}"),
    Case("symfony", "X-Tag", "{}"),
    Case("emaildelivery", "X-Transactional-Tag", "{}"),
    Case("standard", "Feedback-ID", "{}:customer:news:example1"),
]
RECIPIENTS = [
    member(*SENDGRID, "to", '["{}"]'),
    member(*SENDGRID, "to", '["Ann Example <{}>"]'),
    member(*MSYS, "cc", '[{"email": "{}", "name": "Ann"}]'),
    member(*MSYS, "bcc", '["{}"]'),
    member(*MSYS, "archive", '[{"email": "{}"}]'),
    Case("mandrill", "X-MC-BccAddress", "{}"),
]
BYPASS = "filters.bypass_list_management.settings.enable"
BYPASSES = [
    member(*SENDGRID, BYPASS, "1", "0", "false"),
    member(*SENDGRID, "filters.bypass_unsubscribe_management.settings.enable", "1", "0"),
    member(*SENDGRID, "filters.bypass_bounce_management.settings.enable", "1", "0"),
    member(*SENDGRID, "filters.bypass_spam_management.settings.enable", "true", "false"),
    member(*MSYS, "options.skip_suppression", "true", "false"),
]
TRACKED = "filters.subscriptiontrack.settings"
SERVICES = [
    member(*SENDGRID, "sub", '{"%n%": ["Ann", "Bob"]}', "{}"),
    member(*SENDGRID, "section", '{":a": "text"}', "{}"),
    member(*SENDGRID, "send_at", "1893456000"),
    member(*SENDGRID, "send_each_at", "[1893456000]", "[]"),
    member(*SENDGRID, f"{TRACKED}.*", '"Leave <% here %>"', '""', at=f"{TRACKED}.text/html"),
    member(*SENDGRID, f"{TRACKED}.*", '"[unsubscribe]"', at=f"{TRACKED}.replace"),
    member(*SENDGRID, "filters.*.settings.enable", "1", "0", '"0"', "false", at="filters.opentrack.settings.enable"),
    Case("postmark", "X-PM-TrackOpens", "true", harmless=("false",)),
    Case("postmark", "X-PM-TrackLinks", "HtmlAndText", harmless=("None",)),
    Case("mailgun", "X-Mailgun-Track", "yes", harmless=("no",)),
    Case("mailgun", "X-Mailgun-Track-Clicks", "yes", harmless=("no", "False")),
    Case("mailgun", "X-Mailgun-Track-Opens", "yes", harmless=("no",)),
    Case("mailgun", "X-Mailgun-Drop-Message", "yes", harmless=("no",)),
    Case("mailgun", "X-Mailgun-Recipient-Variables", '{"bob@example.org": {"id": 1}}', "*", ("{}",)),
    Case("mailgun", "X-Mailgun-Deliver-By", "Fri, 14 Oct 2039 23:10:10 -0000"),
    Case("mailgun", "X-Mailgun-Delivery-Time-Optimize-Period", "24h"),
    Case("mailgun", "X-Mailgun-Time-Zone-Localize", "02:00PM"),
    Case("mailgun", "X-Mailgun-Deliver-Within", "1h30m"),
    Case("mailgun", "X-Mailgun-Template-Name", "welcome"),
    Case("mailgun", "X-Mailgun-Template-Version", "v2"),
    Case("mailgun", "X-Mailgun-Template-Variables", '{"name": "Ann"}'),
    Case("mailgun", "X-Mailgun-Track-Pixel-Location-Top", "yes", harmless=("no",)),
    Case("mailgun", "X-Mailgun-Dkim", "no", harmless=("yes",)),
    Case("mailgun", "X-Mailgun-Secondary-DKIM", "example.com,s1"),
    Case("mailgun", "X-Mailgun-Secondary-DKIM-Public", "public.example.com/s1"),
    Case("mailgun", "X-Mailgun-Require-TLS", "true", harmless=("false",)),
    Case("mailgun", "X-Mailgun-Skip-Verification", "yes", harmless=("no",)),
    member(*MSYS, "options.open_tracking", "true", "false"),
    member(*MSYS, "options.click_tracking", "true", "false"),
    member(*MSYS, "options.initial_open", "true", "false"),
    member(*MSYS, "options.inline_css", "true", "false"),
    member(*MSYS, "options.sandbox", "true", "false"),
    Case("mandrill", "X-MC-MergeVars", '{"_rcpt": "a@example.org", "fname": "Ann"}', "*", ("{}",)),
    Case("mandrill", "X-MC-Track", "opens,clicks_htmlonly", harmless=("", "none", "False, False")),
    Case("mandrill", "X-MC-PreserveRecipients", "true", harmless=("false",)),
    Case("mandrill", "X-MC-Important", "yes", harmless=("off",)),
    Case("mandrill", "X-MC-Autotext", "on", harmless=("n",)),
    Case("mandrill", "X-MC-AutoHtml", "y", harmless=("no",)),
    Case("mandrill", "X-MC-InlineCSS", "true", harmless=("false",)),
    Case("mandrill", "X-MC-MergeLanguage", "handlebars"),
    Case("mandrill", "X-MC-SendAt", "2039-01-01 12:00:00"),
    Case("mandrill", "X-MC-GoogleAnalytics", "example.com"),
    Case("mandrill", "X-MC-GoogleAnalyticsCampaign", "spring"),
    Case("mandrill", "X-MC-Template", "welcome|main"),
    Case("mandrill", "X-MC-SigningDomain", "other.example"),
    Case("mandrill", "X-MC-ReturnPathDomain", "other.example"),
    Case("mandrill", "X-MC-ViewContentLink", "true", harmless=("false",)),
    Case("greenarrow", "X-GreenArrow-Click-Tracking-ID", "7"),
]
WITHOUT_EFFECT = [
    member(*SENDGRID, "asm_groups_to_display", "[1, 2, 3]"),
    member(*SENDGRID, "unique_args", '{"order": "4711"}'),
    member(*SENDGRID, f"{TRACKED}.enable", "1"),
    member(*SENDGRID, "filters.*.settings.*", '"x"', at="filters.footer.settings.text/plain"),
    member("sendgrid", "X-Sendgrid-SuppressionGroup", "groups_to_display", "[1, 2]"),
    Case("postmark", "X-PM-Metadata-*", "4711"),
    Case("postmark", "X-PM-KeepID", "true"),
    Case("mailgun", "X-Mailgun-Variables", '{"order": {"id": 4711}}', "*"),
    member(*MSYS, "metadata", '{"order": "4711"}'),
    Case("mandrill", "X-MC-Metadata", '{"order": "4711"}', "*"),
    Case("mandrill", "X-MC-TrackingDomain", "links.example.com"),
    Case("mandrill", "X-MC-URLStripQS", "true"),
    Case("brevo", "X-Mailin-custom", "not JSON"),
    Case("ses", "X-SES-MESSAGE-TAGS", "k=v, k2=v2"),
    Case("ses", "X-SES-SOURCE-ARN", "arn:aws:ses:us-east-1:123456789012:identity/example.com"),
    Case("ses", "X-SES-FROM-ARN", "arn:aws:ses:us-east-1:123456789012:identity/example.com"),
    Case("ses", "X-SES-RETURN-PATH-ARN", "arn:aws:ses:us-east-1:123456789012:identity/example.com"),
    Case("symfony", "X-Metadata-*", "4711"),
    Case("kumomta", "X-KumoRef", "eyJfQF8iOiIifQ=="),
    Case("listmonk", "X-Listmonk-Subscriber", "7e7cf3f5-2a27-45f3-a4b2-b1e4a0f4b3b4"),
    Case("usesend", "X-Usesend-Email-ID", "cm8"),
    Case("posta", "X-Posta-ID", "8"),
    Case("posta", "X-Posta-Signature", "v1=abc"),
]
STAYING = [
    Case("usesend", "X-Entity-Ref-ID", "\t4711"),
    Case("standard", "Precedence", "bulk"),
    Case("standard", "Precedence", " list"),
    Case("standard", "Auto-Submitted", "auto-generated"),
    Case("standard", "Feedback-ID", "spring:customer:\r\n\tnews:example1"),
]
CLASSES = [
    member(*MSYS, "options.transactional", "true"),
    member(*MSYS, "options.transactional", "false"),
    Case("listmonk", "X-Listmonk-Campaign", "77"),
]
EVERY = (
    *(*MUST_EXIST, *MAY_EXIST, *CAMPAIGNS, *RECIPIENTS, *BYPASSES, *SERVICES, *WITHOUT_EFFECT, *STAYING),
    *CLASSES,
)


def described() -> Iterator[tuple[str, str, str]]:
    for vendor, file in VENDORS.items():
        for header in file["headers"]:
            yield from ((vendor, header["name"], one["path"]) for one in header.get("members", [{"path": ""}]))


def test_every_header_that_is_described_is_tried() -> None:
    assert {(case.vendor, case.header, case.path) for case in EVERY} == set(described())


JSON_HEADERS = sorted({case.header for case in EVERY if case.path})


def called(name: str, *more: str) -> str:
    return json.dumps([*(f"{vendor}:{name}" for vendor in VENDORS), *more])


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two topics in one stream and an account stream, each with a name at every vendor; `team@` may use both."""
    sections = {
        "topics": f"""
            [topics.{TOPIC}]
            name = "Product announcements"
            also_called = {called(NEWS, "standard:Weekly.Lists.Example.com")}
            [topics.special-offers]
            name = "Special offers"
            also_called = {called(OFFERS)}
            """,
        "streams": f"""
            [streams.newsletter]
            class = "promotional"
            topics = ["{TOPIC}", "special-offers"]
            from = ["*@news.example.com", "team@example.com"]
            [streams.billing]
            class = "account"
            from = ["billing@example.com", "team@example.com"]
            also_called = {called(BILLING)}
            """,
    }
    made = Gateway(tmp_path_factory.mktemp("vendors") / "house", shared_sink.url, sections=sections).prepare()
    made.add_login("both", "newsletter,billing")
    made.opt_in(READER)
    yield made.start()
    made.close()


_numbers = count(1)


def named(field: str) -> str:
    """Give a header of a family a name of its own."""
    return field.replace("*:", "Order-Number:")


def answer(house: Gateway, *fields: str, author: str = "ann@news.example.com", to: str = READER) -> tuple[int, str]:
    """Submit one message with further header fields; return the last reply."""
    content = (invoice if author == "billing@example.com" else newsletter)(to)
    content = re.sub(rb"From: [^\r]+", f"From: {author}".encode(), content)
    replies = house.submit(
        "".join(f"{named(one)}\r\n" for one in fields).encode() + content, [to], login="both", sender=author
    )
    return list(replies.values())[-1]


def slug(reply: tuple[int, str]) -> str:
    """Return "sent", or the code, the enhanced status and the slug of a refusal."""
    code, text = reply
    return "sent" if code == 250 else f"{code} {text.partition(':')[0]}"


def sent(sink: Sink) -> bytes:
    (message,) = sink.wait_for(1)
    return message.content


def decisions(house: Gateway, reply: tuple[int, str]) -> list[dict[str, Any]]:
    found = re.search(r"decision (\w{26})", reply[1])
    assert found, reply
    return list(house.json("explain", found[1]))


def gone(case: Case, content: bytes) -> bool:
    return field_of(content, named(f"{case.header}:").rstrip(":")) == []


NO_CONSENT = "550 5.7.1 no-consent"


# names


def test_who_has_opted_in_to_one_of_two_topics_gets_nothing_that_leaves_it_open(house: Gateway) -> None:
    assert slug(answer(house)) == NO_CONSENT
    assert slug(answer(house, author="team@example.com")) == NO_CONSENT


@pytest.mark.req("CLS-01", "CLS-02")
@pytest.mark.parametrize("case", [*MUST_EXIST, *MAY_EXIST], ids=str)
def test_a_name_of_the_vendors_chooses_the_topic(house: Gateway, sink: Sink, case: Case) -> None:
    assert slug(answer(house, case.field(OFFERS))) == NO_CONSENT
    assert slug(answer(house, case.field(NEWS))) == "sent"
    content = sent(sink)
    (listed,) = field_of(content, "List-Id")
    assert listed == b"List-Id: Product announcements <product-announcements.relay.example.com>\r\n"
    assert case.header == "List-ID" or gone(case, content)


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize("case", MUST_EXIST, ids=str)
def test_a_topic_that_the_login_does_not_have_is_refused(house: Gateway, case: Case) -> None:
    reply = answer(house, case.field(UNKNOWN))
    assert slug(reply) == "550 5.7.0 unknown-topic"
    assert f"{case} names no topic or stream" in reply[1] and f'"{case.vendor}:{UNKNOWN}"' in reply[1]
    assert slug(answer(house, case.field(NEWS), author="billing@example.com")) == "550 5.7.0 unknown-topic"


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize("case", MAY_EXIST, ids=str)
def test_what_may_be_a_name_and_is_none_leaves_the_strictest_choice(house: Gateway, sink: Sink, case: Case) -> None:
    assert slug(answer(house, case.field(UNKNOWN))) == NO_CONSENT
    assert slug(answer(house, case.field(NEWS), author="billing@example.com", to="anybody@example.org")) == "sent"
    assert gone(case, sent(sink))


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize("case", [*MUST_EXIST, *MAY_EXIST], ids=str)
def test_a_name_of_the_vendors_chooses_the_stream(house: Gateway, sink: Sink, case: Case) -> None:
    assert slug(answer(house, case.field(BILLING), author="team@example.com")) == "sent"
    assert field_of(sent(sink), "List-Unsubscribe") == []
    if case in MUST_EXIST:
        assert slug(answer(house, case.field(BILLING))) == "550 5.7.0 unknown-topic", "not for this From address"


@pytest.mark.req("HDR-03")
def test_a_list_is_known_by_what_stands_in_its_brackets_in_any_case(house: Gateway, sink: Sink) -> None:
    for said in ("<weekly.lists.example.com>", "Special offers\r\n <WEEKLY.lists.Example.COM>"):
        assert slug(answer(house, f"List-Id: {said}")) == "sent", said
    for other in ("weekly.lists.example.com <other.lists.example.com>", "<weekly.lists.example.com.evil.example>"):
        assert slug(answer(house, f"List-Id: {other}")) == NO_CONSENT, other
    assert len(sink.wait_for(2)) == 2


@pytest.mark.req("CLS-01")
def test_who_is_named_two_topics_by_a_message_must_have_opted_in_to_both(house: Gateway) -> None:
    assert slug(answer(house, f"X-Mailgun-Tag: {NEWS}", f"X-Mailgun-Tag: {OFFERS}")) == NO_CONSENT
    assert slug(answer(house, f"X-PM-Message-Stream: {NEWS}", "Assent-Topic: special-offers")) == NO_CONSENT
    assert slug(answer(house, f"X-PM-Message-Stream: {NEWS}", f"X-GreenArrow-ListID: {OFFERS}")) == NO_CONSENT


@pytest.mark.req("CLS-01")
def test_our_own_names_are_understood_in_a_vendors_header(house: Gateway, sink: Sink) -> None:
    assert slug(answer(house, f"X-PM-Message-Stream: {TOPIC.upper()}")) == "sent"
    assert slug(answer(house, "X-PM-Message-Stream: billing", author="team@example.com")) == "sent"
    assert [one.recipients for one in sink.wait_for(2)] == [(READER,), (READER,)]


@pytest.mark.parametrize("case", CAMPAIGNS, ids=str)
def test_the_campaign_stands_in_the_decision(house: Gateway, sink: Sink, case: Case) -> None:
    (line,) = decisions(house, answer(house, case.field("autumn"), to="nobody@example.org"))
    assert line["campaign"] == "autumn"
    assert slug(answer(house, case.field("autumn"), author="billing@example.com")) == "sent"
    assert gone(case, sent(sink)) or case in STAYING or case.header == "Feedback-ID"


def test_a_campaign_in_our_own_words_comes_first(house: Gateway) -> None:
    reply = answer(house, "X-PM-Tag: autumn", "Assent-Campaign: winter", to="nobody@example.org")
    assert decisions(house, reply)[0]["campaign"] == "winter"


# the class


@pytest.mark.req("CLS-01")
def test_a_message_that_calls_itself_transactional_is_of_an_essential_stream_or_refused(
    house: Gateway, sink: Sink
) -> None:
    said = 'X-MSYS-API: {"options": {"transactional": true}}'
    assert slug(answer(house, said)) == "550 5.7.0 class-mismatch"
    assert slug(answer(house, said, author="team@example.com", to="anybody@example.org")) == "sent"
    assert field_of(sent(sink), "X-MSYS-API") == []


@pytest.mark.req("CLS-01")
@pytest.mark.parametrize("said", ['X-MSYS-API: {"options": {"transactional": false}}', "X-Listmonk-Campaign: 77"])
def test_a_message_that_calls_itself_promotional_is_so_on_any_stream(house: Gateway, sink: Sink, said: str) -> None:
    assert slug(answer(house, said, author="billing@example.com")).startswith("550 5.7.1 ")
    assert slug(answer(house, said, "Assent-Class: account", author="billing@example.com")).startswith("550 5.7.1 ")
    assert slug(answer(house, said, f"Assent-Topic: {TOPIC}")) == "sent"
    assert field_of(sent(sink), said.partition(":")[0]) == []


def test_what_says_both_is_promotional(house: Gateway) -> None:
    said = 'X-MSYS-API: {"options": {"transactional": true}}'
    assert slug(answer(house, said, "X-Listmonk-Campaign: 77", author="team@example.com")) == NO_CONSENT


# services


@pytest.mark.parametrize("case", SERVICES, ids=str)
def test_a_service_that_is_not_done_here_is_refused_by_name(house: Gateway, sink: Sink, case: Case) -> None:
    for author in ("ann@news.example.com", "billing@example.com"):
        reply = answer(house, case.field(), author=author)
        assert slug(reply) == "550 5.6.0 unsupported-header"
        assert named(f"{case.header}:").rstrip(":") in reply[1]
    assert not sink.messages


@pytest.mark.parametrize("case", [one for one in (*SERVICES, *BYPASSES) if one.harmless], ids=str)
def test_a_service_that_is_declined_changes_nothing(house: Gateway, sink: Sink, case: Case) -> None:
    for field in case.harmless_fields():
        assert slug(answer(house, field, f"Assent-Topic: {TOPIC}")) == "sent", field
    assert all(gone(case, one.content) for one in sink.wait_for(len(case.harmless)))


@pytest.mark.req("CLS-02")
@pytest.mark.parametrize("case", WITHOUT_EFFECT, ids=str)
def test_what_concerns_only_the_vendor_is_removed(house: Gateway, sink: Sink, case: Case) -> None:
    assert slug(answer(house, case.field())) == NO_CONSENT
    assert slug(answer(house, case.field(), f"Assent-Topic: {TOPIC}")) == "sent"
    assert gone(case, sent(sink))


@pytest.mark.req("HDR-05", "HDR-07")
@pytest.mark.parametrize("case", STAYING, ids=str)
def test_what_speaks_to_the_recipients_systems_stays_as_it_is(house: Gateway, sink: Sink, case: Case) -> None:
    assert slug(answer(house, case.field(), f"Assent-Topic: {TOPIC}")) == "sent"
    content = sent(sink)
    assert field_of(content, case.header) == [f"{case.field()}\r\n".encode()]
    assert link_of(content), "no such header is a reason to leave the link out"


# JSON


@pytest.mark.parametrize("header", JSON_HEADERS)
@pytest.mark.parametrize("value", ["{", "", "[]", "null", '{"a": 1', "{'a': 1}", '{"a": "\\ud800"}', '{"a": "\xff"}'])
def test_json_that_cannot_be_read_is_refused(house: Gateway, header: str, value: str) -> None:
    content = f"{header}: {value}\r\n".encode("latin-1") + newsletter(READER)
    reply = house.submit(content, [READER], login="both", sender="ann@news.example.com")[""]
    assert slug(reply) == "550 5.6.0 unsupported-header"
    assert f"{header} is not " in reply[1]


@pytest.mark.parametrize(
    "field",
    [
        'X-MSYS-API: {"metadata": "4711"}',
        'X-MSYS-API: {"options": {"transactional": "perhaps"}}',
        'X-MSYS-API: {"options": true}',
        'X-MSYS-API: {"options": {"start_time": "2039-01-01T00:00:00Z"}}',
        'X-MSYS-API: {"campaign_id": {"a": 1}}',
        'X-SMTPAPI: {"asm_group_id": true}',
        'X-SMTPAPI: {"to": "ann@example.org"}',
        'X-SMTPAPI: {"to": [["ann@example.org"]]}',
        'X-SMTPAPI: {"to": ["ann@"]}',
        'X-SMTPAPI: {"to": [null]}',
        'X-SMTPAPI: {"to": ["ren\\u00e9@example.org"]}',
        'X-SMTPAPI: {"filters": {"unheard-of": 1}}',
        'X-SMTPAPI: {"unheard-of": 1}',
        'X-SMTPAPI: {"unheard\\r\\n-of\\u00e9": 1}',
        "X-SES-LIST-MANAGEMENT-OPTIONS: topic=",
        "X-MC-BccAddress: nobody",
        "X-MC-BccAddress: *@example.org",
        'X-SMTPAPI: {"to": ["Everybody <*@example.org>"]}',
    ],
)
def test_what_is_not_as_the_vendor_writes_it_is_refused(house: Gateway, field: str) -> None:
    reply = answer(house, field, f"Assent-Topic: {TOPIC}")
    assert slug(reply) == "550 5.6.0 unsupported-header"


def test_of_several_headers_the_first_counts_where_the_vendor_says_so(house: Gateway, sink: Sink) -> None:
    first, second = (f'X-SMTPAPI: {{"asm_group_id": {group}}}' for group in (NEWS, OFFERS))
    assert slug(answer(house, first, second)) == "sent"
    assert slug(answer(house, second, first)) == NO_CONSENT
    assert field_of(sent(sink), "X-SMTPAPI") == []


def test_folded_json_is_read(house: Gateway, sink: Sink) -> None:
    assert slug(answer(house, f'X-SMTPAPI: {{"category": ["a",\r\n "b"],\r\n\t"asm_group_id":\r\n {NEWS}}}')) == "sent"
    assert field_of(sent(sink), "X-SMTPAPI") == [] and b"asm_group_id" not in sent(sink)


def test_a_fold_at_a_tab_and_what_says_nothing_break_no_json(house: Gateway, sink: Sink) -> None:
    folded = f'X-SMTPAPI: {{"asm_group_id": {NEWS}, "unique_args": {{"way": "by\r\n\ttrain"}}}}'
    assert slug(answer(house, folded)) == "sent"
    empty = '"unique_args": [], "sub": [], "to": [], "filters": [], "asm_groups_to_display": null'
    assert slug(answer(house, f'X-SMTPAPI: {{"asm_group_id": {NEWS}, {empty}}}')) == "sent", "as PHP writes it"
    sink.wait_for(2)


@pytest.mark.req("SMTP-08", "CLS-02")
@pytest.mark.parametrize("header", [f'X-SMTPAPI: {{"asm_group_id":{NEWS},"unique_args":{{"a":"%s"}}}}', "Bcc: %s"])
def test_what_is_for_us_alone_may_have_longer_lines_than_mail_has(house: Gateway, sink: Sink, header: str) -> None:
    """Such a line is never relayed; JSON without white space, as many a program writes it, could not be folded."""
    field = header % ",".join(f"somebody{n}@example.org" for n in range(100))
    assert slug(answer(house, field, f"Assent-Topic: {TOPIC}")) == "sent"
    content = sent(sink)
    assert not field_of(content, field.partition(":")[0]) and b"somebody" not in content
    assert max(map(len, content.split(b"\r\n"))) <= 998


ENCODED = """\
X-SMTPAPI: =?UTF-8?Q?=7B=22category=22=3A=22spring-campaign-w?=\r
 =?UTF-8?Q?ith-a-rather-long-name-that-goes-on=22?=\r
 =?UTF-8?Q?=2C=22asm=5Fgroup=5Fid=22=3A101=7D?="""
"""As Nodemailer and Python's EmailMessage write JSON that has no white space to fold at."""


@pytest.mark.req("CLS-02")
def test_encoded_words_are_read_as_mail_libraries_write_them(house: Gateway, sink: Sink) -> None:
    assert slug(answer(house, ENCODED)) == "sent"
    assert field_of(sent(sink), "X-SMTPAPI") == [] and b"asm" not in sent(sink)
    (line,) = decisions(house, answer(house, ENCODED, to="nobody@example.org"))
    assert line["campaign"] == "spring-campaign-with-a-rather-long-name-that-goes-on"
    for tag in ("X-PM-Tag", "Assent-Campaign"):
        reply = answer(house, f"{tag}: =?utf-8?q?fr=C3=BChling_=0D=0A?= =?utf-8?q?2?=", to="nobody@example.org")
        assert decisions(house, reply)[0]["campaign"] == "frühling  2"


def test_what_is_asked_for_in_encoded_words_is_refused_all_the_same(house: Gateway) -> None:
    for value in ('{"send_at": 1893456000}', '{"sub": {"%n%": ["Ann"]}}', "{", f'{{"{BYPASS}": 1}}'):
        encoded = base64.b64encode(value.encode()).decode()
        reply = answer(house, f"X-SMTPAPI: =?utf-8?b?{encoded}?=", f"Assent-Topic: {TOPIC}")
        assert slug(reply) == "550 5.6.0 unsupported-header"


# recipients


@pytest.mark.req("POL-01", "UNS-31")
@pytest.mark.parametrize("case", RECIPIENTS, ids=str)
def test_a_recipient_in_a_header_is_decided_about_like_any_other(
    house: Gateway, sink: Sink, someone: Someone, case: Case
) -> None:
    agreed, stranger = someone(), someone()
    house.opt_in(agreed)
    topic = f"Assent-Topic: {TOPIC}"
    assert slug(answer(house, case.field(agreed), topic)) == "sent"
    copies = {one.recipients: one.content for one in sink.wait_for(2)}
    assert copies.keys() == {(READER,), (agreed,)}
    assert token_of(copies[(READER,)]) != token_of(copies[(agreed,)]), "each has a link of their own"
    assert not any(agreed.encode() in content for content in (copies[(READER,)],)), "and is not named to the other"
    sink.clear()
    assert slug(answer(house, case.field(stranger), topic)) == "sent"
    copies = {one.recipients: one.content for one in sink.wait_for(2)}
    assert copies.keys() == {(READER,), ("ann@news.example.com",)}, "a copy, and the report to the reverse path"
    assert stranger.encode() in copies[("ann@news.example.com",)]
    sink.clear()
    assert slug(answer(house, case.field(READER), topic)) == "sent"
    assert len(sink.wait_for(1)) == 1, "who is named twice gets one copy"


def test_a_recipient_in_a_header_who_is_refused_stands_in_the_report(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    stranger = someone()
    assert slug(answer(house, f"X-MC-BccAddress: {stranger}", f"Assent-Topic: {TOPIC}")) == "sent"
    report = next(one.content for one in sink.wait_for(2) if not one.envelope_from)
    assert (
        stranger.encode() in report and b"no-consent" in report and READER.encode() not in report.split(b"\r\n\r\n")[2]
    )


@pytest.mark.parametrize(
    "header", ["X-MC-BccAddress: %s", 'X-SMTPAPI: {"unique_args":{"a":"' + "x" * 999 + '"},"to":["%s"]}']
)
def test_a_recipient_in_a_header_gets_account_mail(house: Gateway, sink: Sink, someone: Someone, header: str) -> None:
    other = someone()
    assert slug(answer(house, header % other, author="billing@example.com")) == "sent"
    assert {one for message in sink.wait_for(1) for one in message.recipients} == {READER, other}


def test_a_header_names_no_more_recipients_than_a_message_may_have(house: Gateway, sink: Sink) -> None:
    named = json.dumps([f"many{n}@example.org" for n in range(1000)])
    reply = answer(house, f'X-SMTPAPI: {{"to":\r\n {named}}}', author="billing@example.com")
    assert slug(reply) == "550 5.6.0 unsupported-header" and "1000" in reply[1]
    assert not sink.messages


# passing over a "no"


@pytest.mark.parametrize("case", BYPASSES, ids=str)
def test_promotion_may_not_pass_over_what_people_have_said(
    house: Gateway, sink: Sink, someone: Someone, case: Case
) -> None:
    left = someone()
    house.opt_in(left)
    house.run("suppressions", "add", left, "--scope", "all-marketing", "--reason", "unsubscribed")
    for recipient in (READER, left):
        reply = answer(house, case.field(), f"Assent-Topic: {TOPIC}", to=recipient)
        assert reply[0] == 550
        if recipient == READER:
            assert slug(reply) == "550 5.7.0 class-mismatch"
            assert case.path in decisions(house, reply)[0]["sentence"], "that it was asked for is on record"
    assert not sink.messages


@pytest.mark.parametrize("case", BYPASSES, ids=str)
def test_mail_that_no_one_can_refuse_may_ask_for_it_and_that_is_recorded(
    house: Gateway, sink: Sink, someone: Someone, case: Case
) -> None:
    left = someone()
    house.run("suppressions", "add", left, "--scope", "all-marketing", "--reason", "unsubscribed")
    message_id = f"bypass{next(_numbers)}@shop.example.net"
    content = re.sub(rb"(?m)^Message-ID: .*\r$", f"Message-ID: <{message_id}>\r".encode(), invoice(left))
    fields = f"{case.field()}\r\n".encode()
    assert house.submit(fields + content, [left], login="shop", sender="billing@example.com")[""][0] == 250
    assert gone(case, sent(sink))
    door = next(one for one in house.json("explain", message_id, left) if one["kind"] == "door")
    assert door["bypasses"] == [str(case)]


# Feedback-ID


@pytest.mark.req("HDR-06")
def test_a_feedback_id_is_the_same_for_every_recipient(house: Gateway, sink: Sink, someone: Someone) -> None:
    readers = [someone(), someone()]
    house.opt_in(*readers)
    said = "Feedback-ID: spring:customer:news:example1"
    content = f"{said}\r\nAssent-Topic: {TOPIC}\r\n".encode() + newsletter(", ".join(readers))
    assert house.submit(content, readers, login="both", sender="ann@news.example.com")[""][0] == 250
    assert [field_of(one.content, "Feedback-ID") for one in sink.wait_for(2)] == [[f"{said}\r\n".encode()]] * 2


# configuration


def test_a_name_that_two_would_have_and_a_vendor_that_nobody_knows_are_problems(house: Gateway, tmp_path: Path) -> None:
    text = house.config.read_text()
    for wrong, words in (
        (text.replace(f'"postmark:{OFFERS}"', f'"postmark:{NEWS}"'), f'are both called "postmark:{NEWS}"'),
        (text.replace(f'"postmark:{OFFERS}"', '"postmarc:1"'), 'did you mean "postmark"?'),
    ):
        house.config.write_text(wrong)
        try:
            done = house.run("check", check=False)
        finally:
            house.config.write_text(text)
        assert done.returncode == 78 and words in done.stdout + done.stderr
