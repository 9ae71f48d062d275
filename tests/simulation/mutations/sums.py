"""Planted defects of sums: what is lost, counted twice, or thought to be proven for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory import sums as memory_sums
from callgate.adapters.memory.tables import MemoryTables
from tests.simulation.mutations.registry import Patched, caught_by

_noted, _fold = memory_sums.noted, memory_sums.fold


def noting(change: Any) -> Patched:
    """Have the deltas that a change appends be other ones."""

    @contextmanager
    def noted(tables: MemoryTables, attempt: Any) -> Iterator[None]:
        was_posted, count = attempt.status.is_posted, len(tables.deltas)
        with _noted(tables, attempt):
            yield
        change(tables.deltas, count, was_posted)

    return patch.object(memory_posting, "noted", noted)


@caught_by("sums_equal_rows", pauses_while_asking=0.3)
def a_late_answer_appends_no_delta() -> Patched:
    """Only the first posting is thought to change a sum."""

    def lose(deltas: list[Any], count: int, was_posted: bool) -> None:
        if was_posted:
            del deltas[count:]

    return noting(lose)


@caught_by("sums_equal_rows", pauses_while_asking=0.3)
def the_old_outcome_is_not_subtracted() -> Patched:
    """What was unknown stays in the sums beside what is known now."""

    def keep(deltas: list[Any], count: int, was_posted: bool) -> None:
        if was_posted and len(deltas) > count + 1:
            del deltas[count]

    return noting(keep)


@caught_by("sums_equal_rows")
def a_delta_is_folded_twice() -> Patched:
    """The sums are written, and the deltas are deleted in another transaction that is lost."""

    def fold(tables: MemoryTables, limit: int) -> int:
        kept = list(tables.deltas)
        moved = _fold(tables, limit)
        tables.deltas = kept
        return moved

    return patch.object(memory_sums, "fold", fold)


@caught_by("a_seal_is_true", pauses_while_asking=0.3, lost_at_pop=0.5)
def a_seal_is_a_lock() -> Patched:
    """A quarter hour that was proven is thought to be over."""

    def fold(tables: MemoryTables, limit: int) -> int:
        kept = dict(tables.seals)
        moved = _fold(tables, limit)
        tables.seals.update(kept)
        return moved

    return patch.object(memory_sums, "fold", fold)
