"""The whole story between real programs: swaks and nodemailer submit, Postfix takes, Chromium clicks, mailauth judges.

Nothing is played here: the newsletters are as tools compose them, the copies are read from Maildirs, and the page is
opened by the link that stands in the mail, over TLS.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.faketime import shifted
from tests.gateway_under_test import TOPIC, Gateway, eventually, field_of, invoice, link_of, token_of
from tests.judges import dissenters, three_judges
from tests.peers.postfix import DOMAIN, Postfix, why_not

HERE = Path(__file__).parent
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SENDER = "letters@news.example.com"
SUBJECT = "Drafting 4.2 is here – tables, tracing and a calmer toolbar"
HTML = (HERE / "newsletter.html").read_text("utf-8")
TEXT = (HERE / "newsletter.txt").read_text("utf-8")
PIXELS = {
    "logo": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "hero": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
}
IMAGES = {f"{name}@news.example.com": content for name, content in PIXELS.items()}
DECISION = re.compile(r"\(decision ([0-9A-Z]{26}), see ")

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "Postfix is here")


def need(command: str, package: str) -> None:
    if not shutil.which(command):
        pytest.skip(f"{command} is not installed (Debian package {package})")


# -- the tools


@dataclass(frozen=True)
class Sent:
    """What a tool was answered: each refusal at RCPT, and the reply to the final dot, "" where there was none."""

    refused: Mapping[str, str]
    reply: str


Tool = Callable[[Gateway, Sequence[str]], Sent]


def swaks(gateway: Gateway, to: Sequence[str]) -> Sent:
    """Have swaks submit what Python's library composed, with STARTTLS and AUTH PLAIN."""
    need("swaks", "swaks")
    command = ["swaks", "--server", "127.0.0.1", "--port", str(gateway.submission), "--helo", "tool.example.net"]
    command += ["--tls", "--auth", "PLAIN", "--auth-user", "news", "--auth-password", gateway.passwords["news"]]
    command += ["--from", SENDER, "--to", ",".join(to), "--data", "-"]
    done = subprocess.run(command, input=composed(), capture_output=True, timeout=60)
    said = done.stdout.decode()
    assert "TLS started with cipher" in said and "235 2.7.0" in said, said + done.stderr.decode()
    answers = re.findall(r"(?m)^ ~> RCPT TO:<(\S+)>\n<~\S? +(\d{3} .*)$", said)
    assert [address for address, _ in answers] == list(to), said
    last = re.search(r"(?m)^ ~> \.\n<~\S? +(.*)$", said)
    refused = {address: answer for address, answer in answers if not answer.startswith("250")}
    return Sent(refused, last[1] if last else "")


def composed() -> bytes:
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = f"Example Letters <{SENDER}>"
    message["To"] = "Our readers <readers@news.example.com>"
    message["Subject"] = SUBJECT
    message["X-Campaign"] = "drafting-4-2"
    message.set_content(TEXT, cte="quoted-printable")
    message.add_alternative(HTML, subtype="html", cte="quoted-printable")
    for cid, content in IMAGES.items():
        message.get_payload()[1].add_related(base64.b64decode(content), "image", "png", cid=f"<{cid}>")
    return message.as_bytes()


def nodemailer(gateway: Gateway, to: Sequence[str]) -> Sent:
    """Have nodemailer compose and submit, with STARTTLS, a verified certificate and AUTH."""
    need("node", "nodejs")
    if not (HERE / "node_modules" / "nodemailer").is_dir():
        pytest.skip("npm nodemailer is not installed (tests/peers)")
    order = {"port": gateway.submission, "ca": str(gateway.folder / "server.pem"), "user": "news"}
    order |= {"password": gateway.passwords["news"], "from": SENDER, "to": list(to), "subject": SUBJECT}
    order |= {"html": HTML, "text": TEXT, "images": IMAGES}
    command = ["node", str(HERE / "send_nodemailer.mjs")]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Sent(told["refused"], told["reply"])


TOOLS = pytest.mark.parametrize("tool", [swaks, nodemailer])


# -- the street: one gateway, one smarthost, and people


WAYS_OUT = ["chromium", "one-click", "mailto", "subject"]
OPTED_IN = ["swaks-in", "nodemailer-in", "swaks-out", "nodemailer-out", *[f"by-{way}" for way in WAYS_OUT]]
NEVER_ASKED = ["swaks-never", "nodemailer-never", "explained", "irregular"]


SITE = """
[site]
listen = ["127.0.0.1:{}"]
public_url = "https://mail.example.com"
tls_certificate = "server.pem"
tls_key = "server.key"
"""


