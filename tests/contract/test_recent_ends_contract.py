"""How the newest calls of each organisation ended without an answer."""

from __future__ import annotations

from dataclasses import replace

from callgate.domain.reports import EndReason, RecentEnd
from callgate.domain.requests import OnBudget
from tests.contract.money_steps import refused
from tests.support.ledger_under_test import LIMIT, ORG, LedgerUnderTest, a_failure, an_answer


def ends(
    ledger: LedgerUnderTest, *, orgs_max: int = 10, calls_max: int = 10, age_s: float = 600.0
) -> list[RecentEnd]:
    return ledger.operations.recent_ends(orgs_max=orgs_max, calls_max=calls_max, age_s=age_s)


def cancelled(ledger: LedgerUnderTest, content: str, **changes: str) -> None:
    key = ledger.queued(content, **changes)
    ledger.operations.end([key], code=EndReason.CANCELLED, message="by hand")


def test_calls_with_an_answer_and_open_ones_are_left_out(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("one")
    ledger.queued("two")

    assert ends(ledger) == []


def test_ends_are_counted_by_state_and_reason_most_first(ledger: LedgerUnderTest) -> None:
    ledger.dead()
    for content in ("a", "b"):
        cancelled(ledger, content)
    cancelled(ledger, "c", org_id="bolt")

    first, second = ends(ledger)

    assert first == RecentEnd("rejected", "cancelled", 3, 2, ORG, "openai", "gpt-4o-mini")
    assert (second.state, second.calls, second.orgs, second.org_id) == ("dead", 1, 1, ORG)


def test_only_the_newest_calls_of_an_organisation_count(ledger: LedgerUnderTest) -> None:
    for content in ("a", "b", "c"):
        cancelled(ledger, content)
        ledger.age(1)
    ledger.queued("newest")

    assert [end.calls for end in ends(ledger, calls_max=3)] == [2]


def test_so_many_organisations_are_looked_at_by_name(ledger: LedgerUnderTest) -> None:
    for org_id in ("b", "a", "c"):
        cancelled(ledger, org_id, org_id=org_id)

    assert ends(ledger, orgs_max=2) == [
        RecentEnd("rejected", "cancelled", 2, 2, "a", "openai", "gpt-4o-mini")
    ]


def test_what_is_older_is_left_out(ledger: LedgerUnderTest) -> None:
    cancelled(ledger, "old")
    ledger.age(601)

    assert ends(ledger) == []


def test_a_refused_call_says_which_limit_is_needed(ledger: LedgerUnderTest) -> None:
    for hold in (2, 3):
        refused(ledger, ledger.queued(f"holds {hold} limits"), hold * LIMIT, OnBudget.REJECT)

    (end,) = ends(ledger)

    assert (end.reason, end.calls, end.needed_nano_usd) == ("budget_too_small", 2, 3 * LIMIT)


def test_calls_that_died_alike_have_one_fingerprint(ledger: LedgerUnderTest) -> None:
    for content, fingerprint in (("a", "f1"), ("b", "f1"), ("c", "f2")):
        ref = ledger.running(content)
        ledger.record(an_answer(ref))
        ledger.settle(replace(a_failure(ref), error_fingerprint=fingerprint))
        (end,) = ends(ledger)
        count = 1 if fingerprint == "f1" else 2
        assert (end.error_fingerprint, end.fingerprints) == ("f1", count)
