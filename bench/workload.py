"""What every peer is given: one newsletter in plain text, one sender, one RSA-2048 key, the readers who opted in.

The one rule: the same bytes and the same key for everybody. Readers are numbered as `smtp-source -N` numbers
them, from 1, so that every message has a recipient of its own and every look-up is a real one.
"""

from __future__ import annotations

import base64
import quopri
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import cycle
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

MESSAGE_SIZE = 4096
PAGE_SIZE = 30_000
NAME = b"Friend"
"""Whom the newsletter in HTML greets, where no name is merged into it."""

STRANGER = "stranger@readers.example"

_TOP = """\
From: Example Software <news@news.example.com>
To: Our readers <readers@news.example.com>
Subject: Version 4.2 is out, and what it changes for you
Date: {date}
Message-ID: <release-4.2@news.example.com>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

"""
_TEXT = "Content-Type: text/plain; charset=us-ascii"
_HTML = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable"
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Version 4.2</title>
<style>body{margin:0} @media (max-width:600px){.wide{width:100%% !important} .side{display:none !important}}</style>
</head><body style="margin:0;background-color:#f4f4f4">
<div style="display:none;max-height:0;overflow:hidden">It opens large projects in half the time.</div>
<h1 style="font-size:22px;text-align:center">Dear Friend,</h1>
<p style="font-size:12px;text-align:center"><a href="{{unsubscribe_url}}" style="color:#666666">Unsubscribe</a></p>
<table class="wide" role="presentation" width="600" align="center" style="background-color:#ffffff">
%s</table>
<p style="font-size:12px;color:#666666">You get this, Friend,
because you asked Example Software for it.
<a href="*|UNSUB|*" style="color:#666666">Choose what you get</a></p>
</body></html>
"""
_ROW = """\
<tr><td class="side" width="120" style="padding:12px 0 12px 24px;vertical-align:top"><a
 href="https://www.example.com/4.2/{number}?utm_source=news&amp;utm_medium=email"><img alt="Part {number}"
 src="https://cdn.example.com/4.2/{number}@2x.png" width="96" height="96" style="display:block;border:0"></a></td>
<td style="padding:12px 24px;font-family:Helvetica,Arial,sans-serif;font-size:16px;line-height:24px;color:#333333">
<h2 style="margin:0 0 8px;font-size:20px"><a href="https://www.example.com/4.2/{number}" style="color:#0b57d0">Part
 {number}</a></h2><p style="margin:0">{sentence} <a href="https://www.example.com/4.2/{number}#more">Read&nbsp;on</a> or
<a href="https://social.example.net/share?u=https%3A%2F%2Fwww.example.com%2F4.2%2F{number}">share it</a>.</p></td></tr>
"""
_SENTENCES = (
    "Version 4.2 is out today, and it opens large projects in half the time.",
    "It keeps its place when the network goes away, and prints what you see.",
    "Every change is described at https://www.example.com/4.2 in plain words.",
    "The update waits in the Help menu and asks before it restarts anything.",
    "Export settings now stand beside the project, where most looked for them.",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """The files and names that the peers and the load generator share."""

    message_file: Path
    key_file: Path
    sink_port: int
    readers: int
    sender: str = "bounces@news.example.com"
    reader_pattern: str = "reader@readers.example"
    domain: str = "news.example.com"
    selector: str = "bench"
    is_named: bool = False

    def reader(self, number: int) -> str:
        """The address of one opted-in reader, numbered from 1."""
        return f"{number}{self.reader_pattern}"

    def all_readers(self) -> list[str]:
        """Every address that opted in."""
        return [self.reader(number) for number in range(1, self.readers + 1)]

    def message(self) -> bytes:
        """The newsletter as it goes on the wire, with CRLF line ends and no dot stuffing needed."""
        return self.message_file.read_bytes().replace(b"\n", b"\r\n")

    def messages(self) -> Callable[[int], bytes]:
        """What makes one reader's message, by the reader's number: for a page that is `named`, each one's own."""
        message = self.message()
        if not self.is_named:
            return lambda number: message
        return lambda number: message.replace(NAME, b"Ann %b" % _letters(number))


def prepare_workload(folder: Path, sink_port: int, readers: int, *, attached: int = 0) -> Workload:
    """Write the newsletter, 4 kB and what is attached, and a fresh RSA-2048 key into `folder`."""
    message_file, key_file = folder / "newsletter.eml", folder / "dkim.pem"
    message_file.write_text(_with_attachment(_newsletter(), attached) if attached else _newsletter(), encoding="ascii")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    key_file.chmod(0o600)
    return Workload(message_file, key_file, sink_port, readers)


def _letters(number: int) -> bytes:
    """A number in letters, since a name has no digits."""
    return bytes(str(number), "ascii").translate(_DIGITS)


_DIGITS = bytes.maketrans(b"0123456789", b"abcdefghij")


def prepare_page(workload: Workload, folder: Path) -> Workload:
    """Write a newsletter as marketing tools make them into `folder`: HTML of `PAGE_SIZE`, for the same readers.

    It has two placeholders for the way out, and lacks the postal address, so that it gets a footer. It greets its
    reader in two places, by a name of each one's own where the workload `is_named`.
    """
    page_file = folder / "page.eml"
    page_file.write_text(_page_message(), encoding="ascii")
    return replace(workload, message_file=page_file)


def _page_message() -> str:
    top = _TOP.format(date=formatdate()).replace(_TEXT, _HTML)
    rows, room = "", PAGE_SIZE - len(_PAGE)
    for number, sentence in enumerate(cycle(_SENTENCES), 1):
        row = _ROW.format(number=number, sentence=sentence)
        if len(rows) + len(row) > room:
            break
        rows += row
    return top + quopri.encodestring((_PAGE % rows).encode()).decode("ascii")


def _newsletter() -> str:
    """As many whole lines as keep the message within `MESSAGE_SIZE` on the wire."""
    top = _TOP.format(date=formatdate())
    room = MESSAGE_SIZE - len(top) - top.count("\n")
    text = ""
    for sentence in cycle(_SENTENCES):
        room -= len(sentence) + 2
        if room < 0:
            break
        text += f"{sentence}\n"
    return top + text


def _with_attachment(newsletter: str, octets: int) -> str:
    """Make the newsletter the first part of two; the second is base64, and that long."""
    header, _, text = newsletter.partition("\n\n")
    kept = [line for line in header.splitlines() if not line.startswith("Content-Type")]
    lines = base64.encodebytes(random.Random(octets).randbytes(octets * 19 // 26)).decode("ascii")
    first = [*kept, 'Content-Type: multipart/mixed; boundary="cut"', "", "--cut", _TEXT, "", text]
    second = ["--cut", "Content-Type: application/pdf", "Content-Transfer-Encoding: base64", "", f"{lines}--cut--", ""]
    return "\n".join([*first, *second])
