"""The client of the testing kit: answered by a script, in memory, with the product's own rules."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, chain
from pydantic import BaseModel

import callgate
from callgate import LLMRequest, Message, ToolCall
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.catalogue import Catalogue, Organisations, ProviderEntry
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.testing import (
    CONNECTION_LOST,
    TIMEOUT,
    Answer,
    MemoryClient,
    NothingHappens,
    Refusal,
    Script,
    UnscriptedRequest,
)
from callgate.testing.script import reply_of

BEGIN = datetime(2026, 11, 2, 12, tzinfo=UTC)
TOOL = callgate.Tool(name="weather", description="Says it.", parameters='{"type":"object"}')


class City(BaseModel):
    """A parsed answer."""

    name: str


def a_request(text: str = "hello", **fields: Any) -> LLMRequest:
    """A request of acme."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "test",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": [Message(role="user", content=text)],
            "max_output_tokens": 50,
            **fields,
        }
    )


@pytest.fixture
def client() -> MemoryClient:
    """A client that begins at noon."""
    return MemoryClient(begins_at=BEGIN)


def test_text_models_and_tool_calls_come_back(client: MemoryClient) -> None:
    call = ToolCall(id="1", name="weather", arguments="{}")
    client.script.reply("Paris", match="capital")
    client.script.reply(City(name="Rome"), {"name": "Oslo"}, match="city")
    client.script.reply(call, match="weather")

    assert client.submit(a_request("the capital")).get().text == "Paris"
    parsed = [
        client.submit(a_request("a city", response_schema=City, seed=seed)).get().parsed
        for seed in (1, 2, 3)
    ]
    assert parsed == [City(name="Rome"), City(name="Oslo"), City(name="Oslo")]
    assert client.submit(a_request("weather", tools=[TOOL])).get().tool_calls == (call,)


def test_a_function_answers(client: MemoryClient) -> None:
    client.script.reply(lambda request: request.messages[-1].content.upper())

    assert client.submit(a_request("aloud")).get().text == "ALOUD"


def test_a_refused_attempt_is_tried_again(client: MemoryClient) -> None:
    """The log has each attempt, and time has passed without sleeping."""
    client.script.reply(Refusal(429, retry_after_s=20), Refusal(500), "done")
    handle = client.submit(a_request())
    assert handle.state is CallState.WAITING

    result = handle.get()

    assert (result.text, result.attempts) == ("done", 3)
    statuses = [attempt.status for attempt in client.attempts(handle.task_id)]
    assert statuses == [AttemptStatus.FAILED, AttemptStatus.UNKNOWN, AttemptStatus.SUCCEEDED]
    codes = [attempt.failure_code for attempt in client.attempts()]
    assert codes == ["rate_limited", "server_error", None]
    assert client.now - BEGIN >= timedelta(seconds=20)
    assert result.cost_usd == client.cost_usd > 0


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Refusal(400), "bad_request"),
        (Refusal(400, code="context_length_exceeded"), "context_length_exceeded"),
        (Refusal(401), "authentication_failed"),
        (TIMEOUT, "timeout"),
        (CONNECTION_LOST, "connection_lost"),
        (Answer(refusal="no"), "refused_by_model"),
        (Answer("half", finish_reason="content_filter"), "content_filtered"),
    ],
)
def test_a_call_fails_as_it_would(client: MemoryClient, step: Refusal, code: str) -> None:
    client.script.reply(step)

    with pytest.raises(callgate.CallFailed) as caught:
        client.submit(a_request()).get()

    assert caught.value.failure_code == code


def test_an_answer_that_breaks_its_schema_is_checked(client: MemoryClient) -> None:
    client.script.reply('{"title": "Rome"}')

    with pytest.raises(callgate.CallFailed) as caught:
        client.submit(a_request(response_schema=City)).get()

    assert caught.value.failure_code == "invalid_output"


def test_latency_is_waited_for_without_sleeping(client: MemoryClient) -> None:
    client.script.reply("late", match="slow", latency_s=25).reply("soon", latency_s=2)
    slow, quick = client.submit_many([a_request("slow"), a_request("quick")])

    with pytest.raises(callgate.WaitTimeout):
        slow.get(timeout=1)
    order = [handle.get().text for handle in client.as_completed([slow, quick])]

    assert order == ["soon", "late"]
    assert slow.get().latency_ms == 25_000
    assert (client.now - BEGIN).total_seconds() == pytest.approx(25, abs=0.1)


def test_no_answer_ends_with_the_deadline(client: MemoryClient) -> None:
    client.script.reply("never", latency_s=math.inf)

    with pytest.raises(callgate.CallFailed) as caught:
        client.submit(a_request()).get()

    assert caught.value.failure_code == "timeout"


