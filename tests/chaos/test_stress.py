"""Many processes on one tenant: no limit is passed, nobody is refused too early, and duplicates stay one call."""

from __future__ import annotations

from tests.chaos.budget_stress import stress_ledger, stress_workers
from tests.chaos.duplicate_stress import stress_collapse
from tests.chaos.environment import Environment


def test_clerks_never_pass_a_limit(environment: Environment) -> None:
    """Eight processes decide about five hundred calls at a time, straight on the ledger."""
    stress = stress_ledger(environment, rounds=3)

    assert stress.violations == ()
    assert stress.exact_fits > 0
    assert stress.succeeded > 0
    assert stress.decisions >= stress.submissions == 1_536


def test_workers_never_pass_a_limit(environment: Environment) -> None:
    """Eight client processes submit five hundred calls at once, for limits that fit a few; real workers run them."""
    stress = stress_workers(environment, rounds=1)

    assert stress.violations == ()
    assert stress.succeeded > 0


def test_duplicates_collapse_while_workers_are_killed(environment: Environment) -> None:
    """A thousand submissions of twenty requests from four processes."""
    verdict = stress_collapse(environment, submissions=1_000, requests=20, kills=2)

    assert verdict.violations == ()
    assert verdict.duplicates_unknown > 0, "no worker died with a call in flight"
