"""Answers that are checked against a JSON Schema, and the result of the check."""

from __future__ import annotations

from dataclasses import dataclass, field

from callgate.domain.errors import CheckerUnavailable, OutputUnchecked


@dataclass(frozen=True, slots=True)
class Answer:
    """The texts of one call's reply, and the JSON Schema that they must fit."""

    org_id: str
    schema: str = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    complaints_max: int = 1
    """How many violations are worth looking for."""


SchemaResult = str | None | OutputUnchecked | CheckerUnavailable
"""
Where an answer breaks its schema, one violation per line (a path, never the text itself); None if it fits.

`OutputUnchecked`: this answer can never be checked. `CheckerUnavailable`: it cannot be checked now.
"""
