"""What `assent check` looks at: the store, secrets, certificates, keys, listeners, and one newsletter end to end.

The rule: nothing is changed, and nothing is taken on trust that can be tried. The configuration itself was
checked when it was loaded; what it warned of is only repeated. DNS is `online`'s to ask.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import dkim
from cryptography import x509

from gateway.address import Address
from gateway.config import Config, ListenAddress
from gateway.copies import CopyMaker, Links
from gateway.errors import ConfigError, InvalidToken, StoreUnavailable
from gateway.findings import Finding, State
from gateway.headers import split
from gateway.installation import data_folder, published_keys, signers
from gateway.model import Copy, MessageClass, Peer, Recipient, SpooledMessage
from gateway.sign import WEAK_BELOW, SigningKey, dns_record
from gateway.stamp import Unstampable
from gateway.store.schema import PEOPLE, SPOOL
from gateway.store.sqlite import DataFolder
from gateway.store.writer import connect, reading
from gateway.tokens import FIRST_TOPIC, NOBODY, UnsubscribeTokens

RENEW_BEFORE = timedelta(days=30)
_PATIENCE = 3.0
_NO_STORE = "run assent init, or restore a backup"
_READER = Address.parse("reader@example.net")


def examine(config: Config, now: datetime) -> list[Finding]:
    """Look at everything and return what was found. Raises `ConfigError` for an SQLite that is too old."""
    folder = data_folder(config)
    return [
        *_configuration(config),
        _sqlite(),
        _store(folder.people, PEOPLE, "put it back, or restore a backup" if folder.spool.exists() else _NO_STORE),
        _store(folder.spool, SPOOL, _NO_STORE),
        *_secrets(folder),
        *_keys_in_force(folder),
        *_deadlines(folder, now),
        *_certificates(config, now),
        *(_dkim_key(key) for key in published_keys(config)),
        *(_sample(config, folder, domain, now) for domain in config.dkim),
        *_listeners(config),
    ]


def _configuration(config: Config) -> Iterator[Finding]:
    yield Finding("configuration", State.OK, f"{config.path} can be read, and fits together")
    for warning in config.warnings:
        yield Finding("configuration", State.WARNING, warning)


def _sqlite() -> Finding:
    with closing(connect(Path(":memory:"))) as connection:
        (version,) = connection.execute("SELECT sqlite_version()").fetchone()
    return Finding("SQLite", State.OK, f"version {version}")


def _store(path: Path, migrations: tuple[str, ...], remedy: str) -> Finding:
    if not path.exists():
        return Finding("store", State.PROBLEM, f"{path} is not there; {remedy}")
    try:
        with reading(path), closing(connect(path, read_only=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except StoreUnavailable as error:
        return Finding("store", State.PROBLEM, f"{path}: {error}")
    if version > len(migrations):
        return Finding("store", State.PROBLEM, f"{path} was made by a newer version; install that one")
    if version < len(migrations):
        return Finding("store", State.WARNING, f"{path} is of an older version; serve will bring it up to date")
    return Finding("store", State.OK, f"{path} is up to date")


def _secrets(folder: DataFolder) -> Iterator[Finding]:
    """Each secret of the store can be read by this user and by nobody else (WEB-15)."""
    readers: tuple[tuple[str, Callable[[], object]], ...] = (
        ("key of addresses", folder.address_ring),
        ("key of links", folder.token_ring),
        ("key of the ledger", folder.ledger_key),
    )
    for what, read in readers:
        try:
            read()
            yield Finding(what, State.OK, "readable by its owner only")
        except ConfigError as error:
            yield Finding(what, State.PROBLEM, str(error))


def _keys_in_force(folder: DataFolder) -> Iterator[Finding]:
    """The newest key of each ring makes new values; a ring that cannot be read is told of as a secret."""
    with suppress(ConfigError):
        for told in folder.keys_not_in_force():
            yield Finding("key in force", State.WARNING, told)


def _deadlines(folder: DataFolder, now: datetime) -> Iterator[Finding]:
    """What the law gives a time for: answers to people, and the report of a breach (GDPR 12(3), 33(1))."""
    try:
        pending = [one for one in folder.deadlines() if one.warned_from <= now]
    except StoreUnavailable as error:
        yield Finding("deadlines", State.PROBLEM, str(error))
        return
    for one in pending:
        yield Finding("deadline", State.PROBLEM if one.is_over(now) else State.WARNING, one.told(now))


def _certificates(config: Config, now: datetime) -> Iterator[Finding]:
    if config.submission.tls:
        yield _certificate("certificate of submission", config.submission.tls.certificate, "", now)
    if config.site and config.site.tls:
        host = urlsplit(config.site.public_url).hostname or ""
        yield _certificate("certificate of the site", config.site.tls.certificate, host, now)


def _certificate(what: str, path: Path, host: str, now: datetime) -> Finding:
    """`host` is the name that it must be good for, "" for any."""
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= now < until:
        return Finding(what, State.PROBLEM, f"{path} is valid from {since:%F} until {until:%F}, not now; renew it")
    if host and not _names(certificate).intersection({host, f"*.{host.partition('.')[2]}"}):
        return Finding(what, State.PROBLEM, f"{path} is not for {host}, where the links lead; get one that is")
    if until - now < RENEW_BEFORE:
        return Finding(what, State.WARNING, f"{path} ends on {until:%F}; renew it")
    return Finding(what, State.OK, f"valid until {until:%F}")


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value).lower() for name in names}


def _dkim_key(key: SigningKey) -> Finding:
    what = f"DKIM key {key.selector} of {key.domain}"
    if key.is_weak:
        told = f"RSA of less than {WEAK_BELOW} bits (RFC 8301 §3.2)"
        return Finding(what, State.WARNING, f"{told}; make another with assent dkim new {key.domain}")
    return Finding(what, State.OK, f"{key.algorithm}; publish {dns_record(key)[0]}")


def _sample(config: Config, folder: DataFolder, domain: str, now: datetime) -> Finding:
    """Stamp and sign a newsletter as a real one would be, then read it as its recipient's provider would."""
    what = f"sample newsletter of {domain}"
    if domain not in signers(config):
        return Finding(what, State.PROBLEM, f"there is no key to sign it with; run assent dkim new {domain}")
    try:
        tokens = UnsubscribeTokens(folder.token_ring())
        copy = asyncio.run(_stamped(config, tokens, domain, now))
        message = b"".join(copy.segments)
        signatures = _verified(message, config, domain)
        _read_link(message, config, tokens)
    except (_Unfit, ConfigError, ValueError) as error:
        return Finding(what, State.PROBLEM, str(error) or type(error).__name__)
    return Finding(what, State.OK, f"stamped; signed by {signatures}; its link read back")


