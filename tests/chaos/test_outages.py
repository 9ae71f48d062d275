"""The broker is killed, emptied, or refuses: nothing is lost, overspent, unrecorded or paid twice."""

from __future__ import annotations

from tests.chaos.environment import Environment
from tests.chaos.faults import (
    Fault,
    deliveries_repeated,
    nothing_unknown,
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
