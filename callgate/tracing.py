"""Whether a process makes spans. OpenTelemetry is imported only if it does."""

from __future__ import annotations

from callgate.domain.errors import ConfigurationError
from callgate.services.tracing import NO_TRACING, Tracing
from callgate.settings import ClientSettings

MISSING = "CALLGATE_TRACING needs OpenTelemetry: pip install 'callgate[tracing]'"


def tracing_of(settings: ClientSettings) -> Tracing:
    """
    The tracing of a client: spans of the process's own tracer provider, if `CALLGATE_TRACING` asks for them.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if not settings.tracing:
        return NO_TRACING
    try:
        from callgate.adapters.tracing.provider import tracer_of_process
        from callgate.adapters.tracing.spans import OtelTracing
    except ImportError as exc:
        raise ConfigurationError(MISSING) from exc
    return OtelTracing(tracer_of_process())