class _Unfit(Exception):
    """What a recipient's provider would hold against the sample."""


async def _stamped(config: Config, tokens: UnsubscribeTokens, domain: str, now: datetime) -> Copy:
    feedback = config.feedback.domain if config.feedback else ""
    links = Links(config.site.public_url if config.site else "", feedback, tokens, lambda _: FIRST_TOPIC)
    maker = CopyMaker(config.hostname, config.company, config.topics, config.streams, links, signers(config))
    draft = await maker.draft(_newsletter(config, domain, now))
    if isinstance(draft, Unstampable):
        raise _Unfit(str(draft.reply))
    if config.site is None:
        return await maker.shared_copy(draft, draft.message.recipients, now)
    return await maker.promotional_copy(draft, 0, NOBODY, now)


def _newsletter(config: Config, domain: str, now: datetime) -> SpooledMessage:
    """Return a sample of what the domain may send; where there is no site, that is no promotion."""
    sender = f"news@{domain}"
    text = f"From: {sender}\r\nTo: {_READER}\r\nSubject: A sample\r\n\r\nHello.\r\n".encode()
    topics = next((stream.topics[:1] for stream in config.promotional_streams), ())
    message_class = MessageClass.PROMOTIONAL if config.site else MessageClass.ACCOUNT
    peer = Peer("localhost", "127.0.0.1", "ESMTPSA")
    return SpooledMessage(
        0, "check", "check", message_class, topics, sender, (), peer, now, (Recipient(_READER),), text
    )