def test_duplicates_collapse(client: MemoryClient) -> None:
    client.script.reply("once")

    first, second = client.submit_many([a_request(), a_request()])
    third = client.submit(a_request())

    assert [handle.collapsed for handle in (first, second, third)] == [False, True, True]
    assert third.get().text == "once"
    assert len(client.sent) == 1
    outcomes = [record.outcome for record in client.submitted]
    assert outcomes == [SubmitOutcome.CREATED, SubmitOutcome.JOINED, SubmitOutcome.REPLAYED]


def test_budgets_bite() -> None:
    client = MemoryClient(begins_at=BEGIN, default_budget_usd=None)
    client.script.reply("yes")
    with pytest.raises(callgate.BudgetNotConfigured):
        client.submit(a_request("a")).get()
    client.set_budget("acme", 0.000001)
    with pytest.raises(callgate.BudgetTooSmall):
        client.submit(a_request("b")).get()
    client.set_budget("acme", 0.0000365)
    client.submit(a_request("c")).get()
    with pytest.raises(callgate.BudgetExhausted):
        client.submit(a_request("d")).get()
    waiting = client.submit(a_request("e", on_budget="wait"))

    assert waiting.get().text == "yes"
    assert client.now >= BEGIN + timedelta(hours=12)
    assert client.budgets("acme")[-1].spent_nano_usd > 0


def test_a_budget_of_a_call_type(client: MemoryClient) -> None:
    client.script.reply("yes")
    client.set_budget("acme", 1)
    client.set_budget("acme", Decimal("0.000001"), call_type="dear", per="month")

    with pytest.raises(callgate.BudgetTooSmall):
        client.submit(a_request(call_type="dear")).get()
    assert client.submit(a_request()).get().text == "yes"


def test_gates_refuse_as_the_real_client(client: MemoryClient) -> None:
    for fields, error in (
        ({"provider": "nobody"}, callgate.UnknownProvider),
        ({"model": "no-such-model"}, callgate.UnpricedModel),
        ({"response_schema": '{"type": "object", "properties": 7}'}, callgate.InvalidSchema),
    ):
        with pytest.raises(error):
            client.submit(a_request(**fields))
    assert not client.submitted


def test_other_errors_that_a_caller_may_catch(client: MemoryClient) -> None:
    client.script.reply("yes")
    client.submit(a_request("a"), idempotency_key="k")
    with pytest.raises(callgate.IdempotencyMismatch):
        client.submit(a_request("b"), idempotency_key="k")
    client.interrupt_ledger()
    with pytest.raises(callgate.LedgerUnavailable):
        client.submit(a_request("c"))
    with pytest.raises(callgate.CallNotFound):
        client.handle("b5b31a39-6b1d-8d5e-9b1d-5d0d8f7d1c11.1").get()
    by = By("tests", "to see it")
    client.operations.pause(PauseKey(org_id="acme", is_freeze=True), by=by)
    with pytest.raises(callgate.OrganisationFrozen):
        client.submit(a_request("d"))


def test_a_busy_organisation_waits_for_room() -> None:
    catalogue = Catalogue(organisations=Organisations(open_calls_max=1))
    client = MemoryClient(catalogue=catalogue, begins_at=BEGIN)
    client.script.reply("yes", latency_s=5)
    client.submit(a_request("a"))
    with pytest.raises(callgate.OrganisationBusy):
        client.submit(a_request("b"))

    assert client.submit(a_request("b"), on_busy="wait").get().text == "yes"


def test_a_queued_call_is_cancelled() -> None:
    client = MemoryClient(runs_at_submit=False)
    client.script.reply("yes")
    handle = client.submit(a_request())

    assert handle.state is CallState.QUEUED
    assert client.cancel(handle.task_id, "not needed")
    with pytest.raises(callgate.CallRejected):
        handle.get()


def test_a_dead_call_is_redriven(client: MemoryClient) -> None:
    client.script.reply(Refusal(400), "better")
    handle = client.submit(a_request())
    assert handle.state is CallState.DEAD

    (again,), _ = client.redrive([handle.key])

    assert client.handle(again.key.task_id).get().text == "better"


def test_async_calls_and_celery_results(client: MemoryClient) -> None:
    client.script.reply("later", latency_s=3)

    async def both() -> list[str]:
        handles = [client.submit(a_request("x")), await client.asubmit(a_request("y"))]
        seen = [(await handle.aget()).text async for handle in client.aas_completed(handles)]
        return [*seen, (await handles[0]).text]

    assert asyncio.run(both()) == ["later"] * 3
    handle = client.submit(a_request("z"))
    assert handle.async_result.state == "STARTED"
    assert handle.async_result.get(timeout=10).text == "later"


