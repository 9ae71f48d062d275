"""What a call is claimed with: its price now, its expiry, and the reasons to reject it instead."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from callgate.domain.calls import AttemptKind, CallKey, CallView
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import InvalidRequest
from callgate.domain.ledger import Reject, Reserve
from callgate.domain.ports import CostCalculatorPort, LLMProviderPort
from callgate.domain.provider import TokenBound
from callgate.domain.repairs import Broken, repair_of
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import why_no_repair
from callgate.event_log import event_log
from callgate.services.results import request_of

log = event_log(__name__)

AskGates = Callable[[LLMRequest, int], Awaitable[TokenBound]]
"""
Checks a stored request against every gate, and bounds its input tokens; see `gates.checking`.

A client may have stored any request, and any bound of its tokens (the number).
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that can be claimed."""

    reserve: Reserve
    request: LLMRequest = field(repr=False)
    repair: LLMRequest | None = field(default=None, repr=False)
    """What is sent instead, if the attempt is a repair. The hold is for this."""

    def for_kind(self, kind: AttemptKind) -> LLMRequest:
        """The request of an attempt. The ledger decides whether it is a repair; see `Reserve.repair_after`."""
        return self.repair if self.repair and kind is AttemptKind.REPAIR else self.request


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """What every call must pass, and what it may cost, before a process claims it."""

    catalogue: Catalogue
    costs: CostCalculatorPort
    ask_gates: AskGates
    default_limit_nano_usd: int | None = None
    """The daily limit of an organisation without a budget; None: its calls are refused."""


class Reservations:
    """Makes the command that claims a call."""

    def __init__(
        self,
        terms: ClaimTerms,
        *,
        providers: Mapping[str, LLMProviderPort],
        now: Callable[[], datetime],
        grace_s: float,
    ) -> None:
        self._terms = terms
        self._providers = providers
        self._now = now
        self._grace_s = grace_s

    def deadline_s(self, call_type: str) -> float:
        """How long an attempt of such a call may take."""
        return self._terms.catalogue.policy(call_type).deadline_s

    def expires_in_s(self, call_type: str) -> float:
        """After how long the ledger takes an attempt of such a call as expired."""
        return self.deadline_s(call_type) + self._grace_s

    async def prepare(
        self, view: CallView, claim_id: str, broken: Broken | None = None
    ) -> Prepared | Reject:
        """
        Price a call at the prices of now; reject one that can never be sent.

        Args:
            broken: What a repair would be about.
        """
        try:
            request = request_of(view)
            repair, bound = await self._repair(view, request, broken) if broken else (None, None)
            bound = bound or await self._terms.ask_gates(request, view.input_token_bound)
            if view.provider not in self._providers:
                why = f"no provider {view.provider!r} here"
                return Reject(view.key, error_json("unknown_provider", why))
            reserve = self._reserve(view, repair or request, bound, claim_id)
            if repair is not None:
                reserve = replace(reserve, repair_after=view.attempt)
            return Prepared(reserve, request, repair)
        except InvalidRequest as exc:
            return Reject(view.key, error_json(exc.code, str(exc)))
        except Exception as exc:
            # No worker can run such a call: if it stayed queued, every sweep would find it.
            # The error's own words may quote the prompt, so only its type is kept.
            reason = f"the stored request cannot be used: {type(exc).__name__}"
            log.error(
                "request.not_read", org_id=view.org_id, call_id=str(view.key.call_id), reason=reason
            )
            return Reject(view.key, error_json("unreadable_request", reason))

    async def _repair(
        self, view: CallView, request: LLMRequest, broken: Broken
    ) -> tuple[LLMRequest, TokenBound] | tuple[None, None]:
        """The request of a repair and its bound; nothing if the next attempt is none."""
        policy = self._terms.catalogue.policy(view.call_type)
        decide = partial(
            why_no_repair, broken.failure, repairs=view.repairs, answers=request.n, policy=policy
        )
        if (why := decide()) is None:
            try:
                repair = repair_of(request, broken)
                return repair, await self._terms.ask_gates(repair, view.input_token_bound)
            except (InvalidRequest, ValueError):
                why = decide(is_too_large=True)
        log.info("repair.skipped", org_id=view.org_id, call_id=str(view.key.call_id), reason=why)
        return None, None

    def without_request(self, key: CallKey, claim_id: str) -> Reserve:
        """Claim a call although nothing will be sent: the attempt holds nothing and has expired at once."""
        return Reserve(
            key=key,
            hold_nano_usd=0,
            expires_in_s=0.0,
            worker_id=claim_id,
            price_source="nothing is sent",
            default_limit_nano_usd=self._terms.default_limit_nano_usd,
        )

    def _reserve(
        self, view: CallView, request: LLMRequest, bound: TokenBound, claim_id: str
    ) -> Reserve:
        priced = self._terms.costs.worst_case(request, bound.tokens, self._now())
        return Reserve(
            key=view.key,
            hold_nano_usd=priced.nano_usd,
            expires_in_s=self.expires_in_s(view.call_type),
            worker_id=claim_id,
            price_source=priced.price_source,
            trace_id=request.trace_id,
            on_budget=request.on_budget,
            default_limit_nano_usd=self._terms.default_limit_nano_usd,
            credential=self._providers[view.provider].credential(view.org_id),
            wait_max_s=self._terms.catalogue.policy(view.call_type).wait_max_s,
            output_token_bound=request.n * (request.max_output_tokens or 0),
            input_token_bound=bound.tokens,
        )


def error_json(code: str, message: str) -> str:
    """The error of a call that is rejected or waits."""
    return json.dumps({"code": code, "message": message})
