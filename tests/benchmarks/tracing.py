"""
Measure what tracing costs in CPU: `python -m tests.benchmarks.tracing`. It prints one JSON object.

Each call is submitted, run and settled over the ledger in memory, so nothing but callgate's own code is measured. The
spans are made and batched, and not sent. The figures are medians of runs that alternate.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from uuid import uuid4

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from callgate.adapters.tracing.spans import OtelTracing
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.ledger import Reserved
from callgate.services.tracing import NO_TRACING, Tracing
from tests.support.service_world import ServiceWorld, a_request

CALLS = 200
RUNS = 9
EMPTY = 20_000


class Nowhere(SpanExporter):
    """Takes spans and drops them."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to close."""


def an_otel() -> Tracing:
    """Tracing as a worker has it, without the network."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return OtelTracing(provider.get_tracer("benchmark"), close=provider.shutdown)


def cpu_us(tracing: Tracing) -> float:
    """CPU of one call in microseconds."""
    world = ServiceWorld(limit_nano_usd=10**15, tracing=tracing)
    requests = [a_request(str(n)) for n in range(CALLS)]
    began = time.process_time()

    async def run() -> None:
        for request in requests:
            (answer,) = world.submit_traced(request)
            await world.run(answer.key)

    asyncio.run(run())
    spent_us = (time.process_time() - began) / CALLS * 1e6
    tracing.close()
    return spent_us


def empty_us() -> float:
    """CPU in microseconds of all that a call asks of `NO_TRACING`."""
    request, key = a_request(), CallKey(uuid4(), 1)
    claim = Reserved(AttemptRef(key, uuid4()), 1, 0)
    began = time.process_time()
    for _ in range(EMPTY):
        with NO_TRACING.submission((request,)) as submission:
            submission.answered(())
        with NO_TRACING.call() as call:
            call.ended(None)  # type: ignore[arg-type]
        with NO_TRACING.request(request, claim) as span:
            span.answered(())
        NO_TRACING.settlement(())
        with NO_TRACING.within(None):
            pass
    return (time.process_time() - began) / EMPTY * 1e6


def median(measure: Callable[[], float]) -> float:
    """The median of some runs."""
    return statistics.median(measure() for _ in range(RUNS))


def main() -> None:
    """Measure and print."""
    off: list[float] = []
    on: list[float] = []
    for _ in range(RUNS):
        off.append(cpu_us(NO_TRACING))
        on.append(cpu_us(an_otel()))
    figures = {
        "calls": CALLS,
        "runs": RUNS,
        "off_us_per_call": round(statistics.median(off), 1),
        "on_us_per_call": round(statistics.median(on), 1),
        "empty_methods_us_per_call": round(median(empty_us), 2),
    }
    print(json.dumps(figures, indent=2))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
