"""The command line's face: `--json` wherever it stands; for each mistake a sentence, a remedy and its status."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import smtplib
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.crash.recording import can_record
from tests.gateway_under_test import TOPIC, Gateway, eventually, fetch, free_port, invoice
from tests.sink import Sink

PERSON = "ann@example.org"
UNIT = Path(__file__).parent.parent / "deploy" / "assent.service"
FACTS = (
    "check",
    "status",
    "logins list",
    "streams list",
    "notices list",
    "tokens list",
    "webhooks list",
    "queue list",
    "policy list",
    "requests list",
    "breach list",
    "dkim dns",
    f"consent show {PERSON}",
    f"suppressions check {PERSON}",
    "suppressions list --since today",
    "suppressions imports",
    f"explain {PERSON} --topic {TOPIC}",
    "simulate --stream newsletter people.txt",
    "ledger verify",
    "ledger export",
    "ledger export --format kantara",
    "consent export",
    "suppressions export --purpose scrubbing --format sha256",
    f"person export {PERSON}",
    "processing",
    "report",
    "purge --dry-run",
    "migrate",
)
"""Commands that print facts, as they are typed."""


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("commands") / "house", shared_sink.url).prepare()
    running.opt_in(PERSON)
    (running.folder / "people.txt").write_text(f"{PERSON}\n")
    yield running
    running.close()


@pytest.fixture
def rewritten(house: Gateway) -> Iterator[None]:
    """Put the configuration back as it was."""
    was = house.config.read_text()
    yield
    house.config.write_text(was)


def replace(house: Gateway, old: str, new: str) -> None:
    text = house.config.read_text()
    assert old in text
    house.config.write_text(text.replace(old, new))


def on_a_terminal(house: Gateway, columns: int, *arguments: str) -> str:
    """Return what a command shows on a terminal of so many columns, without its colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, columns))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(house.command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO, once the last program has let go of the other end
            while portion := os.read(ours, 65536):
                shown += portion
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


@pytest.mark.req("OPS-02")
@pytest.mark.parametrize("command", FACTS)
def test_facts_are_json_also_where_a_command_is_told_so_last(house: Gateway, command: str) -> None:
    done = house.run(*command.split(), "--json", check=False)
    assert done.returncode <= 1, done.stderr
    assert isinstance(json.loads(done.stdout), dict | list)


def test_an_export_to_a_file_says_as_json_what_it_came_to(house: Gateway) -> None:
    told = house.json("consent", "export", "--output", "opt-ins.csv")
    lines = (house.folder / "opt-ins.csv").read_text().splitlines()
    assert told["lines"] == len(lines) - 1 == len(house.json("consent", "export"))
    assert house.json("consent", "export")[0]["address"] == lines[1].split(",")[0]


@pytest.mark.req("OPS-02")
def test_check_tells_programs_too_what_is_wrong_with_a_configuration(house: Gateway, rewritten: None) -> None:
    replace(house, "hostname", "hostnam")
    replace(house, 'class = "account"', 'class = "acount"')
    done = house.run("check", "--json", check=False)
    assert done.returncode == 78
    problems = json.loads(done.stdout)
    assert {one["state"] for one in problems} == {"problem"}
    assert any('did you mean "hostname"' in one["told"] for one in problems)
    assert any("streams.billing.class" in one["told"] for one in problems)


@pytest.mark.req("OPS-02")
@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        ("statu", 2, "did you mean status?"),
        ("logins ad", 2, "Did you mean 'add'?"),
        (f"explain {PERSON}", 2, "an address is explained with --topic"),
        (f"consent show nobody-{PERSON}", 1, "nothing is known of"),
        ("explain 01M8KJBGJ6HS9SD98PXY407HFY", 1, "is on record"),
        ("backup nowhere/backup.tar.gz", 1, "nowhere is no folder"),
        (f"explain ann --topic {TOPIC}", 2, "ann: an address needs"),
        ("explain <1@example.org> ann", 2, "ann: an address needs"),
        ("suppressions list --reason no-consent", 2, "is not one of 'unsubscribed', 'objected'"),
        ("--config . status", 78, "Is a directory; name the file in it"),
        (
            "logins add x --streams newsletter --test-recipients ok@example.org,ann",
            2,
            "--test-recipients: ann: an address",
        ),
    ],
)
def test_a_mistake_is_a_sentence_and_a_status(house: Gateway, command: str, status: int, sentence: str) -> None:
    done = house.run(*command.split(), check=False)
    assert done.returncode == status
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_narrow_terminal_cuts_nothing_off(house: Gateway, columns: int) -> None:
    person = "somebody.with.a.long.name@mail.department.example.org"
    house.run("suppressions", "add", person, "--scope", "all-marketing", "--reason", "objected")
    shown = on_a_terminal(house, columns, "suppressions", "list")
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    assert person in "".join(shown.split())


