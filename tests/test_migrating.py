"""docs/migrating.md, word for word: its blocks are run in its order, in one shell, and what it shows must come out.

The usual ports are taken meanwhile, since they may be on any machine. What stands between `…` in a shown output, a time
or an id, may be anything; everything else, each count above all, must agree. The archive that the document talks of is
made here, of 20,000 people from a seeded generator.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pytest

DOCUMENT = Path(__file__).parent.parent / "docs" / "migrating.md"
USUAL_PORTS: Final = (2525, 2526, 8080, 8081)
DEADLINE: Final = 300.0

COMMON = (
    "Email Address,First Name,Last Name,MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,"
    "LATITUDE,LONGITUDE,GMTOFF,DSTOFF,TIMEZONE,CC,REGION,{}LAST_CHANGED,LEID,EUID,NOTES,TAGS"
)
LEFT = "UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_CAMPAIGN_ID,UNSUB_REASON,UNSUB_REASON_OTHER,"
CLEANED = "CLEAN_TIME,CLEAN_CAMPAIGN_TITLE,CLEAN_CAMPAIGN_ID,"


class Kind(NamedTuple):
    """One of the archive's tables: its name, how many people, the columns of its own, and how often a name repeats."""

    name: str
    people: int
    columns: str


TABLES = (
    Kind("subscribed", 17_000, ""),
    Kind("unsubscribed", 2_400, LEFT),
    Kind("cleaned", 600, CLEANED),
)


def make_archive(path: Path, seed: int = 2026) -> None:
    """Write a Mailchimp export as dialects tell it: three tables, opt-in times and addresses, some rows of old age."""
    chance = random.Random(seed)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind in TABLES:
            text = io.StringIO()
            table = csv.writer(text)
            table.writerow(COMMON.format(kind.columns).split(","))
            table.writerows(_row(chance, kind, n) for n in range(kind.people))
            archive.writestr(f"{kind.name}_members_export_5a1e0c77d2.csv", text.getvalue())


def _row(chance: random.Random, kind: Kind, n: int) -> list[str]:
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    address = f"{first}.{last}.{kind.name[0]}{n}@{chance.choice(HOSTS)}".lower()
    if kind.name == "cleaned" and n % 75 == 0:
        address = address.replace("@", ".@")  # which no mailbox may be called, and old lists are full of
    opted, confirmed = _opt_in(chance, n)
    ip = f"198.51.100.{chance.randrange(256)}"
    later = (opted or EARLIEST) + timedelta(days=chance.randrange(1, 900))
    own = [f"{later}", "Spring news", f"c{n:09x}", "NORMAL", ""][: kind.columns.count(",")]
    proof = [_told(opted), ip if opted else "", _told(confirmed), ip if confirmed else ""]
    place = ["51.4", "-0.1", "0", "1", "Europe/London", "GB", ""]
    return [address, first, last, "3", *proof, *place, *own, f"{later}", f"{n}", f"{n:010x}", "", '"reader"']


EARLIEST = datetime(2016, 3, 1, 9, 30)


def _opt_in(chance: random.Random, n: int) -> tuple[datetime | None, datetime | None]:
    """Of seventeen, nine confirmed, one was brought in from elsewhere without a time, the others signed up once."""
    if n % 17 == 16:
        return None, EARLIEST
    opted = EARLIEST + timedelta(minutes=chance.randrange(9 * 365 * 24 * 60))
    return opted, opted + timedelta(minutes=7) if n % 17 < 9 else opted


def _told(moment: datetime | None) -> str:
    return str(moment) if moment else ""


FIRST_NAMES = ("Ann", "Ben", "Chloe", "Dev", "Eva", "Farid", "Grace", "Hugo", "Ines", "Jun")
LAST_NAMES = ("Archer", "Bell", "Castro", "Dubois", "Evans", "Fischer", "Gupta", "Hansen", "Ito", "Jones")
HOSTS = ("example.org", "example.net", "mail.example.org", "post.example.net")


