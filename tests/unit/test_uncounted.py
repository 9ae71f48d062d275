"""A client without a tokenizer: it stores no bound, refuses only what can never fit, and the worker's count decides."""

from __future__ import annotations

import asyncio

import pytest

from callgate.adapters import token_estimator
from callgate.adapters.token_estimator import TokenEstimator, WithoutTokenizer
from callgate.domain import gates
from callgate.domain.calls import CallState
from callgate.domain.catalogue import CallTypePolicy, ProviderEntry
from callgate.domain.errors import InputTooLarge
from callgate.domain.gates import TOKEN_MAX_BYTES
from callgate.domain.requests import LLMRequest
from tests.support.service_world import POLICY, ServiceWorld, a_request

LIMIT = 1_000
KNOWN = ProviderEntry(needs_key=False, pricing_provider="openai", models={"sim-1": "gpt-4o"})
"""A model whose vocabulary is known."""
UNKNOWN = ProviderEntry(needs_key=False)
FITS = "word " * 700
"""700 tokens and 3,500 bytes."""
LONG = "word " * 1_500


def world_of(entry: ProviderEntry = KNOWN) -> ServiceWorld:
    policy = CallTypePolicy(**{**POLICY.model_dump(), "input_tokens_max": LIMIT})
    return ServiceWorld(policy=policy, entry=entry)


def request_of(content: str) -> LLMRequest:
    return a_request(messages=[{"role": "user", "content": content}])


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in the client's environment; `undo` ends it."""
    monkeypatch.setattr(token_estimator, "load_bpe_openai", lambda _: None)
    monkeypatch.setattr(token_estimator, "load_tiktoken", lambda _: None)
    return monkeypatch


def bound(world: ServiceWorld, content: str, without: WithoutTokenizer) -> int:
    steps = TokenEstimator(world.catalogue, without).counting(request_of(content), LIMIT)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value.tokens)


def submitted_without(world: ServiceWorld, content: str) -> ServiceWorld:
    """Submit as a client without a tokenizer does."""
    counting = world.estimator
    world.estimator = TokenEstimator(world.catalogue, WithoutTokenizer.LEAVE)
    world.submits = world._compose_submit_service()
    world.submits.submit([request_of(content)])
    world.estimator = counting
    return world


def test_a_client_stores_no_bound_and_the_worker_counts(no_tokenizer: pytest.MonkeyPatch) -> None:
    """The hold is as with a client that counts, and the row says what the worker counted."""
    world = submitted_without(world_of(), FITS)
    (key,) = world.queue.calls
    assert world.view(key).input_token_bound == 0
    no_tokenizer.undo()

    view = asyncio.run(world.run(key))

    sent = gates.with_output_bound(request_of(FITS), world.catalogue)
    counted = world.estimator.input_bound(request_of(FITS)).tokens
    assert view.state is CallState.SUCCEEDED
    assert view.input_token_bound == counted < LIMIT < len(FITS)
    assert view.last is not None
    hold = world.costs.worst_case(sent, counted, world.clock.now())
    assert view.last.hold_nano_usd == hold.nano_usd
    assert not view.last.anomalies


def test_the_worker_rejects_what_its_count_finds_too_long(
    no_tokenizer: pytest.MonkeyPatch,
) -> None:
    world = submitted_without(world_of(), LONG)
    (key,) = world.queue.calls
    no_tokenizer.undo()

    assert asyncio.run(world.run(key)).state is CallState.REJECTED


def test_what_cannot_fit_by_any_count_is_refused_at_submit(
    no_tokenizer: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputTooLarge):
        submitted_without(world_of(), "a" * (LIMIT * TOKEN_MAX_BYTES + 1))


def test_an_unknown_vocabulary_is_bounded_by_bytes_everywhere() -> None:
    """The worker would count the same, so the client refuses what the worker would."""
    world = world_of(UNKNOWN)

    assert {bound(world, "a" * 500, without) for without in WithoutTokenizer} == {
        bound(world, "a" * 500, WithoutTokenizer.BOUND)
    }
    with pytest.raises(InputTooLarge):
        submitted_without(world, FITS)


@pytest.mark.usefixtures("no_tokenizer")
def test_an_estimate_is_a_worst_case_and_refuses_nothing_that_may_fit() -> None:
    """By bytes, but not above the limit, which no worker's count exceeds."""
    world = world_of()

    assert 500 <= bound(world, "a" * 500, WithoutTokenizer.BOUND_WITHIN_LIMIT) < LIMIT * 2
    assert bound(world, FITS, WithoutTokenizer.BOUND_WITHIN_LIMIT) == LIMIT
    assert bound(world, FITS, WithoutTokenizer.BOUND) > LIMIT