def test_estimates_store_nothing(client: MemoryClient) -> None:
    estimate = client.estimate([a_request("a"), a_request("b")])

    assert estimate.requests == 2
    assert estimate.worst_case_nano_usd > 0
    assert not client.submitted


def test_an_unscripted_request_says_so(client: MemoryClient) -> None:
    client.script.reply("yes", match="other", call_type="test")

    with pytest.raises(UnscriptedRequest, match="begins with 'hello'"):
        client.submit(a_request())
    with pytest.raises(AssertionError, match="1 requests had no rule"):
        client.verify()


def test_rules_are_asked_in_order_and_can_be_forgotten() -> None:
    script = Script().reply("a", model="gpt-4o").reply("b", org_id="acme").echo()
    client = MemoryClient(script=script)

    assert client.submit(a_request("1", model="gpt-4o")).get().text == "a"
    assert client.submit(a_request("2")).get().text == "b"
    assert client.submit(a_request("three", org_id="other")).get().text == "three"
    script.clear()
    script.reply("c")
    assert client.submit(a_request("4")).get().text == "c"
    with pytest.raises(ValueError, match="at least one step"):
        script.reply()


def test_a_step_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be of type int"):
        reply_of(3, a_request(), ProviderEntry())  # type: ignore[arg-type]


def test_a_call_that_nothing_ends_is_noticed() -> None:
    """Instead of waiting without end. Here its message is lost, and no sweep looks for it."""
    client = MemoryClient(runs_at_submit=False)
    handle = client.submit(a_request())
    client._world.queue.calls.clear()
    client._world.queue.express.clear()

    with pytest.raises(NothingHappens):
        handle.get()


class Pipeline:
    """A Celery app with tasks that are links."""

    def __init__(self, client: MemoryClient) -> None:
        self.app = Celery("pipeline", broker="redis://broker.invalid:6379/3", set_as_current=False)
        self.stored: list[object] = []

        @self.app.task(name="store", shared=False)
        def store(outcome: dict[str, str], document: int) -> str:
            text = client.handle(outcome["task_id"]).get().text
            self.stored.append((document, outcome["state"], text))
            return text

        @self.app.task(name="shout", shared=False)
        def shout(text: str) -> None:
            self.stored.append(text.upper())

        @self.app.task(name="fail", shared=False)
        def fail(outcome: dict[str, str]) -> None:
            self.stored.append(outcome["state"])
            raise LookupError("no such document")

        self.store, self.shout, self.fail = store, shout, fail


def test_links_are_applied(client: MemoryClient) -> None:
    pipeline = Pipeline(client)
    client.script.reply("yes")

    client.submit(a_request(), link=pipeline.store.s(7))
    client.submit(a_request(), link=chain(pipeline.store.s(8), pipeline.shout.s()))

    assert pipeline.stored == [(7, "succeeded", "yes"), (8, "succeeded", "yes"), "YES"]
    assert [(link.task, link.args[1:], link.is_applied) for link in client.links] == [
        ("store", (7,), True),
        ("store", (8,), True),
    ]
    client.verify()


def test_a_link_that_raises_is_told_at_the_end(client: MemoryClient) -> None:
    """In production it reaches nobody who waits for the call."""
    pipeline = Pipeline(client)
    client.script.reply(Refusal(400))

    handle = client.submit(a_request(), link=pipeline.store.s(1), link_error=pipeline.fail.s())

    assert handle.state is CallState.DEAD
    assert pipeline.stored == ["dead"]
    with pytest.raises(AssertionError, match="the link fail raised LookupError"):
        client.verify()


def test_a_link_by_name_is_recorded(client: MemoryClient) -> None:
    client.script.reply("yes")
    app = Celery("other", broker="amqp://elsewhere", set_as_current=False)

    handle = client.submit(a_request(), link=app.signature("far.away", args=(1,), queue="q"))

    (link,) = client.links
    outcome = {"task_id": handle.task_id, "state": "succeeded"}
    assert (link.task, link.args, link.queue) == ("far.away", (outcome, 1), "q")
    assert not link.is_applied


def test_a_link_that_cannot_be_stored_is_refused(client: MemoryClient) -> None:
    pipeline = Pipeline(client)

    with pytest.raises(callgate.InvalidLink, match="cannot keep countdown"):
        client.submit(a_request(), link=pipeline.store.s(1).set(countdown=5))


def test_time_passes_when_a_test_says_so(client: MemoryClient) -> None:
    client.script.reply("yes", latency_s=10)
    handle = client.submit(a_request())

    client.advance(9)
    states = [handle.state]
    client.advance(1)
    assert [*states, handle.state] == [CallState.RUNNING, CallState.SUCCEEDED]
    client.submit(a_request("another"))
    client.run()
    assert {record.state for record in client.submitted} == {CallState.SUCCEEDED}
