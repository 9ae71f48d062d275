"""Answers are checked in a bounded time, and settled by what the check found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from callgate.domain.answers import Answer, SchemaResult
from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptStatus, Bodies, CallState
from callgate.domain.errors import CheckerUnavailable, OutputUnchecked, SchemaTooCostly
from callgate.domain.ledger import Settle, SettleOutcome
from callgate.domain.provider import Billing, Failure
from callgate.services import output_checks
from callgate.services.output_checks import BATCH_MAX_S
from tests.support.service_world import GRACE_S, POLICY, REPLY_COST, ServiceWorld
from tests.unit.settlement_steps import SCHEMA, answered


class Checker:
    """An `OutputValidatorPort` by script: what each check takes of the stage's time, and what it comes to."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.finds: SchemaResult = None
        self.checked: list[str] = []
        self.world: ServiceWorld

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[SchemaResult]:
        """Check one after the other, while there is time."""
        ends_at = self.world.clock.elapsed_s + within_s
        return [self._check(answer, ends_at) for answer in answers]

    def _check(self, answer: Answer, ends_at: float) -> SchemaResult:
        if self.world.clock.elapsed_s >= ends_at:
            return CheckerUnavailable("no turn within its time")
        self.checked.append(answer.org_id)
        self.world.clock.elapsed_s += self.takes_s
        return self.finds


def world_with(checker: Checker) -> ServiceWorld:
    """A world whose answers are checked by script."""
    checker.world = ServiceWorld(checker=checker)
    checker.world.ledger.set_budget("globex", "org", Window.DAY, 10**9)
    return checker.world


@pytest.mark.parametrize("error", [SchemaTooCostly("too dear"), OutputUnchecked("nobody there")])
def test_an_answer_that_cannot_be_checked_is_paid_and_the_end(error: OutputUnchecked) -> None:
    """Its reply came, so it is posted by its usage; another try would be paid again, for the same."""
    checker = Checker()
    world = world_with(checker)
    ref = answered(world, response_schema=SCHEMA)
    checker.finds = error

    (settled,) = world.ai_call_logger.settle([ref])

    view = world.view(ref.key)
    assert settled.state is CallState.DEAD
    assert view.last is not None
    assert (view.last.status, view.last.posted_nano_usd) == (AttemptStatus.FAILED, REPLY_COST)
    assert Failure.from_json(view.last.error or "") == Failure(
        error.code, str(error), False, Billing.BY_USAGE
    )


def test_without_a_checker_an_answer_waits_and_nothing_else_does() -> None:
    """It stays answered until the due query brings it back."""
    checker = Checker()
    world = world_with(checker)
    waits, plain = answered(world, "a", response_schema=SCHEMA), answered(world, "b")
    checker.finds = CheckerUnavailable("cannot fork")

    assert [s.ref for s in world.ai_call_logger.settle([waits, plain])] == [plain]
    assert world.view(waits.key).state is CallState.RUNNING

    checker.finds = None
    world.clock.elapsed_s += POLICY.deadline_s + GRACE_S + 1
    world.due.run()
    view = world.view(waits.key)
    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.posted_nano_usd == REPLY_COST


def test_what_has_no_schema_is_settled_before_anything_is_checked() -> None:
    """A check may take a while."""
    checker = Checker()
    world = world_with(checker)
    refs = [answered(world, "a", response_schema=SCHEMA), answered(world, "b")]
    settle, order = world.ledger.settle, []

    def noted(batch: Sequence[Settle]) -> list[SettleOutcome]:
        order.append((len(checker.checked), [s.ref for s in batch]))
        return settle(batch)

    world.ledger.settle = noted  # type: ignore[method-assign]

    assert len(world.ai_call_logger.settle(refs)) == 2
    assert order == [(0, [refs[1]]), (1, [refs[0]])]


def test_a_batch_checks_for_a_while() -> None:
    """Three slow answers: the third is left, and comes again."""
    checker = Checker()
    world = world_with(checker)
    slow = [answered(world, f"text {n}", response_schema=SCHEMA) for n in range(3)]
    checker.takes_s = BATCH_MAX_S / 2

    assert [s.ref for s in world.ai_call_logger.settle(slow)] == slow[:2]
    assert [s.ref for s in world.ai_call_logger.settle(slow)] == slow[2:]


def test_answers_too_large_to_keep_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are checked all the same, one in memory at a time, while the batch has time."""
    checker = Checker()
    world = world_with(checker)
    refs = [answered(world, f"text {n}", response_schema=SCHEMA) for n in range(3)]
    monkeypatch.setattr(output_checks, "KEPT_MAX_BYTES", 0)
    checker.takes_s = BATCH_MAX_S / 2

    assert [s.ref for s in world.ai_call_logger.settle(refs)] == refs[:2]
    assert len(world.ai_call_logger.settle(refs)) == 1
    assert len(checker.checked) == 3


def test_one_organisation_fills_a_quarter_of_what_a_batch_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else another's answers would have to be read again, after all of those were checked."""
    world = world_with(Checker())
    refs = [answered(world, f"text {n}", response_schema=SCHEMA) for n in range(2)]
    refs.append(answered(world, "text 3", org_id="globex", response_schema=SCHEMA))
    (view,) = world.ledger.read(refs[:1], Bodies.BOTH)
    assert view is not None
    assert view.last is not None
    weight = len(view.request or b"") + len(view.last.reply or b"")
    monkeypatch.setattr(output_checks, "KEPT_MAX_BYTES", 4 * (weight + 10))
    settle, batches = world.ledger.settle, []

    def noted(batch: Sequence[Settle]) -> list[SettleOutcome]:
        batches.append([s.ref for s in batch])
        return settle(batch)

    world.ledger.settle = noted  # type: ignore[method-assign]
    world.ai_call_logger.settle(refs)

    assert batches == [[refs[0], refs[2]], [refs[1]]]
