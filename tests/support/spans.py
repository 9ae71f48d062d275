"""Spans that stay in memory."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Tracer

from callgate.adapters.tracing.endpoints import Endpoint
from callgate.adapters.tracing.spans import OtelTracing


class Spans:
    """A tracer provider of its own, and what it has exported."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def tracer(self) -> Tracer:
        """A tracer of the test."""
        return self.provider.get_tracer("test")

    def tracing(
        self, *, with_content: bool = False, endpoints: dict[str, Endpoint] | None = None
    ) -> OtelTracing:
        """callgate's tracing over this provider."""
        return OtelTracing(
            self.provider.get_tracer("callgate"), endpoints=endpoints, with_content=with_content
        )

    @property
    def ended(self) -> list[ReadableSpan]:
        """All spans that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those with this name."""
        return [span for span in self.ended if span.name == name]

    def the(self, name: str) -> ReadableSpan:
        """The only one with this name."""
        (span,) = self.named(name)
        return span


def parent_of(span: ReadableSpan) -> int | None:
    """The id of the span above."""
    return int(span.parent.span_id) if span.parent else None


def id_of(span: ReadableSpan) -> int:
    """The span's own id."""
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    """The id of its trace."""
    assert span.context is not None
    return int(span.context.trace_id)
