"""A program that is told things: an HTTP server of the tests, which keeps every request and answers as it is scripted.

Nothing here imports the program under test.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answer` says with which status a request is answered; what was answered 2xx is in `taken`."""

    port: int = 0
    answer: Callable[[str, bytes], int] = lambda path, body: 204
    headers: dict[str, str] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def taken(self) -> list[Told]:
        return [one for one in self.told if 200 <= one.status < 300]

    def of(self, kind: str, address: str = "") -> list[dict[str, Any]]:
        """Return what was taken of one kind, in the Standard Webhooks shape, about an address."""
        bodies = [one.json for one in self.taken]
        return [one for one in bodies if one["type"] == kind and (not address or one["data"].get("address") == address)]

    def normal(self) -> None:
        self.answer = lambda path, body: 204
        self.headers = {}


@contextmanager
def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver in threads of its own."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = receiver.answer(self.path, body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.told.append(Told(self.path, headers, body, time.time(), status))
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
