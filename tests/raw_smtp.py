"""A client that sends exactly the octets it is told to, however they break the protocol, and reads replies strictly.

`smtplib` mends line ends, knows the order of commands and hides what else came; a test of refusals needs none of that.
Run as a program it says each argument to a server and prints the replies: so a test can speak from another network
namespace.

    ip netns exec NAME python raw_smtp.py HOST PORT "EHLO me" "QUIT"
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_LINE = re.compile(r"(\d{3})([ -])(.*)")
ENDING = b"\r\n.\r\n"


@dataclass(frozen=True)
class Said:
    """One reply: its code, and the text of each line."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass
class RawSmtp:
    """One connection; the greeting has been read. `transcript` keeps every line that the server said."""

    port: int
    host: str = "127.0.0.1"
    source: str = ""
    tls: ssl.SSLContext | None = None
    preface: bytes = b""
    """What is said before anything else, TLS included."""
    transcript: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._buffer = b""
        self.connection = socket.create_connection(
            (self.host, self.port), 20, (self.source, 0) if self.source else None
        )
        self.send(self.preface)
        if self.tls:
            self.start_tls(self.tls)
        self.greeting = self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.connection.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands; what the server has said too early, in the clear, is read as its next word."""
        self.connection = context.wrap_socket(self.connection, server_hostname="relay.example.com")

    def send(self, octets: bytes) -> None:
        self.connection.sendall(octets)

    def say(self, *lines: str) -> Said:
        """Say lines in one segment; return the last reply, after checking that each line got one."""
        self.send("".join(f"{line}\r\n" for line in lines).encode())
        return [self.reply() for _ in lines][-1]

    def reply(self) -> Said:
        lines: list[str] = []
        while True:
            line = self._line()
            self.transcript.append(line)
            parsed = _LINE.fullmatch(line)
            assert parsed, f"not a reply: {line!r}"
            lines.append(parsed[3])
            if parsed[2] == " ":
                return Said(int(parsed[1]), tuple(lines))

    def ehlo(self) -> set[str]:
        """Return the keywords that are offered; parameters are left out, `SIZE 65536` is SIZE."""
        return {line.split()[0] for line in self.say("EHLO tool.example.net").lines[1:]}

    def login(self, name: str, password: str) -> Said:
        initial = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
        return self.say(f"AUTH PLAIN {initial}")

    def transact(self, content: bytes, recipients: list[str], sender: str = "letters@news.example.com") -> Said:
        """Submit `content` as it stands, dots and all, with the final dot after it; return the last reply."""
        said = self.say(f"MAIL FROM:<{sender}>", *[f"RCPT TO:<{one}>" for one in recipients], "DATA")
        if said.code != 354:
            return said
        self.send(content + (ENDING[2:] if content.endswith(b"\r\n") else ENDING))
        return self.reply()

    def rest(self) -> list[str]:
        """Return the transcript once the server has hung up."""
        try:
            while True:
                self.transcript.append(self._line())
        except (EOFError, ConnectionResetError):
            return self.transcript

    def end(self) -> None:
        """Say that nothing more will be said, and go on listening (TCP's half-close)."""
        self.connection.shutdown(socket.SHUT_WR)

    def is_closed(self) -> bool:
        """True where the server has nothing more to say and has hung up; waits for either."""
        try:
            return not self._buffer and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return True

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            received = self.connection.recv(65536)
            if not received:
                raise EOFError(f"the server hung up; it had said {self.transcript}")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        assert line.endswith(b"\r"), f"a bare LF in {line!r}"
        return line[:-1].decode("ascii")


def _main(host: str, port: str, *lines: str) -> None:
    with RawSmtp(int(port), host) as client:
        for line in lines:
            client.say(line)
        print("\n".join(client.transcript))


if __name__ == "__main__":
    _main(*sys.argv[1:])
