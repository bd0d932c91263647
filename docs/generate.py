"""`make docs`: write the documents that the program itself can tell, docs/commands.md and docs/configuration.md.

What stands there is what `--help` and the table of keys say; tests compare them, so that neither can be wrong alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gateway.cli import assent
from gateway.config import reference as keys

COMMANDS = Path(__file__).with_name("commands.md")
CONFIGURATION = Path(__file__).with_name("configuration.md")

_OPENING = """# Commands

Written by `make docs` from what `assent COMMAND --help` says. Their use day by day: [operating.md](operating.md).
"""


def reference(program: click.Command, name: str) -> str:
    """Return the command reference of a program as Markdown: one section a command, with its help."""
    return "\n".join(
        [
            _OPENING,
            *(
                _section(context)
                for context in _walk(click.Context(program, info_name=name, **program.context_settings))
            ),
        ]
    )


def _walk(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of each command that is no group, and of the program itself."""
    if not isinstance(context.command, click.Group) or context.parent is None:
        yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _walk(click.Context(command, info_name=name, parent=context))


def _section(context: click.Context) -> str:
    context.terminal_width = 100
    return f"## `{context.command_path}`\n\n```text\n{context.get_help()}\n```\n"


def main() -> None:
    COMMANDS.write_text(reference(assent, "assent"), "utf-8")
    CONFIGURATION.write_text(keys(), "utf-8")


if __name__ == "__main__":
    main()
