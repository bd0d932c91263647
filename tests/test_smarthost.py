"""Mail out: the conversation without a socket, then the connections, the pool and the maildir against a strict sink.

Everything that touches a socket runs on both event loops, asyncio's and the uvloop that is used in production.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import itertools
import mailbox
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import Address
from gateway.errors import Malformed, RelayUnavailable
from gateway.model import Alphabet, Copy, Recipient, Reply, Smarthost
from gateway.smarthost import AMBIGUOUS, Pool, PrepareAgain, Timeouts, Turnstile
from gateway.smarthost.content import wire
from gateway.smarthost.conversation import (
    Answer,
    AnswerReader,
    BrokenOff,
    Conversation,
    Lost,
    Security,
    Stale,
    StartTls,
    TurnedAway,
    alphabet_of,
    opening,
    transaction,
)
from gateway.smarthost.route import Endpoint
from tests.sink import DROP, OFFERED, RESET, SILENCE, Certificate, Sink, make_certificate

Result = TypeVar("Result")

PIPELINING = frozenset({"PIPELINING"})
EVERYTHING = frozenset({"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"})
# For what is expected to take too long; everything else has the time that it has in production.
IMPATIENT = Timeouts(connect=0.2, handshake=0.2, greeting=0.2, command=0.2, data=0.2, block=0.2, final=0.2, quit=0.2)
CONTENT = b"Subject: hello\r\n\r\nbody\r\n"


def copy_to(*addresses: str, content: bytes = CONTENT, options: tuple[str, ...] = ()) -> Copy:
    recipients = tuple(Recipient(Address.parse(text)) for text in addresses or ("bob@example.com",))
    return Copy("news@example.com", recipients, (content,), options)


@dataclass
class Play:
    """What a conversation wrote, group by group, and what it returned."""

    written: list[bytes]
    result: Any


def play(conversation: Conversation[Result], *script: str | Lost) -> Play:
    """Carry a conversation by hand: each entry of the script answers one group ("250 ok|451 4.2.0 later")."""
    written: list[bytes] = []
    entries = iter(script)
    try:
        step = next(conversation)
        while True:
            if isinstance(step, StartTls):
                written.append(b"<TLS>")
                step = conversation.send(())
                continue
            written.append(b"".join(step.pieces))
            entry = next(entries)
            step = conversation.throw(entry) if isinstance(entry, Lost) else conversation.send(answers(entry))
    except StopIteration as end:
        assert next(entries, None) is None, "the conversation ended before its script"
        return Play(written, end.value)


def answers(text: str) -> list[Answer]:
    return [Answer(int(line[:3]), tuple(line[4:].encode().split(b"\n"))) for line in text.split("|")]


def relay(copy: Copy, *script: str | Lost, extensions: frozenset[str] = PIPELINING, **how: bool) -> Play:
    flags = {"lmtp": False, "kept_open": False} | how
    return play(transaction(copy, extensions, timeouts=Timeouts(), **flags), *script)


# The conversation


def test_the_envelope_goes_out_in_one_write_where_pipelining_is_offered() -> None:
    done = relay(copy_to("bob@example.com", "eve@example.com"), "250 ok|250 ok|250 ok|354 go", "250 2.0.0 taken")
    assert done.written == [
        b"MAIL FROM:<news@example.com>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\n",
        CONTENT + b".\r\n",
    ]
    assert done.result == (Reply(250, "2.0.0", "taken"),) * 2


def test_the_envelope_goes_out_a_command_at_a_time_where_pipelining_is_not_offered() -> None:
    done = relay(copy_to(), "250 ok", "250 ok", "354 go", "250 2.0.0 taken", extensions=frozenset())
    assert done.written[:3] == [b"MAIL FROM:<news@example.com>\r\n", b"RCPT TO:<bob@example.com>\r\n", b"DATA\r\n"]
    assert done.result == (Reply(250, "2.0.0", "taken"),)


@pytest.mark.parametrize(
    ("extensions", "script"),
    [
        (PIPELINING, ["250 ok|250 ok|550 5.1.1 unknown|250 ok|354 go", "250 2.0.0 taken"]),
        (frozenset(), ["250 ok", "250 ok", "550 5.1.1 unknown", "250 ok", "354 go", "250 2.0.0 taken"]),
    ],
)
def test_one_refused_recipient_does_not_stop_the_rest(extensions: frozenset[str], script: list[str]) -> None:
    done = relay(copy_to("a@example.com", "b@example.com", "c@example.com"), *script, extensions=extensions)
    assert [str(reply) for reply in done.result] == ["250 2.0.0 taken", "550 5.1.1 unknown", "250 2.0.0 taken"]


@pytest.mark.parametrize(
    ("extensions", "script"),
    [
        (PIPELINING, ["451 4.7.1 later|503 no|503 no|503 no", "250 reset"]),
        (frozenset(), ["451 4.7.1 later", "250 reset"]),
    ],
)
def test_a_refused_mail_is_the_reply_of_every_recipient(extensions: frozenset[str], script: list[str]) -> None:
    done = relay(copy_to("a@example.com", "b@example.com"), *script, extensions=extensions)
    assert done.result == (Reply(451, "4.7.1", "later"),) * 2
    assert done.written[-1] == b"RSET\r\n"


def test_a_354_after_nobody_was_accepted_gets_a_single_dot_whose_answer_is_ignored() -> None:
    done = relay(copy_to(), "250 ok|550 5.1.1 unknown|354 go", "250 2.0.0 taken nothing", "250 reset")
    assert done.written[1:] == [b".\r\n", b"RSET\r\n"]
    assert done.result == (Reply(550, "5.1.1", "unknown"),)


def test_data_is_not_said_for_nobody_where_pipelining_is_not_offered() -> None:
    done = relay(copy_to(), "250 ok", "550 5.1.1 unknown", "250 reset", extensions=frozenset())
    assert b"DATA\r\n" not in done.written


def test_a_refused_data_is_the_reply_of_those_who_had_been_accepted() -> None:
    script = ("250 ok|250 ok|550 5.1.1 unknown|452 4.3.1 full", "250 reset")
    done = relay(copy_to("a@example.com", "b@example.com"), *script)
    assert [reply.code for reply in done.result] == [452, 550]


def test_a_421_answers_everything_that_was_not_answered() -> None:
    done = relay(
        copy_to("a@example.com", "b@example.com"), "250 ok|550 5.1.1 unknown|421 4.7.28 slow down", Lost("gone")
    )
    assert [str(reply) for reply in done.result] == ["550 5.1.1 unknown", "421 4.7.28 slow down"]


@pytest.mark.req("OUT-16")
@pytest.mark.parametrize(
    ("extensions", "script"),
    [
        (PIPELINING, ["250 ok|250 ok|421 4.7.28 slow down"]),
        (frozenset(), ["250 ok", "250 ok", "421 4.7.28 slow down"]),
    ],
)
def test_a_421_is_the_reply_of_those_alone_whom_it_answers(extensions: frozenset[str], script: list[str]) -> None:
    copy = copy_to("a@example.com", "b@gmail.example", "c@example.com")
    done = relay(copy, *script, Lost("gone"), extensions=extensions)
    assert [str(reply)[:9] for reply in done.result] == ["451 4.4.2", "421 4.7.2", "451 4.4.2"], (
        "which others are not to pay for"
    )


def test_lmtp_gives_each_accepted_recipient_a_reply_of_its_own() -> None:
    copy = copy_to("a@example.com", "b@example.com", "c@example.com")
    script = ("250 ok", "250 ok", "550 5.1.1 unknown", "250 ok", "354 go", "452 4.2.2 over quota|250 2.0.0 taken")
    done = relay(copy, *script, extensions=EVERYTHING, lmtp=True)
    assert [reply.code for reply in done.result] == [452, 550, 250]


def test_an_lmtp_recipient_without_an_answer_may_have_got_it() -> None:
    lost = Lost("gone", answers("250 2.0.0 taken"), all_written=True)
    done = relay(copy_to("a@example.com", "b@example.com"), "250 ok", "250 ok", "250 ok", "354 go", lost, lmtp=True)
    assert [reply.code for reply in done.result] == [250, 451]
    assert done.result[1] is AMBIGUOUS


@pytest.mark.req("OUT-04")
def test_a_connection_lost_after_the_dot_is_ambiguous() -> None:
    done = relay(copy_to(), "250 ok|250 ok|354 go", Lost("gone", all_written=True))
    assert done.result == (AMBIGUOUS,)
    assert AMBIGUOUS.is_transient


def test_a_connection_lost_before_the_dot_is_not_ambiguous() -> None:
    with pytest.raises(BrokenOff):
        relay(copy_to(), "250 ok|250 ok|354 go", Lost("gone", all_written=False))


@pytest.mark.parametrize("data", ["250 2.0.0 ok", "334 what"])
def test_data_that_is_let_through_by_anything_but_354_never_passes_for_relayed(data: str) -> None:
    with pytest.raises(RelayUnavailable):
        relay(copy_to(), f"250 ok|250 ok|{data}", "250 reset")


def test_a_3xx_to_the_final_dot_never_passes_for_relayed() -> None:
    with pytest.raises(RelayUnavailable):
        relay(copy_to(), "250 ok|250 ok|354 go", "354 go on")


@pytest.mark.req("OUT-20")
@pytest.mark.parametrize("script", [[Lost("gone")], ["421 4.4.2 idle too long"]])
def test_only_a_connection_that_was_kept_open_can_be_stale(script: list[str | Lost]) -> None:
    with pytest.raises(Stale):
        relay(copy_to(), *script, kept_open=True)


@pytest.mark.req("OUT-19")
@pytest.mark.parametrize("answer", ["421 4.3.2 going down", "421 going down"])
def test_a_421_to_the_first_mail_of_a_connection_says_that_the_server_is_down(answer: str) -> None:
    with pytest.raises(TurnedAway, match=f"MAIL was answered {answer}"):
        relay(copy_to(), answer, Lost("gone"))


def test_a_421_about_what_we_send_is_an_answer() -> None:
    assert relay(copy_to(), "421 4.7.28 slow down", Lost("gone")).result == (Reply(421, "4.7.28", "slow down"),)


@pytest.mark.req("OUT-09")
def test_dsn_parameters_pass_unchanged_where_dsn_is_offered_and_not_at_all_where_it_is_not() -> None:
    dsn = ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Bob+40Example.com")
    recipients = (Recipient(Address.parse("bob@example.com"), dsn), Recipient(Address.parse("eve@example.com")))
    copy = Copy("", recipients, (CONTENT,), ("RET=HDRS", "ENVID=QQ314159", "SIZE=1", "AUTH=<>"))
    script = ("250 ok|250 ok|250 ok|354 go", "250 2.0.0 taken")
    with_dsn = relay(copy, *script, extensions=PIPELINING | {"DSN"}).written[0]
    assert with_dsn == (
        b"MAIL FROM:<> RET=HDRS ENVID=QQ314159\r\n"
        b"RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+40Example.com\r\n"
        b"RCPT TO:<eve@example.com>\r\nDATA\r\n"
    )
    without = relay(copy, *script).written[0]
    assert without == b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<eve@example.com>\r\nDATA\r\n"


@pytest.mark.req("OUT-08")
def test_8bit_content_is_declared_where_that_is_offered_and_never_sent_where_it_is_not() -> None:
    copy = copy_to(content="Subject: x\r\n\r\nGrüße\r\n".encode())
    done = relay(copy, "250 ok|250 ok|354 go", "250 2.0.0 taken", extensions=PIPELINING | {"8BITMIME"})
    assert done.written[0].startswith(b"MAIL FROM:<news@example.com> BODY=8BITMIME\r\n")
    refused = relay(copy)
    assert refused.written == []
    assert [(reply.code, reply.enhanced) for reply in refused.result] == [(554, "5.6.3")]


def test_the_body_is_not_declared_8bit_when_it_is_not() -> None:
    done = relay(
        copy_to(options=("BODY=8BITMIME", "SMTPUTF8")), "250 ok|250 ok|354 go", "250 ok", extensions=EVERYTHING
    )
    assert done.written[0].startswith(b"MAIL FROM:<news@example.com> SIZE=24\r\n")


def test_an_internationalised_orcpt_is_spelled_in_ascii_without_smtputf8() -> None:
    bob = Recipient(Address.parse("bob@bücher.example"), ("ORCPT=utf-8;δ+2B@bücher.example",))
    copy = Copy("news@example.com", (bob,), (CONTENT,), ())
    script = ("250 ok|250 ok|354 go", "250 2.0.0 taken")
    without = relay(copy, *script, extensions=PIPELINING | {"DSN"}).written[0]
    assert rb"<bob@xn--bcher-kva.example> ORCPT=utf-8;\x{3B4}+2B@b\x{FC}cher.example" in without
    given = relay(copy, *script, extensions=EVERYTHING).written[0].decode()
    assert "<bob@bücher.example> ORCPT=utf-8;δ+2B@bücher.example" in given


@pytest.mark.req("I18N-02")
def test_a_domain_goes_as_a_labels_to_a_server_without_smtputf8_and_a_local_part_does_not_go() -> None:
    copy = replace(copy_to("bob@bücher.example"), reverse_path="news@straße.example")
    done = relay(copy, "250 ok|250 ok|354 go", "250 2.0.0 taken")
    assert done.written[0].startswith(
        b"MAIL FROM:<news@xn--strae-oqa.example>\r\nRCPT TO:<bob@xn--bcher-kva.example>\r\n"
    )
    refused = relay(replace(copy, reverse_path="büro@example.com"))
    assert [(reply.code, reply.enhanced) for reply in refused.result] == [(550, "5.6.7")]
    mixed = relay(copy_to("δοκιμή@example.com", "bob@example.com"), "250 ok|250 ok|354 go", "250 2.0.0 taken")
    assert [reply.enhanced for reply in mixed.result] == ["5.6.7", "2.0.0"]


@pytest.mark.parametrize(
    ("extensions", "alphabet"),
    [
        ("8BITMIME SMTPUTF8", Alphabet.UTF8),
        ("8BITMIME", Alphabet.EIGHT_BIT),
        ("SMTPUTF8", Alphabet.ASCII),
        ("", Alphabet.ASCII),
    ],
)
def test_what_a_server_takes_follows_from_what_it_offers(extensions: str, alphabet: Alphabet) -> None:
    assert alphabet_of(frozenset(extensions.split())) is alphabet


@pytest.mark.parametrize(
    ("copy", "needs"),
    [
        (copy_to("büro@example.com"), True),
        (replace(copy_to(), reverse_path="büro@example.com"), True),
        (copy_to(content="Subject: Grüße\r\n\r\nhi\r\n".encode(), options=("SMTPUTF8",)), True),
        (copy_to(content="Subject: Grüße\r\n\r\nhi\r\n".encode()), False),
        (copy_to(content="Subject: x\r\n\r\nGrüße\r\n".encode(), options=("SMTPUTF8",)), False),
        (copy_to(options=("SMTPUTF8",)), False),
    ],
)
def test_smtputf8_is_asked_for_only_when_it_is_needed(copy: Copy, needs: bool) -> None:
    done = relay(copy, "250 ok|250 ok|354 go", "250 2.0.0 taken", extensions=EVERYTHING)
    assert done.written[0].split(b"\r\n")[0].endswith(b" SMTPUTF8") == needs
    without = relay(
        copy, *["250 ok|250 ok|354 go", "250 2.0.0 taken"][: 0 if needs else 2], extensions=EVERYTHING - {"SMTPUTF8"}
    )
    assert without.result[0].enhanced == ("5.6.7" if needs else "2.0.0")


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\x85", "\u2028"])
def test_a_control_character_never_reaches_a_command(bad: str) -> None:
    forged = replace(Address.parse("bob@example.com"), text=f"bob@example.com>{bad}RCPT TO:<eve@example.com")
    for copy in (
        replace(copy_to(), reverse_path=f"a{bad}b@example.com"),
        replace(copy_to(), recipients=(Recipient(forged),)),
    ):
        with pytest.raises(ValueError, match="control"):
            relay(copy, extensions=EVERYTHING)


def test_a_parameter_that_is_none_is_left_out() -> None:
    options = ("ENVID=a\r\nRSET", "ENVID=a b", "RET", "XFORWARD=1")
    done = relay(copy_to(options=options), "250 ok|250 ok|354 go", "250 ok", extensions=PIPELINING | {"DSN"})
    assert done.written[0].startswith(b"MAIL FROM:<news@example.com>\r\nRCPT")


def greet(*script: str, security: Security = Security.CLEAR, credentials: tuple[str, str] | None = None) -> Play:
    conversation = opening(
        "relay.example.com", lmtp=False, security=security, credentials=credentials, timeouts=Timeouts()
    )
    return play(conversation, *script)


def test_a_server_that_knows_only_helo_is_spoken_to_without_extensions() -> None:
    done = greet("220 hello", "502 5.5.1 what", "250 mx")
    assert done.written[1:] == [b"EHLO relay.example.com\r\n", b"HELO relay.example.com\r\n"]
    assert done.result == frozenset()


@pytest.mark.req("OUT-05")
def test_helo_is_no_way_around_tls() -> None:
    with pytest.raises(RelayUnavailable, match="STARTTLS is not offered"):
        greet("220 hello", "502 5.5.1 what", "250 mx", security=Security.STARTTLS)


@pytest.mark.parametrize("script", [["421 4.3.2 busy"], ["450 4.3.2 busy"], ["502 5.5.1 what", "502 5.5.1 what"]])
def test_a_server_that_takes_neither_greeting_is_unavailable(script: list[str]) -> None:
    with pytest.raises(RelayUnavailable, match="LO was answered"):
        greet("220 hello", *script)


def test_the_extensions_are_those_that_ehlo_offers() -> None:
    done = greet("220 hello", "250 mx\nsize 1000\nPIPELINING\nAUTH PLAIN")
    assert done.written == [b"", b"EHLO relay.example.com\r\n"]
    assert done.result == {"SIZE", "PIPELINING", "AUTH"}


@pytest.mark.req("OUT-05")
def test_after_starttls_only_what_is_offered_under_tls_counts() -> None:
    script = ("220 hello", "250 mx\nSTARTTLS\nDSN", "220 go", "250 mx\nSIZE")
    done = greet(*script, security=Security.STARTTLS)
    assert done.written == [
        b"",
        b"EHLO relay.example.com\r\n",
        b"STARTTLS\r\n",
        b"<TLS>",
        b"EHLO relay.example.com\r\n",
    ]
    assert done.result == {"SIZE"}


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize("script", [["250 mx\nSIZE"], ["250 mx\nSTARTTLS", "454 4.7.0 not now"]])
def test_where_starttls_is_stripped_or_refused_nothing_more_is_said(script: list[str]) -> None:
    with pytest.raises(RelayUnavailable, match="STARTTLS"):
        greet("220 hello", *script, security=Security.STARTTLS, credentials=("user", "secret"))


def test_the_password_goes_by_plain_and_else_by_login() -> None:
    plain = greet("220 hello", "250 mx\nAUTH LOGIN PLAIN", "235 ok", credentials=("user", "secret"))
    assert plain.written[-1] == b"AUTH PLAIN " + base64.b64encode(b"\0user\0secret") + b"\r\n"
    script = ("220 hello", "250 mx\nAUTH LOGIN", "334 VXNlcg==", "334 UGFzcw==", "235 ok")
    login = greet(*script, credentials=("user", "secret"))
    assert login.written[-3:] == [b"AUTH LOGIN\r\n", b"dXNlcg==\r\n", b"c2VjcmV0\r\n"]


@pytest.mark.parametrize("script", [["250 mx\nAUTH CRAM-MD5"], ["250 mx\nAUTH PLAIN", "535 5.7.8 no"], ["250 mx"]])
def test_a_login_that_fails_makes_the_smarthost_unavailable_and_does_not_tell_the_password(script: list[str]) -> None:
    with pytest.raises(RelayUnavailable) as failure:
        greet("220 hello", *script, credentials=("user", "secret"))
    assert "secret" not in str(failure.value)


# What goes on the wire

lines = st.lists(st.text("a.\t é", max_size=5).map(str.encode), max_size=12)


def cut(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(at % (len(content) + 1) for at in cuts)})
    return [content[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.req("SMTP-07", "DKIM-10")
@given(lines, st.lists(st.integers(0, 80)))
def test_the_content_arrives_as_it_was_signed_however_it_is_cut_into_segments(
    texts: list[bytes], cuts: list[int]
) -> None:
    content = b"".join(text + b"\r\n" for text in texts)
    sent = b"".join(wire(cut(content, cuts)))
    *received, dot, rest = sent.split(b"\r\n")
    assert (dot, rest) == (b".", b"")
    assert all(line != b"." for line in received)
    assert [line.removeprefix(b".") for line in received] == texts


@pytest.mark.req("SMTP-07")
@given(st.binary(max_size=6).filter(lambda data: data), st.lists(st.integers(0, 80)))
def test_a_bare_cr_lf_or_nul_is_never_sent_nor_repaired(data: bytes, cuts: list[int]) -> None:
    content = b"a\r\n" + data.translate(bytes.maketrans(bytes(range(4)), b"\r\n\0."))
    rest = content.replace(b"\r\n", b"")
    segments = cut(content, cuts)
    if any(bare in rest for bare in (b"\r", b"\n", b"\0")):
        with pytest.raises(ValueError, match="bare"):
            list(wire(segments))
    else:
        assert b"".join(wire(segments)).endswith(b"\r\n.\r\n")


def test_content_without_a_last_line_end_gets_one_before_the_dot() -> None:
    assert b"".join(wire((b"a: b\r\n\r\nend",))) == b"a: b\r\n\r\nend\r\n.\r\n"
    assert b"".join(wire(())) == b".\r\n"


def test_segments_without_leading_dots_are_not_copied() -> None:
    segment = b"one. two..\r\nthree\r\n" * 1000
    assert next(wire((segment,))) is segment


def test_a_large_segment_goes_out_in_pieces() -> None:
    assert max(map(len, wire((b"x" * 60 + b"\r\n") * 20_000 for _ in range(1)))) <= 256 * 1024


# What comes back


@given(st.lists(st.integers(0, 200)))
def test_answers_are_the_same_however_their_bytes_arrive(cuts: list[int]) -> None:
    said = b"250-mx\r\n250-SIZE\r\n250 DSN\r\n550 5.1.1 no\r\n354\r\n250 \r\n220 a\n250 mo"
    reader = AnswerReader()
    heard = [answer for piece in cut(said, cuts) for answer in reader.feed(piece)]
    assert [(answer.code, answer.lines[0]) for answer in heard] == [
        (250, b"mx"),
        (550, b"5.1.1 no"),
        (354, b""),
        (250, b""),
        (220, b"a"),
    ]
    assert reader.is_midway


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n", b"\r\n", b"199 what\r\n", b"600 what\r\n", b"2500 what\r\n"])
def test_what_is_not_an_answer_is_malformed(said: bytes) -> None:
    with pytest.raises(Malformed):
        AnswerReader().feed(said)


@pytest.mark.parametrize("said", [b"250-more\r\n", b"250-\r\n", b"xxxxx", b"250 endless text"])
def test_an_endless_answer_is_given_up_at_64_kilobytes(said: bytes) -> None:
    reader = AnswerReader()
    with pytest.raises(Malformed):
        for _ in range(64 * 1024 // 4):
            reader.feed(said)


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("550-5.7.26 not authenticated\n5.7.26 see help", Reply(550, "5.7.26", "not authenticated see help")),
        ("550 4.2.1 contradicts itself", Reply(550, "", "4.2.1 contradicts itself")),
        ("550 no status", Reply(550, "", "no status")),
        ("550 5.1.1", Reply(550, "5.1.1", "")),
        ("550 5.1.1 \x1b[31mred\x07", Reply(550, "5.1.1", "?[31mred?")),
    ],
)
def test_an_answer_becomes_a_reply_of_one_line(said: str, reply: Reply) -> None:
    assert relay(copy_to(), f"250 ok|{said}|503 no", "250 reset").result == (reply,)


def test_a_reply_is_of_bounded_length() -> None:
    (reply,) = relay(copy_to(), f"250 ok|550 5.1.1 {'x' * 9000}|503 no", "250 reset").result
    assert len(reply.text) == 500


# Over sockets


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on asyncio's event loop and on uvloop's."""

    @pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def run(*, new_loop: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    new_loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), new_loop])
    return run


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1")


