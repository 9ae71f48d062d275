"""The client over memory adapters: what a pipeline sees."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import structlog
from celery import Celery, group
from pydantic import AfterValidator, BaseModel

from callgate.client import Client
from callgate.domain.calls import CallState
from callgate.domain.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    CallFailed,
    CallNotFound,
    CallRejected,
    IdempotencyMismatch,
    InvalidLink,
    InvalidRequest,
    ResultInvalid,
    WaitTimeout,
)
from callgate.domain.provider import Billing, Failure
from tests.support.memory_client import client_over, work
from tests.support.service_world import REPLY, REPLY_COST, ServiceWorld, a_request

REJECTED = Failure("bad_request", "no such parameter", False, Billing.UNBILLED, status=400)


class Yes(BaseModel):
    """What one caller wants."""

    answer: str


class Number(BaseModel):
    """The model of another caller for the same answer."""

    answer: int


def even(number: int) -> int:
    """Refuse odd numbers: a rule of the model that no schema states."""
    if number % 2:
        raise ValueError("is odd")
    return number


@pytest.fixture
def world() -> ServiceWorld:
    """All services over memory."""
    return ServiceWorld()


@pytest.fixture
def client(world: ServiceWorld) -> Client:
    """A client over these services; its own Postgres and Redis do not exist."""
    return client_over(world)


def test_a_result_is_what_the_ledger_has(world: ServiceWorld, client: Client) -> None:
    """Text, usage, cost and attempts come back as they were logged."""
    handle = client.submit(a_request())
    work(world)

    result = handle.get(timeout=1)

    assert not handle.collapsed
    assert (result.text, result.attempts) == ("yes", 1)
    assert result.cost_usd == Decimal(REPLY_COST) / 10**9
    assert handle.async_result.state == "SUCCESS"
    assert handle.async_result.get(timeout=1) == result


def test_a_duplicate_gets_the_same_result_and_pays_nothing(
    world: ServiceWorld, client: Client
) -> None:
    """It joins while the call is open, and replays when it has ended."""
    first = client.submit(a_request())
    joined = client.submit(a_request())
    work(world)
    replayed = client.submit(a_request())

    results = [handle.get(timeout=1) for handle in (first, joined, replayed)]

    assert (joined.collapsed, replayed.collapsed) == (True, True)
    assert results[0] == results[1] == results[2]
    assert len(world.provider.requests) == 1


def test_many_are_submitted_in_order_and_collapse_among_themselves(
    world: ServiceWorld, client: Client
) -> None:
    """One handle per request, whatever became of it."""
    handles = client.submit_many([a_request("a"), a_request("b"), a_request("a")])
    work(world)

    ended = list(client.as_completed(handles, timeout=1))

    assert [handle.collapsed for handle in handles] == [False, False, True]
    assert handles[0].key == handles[2].key
    assert len(ended) == 3


def test_waiting_ends_with_the_timeout(client: Client) -> None:
    """The call goes on."""
    handle = client.submit(a_request())

    with pytest.raises(WaitTimeout):
        handle.get(timeout=0.02)
    with pytest.raises(WaitTimeout):
        list(client.as_completed([handle], timeout=0.02))

    assert handle.state is CallState.QUEUED


def test_the_timeout_holds_while_results_trickle_in(world: ServiceWorld, client: Client) -> None:
    """A call that ends at every look does not keep `as_completed` beyond its timeout."""
    handles = client.submit_many([a_request(str(n)) for n in range(200)])
    keys = [handle.key for handle in handles]
    read = world.ledger.read

    def one_more(*arguments: Any, **options: Any) -> Any:
        asyncio.run(world.run(keys.pop(0)))
        time.sleep(0.02)
        return read(*arguments, **options)

    client.ledger = SimpleNamespace(read=one_more)  # type: ignore[assignment]

    with pytest.raises(WaitTimeout):
        list(client.as_completed(handles, timeout=0.2))
    assert len(keys) > 100


def test_a_handle_can_be_awaited(world: ServiceWorld, client: Client) -> None:
    """The same client serves coroutines."""

    async def story() -> tuple[str, int]:
        handle = await client.asubmit(a_request())
        await world.run(world.queue.calls.pop())
        ended = [h async for h in client.aas_completed([handle], timeout=1)]
        return (await handle).text, len(ended)

    assert asyncio.run(story()) == ("yes", 1)


def test_a_dead_call_raises_its_failure(world: ServiceWorld, client: Client) -> None:
    """With the code an operator greps for; a later duplicate gets the same."""
    world.provider.script = [REJECTED]
    handle = client.submit(a_request())
    work(world)

    with pytest.raises(CallFailed, match="bad_request after 1 attempt") as caught:
        handle.get(timeout=1)
    with pytest.raises(CallFailed):
        client.submit(a_request()).get(timeout=1)

    assert caught.value.failure_code == "bad_request"
    assert handle.async_result.state == "FAILURE"


def test_a_refusal_is_typed_and_names_its_figures(world: ServiceWorld, client: Client) -> None:
    """What was asked for, and what was left."""
    spent = client.submit(a_request("a"))
    work(world)
    (figures,) = client.operations.budgets("acme")
    hold = world.view(spent.key).last
    assert hold is not None
    client.operations.set_budget("acme", "org", figures.window, hold.hold_nano_usd)
    refused = client.submit(a_request("b"))
    work(world)
    client.operations.set_budget("acme", "org", figures.window, 1)
    hopeless = client.submit(a_request("c"))
    work(world)

    with pytest.raises(BudgetExhausted, match="acme") as caught:
        refused.get(timeout=1)
    with pytest.raises(BudgetTooSmall):
        hopeless.get(timeout=1)

    assert caught.value.refusal.spent_nano_usd == REPLY_COST


def test_a_cancelled_call_says_so(client: Client) -> None:
    """Only what has not been sent can be cancelled."""
    handle = client.submit(a_request())

    assert client.cancel(handle.task_id, "not needed")

    with pytest.raises(CallRejected, match="cancelled: not needed"):
        handle.get(timeout=1)


def test_a_dead_letter_is_not_cancelled(world: ServiceWorld, client: Client) -> None:
    """It is discarded by those who mean it; an id of something else is the caller's mistake."""
    world.provider.script = [REJECTED]
    handle = client.submit(a_request())
    work(world)

    assert client.cancel(handle.task_id, "too late") is False
    assert handle.state is CallState.DEAD
    with pytest.raises(InvalidRequest):
        client.cancel("nonsense", "which")


