"""Workers die at every named point, and nothing is lost, overspent, unrecorded or paid twice without a reason."""

from __future__ import annotations

from tests.chaos.environment import Environment
from tests.chaos.faults import Fault, killed_at_every_point, worker_frozen
from tests.chaos.trial import run_trial


def test_workers_killed_at_every_named_point(environment: Environment) -> None:
    """A worker for each point, all under one load, each dead at its point; then one that is frozen past its lease."""

    def inject(environment: Environment) -> list[str]:
        return [*killed_at_every_point(environment), *worker_frozen(environment)]

    verdict = run_trial(environment, Fault("every point, and a zombie", inject), seconds=0)

    assert verdict.violations == ()
    assert verdict.duplicates_unknown > 0, "no death came between a request and its record"
    assert verdict.link_errors_owed > 0, (
        "nothing was rejected, so nobody had to be told of a failure"
    )