class Step(NamedTuple):
    """One block of commands, and what the document shows below it ("" where it shows nothing)."""

    commands: str
    shown: str


def steps() -> list[Step]:
    found = re.findall(r"^```sh\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", DOCUMENT.read_text("utf-8"), re.DOTALL | re.M)
    return [Step(*one) for one in found]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run the document in a folder of its own; return what each of its blocks printed."""
    folder = tmp_path_factory.mktemp("migrating")
    make_archive(folder / "mailchimp.zip")
    with usual_ports_taken():
        return _ran(f"\necho {END}\n".join(one.commands for one in steps()), folder).split(f"{END}\n")


END = "---- the block ends ----"


@contextmanager
def usual_ports_taken() -> Iterator[None]:
    """Listen on each of the usual ports on which nobody else does."""
    with ExitStack() as taken:
        for port in USUAL_PORTS:
            with suppress(OSError):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def _ran(script: str, folder: Path) -> str:
    """Run a script in one bash, which ends at the first command that fails; whatever it started ends with it."""
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=DEADLINE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    return output


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.req("OPS-04")
def test_what_the_document_shows_is_what_comes_out(printed: list[str]) -> None:
    assert len(printed) == len(steps()) >= 12
    for step, came in zip(steps(), printed, strict=True):
        pattern = re.escape("\n".join(lines_of(step.shown))).replace("…", ".*")
        assert re.fullmatch(pattern, "\n".join(lines_of(came))), f"{step.commands}\n{came}"


def figures(printed: list[str], command: str) -> list[dict[str, int]]:
    """Return what each block with a command counted, by the words that stand beside the figure."""
    chosen = [came for step, came in zip(steps(), printed, strict=True) if command in step.commands]
    return [_counted(one) for one in chosen]


def _counted(text: str) -> dict[str, int]:
    before = {words.strip(): count for words, count in re.findall(r"(?m)^ *([a-z][a-z ]*?) +([\d,]+)(?: |$)", text)}
    after = {words.strip(): count for count, words in re.findall(r"(?m)^ *([\d,]+)  (?:5\.7\.1 )?([a-z]+)$", text)}
    return {f"{name}": int(count.replace(",", "")) for name, count in (before | after).items()}


def test_the_counts_agree_with_each_other(printed: list[str]) -> None:
    looked, imported = figures(printed, "consent import")
    assert {**looked, "import": 1} == imported
    kinds = {name: imported[name] for name in ("suppressed", "confirmed", "express", "unproven")}
    assert sum(kinds.values()) + imported["rows that cannot be used"] == imported["rows"] == 20_000
    shadow, _, enforced, _ = figures(printed, "simulate")
    assert shadow["only in shadow mode"] == enforced["unproven"] == kinds["unproven"]
    assert shadow["would get it"] - enforced["would get it"] == kinds["unproven"]
    assert enforced["would get it"] == kinds["confirmed"] + kinds["express"]
    assert enforced["unsubscribed"] + enforced["bounced"] == kinds["suppressed"]
    for told in (shadow, enforced):
        assert told["recipients"] + told["not usable"] == 20_000


def test_what_simulate_says_of_the_sample_is_what_smtp_answers(printed: list[str]) -> None:
    sent = 0
    for counted in figures(printed, "simulate --stream newsletter sample.txt"):
        assert counted["would get it"] == counted["accepted"]
        sent += counted["accepted"]
    assert sent == int(printed[-1].splitlines()[1])


def test_the_archive_has_the_columns_that_mailchimp_exports(tmp_path: Path) -> None:
    make_archive(tmp_path / "one.zip")
    make_archive(tmp_path / "other.zip")
    assert (tmp_path / "one.zip").stat().st_size == (tmp_path / "other.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        rows = [row for name in archive.namelist() for row in csv.DictReader(io.StringIO(archive.read(name).decode()))]
    assert len({row["Email Address"] for row in rows}) == 20_000
    assert all(None not in row and None not in row.values() for row in rows), "as many fields as the header names"
