"""A strict scripted smarthost for tests: records what it is sent, and answers as the test says.

    with Sink() as sink:                                       # smtp://127.0.0.1:PORT is sink.url
        sink.on("RCPT", "451 4.2.0 later", containing="bob@", times=1)
        sink.on("DOT", DROP)                                   # close after the dot, before the reply
        ...
        message, = sink.wait_for(1)                            # envelope, parameters, content, time, TLS
        assert message.content == b"..."

It runs in a thread with its own event loop, so a test may be synchronous, asynchronous or drive another process. It is
strict: a bare CR, LF or NUL, a parameter that was not offered, 8-bit without BODY=8BITMIME, a command out of order or
pipelined where that was not offered is answered 5xx and kept in `faults`; leaving the `with` block fails the test if
there are any (a test that expects some clears the list).

Verbs for `on`: CONNECT EHLO (also LHLO) HELO STARTTLS AUTH MAIL RCPT DATA CONTENT DOT RSET QUIT. CONTENT is the moment
after 354, before the content is read; with DROP or RESET and `after_bytes` the connection ends within it. A rule's text
is looked for in the command; of DATA and CONTENT in the recipients, of DOT in the content (LMTP: in the recipient).
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import re
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Ending(Enum):
    """What the sink does instead of answering."""

    DROP = "close the connection"
    RESET = "reset it (RST)"
    SILENCE = "never answer"
    ENDLESS = "answer without end"


DROP, RESET, SILENCE, ENDLESS = Ending
OFFERED = ("PIPELINING", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")


class Certificate(NamedTuple):
    """PEM files; a self-signed certificate is its own authority (`tls_authorities`)."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Received:
    """One transaction that came as far as the final dot, on the sink's n-th connection. `raw` has its dots doubled."""

    envelope_from: str
    recipients: tuple[str, ...]
    options: tuple[str, ...]
    recipient_options: tuple[tuple[str, ...], ...]
    content: bytes
    raw: bytes
    at: float
    tls: bool
    login: str
    helo: str
    connection: int
    is_answered: bool = True
    """False where the sender cannot know that it was taken: the connection ended before the answer to its dot."""


