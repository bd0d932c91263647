"""The dialogue without a socket: whole conversations from tests/dialogues, and what must hold for any octets at all.

A script's lines: `T:` the terms, `C:` what the client sends (CRLF is added; `c:` adds nothing), `A:` the listener's
next answer, `S:` the server's next line (`*` at its end stands for anything), `E:` the events there have been, `tls`
for a finished handshake, `closed`. Escapes are Python's. Client lines in a row arrive in one packet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialogue import Auth, Content, Credentials, Dialogue, Event, Hello, Mail, Rcpt, StartTls, Terms
from gateway.model import Reply

SCRIPTS = sorted((Path(__file__).parent / "dialogues").glob("*.smtp"))
TERMS = Terms("mx.example.com")
ANSWERS = {
    Credentials: Reply(235, "2.7.0", "welcome"),
    Mail: Reply(250, "2.1.0", "ok"),
    Rcpt: Reply(250, "2.1.5", "ok"),
    Content: Reply(250, "2.0.0", "queued"),
}


class Conversation:
    """A dialogue with a listener that says yes to everything, unless it is told what to say."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.dialogue = Dialogue(terms)
        self.answers: list[Reply] = []
        self.events: list[Event] = []
        self.said = self.dialogue.greeting()

    def hear(self, data: bytes) -> None:
        self.dialogue.receive(data)
        while (event := self.dialogue.next_event()) is not None:
            self.events.append(event)
            if type(event) in ANSWERS:
                self.dialogue.answer(self.answers.pop(0) if self.answers else ANSWERS[type(event)])
        self.said += self.dialogue.data_to_send()

    def shake_hands(self) -> None:
        self.dialogue.restart(replace(self.terms, starttls=False, auth=Auth.NOW))

    @property
    def messages(self) -> list[bytes]:
        return [event.message for event in self.events if isinstance(event, Content)]

    @property
    def lines(self) -> list[str]:
        return self.said.decode("ascii").split("\r\n")[:-1]


