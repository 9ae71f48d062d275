"""
The limits of a provider: what it takes of each key, counted in sliding windows of its own.

Some worlds have them. Their workers declare them right, too low, too high or not at all; some providers name them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import GuardKey
from callgate.domain.limits import Declaration, LearnedLimit, LimitRule, Measure
from callgate.domain.requests import LLMRequest

if TYPE_CHECKING:
    from tests.simulation.world import World

REQUESTS, CONCURRENCY = Measure.REQUESTS, Measure.CONCURRENCY
OVERHEAD_TOKENS = 1_000
"""What it adds to the input of each request until it has counted it."""
KINDS: tuple[tuple[Measure, ...], ...] = (
    (REQUESTS,),
    (REQUESTS,),
    (CONCURRENCY,),
    (Measure.TOKENS,),
    (Measure.INPUT_TOKENS,),
    (Measure.OUTPUT_TOKENS,),
    (REQUESTS, CONCURRENCY),
    (REQUESTS, Measure.TOKENS),
)
"""Which limits a provider may have together."""
ONLY: dict[str, tuple[Measure, ...]] = {
    "only requests": (REQUESTS,),
    "only slots": (CONCURRENCY,),
    "only tokens": (Measure.TOKENS,),
    "only used tokens": (Measure.OUTPUT_TOKENS,),
}
LARGE_SHARE = 0.3
"""Of a limit of tokens: about what the large call of a world asks for."""


class Declared(StrEnum):
    """What the workers know of the limits before they begin."""

    RIGHT = "right"
    TOO_LOW = "too low"
    TOO_HIGH = "too high"
    NOT = "not"


@dataclass(frozen=True, slots=True)
class ProviderLimit:
    """What one key may use."""

    measure: Measure
    window_s: int
    """0 for requests under way."""
    amount: int
    is_shared: bool = False
    """By all models, as one."""

    def scope(self, key: GuardKey) -> GuardKey:
        """The keys that have it as one have the same scope."""
        return (key[0], "*", key[2]) if self.is_shared else key

    def units(self, tokens: tuple[int, int]) -> int:
        """What a request with so many tokens, in and out, takes."""
        counted = {
            Measure.INPUT_TOKENS: tokens[0],
            Measure.OUTPUT_TOKENS: tokens[1],
            Measure.TOKENS: sum(tokens),
        }
        return counted.get(self.measure, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the limits of one world are, and who knows them."""

    limits: tuple[ProviderLimit, ...]
    declared: Declared
    is_named: bool
    """The provider names its limits in each response."""
    has_retry_after: bool
    counts_used: bool
    """It counts the tokens that an answer has, when it has them, and not those that were asked for."""

    @classmethod
    def drawn(cls, rng: random.Random, sure: Container[str] = ()) -> Plan:
        """Draw one; some things may be given for sure (`KINDS_OF_LIMITS`)."""
        kinds = rng.choice([kinds for name, kinds in ONLY.items() if name in sure] or KINDS)
        is_shared = rng.random() < 0.2
        has_tokens = any(measure not in (REQUESTS, CONCURRENCY) for measure in kinds)
        counts_used = has_tokens and (rng.random() < 0.6 or "only used tokens" in sure)
        declared = rng.choice((Declared.RIGHT, Declared.NOT, *Declared))
        declared = Declared.RIGHT if "limits declared" in sure else declared
        declared = Declared.NOT if "limits not declared" in sure else declared
        # Providers that count this way do it per minute; in a shorter window a slow answer would be too late.
        windows = (60,) if counts_used else (10, 20, 60)
        limits = tuple(_drawn(rng, measure, windows, is_shared) for measure in kinds)
        return cls(
            limits,
            declared,
            is_named=rng.random() < 0.3 or "limits named" in sure,
            has_retry_after=rng.random() < 0.6,
            counts_used=counts_used,
        )

    @property
    def known(self) -> tuple[ProviderLimit, ...]:
        """The limits as they are declared."""
        share = {Declared.RIGHT: 1.0, Declared.TOO_LOW: 0.6, Declared.TOO_HIGH: 2.0}
        if self.declared is Declared.NOT:
            return ()
        return tuple(
            replace(limit, amount=max(1, int(limit.amount * share[self.declared])))
            for limit in self.limits
        )

    def declaration(self) -> Declaration:
        """What each worker publishes."""
        rules = (
            LimitRule("sim", "*", credential, x.is_shared, x.measure, x.window_s, x.amount, self.counts_used)
            for x in self.known
            for credential in ("", "*")
        )  # fmt: skip
        return Declaration(tuple(rules), ("sim",))


