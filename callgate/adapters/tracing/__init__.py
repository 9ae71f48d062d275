"""Spans of OpenTelemetry. Only `callgate.tracing` imports this package, and only if a setting asks for spans."""
