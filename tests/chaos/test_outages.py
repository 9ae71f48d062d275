"""Servers are killed, emptied, refuse or freeze: nothing is lost, overspent, unrecorded or paid twice."""

from __future__ import annotations

from tests.chaos.environment import Environment
from tests.chaos.faults import (
    Fault,
    deliveries_repeated,
    disk_full,
    nothing_unknown,
    postgres_frozen,
    postgres_restarted,
    valkey_flushed,
    valkey_killed,
    valkey_refusing,
)
from tests.chaos.trial import run_trial


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
