"""Bodies that are too heavy to be read together are read apart, or a batch of them would never be settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

import pytest

from callgate.adapters.postgres_ledger import BODIES_MAX, PostgresLedger
from callgate.db.session import PostgresSession
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import Bodies, CallKey

KEYS = [CallKey(UUID(int=n), 1) for n in range(200)]


class SlowSession:
    """Has time for so many calls in one statement."""

    def __init__(self, calls_max: int) -> None:
        self.calls_max = calls_max
        self.read: list[int] = []

    def rows(self, sql: str, parameters: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Answer that there are no such calls, or not at all."""
        count = len(parameters["call_ids"])
        if count > self.calls_max:
            raise LedgerUnavailable("the statement took too long")
        self.read.append(count)
        return []


@pytest.mark.parametrize("calls_max", [1, 7, 60])
def test_a_heavy_batch_is_read_in_the_end(calls_max: int) -> None:
    """Its reader comes again; each time smaller statements are tried."""
    session = SlowSession(calls_max)
    ledger = PostgresLedger(cast(PostgresSession, session))

    for _ in range(8):
        with suppress(LedgerUnavailable):
            assert ledger.read(KEYS, Bodies.BOTH) == [None] * len(KEYS)
            return

    pytest.fail("it was tried eight times in vain")


def test_after_an_outage_batches_are_whole_again() -> None:
    """It looks the same from here; the statements grow again."""
    session = SlowSession(0)
    ledger = PostgresLedger(cast(PostgresSession, session))
    for _ in range(20):
        with pytest.raises(LedgerUnavailable):
            ledger.read(KEYS, Bodies.BOTH)

    session.calls_max = BODIES_MAX
    for _ in range(10):
        ledger.read(KEYS, Bodies.BOTH)

    assert (session.read[0], session.read[-1]) == (1, len(KEYS))
