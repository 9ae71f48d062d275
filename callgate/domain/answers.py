"""Answers that are checked against a JSON Schema, and what the check finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from callgate.domain.errors import CheckerUnavailable, OutputUnchecked


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one call, and the JSON Schema that it is to fit."""

    org_id: str
    schema: str = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)


SchemaResult = str | None | OutputUnchecked | CheckerUnavailable
"""
Where an answer first breaks its schema (a path, never the text itself), or None.

An `OutputUnchecked`: it could not be said, and never will. A `CheckerUnavailable`: it cannot be said now.
"""
