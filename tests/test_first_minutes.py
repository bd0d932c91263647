"""The first minutes with the program: init, check, dkim and demo, as an operator types them, each in its own folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import assent as program
from gateway.cli import demo
from gateway.cli.certificates import Authority
from tests.gateway_under_test import fetch

SECRETS = ["var/keys/addresses.keys", "var/keys/tokens.keys", "var/keys/ledger.pem"]
KEYS = ["var/dkim/example.com.s1.pem", "var/tls/server.key", "var/console.password"]


class Folder:
    """A folder with an installation, and the program run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"

    def assent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, cwd=self.path, text=True, capture_output=True, timeout=60)

    def facts(self, *arguments: str, status: int = 0) -> Any:
        done = self.assent("--json", *arguments)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    def findings(self, status: int = 0) -> dict[str, tuple[str, str]]:
        """Return what `check` found: how, and in which words, by what it looked at."""
        return {one["what"]: (one["state"], one["told"]) for one in self.facts("check", status=status)}

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def openssl(self, *arguments: str | Path) -> bytes:
        done = subprocess.run(["openssl", *map(str, arguments)], cwd=self.path, check=True, capture_output=True)
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[Path]:
        """Run the server, and give its log once it listens."""
        log = self.path / "serve.log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "gateway", "serve"]
            server = subprocess.Popen(command, cwd=self.path, stdout=file, stderr=file)
        try:
            self._await_listener(server, log)
            yield log
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, log.read_text()

    def _await_listener(self, server: subprocess.Popen[bytes], log: Path) -> None:
        port = int(re.findall(r'listen = \["127.0.0.1:(\d+)"\]', self.config.read_text())[0])
        deadline = time.monotonic() + 30
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as connection:
                    if connection.recv(4) == b"220 ":
                        return
            except OSError:
                time.sleep(0.05)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Any]:
    """A folder as the first `init` leaves it, and what it said; on ports that nobody else uses. Not to be changed."""
    folder = Folder(tmp_path_factory.mktemp("first"))
    told = folder.facts("init")
    for port in re.findall(r"127\.0\.0\.1:(\d+)", folder.config.read_text()):
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            chosen = str(free.getsockname()[1])
        folder.edit(f":{port}", f":{chosen}")
        told["try"] = told["try"].replace(f":{port}", f":{chosen}")
    return folder, told


@pytest.fixture
def folder(first: tuple[Folder, Any], tmp_path: Path) -> Folder:
    """A copy of what the first `init` leaves, to do anything with."""
    shutil.copytree(first[0].path, tmp_path / "copy")
    return Folder(tmp_path / "copy")


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def digests(folder: Folder) -> dict[str, str]:
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    return {str(path): f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files}


def numbered(problems: str) -> list[str]:
    return re.findall(r"^config\.toml:\d+: (.+)$", problems, re.MULTILINE)


# init


def test_init_makes_everything_that_check_asks_for(folder: Folder) -> None:
    found = folder.findings()
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert {"SQLite", "key of links", "DKIM key s1 of example.com", "sample newsletter of example.com"} <= found.keys()


def test_init_tells_what_it_made_where_to_connect_and_how_to_log_in(first: tuple[Folder, Any]) -> None:
    _, told = first
    assert {Path(path).name for path in told["made"]} >= {"config.toml", "example.com.s1.pem", "ca.pem", "assent.db"}
    assert told["addresses"].keys() == {"submission", "feedback", "console", "site", "smarthost"}
    assert [(one["name"], one["streams"]) for one in told["logins"]] == [
        ("marketing", ["newsletter"]),
        ("shop", ["billing"]),
    ]


@pytest.mark.req("WEB-15")
def test_nothing_that_init_made_can_be_read_by_others(folder: Folder) -> None:
    secrets = [path for path in folder.path.rglob("*") if path.is_file() and path.name != "config.toml"]
    assert len(secrets) >= len(SECRETS + KEYS)
    for path in (*secrets, *(path.parent for path in secrets)):
        if path.parent != folder.path.parent:
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_password_is_kept_nowhere(first: tuple[Folder, Any]) -> None:
    folder, told = first
    kept = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    assert b"marketing" in kept
    for login in told["logins"]:
        assert len(login["password"]) >= 20
        assert login["password"].encode() not in kept


