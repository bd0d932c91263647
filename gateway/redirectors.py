"""Known hosts whose links note who follows them (POL-16); which they are is data (`redirectors.toml`)."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources

from gateway.sight.elements import host_of

_URL = re.compile(rb"(?:https?:)//[^\s\"'<>/?#]+", re.IGNORECASE)


def redirector_in(text: bytes) -> str:
    """Return the first host in a text's links that is, or lies below, a known redirector; "" for none."""
    hosts = dict.fromkeys(host_of(one.decode("utf-8", "replace")) for one in _URL.findall(text))
    return next((one for one in hosts if _is_known(one)), "")


@lru_cache(maxsize=4096)
def _is_known(host: str) -> bool:
    known, labels = _hosts(), host.split(".")
    return any(".".join(labels[n:]) in known for n in range(len(labels) - 1))


@lru_cache(maxsize=1)
def _hosts() -> frozenset[str]:
    text = resources.files("gateway").joinpath("redirectors.toml").read_text("utf-8")
    return frozenset(tomllib.loads(text)["hosts"])
