"""
The ports: what callgate needs from the outside. Each has a real adapter and one in memory.

Methods of the ledger take a batch and answer in its order. If a row cannot be written, only that row fails. Every
method raises `LedgerUnavailable` if the ledger did not answer in time. Then it may or may not have taken effect.
Calling again with the same values is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from callgate.domain.access import Access
from callgate.domain.answers import Answer, SchemaResult
from callgate.domain.budgets import BudgetFigures
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.delivery import Delivery, LinkOutcome, Published
from callgate.domain.fingerprints import NO_SECTIONS, ExpiredLease, Fingerprint, LiveWorker
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
    LockHoarder,
)
from callgate.domain.requests import LLMRequest, ServiceTier, Usage


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

        A new call of an organisation that has many queued waits in the backlog. A call that is joined before it runs is
        raised to the higher class and the latest deadline.

        Raises:
            OrganisationFrozen: A submission that is not known is of a frozen organisation. Nothing was stored, unless
                the batch was so large that several statements store it.
        """

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> Iterable[CallView | None]:
        """
        Read calls, in the order of the keys; None for one that does not exist.

        An `AttemptRef` brings that attempt as `last`. A `CallKey` brings the winner of an ended call, else the newest
        attempt. Calls may be read while the caller iterates, and bodies a few at a time, so that few are in memory.
        """

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """
        Decide queued calls one by one, in the order given: claim, reject, defer or requeue each.

        A claim holds the worst-case cost in all scopes of the call, or in none; a hold is never reduced. The attempt's
        row in `ai_call_log` is written in the same transaction, with status dispatched. A refused call does not affect
        its neighbours in the batch. Without headroom:

        - held by calls in flight: the call waits `budgets.held_wait_s(age)`, in total at most `wait_max_s`;
        - exhausted: it is rejected, or waits until the period ends (`OnBudget.WAIT`), unless it is older than
          `budgets.PERIOD_WAIT_MAX`;
        - larger than the limit, or no budget: it is rejected.

        A budget whose period has ended rolls over first. If the ledger does not know its time zone, its calls are
        rejected. A call with headroom may still wait for the breaker of its provider, model and credential, at most
        `wait_max_s`; then it is rejected.

        Before all that, a paused call is refused. It waits for the end of the pause, within the same `wait_max_s`.
        """

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """Keep a provider's answer: dispatched -> answered. This comes before anything else is done with it."""

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """
        Post attempts and move their calls; settling twice changes nothing.

        An answered attempt is posted. A dispatched one is posted only as UNKNOWN. An unknown one with a late answer is
        posted again, with the cost that is known now. An attempt that is not in `expected_status` any more is left
        alone. Money moves in exactly the budgets in which the hold was made.

        The links of a call that ends are the caller's to deliver for ten seconds, then anybody's. Freed headroom makes
        waiting calls due: those that fit, oldest first. Breakers count the results (`Settle.health`); one that closes
        makes the calls due that wait for it.
        """

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """
        Take up to `limit` calls whose `due_at` has come, oldest first; no two callers get the same one.

        waiting -> queued. Calls that wait for a breaker, a provider limit or in the backlog are due as soon as there is
        headroom, paused ones as soon as no pause covers them. Expired attempts are taken
        only for a `reaper` whose lease is fresh and has been stable for `lease_stable_for_s` seconds when the ledger
        executes this. So an outage makes no worker loss, not even by a statement that was sent before the outage. A
        call that the ledger cannot change is skipped.
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
        Take up to `limit` links of ended calls, of bounded total size. Other callers do not get them for ten seconds.

        Organisations take turns in the order of their names, beginning after `after`. With `keys`: a few links of each
        of these calls, due or not.
        """

    def keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> None:
        """Store delivery results. A call without open links is not offered by `links` any more."""


class LeasePort(Protocol):
    """
    Which worker processes are alive, by the ledger's own clock.

    A process has one lease and renews it after each quarter of its length. It trusts the first half only
    (`services.lease`), so it has stopped sending long before the ledger may declare it dead. Attempts of a process
    without a lease expire by their deadlines only.
    """

    def renew(self, worker_id: str, lease_s: float, slots: int | None = None) -> datetime:
        """
        Grant or prolong a lease, `lease_s` seconds from now.

        Args:
            slots: How many calls the process runs at a time. While a live process does not say it, nobody shares slots.

        Returns:
            When the lease began. If that changes, the old lease expired and was released, and attempts that were
            claimed under it no longer belong to this process.
        """

    def release(self, worker_id: str) -> None:
        """
        End a lease, once its process sends and records nothing any more. Its unposted attempts are due now.
        """

    def expire(self, reaper: str) -> list[str]:
        """
        Release expired leases, a few at a time, on behalf of the process `reaper`.

        The reaper's own lease must be fresh, and stable for at least the length of the lease that is released. So after
        an outage of the ledger every live process has renewed its lease before any lease is released.

        Returns:
            The worker ids whose leases are gone.
        """


