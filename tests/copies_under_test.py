"""What the tests of stamping and signing share: real messages, a treatment, keys, and three independent readers.

The readers are not ours: Python's own parser reads what a recipient would see; dkimpy and npm mailauth judge
signatures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any

import dkim
import pytest

from gateway import sign, stamp
from gateway.address import Address
from gateway.headers import split
from gateway.model import Company, Peer

MESSAGES = Path(__file__).parent / "messages"
PEERS = Path(__file__).parent / "peers"
NOW = datetime(2026, 11, 22, 19, 2, tzinfo=UTC)

COMPANY = Company(
    "Müller & Söhne, Inc.", "1 Main Street, Springfield IL 62701, USA", "privacy@example.com", "https://x"
)
LINK = stamp.Link(f"https://mail.example.com/u/{'A' * 49}", f"u-{'a' * 47}@bounce.example.com")
PROMOTION = stamp.Promotion(COMPANY, "Product announcements", "product-announcements.newsletter.example.com")
MESSAGE_ID = "<01J0000000000.1@relay.example.com>"
TRACE = stamp.received(Peer("client.example", "192.0.2.1", "ESMTPSA", "TLSv1.3"), "relay.example.com", "01J", NOW)
ALICE, BOB, CAROL = (Address.parse(f"{name}@example.org") for name in ("alice", "bob", "carol"))

SEALED = frozenset({"smime-signed", "smime-enveloped", "pgp-encrypted", "pgp-inline"})
NAMES = sorted(path.stem for path in MESSAGES.glob("*.eml"))
STAMPABLE = [name for name in NAMES if name not in SEALED]


def message(name: str) -> bytes:
    return (MESSAGES / f"{name}.eml").read_bytes()


def promotional(*recipients: Address, promotion: stamp.Promotion = PROMOTION) -> stamp.Treatment:
    return stamp.Treatment(recipients or (ALICE,), TRACE, NOW, frozenset({"example.com"}), promotion)


def essential(*recipients: Address) -> stamp.Treatment:
    return stamp.Treatment(recipients or (ALICE,), TRACE, NOW, frozenset({"example.com"}))


def draft(content: bytes, treatment: stamp.Treatment) -> stamp.Draft:
    prepared = stamp.prepare(content, split(content), treatment)
    assert isinstance(prepared, stamp.Draft), prepared
    return prepared


def promotional_copy(content: bytes, treatment: stamp.Treatment | None = None, to: Address = ALICE) -> stamp.Stamped:
    return draft(content, treatment or promotional()).copy_for(to, LINK, MESSAGE_ID)


def essential_copy(content: bytes) -> stamp.Stamped:
    return draft(content, essential()).shared_copy(MESSAGE_ID)


def wire(stamped: stamp.Stamped, signature: bytes = b"") -> bytes:
    return b"".join(stamped.segments(signature))


def read(content: bytes) -> EmailMessage:
    """Read a message as a recipient's mail program might."""
    return message_from_bytes(content, _class=EmailMessage, policy=policy.default)


def shown_texts(content: bytes) -> list[str]:
    """Return the decoded text of each text part that is no attachment and not within an attached message."""
    texts, within = list[str](), list[EmailMessage]([read(content)])
    while within:
        part = within.pop(0)
        if part.get_content_type() == "message/rfc822" or part.is_attachment():
            continue
        if part.is_multipart():
            within = [*part.iter_parts(), *within]
        elif part.get_content_maintype() == "text":
            texts.append(part.get_content())
    return texts


@cache
def rsa_key() -> sign.SigningKey:
    return sign.SigningKey.load("example.com", "s1", sign.generate_rsa_key())


def signed(stamped: stamp.Stamped, signer: sign.Signer | None = None) -> bytes:
    signer = signer or sign.Signer([rsa_key()])
    return wire(stamped, signer.sign(stamped.header, sign.body_hash(stamped.body), NOW))


def dns(*keys: sign.SigningKey) -> dict[str, str]:
    return dict(sign.dns_record(key) for key in keys or (rsa_key(),))


def dkimpy_accepts(content: bytes, records: dict[str, str] | None = None, index: int = 0) -> bool:
    known = records if records is not None else dns()

    def answer(name: bytes, timeout: float = 5) -> bytes | None:
        text = known.get(name.decode().rstrip("."))
        return text.encode() if text else None

    try:
        return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=answer))
    except dkim.ValidationError:
        return False


def mailauth_judges(files: Sequence[Path], records: dict[str, str], scratch: Path) -> list[list[dict[str, Any]]]:
    """Return mailauth's results for each file, a list of signatures each; skips where it is not installed."""
    if not shutil.which("node") or not (PEERS / "node_modules" / "mailauth").is_dir():
        pytest.skip("npm mailauth is not installed (tests/peers)")
    keys = scratch / "keys.json"
    keys.write_text(json.dumps(records))
    command = ["node", str(PEERS / "verify_dkim.mjs"), str(keys), *map(str, files)]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return [one["signatures"] for one in json.loads(answer.stdout)]
