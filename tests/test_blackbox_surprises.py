"""A fault of our own in any hook costs the client a moment, never a message, and tells nothing (reliability S15).

The program is the installed one. What breaks it is a `sitecustomize` of the test's, which makes the hook that a file
names raise an exception with a secret in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_under_test import Gateway, invoice
from tests.raw_smtp import RawSmtp, Said
from tests.sink import Sink
from tests.test_blackbox_smtp import connect, refused_in_one_sentence

SECRET = "password=hunter2 /etc/shadow"
SABOTAGE = """
import functools, os, pathlib

from gateway.listener.feedback import FeedbackHandler
from gateway.listener.submission import SubmissionHandler

broken = pathlib.Path(os.environ["BROKEN"])

def breakable(hook, name):
    @functools.wraps(hook)
    async def maybe(*arguments):
        if broken.read_text() == name:
            raise RuntimeError({secret!r})
        return await hook(*arguments)
    return maybe

for handler in (SubmissionHandler, FeedbackHandler):
    for name in [name for name in vars(handler) if name.startswith("handle_")]:
        setattr(handler, name, breakable(getattr(handler, name), f"{{handler.__name__}}.{{name}}"))
"""


@pytest.fixture(scope="module")
def fragile(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("fragile")
    running = Gateway(folder / "house", shared_sink.url).prepare()
    (folder / "sitecustomize.py").write_text(SABOTAGE.format(secret=SECRET))
    (folder / "broken").write_text("")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    running.environment = {"PYTHONPATH": path, "BROKEN": str(folder / "broken")}
    yield running.start()
    running.close()


@pytest.fixture
def broken(fragile: Gateway) -> Iterator[Path]:
    """Where the name of the hook stands that raises."""
    path = Path(fragile.environment["BROKEN"])
    yield path
    path.write_text("")


def is_a_moment(said: Said) -> bool:
    return refused_in_one_sentence(said, 451, "4.3.0") and not any(word in said.text for word in SECRET.split())


HOOKS = ["AUTH", "MAIL", "RCPT", "DATA"]


def until_refused(client: RawSmtp, gateway: Gateway) -> list[Said]:
    """Log in and submit an invoice, step by step; return the replies up to the first that is a refusal."""
    replies = [client.login("shop", gateway.passwords["shop"])]
    for line in ("MAIL FROM:<billing@example.com>", "RCPT TO:<fault@example.org>", "DATA"):
        if replies[-1].code >= 400:
            return replies
        replies.append(client.say(line))
    if replies[-1].code == 354:
        client.send(invoice() + b".\r\n")
        replies[-1] = client.reply()
    return replies


@pytest.mark.parametrize("hook", HOOKS)
def test_a_fault_at_submission_is_temporary_and_tells_nothing(
    fragile: Gateway, broken: Path, sink: Sink, hook: str
) -> None:
    with connect(fragile) as client:
        broken.write_text(f"SubmissionHandler.handle_{hook}")
        replies = until_refused(client, fragile)
        assert len(replies) == HOOKS.index(hook) + 1
        assert is_a_moment(replies[-1])
        broken.write_text("")
        client.say("RSET")
        if hook == "AUTH":
            assert client.login("shop", fragile.passwords["shop"]).code == 235
        assert client.transact(invoice(), ["fault@example.org"], "billing@example.com").code == 250
    assert len(sink.wait_for(1)) == 1
    assert SECRET in fragile.log.read_text(), "the operator is told"


@pytest.mark.parametrize("hook", HOOKS[1:])
def test_a_fault_at_the_feedback_port_is_temporary_and_tells_nothing(fragile: Gateway, broken: Path, hook: str) -> None:
    lines = ["EHLO mx.example.net", "MAIL FROM:<>", "RCPT TO:<unsubscribe@bounce.example.com>", "DATA"]
    with RawSmtp(fragile.feedback) as client:
        broken.write_text(f"FeedbackHandler.handle_{hook}")
        replies = [client.say(line) for line in lines]
        if hook == "DATA":
            client.send(b"Subject: unsubscribe\r\n\r\n.\r\n")
            replies.append(client.reply())
        (said,) = (one for one in replies if one.code == 451)
        assert is_a_moment(said)
        broken.write_text("")
        client.say("RSET")
        assert client.say(*lines).code == 354