@asynccontextmanager
async def pool_to(*urls: str, timeouts: Timeouts | None = None, **settings: Any) -> AsyncIterator[Pool]:
    """A pool for a smarthost at these urls; settings are the smarthost's or the pool's."""
    ours = {name: settings.pop(name) for name in ("connections",) if name in settings}
    pool = Pool(Smarthost("test", urls, **settings), hostname="relay.example.com", timeouts=timeouts, **ours)
    try:
        yield pool
    finally:
        await pool.close()


async def send(pool: Pool, copy: Copy | None = None) -> tuple[Reply, ...]:
    async with pool.connection() as connection:
        return await connection.relay(copy or copy_to())


@asynccontextmanager
async def server_saying(*said: bytes) -> AsyncIterator[str]:
    """A server that greets with the first text and answers each thing it is told with the next, then keeps silent."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in said:
            writer.write(text)
            if not await reader.read(65536):
                break
        await reader.read()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def slow_reader(seconds: float) -> AsyncIterator[str]:
    """A server that reads a little of the content at a time for so long, then the rest, and says how much it got."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in (b"220 hello", b"250 mx", b"250 ok", b"250 ok"):
            writer.write(text + b"\r\n")
            await reader.readline()
        writer.write(b"354 go on\r\n")
        taken, end, clock = 0, b"", asyncio.get_running_loop().time
        hurries_from = clock() + seconds
        while end != b"\r\n.\r\n" and (piece := await reader.read(65536)):
            taken, end = taken + len(piece), (end + piece)[-5:]
            await asyncio.sleep(0.01 if clock() < hurries_from else 0)
        writer.write(f"250 2.0.0 took {taken}\r\n".encode())
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@on_both_loops
async def test_copies_share_a_connection_and_arrive_as_they_are(sink: Sink) -> None:
    contents = [CONTENT, b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n", b"Subject: none\r\n\r\n"]
    async with pool_to(sink.url) as pool:
        for content in contents:
            assert await send(pool, copy_to(content=content)) == (Reply(250, "2.0.0", "taken"),)
    assert [message.content for message in sink.messages] == contents
    assert sink.connections == 1
    assert sink.commands[-1] == "QUIT"


@on_both_loops
async def test_a_large_copy_with_dots_everywhere_arrives_as_it_is(sink: Sink) -> None:
    content = b"Subject: large\r\n\r\n" + b"".join(b"." * (n % 70) + b"\r\n" for n in range(60_000))
    segments = tuple(content[start : start + 700_001] for start in range(0, len(content), 700_001))
    async with pool_to(sink.url) as pool:
        await send(pool, replace(copy_to(), segments=segments))
    assert sink.messages[0].content == content


@on_both_loops
async def test_a_connection_is_left_after_its_share_of_messages(sink: Sink) -> None:
    async with pool_to(sink.url, messages_per_connection=2) as pool:
        for _ in range(5):
            await send(pool)
    assert sink.connections == 3
    assert sink.commands.count("QUIT") == 3


@on_both_loops
async def test_a_caller_that_keeps_its_connection_gets_a_new_one_after_its_share_of_messages(sink: Sink) -> None:
    async with pool_to(sink.url, messages_per_connection=2) as pool, pool.connection() as connection:
        for _ in range(5):
            await connection.relay(copy_to())
    assert len(sink.messages) == 5
    assert sink.connections == 3


@on_both_loops
async def test_there_are_never_more_connections_than_allowed(sink: Sink) -> None:
    sink.on("MAIL", delay=0.01)
    async with pool_to(sink.url, connections=3) as pool:
        await asyncio.gather(*(send(pool) for _ in range(12)))
    assert len(sink.messages) == 12
    assert sink.connections == 3


@pytest.mark.req("OUT-19")
@on_both_loops
async def test_where_a_server_takes_no_more_connections_copies_wait_for_those_at_work(sink: Sink) -> None:
    sink.on("CONNECT", "421 4.7.0 too many connections from your address", skip=2)
    sink.on("DOT", delay=0.05)
    async with pool_to(sink.url, connections=6) as pool:
        done = await asyncio.gather(*(send(pool) for _ in range(24)))
    assert set(done) == {(Reply(250, "2.0.0", "taken"),)}
    assert len(sink.messages) == 24
    assert {one.connection for one in sink.messages} == {1, 2}


@on_both_loops
async def test_a_connection_that_comes_back_goes_first_to_who_does_not_give_way(sink: Sink) -> None:
    sink.on("CONNECT", "421 4.7.0 too many connections from your address", skip=1)
    order = []

    async def take(name: str, *, gives_way: bool) -> None:
        async with pool.connection(gives_way=gives_way):
            order.append(name)

    async with pool_to(sink.url) as pool:
        async with pool.connection():
            promotion = asyncio.create_task(take("promotion", gives_way=True))
            await until(lambda: sink.connections == 2)
            invoice = asyncio.create_task(take("invoice", gives_way=False))
            await until(lambda: pool.rest_left > 0)
            await asyncio.sleep(0)
        await asyncio.gather(promotion, invoice)
    assert order == ["invoice", "promotion"]


@on_both_loops
async def test_an_idle_connection_is_left_politely(sink: Sink) -> None:
    async with pool_to(sink.url, timeouts=Timeouts(idle=0.02)) as pool:
        await send(pool)
        await until(lambda: "QUIT" in sink.commands)
        await send(pool)
    assert sink.connections == 2


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


@on_both_loops
async def test_closing_a_pool_waits_no_longer_than_it_should_for_a_server_that_does_not_answer_quit(sink: Sink) -> None:
    sink.on("QUIT", SILENCE)
    async with pool_to(sink.url, timeouts=Timeouts(quit=0.1)) as pool:
        await send(pool)
        async with asyncio.timeout(2):
            await pool.close()
        with pytest.raises(RelayUnavailable):
            await send(pool)


@pytest.mark.req("OUT-20")
@on_both_loops
async def test_a_connection_closed_while_idle_is_replaced_without_a_failed_attempt(sink: Sink) -> None:
    async with pool_to(sink.url) as pool:
        await send(pool)
        sink.drop_connections()
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
    assert (len(sink.messages), sink.connections) == (2, 2)


@pytest.mark.req("OUT-20")
@pytest.mark.parametrize("end", [DROP, RESET, "421 4.4.2 idle too long"])
@on_both_loops
async def test_a_connection_that_dies_at_mail_is_replaced_without_a_failed_attempt(sink: Sink, end: Any) -> None:
    sink.on("MAIL", end, skip=1, times=1)
    async with pool_to(sink.url) as pool:
        await send(pool)
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
    assert (len(sink.messages), sink.connections) == (2, 2)


@on_both_loops
async def test_a_server_that_says_goodbye_unasked_is_not_spoken_to_again(sink: Sink) -> None:
    sink.on("DOT", b"250 2.0.0 taken\r\n421 4.3.2 going down\r\n", times=1)
    async with pool_to(sink.url) as pool:
        assert [await send(pool), await send(pool)] == [(Reply(250, "2.0.0", "taken"),)] * 2
    assert sink.connections == 2


@on_both_loops
async def test_the_caller_is_asked_again_when_the_new_connection_offers_less(sink: Sink) -> None:
    async with pool_to(sink.url) as pool:
        await send(pool)
        async with pool.connection() as connection:
            sink.offered = ("PIPELINING",)
            sink.drop_connections()
            eight_bit = copy_to(content="Subject: x\r\n\r\nGrüße\r\n".encode())
            assert connection.alphabet is Alphabet.UTF8
            with pytest.raises(PrepareAgain):
                await connection.relay(eight_bit)
            assert connection.alphabet is Alphabet.ASCII
            assert await connection.relay(copy_to()) == (Reply(250, "2.0.0", "taken"),)
    assert len(sink.messages) == 2


@pytest.mark.req("OUT-02")
@on_both_loops
async def test_the_caller_is_asked_again_when_the_new_connection_took_a_second(sink: Sink) -> None:
    async with pool_to(sink.url) as pool, pool.connection() as connection:
        sink.on("CONNECT", delay=1.0, times=1)
        sink.drop_connections()
        await until(lambda: not connection.is_open)
        with pytest.raises(PrepareAgain):
            await connection.relay(copy_to())
    assert sink.messages == []


@pytest.mark.req("OUT-04")
@pytest.mark.parametrize("end", [DROP, RESET, SILENCE])
@on_both_loops
async def test_a_server_that_takes_the_dot_and_does_not_answer_leaves_it_open_who_got_it(sink: Sink, end: Any) -> None:
    sink.on("DOT", end, times=1)
    async with pool_to(sink.url, timeouts=Timeouts(final=0.2)) as pool:
        assert await send(pool, copy_to("a@example.com", "b@example.com")) == (AMBIGUOUS, AMBIGUOUS)
        assert await send(pool, copy_to("a@example.com", "b@example.com")) == (Reply(250, "2.0.0", "taken"),) * 2
    first, second = sink.wait_for(2)
    assert first.content == second.content


@pytest.mark.parametrize("end", [DROP, RESET, SILENCE])
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
@on_both_loops
async def test_a_server_that_goes_away_before_the_dot_is_unavailable(sink: Sink, verb: str, end: Any) -> None:
    sink.on(verb, end)
    async with pool_to(sink.url, timeouts=IMPATIENT) as pool:
        with pytest.raises(RelayUnavailable):
            await send(pool)
        assert (pool.rest_left > 0) == (verb not in ("RCPT", "DATA")), "what may be the copy's fault stops no other"
    assert sink.messages == []


@pytest.mark.parametrize("end", [DROP, RESET])
@pytest.mark.parametrize("after", [1, 100_000, 3_000_000])
@on_both_loops
async def test_a_connection_that_ends_within_the_content_relayed_nothing(sink: Sink, end: Any, after: int) -> None:
    sink.on("CONTENT", end, after_bytes=after, times=1)
    copy = replace(copy_to(), segments=(b"Subject: x\r\n\r\n", (b"x" * 78 + b"\r\n") * 200_000))
    async with pool_to(sink.url) as pool:
        with pytest.raises(RelayUnavailable):
            await send(pool, copy)
    assert sink.messages == []


@on_both_loops
async def test_a_server_that_does_not_read_the_content_is_given_up(sink: Sink) -> None:
    sink.on("CONTENT", delay=30)
    copy = replace(copy_to(), segments=((b"x" * 78 + b"\r\n") * 200_000,))
    async with pool_to(sink.url, timeouts=Timeouts(block=0.2)) as pool:
        with pytest.raises(RelayUnavailable, match="did not go on within"):
            await send(pool, copy)


@on_both_loops
async def test_a_server_that_reads_the_content_slowly_gets_it_all() -> None:
    """RFC 5321 §4.5.3.2.5 is about each block: 25 MB over a poor line are not a server that has stopped."""
    content = (b"x" * 78 + b"\r\n") * 200_000
    async with slow_reader(1.0) as url, pool_to(url, timeouts=Timeouts(block=10, final=0.5)) as pool:
        replies = await send(pool, replace(copy_to(), segments=(content,)))
    assert replies == (Reply(250, "2.0.0", f"took {len(content) + 3}"),)


@on_both_loops
async def test_a_refusal_in_the_middle_of_the_content_stands(sink: Sink) -> None:
    sink.on("CONTENT", "552 5.3.4 too big", delay=0.05)
    copy = replace(copy_to(), segments=((b"x" * 78 + b"\r\n") * 200_000,))
    async with pool_to(sink.url) as pool:
        replies = await send(pool, copy)
    assert replies == (Reply(552, "5.3.4", "too big"),)


@pytest.mark.parametrize("text", ["451 4.7.1 later", "550 5.7.1 never"])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("offered", [OFFERED, ()], ids=["pipelining", "one by one"])
@on_both_loops
async def test_a_refusal_at_any_verb_is_a_reply_and_the_connection_goes_on(
    sink: Sink, offered: tuple[str, ...], verb: str, text: str
) -> None:
    sink.offered = offered
    sink.on(verb, text, times=1)
    async with pool_to(sink.url) as pool:
        (refused,) = await send(pool)
        assert str(refused) == text
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
        assert pool.rest_left == 0
    assert (len(sink.messages), sink.connections) == (1, 1)


@pytest.mark.req("OUT-16")
@on_both_loops
async def test_back_pressure_is_a_reply_with_the_servers_own_words(sink: Sink) -> None:
    sink.on("RCPT", "421 4.7.28 unusual rate", containing="gmail.example")
    async with pool_to(sink.url) as pool:
        assert await send(pool, copy_to("a@gmail.example")) == (Reply(421, "4.7.28", "unusual rate"),)
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)


