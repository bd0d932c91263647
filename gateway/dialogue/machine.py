"""The conversation: which command may come when, what is asked of the listener, how much is borne with.

The budgets and the order of commands are decided here; a question that has been asked is answered before the next
line is read, so that replies keep the order of the commands (RFC 2920 §3.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from gateway.dialogue.arrival import Arrival, too_big
from gateway.dialogue.sasl import MECHANISMS, Credentials, Exchange
from gateway.dialogue.syntax import (
    HOST_NAME,
    LINE_LIMIT,
    LINE_LIMITS,
    LONGEST_LINE,
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    Refused,
    address,
    encoded,
    need_no,
    options_of,
    parse_parameters,
    split_path,
    text_of,
)
from gateway.errors import Malformed
from gateway.model import Recipient, Reply


class Auth(Enum):
    """Whether this connection may log in (RFC 4954 §4: the terms of an unprotected one say AFTER_TLS)."""

    NEVER = auto()
    AFTER_TLS = auto()
    NOW = auto()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a connection is offered, and how much is borne with. Sizes in octets.

    The budgets count since the last accepted message. `max_idle` is for commands that ask for nothing (NOOP, VRFY, a
    RSET that undoes nothing); a refusal by the listener costs nothing, because a campaign has many.
    """

    hostname: str
    max_size: int = 25 * 1024 * 1024
    max_recipients: int = 1000
    starttls: bool = False
    auth: Auth = Auth.NEVER
    max_errors: int = 20
    max_unknown: int = 10
    max_idle: int = 100
    max_login_failures: int = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """The client named itself; already answered."""

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class StartTls:
    """220 has been said: flush it, shake hands, then `restart` the dialogue on the terms of a protected connection."""


@dataclass(frozen=True, slots=True)
class Mail:
    """May a transaction begin? The reverse path is "" for the null sender; `size` is what was declared, or 0.

    `options` are the other parameters, their keywords in upper case and their values as given.
    """

    reverse_path: str
    options: tuple[str, ...]
    size: int
    smtputf8: bool


@dataclass(frozen=True, slots=True)
class Rcpt:
    """May the message go to this recipient?"""

    recipient: Recipient


@dataclass(slots=True)
class Content:
    """Is the message accepted? It is complete, without transparency dots, and every line ends with CRLF."""

    message: bytes

    def take(self) -> bytes:
        """Return the message and let go of it, so that whoever works on it is alone in holding it."""
        message, self.message = self.message, b""
        return message


Question = Credentials | Mail | Rcpt | Content
Event = Hello | StartTls | Question


