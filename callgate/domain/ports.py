"""
What callgate needs from the world, as roles. Every port has an adapter in memory and one that is real.

Ledger methods take a batch and answer in the batch's order. A row that cannot be written is answered
for itself and never takes its neighbours along. Every method raises `LedgerUnavailable` when the ledger did not answer
within its deadline; then nothing is known, and calling again with the same values is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.answers import Answer, Finding
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.delivery import Delivery, LinkFailure, Published, Told
from callgate.domain.ledger import (
    DueBatch,
    NewSubmission,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    ReserveCommand,
    ReserveOutcome,
    Settle,
    SettleOutcome,
    Submitted,
)
from callgate.domain.provider import Failure, Priced, ProviderReply, TokenBound
from callgate.domain.reports import (
    BreakerLine,
    By,
    CallFilter,
    CostLine,
    DeadGroup,
    EndReason,
    OperatorAction,
    Snapshot,
    UnprocessableMessage,
)
from callgate.domain.requests import LLMRequest, ServiceTier, Usage
from callgate.domain.retention import UNKNOWN_DAYS, ArchivedMonth, BodyAges, Partitions, Purged
from callgate.domain.unknown import (
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)


class LedgerPort(Protocol):
    """The truth about calls, attempts and money."""

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """
        Store each submission, and a call for it unless one answers already.

        open -> JOINED; succeeded -> REPLAYED; dead -> FAILED; rejected, purged, or `force` on an ended
        call -> CREATED as the next generation. `force` on an open call joins it. A known `submission_id` answers as
        it did before (as JOINED, REPLAYED or FAILED by the call's state, except CREATED while it is still queued and
        unclaimed: publishing again is harmless). An idempotency key that was used in this organisation for another
        call answers IDEMPOTENCY_MISMATCH, and nothing of that row is stored. A `call_id` that is not the one of its
        organisation and hash, or a `submission_id` of another call, answers UNSTORABLE. Two submissions of one call in
        one batch: the first creates, the second joins.
        """

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> Iterable[CallView | None]:
        """
        Look at calls, in the order asked for; None where there is none.

        An `AttemptRef` brings that attempt as `last`; a `CallKey` the winner of an ended call, else the newest attempt.
        They may be read only while the caller goes through them, and bodies a few at a time: whoever keeps of each no
        more than is needed never has many of them in memory.
        """

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """
        Decide queued calls one by one, in the order given: claim, reject, defer or requeue each.

        A claim holds the worst-case cost in all scopes of the call, or in none; a hold is never reduced. The attempt's
        row in `ai_call_log` is written in the same transaction, with status dispatched. A refused call does not affect
        its neighbours in the batch. Without headroom:

        - held by calls in flight: the call waits `budgets.held_wait_s(age)`;
        - exhausted: it is rejected, or waits until the period ends (`OnBudget.WAIT`);
        - larger than the limit, or no budget: it is rejected.

        A budget whose period has ended rolls over first. If the ledger does not know its time zone, its calls are
        rejected. A call with headroom may still wait for the breaker of its provider, model and credential, at most
        `wait_max_s`; then it is rejected.
        """

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """Keep what the provider answered: dispatched -> answered, safe before anything else happens to it."""

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """
        Post attempts and move their calls; settling twice changes nothing.

        answered -> posted; dispatched -> only as UNKNOWN; unknown with a late answer -> posted again with the truth
        (or left UNKNOWN). An attempt that is no longer in `expected_status` is left alone.
        Money moves in exactly the budgets the hold was made in. Of a call that ends it says whether it has links: for
        ten seconds they are the caller's to deliver, then anybody's. Headroom that is freed makes waiting calls due:
        those that fit, oldest first; one that does not fit holds up nobody. Breakers hear what the attempts came to
        (`Settle.health`); one that is closed or proven again makes calls due that wait for it.
        """

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """
        Take up to `limit` calls whose `due_at` has come, oldest first; no two callers get the same one.

        waiting -> queued. Calls that wait for a breaker are due as soon as it has room. Expired attempts are taken only
        for a `reaper` whose lease is fresh and has been stable for `lease_stable_for_s` seconds when the ledger
        executes this. So no outage makes an attempt lost, not even through a statement that was sent before it. A call
        that the ledger cannot change is skipped.
        """

    def take_lost_messages(self, *, limit: int, queued_before: datetime) -> DueBatch:
        """
        Take up to `limit` calls that were queued before a time and are unclaimed: their messages were lost.

        `sweeps` counts how often that happened to a call. Calls that wait for headroom are made due if it is there. A
        call that the ledger cannot change is skipped.
        """

    def links(
        self, *, limit: int, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """
        Take up to `limit` links of ended calls, bounded in bytes too; their calls are lent for ten seconds.

        Organisations take turns: those named behind `after`, in order, each with a part of its links. With `keys`
        instead: of these calls, a few of each, whenever they were to be told.
        """

    def deliver(self, outcomes: Sequence[Told]) -> None:
        """Keep what became of links; a call with none left is told of."""


class LeasePort(Protocol):
    """
    Which worker processes are alive, by the ledger's own clock.

    A process has one lease and renews it every quarter of its length. It relies on the first half only
    (`services.lease`), so by the time the ledger may call it dead it has long stopped sending. A process without a
    lease is judged by its attempts' deadlines alone.
    """

    def renew(self, worker_id: str, lease_s: float) -> datetime:
        """
        Grant or prolong a lease, `lease_s` seconds from now.

        Returns:
            When the lease began. Another time than before: it had run out and was released meanwhile, so attempts that
            were claimed under it are no longer this process's.
        """

    def release(self, worker_id: str) -> None:
        """
        End a lease; the calls of its unposted attempts are due now.

        For a process that ends, when nothing in it will send or record any more.
        """

    def expire(self, reaper: str) -> list[str]:
        """
        Release leases that have run out, a few at a time, on behalf of the process `reaper`.

        Nothing happens unless the judge's own lease is fresh and has been steady for as long as the judged one lasts:
        after an outage of the ledger everyone alive has renewed before anyone is judged.

        Returns:
            The worker ids whose leases are gone.
        """


class OperationsPort(Protocol):
    """What operators ask of the ledger, and the few things they may change."""

    def set_budget(
        self, org_id: str, scope: str, window: Window, limit_nano_usd: int, timezone: str = "UTC"
    ) -> BudgetFigures:
        """
        Set the limit of a scope, now: the current period keeps what is spent and held in it.

        A time zone holds from the next period on. Calls that wait for headroom and fit now are due at once, oldest
        first.

        Raises:
            UnknownTimeZone: The ledger knows none of this name; nothing was changed.
        """

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List the newest period of every budget, ordered by org, scope, window."""

    def calls(self, wanted: CallFilter, *, limit: int) -> list[CallView]:
        """List calls, newest first, without bodies."""

    def dead_groups(self, wanted: CallFilter) -> list[DeadGroup]:
        """Group dead letters by fingerprint, largest first."""

    def unprocessable_messages(self, *, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
        """List messages that named no call, newest first."""

    def end(self, keys: Sequence[CallKey], *, code: EndReason, message: str) -> list[CallKey]:
        """
        Cancel queued or waiting calls, or discard dead ones: they become rejected, with `code` and `message`.

        Returns:
            The keys that were ended; others were not in such a state. Their links, if any, fall due.
        """

    def link_failures(self, key: CallKey, *, limit: int) -> list[LinkFailure]:
        """List links of a call that could not be delivered so far, those that were given up first."""

    def keep_unprocessable(self, stray: UnprocessableMessage) -> None:
        """Keep a message that named no call, as a dead letter."""

    def costs(self, org_id: str | None = None) -> list[CostLine]:
        """Sum what was used, by organisation, call type, provider and model."""

    def breakers(self) -> list[BreakerLine]:
        """List the breakers by name, and how many calls wait for each."""

    def set_breaker(
        self, provider: str, model: str, credential: str, org_id: str = "", *, is_open: bool, by: By
    ) -> BreakerLine:
        """
        Open or close a breaker by hand, and keep who did it and why: everybody's, or an organisation's own.

        An opened one lets nothing through, no probe either, until it is closed by hand. Everybody's, closed, lets
        everything through, and all organisations' own are closed with it: the operator vouches for the provider.
        """

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """List attempts whose bill nobody knows and nobody settled by hand, newest first."""

    def unknown_days(self, which: UnknownFilter) -> list[UnknownDay]:
        """Sum them by day (UTC) and model, newest first, beside the bills of that day and model that are known."""

    def bills(self, attempt_ids: Sequence[UUID]) -> dict[UUID, UnknownBill]:
        """Look at attempts that are posted, whatever is known of their bills; others are left out."""

    def settle_by_hand(
        self, batch: Sequence[SettleByHand], *, by: By, dry_run: bool = False
    ) -> list[SettledByHand]:
        """
        Post what the provider billed, and keep who did it and why.

        Of attempts whose bill nobody knows, were settled by hand before, or post their whole hold for want of an
        amount. Money moves in exactly the budgets the hold was made in; where that frees headroom of a running period,
        waiting calls are due. The status stays: a late answer is still taken, and posted with the truth if it brings
        one. The same amount again changes nothing. With `dry_run` the answers are the same, and nothing is done.
        """

    def actions(self, *, limit: int) -> list[OperatorAction]:
        """List what operators changed, newest first."""

    def snapshot(self) -> Snapshot:
        """Take one consistent look at the books."""


class RetentionPort(Protocol):
    """What makes room in the ledger. Every method may be run by any number of processes at once."""

    def purge(self, ages: BodyAges, *, limit: int, dry_run: bool = False) -> Purged:
        """
        Remove the bodies of up to `limit` calls that ended too long ago for their organisation; the accounting stays.

        A call ages from its last posting, one that never ran from its submission. Never of a call that is open, has a
        link to deliver, money to post or a late answer to settle. All generations, the newest too: it stays as a row, a
        success answers ResultPurged and submitting it again starts the next generation. Up to `limit` stray messages
        older than the default age are deleted.

        Returns:
            How many went, or with `dry_run` how many would go: `limit` means there may be more.
        """

    def calls_with_bodies(self, org_id: str) -> int:
        """Count what a purge of an organisation has left, for whatever reason; whoever must erase has to know."""

    def old_calls_with_bodies(self, org_id: str, age_s: float) -> int:
        """Count those that ended so long ago: a purge of that age had to leave them, for they are not at rest."""

    def make_partitions(self, *, months: int) -> Partitions:
        """See that this month and the next ones, `months` in all (7 at most), have their partitions of the log."""

    def forget_breakers(self, *, limit: int) -> int:
        """
        Delete up to `limit` breakers that nobody has used for a week, no call waits for, and no operator opened.

        Returns:
            How many were deleted.
        """

    def archive_month(
        self, keep_months: int, unknown_days: int = UNKNOWN_DAYS
    ) -> ArchivedMonth | None:
        """
        Drop the oldest month of the log that is older than `keep_months` whole months, and keep its sums.

        A bill that nobody knows, and that was posted less than `unknown_days` days ago, keeps its month: an operator
        may still settle it.

        Returns:
            None if there is none, or another process is at it.
        """


class LLMProviderPort(Protocol):
    """Makes one provider request. Business code never sees more of a provider than this."""

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """
        Send exactly one request, and never another: no retries, no redirects.

        `attempt_id` travels as a request header, so that a provider's log can be matched with ours.

        Args:
            request: `max_output_tokens` is set; it is sent as it was held.
            timeout_s: The whole request's patience, to the last byte.

        Returns:
            The reply, or why there is none and whether it may have been billed. Raises only on cancellation.
        """

    def credential(self, org_id: str) -> str:
        """Whose key a request of this organisation is made with: its own id, or empty for the provider's key."""

    async def aclose(self) -> None:
        """Close the connections."""


class TokenEstimatorPort(Protocol):
    """Bounds the input tokens of a request without any network."""

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """
        Count in steps of some milliseconds, and return the bound.

        Never less than what the provider will count, response schema and message framing included; what has passed
        `stop_above` is counted no further.
        """


class CostCalculatorPort(Protocol):
    """
    Turns tokens into money.

    Raises:
        UnpricedModel: No price is known for the provider and model (or for the service tier).
    """

    def worst_case(self, request: LLMRequest, input_token_bound: int, at: datetime) -> Priced:
        """A true upper bound, rounded up: dearest input rate, `n x max_output_tokens` at the output rate, fees."""

    def cost(
        self, provider: str, model: str, usage: Usage, tier: ServiceTier, at: datetime
    ) -> Priced:
        """The cost of what was used, half-even; `at` is when the attempt started."""


class SchemaValidatorPort(Protocol):
    """Knows what a JSON Schema is."""

    def check_schema(self, schema: str) -> str | None:
        """Say what is wrong with the schema itself, or None."""


class OutputValidatorPort(Protocol):
    """Checks answers against their schemas; both come from strangers."""

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[Finding]:
        """Check answers, organisations in turn, for so many seconds; what is over then cannot be said now."""


class CredentialsPort(Protocol):
    """Finds API keys; asked for every request, so that a rotated key needs no restart."""

    def api_key(self, provider: str, org_id: str) -> str | None:
        """The organisation's own key, else the provider's, else None."""

    def has_own_key(self, provider: str, org_id: str) -> bool:
        """True if `api_key` is the organisation's own."""


class QueuePort(Protocol):
    """
    Wakes workers and tells submitters. Losing a message loses nothing: the ledger knows.

    Raises:
        BrokerUnavailable: The broker did not answer within its deadline; publishing again is harmless.
    """

    def publish_calls(self, keys: Sequence[CallKey]) -> None:
        """Publish a call task for each key."""

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Publish a log task for each answered attempt, as the child of its call task."""

    def publish_sweep(self, sent_at: datetime) -> None:
        """Send a sweep through the call queue, behind everything that was published before `sent_at`."""

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """
        Publish links, each with `{task_id, state}` as its first argument.

        Returns:
            What became of the first of them: of all, unless the broker stopped answering.
        """


class BudgetCachePort(Protocol):
    """A copy of budget figures for readers that may be a moment behind. Never asked for admission."""

    def get(self, org_id: str, load: Callable[[str], list[BudgetFigures]]) -> list[BudgetFigures]:
        """The figures of an organisation: cached, else loaded and kept for a short while; works without the cache."""


class ClockPort(Protocol):
    """A process's own time, for patience and back-off only."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, and does not stand still while the host is suspended."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
