"""`assent demo`: the whole story in a scratch folder, with a real server, real SMTP and real HTTPS.

The rule: a step came out only if the wire said so. Nothing here looks into the program; it is driven as an operator, a
marketing tool and a recipient would, and each step shows the words that it was answered with.
"""

from __future__ import annotations

import json
import re
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import dkim
from rich.console import Console
from rich.text import Text

from gateway.cli import assent
from gateway.cli.output import Desk, pass_desk
from gateway.cli.setup import FIRST_PORTS, write_first_config

T = TypeVar("T")

ANN = "ann@example.net"
TOPIC = "product-announcements"
NEWS, BILLING = "news@example.com", "billing@example.com"
ONE_CLICK = b"List-Unsubscribe=One-Click"
_PATIENCE_SECONDS = 20.0


@assent.command()
@click.option("--keep", is_flag=True, help="Leave the scratch folder for a look around.")
@pass_desk
def demo(desk: Desk, keep: bool) -> None:
    """Play the whole story in a scratch folder; exit 0 only if every step came out."""
    folder = Path(tempfile.mkdtemp(prefix="assent-demo-"))
    story = Story(folder)
    try:
        came_out = _play(story, desk)
    finally:
        story.kill()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep and not desk.as_json:
        click.echo(f"\nkept: {folder}\nassent --config {story.config} serve")
    if not came_out:
        raise SystemExit(1)


class Unexpected(Exception):
    """A step did not come out; says what happened instead."""


def _play(story: Story, desk: Desk) -> bool:
    """Take the steps in order until one does not come out; return whether all did."""
    told = []
    for title, step in STEPS:
        ok, words = _taken(story, step)
        told.append({"step": title, "ok": ok, "words": words})
        if not desk.as_json:
            _show(title, ok, words)
        if not ok:
            break
    if desk.as_json:
        desk.list(told, (), "")
    return all(one["ok"] for one in told)


def _taken(story: Story, step: Callable[[Story], str]) -> tuple[bool, str]:
    try:
        return True, step(story)
    except (Unexpected, smtplib.SMTPException, HTTPException, OSError, subprocess.SubprocessError) as error:
        return False, str(error) or type(error).__name__


def _show(title: str, ok: bool, words: str) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text("✓ " if ok else "✗ ", "green" if ok else "bold red") + Text(title))
    for line in words.splitlines():
        console.print(Text(f"    {line}", "bright_black" if ok else "red"))


