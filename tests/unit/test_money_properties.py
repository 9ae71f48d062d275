"""
Money under any interleaving: submit, reserve, record, settle, expire, redeliver, cancel, force, and time passing.

Hypothesis looks for the shortest life of a ledger that breaks its books; seeded lives are longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.requests import OnBudget
from tests.support.ledger_under_test import LINK
from tests.support.money_model import Books

Action = Callable[[Books], None]
# Few and round amounts, so that holds meet limits exactly, and by one nano-USD more.
COSTS = [40, 100, 130, 0]
LIMITS = [300, 200, 150, 149, 100]
SECONDS = [60.0, 15.0, 0.5, 90_000.0]
LATELY = [0, 1, 2, 3]
"""Points at one of the newest."""
BATCHES = [
    [(0, 100)],
    [(0, 50), (1, 50)],
    [(0, 1), (1, 100), (2, 50)],
    [(1, 100), (0, 149), (0, 0)],
]
USUAL: dict[Callable[..., None], dict[str, list[Any]]] = {
    Books.submit: {
        "content": ["one", "two", "three"],
        "org_id": ["acme", "acme", "zeta"],
        "force": [True, False],
        "inherit_links": [False, True],
        "link": [None, LINK],
    },
    Books.reserve: {"batch": BATCHES, "on_budget": list(OnBudget)},
    Books.record: {"back": LATELY, "has_reply": [True, False]},
    Books.settle: {
        "back": LATELY,
        "cost": COSTS,
        "is_success": [True, False],
        "next_state": [CallState.WAITING, CallState.WAITING, CallState.DEAD],
    },
    Books.take_due: {"limit": [5, 1], "expire": [True, False], "vanishes": [False, True]},
}
UNUSUAL: dict[Callable[..., None], dict[str, list[Any]]] = {
    Books.submit_again: {"back": LATELY},
    Books.reserve_again: {"back": LATELY},
    Books.settle_again: {"batch": [[0], [1, 0], [2, 2, 1]], "seen": [None, *AttemptStatus]},
    Books.sweep: {},
    Books.end: {"back": LATELY},
    Books.set_budget: {
        "org_id": ["acme", "zeta"],
        "scope": ["org", "call_type:extraction"],
        "window": list(Window),
        "limit": LIMITS,
    },
    Books.settle_by_hand: {
        "back": LATELY,
        "billed": [0, 40, 100, 130],
        "may_exceed_hold": [False, True],
    },
    Books.settle_by_stale_hand: {"back": LATELY, "seen": [100, 50, 0, 7]},
    Books.pass_time: {"seconds": SECONDS},
}
ACTIONS = [*USUAL.items()] * 4 + [*UNUSUAL.items()]


def drawn(act: Callable[..., None], choices: dict[str, list[Any]]) -> st.SearchStrategy[Action]:
    """An action with its arguments chosen by Hypothesis."""
    return st.builds(partial, st.just(act), **{k: st.sampled_from(v) for k, v in choices.items()})


DRAWN: st.SearchStrategy[Action] = st.one_of(*[drawn(*action) for action in ACTIONS])


class BooksMachine(RuleBasedStateMachine):
    """Hypothesis as everybody who touches the ledger."""

    books: Books

    @initialize(limit=st.sampled_from(LIMITS))
    def open_books(self, limit: int) -> None:
        self.books = Books(limit)

    @rule(action=DRAWN)
    def act(self, action: Action) -> None:
        """One rule for all, because Hypothesis leaves out whole rules of most runs, and money needs them all."""
        action(self.books)

    @invariant()
    def audit(self) -> None:
        self.books.audit()

    def teardown(self) -> None:
        if hasattr(self, "books"):
            self.books.close()


TestBooks = BooksMachine.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(20))
def test_the_books_balance_through_a_long_life(seed: int) -> None:
    """Longer and more even than what Hypothesis draws, so that rare meetings happen; a seed repeats a life."""
    rng = random.Random(seed)  # noqa: S311
    books = Books(limit=300)

    for _ in range(300):
        act, choices = rng.choice(ACTIONS)
        act(books, **{name: rng.choice(values) for name, values in choices.items()})
        books.audit()

    books.close()
