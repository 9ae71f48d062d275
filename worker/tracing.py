"""Whether a worker makes spans, and where they go. OpenTelemetry is imported only if it does."""

from __future__ import annotations

from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import ConfigurationError
from callgate.services.tracing import NO_TRACING, Tracing
from callgate.tracing import MISSING
from config.settings import WorkerSettings

SERVICE = "callgate-worker"


def tracing_of(settings: WorkerSettings, catalogue: Catalogue) -> Tracing:
    """
    The tracing of a worker: spans are exported as OpenTelemetry's variables say, if `CALLGATE_TRACING` asks for them.

    Raises:
        ConfigurationError: The extra `callgate[tracing]` is not installed.
    """
    if not settings.tracing:
        return NO_TRACING
    try:
        from callgate.adapters.tracing.endpoints import endpoints_of
        from callgate.adapters.tracing.provider import worker_tracer
        from callgate.adapters.tracing.spans import OtelTracing

        tracer, close = worker_tracer(SERVICE)
    except ImportError as exc:
        raise ConfigurationError(MISSING) from exc
    return OtelTracing(
        tracer,
        endpoints=endpoints_of(catalogue),
        with_content=settings.worker.tracing_content,
        close=close,
    )
