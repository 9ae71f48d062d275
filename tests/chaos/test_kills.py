"""Workers are killed at every point: nothing is lost, overspent, unrecorded, or paid twice without an UNKNOWN."""

from __future__ import annotations

import pytest

from tests.chaos.environment import Environment
from tests.chaos.faults import Fault, killed_at_every_point, worker_frozen
from tests.chaos.trial import run_trial

# The attempts of eight killed workers occupy the limit, until their leases have run out.
pytestmark = pytest.mark.timeout(240)


def test_workers_killed_at_every_named_point(environment: Environment) -> None:
    """One worker dies at each point, under one load; then one is frozen until its attempts expire."""

    def inject(environment: Environment) -> list[str]:
        return [*killed_at_every_point(environment), *worker_frozen(environment)]

    evaluation = run_trial(
        environment, Fault("every point, and a frozen worker", inject), seconds=0
    )

    assert evaluation.violations == ()
    assert evaluation.duplicates_unknown > 0, "no worker died between a request and its record"
    assert evaluation.link_errors_owed > 0, "nothing was rejected, so no error link was due"
