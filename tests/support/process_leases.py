"""Processes with leases on a ledger under test: they claim calls, live or die while time passes."""

from __future__ import annotations

from callgate.domain.calls import AttemptRef
from callgate.domain.ledger import Reserved
from tests.support.ledger_under_test import LedgerUnderTest, a_reserve

LENGTH_S = 8.0
"""Of every lease here, in seconds; an attempt of this suite may take `LEASE_S`, which is much longer."""
DEAD, REAPER = "host:1:dead", "host:2:reaper"


def pass_time(ledger: LedgerUnderTest, seconds: float, *alive: str) -> None:
    """Let time pass while some processes renew their leases every quarter."""
    for worker_id in alive:
        ledger.leases.renew(worker_id, LENGTH_S)
    step_s = LENGTH_S / 4
    for _ in range(round(seconds / step_s)):
        ledger.age(step_s)
        for worker_id in alive:
            ledger.leases.renew(worker_id, LENGTH_S)


def claimed_by(ledger: LedgerUnderTest, worker_id: str, content: str = "invoice") -> AttemptRef:
    """Have a process claim a call."""
    (outcome,) = ledger.reserve(a_reserve(ledger.queued(content), worker_id=f"{worker_id}/7"))
    assert isinstance(outcome, Reserved)
    return outcome.ref
