"""Chaos that takes longer than that of `tests/chaos`: kills, outages, and stress through clients and workers."""

from __future__ import annotations

import pytest

from tests.chaos.budget_stress import stress_workers
from tests.chaos.duplicate_stress import stress_duplicates
from tests.chaos.environment import Environment
from tests.chaos.faults import (
    Fault,
    deliveries_repeated,
    disk_full,
    killed_at_every_point,
    nothing_unknown,
    postgres_frozen,
    postgres_restarted,
    valkey_flushed,
    valkey_killed,
    valkey_refusing,
    worker_frozen,
)
from tests.chaos.trial import run_trial


# The attempts of eight killed workers occupy the limit, until their leases have run out.
@pytest.mark.timeout(240)
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


def test_outages_of_the_broker(environment: Environment) -> None:
    """Repeated messages, a restart without data, FLUSHALL, and refused writes."""

    def inject(environment: Environment) -> list[str]:
        return [
            *deliveries_repeated(environment),
            *valkey_killed(environment),
            *valkey_flushed(environment),
            *valkey_refusing(environment),
        ]

    assert (
        run_trial(environment, Fault("broker", inject, nothing_unknown), seconds=0).violations == ()
    )


def test_outages_of_the_ledger(environment: Environment) -> None:
    """Frozen longer than any lease, restarted, and with a full disk: no attempt becomes UNKNOWN."""

    def inject(environment: Environment) -> list[str]:
        return [
            *postgres_frozen(environment),
            *postgres_restarted(environment),
            *disk_full(environment),
        ]

    assert (
        run_trial(environment, Fault("ledger", inject, nothing_unknown), seconds=0).violations == ()
    )


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