def address(name: str) -> str:
    return f"{name}@{DOMAIN}"


@dataclass(frozen=True)
class Street:
    """The gateway, and the Postfix that takes its mail."""

    gateway: Gateway
    postfix: Postfix

    def is_quiet(self) -> bool:
        """True once neither the gateway nor Postfix has anything left to pass on."""
        return self.gateway.json("queue", "list") == [] and self.postfix.is_idle()


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    """A running gateway whose site speaks TLS, before a running Postfix."""
    with tempfile.TemporaryDirectory(prefix="assent-peers-") as folder, ExitStack() as ending:
        Path(folder).chmod(0o755)
        postfix = Postfix(Path(folder) / "postfix", [*OPTED_IN, *NEVER_ASKED]).start()
        ending.callback(postfix.stop)
        gateway = Gateway(Path(folder) / "house", postfix.url, workers=2).prepare()
        ending.callback(gateway.close)
        gateway.write_config(site=SITE.format(gateway.site))
        gateway.site_ca = gateway.folder / "server.pem"
        gateway.opt_in(*map(address, OPTED_IN))
        yield Street(gateway.start(), postfix)


# -- the tests


@pytest.mark.req("DKIM-01")
@TOOLS
def test_of_three_recipients_only_the_one_who_opted_in_gets_a_signed_copy(
    street: Street, tool: Tool, tmp_path: Path
) -> None:
    people = [address(f"{tool.__name__}-{what}") for what in ("in", "never", "out")]
    opted_in, never_asked, opted_out = people
    told = ("--scope", "topic", "--topic", TOPIC, "--reason", "unsubscribed")
    street.gateway.run("suppressions", "add", opted_out, *told)
    sent = tool(street.gateway, people)
    assert sent.refused.keys() == {never_asked, opted_out}
    assert sent.refused[never_asked].startswith("550 5.7.1 no-consent: ")
    assert sent.refused[opted_out].startswith("550 5.7.1 unsubscribed: ")
    assert sent.reply.startswith("250 2.0.0 queued as ")
    (copy,) = street.postfix.wait_for(opted_in)
    eventually(street.is_quiet)
    assert street.postfix.mailboxes().keys() & set(people) == {opted_in}
    assert_signed(street.gateway, copy, tmp_path)
    assert_whole(copy)


def assert_signed(gateway: Gateway, copy: bytes, scratch: Path) -> None:
    """Have three judges look at a delivered copy, by the record that `assent dkim dns` prints."""
    records = {one["name"]: one["record"] for one in gateway.json("dkim", "dns")}
    assert dissenters(["copy"], three_judges([copy], records, scratch)) == {}
    (signature,) = field_of(copy, "DKIM-Signature")
    (signed,) = re.findall(rb";h=([^;]+);", re.sub(rb"\s+", b"", signature))
    assert {b"from", b"list-unsubscribe", b"list-unsubscribe-post"} <= set(signed.split(b":"))


def assert_whole(copy: bytes) -> None:
    """Fail if a reader would miss anything of what the tool composed."""
    message = message_from_bytes(copy, policy=policy.default)
    assert message["Subject"] == SUBJECT
    html, text = shown(message, "html"), shown(message, "plain")
    footer = re.compile(r'(?s)\n<div (?:lang="[a-z-]+" )?style="display:block;clear:both.*?</div>\n')
    assert footer.sub("", html, count=1).strip() == HTML.strip()
    assert link_of(copy) in footer.search(html)[0]
    assert text.startswith(TEXT)
    assert text.endswith(f"\nUnsubscribe: {link_of(copy)}\n")
    images = [part.get_payload(decode=True) for part in message.walk() if part.get_content_maintype() == "image"]
    assert images == [base64.b64decode(content) for content in IMAGES.values()]


def shown(message: EmailMessage, kind: str) -> str:
    part = message.get_body([kind])
    assert part
    return str(part.get_content()).replace("\r\n", "\n")


@pytest.mark.req("UNS-03", "UNS-17")
@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_stops_the_next_newsletter_and_no_invoice(street: Street, way: str) -> None:
    tool = nodemailer if way in ("chromium", "mailto") else swaks
    reader = address(f"by-{way}")
    assert tool(street.gateway, [reader]).refused == {}
    (copy,) = street.postfix.wait_for(reader)
    {"chromium": click, "one-click": one_click, "mailto": write_to_mailto, "subject": write_subject}[way](street, copy)
    sent = tool(street.gateway, [reader])
    assert (list(sent.refused), sent.reply) == ([reader], "")
    assert sent.refused[reader].startswith("550 5.7.1 unsubscribed: ")
    bill = street.gateway.submit(invoice(reader), [reader], login="shop", sender="billing@example.com")
    assert bill[""][0] == 250
    _, second = street.postfix.wait_for(reader, 2)
    assert b"\r\nSubject: Your invoice 4711\r\n" in second
    eventually(street.is_quiet)
    assert len(street.postfix.mailboxes()[reader]) == 2


