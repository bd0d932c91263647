"""docs/recipes.md, word for word: the real libraries and programs send through a running gateway with its blocks.

What is substituted is what the document says: host, port, passwords. Each tool runs as a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.copies_under_test import shown_texts
from tests.gateway_under_test import TOPIC, Gateway, eventually, field_of, link_of, token_of
from tests.peers.postfix import Postfix, why_not
from tests.sink import Received, Sink

HERE = Path(__file__).parent
PLAYERS = HERE / "recipes"
DOCUMENT = (HERE.parent.parent / "docs" / "recipes.md").read_text("utf-8")
PYTHON = HERE.parent.parent / "build" / "peers" / "bin" / "python"
PHP_LIBRARIES = Path("/usr/share/php")
STREAMS = "What all of them share"
WITH_STREAMS = (STREAMS, "Postfix")
"""The headings under which streams and logins stand."""

PATIENCE = 90.0
"""Seconds that a program may take from its start to its last message, on a machine that does much else."""

OFFLINE = "[dmarc]\nresolver_lifetime: 1s\norg_domain_data_url: http://127.0.0.1:9/\n"
"""What keeps Mailman from asking the world about the domains of a test."""

READER, STRANGER = "reader@example.org", "stranger@example.net"


class Block(NamedTuple):
    """What is set as code in the document: under which heading, in which language."""

    heading: str
    language: str
    code: str


def blocks() -> Iterator[Block]:
    heading = ""
    for match in re.finditer(r"(?ms)^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<code>.*?)^```$", DOCUMENT):
        heading = match["heading"] or heading
        if match["language"]:
            yield Block(heading, match["language"], match["code"])


BLOCKS = list(blocks())


def code(heading: str, language: str, name: str = "") -> str:
    """Return the one block under a heading in a language; with a name, the one that begins by naming that file."""
    found = [one.code for one in BLOCKS if (one.heading, one.language) == (heading, language)]
    (only,) = [one for one in found if name in one.splitlines()[0]]
    return only


class Recipe(NamedTuple):
    """A library's recipe: its heading, its files as the document names them, and the command that plays an order."""

    heading: str
    files: dict[str, str]
    command: tuple[str, ...]


RECIPES = {
    one.heading: one
    for one in (
        Recipe("Django", {"settings.py": "python", "mail.py": "python"}, (str(PYTHON), "play.py")),
        Recipe("Flask-Mail", {"mail.py": "python"}, (str(PYTHON), "play.py")),
        Recipe("nodemailer", {"mail.mjs": "js"}, ("node", "play.mjs")),
        Recipe(
            "PHPMailer",
            {"mail.php": "php"},
            ("php", "play.php", str(PHP_LIBRARIES / "libphp-phpmailer" / "autoload.php")),
        ),
        Recipe(
            "Symfony Mailer",
            {"mail.php": "php", "MAILER_DSN": "sh"},
            ("php", "play.php", str(PHP_LIBRARIES / "Symfony" / "Component" / "Mailer" / "autoload.php")),
        ),
    )
}
FILES = {"MAILER_DSN": ".env"}
each_recipe = pytest.mark.parametrize("name", RECIPES)


def need(recipe: Recipe) -> None:
    program, *arguments = recipe.command
    if not shutil.which(program) or not all(Path(one).exists() for one in arguments[1:]):
        pytest.skip(f"{recipe.heading} is not installed (tests/peers)")
    if program == "node" and not (HERE / "node_modules" / "nodemailer").is_dir():
        pytest.skip("npm nodemailer is not installed (tests/peers)")


# -- the house