def test_a_program_reads_each_row_on_one_line(house: Gateway) -> None:
    (row,) = [one for one in house.run("consent", "show", PERSON).stdout.splitlines() if "EXPRESS_OPT_IN" in one]
    assert "basis: express" in row and "operator: " in row


@pytest.mark.req("OPS-05")
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_data_folder_that_cannot_be_is_a_mistake_of_the_configuration(
    house: Gateway, rewritten: None, command: str
) -> None:
    replace(house, 'data_dir = "var"', 'data_dir = "people.txt"')
    done = house.run(command, check=False)
    assert done.returncode == 78
    assert "people.txt cannot be the data folder" in done.stderr and "data_dir" in done.stderr


def test_a_folder_without_a_store_is_named_with_what_makes_one(house: Gateway, rewritten: None) -> None:
    replace(house, 'data_dir = "var"', 'data_dir = "empty"')
    done = house.run("status", check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert "run assent migrate" in done.stderr and "Usage" not in done.stderr


def test_an_address_that_another_program_has_is_named_and_may_be_free_later(house: Gateway) -> None:
    with closing(socket.create_server(("127.0.0.1", house.feedback))):
        done = house.run("serve", check=False)
    assert (done.returncode, done.stdout) == (75, ""), "and no address is said to be listened on"
    assert f"127.0.0.1:{house.feedback} cannot be listened on: Address already in use; free it" in done.stderr


def test_a_part_that_has_no_address_is_a_mistake_of_the_configuration(house: Gateway, rewritten: None) -> None:
    replace(house, f'[console]\nlisten = ["127.0.0.1:{house.console}"]\n', "")
    done = house.run("console", check=False)
    assert (done.returncode, "there is nothing to listen on; add [console], with listen" in done.stderr) == (78, True)


@pytest.mark.req("OPS-02")
def test_programs_are_told_where_a_part_listens(house: Gateway) -> None:
    with subprocess.Popen(house.command("--json", "console"), cwd=house.folder, stdout=subprocess.PIPE) as process:
        told = process.stdout.readline() if process.stdout else b""
        process.terminate()
    assert json.loads(told) == {"listening": [{"listener": "console", "address": f"127.0.0.1:{house.console}"}]}


def test_all_of_ipv4_and_all_of_ipv6_can_be_listened_on_at_one_port(house: Gateway, rewritten: None) -> None:
    replace(house, f'"127.0.0.1:{house.submission}"', f'"0.0.0.0:{house.submission}", "[::]:{house.submission}"')
    replace(house, f'"127.0.0.1:{house.site}"', f'"[::]:{house.site}", "0.0.0.0:{house.site}"')
    house.start()
    for host in ("127.0.0.1", "::1"):
        with smtplib.SMTP(host, house.submission, timeout=10) as client:
            assert client.noop()[0] == 250
    for host in ("127.0.0.1", "[::1]"):
        assert fetch(f"http://{host}:{house.site}/healthz").status == 200
    assert house.stop() == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["status", "report", "consent export", "suppressions export --purpose scrubbing"])
def test_a_caller_who_has_closed_a_stream_still_gets_the_work_done(house: Gateway, command: str, closed: str) -> None:
    line = f"{shlex.join(house.command(*command.split()))} {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=house.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.req("OPS-02")
