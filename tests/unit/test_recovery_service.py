"""The one liveness rule: whatever is due is moved on, and an outage makes nothing unknown."""

from __future__ import annotations

import asyncio

import pytest

from callgate.domain.budgets import Window
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import AttemptStatus, CallState
from callgate.domain.requests import OnBudget
from callgate.services.recovery import DUE_BATCH_MAX
from tests.support.service_world import GRACE_S, Stage


def abandoned(stage: Stage) -> None:
    """Have a worker claim a call and vanish."""
    key = stage.submit().key
    complete, stage.provider.complete = stage.provider.complete, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        asyncio.run(stage.llm.execute(key))
    stage.provider.complete = complete  # type: ignore[method-assign]
    stage.queue.calls = [key]


def test_nobody_is_called_lost_before_ones_own_health_is_proved() -> None:
    """A process that has just reached the ledger cannot know who else could not."""
    stage = Stage()
    abandoned(stage)
    stage.clock.elapsed_s += 30 + GRACE_S + 1

    stage.due.run()
    at_once = stage.view(stage.queue.calls[0]).last
    stage.clock.elapsed_s += GRACE_S
    stage.due.run()
    after_a_grace = stage.view(stage.queue.calls[0]).last

    assert at_once is not None
    assert after_a_grace is not None
    assert at_once.status is AttemptStatus.DISPATCHED
    assert after_a_grace.status is AttemptStatus.UNKNOWN


def test_an_outage_starts_the_proof_anew() -> None:
    """During it nobody could record; whoever comes back first must not judge the others."""
    stage = Stage()
    abandoned(stage)
    stage.due.run()
    stage.clock.elapsed_s += 30 + GRACE_S + 1
    due, stage.ledger.due = stage.ledger.due, _away  # type: ignore[method-assign]
    assert stage.due.run() == (None, 0)
    stage.ledger.due = due  # type: ignore[method-assign]

    stage.due.run()

    last = stage.view(stage.queue.calls[0]).last
    assert last is not None
    assert last.status is AttemptStatus.DISPATCHED


def test_calls_of_a_dead_worker_are_tried_again_before_their_deadline() -> None:
    """Its lease has run out, and this process was there all the time: it takes over."""
    stage = Stage(lease_s=8)
    abandoned(stage)
    stage.ledger.leases.renew("dead", 8)
    _give_to(stage, "dead")
    key = stage.queue.calls[0]

    states = []
    for _ in range(11):
        stage.clock.elapsed_s += 1
        stage.lease.renew()
        stage.due.run()
        states.append(stage.view(key).state)

    assert states[6] is CallState.RUNNING
    assert states[-1] is not CallState.RUNNING
    last = stage.view(key).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN


def test_a_process_that_does_not_keep_its_own_lease_judges_nobody() -> None:
    """It may be the one that was cut off."""
    stage = Stage(lease_s=8)
    abandoned(stage)
    stage.ledger.leases.renew("dead", 8)
    _give_to(stage, "dead")

    for _ in range(25):
        stage.clock.elapsed_s += 1
        stage.due.run()

    assert stage.view(stage.queue.calls[0]).state is CallState.RUNNING


def test_after_an_outage_leases_are_judged_by_nobody_for_a_grace() -> None:
    """The same proof of health as for deadlines."""
    stage = Stage(lease_s=8)
    stage.due.run()
    stage.clock.elapsed_s += GRACE_S
    due, stage.ledger.due = stage.ledger.due, _away  # type: ignore[method-assign]
    stage.due.run()
    stage.ledger.due = due  # type: ignore[method-assign]
    judged: list[float] = []

    def expire(judge: str) -> list[str]:
        judged.append(stage.clock.elapsed_s)
        return []

    stage.ledger.leases.expire = expire  # type: ignore[method-assign]
    back_at = stage.clock.elapsed_s
    for _ in range(14):
        stage.clock.elapsed_s += 1
        stage.due.run()

    assert judged[0] - back_at > GRACE_S


