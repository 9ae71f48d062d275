"""Operators and late answers at once: the truth is posted in the end, and the audit is clean."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy import Engine

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budget_states import BudgetName
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.errors import ChangedMeanwhile
from callgate.domain.ledger import RecordOutcome
from callgate.domain.reports import By
from callgate.domain.unknown import HandOutcome, SettleByHand, SettledByHand
from callgate.services.audit import audit
from tests.support.ledger_under_test import (
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_loss,
    a_success,
    an_answer,
    open_postgres,
)

ATTEMPTS = 40


def given_up(ledger: LedgerUnderTest, content: str) -> AttemptRef:
    """A call that is dead because nobody knows what became of its request."""
    ref = ledger.running(content)
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    return ref


def at_once(*works: Callable[[], None]) -> None:
    """Begin all of them together, and wait for the last."""
    start = threading.Barrier(len(works))
    failed: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            start.wait(10)
            work()
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_two_operators_and_the_late_answers_meet(postgres_engine: Engine) -> None:
    """Whatever comes last: no money is counted twice, no answer is dropped, every change has its row."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        for window in Window:
            ledger.set_budget(10**6, window=window)
        refs = [given_up(ledger, f"page {n}") for n in range(ATTEMPTS)]
        answers: list[SettledByHand] = []

        def by_hand(operator: str, billed: int, order: list[AttemptRef]) -> None:
            for n in range(0, ATTEMPTS, 4):
                batch = [SettleByHand(ref.attempt_id, 100, billed) for ref in order[n : n + 4]]
                answers.extend(ledger.operations.settle_by_hand(batch, by=By(operator, "why")))

        def late() -> None:
            for ref in refs[::2]:
                assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
                assert ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))[
                    0
                ].is_applied

        at_once(lambda: by_hand("ann", 30, refs), lambda: by_hand("bob", 20, refs[::-1]), late)

        settled = [a for a in answers if a.outcome is HandOutcome.SETTLED]
        actions = ledger.operations.actions(limit=1_000)
        posted = [ledger.view(ref).posted_nano_usd for ref in refs]
        assert audit(ledger.operations).is_clean
        assert posted[::2] == [60] * (ATTEMPTS // 2)
        assert set(posted[1::2]) <= {20, 30}
        assert ledger.figures() == (0, sum(posted))
        assert len(settled) == len([a for a in actions if a.action == "unknown.settle"])
        assert len({a.attempt_id for a in settled}) == len(settled) >= ATTEMPTS // 2


@pytest.mark.parametrize(("window", "seen"), [(Window.DAY, LIMIT), (Window.MONTH, None)])
def test_of_operators_who_change_the_same_limit_one_succeeds(
    postgres_engine: Engine, window: Window, seen: int | None
) -> None:
    """Of a budget that they saw, and of one that they make: the others hear what it is now."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    name, answers = BudgetName(ORG, ORG_SCOPE, window), list[str]()
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)

        def change(limit: int) -> None:
            try:
                ledger.operations.change_limit(name, limit, seen_nano_usd=seen, by=By("ann", "x"))
                answers.append("set")
            except ChangedMeanwhile:
                answers.append("changed")

        at_once(*(partial(change, limit) for limit in range(7, 15)))

        assert sorted(answers) == ["changed"] * 7 + ["set"]
        (made,) = [b for b in ledger.operations.budgets(ORG) if b.window is window]
        assert made.limit_nano_usd in range(7, 15)
        changes = [a for a in ledger.operations.actions(limit=9) if a.action == "budget.set"]
        assert [a.detail["to_nano_usd"] for a in changes] == [made.limit_nano_usd]
