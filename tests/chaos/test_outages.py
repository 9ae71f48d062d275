"""The servers go away, come back empty, refuse or freeze, and nothing is lost, overspent, unrecorded or paid twice."""

from __future__ import annotations

from tests.chaos.environment import Stage
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


def test_outages_of_the_broker(stage: Stage) -> None:
    """Deliveries repeated, kill -9 and restart without its data, FLUSHALL, and refusing every write."""

    def inject(stage: Stage) -> list[str]:
        return [
            *deliveries_repeated(stage),
            *valkey_killed(stage),
            *valkey_flushed(stage),
            *valkey_refusing(stage),
        ]

    assert run_trial(stage, Fault("broker", inject, nothing_unknown), seconds=0).violations == ()


def test_outages_of_the_ledger(stage: Stage) -> None:
    """Frozen past every lease, restarted, and without room to write: nothing becomes UNKNOWN of it."""

    def inject(stage: Stage) -> list[str]:
        return [*postgres_frozen(stage), *postgres_restarted(stage), *disk_full(stage)]

    assert run_trial(stage, Fault("ledger", inject, nothing_unknown), seconds=0).violations == ()
