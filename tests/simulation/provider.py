"""
A model of a provider, with a journal of its own: what it received, under which attempt, and what it bills for it.

It has tricks in store for the process that asks: to be slow, silent or wrong, and to ask again what a reply is worth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import GuardKey
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage
from tests.simulation.faults import REPLY
from tests.simulation.provider_limits import Counter, ProviderLimit, input_tokens_of
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

INPUT_NANO_USD, OUTPUT_NANO_USD = 1_000, 2_000
"""Per token."""
UNSTORABLE = f"req_{'f0' * 16}"
KILLER = "kills its worker"
"""A prompt that its worker never survives."""
TIMEOUT = Failure("timeout", "the reply was not complete in time", True, Billing.UNKNOWN)
FAILURES = {
    "conflict": Failure("conflict", "not now", True, Billing.UNBILLED, 409),
    "rate limited": Failure("rate_limited", "slow down", True, Billing.UNBILLED, 429),
    "server error": Failure("server_error", "oops", True, Billing.UNKNOWN, 503),
    "reset": Failure("connection_lost", "reset", True, Billing.UNKNOWN),
    "malformed reply": Failure("unreadable_reply", "no JSON", True, Billing.UNKNOWN, 200),
    "bad request": Failure("bad_request", "no", False, Billing.UNBILLED, 400),
    "key refused": Failure("authentication_failed", "whose key?", False, Billing.UNBILLED, 401),
}
NOT_RECEIVED = Failure("connection_refused", "nobody listens", True, Billing.UNBILLED)
KEY_REFUSED = "key refused"
OVER_ITS_LIMIT = "over its limit"
OUTAGES = ("server error", "reset", "connection refused", KEY_REFUSED)
"""What a provider may do to all of its requests for a while."""


class Heard(StrEnum):
    """What an attempt tells about the provider, by what the provider knows it did."""

    ALIVE = "alive"
    FAILED = "failed"
    KEY_REFUSED = "key refused"
    LIMITED = "limited"
    """The provider takes no request for a while."""
    NOTHING = "nothing"


HEARD = {
    "connection refused": Heard.FAILED,
    "server error": Heard.FAILED,
    "reset": Heard.FAILED,
    "malformed reply": Heard.FAILED,
    KEY_REFUSED: Heard.KEY_REFUSED,
    "rate limited": Heard.LIMITED,
    "conflict": Heard.NOTHING,
    "bad request": Heard.NOTHING,
}
"""By what it did; of everything else: it is alive."""


@dataclass(slots=True)
class Bill:
    """One request as the provider has it."""

    request: LLMRequest
    nano_usd: int = 0
    """What it charges, whether its answer arrives or not."""
    is_free: bool = False
    """The provider said so, and the caller knows."""
    text: str | None = None
    """What it answered."""
    is_cut: bool = False
    """The answer reached its token limit."""


class FaultyProvider:
    """`LLMProviderPort` as one process sees it."""

    def __init__(self, world: World, owner: Owner) -> None:
        self._world = world
        self._owner = owner

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Send the request at once, and wait for what comes of it."""
        fate = self._world.outage_of(request) or self._world.faults.one_of(REPLY)
        limits, key = self._world.limits, self._key(request)
        refusing = limits and fate != "connection refused" and limits.refusing(key, request)
        if refusing:
            fate = OVER_ITS_LIMIT
        self._world.scheduler.counts[fate or "reply"] += 1
        told = f"asks the provider, {self._world.named(attempt_id)}: {fate or 'answers'}"
        self._world.scheduler.tell(self._owner.name, told)
        if fate == "connection refused":
            self._world.scheduler.wait(0.01, self._owner)
            self._world.heard[attempt_id] = Heard.FAILED
            return NOT_RECEIVED
        bill = self._receive(request, attempt_id)
        if limits is None:
            return self._answer(bill, attempt_id, timeout_s, fate)
        if refusing:
            return self._refuse(bill, attempt_id, *refusing)
        return self._answer_within(limits, bill, attempt_id, timeout_s, fate)

    def _refuse(
        self, bill: Bill, attempt_id: UUID, limit: ProviderLimit, after_s: float
    ) -> Failure:
        """A request does not fit into a limit."""
        world, key = self._world, self._key(bill.request)
        assert world.limits is not None
        bill.is_free = True
        world.invariants.flow.provider_refused(limit, key, attempt_id)
        after = after_s if world.limits.plan.has_retry_after else None
        world.scheduler.wait(0.05, self._owner)
        world.heard[attempt_id] = Heard.LIMITED
        if after is not None:
            policy = world.catalogue.policy(bill.request.call_type)
            world.retry_after_s[attempt_id] = min(after, policy.retry_after_max_s)
        return replace(
            FAILURES["rate limited"], retry_after_s=after, limits=world.limits.named(key)
        )

    def _answer_within(
        self, limits: Counter, bill: Bill, attempt_id: UUID, timeout_s: float, fate: str | None
    ) -> ProviderReply | Failure:
        """Count a request while it is under way, and what it used."""
        key, used = self._key(bill.request), None
        self._world.invariants.flow.provider_took(key, attempt_id)
        limits.take(key, attempt_id, bill.request)
        try:
            answer = self._answer(bill, attempt_id, timeout_s, fate)
            if isinstance(answer, ProviderReply) and answer.usage is not None:
                used = answer.usage.input_tokens, answer.usage.output_tokens
        finally:
            limits.end(key, attempt_id, used)
        has_headers = isinstance(answer, ProviderReply) or answer.status is not None
        return replace(answer, limits=limits.named(key)) if has_headers else answer

    def _answer(
        self, bill: Bill, attempt_id: UUID, timeout_s: float, fate: str | None
    ) -> ProviderReply | Failure:
        scheduler, rng, owner = self._world.scheduler, self._world.rng, self._owner
        request = bill.request
        input_bound = self._world.estimator.input_bound(request).tokens
        reply = _reply(bill, fate, attempt_id, input_bound)
        reply = self._world.conversations.answered(reply, fate, request, attempt_id)
        takes_s = rng.uniform(0.1, 3)
        if request.messages[0].content == KILLER or fate == "dies while asking":
            scheduler.wait(takes_s / 2, owner)
            scheduler.die(owner, "while asking the provider")
        if fate == "pauses while asking":
            owner.paused_until = scheduler.now + rng.uniform(1, 60)
            if rng.random() < self._world.faults.chances.get("no usage", 0.0):
                reply = replace(reply, usage=None)
            self._world.troubled(owner)
        if fate == "hangs":
            takes_s = timeout_s + 1
        if fate == "slow reply":
            takes_s = rng.uniform(0, 1.2) * timeout_s
        scheduler.wait(min(takes_s, timeout_s), owner)
        is_late = takes_s >= timeout_s
        self._world.heard[attempt_id] = (
            HEARD.get(fate or "", Heard.ALIVE) if not is_late else Heard.FAILED
        )
        if is_late:
            return TIMEOUT
        if fate in FAILURES:
            return FAILURES[fate]
        return reply

    def _key(self, request: LLMRequest) -> GuardKey:
        return request.provider, request.model, self.credential(request.org_id)

    def credential(self, org_id: str) -> str:
        """The organisation's own key, if it has one."""
        return org_id if org_id in self._world.own_keys else ""

    async def aclose(self) -> None:
        """Close nothing."""

    def _receive(self, request: LLMRequest, attempt_id: UUID) -> Bill:
        self._world.invariants.on_request(attempt_id, request)
        bill = Bill(request)
        self._world.bills[attempt_id] = bill
        return bill


