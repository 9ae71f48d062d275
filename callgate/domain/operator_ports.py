"""The ports of operators and of maintenance; `LedgerUnavailable` as in `callgate.domain.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.alerts import AlertLine
from callgate.domain.budget_ports import BudgetReportsPort
from callgate.domain.budget_states import BudgetName
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.call_ports import CallSearchPort
from callgate.domain.calls import CallKey
from callgate.domain.delivery import LinkFailure
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import (
    Ahead,
    BreakerLine,
    By,
    CallFilter,
    ConcurrencyLine,
    DeadGroup,
    EndReason,
    LimitLine,
    LimitPublisher,
    OperatorAction,
    RecentEnd,
    Snapshot,
    SpendingLine,
    UnprocessableMessage,
)
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth, BodyAges, Partitions, Purged
from callgate.domain.sums import DEFAULT_BY, CostFilter, CostLine, SumProof
from callgate.domain.unknown import (
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)
from callgate.domain.worker_lines import WorkerLine

EVERYTHING = CostFilter()


class OperationsPort(BudgetReportsPort, CallSearchPort, Protocol):
    """What operators read, and what they may change."""

    def set_budget(
        self, org_id: str, scope: str, window: Window, limit_nano_usd: int, timezone: str = "UTC"
    ) -> BudgetFigures:
        """
        Set the limit of a scope, from now on. The current period keeps its figures.

        A new time zone applies from the next period on. Calls that wait for headroom and fit now are due, oldest first.

        Raises:
            UnknownTimeZone: Nothing was changed.
        """

    def change_limit(
        self,
        name: BudgetName,
        limit_nano_usd: int,
        *,
        seen_nano_usd: int | None,
        timezone: str | None = None,
        by: By,
    ) -> BudgetFigures:
        """
        Set a limit as `set_budget` does, if it is still what the operator saw, and log who did it and why.

        Args:
            seen_nano_usd: None: the operator saw no such budget.
            timezone: None: that of the budget; UTC for a new one.

        Raises:
            ChangedMeanwhile, UnknownTimeZone: Nothing was changed.
        """

    def remove_budget(self, name: BudgetName, *, seen_nano_usd: int, by: By) -> None:
        """
        Remove a budget with all its periods, if its limit is still what the operator saw, and log who did it and why.

        Attempts under way are posted as usual. Calls that waited for it are due, as far as they fit the others.

        Raises:
            ChangedMeanwhile: Nothing was changed.
        """

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List the newest period of every budget, ordered by org, scope, window."""

    def dead_groups(self, call_filter: CallFilter) -> list[DeadGroup]:
        """Group dead letters by fingerprint, largest first."""

    def unprocessable_messages(self, *, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
        """List messages that named no call, newest first."""

    def end(self, keys: Sequence[CallKey], *, code: EndReason, message: str) -> list[CallKey]:
        """
        Cancel queued or waiting calls, or discard dead ones: they become rejected, with `code` and `message`.

        Returns:
            The keys that were ended. The others were in another state. Links of ended calls are due.
        """

    def link_failures(self, key: CallKey, *, limit: int) -> list[LinkFailure]:
        """List a call's links that could not be delivered, given-up ones first."""

    def keep_unprocessable(self, message: UnprocessableMessage) -> None:
        """Keep a message that named no call, as a dead letter."""

    def costs(
        self, which: CostFilter = EVERYTHING, by: Sequence[str] = DEFAULT_BY
    ) -> list[CostLine]:
        """Sum what was used, grouped and ordered by some of `BY_DAY` and `DIMENSIONS`, in that order."""

    def spending(
        self, org_ids: Sequence[str], *, days: int, attempts_max: int
    ) -> list[SpendingLine]:
        """
        Sum what succeeded attempts held and cost, by organisation, call type, provider and model.

        Read are the newest `attempts_max` attempts (10,000 at most) of each organisation, of whatever result, that
        began in the last `days` days. Attempts that held nothing are left out.
        """

    def breakers(self) -> list[BreakerLine]:
        """List the breakers by name, and how many calls wait for each."""

    def limits(self) -> list[LimitLine]:
        """List the provider limits by name, with what is free now and how many calls wait."""

    def concurrency(self) -> list[ConcurrencyLine]:
        """
        List how many calls may run at a time, as it is declared and for each organisation that it concerns.

        An organisation is listed while calls of it run or wait for that, a thousand of them at most.
        """

    def ahead(self, key: CallKey) -> Ahead | None:
        """
        Count the calls that come before one that waits for a place, or for money that calls in flight hold.

        Returns:
            None if it waits for something else.
        """

    def recent_ends(self, *, orgs_max: int, calls_max: int, age_s: float) -> list[RecentEnd]:
        """
        Count how the newest calls ended without an answer, by state and reason, most first.

        Args:
            orgs_max: So many organisations are looked at, by name.
            calls_max: So many of the newest calls of each.
            age_s: Calls that were submitted earlier are left out.
        """

    def limit_publishers(self) -> list[LimitPublisher]:
        """List the worker processes that have published provider limits."""

    def set_breaker(
        self,
        provider: str,
        model: str,
        credential: str,
        org_id: str = "",
        *,
        is_open: bool,
        seen_at: datetime | None = None,
        by: By,
    ) -> BreakerLine:
        """
        Open or close a breaker by hand, and log who did it and why. Without an organisation: the breaker of all.

        A breaker that was opened by hand lets nothing through, not even probes, until it is closed by hand. Closing the
        breaker of all also closes those of each organisation.

        Args:
            seen_at: When the operator saw that it changed last.

        Raises:
            ChangedMeanwhile: It has changed since `seen_at`.
        """

    def pauses(self) -> list[Pause]:
        """List the pauses and freezes that hold now, oldest first."""

    def pause(self, key: PauseKey, *, is_new: bool = False, by: By) -> Pause:
        """
        Keep the calls that a key covers from being sent, and log who did it and why.

        They wait, hold nothing, and are rejected after the longest wait of their call type. What is in flight ends as
        usual. Pausing the same again replaces who did it and why. A freeze also refuses new submissions.

        Raises:
            ChangedMeanwhile: With `is_new`, and there is such a pause.
        """

    def resume(self, key: PauseKey, *, seen_at: datetime | None = None, by: By) -> bool:
        """
        End a pause or a freeze, and log who did it and why.

        Calls that no other pause covers are due, by rank: a thousand at once, then as many as each run of the due
        query takes.

        Args:
            seen_at: When the operator saw that it began.

        Returns:
            False if there is no such pause. Then nothing was changed.

        Raises:
            ChangedMeanwhile: It began at another time than `seen_at`.
        """

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """List attempts whose bill is unknown and was not settled by hand, newest first."""

    def unknown_days(self, which: UnknownFilter) -> list[UnknownDay]:
        """Sum unknown bills by day (UTC) and model, newest first, beside the known bills of that day and model."""

    def bills(self, attempt_ids: Sequence[UUID]) -> dict[UUID, UnknownBill]:
        """Read the bills of posted attempts, known or unknown; other attempts are left out."""

    def settle_by_hand(
        self, batch: Sequence[SettleByHand], *, by: By, dry_run: bool = False
    ) -> list[SettledByHand]:
        """
        Post what the provider billed, and log who did it and why.

        It accepts attempts whose bill is unknown or was settled by hand before, and those that post their whole hold
        because no amount was known. Money moves in exactly the budgets in which the hold was made. Headroom that this
        frees in a running period makes waiting calls due. The status stays, so a late answer is still accepted, and its
        cost replaces the amount. The same amount again changes nothing. With `dry_run` nothing is changed.
        """

    def actions(self, *, limit: int) -> list[OperatorAction]:
        """List what operators changed, newest first."""

    def alerts(
        self,
        org_id: str | None = None,
        *,
        ids: Sequence[int] | None = None,
        only_holding: bool = False,
        limit: int,
    ) -> list[AlertLine]:
        """
        List alerts, newest first.

        Args:
            only_holding: Only states that still hold.
        """

    def alert_watchers(self) -> int:
        """How many worker processes are alive, and so look for alerts. If none is, nothing new is raised."""

    def worker_lines(self) -> list[WorkerLine]:
        """List the worker processes that have a lease; see `WorkersPort.worker_lines`."""

    def replay_alerts(self, ids: Sequence[int] | None, *, limit: int, by: By) -> list[int]:
        """
        Have the webhook messages of alerts sent again, the oldest `limit`, and log who did it and why.

        Args:
            ids: None: the alerts with a dead message. An alert that never had a message gets one.

        Returns:
            The alerts whose messages are sent.
        """

    def test_alert(self, operator: str) -> int:
        """Raise an alert that only shows that alerts arrive; return its id."""

    def snapshot(self) -> Snapshot:
        """
        Read the figures of budgets and calls that the audit compares.

        Each budget, and each day, is read at one moment. Counts of calls are exact while nothing changes.
        """

    def sum_days(self, *, everything: bool = False) -> list[date]:
        """
        List the days in UTC whose sums are to be proven, oldest first: those with an unsealed quarter hour or a delta.

        With `everything` also those that are wholly sealed. Days of dropped months are left out.
        """

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """
        Compare the sums of whole quarter hours, at most a day, with the rows. Those that are over and right are sealed.

        Sums by day and by budget are compared if the time is a day in UTC.
        """


class SumsPort(Protocol):
    """Keeps the sums. Any number of processes may run each method at once."""

    def fold_sums(self, *, limit: int) -> int:
        """
        Move the oldest deltas into the sums, and take the seals from the quarter hours that this changes.

        Returns:
            How many were moved; 0 also if another process changes sums.
        """

    def fill_sums(self) -> date | None:
        """Sum up a day of before the sums were kept; None if there is none, or if another process changes sums."""

    def sum_days(self, *, everything: bool = False) -> list[date]:
        """See `OperationsPort.sum_days`."""

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """See `OperationsPort.prove_sums`."""


class RetentionPort(Protocol):
    """Removes what is old. Any number of processes may run each method at once."""

    def purge(self, ages: BodyAges, *, limit: int, dry_run: bool = False) -> Purged:
        """
        Remove the bodies of up to `limit` calls that ended too long ago for their organisation; the accounting stays.

        A call ages from its last posting, or from its submission if it never ran. A call is not purged while it is open
        or has a link to deliver, money to post or a late answer to settle. Its row stays: a purged success answers
        ResultPurged, and submitting it again starts the next generation. Up to `limit` unprocessable messages older
        than the default age are deleted.

        Returns:
            How many were purged, or would be with `dry_run`. If that is `limit`, there may be more.
        """

    def calls_with_bodies(self, org_id: str) -> int:
        """Number of the organisation's calls that still have bodies: the proof of erasure."""

    def old_calls_with_bodies(self, org_id: str, age_s: float) -> int:
        """Number of those that ended so long ago; a purge of that age left them because they have work to do."""

    def old_dead_letters(self, ages: BodyAges, *, limit: int) -> int:
        """Number of dead calls whose bodies are that old; `limit` at most. Without its request none can be redriven."""

    def make_partitions(self, *, months: int) -> Partitions:
        """Create the log's partitions for this month and the next ones, `months` in all (7 at most)."""

    def forget_breakers(self, *, limit: int) -> int:
        """
        Delete up to `limit` breakers that were unused for a week, that no call waits for and no operator opened.

        Returns:
            How many were deleted.
        """

    def archive_month(
        self, keep_months: int, unknown_days: int = UNKNOWN_DAYS
    ) -> ArchivedMonth | None:
        """
        Drop the oldest month of the log that is older than `keep_months` whole months, and keep its sums.

        An unknown bill that was posted less than `unknown_days` days ago keeps its month: an operator may still settle
        it.

        Returns:
            None if there is none, or another process archives now.
        """
