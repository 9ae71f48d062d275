"""Compare the ledger's budget figures with its sums, and its sums with its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.operator_ports import OperationsPort, SumsPort
from callgate.domain.reports import BudgetDrift, Snapshot
from callgate.domain.sums import QUARTER, SumProof

DAY = timedelta(days=1)
FITTING = 8
"""After so many parts in a row that were proven, larger ones are tried."""
TRIES = 3
"""Of the smallest part."""
Share = tuple[list[SumProof], int]
"""Of some days all proofs, and how many days had several."""
Run = Callable[[Sequence[Callable[[], Share]], Callable[[], None]], list[Share]]
"""Runs shares; calls the second argument when the others are to end after the statement that is under way."""


def one_by_one(shares: Sequence[Callable[[], Share]], _: Callable[[], None]) -> list[Share]:
    """Run them in this thread."""
    return [share() for share in shares]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Whether the ledger's figures agree with its rows."""

    snapshot: Snapshot
    proof: SumProof
    """Of all days that were proven now."""
    days: int
    """So many were. The others were proven before, and are sealed."""
    days_in_parts: int
    """So many of these were too much for one statement; what budgets have of such a day was not compared."""
    drift_nano_usd: int
    """Σ over budgets of |figure - rows|; must be 0."""
    drifting: tuple[BudgetDrift, ...]

    @property
    def is_clean(self) -> bool:
        """True if no figure and no sum drifts, every attempt has its row, and every row its call."""
        return (
            self.drift_nano_usd == 0
            and self.proof.is_clean
            and self.snapshot.broken_seals == 0
            and self.snapshot.gaps == 0
        )


def audit(
    operations: OperationsPort,
    *,
    everything: bool = False,
    sessions: int = 1,
    run: Run = one_by_one,
) -> AuditReport:
    """
    Audit a ledger: its figures, then the sums of each day that is not sealed.

    Each day is a statement of its own, so the ledger may be of any size.

    Args:
        everything: Prove also the days that are sealed.
        sessions: The days are so many shares. A share's statements keep one core of the server busy.
        run: Runs the shares.

    Raises:
        LedgerUnavailable
    """
    snapshot = operations.snapshot()
    days = operations.sum_days(everything=everything)
    proofs, in_parts = _prove_all(operations, days, sessions, run)
    drifting = tuple(b for b in snapshot.budgets if b.drift_nano_usd)
    return AuditReport(
        snapshot=snapshot,
        proof=SumProof.sum_of(proofs),
        days=len(days),
        days_in_parts=in_parts,
        drift_nano_usd=sum(b.drift_nano_usd for b in drifting),
        drifting=drifting,
    )


def _prove_all(operations: OperationsPort, days: Sequence[date], sessions: int, run: Run) -> Share:
    is_over: list[bool] = []

    def prove(share: Sequence[date]) -> Share:
        proofs: list[SumProof] = []
        pace, in_parts = _Pace(), 0
        for day in share:
            if is_over:
                break
            parts = list(_prove(operations, day, pace))
            in_parts += len(parts) > 1
            proofs += parts
        return proofs, in_parts

    shares = [partial(prove, days[n::sessions]) for n in range(sessions)]
    found = run(shares, lambda: is_over.append(True))
    return [proof for proofs, _ in found for proof in proofs], sum(n for _, n in found)


def prove_day(operations: OperationsPort | SumsPort, day: date) -> Iterator[SumProof]:
    """
    Prove the sums of a day in UTC; in parts if it has too many rows for one statement.

    Raises:
        LedgerUnavailable: Even a quarter hour has too many, or the ledger is away.
    """
    return _prove(operations, day, _Pace())


@dataclass(slots=True)
class _Pace:
    """How much is proven at once: half as much when it was too much, twice as much when it fits again and again."""

    at_once: timedelta = DAY
    fitted: int = 0
    """So many parts in a row."""
    refused: int = 0
    """So many of the smallest parts in a row."""

    def fits(self) -> None:
        """Note a part that was proven."""
        self.fitted, self.refused = self.fitted + 1, 0
        if self.fitted == FITTING:
            self.at_once, self.fitted = min(DAY, 2 * self.at_once), 0

    def is_too_much(self, part: timedelta) -> bool:
        """Note a part that was not; whether nothing is left to try. A busy ledger may refuse even a small part once."""
        self.fitted = 0
        self.refused += part == QUARTER
        self.at_once = max(QUARTER, part / 2 // QUARTER * QUARTER)
        return self.refused == TRIES


def _prove(operations: OperationsPort | SumsPort, day: date, pace: _Pace) -> Iterator[SumProof]:
    since = datetime.combine(day, time(), UTC)
    until = since + DAY
    while since < until:
        end = min(until, since + pace.at_once)
        try:
            proof = operations.prove_sums(since, end)
        except LedgerUnavailable:
            if pace.is_too_much(end - since):
                raise
            continue
        pace.fits()
        yield proof
        since = end
