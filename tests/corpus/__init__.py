"""Real messages out of other projects' test data, our own, and composed ones, as a tool of ours would submit them.

MANIFEST.tsv names the source and the licence of each real one; `gather.py` brings them anew. The composed ones are
every combination of a charset, a transfer encoding and a structure, written by Python's email package.
"""

from __future__ import annotations

import base64
import csv
import quopri
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.generator import BytesGenerator
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from io import BytesIO
from pathlib import Path

HERE = Path(__file__).parent
SENDER = b"letters@news.example.com"
_FROM = re.compile(rb"(?mi)\Afrom[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*|(?<=\n)from[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
_HEADER = re.compile(rb"(?:(?:[!-9;-~]+[ \t]*:|From )[^\n]*\n(?:[ \t][^\n]*\n)*)*")
_CONTROLS = re.compile(rb"(?mi)^assent-[^\n]*\n(?:[ \t][^\n]*\n)*")
_SINGLETONS = (
    *("from", "to", "cc", "subject", "date", "message-id", "reply-to", "sender", "in-reply-to", "references"),
    *("mime-version", "content-type"),
)


@dataclass(frozen=True)
class Specimen:
    """One message: its name and its octets as they are submitted."""

    name: str
    content: bytes

    @property
    def header(self) -> bytes:
        """What every server takes for the header: fields, and the line that divides the messages of a mailbox file."""
        found = _HEADER.match(self.content)
        return found[0] if found else b""

    @property
    def body(self) -> bytes:
        return self.content.partition(b"\r\n\r\n")[2]

    @property
    def fault(self) -> str:
        """Why no mail server may take it: what an SMTP client cannot have meant, or a field that may stand once."""
        if re.search(rb"\r(?!\n)|(?<!\r)\n|\0", self.content):
            return "octets"
        names = [name.lower().decode() for name in re.findall(rb"(?m)^([!-9;-~]+)[ \t]*:", self.header)]
        return "repeated" if any(names.count(name) > 1 for name in _SINGLETONS) else ""


def specimens() -> list[Specimen]:
    """Return all of them, the real ones first."""
    return [*_real(), *_our_own(), *_composed()]


def _real() -> Iterator[Specimen]:
    with (HERE / "MANIFEST.tsv").open(newline="") as file:
        packages = {row["name"]: row["package"] for row in csv.DictReader(file, delimiter="\t")}
    with tarfile.open(HERE / "messages.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content
            yield Specimen(f"{member.name} of {packages[member.name]}", as_submitted(content.read()))


def _our_own() -> Iterator[Specimen]:
    """Yield the messages of tests/messages, without the labels that name topics of theirs."""
    for path in sorted((HERE.parent / "messages").glob("*.eml")):
        yield Specimen(path.stem, _CONTROLS.sub(b"", path.read_bytes()))


def as_submitted(stored: bytes) -> bytes:
    """Return a file as a client of ours would send it: CRLF where it was stored with LF, and from an author of ours.

    A file that has both kinds of line ends stays as it is.
    """
    content = re.sub(rb"\AFrom [^\n]*\n", b"", stored)
    if b"\r\n" not in content:
        content = content.replace(b"\n", b"\r\n")
    header, blank, body = content.partition(b"\r\n\r\n")
    ours = b"From: Corpus <%b>\r\n" % SENDER
    mended, count = _FROM.subn(ours, header + b"\r\n", count=1)
    return (mended if count else ours + mended) + blank[2:] + body


# composed

_TEXTS = {
    "us-ascii": "Hello, here is what is new.",
    "utf-8": "Grüße — «Привет», 你好, שלום, emoji 🎉.",
    "iso-8859-1": "Grüße, voilà, señor.",
    "iso-8859-15": "Für 10 € im Œuvre.",
    "windows-1252": "“Curly”, 10 €, Grüße.",
    "koi8-r": "Привет, мир.",
    "iso-2022-jp": "こんにちは、世界。",
    "gb18030": "你好，世界。",
}
_ENCODINGS = ("8bit", "quoted-printable", "base64")


def _composed() -> Iterator[Specimen]:
    for charset, text in _TEXTS.items():
        for encoding in _ENCODINGS:
            for kind, message in _structures(text, charset, encoding).items():
                message["From"] = f"Composed <{SENDER.decode()}>"
                message["To"] = "reader@example.org"
                message["Subject"] = f"{kind} in {charset}"
                message["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
                message["Message-ID"] = f"<{kind}.{charset}.{encoding}@tool.example.net>".replace(" ", "-")
                yield Specimen(f"{kind}, {charset}, {encoding}", _octets(message))


def _structures(text: str, charset: str, encoding: str) -> dict[str, MIMEBase]:
    def plain() -> MIMEBase:
        return _text("plain", f"{text}\n\n-- \nExample\n", charset, encoding)

    def html() -> MIMEBase:
        return _text("html", f"<html><body><p>{text}</p></body></html>\n", charset, encoding)

    picture = MIMEImage(bytes(range(256)), "png")
    picture["Content-ID"] = "<picture>"
    return {
        "plain text": plain(),
        "html": html(),
        "alternative": _multipart("alternative", plain(), html()),
        "mixed with a picture": _multipart("mixed", plain(), picture),
        "related in alternative": _multipart("alternative", plain(), _multipart("related", html(), picture)),
        "with a message": _multipart("mixed", html(), MIMEMessage(plain())),
    }


def _text(subtype: str, text: str, charset: str, encoding: str) -> MIMEBase:
    """Return a part whose octets are those of the charset, whatever Python would have chosen."""
    octets = text.encode(charset)
    encoded = {"8bit": octets, "quoted-printable": quopri.encodestring(octets), "base64": base64.encodebytes(octets)}
    part = MIMENonMultipart("text", subtype, charset=charset)
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(encoded[encoding].decode("ascii", "surrogateescape"))
    return part


def _multipart(subtype: str, *parts: MIMEBase) -> MIMEBase:
    whole = MIMEMultipart(subtype, boundary=f"=_{subtype}_cut")
    for part in parts:
        whole.attach(part)
    return whole


def _octets(message: MIMEBase) -> bytes:
    written = BytesIO()
    policy = message.policy.clone(linesep="\r\n", cte_type="8bit")
    BytesGenerator(written, mangle_from_=False, policy=policy).flatten(message)
    return written.getvalue()
