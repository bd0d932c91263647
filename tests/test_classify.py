"""Which stream, class and topic a message has: it chooses among what its login has, and never more freely."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import Address
from gateway.classify import STRICTEST_FIRST, Choice, Mismatch, classify, matches_any, purposes_of
from gateway.headers import split
from gateway.model import MessageClass, Purpose, Reason, Stream, Topic

pytestmark = pytest.mark.req("CLS-01")

PROMOTIONAL, ACCOUNT = MessageClass.PROMOTIONAL, MessageClass.ACCOUNT
TOPICS = {slug: Topic(slug, slug.title(), partner=slug == "partners") for slug in ("news", "offers", "partners")}
NEWSLETTER = Stream("newsletter", PROMOTIONAL, ("news", "offers"), ("*@news.example.com", "all@example.com"))
PARTNERS = Stream("partners", PROMOTIONAL, ("partners",), ("*@partners.example.com", "all@example.com"))
BILLING = Stream("billing", ACCOUNT, (), ("billing@example.com", "all@example.com"))
STREAMS = (BILLING, NEWSLETTER, PARTNERS)


def chosen(author: str, *headers: str, streams: tuple[Stream, ...] = STREAMS) -> Choice | Mismatch:
    block = "".join(f"{line}\r\n" for line in (f"From: {author}", *headers)).encode()
    return classify(split(block + b"\r\n"), streams, TOPICS)


def choice(author: str, *headers: str, streams: tuple[Stream, ...] = STREAMS) -> Choice:
    found = chosen(author, *headers, streams=streams)
    assert isinstance(found, Choice), found
    return found


def mismatch(author: str, *headers: str, streams: tuple[Stream, ...] = STREAMS) -> Mismatch:
    found = chosen(author, *headers, streams=streams)
    assert isinstance(found, Mismatch), found
    return found


def slugs(found: Choice) -> set[str]:
    return {one.topic.slug for one in found.purposes if one.topic}


@pytest.mark.parametrize(
    ("author", "stream"),
    [
        ("billing@example.com", BILLING),
        ("Billing <BILLING@Example.COM>", BILLING),
        ("week@news.example.com", NEWSLETTER),
        ("x@partners.example.com", PARTNERS),
    ],
)
def test_the_from_address_chooses_the_stream(author: str, stream: Stream) -> None:
    found = choice(author)
    assert (found.stream, found.message_class) == (stream, stream.message_class)


@pytest.mark.req("SMTP-25")
@pytest.mark.parametrize(
    "author",
    [
        *("eve@example.com", "x@news.example.com.evil.example", "billing@example.com, eve@example.com"),
        *("news.example.com@evil.example", '"billing@example.com" <eve@evil.example>', "x@sub.news.example.org"),
    ],
)
def test_a_from_address_that_the_login_does_not_have_is_refused(author: str) -> None:
    assert (mismatch(author).reason, mismatch(author).enhanced) == (Reason.CLASS_MISMATCH, "5.7.1")


@pytest.mark.parametrize("author", ["", "nobody", "a b c", "undisclosed:;", "<>"])
def test_a_from_that_cannot_be_read_is_refused(author: str) -> None:
    assert mismatch(author).enhanced == "5.7.1"


def test_a_message_without_a_from_is_refused() -> None:
    found = classify(split(b"Subject: hi\r\n\r\n"), STREAMS, TOPICS)
    assert isinstance(found, Mismatch)


def test_every_author_must_be_one_of_the_stream() -> None:
    desk = Stream("desk", ACCOUNT, (), ("*@desk.example.com",))
    assert choice("a@desk.example.com, b@desk.example.com", streams=(*STREAMS, desk)).stream is desk
    assert mismatch("a@desk.example.com, billing@example.com", streams=(*STREAMS, desk)).enhanced == "5.7.1"


def test_promotion_has_one_author() -> None:
    assert mismatch("a@news.example.com, b@news.example.com").enhanced == "5.7.1"


@pytest.mark.parametrize("stream", STREAMS)
def test_a_header_chooses_among_the_streams_of_the_from_address(stream: Stream) -> None:
    assert choice("all@example.com", f"Assent-Stream: {stream.name}").stream is stream
    assert choice("all@example.com", f"assent-stream:  {stream.name.upper()} ").stream is stream


@pytest.mark.parametrize(
    "named", ["nothing", "billing, newsletter", "=?utf-8?q?billing?=", "billing\x85", "\xa0billing", "billing\x0c"]
)
def test_a_stream_that_the_login_does_not_have_is_refused(named: str) -> None:
    assert mismatch("all@example.com", f"Assent-Stream: {named}").enhanced == "5.7.0"


def test_a_stream_that_the_from_address_may_not_use_is_refused() -> None:
    assert mismatch("week@news.example.com", "Assent-Stream: billing").reason is Reason.CLASS_MISMATCH


def test_more_than_one_stream_means_the_strictest_and_every_topic_of_all_that_are_as_strict() -> None:
    found = choice("all@example.com")
    assert found.message_class is PROMOTIONAL
    assert slugs(found) == {"news", "offers", "partners"}
    assert found.topic is None


def test_more_than_one_topic_means_all_of_them() -> None:
    found = choice("week@news.example.com")
    assert slugs(found) == {"news", "offers"}
    assert found.topic is None


@pytest.mark.parametrize(("topic", "stream"), [("news", NEWSLETTER), ("offers", NEWSLETTER), ("partners", PARTNERS)])
def test_a_header_chooses_the_topic_and_so_the_stream(topic: str, stream: Stream) -> None:
    found = choice("all@example.com", f"Assent-Topic: {topic}")
    assert found.stream is stream
    assert found.purposes == (Purpose(PROMOTIONAL, TOPICS[topic]),)
    assert found.topic == TOPICS[topic]


@pytest.mark.parametrize(
    ("author", "topic"),
    [("week@news.example.com", "partners"), ("all@example.com", "nothing"), ("billing@example.com", "news")],
)
def test_a_topic_that_the_login_does_not_have_is_refused(author: str, topic: str) -> None:
    found = mismatch(author, f"Assent-Topic: {topic}")
    assert (found.reason, found.enhanced) == (Reason.UNKNOWN_TOPIC, "5.7.0")


def test_a_header_chooses_a_looser_stream_where_the_login_has_one() -> None:
    assert choice("all@example.com", "Assent-Class: account").stream is BILLING


@pytest.mark.parametrize("declared", [one for one in MessageClass if one is not PROMOTIONAL])
def test_a_class_looser_than_the_stream_is_refused(declared: MessageClass) -> None:
    found = mismatch("week@news.example.com", f"Assent-Class: {declared}")
    assert (found.reason, found.enhanced) == (Reason.CLASS_MISMATCH, "5.7.0")


def test_a_class_stricter_than_the_stream_is_believed() -> None:
    found = choice("billing@example.com", "Assent-Class: promotional")
    assert (found.stream, found.message_class) == (BILLING, PROMOTIONAL)
    assert found.purposes == (Purpose(PROMOTIONAL, None),), "which allows nobody: the stream has no topic"


@pytest.mark.parametrize("declared", ["transactional", "promotional; account", "0"])
def test_a_class_that_does_not_exist_is_refused(declared: str) -> None:
    assert mismatch("billing@example.com", f"Assent-Class: {declared}").enhanced == "5.7.0"


@pytest.mark.parametrize("name", ["Assent-Stream: {}", "Assent-Class: {}", "Assent-Topic: {}"])
@pytest.mark.parametrize(("one", "other"), [("billing", "newsletter"), ("account", "promotional"), ("news", "offers")])
def test_headers_that_contradict_each_other_choose_nothing(name: str, one: str, other: str) -> None:
    assert mismatch("all@example.com", name.format(one), name.format(other)).enhanced == "5.7.0"


def test_a_header_said_twice_is_said_once() -> None:
    assert choice("all@example.com", "Assent-Topic: news", "ASSENT-TOPIC: News").topic == TOPICS["news"]


def test_an_empty_header_says_nothing() -> None:
    assert choice("billing@example.com", "Assent-Class:", "Assent-Stream: ", "Assent-Topic:").stream is BILLING


def test_everything_that_a_login_may_mean_is_asked_at_rcpt() -> None:
    assert purposes_of(STREAMS, TOPICS) == (
        Purpose(ACCOUNT),
        *(Purpose(PROMOTIONAL, TOPICS[slug]) for slug in ("news", "offers", "partners")),
    )
    assert purposes_of([Stream("bare", PROMOTIONAL)], TOPICS) == (Purpose(PROMOTIONAL, None),)


def test_patterns_match_keys_and_not_what_is_shown() -> None:
    assert matches_any(Address.parse('"Week"@NEWS.example.com.'), NEWSLETTER.senders)
    assert not matches_any(Address.parse("week@new.example.com"), NEWSLETTER.senders)


def test_the_order_of_strictness_names_every_class_once() -> None:
    assert sorted(STRICTEST_FIRST) == sorted(MessageClass)
    assert STRICTEST_FIRST[0] is PROMOTIONAL


_VALUES = st.sampled_from(["", "billing", "newsletter", "partners", "account", "promotional", "news", "offers", "?"])
_HEADERS = st.lists(st.tuples(st.sampled_from(["Stream", "Class", "Topic"]), _VALUES), max_size=4)
_AUTHORS = st.sampled_from(["all@example.com", "billing@example.com", "week@news.example.com"])


@given(_AUTHORS, _HEADERS)
def test_no_header_gives_a_message_more_than_its_from_address_has(author: str, headers: list[tuple[str, str]]) -> None:
    found = chosen(author, *(f"Assent-{name}: {value}" for name, value in headers))
    if isinstance(found, Choice):
        assert matches_any(Address.parse(author), found.stream.senders)
        assert STRICTEST_FIRST.index(found.message_class) <= STRICTEST_FIRST.index(found.stream.message_class)
        assert found.purposes
        assert all(one.message_class is found.message_class for one in found.purposes)
