"""The mechanisms of AUTH (RFC 4954): each yields challenges, is sent responses and returns credentials."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import Malformed


@dataclass(frozen=True, slots=True)
class Credentials:
    """May this login in? 235 lets it in; anything else is a failure, of which a connection has few."""

    mechanism: str
    name: str
    password: str = field(repr=False)


Exchange = Generator[str, str, Credentials]


def _plain() -> Exchange:
    """RFC 4616."""
    parts = _decoded((yield "")).split("\0")
    if len(parts) != 3:
        raise Malformed("PLAIN takes an identity, a name and a password")
    identity, name, password = parts
    if identity not in ("", name):
        raise Malformed("one login cannot act for another")
    return _credentials("PLAIN", name, password)


def _login() -> Exchange:
    name = _decoded((yield "VXNlcm5hbWU6"))
    password = _decoded((yield "UGFzc3dvcmQ6"))
    return _credentials("LOGIN", name, password)


def _decoded(response: str) -> str:
    try:
        return base64.b64decode(response, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise Malformed("the response is not base64 of UTF-8") from error


def _credentials(mechanism: str, name: str, password: str) -> Credentials:
    if not (name and name.isprintable()):
        raise Malformed("the name of the login is empty or has a control character")
    return Credentials(mechanism, name, password)


MECHANISMS: Final[Mapping[str, Callable[[], Exchange]]] = {"PLAIN": _plain, "LOGIN": _login}
