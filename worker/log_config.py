"""How a process of callgate writes its log: structlog's events and Celery's lines, in one form, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.types import EventDict

from callgate.cli.output import escape_control_chars, escape_what_cannot_be_written
from worker.line_counter import LineCounter

SUCCESS = "call.succeeded"


def _spell_out(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """What clients, providers and strangers on the broker chose must not steer the terminal that shows the log."""
    return {
        name: escape_control_chars(value, kept="\n\t") if isinstance(value, str) else value
        for name, value in event.items()
    }


def configure_logging(*, as_json: bool, with_successes: bool = True) -> LineCounter:
    """
    Send structlog and Celery's own log lines to stderr in one form.

    Returns:
        What counts repeated lines; the caller has it flush them.
    """
    escape_what_cannot_be_written()
    counter = LineCounter(left_out=frozenset() if with_successes else {SUCCESS})
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_spell_out, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[counter, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # One line per HTTP request or task is a second log of what ai_call_log has.
    for name in ("httpx", "httpx2", "openai", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return counter
