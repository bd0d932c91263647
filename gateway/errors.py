"""The surprises that have a name. Expected outcomes are values (`model`), not exceptions."""

from __future__ import annotations


class Malformed(ValueError):
    """A peer broke its format. The message is one sentence, safe to show to that peer."""


class InvalidToken(ValueError):
    """This is not one of our links. Says no more, so that nothing can be learnt from it."""


class ConfigError(Exception):
    """The operator must edit something; carries every problem at once (exit 78)."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreUnavailable(Exception):
    """The store cannot answer or commit now: 451 at the door, a pause in delivery, exit 75."""


class KeyReused(Exception):
    """An idempotency key has come with another request before."""


class StoreFull(StoreUnavailable):
    """The disk takes no more: 452 at the door, until there is room again."""


class RelayUnavailable(Exception):
    """The smarthost cannot be reached or does not follow SMTP: every copy for it waits, one back-off."""
