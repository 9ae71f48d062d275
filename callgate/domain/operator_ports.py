"""The ports of operators and of maintenance; `LedgerUnavailable` as in `callgate.domain.ports`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import CallKey, CallView
from callgate.domain.delivery import LinkFailure
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import (
    BreakerLine,
    By,
    CallFilter,
    ConcurrencyLine,
    CostLine,
    DeadGroup,
    EndReason,
    LimitLine,
    LimitPublisher,
    OperatorAction,
    Snapshot,
    SpendingLine,
    UnprocessableMessage,
)
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth, BodyAges, Partitions, Purged
from callgate.domain.unknown import (
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)


class OperationsPort(Protocol):
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

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List the newest period of every budget, ordered by org, scope, window."""

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """List calls, newest first, without bodies."""

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

    def costs(self, org_id: str | None = None) -> list[CostLine]:
        """Sum what was used, by organisation, call type, provider and model."""

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

    def limit_publishers(self) -> list[LimitPublisher]:
        """List the worker processes that have published provider limits."""

    def set_breaker(
        self, provider: str, model: str, credential: str, org_id: str = "", *, is_open: bool, by: By
    ) -> BreakerLine:
        """
        Open or close a breaker by hand, and log who did it and why. Without an organisation: the breaker of all.

        A breaker that was opened by hand lets nothing through, not even probes, until it is closed by hand. Closing the
        breaker of all also closes those of each organisation.
        """

    def pauses(self) -> list[Pause]:
        """List the pauses and freezes that hold now, oldest first."""

    def pause(self, key: PauseKey, *, by: By) -> Pause:
        """
        Keep the calls that a key covers from being sent, and log who did it and why.

        They wait, hold nothing, and are rejected after the longest wait of their call type. What is in flight ends as
        usual. Pausing the same again replaces who did it and why. A freeze also refuses new submissions.
        """

    def resume(self, key: PauseKey, *, by: By) -> bool:
        """
        End a pause or a freeze, and log who did it and why.

        Calls that no other pause covers are due, by their turn: a thousand at once, then as many as each run of the due
        query takes.

        Returns:
            False if there is no such pause. Then nothing was changed.
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

    def snapshot(self) -> Snapshot:
        """Read all figures that the audit compares, in one transaction."""


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