def test_an_answer_that_does_not_fit_the_callers_model_is_that_callers_error(
    world: ServiceWorld, client: Client
) -> None:
    """The call succeeded; the model asks for more than its schema says."""
    request = a_request(response_schema=Yes)
    handle = client.submit(request)
    world.provider.script = [replace(REPLY, texts=('{"answer": "yes"}',))]
    work(world)

    assert handle.get(timeout=1).parsed == Yes(answer="yes")
    with pytest.raises(ResultInvalid, match=r"answer .* Number: .* force=True"):
        client.handle(handle.task_id, schema=Number).get(timeout=1)


@pytest.mark.parametrize(
    "stored",
    [
        *(
            {"finish_reason": ending}
            for ending in ("error", "abort", "odd", None, "content_filter")
        ),
        {"texts": ("The first of two", "")},
    ],
    ids=str,
)
def test_half_an_answer_of_an_earlier_version_is_not_replayed(
    world: ServiceWorld, client: Client, stored: dict[str, Any]
) -> None:
    """Earlier versions called it a success. Now it is an error, and `force=True` makes the call again."""
    handle = client.submit(a_request())
    work(world)
    (row,) = world.ledger.tables.attempts.values()
    row.reply = replace(REPLY, **{"texts": ("The first half of",), **stored}).to_json()

    again = client.submit(a_request())
    for asked in (handle, again, client.handle(handle.task_id)):
        with pytest.raises(ResultInvalid, match="force=True"):
            asked.get(timeout=1)
    assert again.async_result.state == "FAILURE"
    with pytest.raises(ResultInvalid):
        again.async_result.get(timeout=1)

    forced = client.submit(a_request(), force=True)
    work(world)
    assert forced.get(timeout=1).text == "yes"
    assert client.submit(a_request()).get(timeout=1).text == "yes"


