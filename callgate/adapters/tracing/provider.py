"""Where spans go: to the tracer provider of the process, or to one that a worker makes for itself."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider, Tracer

from callgate.version import __version__

SCOPE = "callgate"
CLOSE_MAX_MS = 5_000
UNNAMED = "unknown_service"
"""What OpenTelemetry names a service that no variable names."""


def tracer_of_process() -> Tracer:
    """A tracer of the global provider. Until the program sets one, its spans are not kept."""
    return trace.get_tracer(SCOPE, __version__)


def worker_tracer(service_name: str) -> tuple[Tracer, Callable[[], None]]:
    """
    A tracer that exports, and what exports the last spans.

    A provider that the process has already, for example by `opentelemetry-instrument`, is used as it is. Else one is
    made: OTLP over HTTP, as the variables of OpenTelemetry say (`OTEL_EXPORTER_OTLP_ENDPOINT`, ...).

    Raises:
        ImportError: The extra `callgate[tracing]` is not installed.
    """
    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        return tracer_of_process(), lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        resource = resource.merge(Resource({SERVICE_NAME: service_name}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def close() -> None:
        provider.force_flush(CLOSE_MAX_MS)

    return tracer_of_process(), close
