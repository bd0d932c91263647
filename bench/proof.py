"""What a peer really does, seen in its reply to a stranger and in one message that came out of it.

The one rule: the table claims nothing that was not observed here in the same run.
"""

from __future__ import annotations

import email
import smtplib
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass

import dkim
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bench.sink import KeepingSink
from bench.workload import STRANGER, Workload


@dataclass(frozen=True, slots=True)
class Proof:
    """Three things that a gateway must do, each seen or not seen."""

    gates: bool
    signs: bool
    stamps: bool


def observe(workload: Workload, port: int, sink: KeepingSink) -> Proof:
    """Offer a stranger and then one reader's newsletter, and look at what reached the sink."""
    with closing(smtplib.SMTP("127.0.0.1", port, timeout=30)) as client:
        client.ehlo("bench.example.com")
        client.mail(workload.sender)
        code, _ = client.rcpt(STRANGER)
        client.rset()
        client.sendmail(workload.sender, workload.reader(1), workload.message())
    message = sink.first_message()
    return Proof(gates=500 <= code < 600, signs=_signature_verifies(workload, message), stamps=_is_stamped(message))


def _signature_verifies(workload: Workload, message: bytes) -> bool:
    key = load_pem_private_key(workload.key_file.read_bytes(), None).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + b64encode(der)
    return bool(dkim.verify(message, dnsfunc=lambda name, timeout=5: record))


def _is_stamped(message: bytes) -> bool:
    header = email.message_from_bytes(message)
    return "https://" in header.get("List-Unsubscribe", "") and "List-Unsubscribe-Post" in header
