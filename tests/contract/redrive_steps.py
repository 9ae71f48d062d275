"""Shared steps of the contract tests of redrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID, uuid4

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.redrives import PostgresRedrives
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import Submitted
from callgate.domain.redrive_ports import RedrivesPort
from callgate.domain.redrive_rules import submission_id_of
from callgate.domain.redrives import (
    CALLS_MAX,
    DEFAULT_TERMS,
    NewRedrive,
    PricedCall,
    Redrive,
    RedriveOutcome,
    RedriveState,
    RedriveStep,
    RedriveTerms,
    StartRedrive,
    UnknownBills,
)
from callgate.domain.reports import By, CallFilter
from tests.support.ledger_under_test import LedgerUnderTest, a_submission

ANN = By("ann", "the provider is repaired")
DEAD = CallFilter(state=CallState.DEAD)
REFUSED = CallFilter(state=CallState.REJECTED)
LEASE_S = 60.0
WORST = 100


def redrives_of(ledger: LedgerUnderTest) -> RedrivesPort:
    """The redrives of a ledger under test."""
    if isinstance(ledger.ledger, MemoryLedger):
        return ledger.ledger.redrives
    return PostgresRedrives(cast(PostgresOperations, ledger.operations)._session)


def planned(
    ledger: LedgerUnderTest,
    selection: CallFilter = DEAD,
    *,
    calls_max: int = CALLS_MAX,
    prices: dict[int, PricedCall] | None = None,
) -> Redrive:
    """A redrive whose calls are priced, each at `WORST`."""
    port = redrives_of(ledger)
    redrive_id = port.plan(NewRedrive(uuid4(), selection, ANN, calls_max)).redrive_id
    while (step := port.take(lease_s=LEASE_S)) is not None:
        port.price(
            step, [(prices or {}).get(n) or PricedCall(n, WORST, 10, 5) for n, _ in step.calls]
        )
    return get(ledger, redrive_id)


def started(
    ledger: LedgerUnderTest,
    selection: CallFilter = DEAD,
    *,
    terms: RedriveTerms = DEFAULT_TERMS,
    unknown_bills: UnknownBills = UnknownBills.REFUSE,
) -> Redrive:
    """A running redrive of whatever is there."""
    seen = planned(ledger, selection)
    calls = seen.counts.pending
    calls -= seen.unknown if unknown_bills is UnknownBills.SKIP else 0
    return redrives_of(ledger).start(
        StartRedrive(seen.redrive_id, calls, ANN, terms, unknown_bills)
    )


def get(ledger: LedgerUnderTest, redrive_id: UUID) -> Redrive:
    """A redrive that exists."""
    seen = redrives_of(ledger).get(redrive_id)
    assert seen is not None
    return seen


def take(ledger: LedgerUnderTest) -> RedriveStep | None:
    """Take what is due."""
    return redrives_of(ledger).take(lease_s=LEASE_S)


def prepared(
    ledger: LedgerUnderTest, step: RedriveStep, contents: dict[CallKey, str]
) -> list[PricedCall]:
    """The calls of a step, ready to be released; `contents` says what each was submitted with."""
    return [
        PricedCall(
            n, WORST, 10, 5, submission=a_submission(
                contents[key], submission_id=submission_id_of(step.redrive_id, key),
                org_id=ledger.view(key).org_id, force=True, inherit_links=True,
            ),
        )
        for n, key in step.calls
    ]  # fmt: skip


def released(ledger: LedgerUnderTest, contents: dict[CallKey, str]) -> Sequence[Submitted]:
    """Take a running redrive and release what may be."""
    step = take(ledger)
    if step is None:
        return []
    assert step.state is RedriveState.RUNNING
    return redrives_of(ledger).release(step, prepared(ledger, step, contents))


def outcomes(ledger: LedgerUnderTest, redrive_id: UUID) -> list[tuple[RedriveOutcome, str | None]]:
    """What became of each call, oldest first."""
    calls = redrives_of(ledger).calls_of(redrive_id, limit=CALLS_MAX)
    return [(call.outcome, call.code) for call in calls]


def dead(ledger: LedgerUnderTest, *contents: str, **changes: str) -> dict[CallKey, str]:
    """Dead calls, by their keys, each older than the next."""
    found = {}
    for content in contents:
        found[ledger.dead(content, **changes).key] = content
        ledger.age(1)
    return found
