"""
Execute one call: read it, hold its worst case, make the one request, keep the answer, have it logged.

An attempt ends with its deadline: the clock is read before the hold is made, so whatever happens here is over before
the ledger thinks the attempt expired. It may be sent only while the lease of this process has held since the claim: a
process that others may have called dead sends nothing more. No two machines' clocks are compared.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

import structlog

from callgate.domain import told_names
from callgate.domain.calls import AttemptRef, CallKey, CallState, CallView, WaitReason
from callgate.domain.catalogue import CallTypePolicy, Catalogue
from callgate.domain.errors import BrokerUnavailable, InvalidRequest, LedgerUnavailable
from callgate.domain.ledger import (
    Locked,
    NotClaimed,
    RecordAnswer,
    RecordOutcome,
    Refused,
    Reserve,
    Reserved,
    ReserveOutcome,
    Unstorable,
)
from callgate.domain.ports import ClockPort, CostCalculatorPort, LLMProviderPort
from callgate.domain.provider import Billing, Failure, ProviderReply, TokenBound
from callgate.domain.requests import LLMRequest, OnBudget
from callgate.domain.retry import DEADLINE_BEFORE_SEND, LEASE_BEFORE_SEND, SUPERSEDED_BEFORE_SEND
from callgate.services.results import request_of

T = TypeVar("T")
log = structlog.get_logger(__name__)

UNSTORABLE_REPLY = Failure(
    "unstorable_reply", "the ledger could not store the reply", False, Billing.BY_USAGE
)


class DeliveryResult(StrEnum):
    """What one delivery of a call task came to."""

    ANSWERED = "answered"
    REFUSED = "refused"
    NOT_CLAIMED = "not_claimed"
    """Another delivery has the call, or it has ended: nothing was done."""
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    """Given up before anything was claimed; the sweep will publish the call again."""
    LOCKED = "locked"
    """Somebody holds the call: nothing was done. It stays queued, and is published again when it is free."""
    DEFERRED = "put_off"
    """A suspect whose turn has not come, or a large request without room: it waits in the ledger."""
    LOST = "lost"
    """The process of its own that a suspect was given has died, and that counts as a lost attempt."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """No process is free for a suspect: come again in so many seconds."""

    retry_after_s: float


RequestRoom = Callable[[str, int], AbstractContextManager[bool]]
"""Takes room in memory for so many bytes of an organisation's, for the length of a block; False if there is none."""
LARGE_WAIT_MIN_S, LARGE_WAIT_MAX_S = 1.0, 60.0
"""How long a large request waits for room, at once: a quarter of its age within these."""


def endless_room(_org_id: str, _size: int) -> AbstractContextManager[bool]:
    """For a process that runs one call at a time."""
    return nullcontext(True)


LOCKED_PAUSES_S = (0.01, 0.03, 0.1, 0.2)
"""Before another claim of what somebody held: mostly a submission was just joining."""
QUARANTINED_CODE = "suspect"
"""Why a call waits that may have killed a worker: its turn in a process of its own has not come."""
RunQuarantined = Callable[[CallKey, str, float], Awaitable[DeliveryResult | Deferred]]
"""
Executes a suspect (`CallView.is_quarantined`) of an organisation where it can take no other call along.

The number is how many seconds it may take once it could claim the call; what takes longer has lost its lease.
"""


class CallLedger(Protocol):
    """The ledger as one call sees it: single items, grouped into batches behind its back."""

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call, with its request unless that is large."""

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Look at one call, with its request, however large."""

    async def reserve(self, reserve: Reserve) -> ReserveOutcome:
        """Claim it and hold its cost."""

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep its answer."""


@dataclass(frozen=True, slots=True)
class OutagePolicy:
    """How long an outage of the ledger is waited out."""

    grace_s: float
    """Between an attempt's deadline and its expiry; the record's back-off stays below it."""
    give_up_after_s: float = 600.0
    """After this long without a ledger, a call nobody has tried to claim is left to the sweep."""

    def backoff_s(self, failures: int, jitter: float) -> float:
        """Seconds before the next try: full jitter, at most a third of the grace."""
        return jitter * min(self.grace_s / 3, 0.05 * 2.0 ** min(failures, 16))


@dataclass(frozen=True, slots=True)
class SendPermit:
    """What a claim is good for: the one request of its attempt, sent in time and under the lease it was made under."""

    deadline: float
    """By this process's monotonic clock."""
    lease: object | None


