"""Calls of many types of one organisation wait for places: none of the types is forgotten."""

from __future__ import annotations

from callgate.domain.calls import AttemptRef
from tests.contract.concurrency_steps import allow
from tests.contract.flow_steps import released, sent, succeeds, tried, waits
from tests.support.ledger_under_test import LedgerUnderTest

TYPES = [f"type {n:03}" for n in range(120)]
LOOKS = 60
"""A ledger may look at a hundred groups at a time."""


def test_no_call_type_is_forgotten(ledger: LedgerUnderTest) -> None:
    """The first and the last by name, whatever the others wait for."""
    allow(ledger, {}, {"": 1})
    running = {name: sent(ledger, f"runs {name}", call_type=name) for name in TYPES}
    waiting = {name: waits(ledger, f"waits {name}", call_type=name) for name in TYPES}

    for name in (TYPES[0], TYPES[-1], TYPES[60]):
        succeeds(ledger, running[name])
        found = [key for _ in range(LOOKS) for key in released(ledger)]
        assert found == [waiting[name]]
        assert isinstance(tried(ledger, waiting[name]), AttemptRef)
