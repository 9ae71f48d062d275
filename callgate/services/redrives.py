"""What operators do with redrives: plan one, see what it would do, start, pause, resume and abort it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from callgate.domain.errors import RedriveNotFound
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.redrive_forecast import Circumstances, Forecast, forecast
from callgate.domain.redrive_ports import RedrivesPort
from callgate.domain.redrives import (
    CALLS_MAX,
    DEFAULT_TERMS,
    NewRedrive,
    Redrive,
    RedriveCall,
    RedriveOrg,
    RedriveOutcome,
    RedriveTerms,
    StartRedrive,
    UnknownBills,
)
from callgate.domain.reports import By, CallFilter


class RedriveService:
    """Every method is one change or one look. Workers do the rest; see `RedriveRunner`."""

    def __init__(
        self, redrives: RedrivesPort, operations: OperationsPort, now: Callable[[], datetime]
    ) -> None:
        self._redrives = redrives
        self._operations = operations
        self._now = now

    def plan(
        self,
        selection: CallFilter,
        by: By,
        *,
        calls_max: int = CALLS_MAX,
        redrive_id: UUID | None = None,
    ) -> Redrive:
        """
        Freeze the calls of a selection, so that workers price them.

        Args:
            redrive_id: The same id again is the same redrive; None: a new one.

        Raises:
            CallNotFound, TooManyRedrives, LedgerUnavailable
        """
        new = NewRedrive(redrive_id or uuid4(), selection, by, calls_max)
        return self._redrives.plan(new)

    def forecast(self, redrive_id: UUID) -> Forecast:
        """
        Say how many pending calls would be refused or wait, by what budgets, limits, pauses and breakers say now.

        Raises:
            LedgerUnavailable
        """
        seen = Circumstances(
            now=self._now(),
            budgets=self._operations.budgets(),
            pauses=[pause.key for pause in self._operations.pauses()],
            breakers=self._operations.breakers(),
            limits=self._operations.limits(),
        )
        calls = self._redrives.calls_of(redrive_id, RedriveOutcome.PENDING, limit=CALLS_MAX)
        return forecast(calls, seen)

    def start(
        self,
        redrive_id: UUID,
        by: By,
        *,
        expected_calls: int,
        terms: RedriveTerms = DEFAULT_TERMS,
        unknown_bills: UnknownBills = UnknownBills.REFUSE,
    ) -> Redrive:
        """Let workers release its calls; see `RedrivesPort.start`."""
        return self._redrives.start(
            StartRedrive(redrive_id, expected_calls, by, terms, unknown_bills)
        )

    def pause(self, redrive_id: UUID, by: By) -> Redrive:
        """Release nothing more for now; see `RedrivesPort.pause`."""
        return self._redrives.pause(redrive_id, by)

    def resume(self, redrive_id: UUID, by: By, terms: RedriveTerms | None = None) -> Redrive:
        """Go on, under the terms of before if none are given; see `RedrivesPort.resume`."""
        return self._redrives.resume(redrive_id, terms or self.get(redrive_id).terms, by)

    def abort(self, redrive_id: UUID, by: By) -> Redrive:
        """Leave all calls that are not released; see `RedrivesPort.abort`."""
        return self._redrives.abort(redrive_id, by)

    def get(self, redrive_id: UUID) -> Redrive:
        """
        One redrive.

        Raises:
            RedriveNotFound, LedgerUnavailable
        """
        if (redrive := self._redrives.get(redrive_id)) is None:
            raise RedriveNotFound(f"there is no redrive {redrive_id}")
        return redrive

    def newest(self, *, limit: int) -> Sequence[Redrive]:
        """Redrives, newest first."""
        return self._redrives.newest(limit=limit)

    def calls_of(
        self,
        redrive_id: UUID,
        outcome: RedriveOutcome | None = None,
        *,
        after: int = 0,
        limit: int,
    ) -> Sequence[RedriveCall]:
        """Calls of a redrive by number, from the one after `after` on."""
        return self._redrives.calls_of(redrive_id, outcome, after=after, limit=limit)

    def orgs_of(self, redrive_id: UUID) -> Sequence[RedriveOrg]:
        """The calls of a redrive by organisation, the most expensive first."""
        return self._redrives.orgs_of(redrive_id)
