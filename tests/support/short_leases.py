"""Workers whose lease is so short that a test sees it end, and calls that only such an end can free."""

from __future__ import annotations

from tests.support.deployment import Deployment, Process, until_equal

LEASE_S = 4.0
SHORT_LEASE = {
    "CALLGATE_WORKER__PROCESS_LEASE_S": str(LEASE_S),
    "CALLGATE_WORKER__ATTEMPT_GRACE_S": str(LEASE_S),
}
IN_FLIGHT_MAX = 20
PATIENCE_S = 45.0
"""Less than the deadline of a patient call: what is over by then was not saved by its deadline."""


def have_workers(deployment: Deployment, count: int) -> list[Process]:
    """Have so many workers with a short lease."""
    return deployment.have_workers(
        count,
        **SHORT_LEASE,
        CALLGATE_WORKER__CONCURRENCY=str(IN_FLIGHT_MAX),
    )


def in_flight(deployment: Deployment, count: int) -> None:
    """Wait until so many requests are at the provider."""
    until_equal(count, lambda: deployment.provider.counts().in_flight, PATIENCE_S)
