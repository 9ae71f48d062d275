"""Planted defects of provider limits: keys that are blocked, limits that are not kept, and calls that starve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

from callgate.adapters.memory import breakers as memory_breakers
from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import limits as memory_limits
from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory.limit_headroom import LimitHeadroom
from callgate.adapters.memory.rows import AttemptRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import breaker
from callgate.domain.breaker import Breaker, Guard, Health
from callgate.domain.calls import AttemptStatus
from callgate.domain.ledger import Settle
from callgate.domain.limits import Limit, Measure, Need, Source
from callgate.services import ai_call_logger
from tests.simulation.mutations.registry import Patched, caught_by

# A key that is blocked.


@caught_by("no_call_is_given_up_too_soon", rate_limited=0.3)
def a_refusal_for_the_rate_counts() -> Patched:
    """As many as an attempt that failed for the last time: the call is dead, and was never tried."""
    decide = ai_call_logger.decide

    def decided(failure: Any, tally: Any, *, is_limited: bool, **rest: Any) -> Any:
        if is_limited:
            tally = replace(tally, attempts=rest["policy"].attempts_max)
        return decide(failure, tally, is_limited=False, **rest)

    return patch.object(ai_call_logger, "decide", decided)


@caught_by("a_refusal_for_the_rate_costs_nothing", rate_limited=0.3)
def a_refusal_for_the_rate_is_charged() -> Patched:
    """Its whole hold is posted."""
    post = memory_posting._post

    def dear(tables: MemoryTables, attempt: AttemptRow, settlement: Settle, now: datetime) -> None:
        if settlement.health is Health.LIMITED:
            settlement = replace(settlement, posted_nano_usd=attempt.hold_nano_usd)
        post(tables, attempt, settlement, now)

    return patch.object(memory_posting, "_post", dear)


@caught_by("a_refusal_for_the_rate_closes_the_key", rate_limited=0.3)
def a_refusal_for_the_rate_says_nothing() -> Patched:
    """Each call has to hear it for itself."""
    return patch.object(Breaker, "limited", lambda self, attempt_id, *rest: self.freed(attempt_id))


@caught_by(
    "an_open_breaker_lets_one_probe_through",
    "probes_come_ever_more_rarely",
    "organisations_probe_in_turn",
    rate_limited=0.3,
)
def a_blocked_key_sends() -> Patched:
    """It is blocked for those that ask next, and not for those that wait already."""
    admit = Guard.admit

    def trusting(self: Guard, now: datetime, *, others_wait: bool) -> Any:
        if self.shared.is_rate_limited:
            return breaker.Admission.PROBE
        return admit(self, now, others_wait=others_wait)

    return patch.object(Guard, "admit", trusting)


@caught_by(
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_limits=1,
    only_requests=1,
    limits_not_declared=1,
)
def the_time_that_a_provider_names_is_not_read() -> Patched:
    """It asks for half a minute, and is asked again after five seconds."""
    limited = Breaker.limited

    def hasty(
        self: Breaker, attempt_id: UUID, made_at: datetime, _: float, now: datetime
    ) -> Breaker:
        return limited(self, attempt_id, made_at, 0.0, now)

    return patch.object(Breaker, "limited", hasty)


@caught_by(
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_limits=1,
    only_requests=1,
    limits_not_declared=1,
)
def a_refused_probe_does_not_double_the_wait() -> Patched:
    """A provider that takes nothing for an hour is asked every five seconds."""
    limited = Breaker.limited

    def eager(self: Breaker, *rest: Any) -> Breaker:
        return limited(replace(self, probe_wait_s=breaker.BLOCKED_WAIT_S / 2), *rest)

    return patch.object(Breaker, "limited", eager)


@caught_by("a_trial_ends_with_its_attempt", rate_limited=0.3, dies_while_asking=0.3)
def a_probe_is_lost_with_its_worker() -> Patched:
    """Nobody asks again whether the key is open."""
    note = memory_ledger.note_health

    def noted(tables: MemoryTables, settle: Settle, now: datetime) -> Any:
        row = tables.attempts[settle.ref.attempt_id]
        call = tables.calls[settle.ref.key]
        known = tables.breakers[call.provider, call.model, row.credential, ""]
        is_lost = settle.expected_status is AttemptStatus.DISPATCHED
        return () if is_lost and known.is_rate_limited else note(tables, settle, now)

    return patch.object(memory_ledger, "note_health", noted)


@caught_by("nobody_comes_in_a_herd", provider_limits=1, only_requests=1, limits_not_declared=1)
def all_come_when_a_key_is_unblocked() -> Patched:
    """The rate that the provider accepted is forgotten."""
    return patch.object(memory_limits, "observe", lambda *_: None)


@caught_by(
    "an_unknown_key_starts_slowly",
    "few_are_refused_before_a_key_is_blocked",
    provider_limits=1,
    limits_not_declared=1,
)
def an_unknown_key_starts_with_all() -> Patched:
    """A thousand calls are sent to learn that four are too many."""
    return patch.object(memory_limits, "_slow_start", lambda *_: None)


# Limits that are not kept.


@caught_by(
    "no_window_exceeds_its_limit",
    "no_more_are_under_way_than_may_be",
    provider_limits=1,
    only_slots=1,
    limits_declared=1,
)
def a_limit_is_decided_outside_the_lock() -> Patched:
    """Each claim sees the limits as they were when the last one began."""
    ask = memory_limits.ask
    seen: dict[Any, tuple[MemoryTables, datetime, Any]] = {}

    def stale(
        tables: MemoryTables, key: Any, call: Any, need: Need, now: datetime, **named: Any
    ) -> Any:
        chosen, refusal = ask(tables, key, call, need, now, **named)
        other, at, before = seen.get(key, (None, now, None))
        seen[key] = tables, now, refusal
        is_close = other is tables and now - at < LOCKED_FOR
        return chosen, before if is_close else refusal

    return patch.object(memory_limits, "ask", stale)


LOCKED_FOR = timedelta(milliseconds=100)


@caught_by(
    "no_window_exceeds_its_limit",
    "no_more_are_under_way_than_may_be",
    "a_free_limit_refuses_nobody",
    "nobody_waits_for_what_is_free",
    provider_limits=1,
    only_requests=1,
    limits_declared=1,
)
def each_worker_has_the_limit_for_itself() -> Patched:
    """Three workers use three times of it."""
    claim = memory_claims._claim
    mine: dict[Any, Any] = {}

    def alone(tables: MemoryTables, call: Any, asked: Any, *rest: Any) -> Any:
        shared, worker = tables.limits, asked.worker_id.partition("/")[0]
        # With the tables, so that no later world gets the same id.
        tables.limits = mine.setdefault((id(tables), worker), (tables, dict(shared)))[1]
        try:
            return claim(tables, call, asked, *rest)
        finally:
            for name, limit in tables.limits.items():
                shared.setdefault(name, limit)
            tables.limits = shared

    return patch.object(memory_claims, "_claim", alone)


@caught_by("no_window_exceeds_its_limit", provider_limits=1, only_requests=1, limits_declared=1)
def a_full_bucket_comes_on_top() -> Patched:
    """A limit fills as fast as it may be used, whatever was used at once."""
    fast = property(lambda self: (self.amount + 1) / self.span_s)
    return patch.object(Limit, "refill_per_s", fast)


@caught_by("no_window_exceeds_its_limit", provider_limits=1, only_requests=1, limits_declared=1)
def a_worker_that_starts_fills_the_bucket() -> Patched:
    """Its declaration is taken for a new limit."""
    publish = memory_limits.publish

    def published(tables: MemoryTables, *rest: Any) -> None:
        publish(tables, *rest)
        for name, limit in tables.limits.items():
            tables.limits[name] = replace(limit, level=limit.capacity, granted_at=None)

    return patch.object(memory_limits, "publish", published)


@caught_by("no_window_exceeds_its_limit", provider_limits=1, only_tokens=1, limits_declared=1)
def tokens_are_not_counted() -> Patched:
    """Requests are, and so a few large ones pass."""
    of = Need.of

    def few(self: Need, measure: Measure) -> int:
        is_tokens = measure in (Measure.INPUT_TOKENS, Measure.OUTPUT_TOKENS, Measure.TOKENS)
        return of(self, measure) // 2 if is_tokens else of(self, measure)

    return patch.object(Need, "of", few)


@caught_by(
    "a_learned_limit_is_kept",
    provider_limits=1,
    only_requests=1,
    limits_not_declared=1,
    limits_named=1,
)
def a_learned_limit_is_ignored() -> Patched:
    """What a provider names is shown to operators, and not used."""
    current = memory_limits._current

    def declared(*asked: Any) -> list[Limit]:
        return [limit for limit in current(*asked) if limit.source is not Source.LEARNED]

    return patch.object(memory_limits, "_current", declared)


@caught_by("tokens_are_given_back_once", provider_limits=1, only_used_tokens=1, limits_declared=1)
def tokens_are_given_back_twice() -> Patched:
    """When the answer is recorded, and when it is settled."""
    give_back = memory_limits.give_back

    def twice(tables: MemoryTables, attempt: AttemptRow) -> None:
        give_back(tables, attempt)
        give_back(tables, attempt)

    return patch.object(memory_limits, "give_back", twice)


@caught_by(
    "tokens_are_given_back_once",
    provider_limits=1,
    only_used_tokens=1,
    limits_declared=1,
    dies_while_asking=0.2,
)
def what_is_unknown_is_given_back() -> Patched:
    """An attempt whose worker died is thought to have used nothing."""
    give_back = memory_limits.give_back

    def generous(tables: MemoryTables, attempt: AttemptRow) -> None:
        if attempt.status is not AttemptStatus.UNKNOWN:
            give_back(tables, attempt)
            return
        for limit in tables.limits.values():
            if limit.counts_used and limit.limit_id in attempt.limit_ids:
                tables.unused[limit.limit_id] = tables.unused.get(limit.limit_id, 0) + 100

    return patch.object(memory_limits, "give_back", generous)


@caught_by(
    "nobody_waits_for_what_is_free",
    "a_free_limit_refuses_nobody",
    provider_limits=1,
    only_slots=1,
    limits_declared=1,
    dies_while_asking=0.4,
)
def a_slot_is_leaked_by_a_kill() -> Patched:
    """An attempt whose worker died is under way until somebody looks."""
    in_flight = memory_limits.in_flight

    def leaking(tables: MemoryTables, limit: Limit) -> int:
        lost = sum(
            a.is_lost
            and limit.applies_to(
                tables.calls[a.key].provider, tables.calls[a.key].model, a.credential
            )
            for a in tables.attempts.values()
        )
        return in_flight(tables, limit) + lost

    return patch.object(memory_limits, "in_flight", leaking)


# Who is let through.


@caught_by(
    "no_call_is_overtaken_again_and_again",
    "an_organisation_gets_its_share",
    "only_as_many_are_released_as_may_be_tried",
    provider_limits=1,
    limits_declared=1,
)
def a_large_call_starves() -> Patched:
    """Smaller ones behind it fit, and pass it each time."""

    def greedy(tables: MemoryTables, key: Any, now: datetime) -> Any:
        calls = memory_breakers._waiting_for(tables, key)
        left = LimitHeadroom.of(tables, key, now)
        asleep = [c for c in calls if c.due_at and c.due_at > now]
        small = [c for c in asleep if left.fitting([memory_breakers._need(c)], [])]
        small.sort(key=lambda c: (c.input_token_bound + c.output_token_bound, c.created_at))
        return small[: left.fitting([memory_breakers._need(c) for c in small], [])]

    next_of = memory_breakers._next_of

    def chosen(tables: MemoryTables, key: Any, now: datetime) -> Any:
        shared = tables.breakers[*key, ""]
        is_usual = shared.is_open or not shared.is_proven(now)
        return next_of(tables, key, now) if is_usual else greedy(tables, key, now)

    return patch.object(memory_breakers, "_next_of", chosen)


@caught_by("an_organisation_gets_its_share", provider_limits=1)
def a_flood_delays_the_others() -> Patched:
    """Who came first is served first, and one organisation came with all of its calls."""
    next_of = memory_breakers._next_of

    def oldest(tables: MemoryTables, key: Any, now: datetime) -> Sequence[Any]:
        chosen = next_of(tables, key, now)
        calls = memory_breakers._waiting_for(tables, key)
        asleep = sorted((c for c in calls if c.due_at and c.due_at > now), key=lambda c: c.rank_at)
        shared = tables.breakers[*key, ""]
        is_usual = shared.is_open or not shared.is_proven(now)
        return chosen if is_usual else asleep[: len(chosen)]

    return patch.object(memory_breakers, "_next_of", oldest)


@caught_by(
    "no_call_is_overtaken_again_and_again",
    "an_organisation_gets_its_share",
    provider_limits=1,
    only_requests=1,
    limits_declared=1,
)
def new_calls_overtake_those_that_wait() -> Patched:
    """A place that has become free belongs to the one that asks first."""
    return patch.object(memory_limits, "_has_waiters", lambda *_: False)


@caught_by("nobody_waits_for_what_is_free", "every_call_ends", provider_limits=1)
def nobody_is_woken_when_a_limit_has_room() -> Patched:
    """A call that waits for a limit is looked at when it has waited too long."""

    def none(self: LimitHeadroom, line: Sequence[Need], _: Sequence[Need]) -> int:
        return 0 if self.timed or self.concurrency else len(line)

    return patch.object(LimitHeadroom, "fitting", none)