def test_init_tells_where_to_look_and_the_password_that_opens_it(folder: Folder, first: tuple[Folder, Any]) -> None:
    pages = first[1]["pages"]
    assert (folder.path / "var" / "console.password").read_text() == f"{pages['password']}\n"
    told = b64encode(f"anybody:{pages['password']}".encode()).decode()
    port = re.findall(r"127\.0\.0\.1:(\d+)", folder.config.read_text())[-1]
    with folder.serving():
        seen = fetch(f"http://127.0.0.1:{port}/console", headers={"Authorization": f"Basic {told}"})
    assert (seen.status, pages["url"].endswith("/console")) == (200, True)


def test_a_second_init_changes_nothing_and_says_so(folder: Folder) -> None:
    before = digests(folder)
    again = folder.assent("init")
    assert again.returncode == 0 and "nothing has been changed" in again.stdout
    assert "password" not in again.stdout
    assert digests(folder) == before
    told = folder.facts("init")
    assert (told["made"], told["logins"], told["pages"], told["try"]) == ([], [], {}, "")


def test_init_makes_what_an_own_configuration_names_and_leaves_it_as_it_is(empty: Folder, folder: Folder) -> None:
    text = folder.config.read_text().replace("var/dkim/example.com.s1.pem", "keys/own.pem")
    empty.config.write_text(text.replace("var/tls/server", "tls/own"))
    before = empty.config.read_bytes()
    made = {Path(path) for path in empty.facts("init")["made"]}
    assert {
        empty.path / name for name in ("keys/own.pem", "tls/own.pem", "tls/own.key", "var/console.password")
    } <= made
    assert empty.config not in made and empty.config.read_bytes() == before
    assert all(state == "ok" for state, _ in empty.findings().values())


def test_init_chooses_another_port_where_the_usual_one_is_taken(empty: Folder) -> None:
    try:
        taken = socket.create_server(("127.0.0.1", 2525))
    except OSError:
        taken = socket.socket()  # somebody else has it, which serves as well
    with closing(taken):
        told = empty.facts("init")
    assert "submission" in told["moved_ports"]
    assert told["addresses"]["submission"] != ["127.0.0.1:2525"]
    ports = re.findall(r'listen = \["127.0.0.1:(\d+)"\]', empty.config.read_text())
    assert len(set(ports)) == 4


def test_a_folder_that_cannot_be_written_to_is_told_in_a_sentence(empty: Folder) -> None:
    done = empty.assent("--config", "missing/config.toml", "init")
    assert done.returncode == 1
    assert done.stderr == f"{empty.path}/missing/config.toml: No such file or directory\n"


@pytest.mark.parametrize("name", SECRETS)
def test_an_old_store_is_never_given_a_new_secret(folder: Folder, name: str) -> None:
    (folder.path / name).unlink()
    for command in ("init", "serve", "migrate"):
        done = folder.assent(command)
        assert done.returncode == 78 and f"{name}: No such file or directory; put back your copy of it" in done.stderr
    assert not (folder.path / name).exists()


@pytest.mark.parametrize("left", ["server.pem", "server.key"])
def test_init_does_not_pair_a_certificate_with_a_key_of_another_day(folder: Folder, left: str) -> None:
    other = {"server.pem": "server.key", "server.key": "server.pem"}[left]
    (folder.path / "var/tls" / other).unlink()
    before = digests(folder)
    done = folder.assent("init")
    assert done.returncode == 1 and f"{left} is there without" in done.stderr
    assert digests(folder) == before


@pytest.mark.parametrize(
    "name", [("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1"), ("-verify_ip", "::1")]
)
def test_who_trusts_the_authority_trusts_the_server_by_each_of_its_names(folder: Folder, name: tuple[str, str]) -> None:
    strictly = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "var/tls/ca.pem")
    assert folder.openssl(*strictly, *name, "var/tls/server.pem") == b"var/tls/server.pem: OK\n"


def test_the_server_certificate_ends_within_825_days_and_the_authority_outlives_it(folder: Folder) -> None:
    def days_left(name: str) -> int:
        until = folder.openssl("x509", "-in", f"var/tls/{name}", "-noout", "-enddate", "-dateopt", "iso_8601").decode()
        return (datetime.fromisoformat(until.strip().partition("=")[2]) - datetime.now(UTC)).days

    assert 820 < days_left("server.pem") <= 825
    assert 3600 < days_left("ca.pem") <= 3650


