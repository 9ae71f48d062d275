"""What succeeded attempts held and cost lately, on both ledgers."""

from __future__ import annotations

from callgate.domain.reports import SpendingLine
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_success,
    an_answer,
)


def spending(
    ledger: LedgerUnderTest, *org_ids: str, days: int = 30, attempts_max: int = 10_000
) -> list[SpendingLine]:
    """Of acme, if no organisation is named."""
    return ledger.operations.spending(org_ids or [ORG], days=days, attempts_max=attempts_max)


def spent(ledger: LedgerUnderTest, content: str, hold: int, posted: int, **fields: str) -> None:
    """A call that succeeded."""
    ref = ledger.running(content, hold, **fields)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, posted))


def test_succeeded_attempts_are_summed(ledger: LedgerUnderTest) -> None:
    """Failed, lost and open ones say nothing of what an answer costs."""
    spent(ledger, "one", 100, 60)
    spent(ledger, "two", 50, 20)
    failed = ledger.running("failed", 10)
    ledger.record(an_answer(failed))
    ledger.settle(a_failure(failed))
    ledger.lost("lost")
    ledger.running("open", 10)

    assert spending(ledger) == [
        SpendingLine(ORG, "extraction", "openai", "gpt-4o-mini", 2, 40, 150, 80)
    ]


def test_there_is_a_line_per_org_call_type_provider_and_model(ledger: LedgerUnderTest) -> None:
    ledger.set_budget(LIMIT, org_id="zeta")
    spent(ledger, "a", 10, 1, org_id="zeta")
    spent(ledger, "b", 20, 2, model="o9")
    spent(ledger, "c", 30, 3, provider="azure")
    spent(ledger, "d", 40, 4, call_type="triage")

    lines = spending(ledger, "zeta", ORG, "nobody", ORG)

    assert [(c.org_id, c.call_type, c.provider, c.model, c.hold_nano_usd) for c in lines] == [
        (ORG, "extraction", "azure", "gpt-4o-mini", 30),
        (ORG, "extraction", "openai", "o9", 20),
        (ORG, "triage", "openai", "gpt-4o-mini", 40),
        ("zeta", "extraction", "openai", "gpt-4o-mini", 10),
    ]
    assert spending(ledger, "nobody") == []


def test_what_held_nothing_was_free(ledger: LedgerUnderTest) -> None:
    """It says nothing of the share of a hold."""
    spent(ledger, "free", 0, 0)

    assert spending(ledger) == []


def test_only_the_last_days_count(ledger: LedgerUnderTest) -> None:
    spent(ledger, "old", 100, 60)
    ledger.age(3 * DAY_S)
    spent(ledger, "new", 50, 20)

    assert [line.hold_nano_usd for line in spending(ledger, days=2)] == [50]
    assert [line.hold_nano_usd for line in spending(ledger, days=4)] == [150]


def test_only_the_newest_attempts_are_read(ledger: LedgerUnderTest) -> None:
    """Of whatever result, so that the cost of reading has a bound."""
    spent(ledger, "one", 1, 1)
    ledger.age(10)
    spent(ledger, "two", 2, 2)
    ledger.age(10)
    ledger.lost("lost")

    assert [line.hold_nano_usd for line in spending(ledger, attempts_max=2)] == [2]
    assert spending(ledger, attempts_max=1) == []


def test_many_organisations_are_asked_for_in_several_statements(ledger: LedgerUnderTest) -> None:
    spent(ledger, "one", 1, 1)

    names = [f"org-{n}" for n in range(250)]

    assert [line.org_id for line in spending(ledger, *names, ORG)] == [ORG]
