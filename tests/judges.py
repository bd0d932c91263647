"""Three judges of DKIM signatures that are not ours: OpenDKIM, Mail::DKIM and npm mailauth.

All messages go to each judge in one process, for Node and Perl are slow to start. A judge that is not installed is a
reason to skip, which CI counts as a failure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.copies_under_test import PEERS, mailauth_judges

Judgements = list[dict[str, str]]
"""For each message, what came of each judge's look at our signatures: "pass", or what it says else."""


def three_judges(contents: Sequence[bytes], records: Mapping[str, str], scratch: Path) -> Judgements:
    """Have every message judged; `records` is what DNS publishes, by name: signatures by other keys do not count."""
    files = [scratch / f"{n:05}.eml" for n in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    judged = {
        "opendkim": opendkim_judges(files, records, scratch),
        "mailauth": [_result(one, records) for one in mailauth_judges(files, dict(records), scratch)],
        "mail::dkim": [_result(one, records) for one in _perl_judges(files, records, scratch)],
    }
    return [{judge: told[n] for judge, told in judged.items()} for n in range(len(files))]


def dissenters(names: Iterable[str], judgements: Judgements) -> dict[str, dict[str, str]]:
    """Return the messages, by name, that a judge does not accept, with what it says."""
    found = {
        name: {judge: told for judge, told in one.items() if told != "pass"}
        for name, one in zip(names, judgements, strict=True)
    }
    return {name: told for name, told in found.items() if told}


def _result(signatures: Sequence[Mapping[str, str]], records: Mapping[str, str]) -> str:
    """Return "pass" where there is a signature by one of the keys, and each of those is accepted."""
    ours = [one for one in signatures if f"{one['selector']}._domainkey.{one['domain']}" in records]
    told = [f"{one['result']} {one['comment']}" for one in ours]
    bad = [one for one in told if not one.startswith("pass")]
    return bad[0] if bad else "pass" if told else "no signature"


def opendkim_judges(files: Sequence[Path], records: Mapping[str, str], scratch: Path) -> list[str]:
    """Run the daemon's own test of files, which tells of each one by its name.

    It ends at a file that it cannot read; then it is run again for those that follow.
    """
    program = shutil.which("opendkim", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("opendkim is not installed (Debian package opendkim)")
    keys, settings = scratch / "keys.txt", scratch / "opendkim.conf"
    keys.write_text("".join(f"{name} {record}\n" for name, record in records.items()))
    settings.write_text(f"Mode v\nSyslog no\nTestPublicKeys {keys}\n")
    succeeded, judged = set[str](), 0
    while judged < len(files):
        names = ",".join(file.name for file in files[judged:])
        done = subprocess.run(
            [program, "-x", str(settings), "-v", "-t", names], cwd=scratch, capture_output=True, text=True, timeout=120
        )
        told = done.stdout + done.stderr
        succeeded |= set(re.findall(r"(?m)^opendkim: (\S+): verification \(.*\) succeeded", told))
        last = re.findall(r"(?m)^opendkim: (\S+)\.eml: ", told)[-1]
        judged = len(files) if done.returncode == 0 else int(last) + 1
    return ["pass" if file.name in succeeded else "not verified" for file in files]


def _perl_judges(files: Sequence[Path], records: Mapping[str, str], scratch: Path) -> list[list[dict[str, str]]]:
    probe = subprocess.run(["perl", "-MMail::DKIM::Verifier", "-e1"], capture_output=True)
    if probe.returncode:
        pytest.skip("Mail::DKIM is not installed (Debian package libmail-dkim-perl)")
    keys = scratch / "keys.json"
    keys.write_text(json.dumps(records))
    command = ["perl", str(PEERS / "verify_dkim.pl"), str(keys), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    judged: list[list[dict[str, str]]] = json.loads(done.stdout)
    return judged
