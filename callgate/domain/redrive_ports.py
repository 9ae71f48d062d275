"""The port of redrives; `LedgerUnavailable` as in `callgate.domain.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from callgate.domain.ledger import Submitted
from callgate.domain.redrives import (
    NewRedrive,
    PricedCall,
    Redrive,
    RedriveCall,
    RedriveOrg,
    RedriveOutcome,
    RedriveStep,
    RedriveTerms,
    StartRedrive,
)
from callgate.domain.reports import By


class RedrivesPort(Protocol):
    """Stored redrives, as operators and workers use them."""

    def plan(self, new: NewRedrive) -> Redrive:
        """
        Freeze the calls of a selection: the newest generations that are dead, or rejected; log who did it and why.

        Raises:
            CallNotFound: No call matches; nothing is stored.
            TooManyRedrives: Others have to end first.
        """

    def start(self, start: StartRedrive) -> Redrive:
        """
        Let workers release the calls, and log who did it and why.

        Raises:
            RedriveNotFound, RedriveStateDiffers
            CountDiffers: It would release another number of calls; nothing is changed. The same below.
            SecondPaymentNotAllowed: Calls may be billed a second time, and the operator has not agreed.
        """

    def pause(self, redrive_id: UUID, by: By) -> Redrive:
        """
        Release nothing more for now. What is released goes on.

        Raises:
            RedriveNotFound, RedriveStateDiffers
        """

    def resume(self, redrive_id: UUID, terms: RedriveTerms, by: By) -> Redrive:
        """
        Go on, under these terms. Failures of before do not count any more.

        Raises:
            RedriveNotFound, RedriveStateDiffers
        """

    def abort(self, redrive_id: UUID, by: By) -> Redrive:
        """
        Leave all calls that are not released. What is released goes on, and its outcome is kept.

        Raises:
            RedriveNotFound, RedriveStateDiffers
        """

    def get(self, redrive_id: UUID) -> Redrive | None:
        """One redrive."""

    def newest(self, *, limit: int) -> Sequence[Redrive]:
        """Redrives, newest first."""

    def calls_of(
        self,
        redrive_id: UUID,
        outcome: RedriveOutcome | None = None,
        *,
        after: int = 0,
        limit: int,
    ) -> Sequence[RedriveCall]:
        """Calls of a redrive by number, from the one after `after` on."""

    def orgs_of(self, redrive_id: UUID) -> Sequence[RedriveOrg]:
        """The calls of a redrive by organisation, the most expensive first."""

    def take(self, *, lease_s: float) -> RedriveStep | None:
        """
        Take the redrive that has waited longest for a worker, and see what became of its released calls.

        Nobody else takes it for `lease_s`, if there is something to do.

        Returns:
            None if no redrive needs a worker now.
        """

    def price(self, step: RedriveStep, prices: Sequence[PricedCall]) -> None:
        """Keep what calls can cost. Nothing is changed if the lease is not the newest one."""

    def release(self, step: RedriveStep, calls: Sequence[PricedCall]) -> Sequence[Submitted]:
        """
        Give calls their next generation, each in the same transaction as its outcome.

        A call that is locked, or whose organisation is busy, stays pending. The rate, the cap and the bound of open
        calls are asked again.

        Returns:
            The generations that were created; publish them.
        """

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete redrives that ended so long ago, at most `limit`; return how many."""