@pytest.mark.req("CLS-12")
def test_the_line_to_try_is_refused_on_a_fresh_install_with_the_reason(
    folder: Folder, first: tuple[Folder, Any]
) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    with folder.serving():
        done = subprocess.run(first[1]["try"], shell=True, cwd=folder.path, text=True, capture_output=True, timeout=60)
        refusal = re.search(
            r"^< (550 5\.7\.1 no-consent: .*decision ([0-9A-Z]{26}), see https://\S+)", done.stderr, re.M
        )
        assert refusal, done.stderr
        assert folder.assent("consent", "record", "ann@example.net", *_PROOF).returncode == 0
        subprocess.run(first[1]["try"], shell=True, cwd=folder.path, check=True, capture_output=True, timeout=60)


_PROOF = ("--topic", "product-announcements", "--basis", "express")


# a broken configuration


@pytest.mark.parametrize("command", [("check",), ("serve",), ("init",), ("dkim", "dns")])
def test_every_problem_of_a_configuration_is_told_with_its_line(folder: Folder, command: tuple[str, ...]) -> None:
    folder.edit("[site]", "[sight]")
    folder.edit('class = "account"', 'class = "acount"')
    folder.edit('hostname = "relay.example.com"', 'hostname = "relay"')
    done = folder.assent(*command)
    assert done.returncode == 78
    told = numbered(done.stderr)
    assert len(told) >= 4
    for words in ("hostname", "sight", "acount", "[site] is missing"):
        assert any(words in one for one in told), (words, told)
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_is_told_with_the_remedy(empty: Folder) -> None:
    done = empty.assent("check")
    assert done.returncode == 78 and "assent init" in done.stderr


@pytest.mark.req("BODY-07", "LAW-US-05")
@pytest.mark.parametrize("address", ['postal_address = ""', ""])
@pytest.mark.parametrize("command", ["check", "serve"])
def test_promotion_without_a_postal_address_does_not_start(folder: Folder, command: str, address: str) -> None:
    folder.edit('postal_address = "1 Main Street, Springfield IL 62701, USA"', address)
    done = folder.assent(command)
    assert done.returncode == 78
    assert any("postal_address" in one for one in numbered(done.stderr))


# check


@pytest.mark.req("WEB-15")
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_of_the_store_that_others_can_read_fails_check_and_start(folder: Folder, name: str) -> None:
    (folder.path / name).chmod(0o644)
    problems = [told for state, told in folder.findings(status=1).values() if state == "problem"]
    assert any(f"chmod 600 {folder.path / name}" in told for told in problems)
    assert folder.assent("serve").returncode == 78


@pytest.mark.req("WEB-15")
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_configured_key_that_others_can_read_fails_check_and_start(folder: Folder, name: str, command: str) -> None:
    (folder.path / name).chmod(0o644)
    done = folder.assent(command)
    assert done.returncode == 78
    assert any("chmod 600" in one and name in one for one in numbered(done.stderr))


@pytest.mark.req("DKIM-06")
@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_rsa_key_of_512_bits_does_not_start(folder: Folder, command: str) -> None:
    folder.openssl("genrsa", "-out", KEYS[0], "512")
    done = folder.assent(command)
    assert done.returncode == 78
    assert any("512 bits" in one for one in numbered(done.stderr))


@pytest.mark.req("DKIM-06")
def test_an_rsa_key_of_1024_bits_is_warned_of_and_works(folder: Folder) -> None:
    folder.openssl("genrsa", "-out", KEYS[0], "1024")
    found = folder.findings()
    assert found["DKIM key s1 of example.com"][0] == "warning"
    assert found["sample newsletter of example.com"][0] == "ok"
    with folder.serving() as log:
        assert "1024 bits" in log.read_text()


@pytest.mark.req("DKIM-06")
def test_an_rsa_key_of_2048_bits_is_what_init_makes_and_signs_with_sha256(folder: Folder) -> None:
    state, told = folder.findings()["DKIM key s1 of example.com"]
    assert state == "ok" and "rsa-sha256" in told
    assert b"2048 bit" in folder.openssl("rsa", "-in", KEYS[0], "-noout", "-text")


Pair = tuple[Path, Path]


def replaced_pair(folder: Folder, made_at: datetime, name: str) -> None:
    certificate, key = (folder.path / "var/tls/server.pem", folder.path / "var/tls/server.key")
    certificate.unlink()
    key.unlink()
    Authority(folder.path / "old-authority", made_at).issue(certificate, key, [name])


