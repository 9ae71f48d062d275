"""Breakers: both ledgers do the same, whatever the order of steps."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.ledger import Refused
from tests.contract.breaker_steps import claim, ends, published
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    open_memory,
    open_postgres,
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "end", "end", "move", "age"]),
        st.sampled_from(list(Health)),
        st.integers(1, 40),
        st.sampled_from(["acme", "acme", "bolt", "cog"]),
    ),
    min_size=10,
    max_size=40,
)


class Stepper:
    """Takes steps on one ledger, and says what came of each."""

    def __init__(self, ledger: LedgerUnderTest, model: str) -> None:
        self.ledger = ledger
        self.model = model
        self.under_way: list[AttemptRef] = []
        self.calls = 0

    def take(self, step: str, health: Health, number: int, org: str) -> tuple[object, ...]:
        """One step: what was let through, what was changed, how the breaker stands."""
        done: list[object] = []
        if step == "age":
            # In steps of five: every bound is a multiple, so the time that passes by itself crosses none.
            self.ledger.age(5 * (1 + number % 8))
        elif step == "end" and self.under_way:
            ref = self.under_way.pop(0)
            done.append(ends(self.ledger, ref, health, f"code {number}").breaker_changes)
        elif step == "submit":
            self.calls += 1
            content = f"{self.model} {self.calls}"
            done.append(self._claim(self.ledger.queued(content, model=self.model, org_id=org)))
        elif step == "move":
            mine = [k for k in published(self.ledger) if self.ledger.view(k).model == self.model]
            # A release is a hint: who is refused again was released too early, and waits as before.
            claims = [self._claim(key) for key in mine]
            done += [claimed for claimed in claims if claimed is not CallState.WAITING]
        lines = [line for line in self.ledger.operations.breakers() if line.model == self.model]
        return (*done, *((b.org_id, b.is_open, b.reason, b.failures, b.waiting) for b in lines))

    def _claim(self, key: CallKey) -> object:
        outcome = claim(self.ledger, key)
        if isinstance(outcome, Refused):
            return outcome.state
        self.under_way.append(outcome)
        last = self.ledger.view(outcome).last
        return last and last.kind


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_both_ledgers_do_the_same(postgres_engine: Engine, steps: list[Any]) -> None:
    """Whatever happens: the functions in the database follow the rules of the domain."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        model = f"model {uuid4()}"
        steppers = [Stepper(open_postgres(session), model), Stepper(open_memory(), model)]
        for stepper in steppers:
            for org in ("acme", "bolt", "cog"):
                stepper.ledger.set_budget(1_000_000, org_id=org)
        for step in steps:
            of_postgres, of_memory = (stepper.take(*step) for stepper in steppers)
            assert of_postgres == of_memory, step
