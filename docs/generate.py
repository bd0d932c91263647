"""`make docs`: write the documents that the program itself can tell.

What stands there is what `--help`, the table of keys and the files about other systems say; tests compare them, so
that neither can be wrong alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from docs import classification, placeholders, vendors
from gateway.cli import assent
from gateway.config import dialects
from gateway.config import reference as keys
from gateway.placeholders import every

COMMANDS = Path(__file__).with_name("commands.md")
CONFIGURATION = Path(__file__).with_name("configuration.md")
VENDOR_HEADERS = Path(__file__).with_name("vendor-headers.md")
PLACEHOLDERS = Path(__file__).with_name("placeholders.md")
CLASSIFICATION = Path(__file__).with_name("classification.md")
DECISIONS = Path(__file__).with_name("decisions")

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


def vendor_headers() -> str:
    """Return the page about other systems' headers as Markdown."""
    (decision,) = DECISIONS.glob("*-other-systems-headers.md")
    return vendors.page(dialects.vendors(), str(int(decision.name[:4])), f"decisions/{decision.name}")


def main() -> None:
    COMMANDS.write_text(reference(assent, "assent"), "utf-8")
    CONFIGURATION.write_text(keys(), "utf-8")
    VENDOR_HEADERS.write_text(vendor_headers(), "utf-8")
    PLACEHOLDERS.write_text(placeholders.page(every()), "utf-8")
    CLASSIFICATION.write_text(classification.page(), "utf-8")


if __name__ == "__main__":
    main()