def click(street: Street, copy: bytes) -> None:
    """Open the mail in a browser, follow its visible link over TLS, and press the one button."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright's Python package is not installed")
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed (Debian package chromium)")
    mail = shown(message_from_bytes(copy, policy=policy.default), "html")
    here = f"--host-resolver-rules=MAP mail.example.com 127.0.0.1:{street.gateway.site}"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=[*CHROMIUM_FLAGS, here])
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_content(mail, wait_until="domcontentloaded")
        page.get_by_role("link", name="Unsubscribe", exact=True).click()
        page.get_by_role("heading", name="Unsubscribe from Product announcements").wait_for()
        assert page.url == link_of(copy)
        page.get_by_role("button", name="Unsubscribe", exact=True).click()
        page.get_by_role("heading", name="You are unsubscribed").wait_for()
        browser.close()


def one_click(street: Street, copy: bytes) -> None:
    assert street.gateway.one_click(token_of(copy)).status == 200


def write_to_mailto(street: Street, copy: bytes) -> None:
    (field,) = field_of(copy, "List-Unsubscribe")
    (mailto,) = re.findall(rb"<(mailto:[^<>]+)>", field)
    parts = urlsplit(mailto.decode())
    mail_to(street, unquote(parts.path), parts.query.removeprefix("subject="))


def write_subject(street: Street, copy: bytes) -> None:
    mail_to(street, "unsubscribe@bounce.example.com", f"Re: please stop {token_of(copy)}")


def mail_to(street: Street, to: str, subject: str) -> None:
    """Send what a mailbox provider sends to a mailto link: from anybody, with hardly anything in it."""
    with smtplib.SMTP("127.0.0.1", street.gateway.feedback, timeout=30) as client:
        text = f"From: someone@example.net\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n"
        assert client.sendmail("someone@example.net", [to], text) == {}


# -- why


def explained(gateway: Gateway, decision: str) -> dict[str, Any]:
    """Return the one line that `assent explain` gives for a refusal; it may be on its way to the disk for a second."""
    done = eventually(lambda: (one := gateway.run("--json", "explain", decision, check=False)).returncode == 0 and one)
    (line,) = json.loads(done.stdout)
    return dict(line)


def test_the_decision_in_a_refusal_is_explained_now_and_a_day_later(street: Street) -> None:
    gateway, nobody = street.gateway, address("explained")
    match = DECISION.search(swaks(gateway, [nobody]).refused[nobody])
    assert match
    told = explained(gateway, match[1])
    assert {"kind": "door", "action": "refuse", "reason": "no-consent", "stream": "newsletter"}.items() <= told.items()
    assert told["sentence"] == "the recipient has not opted in to this topic"
    gateway.environment = shifted("+1d")
    try:
        now = json.loads(gateway.run("--json", "explain", nobody, "--topic", TOPIC, check=False).stdout)["at"]
        assert datetime.fromisoformat(now) > datetime.now(UTC) + timedelta(hours=23)
        assert explained(gateway, match[1]) == told
        assert told["sentence"] in gateway.run("explain", match[1]).stdout
    finally:
        gateway.environment = {}


@pytest.mark.req("HDR-07", "DKIM-10")
def test_a_signature_outlives_a_server_that_ends_the_header_at_what_is_no_field(street: Street, tmp_path: Path) -> None:
    reader, whole = address("irregular"), invoice(address("irregular"))
    irregular = {
        "no blank line": whole.replace(b"\r\n\r\nThank", b"\r\nThank"),
        "a mailbox file's line": b"From billing@example.com  Sun Nov 22 10:00:00 2026\r\n" + whole,
        "a space before a colon": whole.replace(b"Subject:", b"Subject :"),
    }
    for content in irregular.values():
        said = street.gateway.submit(content, [reader], login="shop", sender="billing@example.com")
        assert said[""][0] == 250, said
    copies = street.postfix.wait_for(reader, len(irregular))
    records = {one["name"]: one["record"] for one in street.gateway.json("dkim", "dns")}
    assert dissenters(irregular, three_judges(copies, records, tmp_path)) == {}
    assert all(copy.endswith(whole) for copy in copies)
