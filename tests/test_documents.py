"""Reads the documents that can be wrong, and compares them with what they are about.

A command that README names must exist, a link must lead somewhere, a word that the glossary forbids must not stand in
the code, the settled format of a link must be the one that the code makes.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import KeyRing
from gateway.tokens import Unsubscribe, UnsubscribeTokens
from tests.requirements import MATRIX, read_matrix, unknown_ids

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {str(path.relative_to(ROOT)): path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
PROSE = [name for name in DOCUMENTS if name != "docs/requirements.md"]
PACKAGES = ("gateway", "unsubscribe_site")

every_document = pytest.mark.parametrize("name", DOCUMENTS)
every_prose = pytest.mark.parametrize("name", PROSE)


def text_of(name: str) -> str:
    return DOCUMENTS[name].read_text("utf-8")


def anchor_of(heading: str) -> str:
    """Return the fragment by which a heading is linked to, as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors_in(path: Path) -> set[str]:
    return {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)}


def code_in(text: str) -> list[str]:
    """Return the pieces of a document that are set as code: indented lines and what stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def forbidden_words() -> list[str]:
    """Return the glossary's words in bold in its column "we never say"."""
    rows = [line.split("|") for line in text_of("docs/glossary.md").splitlines() if line.startswith("| ")]
    return [word for row in rows for word in re.findall(r"\*\*(\w+)\*\*", row[3])]


def names_made(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives to things of its own; what a library calls its things is the library's."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                yield node.attr


def breaches(source: str) -> list[str]:
    forbidden = forbidden_words()
    return [name for name in names_made(ast.parse(source)) if any(word in name.lower() for word in forbidden)]


def claims_in_tests() -> Iterator[tuple[str, list[str]]]:
    """Yield what `req` marks claim, from the source, so that tests which are not collected here count too."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "req":
                yield path.name, [str(one.value) for one in node.args if isinstance(one, ast.Constant)]


def data_files() -> list[Path]:
    """Return what lies in the packages besides code and is known to git, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listed.stdout.splitlines() if not line.endswith(".py")]


def packaged_files() -> set[Path]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    patterns = [pattern.strip() for pattern in settings["options.package_data"]["*"].split(",")]
    folders = [init.parent for package in PACKAGES for init in (ROOT / package).rglob("__init__.py")]
    return {path for folder in folders for pattern in patterns for path in folder.glob(pattern)}


@every_document
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        reached = (DOCUMENTS[name].parent / path) if path else DOCUMENTS[name]
        assert reached.exists(), f"{name} links to {target}"
        assert not fragment or fragment in anchors_in(reached), f"{name} links to {target}"


@every_prose
def test_a_make_target_that_is_named_exists(name: str) -> None:
    targets = {word for code in code_in(text_of(name)) for word in re.findall(r"^make ([a-z]+)", code)}
    assert targets <= makefile_targets()


def test_readme_names_the_commands_of_the_first_minutes() -> None:
    named = {" ".join(code.split()[:2]) for code in code_in(text_of("README.md"))}
    assert {"make run", "make demo", "make test"} <= named


@every_prose
def test_a_file_of_ours_that_is_named_exists(name: str) -> None:
    mentioned = re.compile(r"(?:gateway|unsubscribe_site|tests|docs|deploy|\.ci)/[\w./-]*\w/?")
    named = {path for code in code_in(text_of(name)) for path in mentioned.findall(code) if code.startswith(path)}
    assert {path for path in named if not (ROOT / path).exists()} == set()


@every_document
def test_a_requirement_that_is_named_exists(name: str) -> None:
    known = {row.id for row in read_matrix(MATRIX.read_text("utf-8"))}
    sections = {id.rpartition("-")[0] for id in known}
    named = set(re.findall(r"\b([A-Z][A-Z0-9]+(?:-[A-Z]{2})?-\d{2})\b", text_of(name)))
    assert {id for id in named if id.rpartition("-")[0] in sections} <= known


def test_tests_claim_only_requirements_that_exist() -> None:
    known = {row.id for row in read_matrix(MATRIX.read_text("utf-8"))}
    assert unknown_ids(claims_in_tests(), known) == []


def test_a_claim_about_no_requirement_is_seen() -> None:
    assert unknown_ids([("test_it", ["UNS-11", "UNS-99"])], {"UNS-11"}) == [
        "test_it claims UNS-99, which docs/requirements.md does not have"
    ]


def test_no_requirement_stands_in_the_matrix_twice() -> None:
    ids = [row.id for row in read_matrix(MATRIX.read_text("utf-8"))]
    assert len(ids) == len(set(ids)) == 323


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_in_the_code_is_one_that_we_never_say(package: str) -> None:
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / package).rglob("*.py")}
    assert {name: found for name, source in sources.items() if (found := breaches(source))} == {}


def test_a_word_that_we_never_say_is_seen() -> None:
    assert breaches("class Blacklist:\n    def add(self, mail_from: str) -> None: self.upstream = mail_from") == [
        "Blacklist", "mail_from", "upstream",
    ]  # fmt: skip


def test_decisions_have_numbers_of_their_own_and_say_why() -> None:
    records = [name for name in DOCUMENTS if name.startswith("docs/decisions/")]
    numbers = [Path(name).name[:4] for name in records]
    assert len(numbers) == len(set(numbers))
    for name in records:
        assert {"context", "decision", "consequences"} <= anchors_in(DOCUMENTS[name]), name


def test_the_settled_format_of_links_is_what_the_code_makes() -> None:
    record = text_of("docs/decisions/0003-links-are-for-ever.md")
    tokens = UnsubscribeTokens(KeyRing({1: bytes(range(32))}))
    link = Unsubscribe(number=16, address_id=bytes(range(16)))
    assert re.findall(r"^ {4}url +(\S+)$", record, re.MULTILINE) == [tokens.for_url(link)]
    assert re.findall(r"^ {4}mail +(\S+)$", record, re.MULTILINE) == [tokens.for_local_part(link)]


def test_everything_that_the_program_reads_is_packaged() -> None:
    assert set(data_files()) - packaged_files() == set()


def promises() -> list[tuple[set[str], str]]:
    """Return the rows of docs/privacy.md: the requirements that each is about, and its whole text."""
    lines = [line for line in text_of("docs/privacy.md").splitlines() if line.startswith("| ")]
    return [(found, line) for line in lines if (found := set(re.findall(r"POL-\d\d", line)))]


def test_every_promise_of_the_policy_stands_in_the_privacy_page() -> None:
    known = {row.id for row in read_matrix(MATRIX.read_text("utf-8")) if row.id.startswith("POL-")}
    assert set().union(*(ids for ids, _ in promises())) == known


def test_a_promise_is_proved_where_the_privacy_page_says_or_is_not_kept_yet() -> None:
    claimed = {(path, one) for path, ids in claims_in_tests() for one in ids}
    for ids, line in promises():
        files = re.findall(r"`tests/([\w.]+)`", line)
        assert files or "**Not yet**" in line, line
        assert all((file, one) in claimed for file in files for one in ids), line
