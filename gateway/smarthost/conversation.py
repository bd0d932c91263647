"""The client's side of SMTP and LMTP without I/O: what to write, how many answers to wait for, what they mean.

A conversation is a generator. It yields a `Group` to write (or `StartTls`), is sent the answers, and returns its
result; whoever carries it throws `Lost` into it when the connection is gone. The one rule: a recipient counts as
relayed only by a 2xx to the final dot. Sockets, clocks and certificates are left to `line`, fail-over to `pool`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeVar

from gateway.address import Address
from gateway.errors import Malformed, RelayUnavailable
from gateway.model import Alphabet, Copy, Recipient, Reply
from gateway.smarthost.content import header_of, is_8bit, wire

AMBIGUOUS = Reply(451, "4.4.2", "connection lost after the final dot: the copy may have been relayed")

_ANSWER_LIMIT = 64 * 1024
_TEXT_LIMIT = 500
_CLOSING = 421
_GO_AHEAD = 354

_ANSWER_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])([^\r\n]*))?\r?")
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)")
_KEYWORD = re.compile("[ =]")
"""What ends the keyword in a line of EHLO's answer; `AUTH=LOGIN` is how servers wrote it before RFC 2554."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_MAIL_DSN = re.compile(r"(?:RET|ENVID)=\S+", re.IGNORECASE)
_RCPT_DSN = re.compile(r"(?:NOTIFY|ORCPT)=\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each answer may take, in seconds (RFC 5321 §4.5.3.2); `opening` bounds all before the first copy.

    `block` is for each piece of the content (256 KiB) and `final` for the answer to the dot: nothing bounds the whole,
    since a large copy over a slow line takes as long as it takes.
    """

    opening: float = 600
    connect: float = 30
    handshake: float = 60
    greeting: float = 300
    command: float = 300
    data: float = 120
    block: float = 180
    final: float = 600
    idle: float = 60
    quit: float = 2


class Security(Enum):
    """When TLS begins: never (loopback), by command (RFC 3207), before anything else (RFC 8314)."""

    CLEAR = "clear"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class Answer(NamedTuple):
    """One answer as it came: its code, and its lines without code and line end."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def accepts(self) -> bool:
        return 200 <= self.code < 300

    @property
    def refuses(self) -> bool:
        return self.code >= 500

    @property
    def closes(self) -> bool:
        """True for 421, after which no answer follows (RFC 5321 §3.8)."""
        return self.code == _CLOSING


class Group(NamedTuple):
    """What is written, how many answers it calls for (fewer where one closes), and the seconds for each of those."""

    pieces: Iterable[bytes]
    answers: int
    timeout: float


class StartTls(NamedTuple):
    """Begin TLS now; whatever the peer said too early is not listened to (RFC 3207 §4.2)."""

    timeout: float


class Lost(RelayUnavailable):
    """The connection is gone: which answers the open group still got, and whether all of it had been written."""

    def __init__(self, why: str, answers: Sequence[Answer] = (), all_written: bool = False) -> None:
        super().__init__(why)
        self.answers = answers
        self.all_written = all_written


class Stale(RelayUnavailable):
    """A connection that was kept open ended without a word about this copy: it may go out on another at once."""


class TurnedAway(RelayUnavailable):
    """The server left with a 421 about itself, before it had heard about a copy: another address may take that now."""


class BrokenOff(RelayUnavailable):
    """The server had begun to answer about a copy, and went away before the final dot: maybe because of that copy."""


_NO_UTF8 = Reply(550, "5.6.7", "the smarthost does not take internationalised addresses or headers")
_NO_8BIT = Reply(554, "5.6.3", "the smarthost does not take 8-bit content, and it was not converted")
_NOT_REACHED = Answer(451, (b"4.4.2 the smarthost closed the connection before it had answered about this recipient",))

Result = TypeVar("Result")
Conversation = Generator[Group | StartTls, Sequence[Answer], Result]


class AnswerReader:
    """Cuts what a server says into answers, however the bytes arrive."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._held = 0

    @property
    def is_midway(self) -> bool:
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[Answer]:
        """Return the answers that `data` completes (RFC 5321 §4.2).

        Raises `Malformed` where it is not SMTP, or where one answer grows beyond 64 KiB.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        answers = [answer for line in lines if (answer := self._add(line))]
        self._check_size(len(self._rest))
        return answers

    def _add(self, line: bytes) -> Answer | None:
        parsed = _ANSWER_LINE.fullmatch(line)
        if not parsed:
            raise Malformed("the answer is not SMTP")
        code, more, text = parsed.groups(b"")
        self._lines.append(text)
        self._held += len(line)
        if more == b"-":
            self._check_size(0)
            return None
        answer = Answer(int(code), tuple(self._lines))
        self._lines, self._held = [], 0
        return answer

    def _check_size(self, beyond: int) -> None:
        if self._held + beyond > _ANSWER_LIMIT:
            raise Malformed("the answer is longer than 64 KiB")


def opening(
    hostname: str, *, lmtp: bool, security: Security, credentials: tuple[str, str] | None, timeouts: Timeouts
) -> Conversation[frozenset[str]]:
    """Greet, secure the connection, log in if there are credentials; return the extensions offered.

    Raises `RelayUnavailable` where the server refuses any of it, or does not offer what is required: TLS is never
    done without (RFC 3207 §6), and a password goes nowhere before it.
    """
    if security is Security.IMPLICIT:
        yield StartTls(timeouts.handshake)
    yield from _ask(b"", 220, timeouts.greeting, "the connection")
    offered = yield from _hello(hostname, lmtp, timeouts)
    if security is Security.STARTTLS:
        if "STARTTLS" not in offered:
            raise RelayUnavailable("STARTTLS is not offered, and TLS is required")
        yield from _ask(b"STARTTLS\r\n", 220, timeouts.command, "STARTTLS")
        yield StartTls(timeouts.handshake)
        offered = yield from _hello(hostname, lmtp, timeouts)
    if credentials:
        yield from _log_in(*credentials, offered.get("AUTH", "").upper().split(), timeouts)
    return frozenset(offered)


def transaction(
    copy: Copy, extensions: frozenset[str], *, lmtp: bool, kept_open: bool, timeouts: Timeouts
) -> Conversation[tuple[Reply, ...]]:
    """Relay one copy; return a reply for each recipient, in order (RFC 5321 §3.3; RFC 2033 §4.2 with `lmtp`).

    A refused MAIL is every recipient's reply, unless the server says that it is down (`TurnedAway`); a 421 later is the
    reply of those alone whom it answers (OUT-16).
    `AMBIGUOUS` stands where the connection was lost between the final dot and its answer. Lost before, it raises `Lost`
    (`Stale` where the connection was `kept_open`) if nothing was answered, and `BrokenOff` if something was. Raises
    `ValueError`, before the final dot, where the copy itself would break the protocol.
    """
    if hindrance := obstacle(copy, extensions):
        return (hindrance,) * len(copy.recipients)
    if "SMTPUTF8" not in extensions and not all(to.address.ascii_text for to in copy.recipients):
        return (yield from _without_utf8(copy, extensions, lmtp=lmtp, kept_open=kept_open, timeouts=timeouts))
    recipients, data = yield from _envelope(copy, extensions, lmtp, kept_open, timeouts)
    accepted = sum(answer.accepts for answer in recipients)
    if accepted and data.code == _GO_AHEAD:
        finals = yield from _content(copy, accepted if lmtp else 1, timeouts)
        due = iter(finals if lmtp else finals * accepted)
    else:
        yield from _back_out(data, timeouts)
        due = iter([_refusal(data)] * accepted if accepted else [])
    return tuple(next(due) if answer.accepts else _reply(answer) for answer in recipients)


def _without_utf8(
    copy: Copy, extensions: frozenset[str], *, lmtp: bool, kept_open: bool, timeouts: Timeouts
) -> Conversation[tuple[Reply, ...]]:
    """Relay a copy to those of its recipients whose addresses can be written in ASCII (RFC 6531 §3.2)."""
    others = tuple(to for to in copy.recipients if to.address.ascii_text)
    replies: tuple[Reply, ...] = ()
    if others:
        replies = yield from transaction(
            replace(copy, recipients=others), extensions, lmtp=lmtp, kept_open=kept_open, timeouts=timeouts
        )
    due = iter(replies)
    return tuple(next(due) if to.address.ascii_text else _NO_UTF8 for to in copy.recipients)


def quitting(timeouts: Timeouts) -> Group:
    """Return the polite last words (RFC 5321 §4.1.1.10)."""
    return Group((b"QUIT\r\n",), 1, timeouts.quit)


def alphabet_of(extensions: frozenset[str]) -> Alphabet:
    """Return what a server with these extensions takes; SMTPUTF8 means nothing without 8BITMIME (RFC 6531 §3.1)."""
    if "8BITMIME" not in extensions:
        return Alphabet.ASCII
    return Alphabet.UTF8 if "SMTPUTF8" in extensions else Alphabet.EIGHT_BIT


def obstacle(copy: Copy, extensions: frozenset[str]) -> Reply | None:
    """Return why a server with these extensions cannot be given this copy as it is, or None if it can.

    Whoever has heeded `alphabet_of` meets it only for a reverse path that has no other form (RFC 6531 §3.2).
    """
    if "SMTPUTF8" not in extensions and _needs_smtputf8(copy):
        return _NO_UTF8
    if "8BITMIME" not in extensions and is_8bit(copy.segments):
        return _NO_8BIT
    return None


def is_our_own(reply: Reply) -> bool:
    """True where a recipient's reply was said by us, and not by the server."""
    return reply in (AMBIGUOUS, _NO_UTF8, _NO_8BIT, _reply(_NOT_REACHED))


def command(text: str) -> bytes:
    """Return one line as it goes on the wire. Raises `ValueError` for a control character, which could end it early."""
    if _CONTROLS.search(text):
        raise ValueError("a control character in what would be one line")
    return text.encode() + b"\r\n"


def _ask(written: bytes, expected: int, timeout: float, what: str) -> Conversation[Answer]:
    (answer,) = yield Group((written,) if written else (), 1, timeout)
    _expect(answer, expected, what)
    return answer


def _expect(answer: Answer, code: int, what: str) -> None:
    if answer.code != code:
        raise RelayUnavailable(f"{what} was answered {_spoken(answer)}")


def _hello(hostname: str, lmtp: bool, timeouts: Timeouts) -> Conversation[Mapping[str, str]]:
    """Return the extensions offered: none by a server that knows only HELO (RFC 5321 §3.2)."""
    verb = "LHLO" if lmtp else "EHLO"
    (answer,) = yield Group((command(f"{verb} {hostname}"),), 1, timeouts.command)
    if answer.refuses and not lmtp:
        yield from _ask(command(f"HELO {hostname}"), 250, timeouts.command, "HELO")
        return {}
    _expect(answer, 250, verb)
    keywords = (_KEYWORD.split(line.decode("ascii", "replace"), 1) for line in answer.lines[1:])
    return {keyword.upper(): " ".join(parameters) for keyword, *parameters in keywords}


def _log_in(username: str, password: str, mechanisms: Sequence[str], timeouts: Timeouts) -> Conversation[None]:
    """AUTH by PLAIN (RFC 4616), or else LOGIN. Raises `RelayUnavailable`, never naming the password."""
    if "PLAIN" in mechanisms:
        secret = _base64(f"\0{username}\0{password}")
        yield from _ask(b"AUTH PLAIN " + secret, 235, timeouts.command, "AUTH PLAIN")
    elif "LOGIN" in mechanisms:
        yield from _ask(b"AUTH LOGIN\r\n", 334, timeouts.command, "AUTH LOGIN")
        yield from _ask(_base64(username), 334, timeouts.command, "the user name")
        yield from _ask(_base64(password), 235, timeouts.command, "the password")
    else:
        raise RelayUnavailable("neither AUTH PLAIN nor AUTH LOGIN is offered")


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode()) + b"\r\n"


