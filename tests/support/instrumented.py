"""
Run a module of ours as its team would who traces Celery: OpenTelemetry's instrumentation of Celery, or Sentry's.

    python -m tests.support.instrumented otel MODULE [ARGUMENTS]
"""

from __future__ import annotations

import os
import runpy
import sys

SENTRY_DSN = "TEST_SENTRY_DSN"


def instrument(how: str) -> None:
    """Do what `opentelemetry-instrument` does, or what Sentry's guide for Celery says."""
    if how == "otel":
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        CeleryInstrumentor().instrument()
    else:
        import sentry_sdk
        from sentry_sdk.integrations.celery import CeleryIntegration

        sentry_sdk.init(
            os.environ[SENTRY_DSN],
            traces_sample_rate=1.0,
            integrations=[CeleryIntegration()],
            auto_enabling_integrations=False,
        )


if __name__ == "__main__":
    _, how, module, *arguments = sys.argv
    instrument(how)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
