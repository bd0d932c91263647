"""The installed program as the tests see it: a folder, a configuration, a separate process, and sockets.

Nothing here imports the program. What a test learns, it learns from replies, from pages, from the command line's
answers and from what a strict sink received.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

START_SECONDS = 30
TOPIC = "product-announcements"


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ports that are free, each another one: none that this process has given before, while there are more."""
    found = list[int]()
    while len(found) < count:
        port = next(_ports)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _own_ports() -> Iterator[int]:
    """Yield this process's ports for ever; it shares them with none of the others that run tests (pytest-xdist).

    They are none of those which the system gives to whoever connects, from 32768 on.
    """
    first = 12_000 + 5_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = random.randrange(5_000)
    return cycle(first + (start + n) % 5_000 for n in range(5_000))


_ports = _own_ports()


def eventually(true: Any, seconds: float = 20.0) -> Any:
    """Return the first truthy answer of `true()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.05)
    return answer


@cache
def rsa_key(name: str, bits: int = 2048) -> bytes:
    """Return the private key of that name and length as PEM; each is made once, for all gateways of a session."""
    return subprocess.run(["openssl", "genrsa", str(bits)], check=True, capture_output=True).stdout


@cache
def certificate_of(key: bytes, *names: str) -> bytes:
    """Return a self-signed certificate for these host names, good for two days, as PEM."""
    order = ["openssl", "req", "-x509", "-key", "/dev/stdin", "-days", "2", "-subj", f"/CN={names[0]}"]
    order += ["-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"]
    return subprocess.run(order, input=key, check=True, capture_output=True).stdout


def _write_secret(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


class Gateway:
    """One installation in a folder of its own; `start` and `stop` it as often as a test likes."""

    def __init__(self, folder: Path, smarthost: str, *, sections: Mapping[str, str] | None = None, workers: int = 1):
        self.folder = folder
        self.smarthost = smarthost
        self.workers = workers
        self.submission, self.submission_tls, self.feedback, self.site, self.console = free_ports(5)
        self.config = folder / "config.toml"
        self.log = folder / "serve.log"
        self.passwords: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        self.wrapper: list[str] = []
        """A command that runs the program, which it must become (`exec`)."""
        self.site_ca: Path | None = None
        """Whom to trust where the site speaks TLS itself; None where it does not."""
        self._sections = dict(sections or {})

    # the operator

    def prepare(self) -> Gateway:
        """Write the configuration, make keys, and add the logins `news` (promotional) and `shop` (account)."""
        self.prepare_files()
        return self.prepare_store()

    def prepare_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.make_certificate()
        self.make_dkim_key()
        self.write_config()

    def prepare_store(self) -> Gateway:
        self.run("migrate")
        self.add_login("news", "newsletter")
        self.add_login("shop", "billing")
        return self

    def write_config(self, **replaced: str) -> None:
        """Write config.toml; a keyword replaces the section of that name (or adds one)."""
        self._sections.update(replaced)
        sections = {**self._default_sections(), **self._sections}
        self.config.write_text("\n".join(textwrap.dedent(text).strip() + "\n" for text in sections.values() if text))

    def _default_sections(self) -> dict[str, str]:
        return {
            "top": f"""
                hostname = "relay.example.com"
                workers = {self.workers}
                data_dir = "var"
                database = "sqlite:var/assent.db"
                """,
            "company": """
                [company]
                name = "Example Software, Inc."
                postal_address = "1 Main Street, Springfield IL 62701, USA"
                contact = "privacy@example.com"
                privacy_policy = "https://example.com/privacy"
                region = "US"
                hosts = ["example.com", "*.example.com"]
                help_url = "https://wiki.example.com/mail"
                """,
            "submission": f"""
                [submission]
                listen = ["127.0.0.1:{self.submission}"]
                listen_tls = ["127.0.0.1:{self.submission_tls}"]
                tls_certificate = "server.pem"
                tls_key = "server.key"
                """,
            "smarthosts": f"""
                [smarthosts.default]
                urls = ["{self.smarthost}"]
                processor = "Example Hosting Ltd."
                retry = ["1s", "1s", "2s"]
                """,
            "feedback": f"""
                [feedback]
                listen = ["127.0.0.1:{self.feedback}"]
                domain = "bounce.example.com"
                """,
            "site": f"""
                [site]
                listen = ["127.0.0.1:{self.site}"]
                public_url = "https://mail.example.com"
                """,
            "console": f"""
                [console]
                listen = ["127.0.0.1:{self.console}"]
                """,
            "dkim": """
                [dkim."example.com"]
                selectors = [{ name = "s1", key = "var/dkim/example.com.s1.pem" }]
                """,
            "dns": """
                [dns]
                servers = ["127.0.0.1:9"]
                """,
            "topics": f"""
                [topics.{TOPIC}]
                name = "Product announcements"
                [topics.special-offers]
                name = "Special offers"
                """,
            "streams": f"""
                [streams.newsletter]
                class = "promotional"
                topics = ["{TOPIC}"]
                from = ["*@news.example.com"]
                return_paths = ["*@bounces.news.example.com"]
                [streams.offers]
                class = "promotional"
                topics = ["special-offers"]
                from = ["*@offers.example.com"]
                [streams.billing]
                class = "account"
                from = ["billing@example.com"]
                """,
        }

    def make_certificate(self) -> None:
        key = rsa_key("relay.example.com")
        (self.folder / "server.pem").write_bytes(certificate_of(key, "relay.example.com", "localhost"))
        _write_secret(self.folder / "server.key", key)

    def make_dkim_key(self, name: str = "example.com.s1", bits: int = 2048) -> Path:
        path = self.folder / "var" / "dkim" / f"{name}.pem"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_secret(path, rsa_key(name, bits))
        return path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", "--config", str(self.config), *arguments]

    def run(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `assent …` and return what came of it; an exit status other than 0 fails unless `check` is False."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=60,
            input=stdin,
            env={**os.environ, **self.environment},
        )
        if check and done.returncode:
            raise AssertionError(f"assent {' '.join(arguments)} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run("--json", *arguments).stdout)

    def add_login(self, name: str, streams: str, *more: str) -> str:
        told = self.json("logins", "add", name, "--streams", streams, *more)
        self.passwords[name] = told.get("password", "")
        return self.passwords[name]

    def opt_in(self, *addresses: str, topic: str = TOPIC) -> None:
        self.run("consent", "record", *addresses, "--topic", topic, "--basis", "express")

    def publish_policy(
        self, version: str, *more: str, effective: str = "2026-01-01", text: str = "We mail by consent."
    ) -> None:
        """Publish a version of the privacy policy."""
        (self.folder / "policy.txt").write_text(text)
        self.run("policy", "publish", version, "--text", "policy.txt", "--effective", effective, *more)

    # the process

    def start(self, *, wait: bool = True) -> Gateway:
        self.process = subprocess.Popen(
            [*self.wrapper, *self.command("serve")],
            cwd=self.folder,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        if wait:
            eventually(self.is_ready, START_SECONDS)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"assent serve exited {self.process.returncode}: {self.log.read_text()[-3000:]}")
        try:
            with smtplib.SMTP("127.0.0.1", self.submission, timeout=5) as client:
                client.noop()
            return self.get("/healthz").status == 200
        except (OSError, smtplib.SMTPException):
            return False

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(60)
        self.process = None
        return status

    def children(self) -> list[int]:
        """Return the process ids of the workers and the keeper."""
        assert self.process is not None
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """Kill the whole process group with SIGKILL, as a power switch would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None

    def close(self) -> None:
        """End whatever still runs."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.kill()

    # the marketing tool

    def smtp(self, login: str | None = "news", *, helo: str = "tool.example.net") -> smtplib.SMTP:
        """Return a connection to the submission port, logged in."""
        client = smtplib.SMTP("127.0.0.1", self.submission, local_hostname=helo, timeout=30)
        client.ehlo()
        if login:
            client.login(login, self.passwords[login])
        return client

    def submit(
        self,
        message: bytes,
        recipients: Sequence[str],
        *,
        login: str = "news",
        sender: str = "letters@news.example.com",
    ) -> dict[str, tuple[int, str]]:
        """Submit one message; return the reply to each RCPT that was refused and, under "", the reply to the final dot.

        Where nobody was accepted there is no final dot, and no "".
        """
        with self.smtp(login) as client:
            return transact(client, message, recipients, sender)

    def outcome(self, reader: str) -> str:
        """Submit a newsletter to one reader; return "sent", or the slug of its refusal."""
        (reply,) = self.submit(newsletter(reader), [reader]).values()
        return outcome_of(*reply)

    # the recipient

    def get(self, path: str, **headers: str) -> Answer:
        return self.http("GET", path, None, headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.http("POST", path, body, headers)

    def http(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        site = "https://localhost" if self.site_ca else "http://127.0.0.1"
        return fetch(f"{site}:{self.site}{path}", method, body, headers, self.site_ca)

    def one_click(self, token: str) -> Answer:
        """POST as RFC 8058 §8.1 shows it."""
        return self.post(
            f"/u/{token}", b"List-Unsubscribe=One-Click", **{"Content-Type": "application/x-www-form-urlencoded"}
        )

    def say(self, request: bytes) -> Answer:
        """Write a request to the site octet for octet, and return the answer; it must close the connection."""
        with socket.create_connection(("127.0.0.1", self.site), timeout=20) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return Answer(response.status, response.headers, response.read())


def transact(
    client: smtplib.SMTP, message: bytes, recipients: Sequence[str], sender: str
) -> dict[str, tuple[int, str]]:
    code, text = client.mail(sender)
    if code != 250:
        client.rset()
        return {"MAIL": (code, text.decode())}
    replies = {}
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        if code != 250:
            replies[recipient] = (code, text.decode())
    if len(replies) < len(recipients):
        code, text = client.data(message)
        replies[""] = (code, text.decode())
    return replies


def outcome_of(code: int, text: str) -> str:
    """Return what the reply to a message amounts to: "sent", or the slug of the refusal."""
    return "sent" if code == 250 else text.split()[1].rstrip(":")


class Answer:
    """An HTTP answer; redirects are not followed, cookies are not kept."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    ca: Path | None = None,
) -> Answer:
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)
    tls = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))] if ca else []
    opener = urllib.request.build_opener(_NoRedirect, *tls)
    try:
        with opener.open(request, timeout=20) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


