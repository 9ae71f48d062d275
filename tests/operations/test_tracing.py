"""Traces of real processes: client, worker and pipeline are one trace, and other tools show true durations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from callgate import Client
from devkit.simulator.simulator import Kind, Rule, Step
from tests.support.deployment import Deployment, Process, until
from tests.support.instrumented import SENTRY_DSN
from tests.support.pipeline import FILE, build_app
from tests.support.processes import worker_argv
from tests.support.span_receiver import SpanReceiver, a_span_receiver
from tests.support.spans import Spans, id_of, trace_of

LATENCY_S = 1.5
SLACK_S = 0.05
PATIENCE_S = 60.0
TRACED = {"CALLGATE_TRACING": "1"}


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with a_span_receiver() as receiver:
        yield receiver


@pytest.fixture
def spans() -> Spans:
    """Those of the client, which is this process."""
    return Spans()


@pytest.fixture
def client(deployment: Deployment, spans: Spans) -> Iterator[Client]:
    """A client that traces."""
    deployment.stop_workers()
    with Client(deployment.client.settings, tracing=spans.tracing()) as client:
        yield client


def instrumented_worker(deployment: Deployment, how: str, **changes: str) -> Process:
    """A worker in which another tool traces Celery."""
    program, *rest = worker_argv()
    module = rest.index("-m")
    argv = [program, *rest[:module], "-m", "tests.support.instrumented", how, *rest[module + 1 :]]
    return deployment.start("worker", argv, **changes).until_it_says("ready.")


def test_a_call_is_one_trace_from_its_submission_to_the_task_of_its_link(
    deployment: Deployment,
    client: Client,
    spans: Spans,
    receiver: SpanReceiver,
    tmp_path: Path,
) -> None:
    deployment.worker(**TRACED, **receiver.environ)
    argv = [sys.executable, "-m", "tests.support.instrumented", "otel", "tests.support.pipeline"]
    told = {FILE: str(tmp_path / "told"), "OTEL_SERVICE_NAME": "pipeline", **receiver.environ}
    pipeline = deployment.start("pipeline", argv, **told).until_it_says("ready.")
    store = build_app(deployment.environ["CALLGATE_BROKER_URL"]).tasks["pipeline.store"]
    deployment.provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])

    handle = client.submit(deployment.request(deployment.org()), link=store.s("document 7"))
    handle.get(timeout=PATIENCE_S)
    until(lambda: bool(receiver.named("run/pipeline.store")), PATIENCE_S)
    until(lambda: bool(receiver.named("callgate.link")), PATIENCE_S)
    until(lambda: bool(receiver.named("callgate.call")), PATIENCE_S)
    pipeline.kill()

    submit = spans.the("callgate.submit")
    call, chat = receiver.the("callgate.call"), receiver.the("chat sim-1")
    settle, link = receiver.the("callgate.settle"), receiver.the("callgate.link")
    stored = receiver.the("run/pipeline.store")
    everything = (call, chat, settle, link, stored)
    assert {span.trace_id for span in everything} == {f"{trace_of(submit):032x}"}
    above = f"{id_of(submit):016x}"
    assert [span.parent_id for span in everything] == [
        above, call.span_id, call.span_id, above, link.span_id,
    ]  # fmt: skip
    assert {span.service for span in everything} == {"callgate-worker", "pipeline"}

    assert LATENCY_S <= chat.duration_s <= call.duration_s
    assert call.began_ns <= chat.began_ns < chat.ended_ns <= call.ended_ns
    assert settle.began_ns >= chat.ended_ns
    assert settle.duration_s < LATENCY_S
    assert chat.attributes["gen_ai.request.model"] == "sim-1"
    assert chat.attributes["server.address"] == "127.0.0.1"
    assert not any(span.has_failed for span in everything)


def test_a_retry_that_waits_in_the_ledger_is_in_the_trace_of_its_submission(
    deployment: Deployment, client: Client, spans: Spans, receiver: SpanReceiver
) -> None:
    deployment.worker(**TRACED, **receiver.environ)
    steps = [Step(kind=Kind.STATUS, status=503), Step(text="late")]
    deployment.provider.script([Rule(reply=steps)])
    client.submit(deployment.request(deployment.org())).get(timeout=PATIENCE_S)
    until(lambda: len(receiver.named("callgate.settle")) == 2, PATIENCE_S)
    until(lambda: len(receiver.named("callgate.call")) == 2, PATIENCE_S)
    assert {span.trace_id for span in receiver.spans} == {
        f"{trace_of(spans.the('callgate.submit')):032x}"
    }
    assert sorted(span.has_failed for span in receiver.named("callgate.call")) == [False, True]


def test_the_instrumentation_of_celery_shows_how_long_calls_take(
    deployment: Deployment, client: Client, spans: Spans, receiver: SpanReceiver
) -> None:
    """It is in the same trace, and callgate's spans are below its spans."""
    instrumented_worker(deployment, "otel", **TRACED, **receiver.environ)
    deployment.provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
    client.submit(deployment.request(deployment.org())).get(timeout=PATIENCE_S)
    until(lambda: bool(receiver.named("run/callgate.log_call")), PATIENCE_S)
    until(lambda: bool(receiver.named("run/callgate.call")), PATIENCE_S)

    run, call = receiver.the("run/callgate.call"), receiver.the("callgate.call")
    log = receiver.the("run/callgate.log_call")
    assert run.trace_id == call.trace_id == log.trace_id
    assert run.trace_id == f"{trace_of(spans.the('callgate.submit')):032x}"
    assert call.parent_id == run.span_id
    assert LATENCY_S <= run.duration_s < call.duration_s + LATENCY_S
    assert log.duration_s < LATENCY_S


def test_sentry_shows_how_long_calls_take(
    deployment: Deployment, client: Client, receiver: SpanReceiver
) -> None:
    instrumented_worker(deployment, "sentry", **{SENTRY_DSN: receiver.sentry_dsn})
    deployment.provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
    client.submit(deployment.request(deployment.org())).get(timeout=PATIENCE_S)

    moment = datetime.fromisoformat

    def found(task: str) -> list[float]:
        return [
            (moment(t["timestamp"]) - moment(t["start_timestamp"])).total_seconds()
            for t in list(receiver.transactions)
            if t["transaction"] == task
        ]

    until(lambda: bool(found("callgate.call") and found("callgate.log_call")), PATIENCE_S)
    assert found("callgate.call")[0] >= LATENCY_S
    assert found("callgate.log_call")[0] < LATENCY_S
