"""The port of what operators' pages read about budgets, pauses and unknown bills; `LedgerUnavailable` as in `ports`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.budget_states import Affected, BudgetName, BudgetState, MoneyWaiter
from callgate.domain.budgets import BudgetFigures
from callgate.domain.pauses import PauseKey
from callgate.domain.unknown import UnknownBill, UnknownFilter


@dataclass(frozen=True, slots=True)
class UnknownSum:
    """The unknown bills of one model that were not settled by hand."""

    provider: str
    model: str
    attempts: int
    posted_nano_usd: int
    oldest_at: datetime


class BudgetReportsPort(Protocol):
    """What pages show. Every answer is bounded, whatever the number of organisations and calls."""

    def fullest_budgets(self, *, limit: int) -> list[BudgetState]:
        """
        Read budgets whose period runs, those with the largest used part of their limit first.

        Of more than ten thousand running periods some are not looked at.
        """

    def budgets_by_name(
        self, *, org_id: str | None = None, after: BudgetName | None = None, limit: int
    ) -> list[BudgetState]:
        """Read budgets in their newest period by organisation, scope and window: those after a name."""

    def budget_state(self, name: BudgetName) -> BudgetState | None:
        """Read one budget; None if there is none."""

    def budget_periods(self, name: BudgetName, *, limit: int) -> list[BudgetFigures]:
        """Read the periods of a budget, newest first. A period without a call has none."""

    def spent_by_quarter(self, name: BudgetName, since: datetime) -> list[tuple[datetime, int]]:
        """What attempts of a budget's scope have posted, by the quarter hour in which they began, oldest first."""

    def money_waiters(self, org_id: str, *, limit: int) -> list[MoneyWaiter]:
        """Read the calls of an organisation that wait for money, oldest first."""

    def affected(self, key: PauseKey) -> Affected:
        """Count the open calls that a pause would cover."""

    def unknown_page(
        self, which: UnknownFilter, *, after: tuple[datetime, UUID] | None = None, limit: int
    ) -> list[UnknownBill]:
        """List unknown bills that were not settled by hand, newest first: those after one, by its time and id."""

    def unknown_sums(self, which: UnknownFilter, *, attempts_max: int) -> Sequence[UnknownSum]:
        """Sum up the newest of them by provider and model, most money first."""
