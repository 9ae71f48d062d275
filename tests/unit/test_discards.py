"""Discarding dead letters: as many as the operator expects, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callgate.domain.calls import CallState
from callgate.domain.errors import CountDiffers
from callgate.domain.reports import By, CallFilter
from callgate.services.discards import DiscardService
from tests.support.ledger_under_test import RATE_LIMITED, LedgerUnderTest, open_memory

GROUP = CallFilter(state=CallState.DEAD, error_fingerprint=RATE_LIMITED.fingerprint("openai"))
BY = By("ann", "a model that is gone")


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger with three dead letters."""
    ledger = open_memory()
    for content in ("one", "two", "three"):
        ledger.dead(content)
    return ledger


def states(ledger: LedgerUnderTest) -> set[CallState]:
    """The states of all calls."""
    return {view.state for view in ledger.operations.calls(CallFilter(), limit=10)}


def test_a_group_of_the_expected_size_is_discarded(ledger: LedgerUnderTest) -> None:
    """All of it, for one reason."""
    discarded = DiscardService(ledger.ended).discard_group(GROUP, expected_count=3, by=BY)

    assert len(discarded) == 3
    assert states(ledger) == {CallState.REJECTED}


@pytest.mark.parametrize("expected_count", [0, 1, 2, 4, 10_001])
def test_a_group_of_another_size_is_left_alone(
    ledger: LedgerUnderTest, expected_count: int
) -> None:
    """The page was stale, or the number was a guess."""
    with pytest.raises(CountDiffers) as refused:
        DiscardService(ledger.ended).discard_group(GROUP, expected_count=expected_count, by=BY)

    assert states(ledger) == {CallState.DEAD}
    assert "match" in str(refused.value)


def test_an_empty_group_is_said_to_be_empty(ledger: LedgerUnderTest) -> None:
    """Nothing that matches is no success."""
    with pytest.raises(CountDiffers, match="nothing matches"):
        DiscardService(ledger.ended).discard_group(
            replace(GROUP, error_fingerprint="feed"), expected_count=3, by=BY
        )


def test_large_groups_are_discarded_in_batches(
    ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one statement and one action."""
    monkeypatch.setattr("callgate.services.discards.BATCH_MAX", 2)

    discarded = DiscardService(ledger.ended).discard_group(GROUP, expected_count=3, by=BY)

    actions = [a for a in ledger.operations.actions(limit=9) if a.by == BY]
    assert len(set(discarded)) == 3
    assert [action.detail["calls"] for action in actions] == [1, 2]
