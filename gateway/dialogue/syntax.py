"""The grammar of commands and replies: lines, paths, parameters (RFC 5321 §4.1, §4.5.3.1), each read strictly.

What does not fit raises `Refused` with the reply that it is owed; nothing is guessed and nothing normalised, so that
the address that is checked is the address that was given.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Final

from gateway.address import PATH_LIMIT, Address
from gateway.errors import Malformed
from gateway.model import Reply

# RFC 5321 §4.5.3.1.4, and what SIZE, 8BITMIME, SMTPUTF8, DSN and AUTH add to it; RFC 4954 §4 for AUTH's own lines.
LINE_LIMIT: Final = 512
LONGEST_LINE: Final = 12288
LINE_LIMITS: Final = {
    b"MAIL": LINE_LIMIT + 26 + 17 + 10 + 116 + 500,
    b"RCPT": LINE_LIMIT + 500,
    b"AUTH": LONGEST_LINE,
}
_LONGEST_REPLY_TEXT: Final = 480

HOST_NAME = re.compile(r"[!#-'*+\-./0-:=?A-\[\]-~]{1,255}")
_QUOTED_PATH = re.compile(r'<("(?:[^"\\]|\\.)*"@[^>]*)>')
# Printable characters as xtext (RFC 3461 §4): what it decodes to goes into reports, where a control would break out.
_XTEXT = r"(?:[!-*,-<>-~]|\+(?:[2-6][0-9A-F]|7[0-9A-E]))"
_UTF8_XTEXT = rf"(?:{_XTEXT}|\+[89A-F][0-9A-F])"
"""Mail servers write an address beyond ASCII so where its type is not utf-8: UTF-8, octet by octet."""
_CODE_POINT = r"20|2B|3D|5C|[8-9A-F][0-9A-F]|[1-9A-F][0-9A-F]{2}|(?:[1-9A-CEF][0-9A-F]|D[0-7])[0-9A-F]{2}"
_UTF8_TEXT = rf"(?:[!-*,-<>-\[\]-~]|[^\x00-\x7f]|\\x\{{(?:{_CODE_POINT}|(?:[1-9A-F]|10)[0-9A-F]{{4}})\}})"
_NOTIFY = r"(?:SUCCESS|FAILURE|DELAY)"
MAIL_PARAMETERS: Final = {
    "SIZE": re.compile(r"=[0-9]{1,20}"),
    "BODY": re.compile(r"=(?i:7BIT|8BITMIME)"),
    "SMTPUTF8": re.compile(r""),
    "RET": re.compile(r"=(?i:FULL|HDRS)"),
    "ENVID": re.compile(rf"={_XTEXT}{{1,100}}"),
    "AUTH": re.compile(rf"=(?:<>|(?!<){_XTEXT}+@{_XTEXT}+)"),
}
RCPT_PARAMETERS: Final = {
    "NOTIFY": re.compile(rf"=(?i:NEVER|(?!.*\b({_NOTIFY})\b.*\b\1\b){_NOTIFY}(?:,{_NOTIFY}){{0,2}})"),
    "ORCPT": re.compile(rf"=(?:(?i:utf-8);{_UTF8_TEXT}{{1,500}}|(?!(?i:utf-8);)[A-Za-z0-9-]+;{_UTF8_XTEXT}{{1,500}})"),
}


class Refused(Malformed):
    """The line is refused with this reply; it `counts` against the budget unless honest clients do the same."""

    def __init__(self, reply: Reply, *, counts: bool = True) -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.counts = counts


def text_of(line: bytes, limit: int) -> str:
    """Return a line's text without its end, spaces at its end forgiven."""
    if not line or len(line) > limit:
        raise Refused(Reply(500, "5.5.2", "the line is too long"))
    if not line.endswith(b"\r\n"):
        raise Refused(Reply(500, "5.5.2", "a line must end with CRLF"))
    try:
        text = str(line[:-2], "utf-8")
    except UnicodeDecodeError as error:
        raise Refused(Reply(500, "5.5.2", "the line is not UTF-8")) from error
    if not text.isprintable():
        raise Refused(Reply(500, "5.5.2", "the line has a control character"))
    return text.rstrip(" ")


def need_no(argument: str) -> None:
    if argument:
        raise Refused(Reply(501, "5.5.4", "this command takes no argument"))


def split_path(argument: str, keyword: str, syntax: Reply) -> tuple[str, str]:
    """Split `FROM:<path> parameters` into path and parameters; the angle brackets are required (RFC 5321 §4.1.2)."""
    rest = argument[len(keyword) :].lstrip(" ")
    if argument[: len(keyword)].upper() != keyword or not rest.startswith("<"):
        raise Refused(syntax)
    if quoted := _QUOTED_PATH.match(rest):
        path, rest = quoted[1], rest[quoted.end() :]
    else:
        path, bracket, rest = rest[1:].partition(">")
        if not bracket:
            raise Refused(syntax)
    if rest and not rest.startswith(" "):
        raise Refused(syntax)
    return path, rest


def address(path: str, malformed: str) -> Address:
    """Parse a path strictly; one that is not an address is the list's fault, and no attack."""
    try:
        if path.startswith("@"):
            raise Malformed("source routes are not accepted")
        if len(path.encode("utf-8")) > PATH_LIMIT:
            raise Malformed(f"the address is longer than {PATH_LIMIT} octets")
        return Address.parse(path)
    except Malformed as error:
        raise Refused(Reply(553, malformed, str(error)), counts=False) from error


def parse_parameters(text: str, known: Mapping[str, re.Pattern[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for parameter in text.split():
        keyword, equals, value = parameter.partition("=")
        keyword = keyword.upper()
        if keyword not in known:
            raise Refused(Reply(555, "5.5.4", f"the parameter {keyword[:40]} is not known"))
        if keyword in found or not known[keyword].fullmatch(equals + value):
            raise Refused(Reply(501, "5.5.4", f"the parameter {keyword} is given twice or has a wrong value"))
        found[keyword] = equals + value
    return found


def options_of(parameters: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(keyword + value for keyword, value in parameters.items())


def encoded(reply: Reply) -> bytes:
    """Return a reply's lines: ASCII, each with code and enhanced status, none longer than 512 octets (RFC 2034 §4)."""
    status = reply.enhanced or f"{reply.code // 100}.0.0"
    if len(reply.text) <= _LONGEST_REPLY_TEXT and reply.text.isascii() and reply.text.isprintable():
        return f"{reply.code} {status} {reply.text}\r\n".encode("ascii")
    *lines, last = textwrap.wrap(_ascii(reply.text), _LONGEST_REPLY_TEXT) or [""]
    return "".join(
        [*(f"{reply.code}-{status} {line}\r\n" for line in lines), f"{reply.code} {status} {last}\r\n"]
    ).encode("ascii")


def _ascii(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.encode("ascii", "backslashreplace").decode("ascii")
