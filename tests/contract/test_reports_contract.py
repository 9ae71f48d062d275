"""Costs and the audit's snapshot, on both ledgers."""

from __future__ import annotations

from callgate.domain.reports import CallFilter, EndReason, UnprocessableMessage
from callgate.domain.sums import CostFilter, CostLine, Measures
from tests.support.ledger_under_test import (
    LIMIT,
    LINK,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
)

EVERYTHING = CallFilter()

# Costs.


def test_costs_sum_what_was_used(ledger: LedgerUnderTest) -> None:
    """Every attempt's money and tokens, and what duplicates did not cost."""
    first = ledger.succeeded("one", posted_nano_usd=60)
    ledger.submit(a_submission("one"), a_submission("one"))
    lost = ledger.lost("two")
    second = ledger.claim(ledger.requeued(lost.key))
    ledger.submit(a_submission("two"))
    ledger.record(an_answer(second, latency_ms=90))
    ledger.settle(a_success(second, 50))
    ledger.queued("three")

    assert first.key != second.key
    (line,) = ledger.operations.costs()
    assert line == CostLine(
        used=Measures(
            attempts=3, calls=2, posted_nano_usd=210, unknown_bills=1, unknown_nano_usd=100, without_tokens=1,
            input_tokens=100, cached_input_tokens=20, cache_write_tokens=16,
            cache_write_1h_tokens=6, output_tokens=40, reasoning_tokens=10, latency_ms=130, timed=2, collapsed=3,
            saved_nano_usd=2 * 60 + 150,
        ),
        succeeded=2, failed_nano_usd=0, retry_nano_usd=50, repair_nano_usd=0,
        org_id=ORG, call_type="extraction", provider="openai", model="gpt-4o-mini",
    )  # fmt: skip
    assert line.latency_ms_mean == 65


def test_costs_have_a_line_per_org_call_type_provider_and_model(ledger: LedgerUnderTest) -> None:
    """In that order, and for one organisation alone if asked."""
    ledger.set_budget(LIMIT, org_id="zeta")
    ledger.succeeded("a", org_id="zeta")
    ledger.succeeded("b", model="o9")
    ledger.succeeded("c", provider="azure")
    ledger.succeeded("d", call_type="triage")

    lines = ledger.operations.costs()

    assert [
        (c.org_id, c.call_type, c.provider, c.model, c.used.posted_nano_usd) for c in lines
    ] == [
        (ORG, "extraction", "azure", "gpt-4o-mini", 60),
        (ORG, "extraction", "openai", "o9", 60),
        (ORG, "triage", "openai", "gpt-4o-mini", 60),
        ("zeta", "extraction", "openai", "gpt-4o-mini", 60),
    ]
    assert [c.org_id for c in ledger.operations.costs(CostFilter(org_id="zeta"))] == ["zeta"]
    assert ledger.operations.costs(CostFilter(org_id="nobody")) == []


def test_a_latency_is_one_of_an_answer(ledger: LedgerUnderTest) -> None:
    """The mean of those attempts that were answered; a lost one has none."""
    for latency_ms in (10, 20):
        ref = ledger.running(f"took {latency_ms}", 10)
        ledger.record(an_answer(ref, latency_ms=latency_ms))
        ledger.settle(a_success(ref, 1))
    ledger.lost("lost")

    (line,) = ledger.operations.costs()

    assert (line.used.timed, line.latency_ms_mean) == (2, 15)


def test_a_call_that_was_never_sent_is_in_no_sum(ledger: LedgerUnderTest) -> None:
    """Sums are of attempts that are posted."""
    ledger.queued("queued")
    ledger.running("under way")

    assert ledger.operations.costs() == []


def test_only_a_success_saves_money(ledger: LedgerUnderTest) -> None:
    """Duplicates of a dead call were collapsed as well, but would have got nothing for their money."""
    ref = ledger.answered()
    ledger.submit(a_submission())
    ledger.settle(a_failure(ref, posted_nano_usd=30))
    ledger.submit(a_submission())

    (line,) = ledger.operations.costs()

    used = line.used
    assert (used.collapsed, used.posted_nano_usd, used.saved_nano_usd) == (2, 30, 0)


def test_generations_save_apart(ledger: LedgerUnderTest) -> None:
    """A duplicate saved what its own generation cost; forced runs and inherited links saved nothing."""
    ledger.succeeded(posted_nano_usd=60)
    ledger.submit(a_submission())
    ref = ledger.running(force=True, link=LINK)
    ledger.record(an_answer(ref))
    ledger.settle(a_failure(ref))
    again = ledger.running(force=True, inherit_links=True)
    ledger.record(an_answer(again))
    ledger.settle(a_success(again, 20))
    ledger.submit(a_submission(), a_submission())

    (line,) = ledger.operations.costs()

    assert (line.used.calls, line.used.collapsed) == (3, 3)
    assert line.used.saved_nano_usd == 60 + 2 * 20


def test_a_retried_submission_saves_nothing(ledger: LedgerUnderTest) -> None:
    """It is the same submission, however often it was sent."""
    new = a_submission()
    ledger.submit(new)
    ledger.succeeded()
    ledger.submit(new, new)

    (line,) = ledger.operations.costs()

    # `succeeded` joined once; the retries add nothing to it.
    assert line.used.collapsed == 1


# The audit's snapshot.


def test_a_snapshot_counts_everything(ledger: LedgerUnderTest) -> None:
    """Calls by state, attempts by status, dead letters of both kinds, and all money."""
    ledger.succeeded("good", posted_nano_usd=60)
    ledger.dead("bad")
    ledger.lost("gone")
    ledger.running("open", 50)
    ledger.answered("answered", hold_nano_usd=40)
    ledger.queued("queued")
    ledger.rejected("cancelled")
    ledger.operations.keep_unprocessable(UnprocessableMessage("callgate.call", "not JSON", b""))

    snapshot = ledger.operations.snapshot()

    assert snapshot.calls_by_state == {
        "succeeded": 1, "dead": 1, "waiting": 1, "running": 2, "queued": 1, "rejected": 1,
    }  # fmt: skip
    assert snapshot.attempts_by_status == {
        "succeeded": 1, "failed": 1, "unknown": 1, "dispatched": 1, "answered": 1,
    }  # fmt: skip
    assert (snapshot.broken_seals, snapshot.gaps) == (0, 0)
    assert (snapshot.dead_letters, snapshot.unknown_attempts) == (2, 1)
    assert snapshot.spent_nano_usd == 160
    (budget,) = snapshot.budgets
    assert (budget.org_id, budget.scope, budget.window) == (ORG, "org", "day")
    assert (budget.reserved_nano_usd, budget.reserved_by_rows_nano_usd) == (90, 90)
    assert (budget.spent_nano_usd, budget.spent_by_rows_nano_usd) == (160, 160)


def test_a_snapshot_of_nothing_is_empty(ledger: LedgerUnderTest) -> None:
    """The budget is there, unused."""
    snapshot = ledger.operations.snapshot()

    assert (snapshot.calls_by_state, snapshot.attempts_by_status) == ({}, {})
    assert [b.drift_nano_usd for b in snapshot.budgets] == [0]
    assert (snapshot.spent_nano_usd, snapshot.dead_letters) == (0, 0)


def test_a_discarded_call_is_no_dead_letter_any_more(ledger: LedgerUnderTest) -> None:
    """Somebody has looked at it."""
    key = ledger.dead().key

    ledger.operations.end([key], code=EndReason.DISCARDED, message="ann: known")

    assert ledger.operations.snapshot().dead_letters == 0
    assert ledger.operations.dead_groups(EVERYTHING) == []
