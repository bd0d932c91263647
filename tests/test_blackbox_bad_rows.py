"""Files as they really come: rows that are none, look-alikes, times to come, and two operators at the same moment."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_under_test import TOPIC, Gateway
from tests.sink import Sink

ALL = ("--scope", "all-marketing")
UNDER_NOTICE = ("--topic", TOPIC, "--notice", "join", "--attested-by", "Ann")
LOOK_ALIKE = "аnn@lookalike.example"  # its first letter is Cyrillic
NO_ADDRESSES = (
    "nobody",
    "<ann@lookalike.example>",
    "ann@lookalike.example;ben@lookalike.example",
    "two words@lookalike.example",
    "ann@lookalike",
    "@lookalike.example",
    "ann＠lookalike.example",
    "\u202eann@lookalike.example",
    "ann@look_alike.example",
)


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("rows") / "house", shared_sink.url).prepare()
    (running.folder / "notice.txt").write_text("Yes, send me news.")
    notice = ("--text", "notice.txt", "--url", "https://example.com/join", "--control", "unticked")
    running.run("notices", "add", "join", "--topic", TOPIC, *notice, "--from", "2015-01-01")
    yield running.start()
    running.close()


def written(house: Gateway, name: str, *lines: str) -> str:
    path = house.folder / name
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def told_beside(told: dict[str, Any]) -> dict[int, str]:
    """Return why each line could not be used, from the file beside."""
    with Path(told["errors"]).open(encoding="utf-8", newline="") as file:
        return {int(one["line"]): one["why"] for one in csv.DictReader(file)}


def test_what_is_no_address_is_told_line_by_line_and_the_others_count(house: Gateway) -> None:
    ann, out = "ann@lookalike.example", "out@lookalike.example"
    house.opt_in(ann, out)
    huge = "x" * 10_000_000
    bad = (*NO_ADDRESSES, huge, f"{huge}@example.org", "a\x00b@example.org")
    file = written(house, "list.txt", LOOK_ALIKE, *bad, out)
    told = house.json("suppressions", "import", file, *ALL)
    assert told["counts"] == {"rows": len(bad) + 2, "rows that cannot be used": len(bad), "suppressed": 2}
    lines = told_beside(told)
    assert sorted(lines) == list(range(2, len(bad) + 2))
    assert all(lines.values())
    assert Path(told["errors"]).stat().st_size < 10_000, "a row of 10 MB is not told in full"
    assert [house.outcome(one) for one in (ann, out)] == ["sent", "unsubscribed"], (
        "who only looks like Ann is somebody else"
    )


def test_opt_ins_of_tomorrow_are_none_and_opt_outs_of_tomorrow_count_now(house: Gateway) -> None:
    soon, early, twice = (f"{name}@times.example" for name in ("soon", "early", "twice"))
    house.opt_in(early)
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    head = "email,name,attributes,status,created_at"
    rows = [
        f"{soon},Ann,{{}},enabled,{tomorrow}",
        f"{early},Ben,{{}},blocklisted,{tomorrow}",
        f"{twice},Cy,{{}},enabled,2020-01-01T10:00:00Z",
        f"{twice.upper()},Cy,{{}},enabled,2021-01-01T10:00:00Z",
        f"{soon},too,few",
        f"never@times.example,Di,{{}},enabled,{'9' * 40}",
    ]
    told = house.json("consent", "import", written(house, "times.csv", head, *rows), *UNDER_NOTICE)
    assert told["counts"] == {"rows": 6, "rows that cannot be used": 3, "suppressed": 1, "express": 1}
    assert sorted(told_beside(told)) == [2, 6, 7]
    people = (soon, early, twice, "never@times.example")
    assert [house.outcome(one) for one in people] == ["no-consent", "unsubscribed", "sent", "no-consent"]
    (event,) = house.json("consent", "show", twice)
    assert event["at"].startswith("2021-01-01"), "of two rows that say the same, the newer"


HUGE = b"x" * 10_000_000
CONTENTS = {"latin.txt": "address,product\nren\u00e9@example.org,editor\n".encode("latin-1"), "huge.txt": HUGE}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize(
    "command",
    [
        "customers import {}",
        f"notices add bad --topic {TOPIC} --text {{}} --url https://example.com --from 2020-01-01 --control unticked",
        "policy publish bad --text {} --effective 2026-01-01",
    ],
)
def test_a_file_that_is_no_text_or_far_too_much_gets_one_sentence(house: Gateway, command: str, name: str) -> None:
    (house.folder / name).write_bytes(CONTENTS[name])
    done = house.run(*command.format(name).split(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr and done.stderr.count("Error:") == 1 and name in done.stderr
    assert [one["name"] for one in house.json("notices", "list")] == ["join"]


def test_octets_that_are_no_text_are_no_words_of_a_command(house: Gateway) -> None:
    octets = "stop\udcff"
    for command in (
        ("streams", "pause", "offers", "--why"),
        ("tokens", "add", "--scopes", "read"),
        ("person", "export"),
    ):
        done = house.run(*command, octets, check=False)
        assert (done.returncode, done.stderr) == (2, "a word of the command line is not in UTF-8; nothing was done\n")
    assert house.json("status")["paused_streams"] == []


def test_owners_are_recorded_all_or_none(house: Gateway) -> None:
    file = written(
        house, "owners.csv", "address,product", "owner@rows.example,editor", f"{'x' * 200_000}@rows.example,editor"
    )
    done = house.run("customers", "import", file, check=False)
    assert (done.returncode, done.stderr.count("Error:")) == (2, 1)
    assert house.json("person", "export", "owner@rows.example")["evidence"] == []


def test_two_operators_who_import_one_file_at_once_say_everything_once(house: Gateway) -> None:
    people = [f"crowd{n}@both.example" for n in range(3000)]
    file = written(house, "crowd.txt", *people)
    command = house.command("--json", "suppressions", "import", file, *ALL)
    at_once = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=house.folder) for _ in range(2)]
    told = [json.loads(one.communicate(timeout=300)[0]) for one in at_once]
    assert [one.returncode for one in at_once] == [0, 0]
    for one in told:
        assert one["counts"].get("suppressed", 0) + one["counts"].get("already suppressed", 0) == len(people)
    (_,) = house.json("suppressions", "check", people[1500])
    order = sorted(str(one["import"]) for one in told)
    if house.run("suppressions", "undo", order[1], check=False).returncode:
        order.reverse()  # the one that had begun first found what the other said already
        house.run("suppressions", "undo", order[1])
    command = house.command("suppressions", "undo", order[0])
    undoing = [subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=house.folder) for _ in range(2)]
    assert {one.wait(300) for one in undoing} <= {0, 1}
    assert house.run("suppressions", "check", people[1500], check=False).returncode == 1, "both are undone"
    assert house.json("ledger", "verify")["problems"] == []
