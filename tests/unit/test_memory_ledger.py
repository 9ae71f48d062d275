"""What the memory ledger promises beyond its ports: the same life twice, ids in the order of time."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import RFC_4122, UUID

from callgate.adapters.memory.ledger import MemoryLedger, uuid7
from callgate.domain.budgets import Window
from callgate.domain.calls import CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.ledger import NewSubmission
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.ports import LedgerPort
from callgate.domain.reports import EndReason, Snapshot
from callgate.domain.retention import BodyAges, Purged
from tests.support.ledger_under_test import (
    LINK,
    REAPER,
    a_reserve,
    a_submission,
)
from tests.support.manual_clock import ManualClock, counted_ids


def a_life(batch: list[NewSubmission], seed: int) -> tuple[list[Any], Snapshot]:
    """Some calls in a fresh ledger, everything that was answered, and the snapshot in the end."""
    rng = random.Random(seed)  # noqa: S311
    clock = ManualClock()
    ledger = MemoryLedger(clock, counted_ids())
    ledger.set_budget("acme", "org", Window.DAY, 250)
    answers: list[Any] = [ledger.submit(batch)]
    for _ in range(20):
        clock.advance(rng.choice([1, 20, 60]))
        key = rng.choice(answers[0]).key
        answers.append(ledger.reserve([a_reserve(key, 100, worker_id="worker-1:1")]))
        ledger.leases.renew(REAPER.worker_id, 60)
        answers.append(ledger.take_due(limit=2, reaper=REAPER))
        answers.append(ledger.read([key]))
    return answers, ledger.snapshot()


def test_the_same_steps_lead_to_the_same_ledger() -> None:
    """Given its clock and its ids nothing is left to chance: a simulation can be repeated by its seed."""
    batch = [a_submission(f"page {i}", link=LINK) for i in range(4)]

    assert a_life(batch, seed=7) == a_life(batch, seed=7)
    assert a_life(batch, seed=7) != a_life(batch, seed=8)


def test_it_implements_all_ports() -> None:
    """One instance is the ledger, what operators ask, and what makes room; a type checker reads this too."""
    ledger = MemoryLedger()
    roles: tuple[LedgerPort, OperationsPort, RetentionPort] = (ledger, ledger, ledger)

    key = roles[0].submit([a_submission()])[0].key

    assert roles[1].end([key], code=EndReason.CANCELLED, message="by a test") == [key]
    assert roles[2].purge(BodyAges(0.0), limit=1) == Purged(calls=1)


def test_attempt_ids_sort_by_time() -> None:
    """UUIDv7: later ids are greater, so that rows lie in the order of time."""
    start = datetime(2026, 11, 18, 12, tzinfo=UTC)
    made = [uuid7(start + timedelta(milliseconds=i)) for i in range(100)]

    assert made == sorted(made)
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert len({uuid7(start) for _ in range(100)}) == 100


def test_an_id_carries_the_ledgers_time() -> None:
    """48 bits of milliseconds, which can be read from an id in a provider's log."""
    at = datetime(2026, 11, 18, 12, 0, 0, 123_000, tzinfo=UTC)

    made: UUID = uuid7(at)

    assert made.int >> 80 == int(at.timestamp() * 1_000)


def test_a_purged_text_is_nowhere_in_its_tables() -> None:
    """Neither in a body nor among the arguments of a link."""
    ledger = MemoryLedger(ManualClock(), counted_ids())
    new = a_submission(request=b"Jane Doe", link='{"args":["Jane Doe"]}')
    (submitted,) = ledger.submit([new])
    ledger.end([submitted.key], code=EndReason.CANCELLED, message="by a test")
    ledger.keep_link_outcomes([LinkOutcome(new.submission_id)])
    assert "Jane Doe" in repr(ledger.tables)

    ledger.purge(BodyAges(0.0), limit=1)

    assert "Jane Doe" not in repr(ledger.tables)


def test_views_do_not_change_afterwards() -> None:
    """What was read is a value: a reader keeps the figures of one moment."""
    ledger = MemoryLedger(ManualClock(), counted_ids())
    key = ledger.submit([a_submission()])[0].key
    (before,) = ledger.read([key])
    assert before is not None

    ledger.end([key], code=EndReason.CANCELLED, message="by a test")

    assert before.state is CallState.QUEUED
    assert before.error is None