@pytest.mark.parametrize(
    ("age", "name", "state", "status"),
    [(826, "localhost", "problem", 1), (800, "localhost", "warning", 0), (0, "elsewhere.example", "problem", 1)],
    ids=["expired", "about to expire", "for another name"],
)
def test_a_certificate_that_does_not_do_is_found(folder: Folder, age: int, name: str, state: str, status: int) -> None:
    replaced_pair(folder, datetime.now(UTC) - timedelta(days=age), name)
    assert folder.findings(status)["certificate of the site"][0] == state


def test_check_knows_an_address_of_ours_from_one_that_another_program_has(folder: Folder) -> None:
    with folder.serving():
        ours = {what: one for what, one in folder.findings().items() if what.startswith("listener")}
    assert len(ours) == 4 and all(state == "ok" and "by Assent" in told for state, told in ours.values()), ours
    port = int(re.findall(r'listen = \["127.0.0.1:(\d+)"\]', folder.config.read_text())[0])
    with closing(socket.create_server(("127.0.0.1", port))):
        state, told = folder.findings(status=1)["listener of submission"]
    assert state == "problem" and f"127.0.0.1:{port} is in use by another program" in told


def spoil_ring(folder: Folder) -> None:
    (folder.path / "var/keys/tokens.keys").write_text("not a key\n")


def lose_people(folder: Folder) -> None:
    (folder.path / "var/assent.db").unlink()


def garble_spool(folder: Folder) -> None:
    (folder.path / "var/spool.db").write_bytes(b"this is no database" * 100)


def lose_dkim_key(folder: Folder) -> None:
    (folder.path / KEYS[0]).unlink()


def lead_links_to_plain_http(folder: Folder) -> None:
    folder.edit('public_url = "https://', 'public_url = "http://')


@pytest.mark.parametrize(
    ("spoil", "what", "words"),
    [
        (spoil_ring, "key of links", "not a key ring"),
        (lose_people, "store", "assent.db is not there"),
        (garble_spool, "store", "not a database"),
        (lose_dkim_key, "sample newsletter of example.com", "no key to sign it with"),
        (lead_links_to_plain_http, "sample newsletter of example.com", "link cannot stand"),
    ],
)
def test_what_is_broken_is_named_and_check_exits_1(
    folder: Folder, spoil: Callable[[Folder], None], what: str, words: str
) -> None:
    spoil(folder)
    rows = [(one["what"], one["told"]) for one in folder.facts("check", status=1) if one["state"] == "problem"]
    assert any(name == what and words in told for name, told in rows), rows


def test_check_changes_nothing(folder: Folder) -> None:
    before = digests(folder)
    folder.findings()
    assert digests(folder) == before


def test_people_get_a_table_with_a_state_in_each_line(folder: Folder) -> None:
    done = folder.assent("check")
    assert done.returncode == 0
    assert all(" ok " in line for line in done.stdout.splitlines()[3:-1])


# dkim


def test_a_new_key_is_told_with_its_record_and_works_as_the_line_says(folder: Folder) -> None:
    told = folder.facts("dkim", "new", "news.example.net", "--selector", "a1")
    path = Path(told["path"])
    assert path == folder.path / "var/dkim/news.example.net.a1.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folder.config.write_text(f"{folder.config.read_text()}\n{told['config']}\n")
    (published,) = folder.facts("dkim", "dns", "news.example.net")
    assert published["record"] == told["record"]
    assert folder.findings()["sample newsletter of news.example.net"][0] == "ok"


def test_the_record_publishes_the_other_half_of_the_key(folder: Folder) -> None:
    (told,) = folder.facts("dkim", "dns")
    assert told["name"] == "s1._domainkey.example.com"
    version, kind, public = told["record"].split("; ")
    assert (version, kind) == ("v=DKIM1", "k=rsa")
    assert b64decode(public.removeprefix("p=")) == folder.openssl("rsa", "-in", KEYS[0], "-pubout", "-outform", "DER")


def test_the_zone_line_is_cut_into_strings_that_dns_can_carry(folder: Folder) -> None:
    (told,) = folder.facts("dkim", "dns", "example.com")
    line = folder.assent("dkim", "dns").stdout.rstrip("\n")
    strings = re.findall(r'"([^"]*)"', line)
    assert line.startswith("s1._domainkey.example.com. IN TXT ( ") and line.endswith(" )")
    assert max(map(len, strings)) <= 255 and "".join(strings) == told["record"]