def test_text_that_reached_its_bound_is_replayed_and_says_so(
    world: ServiceWorld, client: Client
) -> None:
    """The caller set the bound, and sees that the answer met it."""
    world.provider.script = [replace(REPLY, finish_reason="length")]
    handle = client.submit(a_request())
    work(world)

    assert handle.get(timeout=1).finish_reason == "length"
    assert client.submit(a_request()).get(timeout=1).finish_reason == "length"


def test_an_ending_that_was_declared_good_since_is_replayed(
    world: ServiceWorld, client: Client
) -> None:
    """By the client's own catalogue: what earlier versions stored has the provider's word."""
    handle = client.submit(a_request())
    work(world)
    (row,) = world.ledger.tables.attempts.values()
    row.reply = replace(REPLY, finish_reason="eos").to_json()
    providers = {
        "sim": world.catalogue.providers["sim"].model_copy(update={"good_endings": ("eos",)})
    }
    client.catalogue = world.catalogue.model_copy(update={"providers": providers})

    assert handle.get(timeout=1).text == "yes"


def test_a_usage_nobody_told_is_unknown(world: ServiceWorld, client: Client) -> None:
    """Not 0: the hold was paid for it."""
    world.provider.script = [replace(REPLY, usage=None)]
    handle = client.submit(a_request())
    work(world)

    result = handle.get(timeout=1)

    assert result.usage is None
    assert result.cost_usd > 0


def test_force_brings_another_answer_where_the_stored_one_does_not_fit(
    world: ServiceWorld, client: Client
) -> None:
    """As the error says; submitting alone replays the stored answer."""

    class Even(BaseModel):
        answer: Annotated[int, AfterValidator(even)]

    def even_of(*, force: bool) -> object:
        handle = client.submit(a_request(response_schema=Even), force=force)
        work(world)
        return handle.get(timeout=1).parsed

    world.provider.script = [replace(REPLY, texts=(f'{{"answer": {n}}}',)) for n in (1, 2)]
    for _ in range(2):
        with pytest.raises(ResultInvalid, match="force=True"):
            even_of(force=False)

    assert even_of(force=True) == Even(answer=2)
    assert len(world.provider.requests) == 2


def test_an_idempotency_key_belongs_to_one_request(client: Client) -> None:
    """The same key and body is the same call; another body is an error, and nothing of it is stored."""
    first = client.submit(a_request("a"), idempotency_key="order-7")
    again = client.submit(a_request("a"), idempotency_key="order-7")

    with pytest.raises(IdempotencyMismatch, match="order-7"):
        client.submit(a_request("b"), idempotency_key="order-7")

    assert first.key == again.key


@pytest.mark.parametrize("key", ["", "x" * 256, "line\nbreak", "nul\0"])
def test_an_idempotency_key_is_short_and_printable(client: Client, key: str) -> None:
    """Anything else is refused before it reaches the ledger."""
    with pytest.raises(InvalidRequest, match="idempotency key"):
        client.submit(a_request(), idempotency_key=key)


def test_an_unreachable_broker_loses_nothing(world: ServiceWorld, client: Client) -> None:
    """The call is accepted, a warning says that it waits for a sweep."""
    world.queue.is_away = True

    with structlog.testing.capture_logs() as logged:
        handle = client.submit(a_request())

    assert handle.state is CallState.QUEUED
    assert [line["event"] for line in logged] == ["submission.publish_failed"]


def test_what_the_ledger_does_not_know_is_not_found(client: Client) -> None:
    """Neither pending nor a wrong guess."""
    with pytest.raises(CallNotFound):
        client.handle("00000000-0000-8000-8000-000000000000.1").get(timeout=1)
    with pytest.raises(InvalidRequest):
        client.handle("nonsense")


def test_a_link_must_be_publishable_from_another_process(client: Client) -> None:
    """A signature with JSON arguments, a task or a chain of tasks."""
    app = Celery("pipeline", broker="redis://127.0.0.1:1/0", set_as_current=False)
    store = app.signature("pipeline.store", args=(7,))

    client.submit(a_request(), link=store)

    with pytest.raises(InvalidLink, match="transport 'amqp'"):
        client.submit(a_request(), link=Celery(set_as_current=False).signature("pipeline.store"))

    with pytest.raises(InvalidLink, match="JSON"):
        client.submit(a_request(), link=app.signature("pipeline.store", args=(object(),)))
    with pytest.raises(InvalidLink, match="group"):
        client.submit(a_request(), link=group(store, store))
