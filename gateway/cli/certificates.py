"""A small authority of our own, so that TLS works before anybody has asked a public one.

The one rule: a key that exists is never replaced, and no key can be read by others. Whoever trusts `ca.pem` trusts
every certificate made here; a public site needs one that strangers trust.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.store import disk

AUTHORITY_LIFE: Final = timedelta(days=3650)
CERTIFICATE_LIFE: Final = timedelta(days=825)
"""The longest that Apple's systems accept of a private authority."""

_BACKDATED = timedelta(hours=1)


class Authority:
    """The certificate and key with which server certificates are signed: `ca.pem` and `ca.key` in a folder."""

    def __init__(self, folder: Path, now: datetime) -> None:
        """Take the authority from its folder, or make it there."""
        self.certificate_path = folder / "ca.pem"
        self._key_path = folder / "ca.key"
        self._now = now
        self.is_new = not self._key_path.exists()
        if self.is_new:
            self._make()
        self._key = serialization.load_pem_private_key(self._key_path.read_bytes(), None)
        self._certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())

    def issue(self, certificate: Path, key: Path, names: Sequence[str]) -> None:
        """Make a server's key and its certificate for some host names and IP addresses; neither file may exist."""
        private = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = (
            _builder(_name(names[0]), self._certificate.subject, private, self._now, CERTIFICATE_LIFE)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_issued_by(self._certificate), critical=False)
        )
        _write_key(key, private)
        _write_certificate(certificate, builder.sign(self._key, hashes.SHA256()))  # type: ignore[arg-type]

    def _make(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        name = _name("Assent, for a first try on this machine")
        builder = (
            _builder(name, name, private, self._now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_MAY_SIGN_CERTIFICATES, critical=True)
        )
        _write_key(self._key_path, private)
        _write_certificate(self.certificate_path, builder.sign(private, hashes.SHA256()))


_MAY_SIGN_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now - _BACKDATED + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _issued_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    known_by = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_by)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, encryption))


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    _write(path, certificate.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, pem: bytes) -> None:
    disk.make_folder(path.parent)
    disk.write_new(path, pem)