class House(NamedTuple):
    """The gateway as the document configures it, and the smarthost behind it."""

    gateway: Gateway
    sink: Sink

    def fill_in(self, text: str, login: str = "tool") -> str:
        """Put in what the document says is put in."""
        known = {"relay.example.com": "localhost", "2525": str(self.gateway.submission)}
        known["PASSWORD"] = self.gateway.passwords[login]
        return re.sub(rf"\b(?:{'|'.join(map(re.escape, known))})\b", lambda found: known[found[0]], text)

    def environment(self) -> dict[str, str]:
        certificate = str(self.gateway.folder / "server.pem")
        return {**os.environ, "SSL_CERT_FILE": certificate, "NODE_EXTRA_CA_CERTS": certificate}

    def run(self, folder: Path, command: Sequence[str], order: Any = None) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=120,
            env=self.environment(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(self, recipe: Recipe, folder: Path, *order: tuple[str, str]) -> list[list[str]]:
        """Have a recipe send newsletters and receipts; return what it answers about each."""
        need(recipe)
        for file, language in recipe.files.items():
            text = self.fill_in(code(recipe.heading, language, file))
            (folder / FILES.get(file, file)).write_text(text)
        program, player, *more = recipe.command
        shutil.copy(PLAYERS / player, folder)
        if program == "node":
            (folder / "node_modules").symlink_to(HERE / "node_modules")
        return [list(one) for one in json.loads(self.run(folder, [program, player, *more], order))]

    def relayed(self, count: int) -> list[Received]:
        """Return what has been relayed since last asked, once it is so many, and nothing waits behind it."""
        eventually(lambda: len(self.sink.messages) >= count and self.gateway.json("queue", "list") == [], PATIENCE)
        taken = list(self.sink.messages)
        self.sink.messages.clear()
        assert len(taken) == count, [one.recipients for one in taken]
        return taken


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Sink() as sink:
        gateway = Gateway(tmp_path_factory.mktemp("recipes"), sink.url)
        gateway.prepare_files()
        gateway.write_config(streams="\n".join(code(one, "toml") for one in WITH_STREAMS))
        gateway.run("migrate")
        for line in "".join(code(one, "sh") for one in WITH_STREAMS).splitlines():
            _, _, _, name, option, streams, *more = line.split()
            assert line.startswith("assent logins add ") and option == "--streams"
            gateway.add_login(name, streams, *more)
        gateway.opt_in(READER)
        try:
            yield House(gateway.start(), sink)
        finally:
            gateway.close()


def assert_promotional(copy: Received) -> None:
    """Fail unless it is one reader's newsletter, with our link in header and body, and signed."""
    assert copy.recipients == (READER,)
    assert field_of(copy.content, "List-Unsubscribe-Post") and field_of(copy.content, "DKIM-Signature")
    assert link_of(copy.content).startswith("https://mail.example.com/u/")
    assert all(token_of(copy.content) in text for text in shown_texts(copy.content))
    assert field_of(copy.content, "Assent-Topic") == []


def assert_plain(copy: Received, to: str) -> None:
    assert copy.recipients == (to,)
    assert field_of(copy.content, "DKIM-Signature") and field_of(copy.content, "List-Unsubscribe") == []


# -- the libraries


@each_recipe
def test_a_library_hears_who_is_refused_and_the_rest_is_relayed(house: House, tmp_path: Path, name: str) -> None:
    order = [("newsletter", STRANGER), ("newsletter", READER), ("receipt", STRANGER)]
    assert house.play(RECIPES[name], tmp_path, *order) == [["refused", "no-consent"], ["sent", ""], ["sent", ""]]
    copies = house.relayed(2)
    assert_promotional(next(one for one in copies if one.recipients == (READER,)))
    assert_plain(next(one for one in copies if one.recipients == (STRANGER,)), STRANGER)


# -- the programs


@pytest.fixture
def newsletter(house: House, tmp_path: Path) -> list[str]:
    """Return the command that makes a project with django-newsletter, on Django's recipe, send to its readers."""
    if not PYTHON.exists():
        pytest.skip("django-newsletter is not installed (tests/peers)")
    (tmp_path / "settings.py").write_text(house.fill_in(code("Django", "python", "settings.py")))
    shutil.copy(PLAYERS / "play_newsletter.py", tmp_path)
    return [str(PYTHON), "play_newsletter.py", STRANGER, READER]


def test_django_newsletter_logs_who_is_refused_and_sends_to_the_rest(
    house: House, tmp_path: Path, newsletter: list[str]
) -> None:
    told = json.loads(house.run(tmp_path, newsletter))
    (line,) = told["logged"]
    assert told["is_sent"] and STRANGER in line and "failed with error" in line and "5.7.1 no-consent: " in line
    (copy,) = house.relayed(1)
    assert_promotional(copy)


class Mailman:
    """A Mailman of its own in a folder, with the list, settings and members that the document's commands make."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.folder = folder
        self._environment = house.environment() | {
            "MAILMAN_CONFIG_FILE": str(folder / "mailman.cfg"),
            "PYTHONPATH": str(folder),
            "PATH": f"{folder}:{os.environ['PATH']}",
        }

    def make(self) -> None:
        recipe = self.house.fill_in(code("Mailman 3", "ini"), login="lists")
        own = f"[mailman]\nlayout: here\n[paths.here]\nvar_dir: {self.folder}/var\n{OFFLINE}"
        (self.folder / "mailman.cfg").write_text(f"{own}{recipe}incoming: mailman.mta.null.NullMTA\n")
        (self.folder / "announcements.py").write_text(code("Mailman 3", "python"))
        (self.folder / "members.txt").write_text(f"{READER}\n{STRANGER}\n")
        program = self.folder / "mailman"
        program.write_text(f'#!/bin/sh\nexec {PYTHON.parent}/mailman --run-as-root "$@"\n')
        program.chmod(0o755)
        for line in code("Mailman 3", "sh").splitlines():
            self._run(*line.split())

    def post(self, subject: str) -> None:
        message = f"From: Editor <editor@example.com>\nTo: announce@lists.example.com\nSubject: {subject}\n\nHello!\n"
        self._run("mailman", "inject", "announce@lists.example.com", input=message)

    def start(self, ending: ExitStack) -> None:
        """Start the runners that mail passes on its way out, as `mailman start` does with these and others."""
        for one in ("virgin", "in", "pipeline", "out"):
            command = [str(PYTHON.with_name("runner")), "--runner", one]
            runner = subprocess.Popen(command, cwd=self.folder, env=self._environment, stderr=subprocess.DEVNULL)
            ending.callback(runner.wait, 60)
            ending.callback(runner.terminate)

    def queued(self, queue: str) -> int:
        return len(list((self.folder / "var" / "queue" / queue).glob("*.pck")))

    def _run(self, *command: str, input: str | None = None) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            input=input,
            text=True,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def mailman(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailman]:
    if not PYTHON.with_name("mailman").exists():
        pytest.skip("Mailman 3 is not installed (tests/peers)")
    mailman = Mailman(house, tmp_path_factory.mktemp("mailman"))
    mailman.make()
    with ExitStack() as ending:
        mailman.start(ending)
        yield mailman


def test_mailman_welcomes_everybody_and_announces_to_who_has_opted_in(house: House, mailman: Mailman) -> None:
    welcomes = house.relayed(2)
    assert {one.recipients for one in welcomes} == {(READER,), (STRANGER,)}
    assert all(field_of(one.content, "List-Unsubscribe") == [] for one in welcomes)
    mailman.post("Spring news")
    (copy,) = house.relayed(1)
    assert_promotional(copy)
    assert b"lists.example.com" not in field_of(copy.content, "List-Unsubscribe")[0]
    assert mailman.queued("retry") == 0


@pytest.fixture(scope="module")
def postfix(house: House) -> Iterator[Postfix]:
    if why_not():
        pytest.skip(why_not())
    with tempfile.TemporaryDirectory(prefix="assent-recipes-") as scratch, ExitStack() as ending:
        folder = Path(scratch)
        folder.chmod(0o755)
        certificate = shutil.copy(house.gateway.folder / "server.pem", folder)
        recipe = house.fill_in(code("Postfix", "ini")).replace("/etc/ssl/certs/ca-certificates.crt", certificate)
        running = Postfix(folder / "postfix", hostname="mta.example.com", more=f"{recipe}smtp_host_lookup = native\n")
        running.folder.mkdir()
        (running.folder / "relay").write_text(house.fill_in(code("Postfix", "text"), login="mta"))
        ending.callback(running.stop)
        yield running.start()


def hand_over(postfix: Postfix, reader: str) -> None:
    """Hand Postfix a newsletter, as an application on its machine does."""
    message = f"From: letters@news.example.com\nTo: {reader}\nSubject: Spring news\n\nHello!\n"
    with smtplib.SMTP("127.0.0.1", postfix.port) as client:
        assert client.sendmail("letters@news.example.com", [reader], message) == {}


def test_postfix_reports_who_is_refused_through_the_stream_for_reports(house: House, postfix: Postfix) -> None:
    for reader in (STRANGER, READER):
        hand_over(postfix, reader)
    report, copy = sorted(house.relayed(2), key=lambda one: one.envelope_from)
    assert_promotional(copy)
    assert_plain(report, "letters@news.example.com")
    assert report.envelope_from == ""
    assert b"MAILER-DAEMON@mta.example.com" in field_of(report.content, "From")[0]
    assert STRANGER.encode() in report.content and b"5.7.1 no-consent: " in report.content
    eventually(postfix.is_idle)


def test_wordpress_hook_makes_its_phpmailer_submit(house: House, tmp_path: Path) -> None:
    need(RECIPES["PHPMailer"])
    (tmp_path / "relay.php").write_text(house.fill_in(code("WordPress", "php")))
    shutil.copy(PLAYERS / "play_wordpress.php", tmp_path)
    house.run(tmp_path, ["php", "play_wordpress.php", RECIPES["PHPMailer"].command[2], READER])
    assert_plain(*house.relayed(1), READER)


def test_every_block_of_the_document_is_run() -> None:
    run = {(one, language) for one, recipe in RECIPES.items() for language in recipe.files.values()}
    run |= {(one, language) for one in WITH_STREAMS for language in ("toml", "sh")}
    run |= {("Postfix", "ini"), ("Postfix", "text"), ("WordPress", "php")}
    run |= {("Mailman 3", language) for language in ("ini", "python", "sh")}
    assert {(one.heading, one.language) for one in BLOCKS} == run
    assert TOPIC in code(STREAMS, "toml")


# -- while the streams are paused: from here on


@pytest.fixture(scope="module")
def paused(house: House) -> None:
    for stream in ("newsletter", "list"):
        house.gateway.run("streams", "pause", stream, "--why", "a test")


@each_recipe
def test_a_library_hears_that_it_must_come_again_later(house: House, paused: None, tmp_path: Path, name: str) -> None:
    order = [("newsletter", READER), ("receipt", READER)]
    assert house.play(RECIPES[name], tmp_path, *order) == [["later", "paused"], ["sent", ""]]
    assert_plain(*house.relayed(1), READER)


def test_django_newsletter_does_not_come_again(
    house: House, paused: None, tmp_path: Path, newsletter: list[str]
) -> None:
    told = json.loads(house.run(tmp_path, newsletter))
    assert told["is_sent"] and any("4.3.0 paused: " in line for line in told["logged"])
    assert house.relayed(0) == []


def test_mailman_keeps_what_must_come_again_later(house: House, paused: None, mailman: Mailman) -> None:
    mailman.post("Later news")
    eventually(lambda: mailman.queued("retry") == 1, PATIENCE)
    assert house.relayed(0) == []


def test_postfix_keeps_what_must_come_again_later(house: House, paused: None, postfix: Postfix) -> None:
    hand_over(postfix, READER)
    eventually(lambda: any("451 4.3.0 paused: " in why for why in postfix.waiting()), PATIENCE)
    assert house.relayed(0) == []