@on_both_loops
async def test_a_held_sink_answers_451_until_it_is_released(sink: Sink) -> None:
    sink.hold()
    async with pool_to(sink.url) as pool:
        assert await send(pool) == (Reply(451, "4.3.2", "held"),)
        sink.release()
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)


@on_both_loops
async def test_while_every_address_is_down_callers_are_told_at_once(sink: Sink) -> None:
    sink.on("CONNECT", "421 4.3.2 busy")
    async with pool_to(sink.url) as pool:
        with pytest.raises(RelayUnavailable, match=r"421 4\.3\.2 busy"):
            await send(pool)
        assert 0 < pool.rest_left <= 1
        for _ in range(50):
            with pytest.raises(RelayUnavailable):
                await send(pool)
    assert sink.connections == 1


@on_both_loops
async def test_the_rest_doubles_with_each_failed_try_and_ends_with_the_first_that_works(sink: Sink) -> None:
    sink.stop()
    async with pool_to(sink.url) as pool:
        clock = asyncio.get_running_loop()
        real, ahead, rests = clock.time, 0.0, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gateway.smarthost.route._now", lambda: real() + ahead)
            for _ in range(8):
                with pytest.raises(RelayUnavailable):
                    await send(pool)
                rests.append(round(pool.rest_left))
                ahead += pool.rest_left + 0.001
            sink.start()
            await send(pool)
        assert pool.rest_left == 0
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]


