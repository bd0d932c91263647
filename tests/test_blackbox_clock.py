"""The wall clock jumps while the program runs: nothing dies of it, nothing comes back, and promotion waits.

libfaketime moves the wall clock of the running program and leaves its monotonic clock alone, as an administrator or a
wrong time server would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gateway_under_test import Gateway, eventually, fetch, invoice, newsletter, token_of
from tests.sink import Sink

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
JUMPS = os.environ.get("ASSENT_JUMPS", "+5y -1d").split()
WAITING = (451, "4.3.0")
WINDOW = 2.0
"""Seconds in which attempts are counted: with a retry each second or two, a storm would show at once."""

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (apt install libfaketime)")


class Wall:
    """The wall clock that the program sees."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        """Put a new offset in place at once, since the library reads the file at any moment."""
        unnamed = self._file.with_suffix(".new")
        unnamed.write_text(f"{offset}\n")
        unnamed.rename(self._file)

    @contextmanager
    def jumped(self, offset: str) -> Iterator[None]:
        self.set(offset)
        try:
            yield
        finally:
            self.set("+0")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Wall:
    return Wall(tmp_path_factory.mktemp("wall") / "offset")


@pytest.fixture(scope="module")
def house(shared_sink: Sink, wall: Wall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that goes by `wall`; what the operator types goes by the real one."""
    running = Gateway(tmp_path_factory.mktemp("clock") / "house", shared_sink.url, workers=2).prepare()
    running.opt_in(*(f"{who}{jump}@example.org" for jump in JUMPS for who in ("staying", "leaving", "left")))
    running.environment = wall.environment
    running.start()
    running.environment = {}
    yield running
    running.close()


def reply(gateway: Gateway, reader: str) -> tuple[int, str]:
    """Return the code of the reply that ended a newsletter to one reader, and the word after it."""
    replies = gateway.submit(newsletter(reader), [reader])
    code, text = replies.get(reader) or replies[""]
    return code, (text.decode() if isinstance(text, bytes) else text).split()[0]


def token_for(gateway: Gateway, sink: Sink, reader: str) -> str:
    assert reply(gateway, reader)[0] == 250
    (message,) = eventually(lambda: [one for one in sink.messages if one.recipients == (reader,)])
    return token_of(message.content)


def gauge(gateway: Gateway, name: str) -> int:
    text = fetch(f"http://127.0.0.1:{gateway.console}/metrics").text
    (line,) = [one for one in text.splitlines() if one.startswith(f"{name} ")]
    return int(line.split()[1])


def attempts_for(sink: Sink, reader: str) -> int:
    return len([one for _, one in list(sink.attempts) if one == reader])


@pytest.mark.req("OPS-06")
@pytest.mark.parametrize("jump", JUMPS)
def test_nothing_expires_returns_or_storms_when_the_wall_clock_jumps(
    house: Gateway, wall: Wall, sink: Sink, jump: str
) -> None:
    staying, leaving, left, owed = (f"{who}{jump}@example.org" for who in ("staying", "leaving", "left", "owed"))
    tokens = {reader: token_for(house, sink, reader) for reader in (leaving, left)}
    assert house.one_click(tokens[left]).status == 200
    sink.hold()
    for reader, login, message in ((staying, "news", newsletter(staying)), (owed, "shop", invoice(owed))):
        sender = "letters@news.example.com" if login == "news" else "billing@example.com"
        assert house.submit(message, [reader], login=login, sender=sender)[""][0] == 250
    eventually(lambda: attempts_for(sink, owed) >= 2)
    before = attempts_in_a_window(sink, owed)
    with wall.jumped(jump):
        eventually(lambda: reply(house, staying) == WAITING)
        assert gauge(house, "assent_clock_jump_seconds") > 60
        assert any("wall clock" in one for one in house.json("status")["troubles"])
        assert house.one_click(tokens[leaving]).status == 200
        assert reply(house, left) == (550, "5.7.1")
        assert reply(house, leaving) == (550, "5.7.1")
        assert attempts_in_a_window(sink, owed) <= 2 * before + 1
        sink.release()
        eventually(lambda: owed in recipients(sink), 30)
        assert staying not in recipients(sink), "promotion left while the time was uncertain"
    eventually(lambda: staying in recipients(sink), 30)
    eventually(lambda: reply(house, staying)[0] == 250)
    assert gauge(house, "assent_clock_jump_seconds") == 0
    assert "the wall clock has jumped" in house.log.read_text()
    assert recipients(sink).count(owed) == 1, "the invoice came twice, or its submitter was told that it failed"
    assert not [one for one in sink.messages if not one.envelope_from], "a report says that something expired"


def attempts_in_a_window(sink: Sink, reader: str) -> int:
    before = attempts_for(sink, reader)
    time.sleep(WINDOW)
    return attempts_for(sink, reader) - before


def recipients(sink: Sink) -> list[str]:
    return [one.recipients[0] for one in list(sink.messages)]
