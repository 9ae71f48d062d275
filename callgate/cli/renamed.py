"""Commands that were renamed: for one release the old name runs the new command, and says so."""

from __future__ import annotations

from collections.abc import Sequence

from callgate.cli.output import print_note

RENAMED = {
    ("dead", "stats"): ("dead-letters", "summary"),
    ("dead-letters", "stats"): ("dead-letters", "summary"),
    ("dead",): ("dead-letters",),
    ("budget",): ("budgets",),
    ("purge",): ("retention", "purge"),
}
"""The new name by the old one; longer names first."""


def new_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments with the new name of a command; a note on stderr says so."""
    for old, new in RENAMED.items():
        if tuple(arguments[: len(old)]) == old:
            print_note(f"`callgate {' '.join(old)}` was renamed: use `callgate {' '.join(new)}`")
            return [*new, *arguments[len(old) :]]
    return list(arguments)
