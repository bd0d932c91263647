"""Rooms of the command line: modules that are loaded when what is in them is asked for; the others cost no time.

The rule: whatever is loaded late is loaded here. It stays until the process ends, so nobody looks for garbage in it,
neither while it grows nor at the end; and processes that are forked share it.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


def room(name: str) -> Any:
    """Load a module of `gateway.cli`, if it is not there yet, and return it."""
    gc.disable()
    try:
        return import_module(f"{__package__}.{name}")
    finally:
        gc.freeze()
        gc.enable()


class Rooms(click.Group):
    """A group of which some commands are in rooms of their own: `rooms` maps a room to their names.

    A room adds its commands to the group when it is loaded, as every module does with its commands.
    """

    def __init__(self, *args: Any, rooms: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room_of = {command: name for name, commands in rooms.items() for command in commands.split()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands.keys() | self._room_of.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._room_of:
            room(self._room_of[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], self.list_commands(ctx), 1)
        if near and args[0] != near[0] and not ctx.resilient_parsing:
            raise click.UsageError(f"no such command: {args[0]}; did you mean {near[0]}?", ctx)
        return super().resolve_command(ctx, args)