@dataclass
class Rule:
    """Answer `reply` to `verb`: to lines that contain a text, after the first `skip`, at most `times` times."""

    verb: str
    reply: str | bytes | Ending | None
    containing: str = ""
    times: int | None = None
    skip: int = 0
    delay: float = 0.0
    pace: float = 0.0
    after_bytes: int = 0

    def applies(self, verb: str, line: str) -> bool:
        if verb != self.verb or self.containing.lower() not in line.lower() or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Sink:
    """The server. Everything public may be read from the test's thread; `offered` and `on` may change while it runs."""

    offered: tuple[str, ...] = OFFERED
    host: str = "127.0.0.1"
    port: int = 0
    lmtp: bool = False
    login: tuple[str, str] | None = None
    tls: Certificate | None = None
    implicit_tls: bool = False

    messages: list[Received] = field(default_factory=list, init=False)
    """What was taken: answered 2xx after the dot, or not answered at all (the sender cannot know)."""
    refused: list[Received] = field(default_factory=list, init=False)
    """What was refused after the dot."""
    commands: list[str] = field(default_factory=list, init=False)
    attempts: list[tuple[float, str]] = field(default_factory=list, init=False)
    """When MAIL came, for each recipient that was named after it, whatever was answered to either."""
    faults: list[str] = field(default_factory=list, init=False)
    connections: int = field(default=0, init=False)
    said_without_end: int = field(default=0, init=False)
    """Octets of endless answers that the peer, or the system on its behalf, took before it went away."""

    _rules: list[Rule] = field(default_factory=list, init=False)
    _is_holding: bool = field(default=False, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _sessions: set[_Session] = field(default_factory=set, init=False)

    @property
    def open_connections(self) -> int:
        return len(self._sessions)

    @property
    def url(self) -> str:
        scheme = "lmtp" if self.lmtp else "smtps" if self.implicit_tls else "smtp"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def is_idle(self) -> bool:
        """True while nobody is connected: what senders have written has been read to its end."""
        return not self._sessions

    def on(
        self,
        verb: str,
        reply: str | bytes | Ending | None = None,
        *,
        containing: str = "",
        times: int | None = None,
        skip: int = 0,
        delay: float = 0.0,
        pace: float = 0.0,
        after_bytes: int = 0,
    ) -> None:
        """Script an answer: a line, raw bytes, an `Ending`, or None to delay only. The first rule that applies wins.

        It comes after `delay` seconds; with a `pace`, its bytes come one by one, so many seconds apart.
        """
        self._rules.append(Rule(verb, reply, containing, times, skip, delay, pace, after_bytes))

    def normal(self) -> None:
        """Forget the script."""
        self._rules.clear()

    def hold(self) -> None:
        """Answer 451 to every MAIL until `release`."""
        self._is_holding = True

    def release(self) -> None:
        self._is_holding = False

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Return the messages once there are at least `count`; fail the test after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.messages) >= count, timeout):
                raise AssertionError(f"{len(self.messages)} of {count} messages after {timeout} s")
            return list(self.messages)

    def clear(self) -> None:
        """Forget what was recorded."""
        for record in (self.messages, self.refused, self.commands, self.attempts, self.faults):
            record.clear()

    def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(10) or not self.port:
            raise RuntimeError("the sink could not listen")

    def stop(self) -> None:
        """Close everything: from now on connections are refused."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(10)

    def drop_connections(self) -> None:
        """Close the open connections, as a smarthost does with idle ones, and keep listening."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if kind is None and self.faults:
            raise AssertionError("broke the protocol: " + "; ".join(self.faults))

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        finally:
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        context = _server_context(self.tls) if self.tls and self.implicit_tls else None
        server = await asyncio.start_server(self._meet, self.host, self.port, ssl=context, reuse_address=True)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopped.wait()
        server.close()
        await self._drop()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = _Session(self, reader, writer, self.connections)
        self._sessions.add(session)
        try:
            await session.run()
        except (_Over, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._sessions.discard(session)
            writer.close()

    async def _drop(self) -> None:
        tasks = [session.task for session in self._sessions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def keep(self, message: Received, is_taken: bool) -> None:
        with self._changed:
            (self.messages if is_taken else self.refused).append(message)
            self._changed.notify_all()

    def rule(self, verb: str, line: str) -> Rule | None:
        if verb == "MAIL" and self._is_holding:
            return Rule(verb, "451 4.3.2 held")
        return next((rule for rule in self._rules if rule.applies(verb, line)), None)


class offering:
    """For a while a sink offers other extensions, to connections that are made in that while only."""

    def __init__(self, sink: Sink, extensions: tuple[str, ...]) -> None:
        self._sink = sink
        self._extensions = extensions

    def __enter__(self) -> None:
        self._usual, self._sink.offered = self._sink.offered, self._extensions
        self._sink.drop_connections()

    def __exit__(self, *_: object) -> None:
        self._sink.offered = self._usual
        self._sink.drop_connections()


class _Over(Exception):
    """This connection has come to its end."""


@dataclass(eq=False)
class _Session:
    """One connection."""

    sink: Sink
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    number: int
    helo: str = ""
    is_extended: bool = True
    login: str = ""
    mail: str | None = None
    mail_at: float = 0.0
    options: tuple[str, ...] = ()
    recipients: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        task = asyncio.current_task()
        assert task
        self.task = task
        self._buffer = bytearray()

    @property
    def is_encrypted(self) -> bool:
        return self.writer.get_extra_info("ssl_object") is not None

    @property
    def keywords(self) -> list[str]:
        """What EHLO offers now; nothing was offered to whoever said HELO."""
        if not self.is_extended:
            return []
        starttls = ["STARTTLS"] if self.sink.tls and not self.is_encrypted else []
        may_log_in = self.sink.login and (self.is_encrypted or not self.sink.tls)
        return [*self.sink.offered, *starttls, *(["AUTH PLAIN LOGIN"] if may_log_in else [])]

    def offers(self, keyword: str) -> bool:
        return keyword in (offer.split()[0] for offer in self.keywords)

    async def run(self) -> None:
        if not (await self.answer("CONNECT", "", "220 sink.example.com ESMTP")).startswith("220"):
            raise _Over
        while True:
            line = await self.read_line()
            verb = re.split(r"[ :]", line, maxsplit=1)[0].upper()
            self.sink.commands.append(line if verb != "AUTH" else "AUTH")
            self.check_pipelining(verb)
            await getattr(self, f"do_{verb.lower()}", self.do_unknown)(line)

    def check_pipelining(self, verb: str) -> None:
        if self._buffer and (not self.offers("PIPELINING") or verb in ("EHLO", "LHLO", "STARTTLS", "DATA", "AUTH")):
            self.sink.faults.append(f"{verb} was followed by more before it was answered")

    async def answer(self, verb: str, line: str, usual: str) -> str:
        """Answer as the script says, or else as usual; return what was answered."""
        rule = self.sink.rule(verb, line)
        if rule and rule.delay:
            await asyncio.sleep(rule.delay)
        reply = usual if rule is None or rule.reply is None else rule.reply
        if isinstance(reply, Ending):
            await self.end(reply, rule.after_bytes if rule else 0)
            raise _Over
        if reply:
            await self.say(reply if isinstance(reply, bytes) else f"{reply}\r\n".encode(), rule.pace if rule else 0.0)
        text = reply.decode() if isinstance(reply, bytes) else reply
        if text.startswith("421"):
            raise _Over(text)
        return text

    async def say(self, octets: bytes, pace: float) -> None:
        for piece in (octets[at : at + 1] for at in range(len(octets))) if pace else (octets,):
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pace)

    async def end(self, how: Ending, after_bytes: int) -> None:
        if after_bytes:
            await self.reader.readexactly(max(0, after_bytes - len(self._buffer)))
        if how is SILENCE:
            while await self.reader.read(65536):
                pass
        while how is ENDLESS:
            await self.say(b"250-and more\r\n" * 1000, 0.001)
            self.sink.said_without_end += 14_000
        if how is RESET:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()

    async def refuse(self, fault: str, reply: str) -> None:
        self.sink.faults.append(fault)
        self.writer.write(f"{reply} {fault}\r\n".encode())
        await self.writer.drain()

    async def fill(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            raise _Over
        self._buffer += data

    async def read_line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            await self.fill()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            self.sink.faults.append(f"bare CR, LF or NUL in the command {line!r}")
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    async def read_content(self) -> bytes:
        """Return the content as it is on the wire, without the final dot's line."""
        self._buffer[:0] = b"\r\n"
        start = 0
        while (end := self._buffer.find(b"\r\n.\r\n", start)) < 0:
            start = max(0, len(self._buffer) - 4)
            await self.fill()
        raw = bytes(self._buffer[2 : end + 2])
        del self._buffer[: end + 5]
        return raw

    async def do_unknown(self, line: str) -> None:
        await self.refuse(f"unknown command {line!r}", "500 5.5.2")

    async def do_ehlo(self, line: str) -> None:
        verb = "LHLO" if self.sink.lmtp else "EHLO"
        if not line.upper().startswith(verb):
            await self.refuse(f"{line.split()[0]} where {verb} was due", "500 5.5.1")
            return
        self.reset()
        self.helo, self.is_extended = line.partition(" ")[2], True
        *offers, last = ["sink.example.com", *self.keywords]
        await self.answer("EHLO", line, "".join(f"250-{offer}\r\n" for offer in offers) + f"250 {last}")

    do_lhlo = do_ehlo

    async def do_helo(self, line: str) -> None:
        self.reset()
        self.helo, self.is_extended = line.partition(" ")[2], False
        await self.answer("HELO", line, "250 sink.example.com")

    async def do_starttls(self, line: str) -> None:
        if not self.sink.tls or self.is_encrypted:
            await self.refuse("STARTTLS was not offered", "502 5.5.1")
            return
        if (await self.answer("STARTTLS", line, "220 2.0.0 go ahead")).startswith("220"):
            self.helo = ""
            await self.writer.start_tls(_server_context(self.sink.tls))

    async def do_auth(self, line: str) -> None:
        if not self.offers("AUTH"):
            await self.refuse("AUTH was not offered", "503 5.5.1")
            return
        _, mechanism, *initial = line.split()
        if mechanism.upper() == "PLAIN":
            _, user, password = base64.b64decode(initial[0] if initial else await self.ask("")).decode().split("\0")
        else:
            user, password = [base64.b64decode(await self.ask(what)).decode() for what in ("Username:", "Password:")]
        is_right = (user, password) == self.sink.login
        answer = await self.answer("AUTH", line, "235 2.7.0 welcome" if is_right else "535 5.7.8 wrong password")
        self.login = user if answer.startswith("235") else ""

    async def ask(self, what: str) -> str:
        self.writer.write(b"334 " + base64.b64encode(what.encode()) + b"\r\n")
        return await self.read_line()

    async def do_mail(self, line: str) -> None:
        self.mail_at = time.time()
        path, options = _path(line, "MAIL FROM")
        if not self.helo or self.mail is not None or path is None:
            await self.refuse(f"out of order or malformed: {line!r}", "503 5.5.1")
        elif self.sink.login and not self.login:
            await self.answer("MAIL", line, "530 5.7.0 log in first")
        elif fault := self.parameter_fault(options, _MAIL_PARAMETERS) or _utf8_fault(line, options):
            await self.refuse(fault, "555 5.5.4")
        elif (await self.answer("MAIL", line, "250 2.1.0 ok")).startswith("2"):
            self.mail, self.options = path, options

    async def do_rcpt(self, line: str) -> None:
        path, options = _path(line, "RCPT TO")
        if path is None:
            await self.refuse(f"malformed: {line!r}", "501 5.1.3")
            return
        self.sink.attempts.append((self.mail_at, path))
        if self.mail is None:
            await self.answer("RCPT", line, "503 5.5.1 MAIL first")
        elif fault := self.parameter_fault(options, _RCPT_PARAMETERS) or _utf8_fault(line, self.options):
            await self.refuse(fault, "555 5.5.4")
        elif (await self.answer("RCPT", line, "250 2.1.5 ok")).startswith("2"):
            self.recipients.append((path, options))

    def parameter_fault(self, options: tuple[str, ...], known: dict[str, str]) -> str:
        for option in options:
            extension = known.get(option.partition("=")[0].upper(), "?")
            if not self.offers(extension):
                return f"the parameter {option} was not offered"
        return ""

    async def do_data(self, line: str) -> None:
        if not self.recipients:
            await self.answer("DATA", line, "503 5.5.1 no recipients")
            return
        paths = " ".join(path for path, _ in self.recipients)
        if not (await self.answer("DATA", paths, "354 go ahead")).startswith("354"):
            return
        await self.answer("CONTENT", paths, "")
        raw = await self.read_content()
        await self.finish(raw)

    async def finish(self, raw: bytes) -> None:
        """Answer the dot: once, or with LMTP once a recipient. Where the script drops, the message was taken."""
        content = re.sub(rb"(\A|\r\n)\.", rb"\1", raw)
        message = self.received(content, raw)
        faults = _content_faults(raw, "BODY=8BITMIME" in self.options)
        self.sink.faults += faults
        usual = f"554 5.6.0 {'; '.join(faults)}" if faults else "250 2.0.0 taken"
        self.reset()
        answers: list[str] = []
        is_answered = False
        try:
            for about in message.recipients if self.sink.lmtp else [content.decode("latin-1")]:
                answers.append(await self.answer("DOT", about, usual))
            is_answered = True
        except (_Over, asyncio.CancelledError) as end:
            answers.append(str(end) or "250 never said")
            raise
        finally:
            self.sink.keep(replace(message, is_answered=is_answered), any(answer.startswith("2") for answer in answers))

    def received(self, content: bytes, raw: bytes) -> Received:
        assert self.mail is not None
        paths, options = zip(*self.recipients, strict=True)
        return Received(
            envelope_from=self.mail,
            recipients=paths,
            options=self.options,
            recipient_options=options,
            content=content,
            raw=raw,
            at=time.time(),
            tls=self.is_encrypted,
            login=self.login,
            helo=self.helo,
            connection=self.number,
        )

    async def do_rset(self, line: str) -> None:
        self.reset()
        await self.answer("RSET", line, "250 2.0.0 ok")

    async def do_noop(self, line: str) -> None:
        await self.answer("NOOP", line, "250 2.0.0 ok")

    async def do_quit(self, line: str) -> None:
        await self.answer("QUIT", line, "221 2.0.0 bye")
        raise _Over

    def reset(self) -> None:
        self.mail, self.options = None, ()
        self.recipients = []


_MAIL_PARAMETERS = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"}
_RCPT_PARAMETERS = {"NOTIFY": "DSN", "ORCPT": "DSN"}


_PATH = r'(?:"(?:[^"\\]|\\.)*"|[^">])*'
"""What stands between the brackets: a bracket within a quoted local-part ends nothing (RFC 5321 §4.1.2)."""


def _path(line: str, verb: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the path without brackets (None where the command is malformed) and the parameters."""
    parsed = re.fullmatch(rf"{verb}:<({_PATH})>((?: [^ ]+)*)", line, re.IGNORECASE)
    return (parsed[1], tuple(parsed[2].split())) if parsed else (None, ())


def _utf8_fault(line: str, options: tuple[str, ...]) -> str:
    return "" if line.isascii() or "SMTPUTF8" in options else "an internationalised address without SMTPUTF8"


def _content_faults(raw: bytes, may_be_8bit: bool) -> list[str]:
    faults = {
        "bare CR, bare LF or NUL in the content": re.search(rb"\r(?!\n)|(?<!\r)\n|\0", raw),
        "8-bit content without BODY=8BITMIME": not may_be_8bit and not raw.isascii(),
        "a line of more than 998 octets": max(map(len, raw.split(b"\r\n"))) > 999,
        "a leading dot that was not doubled": re.search(rb"(?m)^\.(?!\.)", raw),
    }
    return [fault for fault, is_there in faults.items() if is_there]


def _server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def make_certificate(folder: Path, *names: str, days: int = 1) -> Certificate:
    """Write a self-signed certificate for host names or IP addresses; with negative `days` it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / f"{names[0]}.crt", folder / f"{names[0]}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    files.key.write_bytes(pem)
    return files


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
