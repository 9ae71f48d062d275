"""Contexts of spans as OpenTelemetry has them, and as `callgate.domain.trace_context` writes them."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from callgate.domain import trace_context


def text_of(span: Span) -> str | None:
    """The context of a span; None if it is no span of a trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def span_context(traceparent: str | None) -> SpanContext | None:
    """The span that a text names, in another process; None if it names none."""
    if (text := trace_context.checked(traceparent)) is None:
        return None
    _, trace_id, span_id, flags = text.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def below(traceparent: str | None) -> tuple[Context | None, list[Link]]:
    """
    Where a span of this process belongs that goes on with work of another one, and what it is linked to.

    If a span is current in the same trace, for example that of an instrumentation of Celery, it belongs below that one
    (None). If one is current in another trace, it is linked.
    """
    theirs, current = span_context(traceparent), get_current_span().get_span_context()
    if theirs is None or (current.is_valid and current.trace_id == theirs.trace_id):
        return None, []
    links = [Link(current)] if current.is_valid else []
    return set_span_in_context(NonRecordingSpan(theirs), Context()), links