def open_transaction(terms: Terms = TERMS) -> Conversation:
    """Return a conversation in which the message is awaited."""
    conversation = Conversation(terms)
    conversation.hear(b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    assert conversation.lines[-1].startswith("354 ")
    conversation.said = b""
    return conversation


# -- scripts --


def unescaped(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def told(event: Event) -> bytes:
    match event:
        case Hello(name):
            text = f"Hello {name}"
        case StartTls():
            text = "StartTls"
        case Credentials(mechanism, name, password):
            text = f"Credentials {mechanism} {name} {password}"
        case Mail(path, options, size):
            text = " ".join(["Mail", path, *([f"SIZE={size}"] if size else []), *options])
        case Rcpt(recipient):
            text = " ".join(["Rcpt", recipient.address.text, *recipient.options])
        case Content(message):
            return b"Content " + message if message else b"Content"
    return text.rstrip(" ").encode()


def terms_of(text: str) -> Terms:
    settings: dict[str, Any] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        settings[name] = Auth[value.upper()] if name == "auth" else int(value) if value else True
    return replace(TERMS, **settings)


def reply_of(text: str) -> Reply:
    code, enhanced, words = text.split(" ", 2)
    return Reply(int(code), enhanced, words)


def steps(script: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(script.read_text("utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            kind, _, rest = line.partition(":")
            yield number, kind, rest.removeprefix(" ")


def requirements(script: Path) -> Iterable[pytest.MarkDecorator]:
    named = re.match(r"# req: (.*)", script.read_text("utf-8"))
    return [pytest.mark.req(*named[1].split(", "))] if named else []


class Play:
    """Acts a script out, and fails at the line where the server does something else."""

    def __init__(self, script: Path) -> None:
        self.script = script
        self.conversation = Conversation(TERMS)
        self.packet = b""
        self.events_seen: list[bytes] = []
        self.expects_events = False

    def act(self) -> None:
        for number, kind, rest in steps(self.script):
            where = f"{self.script.name}:{number}"
            if kind not in ("C", "c", "A"):
                self.send()
            self.step(kind, rest, where)
        self.send()
        assert self.conversation.lines == [], "the server said more"
        if self.expects_events:
            assert [told(event) for event in self.conversation.events] == [], "there were more events"

    def send(self) -> None:
        packet, self.packet = self.packet, b""
        self.conversation.hear(packet)

    def step(self, kind: str, rest: str, where: str) -> None:
        match kind:
            case "T":
                self.conversation = Conversation(terms_of(rest))
            case "C":
                self.packet += unescaped(rest) + b"\r\n"
            case "c":
                self.packet += unescaped(rest)
            case "A":
                self.conversation.answers.append(reply_of(rest))
            case "S":
                self.hear_line(rest, where)
            case "E":
                self.expects_events = True
                assert told(self.conversation.events.pop(0)) == unescaped(rest), where
            case "tls":
                self.conversation.shake_hands()
            case "closed":
                assert self.conversation.dialogue.closed, where
            case _:
                pytest.fail(f"{where}: a script has no {kind}")

    def hear_line(self, expected: str, where: str) -> None:
        line, _, self.conversation.said = self.conversation.said.partition(b"\r\n")
        said = line.decode("ascii")
        assert said.startswith(expected[:-1]) if expected.endswith("*") else said == expected, f"{where}: {said}"


@pytest.mark.parametrize("script", [pytest.param(one, id=one.stem, marks=requirements(one)) for one in SCRIPTS])
def test_the_conversation_goes_as_its_script_says(script: Path) -> None:
    Play(script).act()


# -- smuggling --

SMUGGLED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n"
SEQUENCES = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n",
    b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.req("SMTP-06")
@pytest.mark.parametrize("sequence", SEQUENCES, ids=repr)
def test_a_smuggled_message_is_never_a_second_one(sequence: bytes) -> None:
    conversation = open_transaction()
    conversation.hear(b"Subject: hi\r\n\r\nhi" + sequence + SMUGGLED)
    assert conversation.messages == []
    assert [line[:9] for line in conversation.lines] == ["554 5.6.0"]


@pytest.mark.req("SMTP-06")
@pytest.mark.parametrize("octets", [b"\n", b"\r", b"\0", b"a\nb\r\n", b"\r\r\n", b"\n\r\n"], ids=repr)
def test_bare_line_ends_and_nul_are_refused_and_the_next_message_is_not(octets: bytes) -> None:
    conversation = open_transaction()
    conversation.hear(b"Subject: hi\r\n\r\n" + octets + b"\r\n.\r\n")
    conversation.hear(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nfine\r\n.\r\n")
    assert conversation.lines[0].startswith("554 5.6.0")
    assert conversation.messages == [b"fine\r\n"]


# -- memory --


@pytest.mark.req("SMTP-12")
@pytest.mark.parametrize(
    "chunk", [b"x" * 1000, b"\r\n" * 500, b"..\r\n" * 250, b"\n" * 1000], ids=lambda c: repr(c[:4])
)
def test_a_message_without_end_stops_growing_at_its_limit(chunk: bytes) -> None:
    conversation = open_transaction(replace(TERMS, max_size=10_000))
    held = []
    for _ in range(500):
        conversation.hear(chunk)
        held.append(conversation.dialogue.buffered)
    assert max(held) < 2 * 10_000
    assert held[-1] < 10
    conversation.hear(b"\r\n.\r\nNOOP\r\n")
    assert [line[:9] for line in conversation.lines] == ["552 5.3.4", "250 2.0.0"]


@pytest.mark.req("SMTP-27")
def test_a_command_line_without_end_is_not_kept() -> None:
    conversation = Conversation(TERMS)
    for _ in range(100):
        conversation.hear(b"NOOP " * 1000)
        assert conversation.dialogue.buffered < 20_000
    conversation.hear(b"\r\nNOOP\r\n")
    assert conversation.lines[1:] == ["500 5.5.2 the line is too long", "250 2.0.0 ok"]


def test_a_message_that_the_listener_gives_up_is_let_go_at_once_and_refused_after_its_dot() -> None:
    conversation = open_transaction()
    conversation.hear(b"x" * 100_000)
    conversation.dialogue.refuse_content(Reply(452, "4.3.1", "too much mail at this moment"))
    assert conversation.dialogue.buffered < 10
    conversation.hear(b"x" * 1000 + b"\r\n.\r\nMAIL FROM:<a@example.com>\r\n")
    assert conversation.lines == ["452 4.3.1 too much mail at this moment", "250 2.1.0 ok"]
    assert conversation.messages == []


# -- limits of RFC 5321 §4.5.3.1 --


@pytest.mark.req("SMTP-27")
@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (b"NOOP " + b"x" * 505, True),
        (b"NOOP " + b"x" * 506, False),
        (b"RCPT TO:<b@example.net> ORCPT=rfc822;" + b"x" * 500, True),
        (b"RCPT TO:<b@example.net> ORCPT=rfc822;" + b"x" * 1000, False),
        (b"MAIL FROM:<a@example.com> AUTH=" + b"x" * 500, True),
        (b"MAIL FROM:<a@example.com> AUTH=" + b"x" * 1200, False),
        (b"AUTH PLAIN " + b"x" * 12275, True),
        (b"AUTH PLAIN " + b"x" * 12276, False),
    ],
)
def test_a_line_may_be_as_long_as_the_standard_and_its_extensions_say(line: bytes, fits: bool) -> None:
    conversation = Conversation(replace(TERMS, auth=Auth.NOW))
    conversation.hear(b"EHLO client.example\r\n")
    conversation.hear(line + b"\r\n")
    assert (conversation.lines[-1] == "500 5.5.2 the line is too long") is not fits


@pytest.mark.req("SMTP-27")
@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("x" * 64 + "@example.com", True),
        ("x" * 65 + "@example.com", False),
        ("x@" + ".".join(["y" * 49] * 5) + ".de", True),
        ("x@" + ".".join(["y" * 63] * 4) + ".example", False),
        ("x@" + "y" * 63 + ".example", True),
        ("x@" + "y" * 64 + ".example", False),
        ("x@" + ".".join(["y" * 61] * 4) + ".abcd", True),
        ("x@" + ".".join(["y" * 61] * 4) + ".abcde", False),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, str) else str(value),
)
def test_paths_local_parts_and_domains_have_the_standards_limits(address: str, fits: bool) -> None:
    conversation = Conversation(TERMS)
    conversation.hear(b"HELO client.example\r\nMAIL FROM:<a@example.com>\r\n")
    conversation.hear(f"RCPT TO:<{address}>\r\n".encode())
    assert conversation.lines[-1][:9] == ("250 2.1.5" if fits else "553 5.1.3")


# -- replies --


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "x" * 2000, "word " * 400, "grün \u2028 \x00", ""], ids=repr)
@pytest.mark.req("SMTP-10")
def test_whatever_a_reply_says_it_is_lines_of_ascii_with_code_and_status(text: str) -> None:
    conversation = open_transaction()
    conversation.answers = [Reply(550, "5.7.1", text)]
    conversation.hear(b"hi\r\n.\r\n")
    *inner, last = conversation.said.decode("ascii").removesuffix("\r\n").split("\r\n")
    assert all(re.fullmatch(r"550-5\.7\.1 [ -~]*", line) for line in inner)
    assert re.fullmatch(r"550 5\.7\.1 [ -~]*", last)
    assert all(len(line) <= 510 for line in [*inner, last])


