"""What operators see at one glance, and the pages of the action log. Amounts are nano-USD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from callgate.domain.calls import CallKey, CallState
from callgate.domain.reports import By, OperatorAction


@dataclass(frozen=True, slots=True)
class Glance:
    """What is read beside the figures of metrics."""

    at: datetime
    dead: int
    """Calls that died lately."""
    held_nano_usd: int
    """What attempts under way hold."""
    day_budgets: int
    """Daily budgets of organisations whose period runs. The next three are their sums."""
    day_limit_nano_usd: int
    day_held_nano_usd: int
    day_spent_nano_usd: int


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """How the newest attempts at one model ended. Those that have not ended are in `attempts` only."""

    provider: str
    model: str
    attempts: int
    succeeded: int
    failed: int
    unknown: int
    p50_ms: int | None
    """Half of the replies took so long at most. None: there was no reply."""
    p95_ms: int | None

    @property
    def ended(self) -> int:
        """Attempts whose outcome is known, or will never be."""
        return self.succeeded + self.failed + self.unknown

    @property
    def success_share(self) -> float | None:
        """Succeeded among ended; None if none has ended."""
        return self.succeeded / self.ended if self.ended else None


@dataclass(frozen=True, slots=True)
class ActionFilter:
    """Which actions are meant; every field that is set narrows."""

    operator: str | None = None
    org_id: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedAction:
    """An action with its number in the log."""

    number: int
    login: str
    """The login of the database."""
    done: OperatorAction


class OverviewPort(Protocol):
    """What the pages "Overview" and "Action log" read and change; `LedgerUnavailable` as in `callgate.domain.ports`."""

    def glance(self, *, dead_s: float, rows_max: int) -> Glance:
        """
        Read what is wrong or held now.

        Args:
            dead_s: A call died lately if its last attempt began so many seconds ago at most.
            rows_max: At most so many rows of each kind are read.
        """

    def provider_health(self, *, age_s: float, attempts_max: int) -> list[ProviderHealth]:
        """Look at the newest attempts of the last `age_s` seconds, by provider and model, most attempts first."""

    def states(self, keys: Sequence[CallKey]) -> dict[CallKey, CallState]:
        """Read the states of calls; those that do not exist are left out."""

    def actions_page(
        self, which: ActionFilter, *, before: int | None = None, limit: int
    ) -> list[LoggedAction]:
        """List actions, newest first: those with a smaller number than `before`."""

    def note(self, org_id: str | None, *, by: By) -> None:
        """Write a note to the action log; `by` says who and what. None: it concerns no one organisation."""
