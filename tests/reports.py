"""Reports (RFC 3464, RFC 6522, RFC 6533) as a submitter's mail program reads them, by the standard library and by hand.

Python's parser knows message/delivery-status, and nothing of its internationalised sister; so the parts are cut and
decoded here, and the parser says whether the whole is sound.
"""

from __future__ import annotations

import email
import email.policy
import quopri
from dataclasses import dataclass
from email.message import EmailMessage


@dataclass(frozen=True)
class Report:
    """A report: its header and sentences, the fields about the message and each recipient, what it gives back."""

    header: EmailMessage
    text: str
    status_kind: str
    about: dict[str, str]
    recipients: list[dict[str, str]]
    returned_kind: str
    returned: bytes

    def of(self, recipient: str) -> dict[str, str]:
        """Return the fields about one recipient, who must be there once."""
        (fields,) = [one for one in self.recipients if one["Final-Recipient"].partition("; ")[2] == recipient]
        return fields

    @property
    def named(self) -> list[str]:
        return [one["Final-Recipient"].partition("; ")[2] for one in self.recipients]


def is_report(content: bytes) -> bool:
    return b"report-type=delivery-status" in content.partition(b"\r\n\r\n")[0]


def read_report(content: bytes) -> Report:
    """Read a report of three parts; fails where it is malformed."""
    header = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert isinstance(header, EmailMessage)
    assert not header.defects and not [one for part in header.walk() for one in part.defects]
    assert header.get_content_type() == "multipart/report"
    assert header.get_param("report-type") == "delivery-status"
    boundary = str(header.get_boundary()).encode()
    preamble, text, status, returned, epilogue = content.partition(b"\r\n\r\n")[2].split(b"--" + boundary)
    assert (preamble, epilogue) == (b"", b"--\r\n")
    (text_kind, words), (status_kind, fields), (returned_kind, back) = map(_part, (text, status, returned))
    assert text_kind == "text/plain"
    first, *rest = [_fields(group) for group in fields.decode().removesuffix("\r\n").split("\r\n\r\n")]
    return Report(header, words.decode(), status_kind, first, rest, returned_kind, back)


def _part(raw: bytes) -> tuple[str, bytes]:
    """Return a part's media type and its content, decoded."""
    head, _, content = raw.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
    header = email.message_from_bytes(head, policy=email.policy.SMTP)
    encoding = str(header.get("Content-Transfer-Encoding", "7bit"))
    assert encoding in ("7bit", "8bit", "quoted-printable")
    assert encoding == "8bit" or content.isascii()
    return header.get_content_type(), quopri.decodestring(content) if encoding == "quoted-printable" else content


def _fields(group: str) -> dict[str, str]:
    fields = [line.split(": ", 1) for line in group.splitlines()]
    assert len({name for name, _ in fields}) == len(fields), group
    return dict(fields)