def test_a_password_does_not_show_in_a_representation() -> None:
    assert "hunter2" not in repr(Credentials("PLAIN", "shop", "hunter2"))


def test_an_answer_that_nobody_asked_for_is_our_own_mistake() -> None:
    with pytest.raises(RuntimeError):
        Dialogue(TERMS).answer(Reply(250, "2.0.0", "ok"))


# -- what holds for any octets --

PIECES = st.sampled_from(
    [
        b"EHLO client.example\r\n", b"HELO client.example\r\n", b"MAIL FROM:<a@example.com>\r\n",
        b"RSET\r\n", b"NOOP\r\n",
        b"MAIL FROM:<> SIZE=7 BODY=8BITMIME\r\n", b"RCPT TO:<b@example.net>\r\n", b"RCPT TO:<@x:c@example.net>\r\n",
        b"RCPT TO:<\xc3\xa4@example.net>\r\n", b"DATA\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"YQ==\r\n",
        b"STARTTLS\r\n", b"VRFY x\r\n", b"hello\r\n", b"..\r\n", b".\r\n", b".", b"\r\n", b"\n", b"\r", b"\0", b"\xff",
        b"x" * 300, b"x" * 13_000, b" ",
    ]
)  # fmt: skip
STREAMS = st.lists(PIECES | st.binary(max_size=8), max_size=40).map(b"".join)
PERMISSIVE = replace(TERMS, max_size=700, starttls=True, auth=Auth.NOW, max_errors=50, max_unknown=50)
OPENING = b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
OPENINGS = st.sampled_from([b"", OPENING, OPENING + b"DATA\r\n"])
STATUS = re.compile(r"(?:([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} |334 |354 )[ -~]*")