@on_both_loops
async def test_a_try_on_which_no_copy_was_sent_does_not_lengthen_the_rest(sink: Sink) -> None:
    sink.on("CONNECT", "421 4.3.2 busy", times=1)
    async with pool_to(sink.url) as pool:
        with pytest.raises(RelayUnavailable):
            await send(pool)
        await until(lambda: not pool.rest_left)
        for _ in range(3):
            async with pool.connection():
                pass
            assert pool.rest_left == 0, "somebody's copy turned out to be suppressed, which says nothing of the server"
            sink.drop_connections()
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)


@pytest.mark.req("OUT-19")
@on_both_loops
async def test_the_next_address_is_used_while_the_first_is_down(sink: Sink) -> None:
    with Sink() as second:
        sink.stop()
        async with pool_to(sink.url, second.url) as pool:
            assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
            assert pool.rest_left == 0
        assert len(second.messages) == 1


@pytest.mark.req("OUT-19")
@on_both_loops
async def test_the_first_address_is_used_again_as_soon_as_it_is_back(sink: Sink) -> None:
    with Sink() as second:
        sink.stop()
        async with pool_to(sink.url, second.url) as pool:
            await send(pool)
            await send(pool)
            assert second.connections == 1
            sink.start()
            async with asyncio.timeout(5):
                while not sink.messages:
                    await send(pool)
                    await asyncio.sleep(0.05)
            before = len(second.messages)
            await send(pool)
        assert (len(sink.messages), len(second.messages)) == (2, before)
        assert second.commands[-1] == "QUIT"


