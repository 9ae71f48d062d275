"""
The rules of provider limits, counted a second time: from what was let through, and what the provider did with it.

Nothing here asks `callgate.domain.limits`. What is in effect is what workers have published and written, and what a
window has seen is a sum over the attempts that were let through.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, CallRow, GuardKey
from callgate.domain.calls import AttemptStatus
from callgate.domain.ledger import Settle, Settled, SettleOutcome
from callgate.domain.limits import Learned, Measure
from callgate.domain.requests import LLMRequest
from tests.simulation.flow_blocks import Blocks
from tests.simulation.flow_starts import SlowStart
from tests.simulation.flow_waits import Waits
from tests.simulation.provider import Heard
from tests.simulation.provider_limits import (
    CONCURRENCY,
    Declared,
    ProviderLimit,
    input_tokens_of,
    requested_tokens,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

TOKENS = (Measure.INPUT_TOKENS, Measure.OUTPUT_TOKENS, Measure.TOKENS)
LATE_S = 1.0
"""A request that reaches the provider later than this after its claim may find the window of another one."""
SLOW_S = 10.0
"""The same for an answer, if a provider counts what it has written."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An attempt that was let through."""

    at: datetime
    key: GuardKey
    call: CallRow
    row: AttemptRow
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class InEffect:
    """A limit that the ledger knows."""

    limit: ProviderLimit
    since: datetime
    rule: str
    """What is broken if it is exceeded."""


