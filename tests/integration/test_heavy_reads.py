"""Bodies that are too heavy to be read together are read apart, and few of them are in memory at once."""

from __future__ import annotations

import tracemalloc
from typing import Any
from uuid import uuid4

import pytest

from callgate.adapters.postgres import ledger as postgres_ledger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import Bodies, CallKey
from tests.support.ledger_under_test import LedgerUnderTest, an_answer
from tests.support.service_world import ServiceWorld

MIB = 2**20


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each statement that reads brought."""
    brought: list[int] = []
    answers = PostgresSession.answers

    def counted(session: PostgresSession, sql: str, parameters: Any) -> list[Any]:
        found = answers(session, sql, parameters)
        if sql == postgres_ledger.READ:
            brought.append(len(found))
        return found

    monkeypatch.setattr(PostgresSession, "answers", counted)
    # Beside its bodies each call weighs 4 kB.
    monkeypatch.setattr(postgres_ledger, "BATCH_MAX_BYTES", 110_000)
    return brought


def test_heavy_bodies_are_read_apart(ledger: LedgerUnderTest, read: list[int]) -> None:
    """As many at once as weigh no more than they may, in order, and one at least."""
    weights = (500_000, 30_000, 30_000, 30_000, 30_000, 100_100, 99_900)
    keys = [ledger.queued(f"{n}", request=b"x" * weight) for n, weight in enumerate(weights)]
    missing = CallKey(uuid4(), 1)

    views = list(ledger.ledger.read([missing, *keys, missing], Bodies.REQUEST))

    assert read == [1, 3, 1, 1, 1, 0]
    assert [view and len(view.request or b"") for view in views] == [None, *weights, None]
    read.clear()
    assert [view and view.key for view in ledger.ledger.read(keys)] == keys
    assert read == [len(keys)]


def test_replies_weigh_as_well(ledger: LedgerUnderTest, read: list[int]) -> None:
    """Where they travel at all: of an open call only with the attempt that was asked for."""
    refs = [ledger.running(f"{n}", request=b"x" * 30_000) for n in range(2)]
    ledger.record(*(an_answer(ref, reply=b"x" * 30_000) for ref in refs))

    assert len(list(ledger.ledger.read(refs, Bodies.BOTH))) == 2
    assert len(list(ledger.ledger.read([ref.key for ref in refs], Bodies.BOTH))) == 2

    assert read == [1, 1, 2]


def test_a_batch_is_settled_with_few_bodies_in_memory(
    ledger: LedgerUnderTest, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each attempt only what is written of it is kept while the next ones are read."""
    refs = [ledger.running(f"{n}", 1, request=b"x" * MIB) for n in range(12)]
    for ref in refs:
        ledger.record(an_answer(ref, reply=b"x" * MIB))
    logger = ServiceWorld().ai_call_logger
    monkeypatch.setattr(logger, "_ledger", ledger.ledger)

    tracemalloc.start()
    settled = logger.settle(refs)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [s.is_applied for s in settled] == [True] * len(refs)
    assert read == [1] * len(refs)
    assert peak_bytes < 8 * MIB