def heard_as(stream: bytes, cuts: Iterable[int], opening: bytes = b"") -> tuple[bytes, list[Event], bool]:
    conversation = Conversation(PERMISSIVE)
    conversation.hear(opening)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(edges):
        conversation.hear(stream[start:end])
    return conversation.said, conversation.events, conversation.dialogue.closed


@settings(max_examples=300, deadline=None)
@given(stream=STREAMS, cuts=st.lists(st.integers(1, 4000), max_size=30), opening=OPENINGS)
def test_packets_may_be_cut_anywhere(stream: bytes, cuts: list[int], opening: bytes) -> None:
    assert heard_as(stream, cuts, opening) == heard_as(stream, [], opening)


@settings(max_examples=30, deadline=None)
@given(stream=STREAMS.filter(lambda stream: len(stream) < 2000), opening=OPENINGS)
def test_octets_may_come_one_by_one(stream: bytes, opening: bytes) -> None:
    assert heard_as(stream, range(1, len(stream)), opening) == heard_as(stream, [], opening)


@pytest.mark.req("SMTP-10")
@settings(max_examples=200, deadline=None)
@given(stream=STREAMS)
def test_every_reply_has_an_enhanced_status_that_agrees_with_its_code(stream: bytes) -> None:
    said, _, _ = heard_as(stream, [])
    lines = said.decode("ascii").split("\r\n")
    assert lines[0].startswith("220 ") and lines[-1] == ""
    hello = {f"250-{line}" for line in ("mx.example.com", "PIPELINING", "SIZE 700", "8BITMIME", "SMTPUTF8", "DSN")}
    hello |= {"250-STARTTLS", "250-AUTH PLAIN LOGIN", "250 ENHANCEDSTATUSCODES", "250 mx.example.com"}
    assert [line for line in lines[1:-1] if line not in hello and not STATUS.fullmatch(line)] == []


@settings(max_examples=200, deadline=None)
@given(stream=STREAMS)
def test_an_accepted_message_has_no_bare_line_end_and_no_nul(stream: bytes) -> None:
    _, events, _ = heard_as(b"DATA\r\n" + stream + b"\r\n.\r\n", [], OPENING)
    for message in (event.message for event in events if isinstance(event, Content)):
        assert b"\0" not in message
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", message)
        assert message == b"" or message.endswith(b"\r\n")
        assert len(message) <= PERMISSIVE.max_size


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"", b".", b"..", b".x", b"\xe4", b"x" * 20]) | st.binary(max_size=9), max_size=20),
    cut=st.integers(1, 9),
)
def test_a_message_comes_out_as_it_was_before_its_dots_were_stuffed(lines: list[bytes], cut: int) -> None:
    lines = [re.sub(rb"[\r\n\0]", b"", line) for line in lines]
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"
    conversation = open_transaction(replace(TERMS, max_size=len(message)))
    for start in range(0, len(stuffed), cut):
        conversation.hear(stuffed[start : start + cut])
    assert conversation.messages == [message]
