"""What is known of one log event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


Line = Mapping[str, Any]
"""The fields of one line."""
CauseOf = Callable[[Line], tuple[Any, ...]]
"""Reads from a line what its cause is."""


def cause(*names: str) -> CauseOf:
    """Lines with the same values in these fields have the same cause; without names all lines of the event do."""
    return lambda line: tuple(line.get(name) for name in names)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as the code logs it and the page of events shows it."""

    name: str
    """What happened: `noun.past_participle`."""
    level: Level
    field_names: str
    """The fields of its line, with spaces between them."""
    meaning: str
    remedy: str
    """What an operator should do; `NOTHING` if there is nothing to do."""
    counted_by: CauseOf | None = None
    """What can happen a thousand times a second is one line for each cause, then one a minute with the count."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields."""
        return tuple(self.field_names.split())


@dataclass(frozen=True, slots=True)
class Section:
    """The events of one part of callgate."""

    title: str
    events: tuple[Event, ...]


NOTHING = "Nothing."
