"""Spans: one trace from submission to settlement, also if the ledger publishes the call. They hold no content."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.tracing import names
from callgate.adapters.tracing.endpoints import Endpoint, endpoints_of
from callgate.domain import trace_context
from callgate.domain.calls import CallKey, CallState
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.provider import Billing, Failure
from tests.support.service_world import REPLY, REPLY_COST, ServiceWorld, a_request
from tests.support.spans import Spans, id_of, parent_of, trace_of

REFUSED = Failure("bad_request", "secret words", False, Billing.UNBILLED, status=400)
BUSY = Failure("server_error", "later", True, Billing.UNBILLED, status=503)
A_CONTEXT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def world(spans: Spans) -> ServiceWorld:
    return ServiceWorld(tracing=spans.tracing())


def test_submission_call_request_and_settlement_are_one_trace(
    world: ServiceWorld, spans: Spans
) -> None:
    (answer,) = world.submit_traced(a_request())
    asyncio.run(world.run(answer.key))
    submit, call = spans.the("callgate.submit"), spans.the("callgate.call")
    chat, settle = spans.the("chat sim-1"), spans.the("callgate.settle")
    assert len({trace_of(span) for span in (submit, call, chat, settle)}) == 1
    assert parent_of(submit) is None
    assert [parent_of(span) for span in (call, chat, settle)] == [
        id_of(submit), id_of(call), id_of(call),
    ]  # fmt: skip
    kinds = [span.kind for span in (submit, call, chat, settle)]
    assert kinds == [SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT, SpanKind.CONSUMER]
    assert not any(span.status.status_code is StatusCode.ERROR for span in spans.ended)


def test_a_submission_goes_on_in_the_trace_of_its_caller(world: ServiceWorld, spans: Spans) -> None:
    with spans.tracer().start_as_current_span("document"):
        world.submit_traced(a_request())
    assert parent_of(spans.the("callgate.submit")) == id_of(spans.the("document"))


def test_a_span_of_a_request_has_the_attributes_of_the_conventions(spans: Spans) -> None:
    endpoints = {"sim": Endpoint("mistral", {names.SERVER_ADDRESS: "api.example"})}
    world = ServiceWorld(tracing=spans.tracing(endpoints=endpoints))
    (answer,) = world.submit_traced(a_request(temperature=0.5, seed=7))
    asyncio.run(world.run(answer.key))
    attributes = spans.the("chat sim-1").attributes or {}
    assert {n: v for n, v in attributes.items() if not n.startswith("callgate.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "sim-1",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "sim-1-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "server.address": "api.example",
    }


def test_the_names_are_those_of_the_installed_conventions() -> None:
    known = {v for n, v in vars(gen_ai_attributes).items() if n.startswith("GEN_AI")}
    ours = {v for v in vars(names).values() if isinstance(v, str) and v.startswith("gen_ai.")}
    assert ours <= known
    assert len(ours) > 15
    providers = {p.value for p in gen_ai_attributes.GenAiProviderNameValues}
    assert set(names.PROVIDERS.values()) <= providers


def test_a_span_of_a_settlement_says_what_it_cost(world: ServiceWorld, spans: Spans) -> None:
    (answer,) = world.submit_traced(a_request(trace_id="case 7"))
    asyncio.run(world.run(answer.key))
    attributes = spans.the("callgate.settle").attributes or {}
    assert attributes["callgate.cost_nano_usd"] == REPLY_COST
    assert attributes["callgate.state"] == "succeeded"
    assert attributes["callgate.trace_id"] == "case 7"
    assert attributes["callgate.call_id"] == str(answer.key.call_id)


def test_a_failure_is_the_status_of_its_spans_and_its_words_are_in_none(
    world: ServiceWorld, spans: Spans
) -> None:
    world.provider.script = [REFUSED]
    (answer,) = world.submit_traced(a_request())
    asyncio.run(world.run(answer.key))
    failed = {
        span.name: (span.attributes or {})["error.type"]
        for span in spans.ended
        if span.status.status_code is StatusCode.ERROR
    }
    assert failed == dict.fromkeys(
        ("chat sim-1", "callgate.call", "callgate.settle"), "bad_request"
    )
    assert (spans.the("chat sim-1").attributes or {})["http.response.status_code"] == 400
    assert "secret words" not in "".join(span.to_json() for span in spans.ended)


def test_a_retry_that_the_ledger_publishes_is_in_the_same_trace(
    world: ServiceWorld, spans: Spans
) -> None:
    world.provider.script = [BUSY]
    (answer,) = world.submit_traced(a_request())
    view = asyncio.run(world.run(answer.key))
    assert view.state is CallState.WAITING
    world.clock.pass_time(60)
    world.due.run()
    assert asyncio.run(world.run(answer.key)).state is CallState.SUCCEEDED
    submit = spans.the("callgate.submit")
    first, second = spans.named("callgate.call")
    assert parent_of(first) == parent_of(second) == id_of(submit)
    assert {trace_of(span) for span in spans.ended} == {trace_of(submit)}


def test_an_attempt_that_recovery_settles_is_in_the_trace_too(
    world: ServiceWorld, spans: Spans
) -> None:
    (answer,) = world.submit_traced(a_request())
    asyncio.run(world.llm.execute(answer.key))
    world.queue.settle_tasks.clear()
    world.clock.pass_time(600)
    world.due.run()
    settle = spans.the("callgate.settle")
    assert parent_of(settle) == id_of(spans.the("callgate.submit"))
    assert settle.kind is SpanKind.INTERNAL


def test_a_redriven_call_goes_on_in_its_trace(world: ServiceWorld, spans: Spans) -> None:
    world.provider.script = [REFUSED]
    (answer,) = world.submit_traced(a_request())
    asyncio.run(world.run(answer.key))
    world.dead_letters.redrive([answer.key])
    again = CallKey(answer.key.call_id, 2)
    asyncio.run(world.run(again))
    assert len(spans.named("callgate.call")) == 2
    assert {trace_of(span) for span in spans.ended} == {trace_of(spans.the("callgate.submit"))}


def test_a_duplicate_is_linked_to_the_call_that_it_joined(
    world: ServiceWorld, spans: Spans
) -> None:
    world.submit_traced(a_request())
    (answer,) = world.submit_traced(a_request())
    assert answer.outcome is SubmitOutcome.JOINED
    first, second = spans.named("callgate.submit")
    (link,) = second.links
    assert link.context.span_id == id_of(first)
    assert trace_of(second) != trace_of(first)
    assert not first.links


def test_two_messages_of_one_call_leave_one_span(world: ServiceWorld, spans: Spans) -> None:
    (answer,) = world.submit_traced(a_request())
    asyncio.run(world.run(answer.key))
    asyncio.run(world.llm.execute(answer.key))
    assert len(spans.named("callgate.call")) == 1


def test_a_current_span_of_the_same_trace_is_the_parent(world: ServiceWorld, spans: Spans) -> None:
    tracer = spans.tracer()
    with tracer.start_as_current_span("document"):
        (answer,) = world.submit_traced(a_request())
        with tracer.start_as_current_span("run/callgate.call"):
            asyncio.run(world.llm.execute(answer.key))
    assert parent_of(spans.the("callgate.call")) == id_of(spans.the("run/callgate.call"))


def test_a_current_span_of_another_trace_is_linked(world: ServiceWorld, spans: Spans) -> None:
    (answer,) = world.submit_traced(a_request())
    with spans.tracer().start_as_current_span("run/callgate.call"):
        asyncio.run(world.llm.execute(answer.key))
    call = spans.the("callgate.call")
    assert parent_of(call) == id_of(spans.the("callgate.submit"))
    assert [link.context.span_id for link in call.links] == [id_of(spans.the("run/callgate.call"))]


def test_a_submitter_without_a_trace_leaves_the_worker_its_own(
    world: ServiceWorld, spans: Spans
) -> None:
    answer = world.submit()
    asyncio.run(world.run(answer.key))
    call, settle = spans.the("callgate.call"), spans.the("callgate.settle")
    assert parent_of(call) is None
    assert parent_of(settle) == id_of(call)


def test_what_is_not_sampled_leaves_no_span_and_decides_for_the_workers() -> None:
    spans = Spans(sampler=ALWAYS_OFF)
    world = ServiceWorld(tracing=spans.tracing())
    (answer,) = world.submit_traced(a_request())
    kept = world.view(answer.key).traceparent
    assert kept is not None
    assert int(kept[-2:], 16) & TraceFlags.SAMPLED == 0
    assert not spans.ended


@pytest.mark.parametrize("with_content", [False, True])
def test_messages_are_in_spans_only_if_a_setting_asks(spans: Spans, with_content: bool) -> None:
    world = ServiceWorld(tracing=spans.tracing(with_content=with_content))
    (answer,) = world.submit_traced(a_request("a very private question"))
    asyncio.run(world.run(answer.key))
    exported = "".join(span.to_json() for span in spans.ended)
    assert ("a very private question" in exported) is with_content
    assert ("gen_ai.output.messages" in exported) is with_content


def test_content_is_cut() -> None:
    messages = a_request("x" * 60_000).messages + a_request("y" * 60_000).messages
    written = json.loads(names.input_messages(messages))
    texts = [message["parts"][0]["content"] for message in written]
    assert [len(text) for text in texts] == [60_000, names.CONTENT_CHARS_MAX - 60_000]
    assert json.loads(names.output_messages(REPLY))[0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "value",
    [
        "", None, 7, "00", A_CONTEXT + "0", A_CONTEXT.replace("00-", "01-"), A_CONTEXT.upper() + "\n",
        "00-" + "0" * 32 + "-" + "2" * 16 + "-01", "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "g" * 32 + "-" + "2" * 16 + "-01", ["x"], A_CONTEXT[:-1] + "\n",
    ],
)  # fmt: skip
def test_a_malformed_context_is_none(value: object) -> None:
    assert trace_context.checked(value) is None


def test_a_well_formed_context_is_kept() -> None:
    assert trace_context.checked(A_CONTEXT) == A_CONTEXT


def test_a_malformed_context_in_the_ledger_is_ignored(world: ServiceWorld, spans: Spans) -> None:
    new = world.submits.prepare(a_request(), traceparent="nonsense")
    (answer,) = world.ledger.submit([new])
    assert answer.outcome is SubmitOutcome.CREATED
    asyncio.run(world.run(answer.key))
    assert parent_of(spans.the("callgate.call")) is None


def test_a_context_identifies_nothing(world: ServiceWorld) -> None:
    plain, traced = (
        world.submits.prepare(a_request(), traceparent=context) for context in (None, A_CONTEXT)
    )
    same = UUID(int=0)
    assert replace(plain, submission_id=same) == replace(
        traced, submission_id=same, traceparent=None
    )


def test_the_endpoints_of_the_shipped_catalogue_have_hosts() -> None:
    catalogue = load_catalogue(None)
    assert endpoints_of(catalogue).keys() == catalogue.providers.keys()
    entry = ProviderEntry(base_url="https://api.example/v1")
    (endpoint,) = endpoints_of(Catalogue(providers={"x": entry})).values()
    assert endpoint.attributes == {"server.address": "api.example", "server.port": 443}