def test_a_second_key_of_a_domain_stands_beside_the_first(folder: Folder) -> None:
    told = folder.facts("dkim", "new", "example.com", "--selector", "e1", "--ed25519")
    assert told["algorithm"] == "ed25519-sha256"
    text = folder.config.read_text()
    start, end = text.index('[dkim."example.com"]'), text.index("[topics.")
    folder.config.write_text(f"{text[:start]}{told['config']}\n\n{text[end:]}")
    assert {one["selector"] for one in folder.facts("dkim", "dns")} == {"e1", "s1"}
    state, words = folder.findings()["sample newsletter of example.com"]
    assert state == "ok" and "e1, not verified here and s1, verified" in words


def test_a_key_is_never_overwritten(folder: Folder) -> None:
    before = digests(folder)
    done = folder.assent("dkim", "new", "example.com", "--selector", "s1")
    assert done.returncode == 1 and "already" in done.stdout
    assert digests(folder) == before


def test_a_key_that_the_configuration_names_and_misses_is_made_there(folder: Folder) -> None:
    (folder.path / KEYS[0]).unlink()
    told = folder.facts("dkim", "new", "EXAMPLE.com")
    assert (told["selector"], told["path"], told["config"]) == ("s1", str(folder.path / KEYS[0]), "")
    assert folder.findings()["DKIM key s1 of example.com"][0] == "ok"


def test_the_selector_of_a_new_key_is_this_months_unless_told(folder: Folder) -> None:
    assert re.fullmatch(r"s20\d\d[01]\d", folder.facts("dkim", "new", "example.org")["selector"])


@pytest.mark.parametrize(
    "wrong", [("../../evil.example", "s1"), ("example.com", "../s1"), ("", "s1"), ("example", "s")]
)
def test_what_is_no_domain_or_selector_names_no_file(folder: Folder, wrong: tuple[str, str]) -> None:
    before = digests(folder)
    done = folder.assent("dkim", "new", wrong[0], "--selector", wrong[1])
    assert done.returncode == 2 and "Error:" in done.stderr
    assert digests(folder) == before


def test_a_domain_without_a_key_has_no_record(folder: Folder) -> None:
    done = folder.assent("dkim", "dns", "example.org")
    assert done.returncode == 1 and "example.org" in done.stdout


# demo


@pytest.mark.req("UNS-11", "UNS-34", "DKIM-01")
def test_the_demo_tells_the_whole_story_over_the_wire(empty: Folder) -> None:
    scratch = empty.path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo"],
        env={**os.environ, "TMPDIR": str(scratch)},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[2:] for line in done.stdout.splitlines() if line[0] in "✓✗"] == [title for title, _ in demo.STEPS]
    assert "✗" not in done.stdout
    for words in ("550 5.7.1 no-consent", "250 2.0.0 queued as", "List-Unsubscribe=One-Click", "HTTP/1.1 200", "valid"):
        assert words in done.stdout
    assert "550 5.7.1 unsubscribed" in done.stdout
    assert list(scratch.iterdir()) == []


def _nothing(story: demo.Story) -> str:
    return "nothing was done"


SKIPPED = [
    ("record_opt_in", "send_newsletter", "550 5.7.1 no-consent"),
    ("click_once", "be_refused_after_click", "250 2.1.5"),
]


@pytest.mark.parametrize(("left_out", "fails", "words"), SKIPPED)
def test_a_step_that_does_not_come_out_ends_the_demo_with_1(
    monkeypatch: pytest.MonkeyPatch, left_out: str, fails: str, words: str
) -> None:
    stories: list[demo.Story] = []

    class Watched(demo.Story):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            stories.append(self)

    steps = [(step.__name__, _nothing if step.__name__ == left_out else step) for _, step in demo.STEPS]
    monkeypatch.setattr(demo, "STEPS", steps)
    monkeypatch.setattr(demo, "Story", Watched)
    done = CliRunner().invoke(program, ["--json", "demo"])
    assert done.exit_code == 1
    last = json.loads(done.stdout)[-1]
    assert (last["step"], last["ok"]) == (fails, False) and words in last["words"]
    server = stories[0]._server
    assert server is not None and server.poll() is not None, "the server was left running"
    assert not stories[0].config.parent.exists()