class Flow:
    """Who was let through, what the ledger knows of limits, and what it did about it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self.grants: list[Grant] = []
        self.learned: dict[tuple[GuardKey, ProviderLimit], datetime] = {}
        """By key and limit: when it was first written."""
        self.written_at: dict[GuardKey, datetime] = {}
        """When something was last written that may have lowered a bucket."""
        self.slow_starts: defaultdict[GuardKey, SlowStart] = defaultdict(SlowStart)
        self._late: list[tuple[GuardKey, datetime, UUID]] = []
        self._unused: dict[int, int] = {}
        self._has_given_back: set[UUID] = set()
        self.waits = Waits(world, self)
        self.blocks = Blocks(world, self)

    # What is known.

    def has_limits(self, key: GuardKey) -> bool:
        """True if breakers alone do not decide who is let through."""
        return self._world.limits is not None or self.blocks.was_blocked(key)

    def in_effect(self, key: GuardKey) -> Iterator[InEffect]:
        """The limits that the ledger was told of a key."""
        if (limits := self._world.limits) is None:
            return
        for known in limits.plan.known:
            yield InEffect(known, self._world.scheduler.starts_at, "no_window_exceeds_its_limit")
        for (learned_key, limit), since in self.learned.items():
            if learned_key == key:
                yield InEffect(limit, since, "a_learned_limit_is_kept")

    def never_fits(self, call: CallRow) -> bool:
        """True if a call needs more than a whole limit."""
        key = call.provider, call.model, self._credential(call)
        tokens = call.input_token_bound, call.output_token_bound
        return any(x.limit.units(tokens) > x.limit.amount for x in self.in_effect(key))

    def within(self, limit: ProviderLimit, key: GuardKey, since: datetime) -> list[Grant]:
        """What was let through of a limit since a time."""
        scope = limit.scope(key)
        return [g for g in self.grants if g.at > since and limit.scope(g.key) == scope]

    def under_way(self, limit: ProviderLimit, key: GuardKey) -> int:
        """How many attempts of a limit are not posted."""
        scope = limit.scope(key)
        return sum(limit.scope(g.key) == scope and not g.row.status.is_posted for g in self.grants)

    def part(self, call: CallRow, key: GuardKey) -> float:
        """The part of a limit that a call takes; without known limits each takes the same."""
        tokens = call.input_token_bound, call.output_token_bound
        parts = [x.limit.units(tokens) / x.limit.amount for x in self.in_effect(key)]
        return max(parts, default=1.0)

    # At a claim.

    def admitted(self, call: CallRow, row: AttemptRow) -> None:
        """A new attempt was let through."""
        now, key = self._world.scheduler.time(), (call.provider, call.model, row.credential)
        tokens = requested_tokens(LLMRequest.model_validate_json(call.request or b""))
        self.grants.append(Grant(now, key, call, row, tokens))
        for known in self.in_effect(key):
            if self._is_bounded_by_claims(known.limit):
                self._is_kept(known, key, self._world.named(row.attempt_id), now)
        if self.starts_slowly(key):
            self._starts_slowly(key, self._world.named(row.attempt_id), now)
        self.waits.admitted(self.grants[-1], now)
        self.blocks.admitted(self.grants[-1], now)

    def refused(self, call: CallRow, key: GuardKey, now: datetime) -> None:
        """The breakers would let a call through, and a limit does not."""
        name, check = self._world.named(call.key), self._world.invariants.check
        self._world.scheduler.counts["refused: limit"] += 1
        rules = self._world.invariants
        others = [c for c in rules.breakers.waiting_for(key) if c is not call]
        others = [c for c in others if not rules.pauses.covers(c)]
        is_free = not others and self.waits.is_free(key, now) and not self.never_fits(call)
        check("a_free_limit_refuses_nobody", not is_free, name)

    def _is_kept(self, known: InEffect, key: GuardKey, name: str, now: datetime) -> None:
        limit, check = known.limit, self._world.invariants.check
        if limit.measure is CONCURRENCY:
            number = self.under_way(limit, key)
            said = f"{name} is one of {number} under way, of {limit.amount}"
            check("no_more_are_under_way_than_may_be", number <= limit.amount, said)
            return
        since = max(now - timedelta(seconds=limit.window_s), known.since)
        used = sum(limit.units(grant.tokens) for grant in self.within(limit, key, since))
        said = f"with {name} {limit.window_s} s have seen {used} {limit.measure} of {limit.amount}"
        check(known.rule, used <= limit.amount, said)

    def _is_bounded_by_claims(self, limit: ProviderLimit) -> bool:
        """False if the provider counts what was used: then more may be let through, and the provider is the judge."""
        has_tokens = limit.measure in TOKENS
        return not (has_tokens and self._world.limits and self._world.limits.plan.counts_used)

    def starts_slowly(self, key: GuardKey) -> bool:
        """True if no limit is known of a key but the rate that it accepted before it was blocked."""
        return self._world.limits is not None and not any(self.in_effect(key))

    def _starts_slowly(self, key: GuardKey, name: str, now: datetime) -> None:
        number = sum(not g.row.status.is_posted for g in self.grants if g.key == key)
        most = self.slow_starts[key].admitted(
            number, self._world.invariants.breakers.history(key), now
        )
        said = f"{name} is one of {number} under way, of {most}"
        self._world.invariants.check("an_unknown_key_starts_slowly", number <= most, said)

    # At the provider.

    def provider_took(self, key: GuardKey, attempt_id: UUID) -> None:
        """A request arrives, and fits."""
        row, now = self._tables.attempts[attempt_id], self._world.scheduler.time()
        if now - row.started_at > timedelta(seconds=LATE_S):
            self._late.append((key, now, attempt_id))

    def provider_refused(self, limit: ProviderLimit, key: GuardKey, attempt_id: UUID) -> None:
        """A request arrives, and does not fit."""
        limits, now = self._world.limits, self._world.scheduler.time()
        assert limits is not None
        row = self._tables.attempts[attempt_id]
        self.blocks.refused(key, row)
        is_late = now - row.started_at > timedelta(seconds=LATE_S)
        if limits.plan.declared not in (Declared.RIGHT, Declared.TOO_LOW) or is_late:
            return
        if self._is_excused(limit, key, now):
            self._world.scheduler.counts["over its limit: came late"] += 1
            return
        said = f"{self._world.named(attempt_id)} is over {limit.amount} {limit.measure} per {limit.window_s} s"
        self._world.invariants.check("a_provider_of_declared_limits_refuses_nobody", False, said)

    def _is_excused(self, limit: ProviderLimit, key: GuardKey, now: datetime) -> bool:
        """True if it counts what came too late for the window it was let through in, or is posted as lost already."""
        assert self._world.limits is not None
        scope = limit.scope(key)
        if limit.measure is CONCURRENCY:
            counted = self._world.limits.attempts(limit, key)
            return any(self._tables.attempts[a].status.is_posted for a in counted)
        since = now - timedelta(seconds=limit.window_s)
        has_late = any(limit.scope(k) == scope and at > since for k, at, _ in self._late)
        is_slow = self._world.limits.plan.counts_used and any(
            limit.scope(g.key) == scope
            and g.row.finished_at is not None
            and g.row.finished_at - g.at > timedelta(seconds=SLOW_S)
            and g.row.finished_at > since
            for g in self.grants
        )
        return has_late or is_slow

    # After a statement.

    def after(self, name: str, arguments: Sequence[Any], result: Any) -> None:
        """Note what was learned and settled; then nobody may wait for what is free."""
        now = self._world.scheduler.time()
        if name == "flow.learn":
            self._learns(arguments[0], now)
        if name == "settle":
            self._settled(arguments[0], result)
            self.blocks.settled(arguments[0], result, now)
        if name == "set_breaker":
            self.blocks.changed_by_hand(arguments[:3])
        if self._world.limits is not None:
            self._unused = dict(self._tables.unused)
        if name in ("settle", "take_due"):
            self.waits.nobody_waits_for_what_is_free(now)
        self.waits.look(now)

    def _learns(self, batch: Sequence[Learned], now: datetime) -> None:
        for each in batch:
            key = each.provider, each.model, each.credential
            named = each.limit
            limit = ProviderLimit(named.measure, round(named.window_s), named.amount)
            self.learned.setdefault((key, limit), now)
            self.written_at[key] = now
            self._world.scheduler.counts["limit learned"] += 1

    def _settled(self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome]) -> None:
        check, may_rise = self._world.invariants.check, defaultdict[int, int](int)
        for settle, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Settled) or not outcome.is_applied:
                continue
            row, name = self._tables.attempts[settle.ref.attempt_id], self._world.named(settle.ref)
            is_limited = self._world.heard.get(row.attempt_id) is Heard.LIMITED
            if is_limited and row.status is AttemptStatus.FAILED:
                said = f"{name} posts {row.posted_nano_usd}"
                check("a_refusal_for_the_rate_costs_nothing", row.posted_nano_usd == 0, said)
            for limit_id, tokens in self._given_back(row):
                may_rise[limit_id] += tokens
        for limit_id, tokens in self._tables.unused.items():
            rise = tokens - self._unused.get(limit_id, 0)
            said = f"limit {limit_id} gets back {rise} tokens, {may_rise[limit_id]} were not used"
            check("tokens_are_given_back_once", rise <= may_rise[limit_id], said)

    def _given_back(self, row: AttemptRow) -> Iterator[tuple[int, int]]:
        """By limit: what an attempt took and its answer does not have, by the provider's own bill; once."""
        bill = self._world.bills.get(row.attempt_id)
        is_known = row.status in (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED)
        if not is_known or bill is None or row.attempt_id in self._has_given_back:
            return
        self._has_given_back.add(row.attempt_id)
        call = self._tables.calls[row.key]
        unused_in = max(0, call.input_token_bound - input_tokens_of(bill.request))
        unused_out = max(0, row.output_token_bound - len(bill.text or "") // 2)
        by_id = {limit.limit_id: limit for limit in self._tables.limits.values()}
        for limit_id in row.limit_ids:
            if (limit := by_id.get(limit_id)) is not None and limit.counts_used:
                units = ProviderLimit(limit.measure, limit.window_s, limit.amount)
                yield limit_id, units.units((unused_in, unused_out))

    def _credential(self, call: CallRow) -> str:
        return call.org_id if call.org_id in self._world.own_keys else ""
