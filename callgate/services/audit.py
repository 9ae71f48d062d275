"""Compare the ledger's budget figures with its rows, in one consistent snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.reports import BudgetDrift, Snapshot


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Whether the ledger's figures agree with its rows."""

    snapshot: Snapshot
    drift_nano_usd: int
    """Σ over budgets of |figure - rows|; must be 0."""
    drifting: tuple[BudgetDrift, ...]

    @property
    def is_clean(self) -> bool:
        """True if no figure drifts, every attempt has its row, and every row its call."""
        return (
            self.drift_nano_usd == 0
            and self.snapshot.calls_with_missing_rows == 0
            and self.snapshot.rows_without_call == 0
        )


def audit(snapshot: Snapshot) -> AuditReport:
    """Audit a snapshot."""
    drifting = tuple(b for b in snapshot.budgets if b.drift_nano_usd)
    return AuditReport(snapshot, sum(b.drift_nano_usd for b in drifting), drifting)
