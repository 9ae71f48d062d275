"""Planted defects about what operators settle by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory import unknown as memory_unknown
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.unknown import HandOutcome, SettledByHand
from tests.simulation.mutations.registry import Patched, caught_by

_settle = memory_unknown.settle


def settling(change: Callable[[MemoryTables, Any, SettledByHand], None]) -> Patched:
    """Have something else happen beside each settlement by hand."""

    def settle(tables: MemoryTables, s: Any, *arguments: Any, **options: Any) -> SettledByHand:
        answer = _settle(tables, s, *arguments, **options)
        if answer.outcome is HandOutcome.SETTLED:
            change(tables, tables.attempts[s.attempt_id], answer)
        return answer

    return patch.object(memory_unknown, "settle", settle)


@caught_by("by_hand_only_what_was_seen", much_by_hand=1, no_usage=0.3)
def settle_by_hand_what_has_changed_since() -> Patched:
    """What was seen is not compared: of two operators the last one wins."""

    def settle(tables: MemoryTables, s: Any, *arguments: Any, **options: Any) -> SettledByHand:
        row = tables.attempts[s.attempt_id]
        seen = replace(s, seen_posted_nano_usd=row.posted_nano_usd or 0)
        return _settle(tables, seen, *arguments, **options)

    return patch.object(memory_unknown, "settle", settle)


@caught_by("figures_equal_rows", much_by_hand=1, dies_while_asking=0.3)
def settle_by_hand_in_the_budgets_of_today() -> Patched:
    """The money of yesterday's attempt is given back today."""

    def move(tables: MemoryTables, row: Any, answer: SettledByHand) -> None:
        change = (answer.posted_nano_usd or 0) - (answer.posted_before_nano_usd or 0)
        for budget_id in row.budget_ids:
            of = tables.budgets[budget_id]
            newest = tables.newest_budget[of.org_id, of.scope, of.window]
            tables.change_budget(budget_id, spent=-change)
            tables.change_budget(newest, spent=change)

    return settling(move)


@caught_by("freed_headroom_releases_the_oldest", much_by_hand=1, dies_while_asking=0.3)
def settling_by_hand_wakes_nobody() -> Patched:
    """What it frees is found by the timers."""
    return patch.object(memory_unknown, "running", lambda budgets, now: {})


@caught_by("a_late_answer_is_settled", much_by_hand=3, pauses_while_asking=0.3, lost_at_pop=0.5)
def settling_by_hand_drops_a_late_answer() -> Patched:
    """What an operator said is thought to be the last word."""

    def drop(tables: MemoryTables, row: Any, answer: SettledByHand) -> None:
        row.late_due_at = None

    return settling(drop)


@caught_by(
    "unknown_posts_the_hold", much_by_hand=3, pauses_while_asking=0.3, no_usage=0.6, seed=134
)
def a_guess_takes_the_operators_amount() -> Patched:
    """A late answer that does not say what it cost is posted at the whole hold again."""
    return patch.object(memory_posting, "is_bill_unknown", lambda status, anomalies: False)