class FingerprintPort(Protocol):
    """What worker processes are made of."""

    def publish(
        self, worker_id: str, fingerprint: Fingerprint, sections: Mapping[str, str] = NO_SECTIONS
    ) -> None:
        """
        Keep it with the lease of this process, until the lease ends. Without a lease it is forgotten.

        Args:
            sections: Digests of the catalogue's sections, by name.
        """

    def workers(self) -> list[LiveWorker]:
        """List the processes whose lease has not expired, by name."""

    def expired(self) -> list[ExpiredLease]:
        """
        List processes that stopped renewing their lease, at most 100, the newest first.

        Those whose calls were taken over within the last hour too, unless they have come back.
        """


class LockWatchPort(Protocol):
    """Ends sessions of clients that hold almost all locks of the server."""

    def look(self) -> list[LockHoarder]:
        """
        End the sessions that hold too many locks; for one thread. The first look gets ready for those that follow.

        Returns:
            Which those are. One that has not gone yet is named again by the next look.

        Raises:
            LedgerUnavailable: The look failed; the next one may succeed.
        """

    def close(self) -> None:
        """Look no more."""


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
            timeout_s: For the whole request, to the last byte of the reply.

        Returns:
            The reply, or why there is none and whether it may have been billed. Raises only on cancellation.
        """

    def credential(self, org_id: str) -> str:
        """The owner of the key for requests of this organisation: its id, or empty for the provider's own key."""

    async def aclose(self) -> None:
        """Close the connections."""


class TokenEstimatorPort(Protocol):
    """Bounds the input tokens of a request without any network."""

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """
        Count in steps of some milliseconds, and return the bound.

        It is never less than what the provider will count, with response schema and message framing. Counting stops
        above `stop_above`.
        """


class CostCalculatorPort(Protocol):
    """
    Turns tokens into money.

    Raises:
        UnpricedModel: No price is known for the provider and model (or for the service tier).
    """

    def worst_case(self, request: LLMRequest, input_token_bound: int, at: datetime) -> Priced:
        """An upper bound, rounded up: the highest input rate, `n x max_output_tokens` at the output rate, fees."""

    def cost(
        self, provider: str, model: str, usage: Usage, tier: ServiceTier, at: datetime
    ) -> Priced:
        """The cost of what was used, half-even; `at` is when the attempt started."""


class SchemaValidatorPort(Protocol):
    """Checks JSON Schemas themselves."""

    def check_schema(self, schema: str) -> str | None:
        """What is wrong with the schema, or None."""


class OutputValidatorPort(Protocol):
    """Checks answers against their schemas. Both are untrusted."""

    def check_all(self, answers: Sequence[Answer], within_s: float) -> list[SchemaResult]:
        """Check answers, organisations in turn, for so many seconds; the rest are CheckerUnavailable."""


class CredentialsPort(Protocol):
    """Finds API keys; asked for every request, so that a rotated key needs no restart."""

    def access(self, provider: str, org_id: str) -> Access:
        """
        The organisation's own key and endpoint, else the provider's key.

        An organisation with an endpoint and no own key has no key: the provider's goes to the provider only.
        """


class QueuePort(Protocol):
    """
    Wakes workers and tells submitters. A lost message loses no call: the ledger has it.

    Raises:
        BrokerUnavailable: The broker did not answer within its deadline; publishing again is harmless.
    """

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """Publish a call task for each key, with the span of their submission if it is known."""

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Publish a settle task for each answered attempt, as the child of its call task."""

    def publish_sweep(self, sent_at: datetime) -> None:
        """Send a sweep through the call queue, behind everything that was published before `sent_at`."""

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """
        Publish links, each with `{task_id, state}` as its first argument.

        Returns:
            The results of the first links: of all, unless the broker stopped answering.
        """


class BudgetCachePort(Protocol):
    """A copy of budget figures that may be a moment behind. Admission never reads it."""

    def get(self, org_id: str, load: Callable[[str], list[BudgetFigures]]) -> list[BudgetFigures]:
        """The figures of an organisation: cached, else loaded and kept for a short while; works without the cache."""

    def close(self) -> None:
        """Close the connections."""


class ClockPort(Protocol):
    """A process's own time, for timeouts and back-off only."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, and goes on while the host is suspended."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