class Program:
    """A program that uses the HTTP API, with a token."""

    def __init__(self, house: Gateway, token: str) -> None:
        self.base = f"http://127.0.0.1:{house.console}/api/v1"
        self.token = token

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        told = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        return fetch(self.base + path, method, body, told)

    def post(self, path: str, document: Any, **headers: str) -> Answer:
        return self.call("POST", path, json.dumps(document).encode(), **headers)

    def get(self, path: str, **query: str) -> Any:
        answer = self.call("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)
        assert answer.status == 200, answer.text
        return json.loads(answer.text)


def newsletter(
    to: str = "reader@example.org", *, sender: str = "letters@news.example.com", subject: str = "News"
) -> bytes:
    """Return a small newsletter of two alternatives, CRLF lines."""
    text = f"""\
        From: Example Letters <{sender}>
        To: {to}
        Subject: {subject}
        Date: Sun, 22 Nov 2026 10:00:00 +0000
        Message-ID: <{time.monotonic_ns()}@tool.example.net>
        MIME-Version: 1.0
        Content-Type: multipart/alternative; boundary="cut"

        --cut
        Content-Type: text/plain; charset=utf-8

        Hello, here is what is new.

        --cut
        Content-Type: text/html; charset=utf-8

        <html><body><p>Hello, here is what is <b>new</b>.</p></body></html>

        --cut--
        """
    return textwrap.dedent(text).replace("\n", "\r\n").encode()


def invoice(to: str = "reader@example.org") -> bytes:
    text = f"""\
        From: Billing <billing@example.com>
        To: {to}
        Subject: Your invoice 4711
        Date: Sun, 22 Nov 2026 10:00:00 +0000
        Message-ID: <{time.monotonic_ns()}@shop.example.net>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=utf-8

        Thank you. The amount is 10.00.
        """
    return textwrap.dedent(text).replace("\n", "\r\n").encode()


def field_of(message: bytes, name: str) -> list[bytes]:
    """Return each header field of that name as it stands, folds and final CRLF included."""
    header = message.partition(b"\r\n\r\n")[0] + b"\r\n"
    return re.findall(rb"(?im)^%b[ \t]*:(?:.*\r\n)(?:[ \t].*\r\n)*" % re.escape(name.encode()), header)


def link_of(message: bytes) -> str:
    """Return the https link of the one List-Unsubscribe field."""
    (field,) = field_of(message, "List-Unsubscribe")
    (link,) = re.findall(rb"<(https:[^<>]+)>", field)
    return str(link.decode("ascii"))


def token_of(message: bytes) -> str:
    """Return the token at the end of the unsubscribe link."""
    return link_of(message).rpartition("/")[2]