def _envelope(
    copy: Copy, extensions: frozenset[str], lmtp: bool, kept_open: bool, timeouts: Timeouts
) -> Conversation[tuple[list[Answer], Answer]]:
    """Say MAIL, RCPT and DATA; return what each recipient and DATA were answered."""
    ask = _pipelined if "PIPELINING" in extensions and not lmtp else _one_by_one
    try:
        mail, *recipients, data = yield from ask(_envelope_commands(copy, extensions), timeouts)
    except Lost as lost:
        if lost.answers:
            raise BrokenOff(str(lost)) from lost
        if kept_open:
            raise Stale(str(lost)) from lost
        raise
    if mail.closes and kept_open:
        raise Stale(str(_reply(mail)))
    if mail.closes and _is_about_the_server(_reply(mail)):
        raise TurnedAway(f"MAIL was answered {_spoken(mail)}")
    return (recipients if mail.accepts else [mail] * len(recipients)), data


def _envelope_commands(copy: Copy, extensions: frozenset[str]) -> list[bytes]:
    spelled = _as_given if "SMTPUTF8" in extensions else _in_ascii
    mail = [f"MAIL FROM:<{spelled(copy.reverse_path)}>", *_mail_parameters(copy, extensions)]
    recipients = [
        [f"RCPT TO:<{spelled(to.address.text)}>", *_rcpt_parameters(to, extensions)] for to in copy.recipients
    ]
    return [*(command(" ".join(words)) for words in (mail, *recipients)), b"DATA\r\n"]


