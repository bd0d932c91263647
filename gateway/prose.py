"""What a reader sees of a message in words: its subject and the text of the parts that are shown, decoded.

The one rule: nothing here raises and nothing here goes back into a message, so a charset that is not understood costs
letters, not mail. What the words amount to is for whoever asks.
"""

from __future__ import annotations

import binascii
import html
import quopri
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from gateway.headers import HeaderBlock
from gateway.mime import Part, parse, shown

_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")


def subject_of(block: HeaderBlock) -> str:
    """Return the subject as it is shown (RFC 2047)."""
    field = block.first("subject")
    text = field.value.decode("utf-8", "replace") if field else ""
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text


def texts_of(message: bytes, block: HeaderBlock) -> list[str]:
    """Return the text of each part that is shown, in order, without the marks of HTML."""
    return [_text(part, message[part.start : part.end]) for part in shown(parse(message, block))]


def _text(part: Part, body: bytes) -> str:
    text = _decoded(part, body)
    if part.content_type == "text/html":
        text = html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", text)))
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def _decoded(part: Part, body: bytes) -> str:
    if part.encoding == "quoted-printable":
        body = quopri.decodestring(body)
    elif part.encoding == "base64":
        try:
            body = binascii.a2b_base64(body)
        except binascii.Error:
            body = b""
    try:
        return body.decode(part.parameters.get("charset", "utf-8"), "replace")
    except LookupError:
        return body.decode("utf-8", "replace")