class LLMService:
    """Runs calls. One instance per process; `execute` runs a thousand times at once."""

    def __init__(
        self,
        *,
        ledger: CallLedger,
        providers: Mapping[str, LLMProviderPort],
        costs: CostCalculatorPort,
        catalogue: Catalogue,
        ask_gates: Callable[[LLMRequest, int], Awaitable[TokenBound]],
        publish_settle_task: Callable[[AttemptRef], Awaitable[None]],
        settle_here: Callable[[AttemptRef], Awaitable[object]],
        clock: ClockPort,
        now: Callable[[], datetime],
        patience: OutagePolicy,
        worker_id: str,
        lease_epoch: Callable[[], object | None],
        default_limit_nano_usd: int | None = None,
        isolate: RunQuarantined | None = None,
        room: RequestRoom = endless_room,
        on_locked: Callable[[CallKey], None] = lambda _: None,
    ) -> None:
        """
        Compose the service.

        Args:
            ask_gates: Asks every gate again, for a client may have stored any request and any bound of its tokens (the
                number); see `gates.checking`.
            publish_settle_task: Publishes the log task of an answered attempt; raises BrokerUnavailable.
            settle_here: Settles in this process, for when the log task cannot be published.
            worker_id: Names this process in the ledger; claims get a number behind it.
            lease_epoch: Names this process's lease while it certainly holds, else None; see `LeaseService.held`.
            isolate: Where suspects are run; None runs them here, which only a process of their own should do.
            room: For large requests.
            on_locked: Told of a call that could not be claimed because somebody held it all the while.
        """
        self._ledger = ledger
        self._providers = providers
        self._costs = costs
        self._catalogue = catalogue
        self._ask_gates = ask_gates
        self._publish_log = publish_settle_task
        self._settle_here = settle_here
        self._clock = clock
        self._now = now
        self._patience = patience
        self._worker_id = worker_id
        self._lease_held = lease_epoch
        self._default_limit_nano_usd = default_limit_nano_usd
        self._isolate = isolate
        self._room = room
        self._on_locked = on_locked
        self._claims = itertools.count(1)
        self._unclaimed: set[object] = set()

    async def execute(self, key: CallKey) -> DeliveryResult:
        """Run one call as far as this delivery of its task can."""
        delivery = object()
        self._unclaimed.add(delivery)
        try:
            give_up_after_s = self._patience.give_up_after_s
            view = await self._retry_while_unavailable(
                lambda: self._ledger.read(key), give_up_after_s
            )
            if view is None or view.state is not CallState.QUEUED:
                return DeliveryResult.NOT_CLAIMED
            if view.is_quarantined and self._isolate is not None:
                # On its way no more, but taken care of: sweeps need not wait for it.
                self._unclaimed.discard(delivery)
                deadline_s = self._catalogue.policy(view.call_type).deadline_s
                return await self._run_quarantined(
                    view, deadline_s + self._patience.grace_s, self._isolate
                )
            if not view.is_request_left_behind:
                return await self._run(view, delivery)
            with self._room(view.org_id, view.request_bytes) as has_room:
                if not has_room:
                    return await self._wait_for_room(view)
                # Nothing here keeps it: it would take its memory until the answer comes.
                return await self._run(
                    await self._retry_while_unavailable(
                        lambda: self._ledger.read_whole(key), give_up_after_s
                    ),
                    delivery,
                )
        except LedgerUnavailable as exc:
            log.warning("call.ledger_unavailable", call_id=str(key.call_id), reason=str(exc))
            return DeliveryResult.LEDGER_UNAVAILABLE
        finally:
            self._unclaimed.discard(delivery)

    async def _run(self, view: CallView | None, delivery: object) -> DeliveryResult:
        """Claim a call and make its request, unless somebody else does."""
        if view is None:
            return DeliveryResult.NOT_CLAIMED
        key, policy = view.key, self._catalogue.policy(view.call_type)
        try:
            request, reserve = await self._prepare(view)
            del view
            claimed, permit = await self._claim(reserve, policy)
            if isinstance(claimed, Unstorable):
                log.error("unclaimable", call_id=str(key.call_id), reason=claimed.why)
                claimed = await self._reserve_without_request(key, UNCLAIMABLE)
        finally:
            self._unclaimed.discard(delivery)
        if isinstance(claimed, NotClaimed) and claimed.superseded_attempt is not None:
            await self._record(claimed.superseded_attempt, SUPERSEDED_BEFORE_SEND, 0)
            await self._log(claimed.superseded_attempt)
        if isinstance(claimed, Refused):
            return DeliveryResult.REFUSED
        if isinstance(claimed, Locked):
            self._on_locked(key)
            return DeliveryResult.LOCKED
        if not isinstance(claimed, Reserved) or request is None:
            return DeliveryResult.NOT_CLAIMED

        started = self._clock.monotonic()
        answer = await self._ask(request, claimed.ref, permit)
        latency_ms = round((self._clock.monotonic() - started) * 1000)
        await self._record(claimed.ref, answer, latency_ms)
        await self._log(claimed.ref)
        return DeliveryResult.ANSWERED

    async def wait_for_inflight_claims(self, give_up_after_s: float) -> bool:
        """
        Wait until every delivery that has arrived here so far has tried to claim its call.

        A sweep asks this first: what is queued in the ledger only because it is on its way here is not lost.

        Returns:
            False if some were still on their way after `give_up_after_s` seconds.
        """
        arrived = set(self._unclaimed)
        give_up_at = self._clock.monotonic() + give_up_after_s
        while arrived & self._unclaimed:
            if self._clock.monotonic() > give_up_at:
                return False
            await self._clock.sleep(0.02)
        return True

    async def _run_quarantined(
        self, view: CallView, expires_in_s: float, isolate: RunQuarantined
    ) -> DeliveryResult:
        """
        Run a suspect where it can take no other call along, or let it wait until there is room for it.

        It waits in the ledger, not here: in nobody's slot, and where no sweep takes it for lost.
        """
        key = view.key
        executed = await isolate(key, view.org_id, expires_in_s)
        if isinstance(executed, Deferred):
            await self._reserve_without_request(key, QUARANTINED, defer_s=executed.retry_after_s)
            return DeliveryResult.DEFERRED
        if executed is DeliveryResult.LOST:
            # If its process had claimed it, this claims nothing. Else it died before, and nobody would know.
            await self._reserve_without_request(key, None)
        if executed is DeliveryResult.LOCKED:
            self._on_locked(key)
        return executed

    async def _wait_for_room(self, view: CallView) -> DeliveryResult:
        """Let a large request wait in the ledger: here it would wait in a slot that others need."""
        age_s = (self._now() - view.created_at).total_seconds()
        wait_s = min(max(age_s / 4, LARGE_WAIT_MIN_S), LARGE_WAIT_MAX_S)
        await self._reserve_without_request(
            view.key,
            LARGE,
            defer_s=wait_s * (0.5 + self._clock.jitter()),
            defer_reason=WaitReason.MEMORY,
        )
        return DeliveryResult.DEFERRED

    async def _reserve_without_request(
        self,
        key: CallKey,
        reason: str | None,
        defer_s: float | None = None,
        defer_reason: WaitReason = WaitReason.QUARANTINE,
    ) -> ReserveOutcome:
        """
        Reject a queued call or put it off, with nothing of its own in the statement.

        Without a reason: claim it, for nothing to be sent. That attempt holds nothing and has expired at once, and is
        lost like any other.
        """
        reserve = Reserve(
            key=key,
            hold_nano_usd=0,
            expires_in_s=0.0,
            worker_id=self._claim_id(),
            price_source="nothing is sent",
            default_limit_nano_usd=self._default_limit_nano_usd,
            reject_with=reason,
            defer_s=defer_s,
            defer_reason=defer_reason,
        )
        give_up_after_s = self._patience.give_up_after_s
        decided = await self._past_locks(
            lambda: self._retry_while_unavailable(
                lambda: self._ledger.reserve(reserve), give_up_after_s
            )
        )
        if isinstance(decided, Locked):
            self._on_locked(key)
        return decided

    def _claim_id(self) -> str:
        return f"{self._worker_id}/{next(self._claims)}"

    async def _prepare(self, view: CallView) -> tuple[LLMRequest | None, Reserve]:
        """Price the call at the price of now; a call that can never be sent is prepared for rejection."""
        policy = self._catalogue.policy(view.call_type)
        hold_nano_usd, price_source, refusal, credential = 0, "", None, ""
        request = None
        try:
            request = request_of(view)
            # Asked by the client before; a client that did not ask could have written the row all the same.
            bound = await self._ask_gates(request, view.input_token_bound)
            if view.provider not in self._providers:
                refusal = _refusal("unknown_provider", f"no provider {view.provider!r} here")
            else:
                priced = self._costs.worst_case(request, bound.tokens, self._now())
                hold_nano_usd, price_source = priced.nano_usd, priced.price_source
                credential = self._providers[view.provider].credential(view.org_id)
        except InvalidRequest as exc:
            refusal = _refusal(exc.code, str(exc))
        except Exception as exc:
            # What is stored cannot be run by anybody: left in the queue it would be found by every sweep for ever.
            # Never the error's own words: they may quote the prompt.
            reason = f"the stored request cannot be used: {type(exc).__name__}"
            log.error("request.unreadable", call_id=str(view.key.call_id), reason=reason)
            refusal = _refusal("request.unreadable", reason)
        return request, Reserve(
            key=view.key,
            hold_nano_usd=hold_nano_usd,
            expires_in_s=policy.deadline_s + self._patience.grace_s,
            worker_id=self._claim_id(),
            price_source=price_source,
            trace_id=request.trace_id if request else None,
            on_budget=request.on_budget if request else OnBudget.REJECT,
            default_limit_nano_usd=self._default_limit_nano_usd,
            reject_with=refusal,
            credential=credential,
            wait_max_s=policy.wait_max_s,
        )

    async def _claim(
        self, reserve: Reserve, policy: CallTypePolicy
    ) -> tuple[ReserveOutcome, SendPermit]:
        """
        Reserve, and say until when and under which lease the request may be sent.

        A try without an answer may have made the claim, or still will. Only the ledger can say, so this waits for it;
        an attempt that was given up would become unknown because of an outage alone. The deadline counts from before
        the last try. The lease is that of the first: a claim whose answer was lost may have been given away before the
        next try, and that one cannot tell. Nor can one that finds the call locked: it is tried again for as long as
        there may be an attempt that this process could still send.
        """
        lease = await self._retry_while_unavailable(self._lease, self._patience.give_up_after_s)
        begun = maybe_made_until = 0.0

        async def reserve_once() -> ReserveOutcome:
            nonlocal begun, maybe_made_until
            await self._lease()
            begun = self._clock.monotonic()
            try:
                return await self._ledger.reserve(reserve)
            except LedgerUnavailable:
                maybe_made_until = begun + reserve.expires_in_s
                raise

        outcome = await self._past_locks(
            lambda: self._retry_while_unavailable(reserve_once, math.inf), lambda: maybe_made_until
        )
        return outcome, SendPermit(begun + policy.deadline_s, lease)

    async def _past_locks(
        self,
        reserve: Callable[[], Awaitable[ReserveOutcome]],
        until: Callable[[], float] = lambda: 0.0,
    ) -> ReserveOutcome:
        """Try again, outside the batch, what somebody holds: a few times, and on until a moment of this clock."""
        pauses = iter(LOCKED_PAUSES_S)
        while isinstance(outcome := await reserve(), Locked):
            pause_s = next(pauses, None)
            if pause_s is None and self._clock.monotonic() >= until():
                break
            await self._clock.sleep(pause_s or LOCKED_PAUSES_S[-1])
        return outcome

    async def _lease(self) -> object:
        """This process's lease; without one it claims nothing."""
        if (held := self._lease_held()) is None:
            raise LedgerUnavailable("this process's lease may have run out")
        return held

    async def _ask(
        self, request: LLMRequest, ref: AttemptRef, permit: SendPermit
    ) -> ProviderReply | Failure:
        """Make the one request of this attempt, or none if it may no longer be sent."""
        left_s = permit.deadline - self._clock.monotonic()
        if left_s <= 0:
            return DEADLINE_BEFORE_SEND
        if self._lease_held() != permit.lease:
            return LEASE_BEFORE_SEND
        provider = self._providers[request.provider]
        return await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=left_s)

    async def _record(
        self, ref: AttemptRef, answer: ProviderReply | Failure, latency_ms: int
    ) -> None:
        """Make the paid answer safe. Nothing else may happen to it before, however long the ledger is away."""
        record = _record(ref, answer, latency_ms)
        for failures in itertools.count():
            try:
                outcome = await self._ledger.record(record)
            except LedgerUnavailable as exc:
                log.warning(
                    "record_waits_for_the_ledger", attempt_id=str(ref.attempt_id), reason=str(exc)
                )
                await self._clock.sleep(self._patience.backoff_s(failures, self._clock.jitter()))
                continue
            if outcome is RecordOutcome.UNSTORABLE and isinstance(answer, ProviderReply):
                log.error("unstorable_reply", attempt_id=str(ref.attempt_id))
                record = RecordAnswer(
                    ref, answer.without_text().to_json(), UNSTORABLE_REPLY.to_json(), latency_ms
                )
                answer = UNSTORABLE_REPLY
                continue
            return

    async def _log(self, ref: AttemptRef) -> None:
        """Have the attempt settled by the log task, or here if the broker is away; at worst by the due query."""
        try:
            await self._publish_log(ref)
        except BrokerUnavailable as exc:
            log.warning("settlement.done_in_place", attempt_id=str(ref.attempt_id), reason=str(exc))
            try:
                await self._settle_here(ref)
            except LedgerUnavailable as away:
                log.warning("settlement.deferred", reason=str(away))

    async def _retry_while_unavailable(
        self, step: Callable[[], Awaitable[T]], give_up_after_s: float
    ) -> T:
        """Repeat a step that may be repeated, until the ledger answers or patience ends."""
        give_up_at = self._clock.monotonic() + give_up_after_s
        for failures in itertools.count():
            try:
                return await step()
            except LedgerUnavailable:
                if self._clock.monotonic() > give_up_at:
                    raise
                await self._clock.sleep(self._patience.backoff_s(failures, self._clock.jitter()))
        raise AssertionError("unreachable")


def _refusal(code: str, message: str) -> str:
    return json.dumps({"code": code, "message": message})


QUARANTINED = _refusal(
    QUARANTINED_CODE, "it may have killed a worker; it waits for a process of its own"
)
LARGE = _refusal("large", "its request is large; it waits for room in a worker's memory")
UNCLAIMABLE = _refusal("unstorable_claim", "the ledger cannot store a claim of this call")


def _record(ref: AttemptRef, answer: ProviderReply | Failure, latency_ms: int) -> RecordAnswer:
    if isinstance(answer, Failure):
        return RecordAnswer(ref, None, answer.to_json(), latency_ms)
    error = answer.failure.to_json() if answer.failure else None
    request_id = told_names.request_id(answer.provider_request_id)
    return RecordAnswer(ref, answer.to_json(), error, latency_ms, request_id)
