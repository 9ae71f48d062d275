"""The audit proves a ledger of any size: what does not fit into one statement is proven in parts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count
from threading import Barrier, BrokenBarrierError

import pytest
from structlog.testing import capture_logs

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.threads import in_threads
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.sums import QUARTER, SumProof
from callgate.services.audit import audit, prove_day
from callgate.services.periods import today
from callgate.services.sums import SumsService
from tests.support.ledger_under_test import open_memory
from tests.support.manual_clock import ManualClock

DAY = date(2026, 11, 18)
MIDNIGHT = datetime(2026, 11, 18, tzinfo=UTC)


class Slow(MemoryLedger):
    """A ledger that proves so much in one statement, and no more."""

    def __init__(self, at_most: timedelta) -> None:
        super().__init__(ManualClock())
        self.at_most = at_most
        self.proven: list[tuple[datetime, datetime]] = []

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """Prove it, or run out of time."""
        if until - since > self.at_most:
            raise LedgerUnavailable("statement timeout")
        self.proven.append((since, until))
        return SumProof(sealed=1)


@pytest.mark.parametrize("minutes", [1440, 700, 15])
def test_a_day_is_proven_in_parts_that_fit(minutes: int) -> None:
    """Each quarter hour once, in order."""
    ledger = Slow(timedelta(minutes=minutes))

    proofs = list(prove_day(ledger, DAY))

    assert len(proofs) == len(ledger.proven)
    assert ledger.proven[0][0] == MIDNIGHT
    assert ledger.proven[-1][1] == MIDNIGHT + timedelta(days=1)
    assert all(a[1] == b[0] for a, b in zip(ledger.proven, ledger.proven[1:], strict=False))


def test_an_audit_seldom_tries_again_what_was_too_much() -> None:
    """Of the first day it learns how much fits, and tries more after eight parts. It counts the days in parts."""
    ledger = Slow(timedelta(hours=7))
    refused = 0
    prove, days = ledger.prove_sums, [DAY + timedelta(days=n) for n in range(3)]

    def counted(since: datetime, until: datetime) -> SumProof:
        nonlocal refused
        refused += until - since > ledger.at_most
        return prove(since, until)

    operations = open_memory().operations
    operations.prove_sums = counted  # type: ignore[method-assign]
    operations.sum_days = lambda **_: days  # type: ignore[method-assign]

    report = audit(operations)

    assert (report.days, report.days_in_parts, report.proof.sealed) == (3, 3, 12)
    assert refused == 3


def test_a_busy_ledger_may_refuse_a_small_part_now_and_then() -> None:
    """What was busy once is asked again, and larger parts come back."""
    ledger = Slow(timedelta(days=1))
    asked = 0
    prove, days = ledger.prove_sums, [DAY + timedelta(days=n) for n in range(30)]

    def busy(since: datetime, until: datetime) -> SumProof:
        nonlocal asked
        asked += 1
        if asked <= 8:
            raise LedgerUnavailable("statement timeout")
        return prove(since, until)

    operations = open_memory().operations
    operations.prove_sums = busy  # type: ignore[method-assign]
    operations.sum_days = lambda **_: days  # type: ignore[method-assign]

    report = audit(operations)

    assert report.proof.sealed == len(ledger.proven)
    assert report.days_in_parts < 12
    assert ledger.proven[-1][1] - ledger.proven[-1][0] == timedelta(days=1)


def test_a_ledger_that_is_away_is_said_to_be() -> None:
    """After some tries, not after one for each quarter hour."""
    ledger = Slow(timedelta(0))
    asked: list[timedelta] = []
    prove = ledger.prove_sums

    def counted(since: datetime, until: datetime) -> SumProof:
        asked.append(until - since)
        return prove(since, until)

    ledger.prove_sums = counted  # type: ignore[method-assign]

    with pytest.raises(LedgerUnavailable):
        list(prove_day(ledger, DAY))

    assert asked[-1] == QUARTER
    assert len(asked) < 10


def test_a_wrong_sum_is_found_and_logged() -> None:
    """By the audit, by a worker that proves, and in a day that was sealed by its seal."""
    ledger = open_memory()
    ledger.succeeded()
    ledger.sums.fold_sums(limit=100)
    assert isinstance(ledger.ledger, MemoryLedger)
    tables = ledger.ledger.tables
    (name,) = tables.quarter_sums
    tables.quarter_sums[name] += tables.quarter_sums[name]

    report = audit(ledger.operations)
    with capture_logs() as logged:
        SumsService(ledger.sums).prove()

    assert (report.is_clean, report.proof.drift_nano_usd) == (False, 60)
    assert [line["event"] for line in logged] == ["sums.drifted"]


def test_a_sealed_day_whose_sums_change_is_found() -> None:
    """Though its rows are not read again."""
    ledger = open_memory()
    ledger.succeeded()
    ledger.age(86_400)
    ledger.sums.fold_sums(limit=100)
    assert audit(ledger.operations).is_clean
    assert isinstance(ledger.ledger, MemoryLedger)
    tables = ledger.ledger.tables
    (name,) = tables.day_sums
    tables.day_sums[name] += tables.day_sums[name]

    report = audit(ledger.operations)

    assert (report.is_clean, report.snapshot.broken_seals, report.days) == (False, 1, 1)


def test_today_is_the_day_of_the_budgets_zone() -> None:
    """Of the daily budget of the organisation first; without one it is UTC's."""
    ledger = open_memory()
    now = datetime(2026, 11, 18, 20, tzinfo=UTC)
    ledger.operations.set_budget("acme", ORG_SCOPE, Window.MONTH, 5, "America/New_York")
    ledger.operations.set_budget("acme", ORG_SCOPE, Window.DAY, 5, "Asia/Kathmandu")

    found = today(ledger.operations, "acme", now)

    assert found.zone == "Asia/Kathmandu"
    # Its zone is 5:45 ahead of UTC, so only quarter hours make up its days.
    assert found.since == datetime(2026, 11, 18, 18, 15, tzinfo=UTC)
    assert today(ledger.operations, None, now).zone == "UTC"
    assert today(ledger.operations, "nobody", now).since == datetime(2026, 11, 18, tzinfo=UTC)


class Two(Slow):
    """A ledger whose statements end in pairs."""

    def __init__(self, days: int) -> None:
        super().__init__(timedelta(days=1))
        self.days = [DAY + timedelta(days=n) for n in range(days)]
        self.pair = Barrier(2)

    def sum_days(self, *, everything: bool = False) -> list[date]:
        """All of them."""
        return self.days

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """Prove it together with another one."""
        self.pair.wait(timeout=30)
        return super().prove_sums(since, until)


def test_two_sessions_prove_two_days_at_a_time() -> None:
    """Each day once."""
    ledger = Two(days=8)

    report = audit(ledger, sessions=2, run=in_threads)

    assert report.days == report.proof.sealed == 8
    assert sorted(since.date() for since, _ in ledger.proven) == ledger.days


def test_an_error_of_one_session_ends_the_other() -> None:
    """After the statement that is under way."""
    ledger = Two(days=100)
    prove, calls = ledger.prove_sums, count()

    def third_fails(since: datetime, until: datetime) -> SumProof:
        if next(calls) >= 4:
            ledger.pair.abort()
        return prove(since, until)

    ledger.prove_sums = third_fails  # type: ignore[method-assign]
    with pytest.raises(BrokenBarrierError):
        audit(ledger, sessions=2, run=in_threads)

    assert len(ledger.proven) < 8
