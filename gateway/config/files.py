"""Values that name files: folders, certificates and secrets.

The rule: a secret is read once, here, from a file that only its owner may read (WEB-15), and what was checked is what
is used. A file that is not there yet is `Missing`, which whoever makes files may overlook.
"""

from __future__ import annotations

import shlex
import ssl
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.config.kinds import Missing, line, written
from gateway.config.regimes import regimes_in
from gateway.config.values import ConsolePassword, DkimKey
from gateway.law import Regime

RSA_LEAST_BITS = 1024
_LARGEST_SECRET = 64 * 1024
_UNSIGNED = "promotional mail that it should sign is answered 451 4.7.5, and other mail leaves unsigned"
"""Account mail must not wait for a key (UNS-35)."""

FOLDER = written("a folder", '"var"', lambda text, folder: folder / text if line(text) else None, Path("var"))


def _rules_folder(text: str, folder: Path) -> tuple[Regime, ...] | None:
    path = folder / text
    if line(text) and not path.is_dir():
        raise ValueError(f"there is no folder {path}; make it, and put one TOML file of country rules a country there")
    return regimes_in(path) if line(text) else None


RULES_FOLDER = written("a folder", '"rules"', _rules_folder, ())


def _database(text: str, folder: Path) -> str | None:
    scheme, _, path = text.partition(":")
    if scheme in ("postgresql", "postgres"):
        raise ValueError('this version has no PostgreSQL store yet; write "sqlite:var/assent.db"')
    return f"sqlite:{folder / path}" if scheme == "sqlite" and line(path) and not path.startswith("//") else None


DATABASE = written("a database", '"sqlite:var/assent.db"', _database)


def _content(path: Path, value: Any, remedy: str) -> bytes:
    """Return what a file holds; `value` is what its key says while it is not made, None where we are not its maker."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_SECRET)
    except FileNotFoundError as error:
        sentence = f"there is no file {path}; {remedy}"
        raise (ValueError(sentence) if value is None else Missing(sentence, value)) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); make it a file that this user may read") from error


def _private_content(path: Path, value: Any, remedy: str) -> bytes:
    content = _content(path, value, remedy)
    if path.stat().st_mode & 0o077:
        raise ValueError(f"others may read the secret in {path}; run: chmod 600 {shlex.quote(str(path))}")
    return content


def _secret(text: str, folder: Path) -> str | None:
    if not line(text):
        return None
    content = _private_content(folder / text, None, "write the secret into it, and make it mode 0600")
    return _one_line(content, folder / text)


def _one_line(content: bytes, path: Path) -> str:
    secret = content.decode("utf-8", "replace").rstrip("\r\n")
    if not secret.isprintable() or not secret:
        raise ValueError(f"{path} must hold the secret alone, on one line; write it there")
    return secret


def _console_password(text: str, folder: Path) -> ConsolePassword | None:
    if not line(text):
        return None
    path = folder / text
    content = _private_content(path, ConsolePassword(path), "`assent init` makes one")
    return ConsolePassword(path, _one_line(content, path))


SECRET = written("the path of a file", '"var/smarthost.password"', _secret)


CONSOLE_PASSWORD = written("the path of a file", '"var/console.password"', _console_password, None)


def _secret_text(text: str, folder: Path) -> str | None:
    if not line(text):
        return None
    content = _private_content(folder / text, None, "write the secret into it, and make it mode 0600")
    secret = content.decode("utf-8", "replace").strip()
    if not secret:
        raise ValueError(f"{folder / text} is empty; write the secret there")
    return secret


SECRET_TEXT = written("the path of a file", '"var/webhooks/crm.secret"', _secret_text)


def _tls_certificate(text: str, folder: Path) -> Path | None:
    path = folder / text
    if line(text):
        _content(path, path, "`assent init` makes one for a first try")
    return path if line(text) else None


def _tls_key(text: str, folder: Path) -> Path | None:
    path = folder / text
    if line(text):
        _private_content(path, path, "`assent init` makes one for a first try")
    return path if line(text) else None


TLS_CERTIFICATE = written("the path of a file", '"var/tls/server.pem"', _tls_certificate, None)
TLS_KEY = written("the path of a file", '"var/tls/server.key"', _tls_key, None)


def _authorities(text: str, folder: Path) -> str | None:
    if not line(text):
        return None
    path = folder / text
    pem = _content(path, None, "write the certificates into it, or remove the key to trust the system's").decode(
        "latin-1"
    )
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{path} holds no certificates in PEM; write those of the authorities to trust") from error
    return pem


AUTHORITIES = written("the path of a file", '"var/tls/authorities.pem"', _authorities)


def _dkim_key(text: str, folder: Path) -> DkimKey | None:
    if not line(text):
        return None
    path = folder / text
    try:
        pem = _private_content(path, DkimKey(path), "`assent dkim new DOMAIN` makes one")
    except Missing as error:
        raise Missing(str(error), error.value, _UNSIGNED) from error
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if isinstance(private, Ed25519PrivateKey):
        return DkimKey(path, private)
    if not isinstance(private, RSAPrivateKey):
        raise ValueError(f"{path} holds no unencrypted RSA or Ed25519 key in PEM; `assent dkim new DOMAIN` makes one")
    if private.key_size < RSA_LEAST_BITS:
        raise ValueError(
            f"{path} holds an RSA key of {private.key_size} bits, which no one may accept (RFC 8301 §3.2); "
            "`assent dkim new DOMAIN` makes one of 2048"
        )
    return DkimKey(path, private)


DKIM_KEY = written("the path of a file", '"var/dkim/example.com.s1.pem"', _dkim_key, DkimKey(Path()))
