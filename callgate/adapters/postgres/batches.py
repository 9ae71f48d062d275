"""Split batches: by size before Postgres gets them, and in halves when Postgres refuses one of their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TypeVar

from callgate.domain.bounds import ROWS_MAX
from callgate.domain.errors import RowRefused

In = TypeVar("In")
Out = TypeVar("Out")
BATCH_MAX_BYTES = 4 * 2**20
"""Read or written by one statement, because a statement has a deadline. A heavier row is written alone."""


def written(
    batch: Sequence[In], run: Callable[[Sequence[In]], list[Out]], alone: Callable[[In, str], Out]
) -> list[Out]:
    """Write rows by statements that are not too heavy; see `bisected`."""
    answers: list[Out] = []
    start, weight = 0, 0
    for n, row in enumerate(batch):
        weight += _weight(row)
        if n > start and (weight > BATCH_MAX_BYTES or n - start == ROWS_MAX):
            answers += bisected(batch[start:n], run, alone)
            start, weight = n, _weight(row)
    return answers + bisected(batch[start:], run, alone)


def _weight(row: object) -> int:
    """The bytes of a row: of each column that is text or bytes."""
    columns = (getattr(row, field.name) for field in fields(row))  # type: ignore[arg-type]
    return sum(len(column) for column in columns if isinstance(column, str | bytes))


def bisected(
    batch: Sequence[In], run: Callable[[Sequence[In]], list[Out]], alone: Callable[[In, str], Out]
) -> list[Out]:
    """Run a batch. If a row is refused, halve the batch until the row stands alone, and answer `alone` for it."""
    if not batch:
        return []
    try:
        return run(batch)
    except RowRefused as exc:
        if len(batch) == 1:
            return [alone(batch[0], str(exc))]
        half = len(batch) // 2
        return bisected(batch[:half], run, alone) + bisected(batch[half:], run, alone)