def worst_nano_usd(request: LLMRequest) -> int:
    """The most a request can cost, by this provider's own price list."""
    output_tokens = request.max_output_tokens or 0
    return input_tokens_of(request) * INPUT_NANO_USD + output_tokens * OUTPUT_NANO_USD


def _reply(bill: Bill, fate: str | None, attempt_id: UUID, input_bound: int) -> ProviderReply:
    """What the provider makes of a request; it writes the bill."""
    request = bill.request
    text = json.dumps({"org": request.org_id, "attempt": str(attempt_id)})
    if fate == "breaks the schema" and request.response_schema:
        # Every fourth is cut as well. No chance decides, so that a life stays the same without it.
        bill.is_cut = (attempt_id.int >> 64) % 4 == 0
        text = json.dumps({"nothing": "of the kind", "attempt": str(attempt_id)})
    if fate == "empty":
        text = ""
    input_tokens = input_tokens_of(request)
    usage = Usage(input_tokens=input_tokens, output_tokens=len(text) // 2)
    if fate == "dearer than held":
        # Twice what was held for the input: nobody would believe more.
        usage = Usage(input_tokens=2 * input_bound, output_tokens=request.max_output_tokens or 0)
    is_free = fate in ("conflict", "rate limited", "bad request", KEY_REFUSED)
    is_charged = not is_free and fate not in ("server error", "reset")
    cost = usage.input_tokens * INPUT_NANO_USD + usage.output_tokens * OUTPUT_NANO_USD
    bill.nano_usd = cost if is_charged else 0
    bill.is_free = is_free
    bill.text = text
    return ProviderReply(
        texts=(text,),
        finish_reason="length" if bill.is_cut else "stop",
        refusal=None,
        usage=None if fate == "no usage" else usage,
        service_tier=None,
        model="sim-1",
        provider_request_id=UNSTORABLE if fate == "unstorable" else None,
    )