class Dialogue:
    """One connection's conversation.

    `receive` what arrives, take each `next_event`, `answer` it where it is a `Question`, and write `data_to_send`
    when there is no more event: so the replies to pipelined commands leave together (RFC 2920 §3.2).
    """

    def __init__(self, terms: Terms) -> None:
        self._out = bytearray()
        self.restart(terms)

    def restart(self, terms: Terms) -> None:
        """Forget everything, received octets included, and go on under these terms (RFC 3207 §4.2, SMTP-04)."""
        self._terms = terms
        self._buffer = bytearray()
        self._phase = _Phase.COMMANDS
        self._asked: Question | None = None
        self._exchange: Exchange | None = None
        self._arrival: Arrival | None = None
        self._skipping = self._greeted = self._extended = self._authenticated = False
        self._in_transaction = self._mail_failed = self._smtputf8 = False
        self._accepted = self._tried = self._login_failures = 0
        self._errors = self._unknown = self._idle = 0

    @property
    def closed(self) -> bool:
        """True once nothing more is said or heard: send what is left, then close."""
        return self._phase is _Phase.CLOSED

    @property
    def in_content(self) -> bool:
        """True between 354 and the final dot."""
        return self._arrival is not None

    @property
    def buffered(self) -> int:
        """How many octets are held that no event has carried away yet."""
        return len(self._buffer)

    def greeting(self) -> bytes:
        """Return the line that opens the conversation; it has no enhanced status (RFC 2034 §4)."""
        return f"220 {self._terms.hostname} ESMTP Assent\r\n".encode("ascii")

    def receive(self, data: bytes) -> None:
        """Take octets from the client. After STARTTLS, until `restart`, and once closed they are thrown away."""
        if self._phase is _Phase.COMMANDS:
            self._buffer += data

    def next_event(self) -> Event | None:
        """Return what the client wants next; None while an answer is owed, or until more octets come."""
        while self._asked is None and self._phase is _Phase.COMMANDS:
            held = len(self._buffer)
            event = self._take_message(self._arrival) if self._arrival else self._take_command()
            if event is not None or len(self._buffer) == held:
                return event
        return None

    def answer(self, reply: Reply) -> None:
        """Answer the question that `next_event` returned last. A 421 also closes (RFC 5321 §3.8)."""
        asked, self._asked = self._asked, None
        if asked is None:
            raise RuntimeError("no question is waiting for an answer")
        self._say(reply)
        _CONSEQUENCES[type(asked)](self, reply)

    def refuse_content(self, reply: Reply) -> None:
        """Let go of the message that is arriving, of its memory too, and say `reply` after its final dot."""
        if self._arrival:
            self._arrival.refuse(reply)

    def hang_up(self, reply: Reply) -> None:
        """Say a last word, unasked, and close (421, RFC 5321 §3.8)."""
        self._say(reply)
        self._phase = _Phase.CLOSED

    def data_to_send(self) -> bytes:
        """Return everything said since the last call."""
        data = bytes(self._out)
        self._out.clear()
        return data

    # -- lines and messages --

    def _take_command(self) -> Event | None:
        end = self._buffer.find(b"\n") + 1
        if not end:
            self._skip_endless_line()
            return None
        line = b"" if self._skipping else bytes(self._buffer[:end])
        self._skipping = False
        del self._buffer[:end]
        try:
            return self._heed(line)
        except Refused as refusal:
            self._refuse(refusal)
            return None

    def _skip_endless_line(self) -> None:
        if self._skipping or len(self._buffer) > LONGEST_LINE:
            self._skipping = True
            self._buffer.clear()

    def _heed(self, line: bytes) -> Event | None:
        """Obey one line, which is b"" where it was too long to keep; raises `Refused`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            return self._log_in(exchange, text_of(line, LONGEST_LINE))
        text = text_of(line, LINE_LIMITS.get(line[:4].upper(), LINE_LIMIT))
        verb, _, argument = text.partition(" ")
        return _COMMANDS.get(verb.upper(), Dialogue._unknown_command)(self, argument)

    def _take_message(self, arrival: Arrival) -> Content | None:
        """Return the message once its final dot has come, unless it is refused, which is then said here."""
        if not arrival.is_complete():
            return None
        self._arrival = None
        message = arrival.take()
        if isinstance(message, Reply):
            self._end_transaction()
            self._say(message)
            return None
        self._asked = content = Content(message)
        return content

    # -- commands --

    def _helo(self, name: str) -> Hello:
        return self._hello(name, extended=False)

    def _ehlo(self, name: str) -> Hello:
        return self._hello(name, extended=True)

    def _hello(self, name: str, *, extended: bool) -> Hello:
        if not HOST_NAME.fullmatch(name):
            raise Refused(Reply(501, "5.5.4", "say EHLO and your host name"))
        self._spend_idle()
        self._end_transaction()
        self._greeted, self._extended = True, extended
        *lines, last = [self._terms.hostname, *self._extensions()] if extended else [self._terms.hostname]
        self._out += "".join([*(f"250-{line}\r\n" for line in lines), f"250 {last}\r\n"]).encode("ascii")
        return Hello(name, extended)

    def _extensions(self) -> Iterator[str]:
        yield "PIPELINING"
        yield f"SIZE {self._terms.max_size}"
        yield from ("8BITMIME", "SMTPUTF8", "DSN")
        if self._terms.starttls:
            yield "STARTTLS"
        if self._terms.auth is Auth.NOW:
            yield "AUTH " + " ".join(MECHANISMS)
        yield "ENHANCEDSTATUSCODES"

    def _mail(self, argument: str) -> Mail:
        self._need_hello()
        if self._in_transaction and (self._accepted or not self._tried):
            raise Refused(_NESTED_MAIL)
        self._end_transaction()
        self._mail_failed = True
        path, rest = split_path(argument, "FROM:", _MAIL_SYNTAX)
        parameters = self._parameters(rest, MAIL_PARAMETERS)
        size = self._declared_size(parameters)
        if "AUTH" in parameters:
            parameters["AUTH"] = self._believed_identity()
        self._smtputf8 = "SMTPUTF8" in parameters
        self._need_smtputf8(argument, 550)
        if path:
            address(path, "5.1.7")
        self._asked = mail = Mail(path, options_of(parameters), size, self._smtputf8)
        return mail

    def _rcpt(self, argument: str) -> Rcpt:
        self._need_transaction()
        self._tried += 1
        if self._accepted >= self._terms.max_recipients:
            raise Refused(Reply(452, "4.5.3", "too many recipients; those before this one stand"), counts=False)
        path, rest = split_path(argument, "TO:", _RCPT_SYNTAX)
        parameters = self._parameters(rest, RCPT_PARAMETERS)
        self._need_smtputf8(argument, 553)
        found = address(path, "5.1.3")
        if found.is_whole_domain:
            raise Refused(Reply(553, "5.1.3", "this stands for a whole domain, and is nobody's mailbox"), counts=False)
        self._asked = rcpt = Rcpt(Recipient(found, options_of(parameters)))
        return rcpt

    def _data(self, argument: str) -> None:
        need_no(argument)
        self._need_transaction()
        if not self._accepted:
            raise Refused(Reply(554, "5.5.1", "no valid recipients"), counts=False)
        self._out += b"354 end with <CRLF>.<CRLF>\r\n"
        self._arrival = Arrival(self._buffer, self._terms.max_size)

    def _rset(self, argument: str) -> None:
        need_no(argument)
        if not (self._in_transaction or self._mail_failed):
            self._spend_idle()
        self._end_transaction()
        self._say(_OK)

    def _noop(self, _argument: str) -> None:
        self._spend_idle()
        self._say(_OK)

    def _vrfy(self, _argument: str) -> None:
        self._spend_idle()
        self._say(Reply(252, "2.0.0", "send some mail, it will be tried"))

    def _help(self, _argument: str) -> None:
        self._spend_idle()
        self._say(Reply(214, "2.0.0", "see RFC 5321 and RFC 6409"))

    def _quit(self, argument: str) -> None:
        need_no(argument)
        self.hang_up(Reply(221, "2.0.0", f"{self._terms.hostname} closes the connection"))

    def _starttls(self, argument: str) -> StartTls:
        need_no(argument)
        if not self._terms.starttls:
            raise Refused(Reply(502, "5.5.1", "STARTTLS is not offered here"))
        self._say(Reply(220, "2.0.0", "ready to start TLS"))
        self._phase = _Phase.HANDSHAKE
        self._buffer.clear()
        return StartTls()

    def _auth(self, argument: str) -> Credentials | None:
        self._need_permission_to_log_in()
        mechanism, _, response = argument.partition(" ")
        begin = MECHANISMS.get(mechanism.upper())
        if begin is None:
            raise Refused(Reply(504, "5.5.4", "the mechanisms are " + " and ".join(MECHANISMS)))
        exchange = begin()
        challenge = next(exchange)
        if response:
            return self._log_in(exchange, "" if response == "=" else response)
        self._challenge(exchange, challenge)
        return None

    def _not_implemented(self, _argument: str) -> None:
        raise Refused(Reply(502, "5.5.1", "this command is not implemented"))

    def _unknown_command(self, _argument: str) -> None:
        self._unknown += 1
        raise Refused(Reply(500, "5.5.1", "this command is not known"))

    # -- what commands share --

    def _need_hello(self) -> None:
        if not self._greeted:
            raise Refused(Reply(503, "5.5.1", "say EHLO first"))

    def _need_transaction(self) -> None:
        """What a client pipelined behind a MAIL that failed is not held against it."""
        if not self._in_transaction:
            raise Refused(Reply(503, "5.5.1", "say MAIL first"), counts=not self._mail_failed)

    def _need_permission_to_log_in(self) -> None:
        self._need_hello()
        if self._terms.auth is not Auth.NOW:
            raise Refused(_AUTH_REFUSALS[self._terms.auth])
        if self._authenticated or self._in_transaction or not self._extended:
            raise Refused(Reply(503, "5.5.1", "AUTH comes after EHLO, once, and not within a transaction"))

    def _need_smtputf8(self, argument: str, code: int) -> None:
        """RFC 6531 §3.5: 550 at MAIL, 553 at RCPT."""
        if not (self._smtputf8 or argument.isascii()):
            raise Refused(Reply(code, "5.6.7", "an address that is not ASCII needs SMTPUTF8"), counts=False)

    def _parameters(self, text: str, known: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
        """Return keyword → "=value" of MAIL's or RCPT's parameters (RFC 5321 §4.1.1.11)."""
        if text and not self._extended:
            raise Refused(Reply(555, "5.5.4", "parameters need EHLO"))
        return parse_parameters(text, known) if text else {}

    def _declared_size(self, parameters: dict[str, str]) -> int:
        size = int(parameters.pop("SIZE", "=0")[1:])
        if size > self._terms.max_size:
            raise Refused(too_big(self._terms.max_size), counts=False)
        return size

    def _believed_identity(self) -> str:
        """No login is trusted to say who submitted first, so that whoever is named counts as `<>` (RFC 4954 §5)."""
        if self._terms.auth is Auth.NEVER:
            raise Refused(Reply(555, "5.5.4", "the parameter AUTH is not known where AUTH is not offered"))
        return "=<>"

    def _log_in(self, exchange: Exchange, response: str) -> Credentials | None:
        """Take one SASL response: ask on, or give the credentials to the listener (RFC 4954 §4)."""
        if response == "*":
            raise Refused(Reply(501, "5.7.0", "cancelled, as you wished"))
        try:
            self._challenge(exchange, exchange.send(response))
        except Malformed as error:
            raise Refused(Reply(501, "5.5.2", str(error))) from error
        except StopIteration as done:
            credentials: Credentials = done.value
            self._asked = credentials
            return credentials
        return None

    def _challenge(self, exchange: Exchange, challenge: str) -> None:
        self._out += f"334 {challenge}\r\n".encode("ascii")
        self._exchange = exchange

    def _end_transaction(self) -> None:
        self._in_transaction = self._mail_failed = self._smtputf8 = False
        self._accepted = self._tried = 0

    # -- consequences of the listener's answers --

    def _after_credentials(self, reply: Reply) -> None:
        self._authenticated = reply.is_positive
        self._login_failures += not reply.is_positive
        if self._login_failures >= self._terms.max_login_failures:
            self.hang_up(Reply(421, "4.7.0", "too many failed logins"))

    def _after_mail(self, reply: Reply) -> None:
        if reply.is_positive:
            self._in_transaction, self._mail_failed = True, False
        elif reply.code == 530:
            self._count_error()

    def _after_rcpt(self, reply: Reply) -> None:
        self._accepted += reply.is_positive

    def _after_content(self, reply: Reply) -> None:
        self._end_transaction()
        if reply.is_positive:
            self._errors = self._unknown = self._idle = 0

    # -- replies and budgets --

    def _say(self, reply: Reply) -> None:
        self._out += encoded(reply)
        if reply.code == 421:
            self._phase = _Phase.CLOSED

    def _refuse(self, refusal: Refused) -> None:
        self._say(refusal.reply)
        if refusal.counts:
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self._terms.max_errors or self._unknown >= self._terms.max_unknown:
            self.hang_up(Reply(421, "4.7.0", "too many errors"))

    def _spend_idle(self) -> None:
        self._idle += 1
        if self._idle > self._terms.max_idle:
            raise Refused(Reply(421, "4.7.0", "too many commands without a message"), counts=False)


class _Phase(Enum):
    COMMANDS = auto()
    HANDSHAKE = auto()
    CLOSED = auto()


_OK: Final = Reply(250, "2.0.0", "ok")
_NESTED_MAIL: Final = Reply(503, "5.5.1", "a transaction is open already")
_MAIL_SYNTAX: Final = Reply(501, "5.5.4", "the syntax is MAIL FROM:<address> parameters")
_RCPT_SYNTAX: Final = Reply(501, "5.5.4", "the syntax is RCPT TO:<address> parameters")
_AUTH_REFUSALS: Final = {
    Auth.NEVER: Reply(502, "5.5.1", "AUTH is not offered here"),
    Auth.AFTER_TLS: Reply(538, "5.7.11", "AUTH needs TLS here"),
}


_COMMANDS: Final[Mapping[str, Callable[[Dialogue, str], Event | None]]] = {
    "HELO": Dialogue._helo,
    "EHLO": Dialogue._ehlo,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "VRFY": Dialogue._vrfy,
    "HELP": Dialogue._help,
    "QUIT": Dialogue._quit,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
    "EXPN": Dialogue._not_implemented,
    "BDAT": Dialogue._not_implemented,
    "ETRN": Dialogue._not_implemented,
    "TURN": Dialogue._not_implemented,
}

_CONSEQUENCES: Final[Mapping[type[Question], Callable[[Dialogue, Reply], None]]] = {
    Credentials: Dialogue._after_credentials,
    Mail: Dialogue._after_mail,
    Rcpt: Dialogue._after_rcpt,
    Content: Dialogue._after_content,
}
