"""Many processes for one organisation: no limit is exceeded, and no call rejected too early."""

from __future__ import annotations

from tests.chaos.budget_stress import stress_ledger
from tests.chaos.environment import Environment


def test_ledger_processes_never_exceed_a_limit(environment: Environment) -> None:
    """Eight processes reserve and settle five hundred calls in each round."""
    stress = stress_ledger(environment, rounds=3)

    assert stress.violations == ()
    assert stress.exact_fits > 0
    assert stress.succeeded > 0
    assert stress.decisions >= stress.submissions == 1_536
