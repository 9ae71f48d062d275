"""Sums of what attempts used: whatever changes a row changes them, and a proof finds where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.reports import By
from callgate.domain.sums import (
    QUARTERS_PER_DAY,
    CostFilter,
    CostLine,
    Measures,
    day_of,
    quarter_of,
)
from callgate.domain.unknown import SettleByHand
from callgate.services.audit import audit
from tests.support.ledger_under_test import (
    DAY_S,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_submission,
    a_success,
    an_answer,
)

BY_OUTCOME = ("kind", "outcome")


def used(ledger: LedgerUnderTest) -> dict[tuple[str | None, str | None], Measures]:
    """What was used, by kind and outcome."""
    return {(line.kind, line.outcome): line.used for line in ledger.operations.costs(by=BY_OUTCOME)}


def folded(ledger: LedgerUnderTest) -> int:
    """Move all deltas into the sums."""
    return ledger.sums.fold_sums(limit=1_000)


def a_late_answer(ledger: LedgerUnderTest) -> None:
    """An attempt that was given up, and posted again with its real cost."""
    ref = ledger.running("late")
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))


def by_hand(ledger: LedgerUnderTest) -> None:
    """An attempt whose bill was entered by hand."""
    ref = ledger.running("by hand")
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    settle = SettleByHand(ref.attempt_id, 100, 40)
    ledger.operations.settle_by_hand([settle], by=By("ann", "invoice 7"))


def duplicates(ledger: LedgerUnderTest) -> None:
    """One joined, one replayed, and one of a dead call."""
    ref = ledger.running("twice")
    ledger.submit(a_submission("twice"))
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60))
    ledger.submit(a_submission("twice"))
    ledger.dead("dead")
    ledger.submit(a_submission("dead"))


HISTORIES = [a_late_answer, by_hand, duplicates]


def test_a_late_answer_takes_back_what_was_unknown(ledger: LedgerUnderTest) -> None:
    """The sum of the old outcome is none, and the new one has the real cost."""
    a_late_answer(ledger)

    found = used(ledger)

    assert set(found) == {("first", "succeeded")}
    assert (found["first", "succeeded"].attempts, found["first", "succeeded"].posted_nano_usd) == (
        1,
        60,
    )
    assert found["first", "succeeded"].unknown_bills == 0


def test_a_bill_by_hand_is_unknown_no_more(ledger: LedgerUnderTest) -> None:
    """Its outcome stays; what it posted is what the provider billed."""
    by_hand(ledger)

    (found,) = used(ledger).values()

    assert (found.posted_nano_usd, found.unknown_bills, found.unknown_nano_usd) == (40, 0, 0)
    # No tokens were told, so no sum of tokens is complete.
    assert found.without_tokens == 1


def test_what_duplicates_saved_is_counted_when_they_are_answered(ledger: LedgerUnderTest) -> None:
    """One that joined by what its call cost in the end; one of a dead call saved nothing."""
    duplicates(ledger)

    found = used(ledger)

    assert found["collapsed", "joined"] == Measures(collapsed=1, saved_nano_usd=60)
    assert found["collapsed", "replayed"] == Measures(collapsed=1, saved_nano_usd=60)
    assert found["collapsed", "failed"] == Measures(collapsed=1)


@pytest.mark.parametrize("bring", HISTORIES)
def test_folding_changes_no_sum(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], None]
) -> None:
    """A delta counts in `attempt_delta` as it does in the sums; folding again moves nothing."""
    bring(ledger)
    before = used(ledger), ledger.operations.snapshot().budgets

    assert folded(ledger) > 0

    assert (used(ledger), ledger.operations.snapshot().budgets) == before
    assert folded(ledger) == 0
    assert audit(ledger.operations).is_clean


def test_deltas_are_folded_a_bounded_number_at_a_time(ledger: LedgerUnderTest) -> None:
    """Oldest first; what is left counts as it is."""
    for content in ("a", "b", "c"):
        ledger.succeeded(content, 10)

    assert ledger.sums.fold_sums(limit=2) == 2
    assert ledger.operations.costs()[0].used.posted_nano_usd == 30
    assert ledger.sums.fold_sums(limit=2) == 1


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize("bring", HISTORIES)
def test_rows_prove_the_sums(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], None], is_folded: bool
) -> None:
    """Folded or not, of this day and of one that is over."""
    bring(ledger)
    if is_folded:
        folded(ledger)
    assert audit(ledger.operations).is_clean
    ledger.age(2 * DAY_S)

    assert audit(ledger.operations).is_clean


def test_what_was_proven_is_sealed_and_not_proven_again(ledger: LedgerUnderTest) -> None:
    """Once its deltas are folded. Today has a quarter hour that is not over."""
    ledger.succeeded()
    ledger.age(2 * DAY_S)
    today = ledger.now().date()
    audit(ledger.operations)
    assert ledger.operations.sum_days() != [today], "deltas are in no seal"
    folded(ledger)

    report = audit(ledger.operations)

    assert report.is_clean
    assert report.proof.sealed >= QUARTERS_PER_DAY
    assert ledger.operations.sum_days() == [today]
    assert len(ledger.operations.sum_days(everything=True)) == 3


def test_a_later_delta_opens_its_quarter_hour_again(ledger: LedgerUnderTest) -> None:
    """A seal is no lock: a late answer is posted, and the day is proven once more."""
    ref = ledger.running()
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    ledger.age(2 * DAY_S)
    folded(ledger)
    audit(ledger.operations)
    sealed = ledger.operations.sum_days()

    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    assert len(sealed) == 1
    opened = ledger.operations.sum_days()
    assert len(opened) == 2
    folded(ledger)
    assert ledger.operations.sum_days() == opened
    since = day_of(ledger.now()) - timedelta(days=2)
    proof = ledger.operations.prove_sums(since, since + timedelta(days=1))
    assert (proof.is_clean, proof.sealed) == (True, QUARTERS_PER_DAY)


def test_an_attempt_belongs_to_the_quarter_hour_it_began_in(ledger: LedgerUnderTest) -> None:
    """Though it was posted much later."""
    ref = ledger.answered()
    ledger.age(7_200)
    ledger.settle(a_success(ref, 60))
    began = quarter_of(ledger.now() - timedelta(seconds=7_200))

    def spent(since_min: int, until_min: int) -> int:
        times = (began + timedelta(minutes=minutes) for minutes in (since_min, until_min))
        which = CostFilter(None, None, None, None, None, None, None, None, *times)
        return sum(line.used.posted_nano_usd for line in ledger.operations.costs(which))

    assert (spent(0, 15), spent(-60, 0), spent(30, 200)) == (60, 0, 0)
    assert spent(-3 * 24 * 60, 3 * 24 * 60) == 60
    folded(ledger)
    assert (spent(0, 15), spent(-60, 0), spent(-3 * 24 * 60, 3 * 24 * 60)) == (60, 0, 60)


@pytest.mark.parametrize(
    ("which", "by"),
    [
        (CostFilter(org_id=ORG), "org_id"),
        (CostFilter(call_type="triage"), "call_type"),
        (CostFilter(provider="azure"), "provider"),
        (CostFilter(model="o9"), "model"),
        (CostFilter(kind="retry"), "kind"),
        (CostFilter(outcome="failed"), "outcome"),
    ],
)
def test_costs_are_grouped_and_filtered_by_every_dimension(
    ledger: LedgerUnderTest, which: CostFilter, by: str
) -> None:
    """What a group shows is what the filter shows."""
    ledger.succeeded("a", 10, call_type="triage")
    ledger.succeeded("b", 20, provider="azure", model="o9")
    ref = ledger.waiting("c")
    again = ledger.claim(ledger.requeued(ref.key))
    ledger.record(an_answer(again))
    ledger.settle(a_failure(again, posted_nano_usd=5))
    value = getattr(which, by)

    def of_value(lines: list[CostLine]) -> list[Measures]:
        return [line.used for line in lines if getattr(line, by) == value]

    grouped = of_value(ledger.operations.costs(by=(by,)))
    assert grouped == of_value(ledger.operations.costs(which, by=(by,)))
    assert len(grouped) == len(ledger.operations.costs(which, by=(by,))) == 1
    assert ledger.operations.costs(CostFilter(tier="")) != []
    assert ledger.operations.costs(CostFilter(project="")) != []
    assert ledger.operations.costs(CostFilter(project="none")) == []
