"""The check that a whole test run has executed every SQL function."""

from __future__ import annotations

from tests.support.executed_functions import FOLDER, missed_by

ALL = sorted(f"callgate_{path.name.removesuffix('.sql')}" for path in FOLDER.iterdir())


def test_a_run_that_executed_nothing_has_missed_everything() -> None:
    assert missed_by(()) == ALL


def test_a_function_that_postgres_does_not_count_was_executed_with_the_one_that_names_it() -> None:
    """`scopes_v1` is inlined."""
    assert "callgate_scopes_v1" not in missed_by(["callgate_lock_budgets_v1"])
    assert "callgate_scopes_v1" in missed_by(["callgate_submit_v2"])


def test_a_counted_function_must_be_executed_itself() -> None:
    """That another one names it is not enough."""
    assert "callgate_move_call_v1" in missed_by(["callgate_settle_v2"])
    assert missed_by(set(ALL) - {"callgate_settle_v2"}) == ["callgate_settle_v2"]