def _mail_parameters(copy: Copy, extensions: frozenset[str]) -> Iterator[str]:
    if "SIZE" in extensions:
        yield f"SIZE={copy.size}"
    if is_8bit(copy.segments):
        yield "BODY=8BITMIME"
    if "SMTPUTF8" in extensions and _has_utf8(copy):
        yield "SMTPUTF8"
    if "DSN" in extensions:
        yield from filter(_MAIL_DSN.fullmatch, copy.options)


def _rcpt_parameters(recipient: Recipient, extensions: frozenset[str]) -> Iterator[str]:
    if "DSN" in extensions and recipient.options:
        given = filter(_RCPT_DSN.fullmatch, recipient.options)
        yield from given if recipient.address.needs_smtputf8 and "SMTPUTF8" in extensions else map(_in_7bit, given)


def _in_7bit(option: str) -> str:
    """Return an ORCPT as it is written in a transaction without SMTPUTF8 (utf-8-addr-xtext, RFC 6533 §3)."""
    return option if option.isascii() else _NON_ASCII.sub(lambda found: rf"\x{{{ord(found[0]):X}}}", option)


def _as_given(path: str) -> str:
    return path


def _in_ascii(path: str) -> str:
    """Write a domain as A-labels where that is all it takes (RFC 6531 §3.2); `obstacle` has met the others."""
    return path if path.isascii() else Address.parse(path).ascii_text