def _give_to(stage: Stage, process: str) -> None:
    """Have every attempt be one that another process made."""
    for attempt in stage.ledger.tables.attempts.values():
        attempt.worker_id = f"{process}/1"


def _away(**_: object) -> None:
    raise LedgerUnavailable("away")


def test_an_answer_nobody_settled_is_settled() -> None:
    """The log message was lost; the answer was not."""
    stage = Stage()
    key = stage.submit().key
    asyncio.run(stage.llm.execute(key))
    stage.queue.logs.clear()
    stage.clock.elapsed_s += 30 + GRACE_S + 1

    stage.due.run()

    assert stage.view(key).state is CallState.SUCCEEDED
    assert len(stage.provider.requests) == 1


def test_a_call_waits_for_the_next_period_if_it_was_told_to() -> None:
    """`on_budget="wait"`: exhausted today, admitted after midnight."""
    stage = Stage()
    first = asyncio.run(stage.run(stage.submit("first!").key))
    assert first.last is not None
    stage.ledger.set_budget("acme", "org", Window.DAY, first.last.hold_nano_usd)
    waiting = stage.submit("second", on_budget=OnBudget.WAIT)
    refused = asyncio.run(stage.run(waiting.key))
    stage.clock.elapsed_s += 13 * 3_600

    stage.due.run()

    view = asyncio.run(stage.run(stage.queue.calls[-1]))
    assert refused.state is CallState.WAITING
    assert view.state is CallState.SUCCEEDED


def test_a_sweep_finds_what_was_lost_and_nothing_else() -> None:
    """Queued long before the sweep: lost. Queued just before it: still on its way."""
    stage = Stage()
    lost = stage.submit("lost").key
    stage.clock.elapsed_s += 5
    stage.submit("fresh")

    count = stage.due.sweep(stage.clock.now())

    assert count == 1
    assert stage.queue.calls == [lost]


def test_sweeps_come_ahead_of_what_was_lost() -> None:
    """So that a stranger at the queue does not get the same place in turn each time; none if nothing was lost."""
    stage = Stage()
    stage.due._sweeps_between = lambda: 2
    stage.due.sweep(stage.clock.now())
    assert stage.queue.sweeps == []
    stage.submit()
    stage.clock.elapsed_s += 5

    stage.due.sweep(stage.clock.now())

    assert len(stage.queue.sweeps) == 2


def test_one_sweep_brings_a_whole_queue_back() -> None:
    """After a wipe thousands of calls have lost their messages, not one batch of them."""
    stage = Stage()
    for number in range(2 * DUE_BATCH_MAX + 1):
        stage.submit(str(number))
    stage.queue.calls.clear()
    stage.clock.elapsed_s += 60

    assert stage.due.sweep(stage.clock.now()) == 2 * DUE_BATCH_MAX + 1
    assert len(set(stage.queue.calls)) == 2 * DUE_BATCH_MAX + 1


def test_without_a_broker_what_is_due_stays_queued_for_a_sweep() -> None:
    """A retry whose publish fails is not lost."""
    stage = Stage()
    key = stage.submit().key
    stage.queue.is_away = True

    stage.due.run()
    stage.queue.is_away = False
    stage.clock.elapsed_s += 5
    stage.due.sweep(stage.clock.now())

    assert stage.queue.calls == [key]


def test_whoever_frees_headroom_asks_for_the_due_query() -> None:
    """The woken call need not wait for the next interval."""
    stage = Stage()
    first = asyncio.run(stage.run(stage.submit("first").key))
    assert first.last is not None
    stage.ledger.set_budget("acme", "org", Window.DAY, first.last.hold_nano_usd * 3 // 2)
    busy, held_up = stage.submit("second").key, stage.submit("third!").key
    asyncio.run(stage.llm.execute(busy))
    asyncio.run(stage.llm.execute(held_up))
    before = list(stage.woken)

    stage.logger.settle(stage.queue.logs)
    stage.due.run()

    assert (before, len(stage.woken)) == ([], 1)
    assert stage.queue.calls == [held_up]