@pytest.mark.parametrize(
    "command",
    [
        "consent show nobody@example.net",
        "suppressions check nobody@example.net",
        "explain 01J00000000000000000000000",
        "logins passwd nobody",
        "streams release newsletter",
        "queue retry --stream newsletter",
        "webhooks test nobody",
        "backup people.txt",
    ],
)
def test_a_no_says_why_to_programs_too(house: Gateway, command: str) -> None:
    said, told = (house.run(*command.split(), *more, check=False) for more in ([], ["--json"]))
    assert said.returncode == told.returncode == 1
    assert json.loads(told.stdout)["why"] == said.stdout.strip()


NAMED = {
    "a login": "logins add NAME --streams newsletter",
    "a token": "tokens add NAME --scopes read",
    "a notice": f"notices add NAME --topic {TOPIC} --text people.txt --url https://example.com --control unticked"
    " --from 2026-01-01",
    "a version of the policy": "policy publish NAME --text people.txt --effective 2026-01-01",
    "a breach": "breach open NAME --what lost",
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, "") for command in NAMED.values()),
        *((NAMED["a login"], name) for name in ("shop ", "a\nb", "x" * 65)),
    ],
)
def test_what_nobody_could_read_or_type_again_is_no_name(house: Gateway, command: str, name: str) -> None:
    done = house.run(*(name if word == "NAME" else word for word in command.split()), check=False)
    assert done.returncode == 2 and f"{name!r} is no name" in done.stderr


@pytest.mark.req("OPS-05")
@pytest.mark.parametrize("folder", ["people.txt", "/proc/nowhere"])
def test_a_reload_that_cannot_have_its_data_folder_changes_nothing(
    house: Gateway, shared_sink: Sink, rewritten: None, folder: str
) -> None:
    house.start()
    try:
        assert house.process is not None
        crew = house.children()
        replace(house, 'data_dir = "var"', f'data_dir = "{folder}"')
        os.kill(house.process.pid, signal.SIGHUP)
        eventually(lambda: f"{folder} cannot be the data folder" in house.log.read_text())
        assert house.is_ready() and house.children() == crew
        shared_sink.clear()
        assert house.submit(invoice(PERSON), [PERSON], login="shop", sender="billing@example.com")[""][0] == 250
        shared_sink.wait_for(1)
    finally:
        house.stop()


def test_a_reload_says_that_other_addresses_take_a_restart(house: Gateway, rewritten: None) -> None:
    house.start()
    try:
        assert house.process is not None
        other = free_port()
        replace(house, f'"127.0.0.1:{house.console}"', f'"127.0.0.1:{other}"')
        os.kill(house.process.pid, signal.SIGHUP)
        told = "[console] names other addresses to listen on; that takes a restart"
        eventually(lambda: told in house.log.read_text())
        assert house.log.read_text().count("names other addresses") == 1, "the others are as they were"
        assert fetch(f"http://127.0.0.1:{house.console}/healthz").status == 200
    finally:
        house.stop()


def test_the_unit_starts_the_program_although_a_person_is_overdue_an_answer(house: Gateway) -> None:
    house.run("requests", "add", PERSON, "--right", "access", "--received", "2026-01-01")
    unit = [line.partition("=") for line in UNIT.read_text().splitlines() if line.startswith("Exec")]
    before, serve = ([what for name, _, what in unit if name == wanted] for wanted in ("ExecStartPre", "ExecStart"))
    assert len(serve) == 1 and before, "what is run first, and what is run"
    for line in before:
        words = shlex.split(line.removeprefix("-"))
        done = house.run(*words[3:], check=False)
        assert words[3:] == ["check"] and done.returncode == 1 and "deadline" in done.stdout
        assert line.startswith("-"), "systemd starts nothing after a failure"


@pytest.mark.req("OPS-08")
@pytest.mark.skipif(not can_record(), reason="strace is not installed, or may not trace (apt install strace)")
def test_the_whole_story_speaks_to_nobody_but_this_machine_and_dns(tmp_path: Path) -> None:
    trace = tmp_path / "calls"
    calls = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace))
    done = subprocess.run(
        [*calls, sys.executable, "-m", "gateway", "demo"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = trace.read_text()
    asked = set(re.findall(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|AF_INET6, ")([0-9a-f.:]+)', told))
    assert any(host == "127.0.0.1" for _, host in asked), "its own listeners"
    assert {(port, host) for port, host in asked if not ip_address(host).is_loopback and port != "53"} == set()
