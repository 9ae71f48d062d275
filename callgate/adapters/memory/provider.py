"""
A provider that lives in memory: answers, failures and silence by rule, and a record of every request.

    provider = MemoryProvider([
        Rule(RATE_LIMITED, times=1),
        Rule(match="invoice", delay_s=math.inf),
    ])

The first rule that fits a request and is not used up decides; without one, the prompt comes back as the answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage

SENT_MAX = 100_000
"""How many of the newest requests are kept."""
TIMEOUT = Failure("timeout", "the reply was not complete in time", True, Billing.UNKNOWN)
TOO_LATE = Failure("timeout", "no time was left to send the request", True, Billing.UNBILLED)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to the requests it fits."""

    answer: ProviderReply | Failure | Callable[[LLMRequest], ProviderReply | Failure] | None = None
    """A function is asked for each request. None: the echo of the prompt."""
    match: str = ""
    """Fits requests whose last message contains this text."""
    delay_s: float = 0.0
    """Silence before the answer; `math.inf`: no answer ever comes."""
    times: int | None = None
    """Requests it serves before it is used up; None: all."""
    fits: Callable[[LLMRequest], bool] | None = None
    """A further condition."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it arrived."""

    request: LLMRequest
    attempt_id: UUID
    timeout_s: float


class MemoryProvider:
    """`LLMProviderPort` without a network. `sent` holds the requests in the order they came."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        otherwise: Callable[[LLMRequest], Rule] = lambda _: Rule(),
    ) -> None:
        """
        Take the first rules; `add` appends others.

        Args:
            sleep: How time passes before an answer.
            otherwise: The rule of a request that no other fits.
        """
        self.sent: deque[Sent] = deque(maxlen=SENT_MAX)
        self._rules = list(rules)
        self._served = [0] * len(rules)
        self._sleep = sleep
        self._otherwise = otherwise

    def add(self, rule: Rule) -> None:
        """Let a rule decide where none before it does."""
        self._rules.append(rule)
        self._served.append(0)

    def forget_rules(self) -> None:
        """Start over, without a rule."""
        self._rules.clear()
        self._served.clear()

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Answer by rule; see `LLMProviderPort`."""
        if timeout_s <= 0:
            return TOO_LATE
        self.sent.append(Sent(request, attempt_id, timeout_s))
        rule = self._rule_for(request)
        if rule.delay_s >= timeout_s:
            await self._sleep(timeout_s)
            return TIMEOUT
        await self._sleep(rule.delay_s)
        if callable(rule.answer):
            return rule.answer(request)
        return echo(request) if rule.answer is None else rule.answer

    def credential(self, org_id: str) -> str:
        """Always the provider's own key."""
        return ""

    async def aclose(self) -> None:
        """Close nothing."""

    def _rule_for(self, request: LLMRequest) -> Rule:
        prompt = request.messages[-1].content
        for index, rule in enumerate(self._rules):
            has_room = rule.times is None or self._served[index] < rule.times
            if has_room and rule.match in prompt and (rule.fits is None or rule.fits(request)):
                self._served[index] += 1
                return rule
        return self._otherwise(request)


def echo(request: LLMRequest) -> ProviderReply:
    """The last message as every answer; a token per word, cut to what the request allows."""
    words = request.messages[-1].content.split()[: request.max_output_tokens]
    input_tokens = sum(len(message.content.split()) for message in request.messages)
    return ProviderReply(
        texts=(" ".join(words),) * request.n,
        finish_reason="stop",
        refusal=None,
        usage=Usage(input_tokens=input_tokens, output_tokens=len(words) * request.n),
        service_tier=request.service_tier.value,
        model=request.model,
        provider_request_id=None,
    )
