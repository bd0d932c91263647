"""The documents that `make docs` writes say what the program says, and the others name no command that it lacks."""

from __future__ import annotations

import re

import click
import pytest

from docs import classification, placeholders
from docs.generate import CLASSIFICATION, COMMANDS, PLACEHOLDERS, VENDOR_HEADERS, reference, vendor_headers
from gateway.cli import assent
from gateway.placeholders import every
from tests.test_documents import PROSE, code_in, text_of


@click.group(help="Mail that would break a promise cannot leave.")
def program() -> None: ...


@program.group()
def queue() -> None: ...


@queue.command(help="Show what waits.")
@click.option("--all", is_flag=True, help="What is settled too.")
def show(all: bool) -> None: ...


@program.command(hidden=True)
def secret() -> None: ...


def test_every_command_has_a_section_with_its_help() -> None:
    text = reference(program, "assent")
    assert "## `assent`" in text
    assert "## `assent queue show`\n\n```text\nUsage: assent queue show [OPTIONS]" in text
    assert "What is settled too." in text


def test_neither_groups_nor_hidden_commands_have_one() -> None:
    text = reference(program, "assent")
    assert "## `assent queue`\n" not in text
    assert "secret" not in text


def unknown_commands(text: str, known: set[str]) -> list[str]:
    """Return what a document calls a command and is none; what follows a command's name may be its arguments."""
    named = [found.group() for code in code_in(text) if (found := re.match(r"assent(?: [a-z]+)+", code))]
    return [name for name in named if not any(f"{name} ".startswith(f"{command} ") for command in known)]


def test_a_command_that_does_not_exist_is_seen() -> None:
    text = "`assent queue list` `assent queue lost` `assent explain 01J`\n\n    assent logins add shop --streams s\n"
    known = {"assent queue list", "assent explain", "assent logins add"}
    assert unknown_commands(text, known) == ["assent queue lost"]


def test_the_page_about_classification_says_what_judging_comes_to() -> None:
    assert CLASSIFICATION.read_text("utf-8") == classification.page(), "run `make docs`"


def test_the_command_reference_is_what_the_program_says() -> None:
    assert COMMANDS.read_text("utf-8") == reference(assent, "assent"), "run `make docs`"


@pytest.mark.parametrize("name", PROSE)
def test_a_command_that_is_named_exists(name: str) -> None:
    known = set(re.findall(r"^## `(assent .+)`$", reference(assent, "assent"), re.MULTILINE))
    assert unknown_commands(text_of(name), known) == []


def test_the_page_about_other_systems_headers_is_what_their_files_say() -> None:
    assert VENDOR_HEADERS.read_text("utf-8") == vendor_headers(), "run `make docs`"


def test_the_page_about_placeholders_is_what_their_file_says() -> None:
    assert PLACEHOLDERS.read_text("utf-8") == placeholders.page(every()), "run `make docs`"
