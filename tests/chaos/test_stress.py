"""Many processes for one organisation: no limit is exceeded, no call rejected too early, duplicates stay one call."""

from __future__ import annotations

from tests.chaos.budget_stress import stress_ledger, stress_workers
from tests.chaos.duplicate_stress import stress_duplicates
from tests.chaos.environment import Environment


def test_ledger_processes_never_exceed_a_limit(environment: Environment) -> None:
    """Eight processes reserve and settle five hundred calls in each round."""
    stress = stress_ledger(environment, rounds=3)

    assert stress.violations == ()
    assert stress.exact_fits > 0
    assert stress.succeeded > 0
    assert stress.decisions >= stress.submissions == 1_536


def test_workers_never_exceed_a_limit(environment: Environment) -> None:
    """Eight client processes submit five hundred calls, for limits that fit a few."""
    stress = stress_workers(environment, rounds=1)

    assert stress.violations == ()
    assert stress.succeeded > 0


def test_duplicates_collapse_while_workers_are_killed(environment: Environment) -> None:
    """A thousand submissions of twenty requests from four processes."""
    evaluation = stress_duplicates(environment, submissions=1_000, requests=20, kills=2)

    assert evaluation.violations == ()
    assert evaluation.duplicates_unknown > 0, "no worker died with a call in flight"