def _verified(message: bytes, config: Config, domain: str) -> str:
    """Return in words by which keys the sample is signed; raises `_Unfit` where a signature does not verify."""
    keys = [key for key in published_keys(config, is_signing=True) if key.domain == domain]
    records = dict(map(dns_record, keys))
    told = []
    for index, key in enumerate(keys):
        # dkimpy reads Ed25519 only with a library that we do not need otherwise.
        is_readable = key.algorithm == "rsa-sha256"
        if is_readable and not _is_signed(message, index, records):
            raise _Unfit(f"the signature of {key.selector} does not verify")
        told.append(f"{key.selector}, {'verified' if is_readable else 'not verified here'}")
    return " and ".join(told)


def _is_signed(message: bytes, index: int, records: dict[str, str]) -> bool:
    def published(name: bytes, timeout: float = 0) -> bytes:
        return records.get(name.decode("ascii").rstrip("."), "").encode("ascii")

    try:
        return bool(dkim.DKIM(message).verify(index, dnsfunc=published))
    except dkim.DKIMException:
        return False


def _read_link(message: bytes, config: Config, tokens: UnsubscribeTokens) -> None:
    """Raise `_Unfit` where the link does not say whom it is for."""
    if config.site is None:
        return
    field = split(message).first("list-unsubscribe")
    url = field.value.decode("ascii").partition("<")[2].partition(">")[0] if field else ""
    try:
        read = tokens.read_url(url.removeprefix(f"{config.site.public_url}/u/"))
    except InvalidToken as error:
        raise _Unfit(f"the link {url or '(none)'} cannot be read back") from error
    if read.address_id != NOBODY:
        raise _Unfit(f"the link {url} is somebody else's")


_Voice = Callable[[socket.socket], bool]
"""Tells by what it says whether the program at the other end of a connection is ours."""


def _listeners(config: Config) -> Iterator[Finding]:
    greeting = f"220 {config.hostname} ESMTP Assent".encode("ascii")
    submission, site = config.submission, config.site
    for address in submission.listen:
        yield _listener("submission", address, _greets(greeting))
    for address in submission.listen_tls:
        yield _listener("submission (TLS)", address, _under_tls(_greets(greeting)))
    for address in config.feedback.listen if config.feedback else ():
        yield _listener("feedback", address, _greets(greeting))
    for address in site.listen if site else ():
        yield _listener("site", address, _under_tls(_is_healthy) if site and site.tls else _is_healthy)
    for address in config.console.listen if config.console else ():
        yield _listener("console", address, _is_healthy)


def _listener(name: str, address: ListenAddress, is_ours: _Voice) -> Finding:
    what = f"listener of {name}"
    try:
        with closing(socket.create_server((address.host, address.port), family=_family(address))):
            return Finding(what, State.OK, f"{address} is free")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding(what, State.PROBLEM, f"{address} cannot be listened on: {error.strerror}")
    if _answers(address, is_ours):
        return Finding(what, State.OK, f"{address} is in use, by Assent")
    return Finding(what, State.PROBLEM, f"{address} is in use by another program; stop it, or choose another port")


def _family(address: ListenAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET


def _answers(address: ListenAddress, is_ours: _Voice) -> bool:
    """An unspecified address is asked through loopback, which it includes."""
    loopback = "::1" if address.ip.version == 6 else "127.0.0.1"
    host = loopback if address.ip.is_unspecified else address.host
    try:
        with socket.create_connection((host, address.port), _PATIENCE) as connection:
            return is_ours(connection)
    except (OSError, http.client.HTTPException):
        return False


def _greets(greeting: bytes) -> _Voice:
    return lambda connection: connection.makefile("rb").readline(600).startswith(greeting)


def _under_tls(voice: _Voice) -> _Voice:
    """Nothing secret is said, and certificates are looked at elsewhere: the name is not verified here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def protected(connection: socket.socket) -> bool:
        with context.wrap_socket(connection) as wrapped:
            return voice(wrapped)

    return protected


def _is_healthy(connection: socket.socket) -> bool:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status == 200 and answer.read(16).strip() == b"ok"
