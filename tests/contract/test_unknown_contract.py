"""Unknown bills: which attempts are listed, on both ledgers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from uuid import uuid4

import pytest

from callgate.domain.calls import CallState
from callgate.domain.requests import AMOUNT_UNKNOWN
from callgate.domain.unknown import (
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)
from tests.contract.unknown_steps import ALL, LEFT_OPEN, bill, given_up, listed, odd
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_loss,
)

# Which there are.


def test_an_unknown_bill_says_what_it_holds(ledger: LedgerUnderTest) -> None:
    """All that is needed to find it at the provider."""
    ref = given_up(ledger)

    (found,) = ledger.operations.unknown_bills(ALL, limit=10)

    assert found == UnknownBill(
        ref.attempt_id, ref.key, 1, ORG, "extraction", "openai", "gpt-4o-mini", "", LEFT_OPEN, (),
        100, 100, found.started_at, None, None, a_loss(ref).error,
    )  # fmt: skip
    assert ledger.now() - found.started_at < timedelta(minutes=5)
    assert ledger.operations.bills([ref.attempt_id, uuid4()]) == {ref.attempt_id: found}


@pytest.mark.parametrize("word", sorted(AMOUNT_UNKNOWN))
def test_a_reply_whose_usage_is_not_believed_is_unknown_too(
    ledger: LedgerUnderTest, word: str
) -> None:
    """Its whole hold was posted, though there is an answer."""
    ref = odd(ledger, "tier_unasked", word)

    assert listed(ledger) == [ref.attempt_id]


def test_what_is_known_is_not_listed(ledger: LedgerUnderTest) -> None:
    """Nor what is under way, nor what is odd and was posted by its usage."""
    ledger.succeeded("fine")
    ledger.dead("refused")
    ledger.running("under way")
    ledger.answered("answered")
    odd(ledger, "tier_unasked", "usage_contradictory", "choices_missing")

    assert listed(ledger) == []
    assert ledger.operations.unknown_days(ALL) == []


def test_unknown_bills_are_listed_newest_first_and_bounded(ledger: LedgerUnderTest) -> None:
    """By when they were sent."""
    refs = []
    for page in range(3):
        refs.append(given_up(ledger, f"page {page}").attempt_id)
        ledger.age(60)

    assert listed(ledger) == refs[::-1]
    assert [b.attempt_id for b in ledger.operations.unknown_bills(ALL, limit=1)] == refs[2:]


@pytest.mark.parametrize(
    "which",
    [
        UnknownFilter(org_id="zeta"),
        UnknownFilter(provider="azure"),
        UnknownFilter(model="o9"),
        UnknownFilter(org_id="zeta", provider="azure", model="o9"),
    ],
    ids=["org", "provider", "model", "all"],
)
def test_every_filter_narrows(ledger: LedgerUnderTest, which: UnknownFilter) -> None:
    """What is set must fit; all of it together."""
    ledger.set_budget(LIMIT, org_id="zeta")
    given_up(ledger)
    ref = given_up(ledger, org_id="zeta", provider="azure", model="o9")

    assert listed(ledger, which) == [ref.attempt_id]
    assert [d.attempts for d in ledger.operations.unknown_days(which)] == [1]
    assert listed(ledger, replace(which, model="o8")) == []


def test_since_is_in_it_and_before_is_not(ledger: LedgerUnderTest) -> None:
    """So days follow each other without a gap, and none counts twice."""
    started = bill(ledger, given_up(ledger)).started_at
    later = started + timedelta(microseconds=1)

    assert len(listed(ledger, UnknownFilter(since=started, before=later))) == 1
    assert listed(ledger, UnknownFilter(since=later)) == []
    assert listed(ledger, UnknownFilter(before=started)) == []


def test_days_stand_beside_what_is_known_of_them(ledger: LedgerUnderTest) -> None:
    """The provider's sum of a day and model, less what is known, is what the unknown ones cost."""
    given_up(ledger, "before")
    ledger.succeeded("of that day")
    ledger.age(2 * DAY_S)
    given_up(ledger, "lost")
    odd(ledger, "usage_missing", posted=90)
    ledger.succeeded("known", 60)
    ledger.dead("free")
    ledger.succeeded("another", 7, model="o9")

    new, old = ledger.operations.unknown_days(ALL)

    day = ledger.now().astimezone(UTC).date()
    assert new == UnknownDay(day, "openai", "gpt-4o-mini", 2, 190, 2, 60)
    assert old == UnknownDay(day - timedelta(days=2), "openai", "gpt-4o-mini", 1, 100, 1, 60)


def test_unknown_bills_page_by_page(ledger: LedgerUnderTest) -> None:
    """As listed, also those that began at the same moment; what is settled by hand is left out."""
    ledger.set_budget(LIMIT, org_id="zeta")
    refs = [given_up(ledger, f"page {n}", org_id=("acme", "zeta")[n % 2]) for n in range(4)]
    ledger.succeeded("known", 60)
    every = ledger.operations.unknown_bills(ALL, limit=9)
    assert {b.attempt_id for b in every} == {ref.attempt_id for ref in refs}

    found: list[UnknownBill] = []
    while page := ledger.operations.unknown_page(
        ALL, after=(found[-1].started_at, found[-1].attempt_id) if found else None, limit=3
    ):
        found += page

    assert found == every
    of_zeta = ledger.operations.unknown_page(UnknownFilter(org_id="zeta"), limit=9)
    assert of_zeta == [b for b in every if b.org_id == "zeta"]


def test_unknown_bills_are_summed_up_by_model(ledger: LedgerUnderTest) -> None:
    """Most money first; of the newest that may be read."""
    dear = ledger.running("dear", 300, model="o9")
    ledger.settle(a_loss(dear, 300, next_state=CallState.DEAD))
    ledger.age(60)
    for n in range(2):
        given_up(ledger, f"page {n}")
    oldest = min(b.started_at for b in ledger.operations.unknown_page(ALL, limit=2))

    sums = ledger.operations.unknown_sums(ALL, attempts_max=9)

    assert [(s.model, s.attempts, s.posted_nano_usd) for s in sums] == [
        ("o9", 1, 300),
        ("gpt-4o-mini", 2, 200),
    ]
    assert sums[1].oldest_at == oldest
    assert ledger.operations.unknown_sums(ALL, attempts_max=2) == sums[1:]
    assert ledger.operations.unknown_sums(UnknownFilter(org_id="zeta"), attempts_max=9) == []
