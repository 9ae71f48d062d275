"""Keep the sums: fold what was settled into them, sum up what came before them, and prove what is over."""

from __future__ import annotations

from callgate.domain.operator_ports import SumsPort
from callgate.domain.sums import SumProof
from callgate.event_log import event_log
from callgate.services.audit import prove_day

log = event_log(__name__)

FOLD_MAX = 5_000
"""Deltas per statement: it takes some hundredths of a second, and no settlement waits for it."""
FOLDS_MAX = 200
"""Statements of one run."""


class SumsService:
    """What every worker does for the sums, on behalf of all workers."""

    def __init__(self, store: SumsPort) -> None:
        self._store = store

    def fold(self) -> bool:
        """
        Move the deltas into the sums, and sum up one day of before them.

        Returns:
            True if more days of before are left.

        Raises:
            LedgerUnavailable
        """
        for _ in range(FOLDS_MAX):
            if self._store.fold_sums(limit=FOLD_MAX) < FOLD_MAX:
                break
        day = self._store.fill_sums()
        if day is not None:
            log.info("sums.filled", day=str(day))
        return day is not None

    def prove(self) -> None:
        """
        Prove the sums of every day that is not sealed. What is wrong is logged, and found again by `callgate audit`.

        Raises:
            LedgerUnavailable
        """
        for day in self._store.sum_days():
            proof = SumProof.sum_of(prove_day(self._store, day))
            if not proof.is_clean:
                log.error(
                    "sums.drifted",
                    day=str(day),
                    wrong_sums=proof.wrong_sums,
                    drift_nano_usd=proof.drift_nano_usd,
                    wrong_budgets=proof.wrong_budgets,
                    calls_with_missing_rows=proof.calls_with_missing_rows,
                    rows_without_call=proof.rows_without_call,
                )
