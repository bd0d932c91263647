"""Endings of a message that are none: however they are cut into segments, and whoever sends them, there is one message.

The twelve sequences are those of both public testers; tests/test_blackbox_smtp.py sends them in one segment.
"""

from __future__ import annotations

import pytest

from tests.abuse.conftest import READERS, connect
from tests.gateway_under_test import Gateway, newsletter, token_of
from tests.raw_smtp import RawSmtp
from tests.sink import Sink
from tests.test_blackbox_smtp import SMUGGLING

SECOND = (
    b"MAIL FROM:<letters@news.example.com>\r\nRCPT TO:<%s>\r\nDATA\r\nFrom: letters@news.example.com\r\n\r\nevil\r\n"
    % READERS[1].encode()
)

each_ending = pytest.mark.parametrize("ending", SMUGGLING.values(), ids=SMUGGLING)


@pytest.mark.req("SMTP-06")
@each_ending
@pytest.mark.parametrize("before", [b"", b"text", b"text\r\n"], ids=["first", "within a line", "after a line"])
def test_an_ending_that_is_none_is_refused_however_it_is_cut(
    abused: Gateway, sink: Sink, ending: bytes, before: bytes
) -> None:
    content = (newsletter(READERS[0]) + before if before else b"") + ending + SECOND
    tail = len(ending) + len(SECOND)
    with connect(abused, "news") as client:
        for cut in range(len(ending) + 1):
            assert client.say("MAIL FROM:<a@news.example.com>", f"RCPT TO:<{READERS[0]}>", "DATA").code == 354
            client.send(content[: len(content) - tail + cut])
            client.send(content[len(content) - tail + cut :])
            client.send(b"\r\n.\r\nNOOP\r\n")
            assert str(client.reply()).startswith("554 5.6.0 "), cut
            assert client.reply().code == 250, "and nothing was said to what came behind it"
        assert client.transact(newsletter(READERS[2]), [READERS[2]]).code == 250
    (honest,) = sink.wait_for(1)
    assert honest.recipients == (READERS[2],)


@pytest.mark.req("SMTP-06")
@each_ending
def test_the_feedback_address_is_not_fooled_either(abused: Gateway, sink: Sink, ending: bytes) -> None:
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[1]), [READERS[1]]).code == 250
    (copy,) = sink.wait_for(1)
    evil = b"MAIL FROM:<>\r\nRCPT TO:<unsubscribe@bounce.example.com>\r\nDATA\r\nSubject: %s\r\n\r\n"
    with RawSmtp(abused.feedback) as client:
        client.ehlo()
        assert client.say("MAIL FROM:<>", "RCPT TO:<unsubscribe@bounce.example.com>", "DATA").code == 354
        client.send(b"Subject: hello\r\n\r\nx" + ending + evil % token_of(copy.content).encode() + b"\r\n.\r\nNOOP\r\n")
        assert client.reply().code == 554
        assert client.reply().code == 250
    with connect(abused, "news") as client:
        assert client.transact(newsletter(READERS[1]), [READERS[1]]).code == 250, "nobody has been unsubscribed"
    assert len(sink.wait_for(2)) == 2