class Story:
    """One installation in a folder of its own, and the people who meet it; its steps build on one another."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self._folder = folder
        self._log = folder / "serve.log"
        self._outbox = folder / "var" / "outbox" / "new"
        self._ports: dict[str, int] = {}
        self._passwords: dict[str, str] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._seen: set[Path] = set()
        self._decision = self._link = ""
        self._copy = b""

    # the operator

    def set_up(self) -> str:
        self._ports = write_first_config(self.config, dict.fromkeys(FIRST_PORTS, 0))
        told = self._json("init")
        self._passwords = {login["name"]: login["password"] for login in told["logins"]}
        return f"{len(told['made']) + 1} files made, logins {' and '.join(self._passwords)}"

    def start(self) -> str:
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(self._command("serve"), stdout=log, stderr=subprocess.STDOUT)
        return _until(self._greeting, "the server does not answer")

    def explain_refusal(self) -> str:
        lines = _until(lambda: self._json_or_none("explain", self._decision), "the decision is not on record yet")
        _expect(lines[0]["reason"] == "no-consent", str(lines[0]))
        return f"{lines[0]['reason']}: {lines[0]['sentence']} (rules {lines[0]['rules']})"

    def record_opt_in(self) -> str:
        notice = self._folder / "notice.txt"
        notice.write_text("Yes, mail me product announcements. I can stop this at any time.\n")
        at = ("--url", "https://example.com/newsletter", "--control", "unticked", "--from", f"{datetime.now(UTC):%F}")
        self._run("notices", "add", "footer-form", "--topic", TOPIC, "--text", str(notice), *at)
        proof = ("--topic", TOPIC, "--basis", "express", "--notice", "footer-form")
        return self._run("consent", "record", ANN, *proof)

    def verify_ledger(self) -> str:
        return self._run("ledger", "verify")

    def stop(self) -> str:
        assert self._server is not None
        self._server.terminate()
        status = self._server.wait(_PATIENCE_SECONDS)
        _expect(status == 0, f"exit status {status}\n{self._log_tail()}")
        return f"exit status {status}"

    def kill(self) -> None:
        """End the server if it still runs, whatever has happened."""
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()

    # the marketing tool and the shop

    def be_refused_without_opt_in(self) -> str:
        code, words = self._rcpt()
        _expect(code == 550 and words.startswith("5.7.1 no-consent:"), f"{code} {words}")
        self._decision = _found(r"decision ([0-9A-Z]{26})", words)
        return f"RCPT TO:<{ANN}>\n{code} {words}"

    def send_newsletter(self) -> str:
        words = self._submit("marketing", NEWS, "What is new", "Hello Ann, there is something new.")
        self._copy = self._next_in_outbox()
        return words

    def be_refused_after_click(self) -> str:
        code, words = self._rcpt()
        _expect(code == 550 and words.startswith("5.7.1 unsubscribed:"), f"{code} {words}")
        return f"RCPT TO:<{ANN}>\n{code} {words}"

    def send_invoice(self) -> str:
        words = self._submit("shop", BILLING, "Your invoice 4711", "The amount is 10.00.")
        invoice = _read(self._next_in_outbox())
        _expect("List-Unsubscribe" not in invoice, "the invoice carries a List-Unsubscribe header")
        return f"{words}\nrelayed, without unsubscribe headers"

    # the recipient and her provider

    def find_link(self) -> str:
        message = _read(self._copy)
        told = [f"{name}: {' '.join(str(message[name]).split())}" for name in _LIST_HEADERS if message[name]]
        _expect(len(told) == len(_LIST_HEADERS), f"missing of {', '.join(_LIST_HEADERS)}: {told}")
        _expect(message["List-Unsubscribe-Post"] == ONE_CLICK.decode("ascii"), told[1])
        self._link = _found(r"<(https://[^>]+)>", told[0])
        body = message.get_body(("plain", "html"))
        _expect(body is not None and self._link in body.get_content(), "the link is not visible in the text")
        return "\n".join([*told, "and the same link is visible in the text"])

    def verify_signature(self) -> str:
        records = {f"{one['name']}.": one["record"] for one in self._json("dkim", "dns")}
        valid = dkim.DKIM(self._copy).verify(dnsfunc=lambda name, timeout=0: records.get(name.decode(), "").encode())
        _expect(bool(valid), "the signature does not verify")
        signature = "".join(str(_read(self._copy)["DKIM-Signature"]).split())
        names = _found(r";h=([^;]+);", signature).split(":")
        _expect({"list-unsubscribe", "list-unsubscribe-post"} <= set(names), f"signed are only {names}")
        where = " ".join(_found(rf"({tag}=[^;]+)", signature) for tag in (";a", ";d", ";s"))
        return f"{where.replace(';', '')}: valid, and it covers the link"

    def look_at_page(self) -> str:
        status, words = self._http("GET")
        _expect(status == 200, words)
        code, reply = self._rcpt()
        _expect(code == 250, f"{code} {reply}")
        return f"GET {urlsplit(self._link).path}\n{words}\nand still, RCPT TO:<{ANN}>\n{code} {reply}"

    def click_once(self) -> str:
        status, words = self._http("POST", ONE_CLICK)
        _expect(status == 200, words)
        return f"POST {urlsplit(self._link).path}\n{words}"

    # how each of them does it

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", "--config", str(self.config), *arguments]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
        _expect(done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run("--json", *arguments))

    def _json_or_none(self, *arguments: str) -> Any:
        try:
            return self._json(*arguments)
        except Unexpected:
            return None

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._folder / "var" / "tls" / "ca.pem")

    def _greeting(self) -> str:
        """Return the first words of submission once the site answers too; "" while they do not."""
        assert self._server is not None
        _expect(self._server.poll() is None, f"the server has ended\n{self._log_tail()}")
        try:
            with smtplib.SMTP() as client:
                code, words = client.connect("localhost", self._ports["submission"])
            self._request("GET", "/healthz")
        except (OSError, smtplib.SMTPException, HTTPException):
            return ""
        return f"{code} {words.decode('ascii')}"

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-12:])

    def _client(self, login: str) -> smtplib.SMTP:
        client = smtplib.SMTP("localhost", self._ports["submission"], timeout=_PATIENCE_SECONDS)
        client.starttls(context=self._tls())
        client.login(login, self._passwords[login])
        return client

    def _rcpt(self) -> tuple[int, str]:
        """Ask whether a newsletter may go to Ann, and leave it at that."""
        with self._client("marketing") as client:
            client.mail(NEWS)
            code, words = client.rcpt(ANN)
        return code, words.decode("utf-8")

    def _submit(self, login: str, sender: str, subject: str, text: str) -> str:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, ANN, subject
        message.set_content(text)
        with self._client(login) as client:
            client.mail(sender)
            code, words = client.rcpt(ANN)
            if code == 250:
                code, words = client.data(message.as_bytes(policy=SMTP))
        _expect(code == 250, f"{code} {words.decode()}")
        return f"{code} {words.decode()}"

    def _next_in_outbox(self) -> bytes:
        """Return what the maildir has got since the last look; waits for it."""
        (path,) = _until(lambda: set(self._outbox.glob("*")) - self._seen, "nothing was relayed")
        self._seen.add(path)
        return path.read_bytes()

    def _http(self, method: str, body: bytes | None = None) -> tuple[int, str]:
        return self._request(method, urlsplit(self._link).path, body)

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection = HTTPSConnection("localhost", self._ports["site"], context=self._tls(), timeout=_PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        return answer.status, f"HTTP/1.1 {answer.status} {answer.reason}"


_LIST_HEADERS = ("List-Unsubscribe", "List-Unsubscribe-Post", "List-Id")

STEPS: tuple[tuple[str, Callable[[Story], str]], ...] = (
    ("assent init makes a configuration, keys, certificates and two logins", Story.set_up),
    ("assent serve takes mail", Story.start),
    ("a newsletter to Ann, who never asked for it, is refused", Story.be_refused_without_opt_in),
    ("assent explain says why", Story.explain_refusal),
    ("Ann opts in, and the proof is recorded", Story.record_opt_in),
    ("now the newsletter is taken and relayed", Story.send_newsletter),
    ("it carries an unsubscribe link of her own", Story.find_link),
    ("its DKIM signature is valid against the record that assent dkim dns prints", Story.verify_signature),
    ("looking at the link changes nothing", Story.look_at_page),
    ("one click unsubscribes her", Story.click_once),
    ("the next newsletter is refused", Story.be_refused_after_click),
    ("her invoice still arrives", Story.send_invoice),
    ("the ledger and the decision log are whole", Story.verify_ledger),
    ("the server finishes what it is at, and stops", Story.stop),
)


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Unexpected(otherwise)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    _expect(found is not None, f"no {pattern} in: {text}")
    return found[1] if found else ""


def _read(message: bytes) -> EmailMessage:
    read = message_from_bytes(message, policy=default)
    assert isinstance(read, EmailMessage)
    return read


def _until(answer: Callable[[], T], otherwise: str) -> T:
    """Return the first answer that is something; `Unexpected` where there is none for too long."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := answer()):
        _expect(time.monotonic() < deadline, otherwise)
        time.sleep(0.05)
    return found