@pytest.mark.req("OUT-19")
@on_both_loops
async def test_a_rate_is_kept_and_counts_recipients(sink: Sink) -> None:
    async with pool_to(sink.url, rate=10.0) as pool:
        async with pool.connection(recipients=4) as connection:
            await connection.relay(copy_to())
        await asyncio.gather(*(send(pool) for _ in range(6)))
    times = [message.at for message in sink.messages]
    assert times[1] - times[0] >= 0.2
    assert times[-1] - times[1] >= 0.3


@pytest.mark.req("OUT-19")
def test_a_rate_holds_for_all_processes_together_and_survives_one_that_is_killed() -> None:
    turnstile, turns, each = Turnstile(), os.memfd_create("turns"), 0.02

    def keep_going() -> None:
        async def go() -> None:
            while True:
                await turnstile.go_through(each)
                os.write(turns, b".")

        asyncio.run(go())

    began, doomed, *others = time.monotonic(), *[forked(keep_going) for _ in range(3)]
    time.sleep(0.3)
    end(doomed)
    before = os.fstat(turns).st_size
    time.sleep(0.3)
    for child in others:
        end(child)
    taken, seconds = os.fstat(turns).st_size, time.monotonic() - began
    assert before < taken <= seconds / each + 2


@pytest.mark.req("OUT-17")
@on_both_loops
async def test_who_gives_way_at_the_rate_goes_behind_those_who_do_not() -> None:
    turnstile, gone = Turnstile(), list[str]()

    async def go(name: str, gives_way: bool) -> None:
        await turnstile.go_through(0.25, gives_way=gives_way)
        gone.append(name)

    await go("promotion", True)
    promotion = [asyncio.create_task(go("promotion", True)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(*(go("essential", False) for _ in range(3)), *promotion)
    assert gone == ["promotion", *["essential"] * 3, *["promotion"] * 3]


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@on_both_loops
async def test_a_cancelled_copy_leaves_no_connection_behind_that_another_could_get(sink: Sink) -> None:
    sink.on("DOT", delay=0.2, times=1)
    async with pool_to(sink.url, connections=1) as pool:
        task = asyncio.create_task(send(pool))
        await until(lambda: "DATA" in sink.commands)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
    assert sink.connections == 2


@on_both_loops
async def test_a_copy_that_would_break_the_protocol_is_a_surprise_and_is_not_sent(sink: Sink) -> None:
    async with pool_to(sink.url) as pool:
        with pytest.raises(ValueError, match="bare"):
            await send(pool, copy_to(content=b"Subject: x\r\n\r\na\n.\r\nMAIL FROM:<eve@example.com>\r\n"))
        assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
    assert [message.content for message in sink.messages] == [CONTENT]


@on_both_loops
async def test_a_server_that_does_not_accept_connections_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with ExitStack() as waiting:
            for _ in range(3):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            async with pool_to(f"smtp://127.0.0.1:{full.getsockname()[1]}", timeouts=IMPATIENT) as pool:
                with pytest.raises(RelayUnavailable, match="no connection within"):
                    await send(pool)


@pytest.mark.parametrize(
    "said",
    [
        [b""],
        [b"220 hello\r\n", b"250-x\r\n" * 20_000],
        [b"220-" + b"x" * 100_000],
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [b"554 5.7.1 not you\r\n"],
        [b"220 hello\r\n250 too early\r\n"],
        [b"220 hello\r\n", b"250 mx\r\n250 one too many\r\n"],
        [b"220 hello\r\n", b"502 5.5.1 no\r\n"],
    ],
    ids=["silent", "endless", "long", "other", "refusing", "early", "talkative", "deaf"],
)
@on_both_loops
async def test_a_server_that_does_not_speak_smtp_is_unavailable(said: list[bytes]) -> None:
    async with server_saying(*said) as url, pool_to(url, timeouts=IMPATIENT) as pool:
        with pytest.raises(RelayUnavailable):
            await send(pool)


@on_both_loops
async def test_a_greeting_that_trickles_in_is_given_up_in_time() -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"2")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, pool_to(url, timeouts=IMPATIENT) as pool, asyncio.timeout(5):
        with pytest.raises(RelayUnavailable):
            await send(pool)


@on_both_loops
async def test_a_server_that_is_slow_at_every_step_holds_nobody_for_long(sink: Sink) -> None:
    for verb in ("CONNECT", "EHLO", "AUTH"):
        sink.on(verb, delay=0.2)
    sink.login = ("user", "secret")
    user: dict[str, Any] = {"username": "user", "password": "secret"}
    async with pool_to(sink.url, timeouts=Timeouts(opening=0.3), **user) as pool:
        with pytest.raises(RelayUnavailable, match="too slow"):
            await send(pool)
    assert sink.connections == 1


@on_both_loops
async def test_a_server_that_takes_its_time_over_each_of_many_recipients_gets_it(sink: Sink) -> None:
    """RFC 5321 §4.5.3.2.3 is about each RCPT: a server that looks every recipient up is not one that is silent."""
    sink.on("RCPT", delay=0.2)
    everybody = [f"reader{n}@example.org" for n in range(8)]
    async with pool_to(sink.url, timeouts=Timeouts(command=1)) as pool:
        assert await send(pool, copy_to(*everybody)) == (Reply(250, "2.0.0", "taken"),) * 8


def test_no_silence_holds_a_slot_for_more_than_ten_minutes() -> None:
    assert max(asdict(Timeouts()).values()) <= 600


# TLS and logging in


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@on_both_loops
async def test_copies_go_encrypted_and_logged_in(certificate: Certificate, implicit: bool) -> None:
    user: dict[str, Any] = {"username": "user", "password": "secret"}
    with Sink(tls=certificate, implicit_tls=implicit, login=("user", "secret")) as sink:
        async with pool_to(sink.url, authorities=certificate.certificate.read_text(), **user) as pool:
            for _ in range(2):
                assert await send(pool) == (Reply(250, "2.0.0", "taken"),)
        assert [(message.tls, message.login) for message in sink.messages] == [(True, "user")] * 2


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("flaw", ["another name", "expired", "another authority"])
@on_both_loops
async def test_a_certificate_that_does_not_verify_ends_it_before_anything_is_said(
    certificate: Certificate, tmp_path: Path, flaw: str, implicit: bool
) -> None:
    name, days = ("mx.example.net", 1) if flaw == "another name" else ("127.0.0.1", -1 if flaw == "expired" else 1)
    shown = make_certificate(tmp_path, name, days=days)
    authority = certificate if flaw == "another authority" else shown
    with Sink(tls=shown, implicit_tls=implicit) as sink:
        async with pool_to(sink.url, authorities=authority.certificate.read_text()) as pool:
            with pytest.raises(RelayUnavailable, match=r"(?i)certificate"):
                await send(pool)
        assert sink.messages == []
        assert not any(command.startswith("MAIL") for command in sink.commands)


@pytest.mark.req("OUT-05")
@on_both_loops
async def test_without_starttls_nothing_goes_out_in_clear(sink: Sink, certificate: Certificate) -> None:
    user: dict[str, Any] = {"username": "user", "password": "secret"}
    async with pool_to(sink.url, authorities=certificate.certificate.read_text(), **user) as pool:
        with pytest.raises(RelayUnavailable, match="TLS is required"):
            await send(pool)
    assert sink.commands == ["EHLO relay.example.com"]


@pytest.mark.req("OUT-05")
@pytest.mark.parametrize("answer", [b"220 go\r\n250-mx\r\n250 SIZE\r\n", b"220 go\r\n25", b"220 go\r\n"])
@on_both_loops
async def test_what_is_said_in_clear_before_tls_is_never_listened_to(certificate: Certificate, answer: bytes) -> None:
    said = (b"220 hello\r\n", b"250-mx\r\n250 STARTTLS\r\n", answer)
    trusted = certificate.certificate.read_text()
    async with server_saying(*said) as url, pool_to(url, authorities=trusted, timeouts=IMPATIENT) as pool:
        async with asyncio.timeout(5):
            with pytest.raises(RelayUnavailable):
                await send(pool)


@on_both_loops
async def test_a_server_that_speaks_in_clear_where_tls_was_due_is_unavailable(certificate: Certificate) -> None:
    trusted = certificate.certificate.read_text()
    async with (
        server_saying(b"220 hello\r\n") as url,
        pool_to(url.replace("smtp", "smtps"), authorities=trusted) as pool,
    ):
        with pytest.raises(RelayUnavailable):
            await send(pool)


@on_both_loops
async def test_a_wrong_password_makes_the_smarthost_unavailable() -> None:
    with Sink(login=("user", "secret")) as sink:
        async with pool_to(sink.url, username="user", password="guess") as pool:
            with pytest.raises(RelayUnavailable, match="535") as failure:
                await send(pool)
            assert "guess" not in str(failure.value)


# Other next hops


@on_both_loops
async def test_lmtp_tells_each_recipients_fate() -> None:
    with Sink(lmtp=True) as sink:
        sink.on("DOT", "452 4.2.2 over quota", containing="b@example.com")
        async with pool_to(sink.url) as pool:
            replies = await send(pool, copy_to("a@example.com", "b@example.com"))
        assert [reply.code for reply in replies] == [250, 452]


@on_both_loops
async def test_a_maildir_keeps_each_recipients_copy_byte_for_byte(tmp_path: Path) -> None:
    content = "Subject: x\r\n\r\n.Grüße\r\n".encode()
    async with pool_to(f"maildir:{tmp_path}/out") as pool:
        replies = await send(pool, copy_to("a@example.com", "bü@example.com", content=content))
    assert [reply.code for reply in replies] == [250, 250]
    kept = {path.read_bytes() for path in (tmp_path / "out" / "new").iterdir()}
    assert kept == {
        f"Return-Path: <news@example.com>\r\nDelivered-To: {to}\r\n".encode() + content
        for to in ("a@example.com", "bü@example.com")
    }
    assert list((tmp_path / "out" / "tmp").iterdir()) == []
    assert len(mailbox.Maildir(tmp_path / "out", create=False)) == 2


@on_both_loops
async def test_a_maildir_on_a_broken_disk_defers(tmp_path: Path) -> None:
    async with pool_to(f"maildir:{tmp_path}/out") as pool, pool.connection() as connection:
        (tmp_path / "out" / "new").rmdir()
        (tmp_path / "out" / "new").write_text("a file")
        (reply,) = await connection.relay(copy_to())
    assert (reply.code, reply.enhanced) == (452, "4.3.1")
    assert list((tmp_path / "out" / "tmp").iterdir()) == []


@on_both_loops
async def test_a_maildir_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    async with pool_to(f"maildir:{tmp_path}/out") as pool:
        with pytest.raises(RelayUnavailable):
            await send(pool)


@pytest.mark.parametrize("url", ["http://mx.example.com", "mx.example.com", "smtp://", "maildir:", "smtp://u@mx:25"])
def test_a_url_that_is_none_of_ours_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Pool(Smarthost("test", (url,)), hostname="relay.example.com")


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("smtp://127.0.0.1:25", True),
        ("smtp://127.9.9.9", True),
        ("smtp://[::1]:25", True),
        ("smtp://localhost", True),
        ("smtp://localhost.example.com", False),
        ("smtp://10.0.0.1", False),
        ("smtp://mta.example.com:587", False),
    ],
)
def test_only_what_is_written_as_loopback_is_spoken_to_in_clear(url: str, is_loopback: bool) -> None:
    assert Endpoint.parse(url).is_loopback == is_loopback