def _drawn(
    rng: random.Random, measure: Measure, windows: Sequence[int], is_shared: bool
) -> ProviderLimit:
    if measure is CONCURRENCY:
        return ProviderLimit(measure, 0, rng.choice((1, 2, 4)), is_shared)
    amounts = {
        REQUESTS: (4, 8, 16),
        Measure.INPUT_TOKENS: (6_000, 12_000),
        Measure.OUTPUT_TOKENS: (600, 1_200),
        Measure.TOKENS: (6_000, 12_000),
    }
    return ProviderLimit(measure, rng.choice(windows), rng.choice(amounts[measure]), is_shared)


@dataclass(slots=True)
class Taken:
    """A request that a provider has taken."""

    at: float
    tokens: tuple[int, int]
    is_under_way: bool = True


@dataclass(slots=True)
class Counter:
    """What a provider has taken of the requests of some keys."""

    world: World
    plan: Plan
    taken: defaultdict[GuardKey, dict[UUID, Taken]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By scope."""

    def refusing(self, key: GuardKey, request: LLMRequest) -> tuple[ProviderLimit, float] | None:
        """Which limit a request does not fit into now, and after how many seconds it does."""
        for limit in self.plan.limits:
            units = limit.units(self._tokens_at_first(request))
            if self.used(limit, key) + units > limit.amount:
                return limit, self._fits_after_s(limit, key, units)
        return None

    def take(self, key: GuardKey, attempt_id: UUID, request: LLMRequest) -> None:
        """Begin with a request."""
        made = Taken(self.world.scheduler.now, self._tokens_at_first(request))
        for scope in self._scopes(key):
            self.taken[scope][attempt_id] = made

    def end(self, key: GuardKey, attempt_id: UUID, used: tuple[int, int] | None = None) -> None:
        """It has answered, or nobody waits for its answer."""
        for scope in self._scopes(key):
            if made := self.taken[scope].get(attempt_id):
                made.is_under_way = False
                if used is not None and self.plan.counts_used:
                    written = Taken(self.world.scheduler.now, (0, used[1]), is_under_way=False)
                    self.taken[scope][UUID(int=attempt_id.int ^ 1)] = written

    def used(self, limit: ProviderLimit, key: GuardKey) -> int:
        """What is used of a limit now."""
        return sum(limit.units(taken.tokens) for taken in self._counted(limit, key))

    def named(self, key: GuardKey) -> tuple[LearnedLimit, ...]:
        """What it says about its limits, if it does."""
        if not self.plan.is_named:
            return ()
        return tuple(
            LearnedLimit(x.measure, x.window_s, x.amount, max(0, x.amount - self.used(x, key)))
            for x in self.plan.limits
            if x.window_s
        )

    def attempts(self, limit: ProviderLimit, key: GuardKey) -> list[UUID]:
        """The attempts that count now."""
        return [
            attempt_id
            for attempt_id, taken in self.taken[limit.scope(key)].items()
            if self._counts(limit, taken)
        ]

    def _counted(self, limit: ProviderLimit, key: GuardKey) -> Iterator[Taken]:
        return (t for t in self.taken[limit.scope(key)].values() if self._counts(limit, t))

    def _counts(self, limit: ProviderLimit, taken: Taken) -> bool:
        if limit.measure is CONCURRENCY:
            return taken.is_under_way
        is_request = limit.measure is not REQUESTS or taken.tokens[0] > 0
        return is_request and taken.at > self.world.scheduler.now - limit.window_s

    def _fits_after_s(self, limit: ProviderLimit, key: GuardKey, units: int) -> float:
        if limit.measure is CONCURRENCY:
            return self.world.rng.uniform(0.5, 3)
        left = self.used(limit, key) + units - limit.amount
        for taken in sorted(self._counted(limit, key), key=lambda t: t.at):
            left -= limit.units(taken.tokens)
            if left <= 0:
                return taken.at + limit.window_s - self.world.scheduler.now
        return float(limit.window_s)

    def _tokens_at_first(self, request: LLMRequest) -> tuple[int, int]:
        if self.plan.counts_used:
            return input_tokens_of(request), 0
        return requested_tokens(request)

    def _scopes(self, key: GuardKey) -> set[GuardKey]:
        return {limit.scope(key) for limit in self.plan.limits}


def input_tokens_of(request: LLMRequest) -> int:
    """How many tokens the provider counts: one for each character."""
    return sum(len(message.content) for message in request.messages)


def requested_tokens(request: LLMRequest) -> tuple[int, int]:
    """What a request asks for, as this provider counts."""
    return input_tokens_of(request) + OVERHEAD_TOKENS, request.max_output_tokens or 0
