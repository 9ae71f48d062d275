"""callgate in a pipeline's process: nothing on standard output, and the pipeline's own logging is used."""

from __future__ import annotations

import subprocess
import sys

from tests.support.deployment import CHECKOUT

SUBMIT = """
from tests.support.memory_client import client_over
from tests.support.service_world import ServiceWorld, a_request

world = ServiceWorld()
world.queue.is_away = True
tags = {"type": "array", "uniqueItems": True}
loose = {"type": "object", "properties": {"tags": tags}, "required": ["tags"]}
client_over(world).submit(a_request(response_schema=loose))
"""
"""It logs two warnings: a schema that is not strict, and a broker that does not answer."""
EVENTS = ("schema.left_unchanged", "submission.publish_failed")


def submit(*before: str) -> tuple[str, str]:
    """Submit in a process of its own, after these lines. Returns its stdout and its stderr."""
    code = "\n".join((*before, SUBMIT))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_a_client_without_logging_configuration_writes_nothing_to_stdout() -> None:
    """A pipeline may write data there."""
    out, err = submit()

    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == list(EVENTS)


def test_a_pipeline_can_silence_events_with_the_standard_logging() -> None:
    silence = "import logging; logging.getLogger('callgate').addHandler(logging.NullHandler())"

    assert submit(silence) == ("", "")


def test_events_go_where_the_pipeline_has_configured_structlog() -> None:
    """Also if that happens after callgate was imported."""
    out, err = submit(
        "import sys, structlog, callgate",
        "structlog.configure(",
        "    processors=[structlog.processors.JSONRenderer()],",
        "    logger_factory=structlog.PrintLoggerFactory(sys.stderr),",
        ")",
    )

    assert out == ""
    assert all(f'"event": "{event}"' in err for event in EVENTS)