def _has_utf8(copy: Copy) -> bool:
    """Addresses decide; the header only where the submitter declared it (a raw 8-bit header may be old Latin-1)."""
    if not copy.reverse_path.isascii() or any(to.address.needs_smtputf8 for to in copy.recipients):
        return True
    return _has_utf8_header(copy)


def _has_utf8_header(copy: Copy) -> bool:
    return "SMTPUTF8" in copy.options and not header_of(copy.segments).isascii()


def _needs_smtputf8(copy: Copy) -> bool:
    """True where there is no other way to write the reverse path, or the header."""
    path = copy.reverse_path
    return not (path.isascii() or Address.parse(path).ascii_text) or _has_utf8_header(copy)


def _pipelined(commands: Sequence[bytes], timeouts: Timeouts) -> Conversation[list[Answer]]:
    """Say the whole envelope in one write (RFC 2920 §3.1)."""
    answers = yield Group((b"".join(commands),), len(commands), timeouts.command)
    return _filled(answers, len(commands))


def _one_by_one(commands: Sequence[bytes], timeouts: Timeouts) -> Conversation[list[Answer]]:
    """Say the envelope a command at a time, DATA only if a recipient was accepted."""
    answers = list[Answer]()
    try:
        for line in commands[:-1]:
            answers += yield Group((line,), 1, timeouts.command)
            if not answers[0].accepts or answers[-1].closes:
                break
        if any(answer.accepts for answer in answers[1:]) and not answers[-1].closes:
            answers += yield Group((commands[-1],), 1, timeouts.data)
    except Lost as lost:
        raise Lost(str(lost), answers, lost.all_written) from lost
    return _filled(answers, len(commands))


def _filled(answers: Sequence[Answer], due: int) -> list[Answer]:
    """Stand in for the answers that will not come any more."""
    return [*answers, *[_NOT_REACHED] * (due - len(answers))]


def _content(copy: Copy, due: int, timeouts: Timeouts) -> Conversation[list[Reply]]:
    try:
        answers: Sequence[Answer] = yield Group(wire(copy.segments), due, timeouts.final)
    except Lost as lost:
        if not lost.all_written:
            raise BrokenOff(str(lost)) from lost
        return [*map(_reply, lost.answers), *[AMBIGUOUS] * (due - len(lost.answers))]
    return [_reply(answer) for answer in _filled(answers, due)]


def _back_out(data: Answer, timeouts: Timeouts) -> Conversation[None]:
    """End a transaction without content; what it is answered changes nothing any more.

    Where 354 came although nobody was accepted, a single dot is owed (RFC 2920 §3.1).
    """
    with suppress(Lost):
        if data.code == _GO_AHEAD:
            yield Group((b".\r\n",), 1, timeouts.final)
        yield Group((b"RSET\r\n",), 1, timeouts.command)


def _reply(answer: Answer) -> Reply:
    """Return an answer that ends something. Raises `RelayUnavailable` for 3xx, which ends nothing."""
    if 300 <= answer.code < 400:
        raise RelayUnavailable(f"the server answered {answer.code} where that has no meaning")
    lines = [_CONTROLS.sub("?", line.decode("utf-8", "replace")) for line in answer.lines]
    status = _ENHANCED.match(lines[-1])
    enhanced = status[1] if status and status[1][0] == str(answer.code)[0] else ""
    text = " ".join(line.removeprefix(enhanced).strip() for line in lines)
    return Reply(answer.code, enhanced, text[:_TEXT_LIMIT].strip())


def _is_about_the_server(closing: Reply) -> bool:
    """True where a 421 means what it says, "service not available"; 4.7.x and others are about us or our mail."""
    return not closing.enhanced or closing.enhanced.startswith("4.3.")


def _refusal(data: Answer) -> Reply:
    """Return the answer to a DATA that was not let through; a 2xx there must never pass for "relayed"."""
    if data.accepts:
        raise RelayUnavailable(f"the server answered {data.code} to DATA")
    return _reply(data)


def _spoken(answer: Answer) -> str:
    text = b" ".join(answer.lines).decode("utf-8", "replace")
    return f"{answer.code} {_CONTROLS.sub('?', text)}"[:_TEXT_LIMIT]
