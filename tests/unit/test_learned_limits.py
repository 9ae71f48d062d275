"""What a worker remembers of the limits that providers name, and when it writes that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.limits import DAY_S, MINUTE_S, Declaration, Learned, LearnedLimit, Measure
from callgate.domain.provider import Billing, Failure
from callgate.services.learned_limits import LIMITS_MAX, REWRITE_AFTER_S, LearnedLimits
from tests.support.service_world import REPLY, ManualClock, ServiceWorld

REQUESTS = LearnedLimit(Measure.REQUESTS, MINUTE_S, 100, 90)
TOKENS = LearnedLimit(Measure.TOKENS, MINUTE_S, 1_000, 900)
PER_DAY = LearnedLimit(Measure.REQUESTS, DAY_S, 5_000, 4_000)


class RecordingFlow:
    """`FlowPort` that keeps each batch. While `is_away` it is unavailable."""

    def __init__(self) -> None:
        self.batches: list[list[Learned]] = []
        self.is_away = False

    def publish(self, worker_id: str, declaration: Declaration) -> None:
        """Nothing is declared here."""

    def learn(self, batch: Sequence[Learned]) -> None:
        """Keep the batch."""
        if self.is_away:
            raise LedgerUnavailable("away")
        self.batches.append(list(batch))

    @property
    def known(self) -> dict[tuple[object, ...], LearnedLimit]:
        """What a table would hold now."""
        return {
            (
                one.provider,
                one.model,
                one.credential,
                one.limit.measure,
                one.limit.window_s,
            ): one.limit
            for batch in self.batches
            for one in batch
        }


class World:
    """The service over a recording port and a manual clock."""

    def __init__(self) -> None:
        self.flow, self.clock = RecordingFlow(), ManualClock()
        self.learned = LearnedLimits(self.flow, self.clock, nullcontext())

    def note(self, *limits: LearnedLimit, model: str = "m", credential: str = "") -> None:
        """Note the limits of one response of provider `sim`."""
        self.learned.note("sim", model, credential, limits)

    def flushed(self) -> list[LearnedLimit]:
        """Flush, and return what that wrote."""
        before = len(self.flow.batches)
        self.learned.flush()
        return [one.limit for batch in self.flow.batches[before:] for one in batch]


def less(limit: LearnedLimit, remaining: int | None) -> LearnedLimit:
    """The same limit with something else left of it."""
    return replace(limit, remaining=remaining)


def test_a_new_limit_is_written_once() -> None:
    world = World()
    world.note(REQUESTS, TOKENS, PER_DAY)

    assert world.flushed() == [REQUESTS, TOKENS, PER_DAY]
    assert world.flushed() == []
    assert world.flow.batches == [[Learned("sim", "m", "", x) for x in (REQUESTS, TOKENS, PER_DAY)]]


def test_the_newest_of_a_key_is_written() -> None:
    world = World()
    world.note(REQUESTS)
    world.note(less(REQUESTS, 80))

    assert world.flushed() == [less(REQUESTS, 80)]


def test_models_and_credentials_are_kept_apart() -> None:
    world = World()
    world.note(REQUESTS)
    world.note(REQUESTS, model="other")
    world.note(REQUESTS, credential="acme")

    world.learned.flush()

    assert world.flow.batches == [
        [
            Learned("sim", "m", "", REQUESTS),
            Learned("sim", "other", "", REQUESTS),
            Learned("sim", "m", "acme", REQUESTS),
        ]
    ]


def test_a_new_amount_is_written_at_once() -> None:
    world = World()
    world.note(REQUESTS)
    world.flushed()

    world.note(replace(REQUESTS, amount=200))

    assert world.flushed() == [replace(REQUESTS, amount=200)]


def test_what_remains_is_written_every_ten_seconds() -> None:
    world = World()
    world.note(REQUESTS)
    world.flushed()
    world.note(less(REQUESTS, 50))
    assert world.flushed() == []

    world.clock.pass_time(REWRITE_AFTER_S - 0.1)
    assert world.flushed() == []
    world.clock.pass_time(0.1)
    assert world.flushed() == [less(REQUESTS, 50)]


def test_what_was_not_heard_again_is_not_written_again() -> None:
    """It would look fresh."""
    world = World()
    world.note(REQUESTS)
    world.flushed()

    world.clock.pass_time(10 * REWRITE_AFTER_S)

    assert world.flushed() == []


def test_little_remaining_is_written_at_once_and_only_once() -> None:
    world = World()
    world.note(REQUESTS)
    world.flushed()

    world.note(less(REQUESTS, 5))
    assert world.flushed() == [], "exactly five per cent"
    world.note(less(REQUESTS, 4))
    assert world.flushed() == [less(REQUESTS, 4)]
    world.note(less(REQUESTS, 0))
    assert world.flushed() == [], "it was known to be low"


def test_an_unknown_remaining_amount_is_not_low() -> None:
    world = World()
    world.note(REQUESTS)
    world.flushed()

    world.note(less(REQUESTS, None))

    assert world.flushed() == []


def test_an_outage_of_the_ledger_forgets_nothing() -> None:
    world = World()
    world.flow.is_away = True
    world.note(REQUESTS, TOKENS)
    with pytest.raises(LedgerUnavailable):
        world.learned.flush()
    world.note(less(REQUESTS, 80))
    world.flow.is_away = False

    assert sorted(world.flushed(), key=lambda limit: limit.amount) == [less(REQUESTS, 80), TOKENS]


def test_what_is_heard_during_a_write_is_written_later() -> None:
    world = World()
    learn = world.flow.learn

    def learn_slowly(batch: Sequence[Learned]) -> None:
        learn(batch)
        world.flow.learn = learn  # type: ignore[method-assign]
        world.note(replace(REQUESTS, amount=200))

    world.flow.learn = learn_slowly  # type: ignore[method-assign]
    world.note(REQUESTS)

    assert world.flushed() == [REQUESTS]
    assert world.flushed() == [replace(REQUESTS, amount=200)]


def test_what_was_not_heard_for_the_longest_time_is_dropped() -> None:
    world = World()
    for n in range(LIMITS_MAX):
        world.note(REQUESTS, model=str(n))
    world.note(REQUESTS, model="0")
    world.note(REQUESTS, model="one more")

    world.learned.flush()

    models = {one.model for one in world.flow.batches[0]}
    assert len(models) == LIMITS_MAX
    assert {"0", "one more"} <= models
    assert "1" not in models


def test_a_limit_dropped_during_a_write_stays_dropped() -> None:
    """It is new when it is heard again."""
    world = World()
    learn = world.flow.learn

    def learn_slowly(batch: Sequence[Learned]) -> None:
        learn(batch)
        for n in range(LIMITS_MAX):
            world.note(TOKENS, model=str(n))

    world.flow.learn = learn_slowly  # type: ignore[method-assign]
    world.note(REQUESTS)
    world.learned.flush()
    world.flow.learn = learn  # type: ignore[method-assign]
    assert set(world.flushed()) == {TOKENS}

    world.note(REQUESTS)

    assert world.flushed() == [REQUESTS]


def test_each_new_amount_is_logged_once() -> None:
    world = World()
    with capture_logs() as logs:
        for amount, remaining in [(100, 90), (100, 1), (200, 90)]:
            world.note(LearnedLimit(Measure.REQUESTS, MINUTE_S, amount, remaining))
            world.learned.flush()
            world.learned.flush()

    first: dict[str, Any] = {
        "event": "limit.learned",
        "log_level": "info",
        "provider": "sim",
        "model": "m",
        "credential": "",
        "measure": "requests",
        "window_s": MINUTE_S,
        "amount": 100,
    }
    assert len(world.flow.batches) == 3
    assert logs == [first, {**first, "amount": 200}]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("ab"), st.sampled_from([10, 100]), st.integers(0, 10)),
            st.booleans(),
            st.floats(0, 12),
        ),
        max_size=30,
    )
)
def test_the_ledger_has_the_newest_limits_ten_seconds_later(steps: list[Any]) -> None:
    """Whatever was heard, and whenever the ledger was away: what was heard last is written in the end."""
    world, newest = World(), {}
    for step in steps:
        match step:
            case bool():
                world.flow.is_away = step
                try:
                    world.learned.flush()
                except LedgerUnavailable:
                    assert step
            case float():
                world.clock.pass_time(step)
            case model, amount, remaining:
                limit = LearnedLimit(Measure.TOKENS, MINUTE_S, amount, remaining)
                world.note(limit, model=model)
                newest["sim", model, "", limit.measure, limit.window_s] = limit

    world.flow.is_away = False
    # The clock adds floating-point numbers.
    world.clock.pass_time(REWRITE_AFTER_S + 0.001)
    world.learned.flush()

    assert world.flow.known == newest


def test_the_limits_of_a_reply_are_noted() -> None:
    """By the model that was requested: the reply may name another."""
    flow = RecordingFlow()
    world = ServiceWorld(flow=flow)
    world.provider.script = [replace(REPLY, limits=(REQUESTS,))]
    key = world.submit().key

    asyncio.run(world.llm.execute(key))
    assert world.learned is not None
    world.learned.flush()

    ((request, _, _),) = world.provider.requests
    assert request.model != REPLY.model
    assert flow.batches == [[Learned("sim", request.model, "", REQUESTS)]]


def test_the_limits_of_a_refusal_are_noted_for_its_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = RecordingFlow()
    world = ServiceWorld(flow=flow)
    monkeypatch.setattr(world.provider, "credential", lambda org_id: org_id)
    world.provider.script = [
        Failure("rate_limited", "slow down", True, Billing.UNBILLED, limits=(less(REQUESTS, 0),))
    ]

    asyncio.run(world.llm.execute(world.submit().key))
    assert world.learned is not None
    world.learned.flush()

    assert [(one.credential, one.limit) for (one,) in flow.batches] == [("acme", less(REQUESTS, 0))]


def test_without_a_port_nothing_is_learned() -> None:
    world = ServiceWorld()
    world.provider.script = [replace(REPLY, limits=(REQUESTS,))]

    view = asyncio.run(world.run(world.submit().key))

    assert view.last is not None
    assert view.last.posted_nano_usd
